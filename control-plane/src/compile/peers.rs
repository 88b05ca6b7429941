//! Calls to a workload by its own address, at a port that no service has.
//!
//! On the way in, each captured workload has one further listener, of the unspecified address: connections to ports without
//! a listener of their own are its, by mutual TLS, and in plaintext where the mesh is permissive. What is known of such a
//! port is the connection itself, so it leads to a cluster of type `ORIGINAL_DST`.
//!
//! On the way out, every proxy must know who answers at an address. It is told by clusters of its own kind, one for each set
//! of workloads that are reached in the same way: of one service account, with the same ports past their proxies. Their
//! addresses are endpoints, so that a pod that comes or goes changes one load assignment and nothing else; its
//! readiness is left out, so that it changes nothing at all. `docs/xds.md` weighs the other forms.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use weft_core::names::SpiffeId;
use weft_proto::names;

use super::envoy::{self, Health, Protection, ServiceFacts};
use super::{Resource, listener};
use crate::document::{Manifest, Mtls, Protocol, WorkloadSpec, WorkloadState};

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

/// What every proxy needs to call captured workloads at ports that no service has.
pub(super) fn outbound(workloads: &[&Manifest<WorkloadSpec>], trust_domain: &str, into: &mut Vec<Resource>) {
    for (alike, addresses) in alike(workloads) {
        let name = alike.name();
        let identity = SpiffeId::workload(trust_domain, alike.namespace, alike.account);
        let except: Vec<u16> = alike.except.iter().copied().collect();
        let body = envoy::any_port_cluster(&name, &facts(alike.namespace), &except, &identity);
        into.push(Resource { type_url: names::CLUSTER, name: name.clone(), body });
        let endpoint = |address: IpAddr| envoy::Endpoint {
            address: SocketAddr::new(address, names::INBOUND_PORT),
            health: Health::Healthy,
            workload: None,
            meshed: true,
        };
        let endpoints: Vec<envoy::Endpoint> = addresses.into_iter().map(endpoint).collect();
        let body = envoy::assignment(&name, &endpoints, Protection::Mutual(std::slice::from_ref(&identity)));
        into.push(Resource { type_url: names::ENDPOINTS, name, body });
    }
}

/// What workloads have in common that are reached in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Alike<'d> {
    namespace: &'d str,
    account: &'d str,
    except: &'d BTreeSet<u16>,
}

impl Alike<'_> {
    /// `peers/NAMESPACE/ACCOUNT/PORT,PORT`: neither namespaces nor accounts have a slash.
    fn name(&self) -> String {
        let except: Vec<String> = self.except.iter().map(u16::to_string).collect();
        format!("peers/{}/{}/{}", self.namespace, self.account, except.join(","))
    }
}

/// The addresses of captured workloads by how they are reached. One that two have is the one's that stays: it is given again
/// while its last owner still goes.
fn alike<'d>(workloads: &[&'d Manifest<WorkloadSpec>]) -> BTreeMap<Alike<'d>, BTreeSet<IpAddr>> {
    let mut owners: BTreeMap<IpAddr, &'d Manifest<WorkloadSpec>> = BTreeMap::new();
    for workload in workloads.iter().filter(|workload| workload.spec.captured.is_some()) {
        for address in &workload.spec.addresses {
            match owners.entry(*address) {
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
