//! One endpoint: immutable facts and live state in atomics, shared by all workers and by successive snapshots.
//!
//! The live state has cache lines of its own, so that requests writing it do not slow readers of the facts or of
//! neighbours. Nothing here decides: [`crate::balance`] chooses and judges, this remembers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::model::{EndpointHealth, EndpointSpec, TransportLabels};
use crate::names::WorkloadName;
use crate::outlier::{Probe, Standing};

mod latency;

use latency::{FailureShare, PeakEwma};

/// What is assumed of an endpoint nobody has measured. 30 ms, as in linkerd: no newborn looks free.
pub(crate) const INITIAL_RTT: Duration = Duration::from_millis(30);

/// How a request ended, as far as the endpoint is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The endpoint did its work, whatever the answer means to the client (a 404 is a success).
    Success,
    /// The endpoint did not answer, or answered that it could not (connect error, reset, timeout, 5xx).
    Failure,
    /// The client gave up or another side failed: says nothing about the endpoint but that it took this long.
    Abandoned,
}

impl Outcome {
    /// Of an answer with this status of HTTP.
    pub fn of_status(status: u16) -> Self {
        if status < 500 { Self::Success } else { Self::Failure }
    }
}

/// One address of a cluster.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    workload: WorkloadName,
    transport: Option<TransportLabels>,
    /// Live state counts milliseconds from here, which lets a time fit into an atomic beside a value.
    born: Instant,
    live: Live,
}

#[derive(Debug)]
#[repr(align(64))]
struct Live {
    latency: PeakEwma,
    failures: FailureShare,
    standing: Standing,
    in_flight: AtomicU32,
    requests: AtomicU64,
    consecutive_failures: AtomicU32,
    health: AtomicU8,
}

const _: () = assert!(size_of::<Live>() <= 128, "a pick touches two endpoints; their live state stays small");

/// What is known of an endpoint's speed and reliability at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimate {
    /// Peak EWMA of the latency in nanoseconds; 0 when never measured.
    pub(crate) rtt: f32,
    /// How much of `rtt` still counts: 1 just measured, 0 never or long ago.
    pub(crate) freshness: f32,
    /// Recent share of failures, 0 to 1.
    pub(crate) failures: f32,
}

impl Estimate {
    /// Whether something was measured, and nothing for this long.
    pub(crate) fn is_older_than(&self, age: Duration) -> bool {
        self.freshness > 0.0 && self.freshness < latency::freshness_after(age)
    }
}

impl Endpoint {
    pub fn new(spec: &EndpointSpec, now: Instant) -> Self {
        Self {
            address: spec.address,
            workload: spec.workload.clone(),
            transport: spec.transport.clone(),
            born: now,
            live: Live {
                latency: PeakEwma::default(),
                failures: FailureShare::default(),
                standing: Standing::default(),
                in_flight: AtomicU32::new(0),
                requests: AtomicU64::new(0),
                consecutive_failures: AtomicU32::new(0),
                health: AtomicU8::new(encode_health(spec.health)),
            },
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn workload(&self) -> &WorkloadName {
        &self.workload
    }

    /// What it says of how it is reached. An endpoint that says something else is another one: no connection to the one
    /// serves the other.
    pub fn transport(&self) -> Option<&TransportLabels> {
        self.transport.as_ref()
    }

    /// Health as its source says; ejection is another matter.
    pub fn health(&self) -> EndpointHealth {
        decode_health(self.live.health.load(Relaxed))
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.health() == EndpointHealth::Ready
    }

    /// Returns whether that was news.
    pub(crate) fn set_health(&self, health: EndpointHealth) -> bool {
        let health = encode_health(health);
        self.live.health.swap(health, Relaxed) != health
    }

    /// Requests or connections that were ever started here.
    pub fn requests(&self) -> u64 {
        self.live.requests.load(Relaxed)
    }

    /// Requests under way.
    pub fn in_flight(&self) -> u32 {
        self.live.in_flight.load(Relaxed)
    }

    /// Whether it is out because of failures, its guarded return included.
    pub fn is_ejected(&self) -> bool {
        !self.live.standing.is_admitted()
    }

    /// Peak EWMA of the latency as last written; `None` before the first measurement.
    pub fn latency(&self) -> Option<Duration> {
        let rtt = self.live.latency.value();
        (rtt > 0.0).then(|| Duration::from_nanos(rtt as u64))
    }

    /// Counts a request as under way until the returned value is dropped.
    pub fn start(self: &Arc<Self>, now: Instant) -> InFlight {
        self.start_as(now, Reason::Cost)
    }

    pub(crate) fn start_as(self: &Arc<Self>, now: Instant, reason: Reason) -> InFlight {
        self.live.in_flight.fetch_add(1, Relaxed);
        self.live.requests.fetch_add(1, Relaxed);
        InFlight { endpoint: Arc::clone(self), started: now, reason, recorded: false }
    }

    pub(crate) fn standing(&self) -> &Standing {
        &self.live.standing
    }

    pub(crate) fn estimate(&self, now: Instant) -> Estimate {
        let now = self.age_ms(now);
        let (rtt, freshness) = self.live.latency.read(now);
        Estimate { rtt, freshness, failures: self.live.failures.read(now) }
    }

    /// Milliseconds since birth: the clock of the live state.
    pub(crate) fn age_ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.born).as_millis() as u64
    }

