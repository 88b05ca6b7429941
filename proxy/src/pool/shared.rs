//! Upstream connections of HTTP/2 of one worker, each shared by the requests of all its clients.
//!
//! A connection stays here while streams use it. The first one with room is taken, so that those opened for a burst fall
//! idle again and are closed. Who finds none waits for the one that is being opened: one at a time for each endpoint.
//!
//! How many streams an application takes is known when its settings have come. Until then a new connection carries one
//! request, so that the others are not refused.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use weft_core::endpoint::Endpoint;

use super::place::PlaceHasher;
use super::{Key, key};
use crate::failure::Failure;
use crate::multiplex::{Client, NotOpened};
use crate::state::Cluster;
use crate::tls::MeshProtocol;

/// Connections to one endpoint from one worker. With the 100 streams most servers allow these carry 6,400 requests at
/// once; an endpoint that is asked for more than that gets no more from us.
const CONNECTIONS_PER_ENDPOINT: usize = 64;

/// Which shared connections serve: those to an endpoint of a cluster that carry the same inside.
#[derive(Debug, Clone, Copy)]
pub struct SharedRoute<'a> {
    pub cluster: &'a Arc<Cluster>,
    pub endpoint: &'a Arc<Endpoint>,
    pub protocol: MeshProtocol,
}

impl SharedRoute<'_> {
    fn key(&self) -> (Key, MeshProtocol) {
        (key(self.cluster, self.endpoint), self.protocol)
    }
}

/// A stream for one request, or for one inner connection.
#[derive(Debug)]
pub struct Opened<T> {
    pub stream: T,
    /// The connection had carried a request before.
    pub is_used: bool,
}

#[derive(Debug)]
struct Joined {
    client: Client,
    /// Of the credentials it was opened with.
    generation: u64,
    is_used: Cell<bool>,
    /// Held so that their places in memory, which are the key, are not given to others.
    _cluster: Arc<Cluster>,
    _endpoint: Arc<Endpoint>,
}

/// A connection that is being opened, for all who wait for it.
#[derive(Debug, Default)]
pub struct Opening {
    ended: Cell<Option<Result<(), Failure>>>,
    waiting: Notify,
}

impl Opening {
    /// Waits until it is further: it may be worth while to look again.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn progress(&self) -> Result<(), Failure> {
        // Of one thread: it cannot end between the look and the wait.
        if self.ended.get().is_none() {
            self.waiting.notified().await;
        }
        self.ended.get().unwrap_or(Ok(()))
    }
}

/// What to do about an endpoint that has no room.
#[derive(Debug)]
pub enum Join {
    /// Somebody is opening a connection.
    Wait(Rc<Opening>),
    /// Nobody is: it is ours to do, and to tell of.
    Open(Rc<Opening>),
}

#[derive(Debug, Default)]
struct Place {
    connections: Vec<Joined>,
    opening: Option<Rc<Opening>>,
}

/// Shared connections by endpoint.
#[derive(Debug, Default)]
pub(super) struct Shared(RefCell<HashMap<(Key, MeshProtocol), Place, BuildHasherDefault<PlaceHasher>>>);

impl Shared {
    /// A stream of a connection with room. Connections of other credentials than those of `generation` take none.
    pub(super) fn open<T>(
        &self,
        route: &SharedRoute<'_>,
        generation: u64,
        open: impl Fn(&Client) -> Result<T, NotOpened>,
    ) -> Option<Opened<T>> {
        let mut places = self.0.borrow_mut();
        let place = places.get_mut(&route.key())?;
        let mut opened = None;
        place.connections.retain(|joined| {
            if opened.is_some() {
                return true;
            }
            if joined.generation != generation {
                joined.client.close();
                return false;
            }
            if !joined.client.is_settled() && joined.client.open_streams() > 0 {
                return true;
            }
            match open(&joined.client) {
                Ok(stream) => opened = Some(Opened { stream, is_used: joined.is_used.replace(true) }),
                // Its streams come to their end without us.
                Err(NotOpened::GoingAway) => return false,
                Err(NotOpened::Full) => {}
            }
            true
        });
        opened
    }

    /// How a further connection comes about.
    ///
    /// # Errors
    /// [`Failure::NoneAvailable`] when the endpoint has as many as it gets.
    pub(super) fn join(&self, route: &SharedRoute<'_>) -> Result<Join, Failure> {
        let mut places = self.0.borrow_mut();
        let place = places.entry(route.key()).or_default();
        if let Some(opening) = &place.opening {
            return Ok(Join::Wait(Rc::clone(opening)));
        }
        if place.connections.len() >= CONNECTIONS_PER_ENDPOINT {
            return Err(Failure::NoneAvailable);
        }
        let opening = Rc::new(Opening::default());
        place.opening = Some(Rc::clone(&opening));
        Ok(Join::Open(opening))
    }

    /// The connection carries its first request from now on.
    pub(super) fn begin(&self, route: &SharedRoute<'_>, generation: u64, opening: &Opening, client: Client) {
        let mut places = self.0.borrow_mut();
        let place = places.entry(route.key()).or_default();
        place.connections.push(Joined {
            client,
            generation,
            is_used: Cell::new(false),
            _cluster: Arc::clone(route.cluster),
            _endpoint: Arc::clone(route.endpoint),
        });
        opening.waiting.notify_waiters();
    }

    /// Tells those who wait how the opening went.
    pub(super) fn opened(&self, route: &SharedRoute<'_>, opening: &Opening, result: Result<(), Failure>) {
        if let Some(place) = self.0.borrow_mut().get_mut(&route.key()) {
            place.opening = None;
        }
        opening.ended.set(Some(result));
        opening.waiting.notify_waiters();
    }

    /// Lets go of what is over or has idled for so long; true when something is left.
    pub(super) fn sweep(&self, now: Instant, limit: Duration) -> bool {
        let mut places = self.0.borrow_mut();
        places.retain(|_, place| {
            place.connections.retain(|joined| {
                let client = &joined.client;
                let has_idled = client.idle_since().is_some_and(|since| now.saturating_duration_since(since) >= limit);
                client.is_alive() && !has_idled
            });
            !place.connections.is_empty() || place.opening.is_some()
        });
        !places.is_empty()
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.borrow().values().map(|place| place.connections.len()).sum()
    }

    #[cfg(test)]
    pub(super) fn streams(&self) -> usize {
        let places = self.0.borrow();
        places.values().flat_map(|place| &place.connections).map(|joined| joined.client.open_streams()).sum()
    }

    #[cfg(test)]
    pub(super) fn connections(&self) -> usize {
        self.0.borrow().values().map(|place| place.connections.len()).sum()
    }

    pub(super) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}
