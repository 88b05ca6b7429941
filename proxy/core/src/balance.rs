//! The endpoints of one cluster, the choice among them, and what is learned from how requests end.
//!
//! A pick draws two endpoints at random and takes the one with the lower cost,
//! `latency * failure penalty * (in flight + 1)` ("power of two choices" over peak EWMA, as in Finagle and linkerd),
//! with two changes that keep small and quiet clusters honest:
//!
//! * What is not known of an endpoint is assumed to be like its rival. A newborn, or one idle for long, is thereby
//!   compared by requests in flight alone: neither free nor, beside siblings that answer in 1 ms, starved by an
//!   initial guess of 30 ms.
//! * The cheaper one wins with odds of the fourth power of the costs' ratio. Twice the cost still gets 1 of 17, ten
//!   times the cost 1 of 10 000; equals share evenly even when requests come one at a time, where "always the
//!   cheaper" would send everything to whoever was fastest once.
//!
//! An endpoint that looks so dear that nobody chooses it would keep that look until it fades, in most of a minute. It is
//! looked at again: after `SECOND_LOOK_AGE` without an answer it wins one duel of 16, one request at a time, and a quicker
//! answer then counts for much more than an ordinary one.
//!
//! A failing endpoint gets dearer up to `FAILURE_PENALTY` times; neither the speed of its failures nor the idleness
//! they cause counts in its favour.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::endpoint::{Endpoint, Estimate, INITIAL_RTT, InFlight, Outcome, Reason};
use crate::model::{EndpointHealth, EndpointSetSpec, EndpointSpec, OutlierPolicy, TransportLabels};
use crate::names::{ClusterName, WorkloadName};
use crate::outlier::{Ejection, Probe, may_eject};

/// How much dearer an endpoint gets that fails always. 20: one that fails 1 % stays comparable (1.2 times), one that
/// fails 10 % loses nearly all duels (3 times).
const FAILURE_PENALTY: f32 = 20.0;

/// Added to every latency, in nanoseconds. 250 us: below that, differences are noise of scheduling and network.
const LATENCY_FLOOR: f32 = 250_000.0;

/// Weight of [`INITIAL_RTT`] against what was measured: decides only when nothing was.
const DOUBT: f32 = 0.001;

/// An endpoint without an answer for this long may be looked at again. 2 s: one that stays slow gets less than 2 % of 20
/// requests a second, and one that has recovered from a hundredfold latency is back within ten seconds.
const SECOND_LOOK_AGE: Duration = Duration::from_secs(2);

/// The odds with which it then wins a duel at least.
const SECOND_LOOK_ODDS: f32 = 1.0 / 16.0;

/// Random draws for a usable endpoint before looking at all of them.
const RANDOM_DRAWS: u32 = 4;

/// The endpoints of one cluster at one revision of its configuration. The endpoints' live state is shared with the
/// sets before and after.
#[derive(Debug)]
pub struct EndpointSet {
    name: ClusterName,
    endpoints: Box<[Arc<Endpoint>]>,
    policy: OutlierPolicy,
    shared: Arc<Shared>,
    /// The last panic verdict and the count of changes it was made at: `changes << 1 | panic`.
    verdict: AtomicU64,
}

/// What successive sets of one cluster share.
#[derive(Debug, Default)]
struct Shared {
    /// Counts ejections, returns and changes of health, each after it happened.
    changes: AtomicU32,
    /// One worker at a time counts the ejected and ejects; the others leave it to the next failure.
    ejecting: Mutex<()>,
}

/// An endpoint chosen and counted as in flight.
#[derive(Debug)]
pub struct Picked {
    pub in_flight: InFlight,
    /// So many endpoints are ejected that ejection was ignored.
    pub panic: bool,
}

/// Why no endpoint could be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PickFailure {
    #[error("the cluster has no endpoints: check that its service selects running workloads")]
    NoEndpoints,
    #[error("no endpoint of the cluster is ready: all are draining or unhealthy")]
    NoneReady,
    #[error("every usable endpoint of the cluster was tried already")]
    AllTried,
}

/// How an endpoint may be used.
enum Access {
    Open,
    Probe(Probe),
}

