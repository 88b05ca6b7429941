//! Upstream connections of one worker: idle ones of HTTP/1, newest first, and those of HTTP/2, which are [`shared`].
//!
//! A connection of HTTP/1 comes back only after a clean end of message. It is looked at before it is used again: one that
//! has anything to read was closed or has spoken out of turn, and is dropped; what is seen of closes is [`learned`], so
//! that connections are dropped before their endpoints close them.

mod learned;
mod place;
mod shared;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
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
use learned::Learned;
use place::PlaceHasher;
use shared::Shared;

pub use learned::IdleTimes;
pub use shared::{Join, Opened, Opening, SharedRoute};

/// Idle connections kept per endpoint and worker. One per request under way is needed at the peak; a burst beyond
/// this pays handshakes again rather than holding memory on both sides.
const IDLE_PER_ENDPOINT: usize = 128;

/// An upstream connection, its endpoint, and its place in the signals.
#[derive(Debug)]
pub struct Pooled {
    pub connection: Connection,
    pub endpoint: Arc<Endpoint>,
    /// As it was when the connection was opened: identities and protection may have changed since.
    cluster: Arc<Cluster>,
    /// It has carried a request before.
    pub reused: bool,
    /// After how long idle its endpoint said it closes it.
    pub said: Option<Duration>,
    idle_since: Instant,
    /// Still open then.
    looked_at: Instant,
    /// When to drop it.
    keep_until: Instant,
    /// Kept shorter than usual: the clock must be asked before it is used.
    is_short: bool,
    /// Its place in the signals; inside a shared connection, which is counted itself, there is none.
    active: Option<Active>,
}

impl Pooled {
    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// The connection, to be shared, and its place in the signals.
    pub(crate) fn into_parts(self) -> (Connection, Option<Active>) {
        (self.connection, self.active)
    }

    /// Boxed: it goes from hand to hand with every request.
    pub(crate) fn new(
        connection: Connection,
        cluster: Arc<Cluster>,
        endpoint: Arc<Endpoint>,
        active: Option<Active>,
    ) -> Box<Self> {
        let now = clock::now();
        Box::new(Self {
            connection,
            endpoint,
            cluster,
            reused: false,
            said: None,
            idle_since: now,
            looked_at: now,
            keep_until: now,
            is_short: false,
            active,
        })
    }

    /// Looks whether it can still be used; tells what is learned when it cannot.
    fn look(&mut self, learned: &RefCell<Learned>) -> bool {
        if self.connection.is_quiet() {
            return true;
        }
        let age = self.looked_at.saturating_duration_since(self.idle_since);
        learned.borrow_mut().closed(self.endpoint.address(), age, clock::now());
        false
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
    learned: RefCell<Learned>,
    #[expect(clippy::vec_box, reason = "whoever takes a connection takes its box")]
    by_endpoint: RefCell<HashMap<Key, Vec<Box<Pooled>>, BuildHasherDefault<PlaceHasher>>>,
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
    pub fn new(times: IdleTimes) -> Self {
        Self(Rc::new(Idle { learned: RefCell::new(Learned::new(times)), ..Idle::default() }))
    }

    /// A connection that can be used now.
    pub fn take(&self, cluster: &Arc<Cluster>, endpoint: &Arc<Endpoint>) -> Option<Box<Pooled>> {
        let mut idle = self.0.by_endpoint.borrow_mut();
        let connections = idle.get_mut(&key(cluster, endpoint))?;
        while let Some(mut pooled) = connections.pop() {
            if pooled.is_short && clock::now() >= pooled.keep_until {
                continue;
            }
            if pooled.look(&self.0.learned) {
                pooled.reused = true;
                return Some(pooled);
            }
        }
        None
    }

    /// Keeps a connection whose last message ended cleanly.
    pub fn give(&self, mut pooled: Box<Pooled>, now: Instant) {
        pooled.connection.release();
        if !pooled.connection.data().is_empty() {
            return;
        }
        {
            let learned = self.0.learned.borrow();
            let keep = learned.keep(pooled.endpoint.address(), pooled.said, now);
            pooled.is_short = keep < learned.times().longest;
            pooled.keep_until = now + keep;
        }
        pooled.idle_since = now;
        pooled.looked_at = now;
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

    /// A connection that was taken from here turned out to be closed, with a request on it.
    pub fn met_closing(&self, pooled: &Pooled) {
        let age = pooled.looked_at.saturating_duration_since(pooled.idle_since);
        self.0.learned.borrow_mut().closed(pooled.endpoint.address(), age, clock::now());
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
        let longest = self.0.learned.borrow().times().longest;
        self.0.shared.sweep(clock::now() + passed, longest);
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
                let is_kept = now < pooled.keep_until && pooled.look(&self.learned);
                pooled.looked_at = now;
                is_kept
            });
            !connections.is_empty()
        });
        let some_are_shared = self.shared.sweep(now, self.learned.borrow().times().longest);
        !idle.is_empty() || some_are_shared
    }
}

async fn sweep(idle: Rc<Idle>) {
    let look = idle.learned.borrow().times().look;
    loop {
        tokio::time::sleep(look).await;
        if !idle.sweep(clock::now()) {
            idle.is_swept.set(false);
            return;
        }
    }
}
