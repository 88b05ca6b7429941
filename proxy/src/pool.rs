//! Idle upstream connections of one worker, newest first.
//!
//! A connection comes back only after a clean end of message. It is looked at before it is used again: one that has
//! anything to read was closed or has spoken out of turn, and is dropped.

mod place;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_core::endpoint::Endpoint;

use crate::clock;
use crate::state::Cluster;
use crate::stream::Connection;
use crate::telemetry::Active;
use place::PlaceHasher;

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
    _active: Active,
}

impl Pooled {
    pub(crate) fn new(connection: Connection, cluster: Arc<Cluster>, endpoint: Arc<Endpoint>, active: Active) -> Self {
        Self { connection, endpoint, cluster, reused: false, idle_since: clock::now(), _active: active }
    }
}

/// Idle connections by endpoint; cloning gives another handle.
#[derive(Debug, Default, Clone)]
pub struct Pool(Rc<Idle>);

#[derive(Debug, Default)]
struct Idle {
    by_endpoint: RefCell<HashMap<Key, Vec<Pooled>, BuildHasherDefault<PlaceHasher>>>,
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

    /// Drops everything.
    pub fn clear(&self) {
        self.0.by_endpoint.borrow_mut().clear();
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
        !idle.is_empty()
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