/// What one pick looks at, beside the endpoints.
struct View<'a> {
    now: Instant,
    tried: &'a [SocketAddr],
    panic: bool,
}

impl EndpointSet {
    /// Builds a set. An endpoint of `previous` with the same address and workload, reached in the same way, is carried over
    /// with its live state and takes the new health in place, which requests on the previous set see at once; so build only
    /// what will be used. Repeated endpoints count once.
    pub fn build(spec: &EndpointSetSpec, policy: OutlierPolicy, previous: Option<&Self>, now: Instant) -> Self {
        type Identity<'e> = (SocketAddr, &'e WorkloadName, Option<&'e TransportLabels>);
        let known: HashMap<Identity<'_>, &Arc<Endpoint>> = previous
            .into_iter()
            .flat_map(|previous| &previous.endpoints)
            .map(|endpoint| ((endpoint.address(), endpoint.workload(), endpoint.transport()), endpoint))
            .collect();
        let shared = previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.shared));
        let mut seen = HashSet::with_capacity(spec.endpoints.len());
        let endpoints = spec
            .endpoints
            .iter()
            .filter(|endpoint| seen.insert((endpoint.address, &endpoint.workload)))
            .map(|endpoint| match known.get(&(endpoint.address, &endpoint.workload, endpoint.transport.as_ref())) {
                Some(carried) => {
                    if carried.set_health(endpoint.health) {
                        shared.changes.fetch_add(1, Ordering::AcqRel);
                    }
                    Arc::clone(carried)
                }
                None => Arc::new(Endpoint::new(endpoint, now)),
            })
            .collect();
        Self { name: spec.name.clone(), endpoints, policy, shared, verdict: AtomicU64::new(u64::MAX) }
    }

    pub fn name(&self) -> &ClusterName {
        &self.name
    }

    /// What it was built from, as far as it was used.
    pub fn spec(&self) -> EndpointSetSpec {
        let spec = |endpoint: &Arc<Endpoint>| EndpointSpec {
            address: endpoint.address(),
            workload: endpoint.workload().clone(),
            health: endpoint.health(),
            transport: endpoint.transport().cloned(),
        };
        EndpointSetSpec { name: self.name.clone(), endpoints: self.endpoints.iter().map(spec).collect() }
    }

    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Endpoints that are out because of failures, for a gauge; looks at all of them.
    pub fn ejected(&self) -> usize {
        self.endpoints.iter().filter(|endpoint| endpoint.is_ejected()).count()
    }

    /// Changes health in place, as an active health check would; `false` when no endpoint has that address.
    pub fn set_health(&self, address: SocketAddr, health: EndpointHealth) -> bool {
        let mut found = false;
        for endpoint in self.endpoints.iter().filter(|endpoint| endpoint.address() == address) {
            found = true;
            if endpoint.set_health(health) {
                self.shared.changes.fetch_add(1, Ordering::AcqRel);
            }
        }
        found
    }

    /// Chooses an endpoint that is ready, not ejected and not in `tried`, and counts the request as in flight there.
    ///
    /// An endpoint whose ejection is over is chosen as soon as it is drawn, for one request at a time.
    /// When fewer than half of the ready endpoints remain, ejection is ignored: they would fall over in turn.
    pub fn pick(&self, now: Instant, rng: &mut Rng, tried: &[SocketAddr]) -> Result<Picked, PickFailure> {
        let view = View { now, tried, panic: self.is_panicking() };
        let Some((first, access)) = self.draw(None, &view, rng) else {
            return Err(self.failure());
        };
        let (chosen, reason) = match access {
            Access::Probe(probe) => (first, Reason::Probe(probe)),
            Access::Open => match self.draw(Some(first), &view, rng) {
                None => (first, Reason::Cost),
                Some((second, Access::Probe(probe))) => (second, Reason::Probe(probe)),
                Some((second, Access::Open)) => self.duel(first, second, now, rng),
            },
        };
        Ok(Picked { in_flight: self.endpoints[chosen].start_as(now, reason), panic: view.panic })
    }

    /// Learns how a request ended; only the first report of a request counts. Returns the ejection it led to.
    pub fn record(&self, request: &mut InFlight, now: Instant, outcome: Outcome, rng: &mut Rng) -> Option<Ejection> {
        if !request.claim_record() {
            return None;
        }
        match request.take_reason() {
            Reason::Probe(probe) => self.judge_probe(request, &probe, now, outcome, rng),
            Reason::SecondLook if outcome == Outcome::Success => {
                request.endpoint().measure_again(request.elapsed(now), now);
                request.endpoint().clear_failures();
                None
            }
            Reason::SecondLook | Reason::Cost => self.judge(request, now, outcome, rng),
        }
    }

    fn judge(&self, request: &InFlight, now: Instant, outcome: Outcome, rng: &mut Rng) -> Option<Ejection> {
        let endpoint = request.endpoint();
        endpoint.measure(request.elapsed(now), outcome, now);
        match outcome {
            Outcome::Abandoned => None,
            Outcome::Success => {
                endpoint.clear_failures();
                None
            }
            Outcome::Failure => {
                let limit = self.policy.consecutive_failures;
                let failures = endpoint.add_failure();
                if limit != 0 && failures >= limit { self.eject(endpoint, now, rng) } else { None }
            }
        }
    }

    fn judge_probe(
        &self,
        request: &InFlight,
        probe: &Probe,
        now: Instant,
        outcome: Outcome,
        rng: &mut Rng,
    ) -> Option<Ejection> {
        let endpoint = request.endpoint();
        let now_ms = endpoint.age_ms(now);
        match outcome {
            Outcome::Success => {
                // Before the return is visible: the first to see it must not find the old penalties.
                endpoint.measure_afresh(request.elapsed(now), now);
                if endpoint.standing().readmit(probe, now_ms) {
                    self.shared.changes.fetch_add(1, Ordering::AcqRel);
                }
                None
            }
            Outcome::Failure => {
                let duration = endpoint.standing().eject_again(probe, now_ms, &self.policy, rng)?;
                Some(Ejection { duration, again: true })
            }
            Outcome::Abandoned => {
                endpoint.standing().release(probe);
                None
            }
        }
    }

    /// Takes an endpoint out if the limit allows.
    fn eject(&self, endpoint: &Endpoint, now: Instant, rng: &mut Rng) -> Option<Ejection> {
        if endpoint.is_ejected() || !endpoint.is_ready() {
            return None;
        }
        // Counting and ejecting are one step, else two workers could each take out "the last one allowed".
        let _turn = match self.shared.ejecting.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            // Not worth blocking a worker: the endpoint's next failure comes here again.
            Err(TryLockError::WouldBlock) => return None,
        };
        let (mut ready, mut ejected, mut member) = (0, 0, false);
        for other in self.endpoints.iter().filter(|other| other.is_ready()) {
            ready += 1;
            ejected += usize::from(other.is_ejected());
            member |= std::ptr::eq(&raw const **other, endpoint);
        }
        if !member || !may_eject(ready, ejected, &self.policy) {
            // Counts anew, so that at the limit not every failure looks at all endpoints.
            endpoint.clear_failures();
            return None;
        }
        let duration = endpoint.standing().eject(endpoint.age_ms(now), &self.policy, rng)?;
        endpoint.clear_failures();
        self.shared.changes.fetch_add(1, Ordering::AcqRel);
        Some(Ejection { duration, again: false })
    }

    /// Whether fewer than half of the ready endpoints are usable because of ejection. Looks at all endpoints only
    /// after something changed.
    fn is_panicking(&self) -> bool {
        // Read before looking: what changes meanwhile makes this verdict outdated, not wrong for ever.
        let changes = u64::from(self.shared.changes.load(Ordering::Acquire));
        let verdict = self.verdict.load(Ordering::Relaxed);
        if verdict >> 1 == changes {
            return verdict & 1 == 1;
        }
        let ready = self.endpoints.iter().filter(|endpoint| endpoint.is_ready());
        let (ready, usable) =
            ready.fold((0, 0), |(ready, usable), endpoint| (ready + 1, usable + usize::from(!endpoint.is_ejected())));
        let panic = usable * 2 < ready;
        self.verdict.store(changes << 1 | u64::from(panic), Ordering::Relaxed);
        panic
    }

    /// A random usable endpoint other than `except`: a few draws, then a look at all from a random place.
    fn draw(&self, except: Option<usize>, view: &View<'_>, rng: &mut Rng) -> Option<(usize, Access)> {
        let count = self.endpoints.len() - usize::from(except.is_some());
        if count == 0 {
            return None;
        }
        let place = |nth: usize| nth + usize::from(except.is_some_and(|except| nth >= except));
        let access = |nth: usize| Some((place(nth), self.access(place(nth), view)?));
        for _ in 0..RANDOM_DRAWS {
            if let Some(found) = access(rng.usize(..count)) {
                return Some(found);
            }
        }
        let start = rng.usize(..count);
        (start..count).chain(0..start).find_map(access)
    }

    fn access(&self, index: usize, view: &View<'_>) -> Option<Access> {
        let endpoint = &self.endpoints[index];
        if !endpoint.is_ready() || view.tried.contains(&endpoint.address()) {
            return None;
        }
        if !endpoint.is_ejected() {
            return Some(Access::Open);
        }
        match endpoint.standing().claim_probe(endpoint.age_ms(view.now)) {
            Some(probe) => Some(Access::Probe(probe)),
            None => view.panic.then_some(Access::Open),
        }
    }

    fn duel(&self, first: usize, second: usize, now: Instant, rng: &mut Rng) -> (usize, Reason) {
        let [one, other] = [first, second].map(|index| &self.endpoints[index]);
        let rivals = [one, other].map(|endpoint| (endpoint.estimate(now), endpoint.in_flight()));
        let [cost_one, cost_other] = costs(rivals);
        let first_wins = odds(cost_one, cost_other);
        let [least, most] = [
            if is_due(rivals[0]) { SECOND_LOOK_ODDS } else { 0.0 },
            1.0 - if is_due(rivals[1]) { SECOND_LOOK_ODDS } else { 0.0 },
        ];
        let chance = rng.f32();
        let (chosen, natural) =
            if chance < first_wins.clamp(least, most) { (first, first_wins) } else { (second, 1.0 - first_wins) };
        (chosen, if natural < SECOND_LOOK_ODDS { Reason::SecondLook } else { Reason::Cost })
    }

    fn failure(&self) -> PickFailure {
        if self.endpoints.is_empty() {
            PickFailure::NoEndpoints
        } else if !self.endpoints.iter().any(|endpoint| endpoint.is_ready()) {
            PickFailure::NoneReady
        } else {
            PickFailure::AllTried
        }
    }
}

