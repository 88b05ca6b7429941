//! Upstream connections of HTTP/2 of one worker, each shared by the requests of all its clients.
//!
//! A connection stays here while streams use it. The first one with room is taken, so that those opened for a burst fall
//! idle again and are closed. Who finds none waits for the one that is being opened: one at a time for each endpoint.
//!
//! How many streams an application takes is known when its settings have come. Until then a new connection carries one
//! request, so that the others are not refused.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use weft_core::endpoint::Endpoint;

use super::{Key, key};
use crate::failure::Failure;
use crate::http2::Fields;
use crate::multiplex::{Client, NotOpened, Stream};
use crate::state::Cluster;

/// Connections to one endpoint from one worker. With the 100 streams most servers allow these carry 6,400 requests at
/// once; an endpoint that is asked for more than that gets no more from us.
const CONNECTIONS_PER_ENDPOINT: usize = 64;

/// A stream for one request.
#[derive(Debug)]
pub struct Opened {
    pub stream: Stream,
    /// The connection had carried a request before.
    pub is_used: bool,
}

#[derive(Debug)]
struct Joined {
    client: Client,
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
pub(super) struct Shared(RefCell<HashMap<Key, Place>>);

impl Shared {
    /// A stream of a connection with room, with the head of a request on its way.
    pub(super) fn open(
        &self,
        cluster: &Arc<Cluster>,
        endpoint: &Arc<Endpoint>,
        head: &Fields,
        ended: bool,
    ) -> Option<Opened> {
        let mut places = self.0.borrow_mut();
        let place = places.get_mut(&key(cluster, endpoint))?;
        let mut opened = None;
        place.connections.retain(|joined| {
            if opened.is_some() {
                return true;
            }
            if !joined.client.is_settled() && joined.client.open_streams() > 0 {
                return true;
            }
            match joined.client.open(head, ended) {
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
    pub(super) fn join(&self, cluster: &Arc<Cluster>, endpoint: &Arc<Endpoint>) -> Result<Join, Failure> {
        let mut places = self.0.borrow_mut();
        let place = places.entry(key(cluster, endpoint)).or_default();
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
    pub(super) fn begin(&self, cluster: &Arc<Cluster>, endpoint: &Arc<Endpoint>, opening: &Opening, client: Client) {
        let mut places = self.0.borrow_mut();
        let place = places.entry(key(cluster, endpoint)).or_default();
        place.connections.push(Joined {
            client,
            is_used: Cell::new(false),
            _cluster: Arc::clone(cluster),
            _endpoint: Arc::clone(endpoint),
        });
        opening.waiting.notify_waiters();
    }

    /// Tells those who wait how the opening went.
    pub(super) fn opened(
        &self,
        cluster: &Arc<Cluster>,
        endpoint: &Arc<Endpoint>,
        opening: &Opening,
        result: Result<(), Failure>,
    ) {
        if let Some(place) = self.0.borrow_mut().get_mut(&key(cluster, endpoint)) {
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

    pub(super) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}
