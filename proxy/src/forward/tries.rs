//! Which endpoint is asked next, when another one may be, and what the balancer is told.
//!
//! Where the route says nothing of retries, one further endpoint is asked when no application can have acted on the request,
//! or acting twice is the same as once; more of them while nobody has even seen it. What a route says takes the place of that.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use weft_core::balance::PickFailure;
use weft_core::endpoint::{InFlight, Outcome};
use weft_core::retry::{Lost, RetryPolicy, Verdict};

use super::Service;
use super::timer::Timer;
use crate::clock;
use crate::failure::{Blame, Failure, Retry};
use crate::state::Cluster;
use crate::telemetry::Edge;

/// Tries on other endpoints after the first, where no policy says how many. One: what fails twice in a row is rarely
/// cured by a third endpoint, and retries multiply load when there is least to spare.
const RETRIES: usize = 1;

/// The same, where no application has seen the request: another try costs a connection and no work. Four: pods of a service
/// end together, when it is scaled down or their node goes, and for a moment most of those that are known are gone.
const UNSEEN_RETRIES: usize = 4;

/// Where a request goes, and the signals of that edge.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) cluster: Arc<Cluster>,
    pub(super) edge: Rc<Edge>,
}

impl Target {
    /// Tells the balancer how it went, and counts an ejection that follows.
    pub(super) fn record(&self, service: &Service<'_>, mut in_flight: InFlight, outcome: Outcome, now: Instant) {
        let endpoints = self.cluster.endpoints();
        let address = in_flight.endpoint().address();
        let ejection = service.worker.chance(|chance| endpoints.record(&mut in_flight, now, outcome, chance));
        if let Some(ejection) = ejection {
            self.edge.ejections.increment(1);
            tracing::info!(
                cluster = %self.cluster.spec.name, endpoint = %address, seconds = ejection.duration.as_secs_f32(),
                again = ejection.again, "endpoint ejected"
            );
        }
    }
}

/// How much of a request is on its way, and what sending it again would mean.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    /// Not one byte was written.
    pub(super) nothing: bool,
    /// All that was written can be written again.
    pub(super) is_whole: bool,
    pub(super) is_idempotent: bool,
}

/// The endpoints that one request has been sent to, and those it still may.
#[derive(Debug)]
pub(super) struct Tries {
    policy: Option<Arc<RetryPolicy>>,
    /// Those that failed. Nothing is allocated for a request that none fails.
    tried: Vec<SocketAddr>,
    last_failure: Option<Failure>,
}

impl Tries {
    pub(super) fn new(policy: Option<Arc<RetryPolicy>>) -> Self {
        Self { policy, tried: Vec::new(), last_failure: None }
    }

    /// How long each of them may take.
    pub(super) fn per_try_timeout(&self) -> Option<Duration> {
        self.policy.as_ref()?.per_try_timeout
    }

    /// An endpoint that was not tried yet; by a policy's word one that was, when there is no other.
    ///
    /// # Errors
    /// The failure of the last try, when there is nobody left: it says more. Else why there is nobody.
    pub(super) fn pick(&self, service: &Service<'_>, target: &Target, now: Instant) -> Result<InFlight, Failure> {
        let endpoints = target.cluster.endpoints();
        let pick = |tried: &[SocketAddr]| service.worker.chance(|chance| endpoints.pick(now, chance, tried));
        let picked = match pick(&self.tried) {
            Err(PickFailure::AllTried) if self.policy.is_some() => pick(&[]),
            picked => picked,
        };
        match picked {
            Ok(pick) => {
                if pick.panic {
                    target.edge.panics.increment(1);
                }
                Ok(pick.in_flight)
            }
            Err(failure) => Err(self.last_failure.unwrap_or(match failure {
                PickFailure::NoEndpoints => Failure::NoEndpoints,
                PickFailure::NoneReady | PickFailure::AllTried => Failure::NoneAvailable,
            })),
        }
    }

    /// Another try may follow one that ended so.
    pub(super) fn may_follow(&self, failure: Failure, sent: Sent) -> bool {
        let Some(policy) = &self.policy else {
            return self.tried.len() < without_policy(failure) && may_repeat(failure, sent);
        };
        let lost = match failure {
            Failure::ConnectRefused
            | Failure::ConnectTimeout
            | Failure::PeerIdentity
            | Failure::ApplicationUnreachable => Lost::NotReached,
            Failure::UpstreamRefused => Lost::Refused,
            Failure::UpstreamClosed
            | Failure::UpstreamReset
            | Failure::UpstreamProtocol
            | Failure::UpstreamLimit
            | Failure::PerTryTimeout => Lost::NoAnswer,
            _ => return false,
        };
        self.allows(policy.on.of_loss(lost, sent.nothing), sent)
    }

    fn allows(&self, verdict: Verdict, sent: Sent) -> bool {
        let is_called_for = match verdict {
            Verdict::No => false,
            Verdict::IfIdempotent => sent.is_idempotent,
            Verdict::Yes => true,
        };
        is_called_for && (sent.is_whole || sent.nothing) && self.are_left()
    }

