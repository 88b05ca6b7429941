//! The cluster's objects as documents: the same whatever the order in which the objects came, and however many of them came
//! at a time. After a change the documents it touches are made again, and no others.

mod links;
#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::object::{EndpointFacts, MeshFacts, ObjectName, PodFacts, PortFacts, ServiceFacts, SliceFacts};
use super::objects::{Changed, Objects};
use crate::document::{
    Backends, Captured, Discovered, DiscoveredEndpoint, Document, EndpointGroup, Key, Kind, Locality, Manifest,
    Metadata, PortMapping, REGION_LABEL, ServicePort, ServiceSpec, WorkloadSpec, WorkloadState, ZONE_LABEL,
};
use links::Links;

/// Translates objects that changed, and no others.
#[derive(Debug, Default)]
pub struct Translator {
    links: Links,
}

impl Translator {
    /// The documents of what changed, and of what that has to do with; `None`: there is no such document. Of two objects that
    /// make one document the cluster's own wins, then the first of [`Objects::custom`]: [`Objects::readings`] says which those are.
    pub fn follow(&mut self, objects: &Objects, changed: Changed) -> BTreeMap<Key, Option<Document>> {
        let touched = self.links.follow(objects, &changed);
        let key = |kind| move |name: &ObjectName| key_of(kind, name);
        let mut keys = changed.custom;
        let permitting = changed.grants.iter().map(|name| &*name.namespace).collect();
        keys.extend(objects.routes_into(&permitting));
        keys.extend(touched.services.iter().map(key(Kind::Service)));
        keys.extend(touched.pods.iter().map(key(Kind::Workload)));
        keys.into_iter().map(|key| (key.clone(), self.document(&key, objects))).collect()
    }

    fn document(&self, key: &Key, objects: &Objects) -> Option<Document> {
        let name = ObjectName { namespace: Arc::clone(&key.namespace), name: Arc::clone(&key.name) };
        let own = match key.kind {
            Kind::Service => objects.services.get(&name).and_then(|facts| self.service(&name, facts, objects)),
            Kind::Workload => objects.pods.get(&name).and_then(|pod| workload(&name, pod, pod.mesh()?, objects)),
            _ => None,
        };
        own.or_else(|| objects.custom_document(key))
    }

    /// A Service with the endpoints of its slices; none where it has no port of TCP.
    fn service(&self, name: &ObjectName, facts: &ServiceFacts, objects: &Objects) -> Option<Document> {
        if facts.ports.is_empty() {
            return None;
        }
        let slices: Vec<&SliceFacts> = self.links.slices_of(name).filter_map(|name| objects.slices.get(name)).collect();
        let groups = groups(facts, &slices, &Pods { objects, links: &self.links });
        let spec = ServiceSpec {
            addresses: facts.addresses.clone(),
            ports: facts.ports.iter().map(|port| service_port(port, &groups)).collect(),
            timeouts: None,
            retries: None,
            backends: Backends::Discovered(Discovered { headless: facts.headless, groups }),
        };
        Some(Document::Service(Manifest { metadata: metadata(name, BTreeMap::new()), spec }))
    }
}

fn key_of(kind: Kind, name: &ObjectName) -> Key {
    Key { kind, namespace: Arc::clone(&name.namespace), name: Arc::clone(&name.name) }
}

/// What is asked of pods about endpoints.
struct Pods<'o> {
    objects: &'o Objects,
    links: &'o Links,
}

impl<'o> Pods<'o> {
    /// The pod with a proxy that has an address. An address is given again while its last owner still goes.
    fn owner(&self, address: IpAddr) -> Option<(&'o ObjectName, &'o PodFacts)> {
        let owners = || self.links.owners(address).filter_map(|name| self.objects.pods.get_with_name(name));
        owners().find(|(_, pod)| !pod.terminating).or_else(|| owners().last())
    }

    /// Where an endpoint is: what its node says counts before what its slice says, which may be older and knows no region.
    fn locality(&self, endpoint: &EndpointFacts, pod: Option<&PodFacts>) -> Option<Locality> {
        let node = pod.and_then(|pod| pod.node.as_ref()).or(endpoint.node.as_ref());
        let of_node = node.and_then(|node| self.objects.nodes.get(node)).cloned();
        let of_slice = || endpoint.zone.clone().map(|zone| Locality { region: String::new(), zone });
        of_node.or_else(of_slice)
    }

    /// Who is behind an endpoint. `Err` where that is not known yet: its pod has not been seen with its address, so that
    /// nobody can say whether it takes plaintext.
    fn behind(&self, endpoint: &EndpointFacts) -> Result<Option<(&'o ObjectName, &'o PodFacts)>, NotYet> {
        let Some(name) = &endpoint.pod else { return Ok(self.owner(endpoint.address)) };
        let (name, pod) = self.objects.pods.get_with_name(name).ok_or(NotYet)?;
        if pod.addresses.is_empty() {
            return Err(NotYet);
        }
        Ok(Some((name, pod)))
    }
}

/// Nobody knows yet.
struct NotYet;