/// The costs of two rivals; what is unknown of one is taken from the other, and failing both from [`INITIAL_RTT`].
fn costs(rivals: [(Estimate, u32); 2]) -> [f32; 2] {
    let [one, other] = rivals.map(|(estimate, _)| estimate);
    let known = one.rtt * one.freshness + other.rtt * other.freshness + INITIAL_RTT.as_nanos() as f32 * DOUBT;
    let expected = known / (one.freshness + other.freshness + DOUBT);
    let busiest = rivals[0].1.max(rivals[1].1) as f32;
    rivals.map(|(estimate, in_flight)| {
        let rtt = estimate.rtt * estimate.freshness + expected * (1.0 - estimate.freshness) + LATENCY_FLOOR;
        // Who fails at once is never busy: being idle counts only as far as it succeeds, else an endpoint that
        // refuses everything would swallow all traffic of a busy cluster.
        let in_flight = in_flight as f32;
        let load = in_flight + (busiest - in_flight) * estimate.failures + 1.0;
        rtt * (1.0 + FAILURE_PENALTY * estimate.failures) * load
    })
}

/// Whether it was measured, but not lately, and nobody is looking.
fn is_due((estimate, in_flight): (Estimate, u32)) -> bool {
    in_flight == 0 && estimate.is_older_than(SECOND_LOOK_AGE)
}

/// The probability with which the first of two costs wins.
fn odds(first: f32, second: f32) -> f32 {
    1.0 / (1.0 + (first / second).powi(4))
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
