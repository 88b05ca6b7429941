//! What the connections of one worker thread share. Nothing here is locked or sent between threads, except the
//! snapshot and the credentials, which are read through one atomic pointer each.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use weft_core::model::Direction;
use weft_core::names::ServiceRef;

use crate::drain::Drain;
use crate::pool::Pool;
use crate::state::{Cluster, Store};
use crate::telemetry::{Edge, EdgeLabels};
use crate::tls::CredentialStore;

/// Who calls in plaintext: nobody knows.
pub const PLAINTEXT_SOURCE: &str = "unknown";

/// Waits of the request path, each with its reason.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// TLS handshake: a peer that says nothing must not hold a connection. 5 s.
    pub handshake: Duration,
    /// From the first byte of a head to its last. 15 s: generous to slow links, short for who only holds places.
    pub head: Duration,
    /// A request under way with no byte moved either way. 5 min, as in the field.
    pub stream_idle: Duration,
    /// A client connection with no request under way. 1 h, as in the field: the client decides.
    pub client_idle: Duration,
    /// Reading the rest of a body after its answer is written, before the connection is closed. 1 s.
    pub linger: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            head: Duration::from_secs(15),
            stream_idle: Duration::from_mins(5),
            client_idle: Duration::from_hours(1),
            linger: Duration::from_secs(1),
        }
    }
}

/// One worker.
#[derive(Debug)]
pub struct Worker {
    pub store: Arc<Store>,
    pub credentials: Arc<CredentialStore>,
    pub pool: Pool,
    pub drain: Drain,
    pub timeouts: Timeouts,
    /// Ports of our own listeners: a connection whose original destination is one of them would loop.
    pub own_ports: Vec<u16>,
    /// By which capture lets our connections pass, where the user cannot tell them.
    pub socket_mark: Option<u32>,
    /// `NAMESPACE/WORKLOAD` beside which this proxy stands, as its answers name it.
    pub workload: String,
    chance: RefCell<fastrand::Rng>,
    /// Signals of inbound edges by destination and source; looked at when a connection begins.
    inbound_edges: RefCell<HashMap<(ServiceRef, String), Rc<Edge>>>,
}

impl Worker {
    pub fn new(
        store: Arc<Store>,
        credentials: Arc<CredentialStore>,
        own_ports: Vec<u16>,
        socket_mark: Option<u32>,
        chance: fastrand::Rng,
    ) -> Self {
        Self {
            workload: store.source().to_owned(),
            store,
            credentials,
            pool: Pool::default(),
            drain: Drain::default(),
            timeouts: Timeouts::default(),
            own_ports,
            socket_mark,
            chance: RefCell::new(chance),
            inbound_edges: RefCell::default(),
        }
    }

    /// Signals of requests from `source` (`NAMESPACE/SERVICE-ACCOUNT`, or [`PLAINTEXT_SOURCE`]) to our workload.
    pub fn inbound_edge(&self, cluster: &Cluster, source: &str) -> Rc<Edge> {
        let key = (cluster.spec.service.clone(), source.to_owned());
        let mut edges = self.inbound_edges.borrow_mut();
        let edge = edges.entry(key).or_insert_with(|| {
            let labels = EdgeLabels {
                direction: Direction::Inbound,
                source: source.to_owned(),
                destination: cluster.spec.service.to_string(),
            };
            Rc::new(Edge::new(labels, source != PLAINTEXT_SOURCE))
        });
        Rc::clone(edge)
    }

    /// Draws chance.
    pub fn chance<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.chance.borrow_mut())
    }
}
