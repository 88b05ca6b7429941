//! Calls to a workload by its own address, at a port that no service has.
//!
//! On the way in, each captured workload has one further listener, of the unspecified address: connections to ports without
//! a listener of their own are its, by mutual TLS, and in plaintext where the mesh is permissive. What is known of such a
//! port is the connection itself, so it leads to a cluster of type `ORIGINAL_DST`.
//!
//! On the way out, every proxy must know who answers at an address. It is told by clusters of its own kind, one for each set
//! of workloads that are reached in the same way: of one service account, with the same ports past their proxies. Their
//! addresses are endpoints, so that a pod that comes or goes changes one load assignment and nothing else; its
//! readiness is left out, so that it changes nothing at all. Proxies that ask for what they use are told by the destination of
//! the address instead. `docs/xds.md` weighs the forms.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use weft_core::names::SpiffeId;
use weft_proto::names;

use super::envoy::{self, Health, Protection, ServiceFacts};
use super::{Resource, destinations, listener};
use crate::document::{Manifest, Mtls, Protocol, WorkloadSpec, WorkloadState};
use crate::world::{self, Change};

/// What the signals call a port that no service has.
const SERVICE: &str = "undeclared";
/// The listener and the cluster of a workload's other ports.
const INBOUND: &str = "inbound/any";

/// What a captured workload's proxy needs to take connections for ports that no service has.
pub(super) fn inbound(workload: &Manifest<WorkloadSpec>, mtls: Mtls, into: &mut Vec<Resource>) {
    let namespace = &workload.metadata.namespace;
    let cluster = envoy::original_destination_cluster(INBOUND, &facts(namespace), Protocol::Auto);
    into.push(Resource { type_url: names::CLUSTER, name: INBOUND.to_owned(), body: cluster });
    let everywhere: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let everywhere = everywhere.map(|address| SocketAddr::new(address, names::INBOUND_PORT));
    let direction = envoy::Direction::Inbound { permissive: mtls == Mtls::Permissive };
    into.extend(listener(INBOUND.to_owned(), &everywhere, Protocol::Auto, INBOUND, direction, &[], None));
}

/// What was made for the callers of captured workloads, by name.
#[derive(Debug, Default)]
pub(super) struct Peers(BTreeMap<String, Kept>);

#[derive(Debug, Clone)]
struct Kept {
    addresses: BTreeSet<IpAddr>,
    resources: Vec<world::Resource>,
    /// What the destination of each address says.
    destination: world::Resource,
}

impl Peers {
    /// Makes what every proxy needs to call these workloads at ports that no service has, where it is not what was made
    /// before; how many resources that took. All workloads are looked at: an address may pass from any to any.
    pub(super) fn follow<'d>(
        &mut self,
        workloads: impl IntoIterator<Item = &'d Manifest<WorkloadSpec>>,
        trust_domain: &str,
        change: &mut Change,
    ) -> usize {
        let (mut made, mut before) = (0, std::mem::take(&mut self.0));
        let (mut come, mut gone) = (BTreeSet::new(), BTreeSet::new());
        for (alike, addresses) in alike(workloads) {
            let name = alike.name();
            let kept = before.remove(&name);
            if let Some(kept) = kept.as_ref().filter(|kept| kept.addresses == addresses) {
                self.0.insert(name, Kept { addresses, ..kept.clone() });
                continue;
            }
            let resources = outbound(alike, &addresses, trust_domain).map(world::Resource::from);
            let destination = kept.as_ref().map(|kept| kept.destination.clone());
            let destination = destination
                .unwrap_or_else(|| destinations::peer(alike.namespace, &alike.identity(trust_domain), alike.except));
            let (had, old) = kept.map(|kept| (kept.addresses, kept.resources)).unwrap_or_default();
            let new: Vec<IpAddr> = addresses.difference(&had).copied().collect();
            made += resources.len() + new.len();
            let is_new = |new: &&world::Resource| {
                old.iter().find(|old| old.kind == new.kind).is_none_or(|old| old.version != new.version)
            };
            change.shared.extend(resources.iter().filter(is_new).cloned());
            change.shared.extend(new.iter().map(|address| destination.renamed(destinations::peer_name(*address))));
            come.extend(new);
            gone.extend(had.difference(&addresses).copied());
            self.0.insert(name, Kept { addresses, resources: resources.into(), destination });
        }
        for kept in before.into_values() {
            change.gone.extend(kept.resources.into_iter().map(|resource| (resource.kind, resource.name)));
            gone.extend(kept.addresses);
        }
        // An address that has passed to another workload is told as that one's.
        let nobodys = gone.difference(&come);
        change.gone.extend(nobodys.map(|address| (world::Kind::Destination, destinations::peer_name(*address))));
        made
    }
}

