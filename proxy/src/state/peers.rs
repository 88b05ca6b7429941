//! Workloads of the mesh by their addresses: who is called at a port that no service has.
//!
//! A cluster of any port ([`EndpointSource::AnyPort`]) says of some addresses who must answer there. A proxy knows those of the
//! whole mesh and calls few, so that an address costs an entry of one table here; what a called one needs is made with the
//! first connection.
//!
//! A proxy that asks for destinations is told of each address it calls by itself, without a cluster.
//!
//! A change of addresses takes as long as there are addresses in its cluster, and makes no snapshot. An address that stays
//! is never missing in between: its connections would leave in plaintext.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use weft_core::model::{
    ClusterSpec, Direction, EndpointSetSpec, EndpointSource, InboundTls, OutlierPolicy, PeerSpec, UpstreamProtocol,
    UpstreamTls,
};
use weft_core::names::{ClusterName, ServiceRef};

use super::destination::{SERVICE, of_any_protocol};
use super::{Listener, Usage};
use crate::clock;

/// To a workload that is told by its address, as the control plane has it of clusters.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Who is behind an address. Read by connections, written by changes.
#[derive(Debug, Default)]
pub(super) struct PeerTable(RwLock<HashMap<IpAddr, Arc<Peers>>>);

/// Workloads that are reached in the same way.
#[derive(Debug)]
struct Peers {
    spec: ClusterSpec,
    except: Box<[u16]>,
    /// What a listener is made from for each destination.
    base: Arc<Listener>,
}

/// The clusters of any port, with the addresses each has put into the table.
#[derive(Debug, Default)]
pub(super) struct PeerClusters(HashMap<ClusterName, PeerCluster>);

#[derive(Debug)]
struct PeerCluster {
    peers: Arc<Peers>,
    endpoints: ClusterName,
    addresses: Vec<IpAddr>,
}

/// A cluster of any port, for people.
#[derive(Debug)]
pub struct PeersSummary {
    pub spec: ClusterSpec,
    pub addresses: usize,
}

impl PeerTable {
    /// What a listener for this destination is made from; `None` where nobody of the mesh is known to be.
    pub(super) fn base(&self, destination: SocketAddr) -> Option<Arc<Listener>> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let peers = table.get(&destination.ip())?;
        (!peers.except.contains(&destination.port())).then(|| Arc::clone(&peers.base))
    }

    /// Takes in who has an address.
    pub(super) fn insert(&self, peer: &PeerSpec, source: &Arc<str>) {
        let spec = spec(peer);
        let mut base = of_any_protocol(spec.clone(), Direction::Outbound, InboundTls::Strict, source);
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let known = table.get(&peer.address).and_then(|known| known.base.usage.clone());
        base.usage = Some(known.unwrap_or_else(|| Arc::new(Usage::new(clock::now()))));
        table.insert(peer.address, Arc::new(Peers { spec, except: peer.except.clone(), base: Arc::new(base) }));
    }

    /// Nobody has it any more.
    pub(super) fn remove(&self, address: IpAddr) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&address);
    }

    /// Whose connections go to an address.
    pub(super) fn usage(&self, address: IpAddr) -> Option<Arc<Usage>> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table.get(&address)?.base.usage.clone()
    }

    /// Puts these addresses in the place of those.
    fn replace(&self, before: &[IpAddr], of: &Arc<Peers>, after: &[IpAddr], to: &Arc<Peers>) {
        let stays: HashSet<&IpAddr> = after.iter().collect();
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for address in before.iter().filter(|address| !stays.contains(address)) {
            // Somebody else may have it already.
            if table.get(address).is_some_and(|known| Arc::ptr_eq(known, of)) {
                table.remove(address);
            }
        }
        table.extend(after.iter().map(|address| (*address, Arc::clone(to))));
    }
}

impl PeerClusters {
    pub(super) fn has(&self, spec: &ClusterSpec) -> bool {
        self.0.get(&spec.name).is_some_and(|known| known.peers.spec == *spec)
    }

    /// Takes a cluster in. What is known of its addresses stays; `endpoints` is what was told of them before.
    pub(super) fn insert(
        &mut self,
        spec: ClusterSpec,
        endpoints: &EndpointSetSpec,
        source: &Arc<str>,
        table: &PeerTable,
    ) {
        let EndpointSource::AnyPort { endpoints: of, except } = &spec.endpoints else { return };
        let (of, except) = (of.clone(), except.clone());
        let at_destination = ClusterSpec { endpoints: EndpointSource::OriginalDestination, ..spec.clone() };
        let base = of_any_protocol(at_destination, Direction::Outbound, InboundTls::Strict, source);
        let name = spec.name.clone();
        let peers = Arc::new(Peers { spec, except, base: Arc::new(base) });
        let mut addresses = addresses(endpoints);
        if let Some(known) = self.0.remove(&name) {
            // What was told of them is told once.
            if known.endpoints == of && addresses.is_empty() {
                addresses.clone_from(&known.addresses);
            }
            table.replace(&known.addresses, &known.peers, &addresses, &peers);
        } else {
            table.replace(&[], &peers, &addresses, &peers);
        }
        self.0.insert(name, PeerCluster { peers, endpoints: of, addresses });
    }

    pub(super) fn remove(&mut self, name: &ClusterName, table: &PeerTable) {
        if let Some(known) = self.0.remove(name) {
            table.replace(&known.addresses, &known.peers, &[], &known.peers);
        }
    }

    /// Gives the clusters that take these endpoints their addresses; false when there are none.
    pub(super) fn replace_endpoints(&mut self, set: &EndpointSetSpec, table: &PeerTable) -> bool {
        let mut is_taken = false;
        for cluster in self.0.values_mut().filter(|cluster| cluster.endpoints == set.name) {
            let after = addresses(set);
            table.replace(&cluster.addresses, &cluster.peers, &after, &cluster.peers);
            cluster.addresses = after;
            is_taken = true;
        }
        is_taken
    }

    /// By name.
    pub(super) fn summaries(&self) -> Vec<PeersSummary> {
        let summary =
            |known: &PeerCluster| PeersSummary { spec: known.peers.spec.clone(), addresses: known.addresses.len() };
        let mut all: Vec<PeersSummary> = self.0.values().map(summary).collect();
        all.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        all
    }
}

/// How a workload is reached that was told by its address: as by a cluster of any port.
fn spec(peer: &PeerSpec) -> ClusterSpec {
    ClusterSpec {
        name: format!("peers/{}/{}", peer.namespace, peer.identity.service_account()).into(),
        service: ServiceRef { namespace: Arc::clone(&peer.namespace), name: SERVICE.into(), port: 0 },
        endpoints: EndpointSource::OriginalDestination,
        connect_timeout: CONNECT_TIMEOUT,
        tls: Some(UpstreamTls { identities: vec![peer.identity.clone()], exceptions: Box::default() }),
        protocol: UpstreamProtocol::AsDownstream,
        outlier: OutlierPolicy { consecutive_failures: 0, ..OutlierPolicy::default() },
    }
}

/// In the form in which destinations come.
fn addresses(set: &EndpointSetSpec) -> Vec<IpAddr> {
    set.endpoints.iter().map(|endpoint| endpoint.address.ip().to_canonical()).collect()
}
