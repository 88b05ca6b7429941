//! Upstream connections of one worker: idle ones of HTTP/1, newest first, and those of HTTP/2, which are [`shared`].
//!
//! A connection of HTTP/1 comes back only after a clean end of message. It is looked at before it is used again: one that
//! has anything to read was closed or has spoken out of turn, and is dropped.

mod shared;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_core::endpoint::Endpoint;

use crate::clock;
use crate::failure::Failure;
use crate::multiplex::{Client, NotOpened};
use crate::state::Cluster;
use crate::stream::Connection;
use crate::telemetry::Active;

use shared::Shared;
pub use shared::{Join, Opened, Opening, SharedRoute};

/// Idle connections kept per endpoint and worker. One per request under way is needed at the peak; a burst beyond
/// this pays handshakes again rather than holding memory on both sides.
const IDLE_PER_ENDPOINT: usize = 128;
/// How long a connection may idle. 55 s: servers of the field close after 60 s or more, and the first to close loses no
/// request.
const IDLE_TIME: Duration = Duration::from_secs(55);
/// How often idle connections are looked at, while there are any: a peer's close is answered within this.
const SWEEP: Duration = Duration::from_secs(5);

/// An upstream connection, its endpoint, and its place in the signals.
#[derive(Debug)]
pub struct Pooled {
    pub connection: Connection,
    pub endpoint: Arc<Endpoint>,
    /// As it was when the connection was opened: identities and protection may have changed since.
    cluster: Arc<Cluster>,
    /// It has carried a request before.
    pub reused: bool,
    idle_since: Instant,
    active: Active,
}

impl Pooled {
    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// The connection, to be shared, and its place in the signals.
    pub(crate) fn into_parts(self) -> (Connection, Active) {
        (self.connection, self.active)
    }

    pub(crate) fn new(connection: Connection, cluster: Arc<Cluster>, endpoint: Arc<Endpoint>, active: Active) -> Self {
        Self { connection, endpoint, cluster, reused: false, idle_since: clock::now(), active }
    }
}

impl AsMut<Connection> for Pooled {
    fn as_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

/// Idle connections by endpoint; cloning gives another handle.
#[derive(Debug, Default, Clone)]
pub struct Pool(Rc<Idle>);

#[derive(Debug, Default)]
struct Idle {
    by_endpoint: RefCell<HashMap<Key, Vec<Pooled>>>,
    shared: Shared,
    is_swept: Cell<bool>,
}

/// Places in memory of a cluster and an endpoint, their own as long as a connection holds them. An endpoint outlives
/// changes of its cluster, a connection must not: it was opened with the TLS and the identities of then.
type Key = (usize, usize);

fn key(cluster: &Arc<Cluster>, endpoint: &Arc<Endpoint>) -> Key {
    (Arc::as_ptr(cluster) as usize, Arc::as_ptr(endpoint) as usize)
}

impl Pool {
    /// A connection that can be used now.
    pub fn take(&self, cluster: &Arc<Cluster>, endpoint: &Arc<Endpoint>) -> Option<Pooled> {
        let mut idle = self.0.by_endpoint.borrow_mut();
        let connections = idle.get_mut(&key(cluster, endpoint))?;
        while let Some(mut pooled) = connections.pop() {
            if pooled.connection.is_quiet() {
                pooled.reused = true;
                return Some(pooled);
            }
        }
        None
    }

    /// Keeps a connection whose last message ended cleanly.
    pub fn give(&self, mut pooled: Pooled, now: Instant) {
        pooled.connection.release();
        if !pooled.connection.data().is_empty() {
            return;
        }
        pooled.idle_since = now;
        {
            let mut idle = self.0.by_endpoint.borrow_mut();
            let connections = idle.entry(key(&pooled.cluster, &pooled.endpoint)).or_default();
            if connections.len() == IDLE_PER_ENDPOINT {
                return;
            }
            connections.push(pooled);
        }
        self.keep_swept();
    }

    /// A stream of a shared connection with room, opened by `open`.
    pub fn open_stream<T>(
        &self,
        route: &SharedRoute<'_>,
        generation: u64,
        open: impl Fn(&Client) -> Result<T, NotOpened>,
    ) -> Option<Opened<T>> {
        self.0.shared.open(route, generation, open)
    }

    /// How a further shared connection comes about.
    ///
    /// # Errors
    /// When the endpoint has as many as it gets.
    pub fn join(&self, route: &SharedRoute<'_>) -> Result<Join, Failure> {
        self.0.shared.join(route)
    }

    /// The connection that [`Self::join`] left to us to open, with the generation of its credentials. Its server's
    /// settings are still to come.
    pub fn begin(&self, route: &SharedRoute<'_>, generation: u64, opening: &Opening, client: Client) {
        self.0.shared.begin(route, generation, opening, client);
        self.keep_swept();
    }

    /// The connection's settings have come; or why there is none.
    pub fn opened(&self, route: &SharedRoute<'_>, opening: &Opening, result: Result<(), Failure>) {
        self.0.shared.opened(route, opening, result);
    }

    fn keep_swept(&self) {
        if !self.0.is_swept.replace(true) {
            tokio::task::spawn_local(sweep(Rc::clone(&self.0)));
        }
    }

    /// How many idle connections could be used now.
    #[cfg(test)]
    pub(crate) fn usable(&self) -> usize {
        let mut idle = self.0.by_endpoint.borrow_mut();
        idle.values_mut().flatten().filter_map(|pooled| pooled.connection.is_quiet().then_some(())).count()
    }

    /// Shared connections that would be left so long from now.
    #[cfg(test)]
    pub(crate) fn shared_after(&self, passed: Duration) -> usize {
        self.0.shared.sweep(clock::now() + passed, IDLE_TIME);
        self.0.shared.count()
    }

    /// Streams of shared connections that are open.
    #[cfg(test)]
    pub(crate) fn streams(&self) -> usize {
        self.0.shared.streams()
    }

    /// Shared connections that take streams.
    #[cfg(test)]
    pub(crate) fn shared(&self) -> usize {
        self.0.shared.connections()
    }

    /// Drops everything.
    pub fn clear(&self) {
        self.0.by_endpoint.borrow_mut().clear();
        self.0.shared.clear();
    }
}

impl Idle {
    /// Drops what is closed or has idled too long; true when something is left.
    fn sweep(&self, now: Instant) -> bool {
        let mut idle = self.by_endpoint.borrow_mut();
        idle.retain(|_, connections| {
            connections.retain_mut(|pooled| {
                now.saturating_duration_since(pooled.idle_since) < IDLE_TIME && pooled.connection.is_quiet()
            });
            !connections.is_empty()
        });
        let some_are_shared = self.shared.sweep(now, IDLE_TIME);
        !idle.is_empty() || some_are_shared
    }
}

async fn sweep(idle: Rc<Idle>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        if !idle.sweep(clock::now()) {
            idle.is_swept.set(false);
            return;
        }
    }
}