    /// Takes a latency and a verdict into the averages.
    ///
    /// Only a success may lower the latency: a request that fails in a millisecond is not a fast one.
    pub(crate) fn measure(&self, latency: Duration, outcome: Outcome, now: Instant) {
        let now = self.age_ms(now);
        match outcome {
            Outcome::Success => {
                self.live.latency.observe(latency, now);
                self.live.failures.observe(false, now);
            }
            Outcome::Failure => {
                self.live.latency.observe_at_least(latency, now);
                self.live.failures.observe(true, now);
            }
            Outcome::Abandoned => self.live.latency.observe_at_least(latency, now),
        }
    }

    /// Takes a success into the averages that came of looking again at what seemed slow.
    pub(crate) fn measure_again(&self, latency: Duration, now: Instant) {
        let now = self.age_ms(now);
        self.live.latency.observe_again(latency, now);
        self.live.failures.observe(false, now);
    }

    /// Forgets what was measured and starts over with one good answer: what a failed process did says nothing
    /// about the one that replaced it.
    pub(crate) fn measure_afresh(&self, latency: Duration, now: Instant) {
        self.live.latency.restart(latency, self.age_ms(now));
        self.live.failures.restart();
        self.clear_failures();
    }

    /// Failures in a row, this one included.
    pub(crate) fn add_failure(&self) -> u32 {
        self.live.consecutive_failures.fetch_add(1, Relaxed).saturating_add(1)
    }

    pub(crate) fn clear_failures(&self) {
        // Read first: the common success must not take the cache line from other workers.
        if self.live.consecutive_failures.load(Relaxed) != 0 {
            self.live.consecutive_failures.store(0, Relaxed);
        }
    }
}

/// Why an endpoint was chosen.
#[derive(Debug)]
pub(crate) enum Reason {
    /// It was the cheaper one, or nearly, or the only one.
    Cost,
    /// It seemed far too dear, but that was long ago.
    SecondLook,
    /// The guarded return of an ejected one.
    Probe(Probe),
}

/// A request, or a connection, under way at an endpoint; dropping it ends that.
///
/// What happened is told once with [`crate::balance::EndpointSet::record`], at the latest before the drop; a proxy
/// that knows the outcome early (a connection made, a response's head read) tells it then and keeps this while
/// bytes flow. A guarded return whose outcome is never told lets another request try.
#[derive(Debug)]
#[must_use = "the request counts as under way only as long as this is kept"]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
    started: Instant,
    reason: Reason,
    recorded: bool,
}

impl InFlight {
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// How long it has been under way.
    pub fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// Whether this is the guarded return of an ejected endpoint.
    pub fn is_probe(&self) -> bool {
        matches!(self.reason, Reason::Probe(_))
    }

    /// The first caller gets to tell the outcome.
    pub(crate) fn claim_record(&mut self) -> bool {
        !std::mem::replace(&mut self.recorded, true)
    }

    pub(crate) fn take_reason(&mut self) -> Reason {
        std::mem::replace(&mut self.reason, Reason::Cost)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.live.in_flight.fetch_sub(1, Relaxed);
        if let Reason::Probe(probe) = &self.reason {
            self.endpoint.live.standing.release(probe);
        }
    }
}

fn encode_health(health: EndpointHealth) -> u8 {
    match health {
        EndpointHealth::Ready => 0,
        EndpointHealth::Draining => 1,
        EndpointHealth::Unhealthy => 2,
    }
}

fn decode_health(health: u8) -> EndpointHealth {
    match health {
        0 => EndpointHealth::Ready,
        1 => EndpointHealth::Draining,
        _ => EndpointHealth::Unhealthy,
    }
}

#[cfg(test)]
mod tests;
