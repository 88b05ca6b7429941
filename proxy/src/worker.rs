//! What the connections of one worker thread share. Nothing here is locked or sent between threads, except the
//! snapshot and the credentials, which are read through one atomic pointer each.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use metrics::Gauge;
use weft_core::model::Direction;
use weft_core::names::ServiceRef;

use crate::capture::Networks;
use crate::drain::{Arrived, Drain};
use crate::failure::{FailureLog, Quiet};
use crate::limits::Limits;
use crate::pool::Pool;
use crate::state::{Cluster, Store};
use crate::telemetry::{Active, Edge, EdgeLabels};
use crate::tls::CredentialStore;

pub use crate::limits::Timeouts;

/// Who calls in plaintext: nobody knows.
pub const PLAINTEXT_SOURCE: &str = "unknown";

/// One worker.
#[derive(Debug)]
pub struct Worker {
    pub store: Arc<Store>,
    pub credentials: Arc<CredentialStore>,
    pub pool: Pool,
    pub drain: Drain,
    pub failures: FailureLog,
    /// When callers from outside the mesh were last told of.
    pub strangers: Quiet<()>,
    pub timeouts: Timeouts,
    pub limits: Limits,
    /// Ports of our own listeners: a connection whose original destination is one of them would loop.
    pub own_ports: Vec<u16>,
    /// Networks where nobody is but services.
    pub virtual_networks: Networks,
    /// By which capture lets our connections pass, where the user cannot tell them.
    pub socket_mark: Option<u32>,
    /// `NAMESPACE/WORKLOAD` beside which this proxy stands, as its answers name it.
    pub workload: String,
    chance: RefCell<fastrand::Rng>,
    /// Connections taken and not ended, inbound and outbound.
    open: [Gauge; 2],
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
            failures: FailureLog::default(),
            strangers: Quiet::default(),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            own_ports,
            virtual_networks: Networks::default(),
            socket_mark,
            chance: RefCell::new(chance),
            open: ["inbound", "outbound"].map(|side| metrics::gauge!("weft_connections_open", "direction" => side)),
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

    /// Counts a connection from its first moment, its handshake included, until both are dropped: for the limit and the
    /// drain, and for the signals.
    pub fn arrive(&self, direction: Direction) -> (Arrived, Active) {
        let gauge = match direction {
            Direction::Inbound => &self.open[0],
            Direction::Outbound => &self.open[1],
        };
        (self.drain.arrive(direction), Active::new(gauge))
    }

    /// Draws chance.
    pub fn chance<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.chance.borrow_mut())
    }
}
