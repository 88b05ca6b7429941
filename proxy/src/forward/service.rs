//! What all that one connection carries has in common.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_core::model::{Direction, HttpOptions};

use crate::clock;
use crate::failure::{Failed, Failure, Hop};
use crate::limits::Limits;
use crate::state::Cluster;
use crate::stream::buffered;
use crate::telemetry::Edge;
use crate::worker::Worker;

/// Where a connection came from and was going.
#[derive(Debug)]
pub struct Service<'a> {
    pub worker: &'a Rc<Worker>,
    pub direction: Direction,
    /// The listener of the connection; looked up again when the snapshot changed.
    pub destination: SocketAddr,
    /// Inbound: `NAMESPACE/SERVICE-ACCOUNT` of the caller.
    pub source: Option<&'a Rc<str>>,
    /// Inbound: written as `x-forwarded-client-cert`.
    pub client_certificate: Option<&'a Rc<str>>,
    /// What the listener says of this connection, as it was when it began.
    pub http: Option<Arc<HttpOptions>>,
}

/// A [`Service`] for what is not part of the connection's own future.
#[derive(Debug)]
pub(super) struct OwnedService {
    worker: Rc<Worker>,
    direction: Direction,
    destination: SocketAddr,
    source: Option<Rc<str>>,
    client_certificate: Option<Rc<str>>,
    http: Option<Arc<HttpOptions>>,
}

impl OwnedService {
    pub(super) fn lend(&self) -> Service<'_> {
        Service {
            worker: &self.worker,
            direction: self.direction,
            destination: self.destination,
            source: self.source.as_ref(),
            client_certificate: self.client_certificate.as_ref(),
            http: self.http.clone(),
        }
    }
}

impl Service<'_> {
    /// Allocates nothing.
    pub(super) fn to_owned(&self) -> OwnedService {
        OwnedService {
            worker: Rc::clone(self.worker),
            direction: self.direction,
            destination: self.destination,
            source: self.source.cloned(),
            client_certificate: self.client_certificate.cloned(),
            http: self.http.clone(),
        }
    }

    /// What is written as `x-forwarded-client-cert`.
    pub(super) fn client_certificate(&self) -> Option<&[u8]> {
        self.client_certificate.map(|certificate| certificate.as_bytes())
    }

    /// This proxy, as its answers name it.
    pub fn hop(&self) -> Hop<'_> {
        Hop { direction: self.direction, workload: &self.worker.workload }
    }

    /// Signals of what goes to `cluster` from this connection's source.
    pub fn edge(&self, cluster: &Cluster) -> Rc<Edge> {
        match self.source {
            Some(source) => self.worker.inbound_edge(cluster, source),
            None => Rc::new(cluster.edge().clone()),
        }
    }

    /// The listener's word on something, else the proxy's own.
    fn choose<T>(&self, of_listener: impl FnOnce(&HttpOptions) -> Option<T>, own: T) -> T {
        self.http.as_deref().and_then(of_listener).unwrap_or(own)
    }

    /// See [`crate::limits::Timeouts::head`].
    pub fn head_timeout(&self) -> Duration {
        self.choose(|http| http.head_timeout, self.worker.timeouts.head)
    }

    /// See [`crate::limits::Timeouts::stream_idle`].
    pub fn stream_idle(&self) -> Duration {
        self.choose(|http| http.stream_idle, self.worker.timeouts.stream_idle)
    }

    /// See [`crate::limits::Timeouts::client_idle`].
    pub fn client_idle(&self) -> Duration {
        self.choose(|http| http.idle, self.worker.timeouts.client_idle)
    }

    /// See [`crate::limits::Timeouts::linger`].
    pub fn linger(&self) -> Duration {
        self.choose(|http| http.linger, self.worker.timeouts.linger)
    }

    /// When this connection, which began at `since`, takes no further request.
    pub fn closes_at(&self, since: Instant) -> Option<Instant> {
        // One further off than a clock can tell never comes.
        since.checked_add(self.http.as_ref()?.connection_age?)
    }

    /// A connection that has taken so many requests takes no further one.
    pub fn is_last(&self, requests: u32) -> bool {
        let most = self.http.as_ref().and_then(|http| http.connection_requests);
        most.is_some_and(|most| requests >= most)
    }

    /// Limits of requests: what another proxy of ours passes on may be longer by what that one added.
    pub fn limits(&self) -> Limits {
        let own = self.worker.limits;
        let limits = Limits {
            head_bytes: self.choose(|http| Some(http.head_bytes? as usize), own.head_bytes),
            fields: self.choose(|http| Some(http.fields? as usize), own.fields),
            ..own
        };
        if self.client_certificate.is_some() { limits.behind_proxy() } else { limits }
    }

    /// Whether a request with a head so large may pass.
    ///
    /// # Errors
    /// The limit it is over.
    pub fn within_limits(&self, target: usize, fields: usize, bytes: usize) -> Result<(), Failed> {
        let limits = self.limits();
        let over = |failure: Failure, limit: usize, unit: &str, found: usize| {
            Err(failure.with(format!("limit {limit}{unit}, found {found}")))
        };
        if target > limits.target_bytes {
            return over(Failure::TargetTooLong, limits.target_bytes, " bytes", target);
        }
        if fields > limits.fields {
            return over(Failure::TooManyFields, limits.fields, "", fields);
        }
        if bytes > limits.head_bytes {
            return over(Failure::HeadTooLarge, limits.head_bytes, " bytes", bytes);
        }
        let held = buffered();
        if held > limits.buffered_bytes {
            return over(Failure::OverLimit, limits.buffered_bytes, " buffered bytes of a worker", held);
        }
        Ok(())
    }

    /// A failure of a request that `started` then, with the limit it met.
    pub fn detailed(&self, failure: Failure, started: Instant) -> Failed {
        match failure {
            Failure::StreamIdle | Failure::ClientStalled => {
                failure.with(format!("limit {:?} without a byte either way", self.stream_idle()))
            }
            Failure::RequestTimeout => {
                let passed = clock::now().saturating_duration_since(started);
                failure.with(format!("after {passed:?}, the limit of the route"))
            }
            Failure::PerTryTimeout => {
                let passed = clock::now().saturating_duration_since(started);
                failure.with(format!("after {passed:?} in all, the limit of one try"))
            }
            _ => failure.into(),
        }
    }

    /// Counts a failure, and logs it at its level.
    pub fn tell(&self, edge: &Edge, failed: &Failed) {
        edge.failure(failed.failure.code());
        self.worker.failures.note(failed, &edge.labels().destination, clock::now());
    }

    /// A failure as it is told. Beside the application, an endpoint that cannot be reached is the application; the proxy
    /// of the caller may then try another one.
    pub fn seen(&self, failure: Failure) -> Failure {
        match (self.direction, failure) {
            (Direction::Inbound, Failure::ConnectRefused | Failure::ConnectTimeout) => Failure::ApplicationUnreachable,
            _ => failure,
        }
    }
}
