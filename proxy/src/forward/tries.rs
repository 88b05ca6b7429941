//! Which endpoint is asked next, when another one may be, and what the balancer is told.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use weft_core::balance::PickFailure;
use weft_core::endpoint::{InFlight, Outcome};

use super::Service;
use crate::clock;
use crate::failure::{Blame, Failure, Retry};
use crate::state::Cluster;
use crate::telemetry::Edge;

/// Tries on other endpoints after the first. One: what fails twice in a row is rarely cured by a third endpoint, and
/// retries multiply load when there is least to spare.
const RETRIES: usize = 1;
const UNTRIED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

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

/// The endpoints of a target that one request has been sent to.
#[derive(Debug)]
pub(super) struct Tries {
    tried: [SocketAddr; RETRIES],
    count: usize,
    last_failure: Option<Failure>,
}

impl Tries {
    pub(super) fn new() -> Self {
        Self { tried: [UNTRIED; RETRIES], count: 0, last_failure: None }
    }

    /// An endpoint that was not tried yet, for a request that `started` then.
    ///
    /// # Errors
    /// The failure of the last try, when there is nobody left: it says more. Else why there is nobody.
    pub(super) fn pick(&self, service: &Service<'_>, target: &Target, started: Instant) -> Result<InFlight, Failure> {
        let endpoints = target.cluster.endpoints();
        // The first comes at once: the clock need not be asked again.
        let now = if self.count == 0 { started } else { clock::now() };
        let picked = service.worker.chance(|chance| endpoints.pick(now, chance, &self.tried[..self.count]));
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

    /// Another endpoint may be asked after this one.
    pub(super) fn are_left(&self) -> bool {
        self.count < RETRIES
    }

    /// The endpoint failed, and the request may be sent again: to another one.
    ///
    /// # Errors
    /// `failure`, unless one is left and `may_repeat`; and when the failure is the client's.
    pub(super) fn failed(
        &mut self,
        service: &Service<'_>,
        target: &Target,
        in_flight: InFlight,
        failure: Failure,
        may_repeat: bool,
    ) -> Result<(), Failure> {
        let endpoint = in_flight.endpoint().address();
        if failure.facts().blame == Blame::Client {
            target.record(service, in_flight, Outcome::Abandoned, clock::now());
            return Err(failure);
        }
        target.record(service, in_flight, Outcome::Failure, clock::now());
        if !self.are_left() || !may_repeat {
            return Err(failure);
        }
        tracing::debug!(%endpoint, code = failure.facts().code, "trying another endpoint");
        target.edge.retries.increment(1);
        self.tried[self.count] = endpoint;
        self.count += 1;
        self.last_failure = Some(failure);
        Ok(())
    }
}

/// Only when no application can have acted on the request, or acting twice is the same as once. `nothing_sent`: not
/// one byte of the request was written; `is_whole`: all that was written can be written again.
pub(super) fn may_repeat(failure: Failure, nothing_sent: bool, is_whole: bool, is_idempotent: bool) -> bool {
    match failure.facts().retry {
        Retry::Never => false,
        Retry::NothingSent => is_whole || nothing_sent,
        Retry::IfIdempotent => is_whole && is_idempotent,
    }
}