/// A pod with a proxy; none until it has an address.
fn workload(name: &ObjectName, pod: &PodFacts, mesh: &MeshFacts, objects: &Objects) -> Option<Document> {
    let state = match (pod.terminating, mesh.ready) {
        (true, _) => WorkloadState::Draining,
        (false, true) => WorkloadState::Ready,
        (false, false) => WorkloadState::Unhealthy,
    };
    let spec = WorkloadSpec {
        addresses: Some(pod.addresses.clone()).filter(|addresses| !addresses.is_empty())?,
        service_account: mesh.service_account.clone(),
        state,
        advertise: Vec::new(),
        captured: Some(Captured { except_ports: mesh.excluded_ports.clone() }),
    };
    let mut labels = mesh.labels.clone();
    // As newer versions of Kubernetes label pods themselves.
    if let Some(Locality { region, zone }) = pod.node.as_ref().and_then(|node| objects.nodes.get(node)) {
        let said = [(REGION_LABEL, region), (ZONE_LABEL, zone)].into_iter().filter(|(_, value)| !value.is_empty());
        labels.extend(said.map(|(label, value)| (label.to_owned(), value.clone())));
    }
    Some(Document::Workload(Manifest { metadata: metadata(name, labels), spec }))
}

/// A target port that has a name is another number from pod to pod; the first of them is shown.
fn service_port(port: &PortFacts, groups: &[EndpointGroup]) -> ServicePort {
    let found = || groups.iter().find_map(|group| group.target_port(port.port));
    ServicePort {
        name: Some(port.name.clone()).filter(|name| !name.is_empty()),
        port: port.port,
        target_port: port.target.or_else(found).unwrap_or(port.port),
        protocol: port.protocol,
    }
}

/// The endpoints of a service, those with the same ports together.
fn groups(service: &ServiceFacts, slices: &[&SliceFacts], pods: &Pods<'_>) -> Vec<EndpointGroup> {
    let mut groups: BTreeMap<Vec<PortMapping>, BTreeMap<IpAddr, DiscoveredEndpoint>> = BTreeMap::new();
    for slice in slices {
        let ports = mappings(service, slice);
        for endpoint in &slice.endpoints {
            let Ok(behind) = pods.behind(endpoint) else { continue };
            let locality = pods.locality(endpoint, behind.map(|(_, pod)| pod));
            for (ports, endpoint) in split(&ports, service, endpoint, behind, locality) {
                let known = groups.entry(ports).or_default();
                match known.get_mut(&endpoint.address) {
                    // An endpoint stands in two slices while it moves from one to the other.
                    Some(known) => known.state = known.state.min(endpoint.state),
                    None => _ = known.insert(endpoint.address, endpoint),
                }
            }
        }
    }
    let mut groups: Vec<EndpointGroup> = groups
        .into_iter()
        .map(|(ports, endpoints)| EndpointGroup { ports, endpoints: endpoints.into_values().collect() })
        .collect();
    serve_to_the_end(&mut groups);
    groups
}

/// Under which numbers a slice has the ports of its service.
fn mappings(service: &ServiceFacts, slice: &SliceFacts) -> Vec<PortMapping> {
    let mapping = |port: &PortFacts| {
        let (_, number) = slice.ports.iter().find(|(name, _)| *name == port.name)?;
        Some(PortMapping { port: port.port, target_port: number.or(port.target).unwrap_or(port.port) })
    };
    let mut ports: Vec<PortMapping> = service.ports.iter().filter_map(mapping).collect();
    ports.sort_unstable();
    ports
}

/// An endpoint by its ports: those its proxy takes connections for, and those that go past it.
fn split(
    ports: &[PortMapping],
    service: &ServiceFacts,
    endpoint: &EndpointFacts,
    behind: Option<(&ObjectName, &PodFacts)>,
    locality: Option<Locality>,
) -> impl Iterator<Item = (Vec<PortMapping>, DiscoveredEndpoint)> {
    let pod = behind.map(|(_, pod)| pod);
    // An address that is not the pod's own is of another network, where nothing is captured.
    let mesh = pod.filter(|pod| pod.addresses.contains(&endpoint.address)).and_then(|pod| pod.mesh());
    let is_meshed = |port: &PortMapping| mesh.is_some_and(|mesh| !mesh.excluded_ports.contains(&port.target_port));
    let (meshed, plain): (Vec<PortMapping>, Vec<PortMapping>) = ports.iter().partition(|port| is_meshed(port));
    let workload = behind.map(|(name, _)| name.to_string());
    let found = DiscoveredEndpoint {
        address: endpoint.address,
        state: state(service, endpoint, pod),
        pod: behind.map(|(name, _)| name.name.to_string()),
        workload: None,
        locality,
    };
    let meshed = (meshed, DiscoveredEndpoint { workload, ..found.clone() });
    [meshed, (plain, found)].into_iter().filter(|(ports, _)| !ports.is_empty())
}

/// A pod that is to end takes nothing new, whether its slice says so already or not.
fn state(service: &ServiceFacts, endpoint: &EndpointFacts, pod: Option<&PodFacts>) -> WorkloadState {
    let terminating = pod.is_some_and(|pod| pod.terminating);
    match endpoint {
        EndpointFacts { ready: true, .. } if !terminating || service.publishes_not_ready => WorkloadState::Ready,
        EndpointFacts { serving: true, terminating: ending, .. } if terminating || *ending => WorkloadState::Draining,
        _ => WorkloadState::Unhealthy,
    }
}

/// While nobody is ready, those that are about to end and still serve are better than nobody, as Kubernetes itself has it.
fn serve_to_the_end(groups: &mut [EndpointGroup]) {
    let endpoints = || groups.iter().flat_map(|group| &group.endpoints);
    if endpoints().any(|endpoint| endpoint.state == WorkloadState::Ready) {
        return;
    }
    let endpoints = groups.iter_mut().flat_map(|group| &mut group.endpoints);
    for endpoint in endpoints.filter(|endpoint| endpoint.state == WorkloadState::Draining) {
        endpoint.state = WorkloadState::Ready;
    }
}

fn metadata(name: &ObjectName, labels: BTreeMap<String, String>) -> Metadata {
    Metadata { name: name.name.to_string(), namespace: name.namespace.to_string(), labels }
}