/// A cluster of workloads that are reached in the same way, and their addresses.
pub(super) fn outbound(alike: Alike<'_>, addresses: &BTreeSet<IpAddr>, trust_domain: &str) -> [Resource; 2] {
    let name = alike.name();
    let identity = alike.identity(trust_domain);
    let except: Vec<u16> = alike.except.iter().copied().collect();
    let cluster = envoy::any_port_cluster(&name, &facts(alike.namespace), &except, &identity);
    let endpoint = |address: &IpAddr| envoy::Endpoint {
        address: SocketAddr::new(*address, names::INBOUND_PORT),
        health: Health::Healthy,
        workload: None,
        meshed: true,
        locality: None,
    };
    let endpoints: Vec<envoy::Endpoint> = addresses.iter().map(endpoint).collect();
    let assignment = envoy::assignment(&name, &endpoints, Protection::Mutual(std::slice::from_ref(&identity)));
    [
        Resource { type_url: names::CLUSTER, name: name.clone(), body: cluster },
        Resource { type_url: names::ENDPOINTS, name, body: assignment },
    ]
}

/// What workloads have in common that are reached in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Alike<'d> {
    pub(super) namespace: &'d str,
    account: &'d str,
    pub(super) except: &'d BTreeSet<u16>,
}

impl Alike<'_> {
    /// `peers/NAMESPACE/ACCOUNT/PORT,PORT`: neither namespaces nor accounts have a slash.
    fn name(&self) -> String {
        let except: Vec<String> = self.except.iter().map(u16::to_string).collect();
        format!("peers/{}/{}/{}", self.namespace, self.account, except.join(","))
    }

    /// Who must answer at their addresses.
    pub(super) fn identity(&self, trust_domain: &str) -> SpiffeId {
        SpiffeId::workload(trust_domain, self.namespace, self.account)
    }
}

/// The addresses of captured workloads by how they are reached. One that two have is the one's that stays: it is given again
/// while its last owner still goes.
pub(super) fn alike<'d>(
    workloads: impl IntoIterator<Item = &'d Manifest<WorkloadSpec>>,
) -> BTreeMap<Alike<'d>, BTreeSet<IpAddr>> {
    let mut owners: BTreeMap<IpAddr, &'d Manifest<WorkloadSpec>> = BTreeMap::new();
    for workload in workloads.into_iter().filter(|workload| workload.spec.captured.is_some()) {
        for address in &workload.spec.addresses {
            match owners.entry(address.to_canonical()) {
                Entry::Occupied(owner) if owner.get().spec.state != WorkloadState::Draining => {}
                Entry::Occupied(mut owner) => _ = owner.insert(workload),
                Entry::Vacant(owner) => _ = owner.insert(workload),
            }
        }
    }
    let mut alike: BTreeMap<Alike<'d>, BTreeSet<IpAddr>> = BTreeMap::new();
    for (address, Manifest { metadata, spec }) in owners {
        let Some(captured) = &spec.captured else { continue };
        let of =
            Alike { namespace: &metadata.namespace, account: &spec.service_account, except: &captured.except_ports };
        alike.entry(of).or_default().insert(address);
    }
    alike
}

fn facts(namespace: &str) -> ServiceFacts<'_> {
    ServiceFacts { namespace, service: SERVICE, port: 0 }
}