    fn are_left(&self) -> bool {
        self.policy.as_ref().is_some_and(|policy| self.tried.len() < policy.retries as usize)
    }

    /// The endpoint failed. When the request may be sent again, it is after this wait.
    ///
    /// # Errors
    /// `failure`, where no other try may follow, and when the failure is the client's.
    pub(super) fn failed(
        &mut self,
        service: &Service<'_>,
        target: &Target,
        in_flight: InFlight,
        failure: Failure,
        sent: Sent,
    ) -> Result<Duration, Failure> {
        let endpoint = in_flight.endpoint().address();
        // Neither is the endpoint's fault.
        if failure.facts().blame == Blame::Client || failure == Failure::ProtocolMismatch {
            target.record(service, in_flight, Outcome::Abandoned, clock::now());
            return Err(failure);
        }
        target.record(service, in_flight, Outcome::Failure, clock::now());
        if !self.may_follow(failure, sent) {
            return Err(failure);
        }
        tracing::debug!(%endpoint, code = failure.facts().code, "trying another endpoint");
        self.last_failure = Some(failure);
        Ok(self.next(service, target, endpoint))
    }

    /// The endpoint to ask instead, when the policy wants none of this answer, and the wait before that. An answer is
    /// given up only where somebody can be asked.
    pub(super) fn instead_of(
        &mut self,
        service: &Service<'_>,
        target: &Target,
        in_flight: &InFlight,
        (status, grpc): (u16, Option<u8>),
        sent: Sent,
    ) -> Option<(InFlight, Duration)> {
        let verdict = self.policy.as_ref()?.on.of_answer(status, grpc);
        if !self.allows(verdict, sent) {
            return None;
        }
        let endpoint = in_flight.endpoint().address();
        self.tried.push(endpoint);
        let picked = self.pick(service, target, clock::now());
        self.tried.pop();
        let picked = picked.ok()?;
        tracing::debug!(%endpoint, status, "trying another endpoint");
        let wait = self.next(service, target, endpoint);
        Some((picked, wait))
    }

    fn next(&mut self, service: &Service<'_>, target: &Target, endpoint: SocketAddr) -> Duration {
        target.edge.retries.increment(1);
        let done = u32::try_from(self.tried.len()).unwrap_or(u32::MAX);
        self.tried.push(endpoint);
        self.policy
            .as_ref()
            .map_or(Duration::ZERO, |policy| service.worker.chance(|chance| policy.back_off.wait(done, chance)))
    }
}

/// Tries that may follow a failure where no policy says how many.
fn without_policy(failure: Failure) -> usize {
    match failure {
        // At once, unlike the wait for a connection that nobody answers.
        Failure::ConnectRefused | Failure::ApplicationUnreachable | Failure::UpstreamRefused => UNSEEN_RETRIES,
        _ => RETRIES,
    }
}

/// Only when no application can have acted on the request, or acting twice is the same as once: the rule without a
/// policy, and for a kept connection that turns out to be closed.
pub(super) fn may_repeat(failure: Failure, sent: Sent) -> bool {
    match failure.facts().retry {
        Retry::Never => false,
        Retry::NothingSent => sent.is_whole || sent.nothing,
        Retry::IfIdempotent => sent.is_whole && sent.is_idempotent,
    }
}

/// The time one try has got for the head of its answer: from its beginning, or from when all of the request was passed
/// on, as how long that takes is the client's.
#[derive(Debug)]
pub(super) struct TryClock {
    /// Boxed: few routes limit a try, and all requests would be larger.
    limited: Option<Box<Limited>>,
    /// The request is on its way: before that, the endpoint has seen nothing of it.
    pub(super) has_reached: bool,
}

#[derive(Debug)]
struct Limited {
    limit: Duration,
    since: Option<Instant>,
    timer: Timer,
}

impl TryClock {
    /// `is_bare`: the request is nothing but its head.
    pub(super) fn start(limit: Option<Duration>, is_bare: bool) -> Self {
        let limited = |limit| Limited { limit, since: is_bare.then(clock::now), timer: Timer::default() };
        Self { limited: limit.map(|limit| Box::new(limited(limit))), has_reached: false }
    }

    /// When it is over, if that can be told yet.
    pub(super) fn end(&self) -> Option<Instant> {
        let limited = self.limited.as_ref()?;
        Some(limited.since? + limited.limit)
    }

    /// Ready when it is over. `is_sent`: all of the request was passed on.
    pub(super) fn poll(&mut self, is_sent: bool, cx: &mut Context<'_>) -> Poll<()> {
        let Some(limited) = &mut self.limited else { return Poll::Pending };
        if limited.since.is_none() && is_sent {
            limited.since = Some(clock::now());
        }
        match limited.since {
            Some(since) => limited.timer.poll(since + limited.limit, cx),
            None => Poll::Pending,
        }
    }
}
