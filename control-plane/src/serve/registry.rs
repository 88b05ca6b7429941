//! The proxies connected now, for `weft status`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weft_core::names::SpiffeId;

use super::node::NodeFacts;
use super::session::Star;
use crate::world::{self, Kind};

/// One connected proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyInfo {
    /// `NAMESPACE/WORKLOAD`.
    pub workload: String,
    pub namespace: String,
    pub spiffe_id: SpiffeId,
    /// Where the stream comes from, if the transport tells.
    pub address: Option<SocketAddr>,
    pub version: String,
    /// Seconds since the Unix epoch.
    pub connected_since: i64,
    /// The newest revision whose resources the proxy has all acknowledged.
    pub applied_revision: u64,
    /// Resources sent and not acknowledged yet.
    pub pending: usize,
    /// The newest refusal that no acknowledgement has remedied.
    pub nack: Option<Refused>,
    /// Where its admin endpoint answers, as the proxy said.
    pub admin: String,
    /// The newest revision whose resources the proxy has all acknowledged or refused.
    pub answered_revision: u64,
    /// What it refused and nothing has remedied, by type of resource.
    pub refused: Vec<RefusedResources>,
}

/// What a proxy asks for by name, where that is all it is told beside what is for its own workload.
pub type Asked = Vec<(Kind, Arc<str>)>;

/// Resources of one type that a proxy does not accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedResources {
    pub refused: Refused,
    /// Some of them by name.
    pub names: Vec<Arc<str>>,
    /// There are more than are named.
    pub more: bool,
}

/// A response that a proxy did not accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub type_url: &'static str,
    /// In the proxy's words, cut to a bounded length; may quote configuration.
    pub message: String,
    /// Seconds since the Unix epoch.
    pub at: i64,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = self.type_url.rsplit('.').next().unwrap_or(self.type_url);
        write!(f, "{short}: {} (at {})", self.message, self.at)
    }
}

/// The streams that are open.
#[derive(Debug, Default)]
pub(super) struct Registry {
    next_id: Mutex<u64>,
    records: Mutex<BTreeMap<u64, Arc<Record>>>,
}

/// One stream's entry.
#[derive(Debug)]
struct Record {
    facts: NodeFacts,
    identity: SpiffeId,
    address: Option<SocketAddr>,
    connected_since: i64,
    standing: world::Standing,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pending: usize,
    nack: Option<Refused>,
    refused: Vec<RefusedResources>,
}

impl Registry {
    /// Enters a stream until the returned value is dropped.
    pub(super) fn enter(
        self: &Arc<Self>,
        facts: NodeFacts,
        identity: SpiffeId,
        address: Option<SocketAddr>,
        connected_since: i64,
        standing: world::Standing,
    ) -> Entered {
        let record = Arc::new(Record { facts, identity, address, connected_since, standing, state: Mutex::default() });
        let mut next_id = lock(&self.next_id);
        *next_id += 1;
        lock(&self.records).insert(*next_id, record.clone());
        record.standing.stir();
        Entered { registry: self.clone(), id: *next_id, record }
    }

    pub(super) fn proxies(&self) -> Vec<ProxyInfo> {
        let records: Vec<Arc<Record>> = lock(&self.records).values().cloned().collect();
        let mut proxies: Vec<ProxyInfo> = records.iter().map(|record| record.info()).collect();
        proxies.sort_by(|a, b| (&a.workload, a.connected_since).cmp(&(&b.workload, b.connected_since)));
        proxies
    }

    /// The proxy of a workload, and what it asks for; `None` in its place for one that is told everything. Of two streams the
    /// newer: the other is one that nobody has noticed to be gone.
    pub(super) fn proxy(&self, workload: &str) -> Option<(ProxyInfo, Option<Asked>)> {
        let of_workload = |record: &&Arc<Record>| record.facts.key().as_str() == workload;
        let record = lock(&self.records).values().rev().find(of_workload).cloned()?;
        let asked = (record.facts.star == Star::Own).then(|| record.standing.names());
        Some((record.info(), asked))
    }
}

impl Record {
    fn info(&self) -> ProxyInfo {
        let state = lock(&self.state);
        ProxyInfo {
            workload: self.facts.key().to_string(),
            namespace: self.facts.namespace.clone(),
            spiffe_id: self.identity.clone(),
            address: self.address,
            version: self.facts.version.clone(),
            connected_since: self.connected_since,
            applied_revision: self.standing.acknowledged(),
            pending: state.pending,
            nack: state.nack.clone(),
            admin: self.facts.admin.clone(),
            answered_revision: self.standing.answered(),
            refused: state.refused.clone(),
        }
    }
}

/// A stream in the registry.
#[derive(Debug)]
pub(super) struct Entered {
    registry: Arc<Registry>,
    id: u64,
    record: Arc<Record>,
}

impl Entered {
    pub(super) fn update(&self, pending: usize, nack: Option<Refused>, refused: Vec<RefusedResources>) {
        let mut state = lock(&self.record.state);
        let is_news = state.refused != refused;
        *state = State { pending, nack, refused };
        drop(state);
        if is_news {
            self.record.standing.stir();
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        lock(&self.registry.records).remove(&self.id);
        self.record.standing.stir();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
