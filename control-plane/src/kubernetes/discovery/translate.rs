//! The cluster's objects as documents: pure, and the same whatever the order in which the objects came.

#[cfg(test)]
pub(super) mod tests;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::custom::Custom;
use super::object::{EndpointFacts, MeshFacts, ObjectName, PodFacts, PortFacts, ServiceFacts, SliceFacts};
use super::objects::Objects;
use crate::document::{
    Backends, Captured, Discovered, DiscoveredEndpoint, Document, EndpointGroup, Key, Kind, Manifest, Metadata,
    PortMapping, ServicePort, ServiceSpec, WorkloadSpec, WorkloadState,
};

/// All documents of a cluster. Of two objects that make one document the cluster's own wins, then the first of
/// [`Objects::custom`]: [`shadowed`] says which those are.
pub fn translate(objects: &Objects) -> BTreeMap<Key, Document> {
    let mut documents: BTreeMap<Key, Document> = BTreeMap::new();
    for (key, custom) in objects.custom_objects() {
        if let Some(document) = &custom.document {
            documents.entry(key).or_insert_with(|| document.clone());
        }
    }
    let pods = objects.pods.iter();
    let workloads = pods.filter_map(|(name, pod)| workload(name, pod, pod.mesh()?));
    let world = Pods::new(objects);
    let slices = slices(objects);
    let services = objects.services.iter().filter_map(|(name, facts)| {
        let slices = slices.get(&(&*name.namespace, &*name.name)).map_or(&[][..], Vec::as_slice);
        service(name, facts, slices, &world)
    });
    documents.extend(workloads.chain(services).map(|document| (document.key(), document)));
    documents
}

/// Whether the cluster itself has what a custom object of this name would describe.
pub fn shadowed(key: &Key, objects: &Objects) -> bool {
    let name = || ObjectName { namespace: key.namespace.clone(), name: key.name.clone() };
    match key.kind {
        Kind::Service => objects.services.get(&name()).is_some_and(|service| !service.ports.is_empty()),
        Kind::Workload => {
            objects.pods.get(&name()).is_some_and(|pod| pod.mesh().is_some() && !pod.addresses.is_empty())
        }
        _ => false,
    }
}

/// What is asked of pods about endpoints.
struct Pods<'o> {
    objects: &'o Objects,
    /// Pods with a proxy, by the addresses they have.
    meshed: HashMap<IpAddr, (&'o ObjectName, &'o PodFacts)>,
}

impl<'o> Pods<'o> {
    fn new(objects: &'o Objects) -> Self {
        let mut meshed: HashMap<IpAddr, (&ObjectName, &PodFacts)> = HashMap::new();
        for (name, pod) in objects.pods.iter().filter(|(_, pod)| pod.mesh().is_some()) {
            for address in &pod.addresses {
                // An address is given again while its last owner still goes.
                match meshed.get(address) {
                    Some((_, owner)) if !owner.terminating => {}
                    _ => _ = meshed.insert(*address, (name, pod)),
                }
            }
        }
        Self { objects, meshed }
    }

    /// Who is behind an endpoint. `Err` where that is not known yet: its pod has not been seen with its address, so that
    /// nobody can say whether it takes plaintext.
    fn behind(&self, endpoint: &EndpointFacts) -> Result<Option<(&'o ObjectName, &'o PodFacts)>, NotYet> {
        let Some(name) = &endpoint.pod else { return Ok(self.meshed.get(&endpoint.address).copied()) };
        let (name, pod) = self.objects.pods.get_with_name(name).ok_or(NotYet)?;
        if pod.addresses.is_empty() {
            return Err(NotYet);
        }
        Ok(Some((name, pod)))
    }
}

/// Nobody knows yet.
struct NotYet;

fn slices(objects: &Objects) -> HashMap<(&str, &str), Vec<&SliceFacts>> {
    let mut slices: HashMap<(&str, &str), Vec<&SliceFacts>> = HashMap::new();
    for (name, slice) in objects.slices.iter() {
        slices.entry((&name.namespace, &slice.service)).or_default().push(slice);
    }
    slices
}

/// A pod with a proxy; none until it has an address.
fn workload(name: &ObjectName, pod: &PodFacts, mesh: &MeshFacts) -> Option<Document> {
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
    Some(Document::Workload(Manifest { metadata: metadata(name, mesh.labels.clone()), spec }))
}

/// A Service with the endpoints of its slices; none where it has no port of TCP.
fn service(name: &ObjectName, facts: &ServiceFacts, slices: &[&SliceFacts], pods: &Pods<'_>) -> Option<Document> {
    let groups = groups(facts, slices, pods);
    let ports: Vec<ServicePort> = facts.ports.iter().map(|port| service_port(port, &groups)).collect();
    if ports.is_empty() {
        return None;
    }
    let spec = ServiceSpec {
        addresses: facts.addresses.clone(),
        ports,
        timeouts: None,
        retries: None,
        backends: Backends::Discovered(Discovered { headless: facts.headless, groups }),
    };
    Some(Document::Service(Manifest { metadata: metadata(name, BTreeMap::new()), spec }))
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
            for (ports, endpoint) in split(&ports, service, endpoint, behind) {
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

/// What became of a custom object; of one that the cluster itself shadows, that.
pub fn problems(key: &Key, custom: &Custom, is_first: bool, objects: &Objects) -> Vec<String> {
    let own = custom.problems.iter().flat_map(|problems| &problems.0).map(|problem| match problem.field.as_str() {
        "" => problem.what.clone(),
        field => format!("{field}: {}", problem.what),
    });
    let shadow = if shadowed(key, objects) {
        Some(format!("the cluster itself has {key}, which counts; give this one another name"))
    } else if !is_first {
        Some(format!("an object of another API group is {key} already, and counts; remove one of them"))
    } else {
        None
    };
    own.chain(shadow).collect()
}
