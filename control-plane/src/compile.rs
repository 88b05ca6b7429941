//! Documents to xDS resources: pure, deterministic, linear in the documents and what they select.
//!
//! [`Compiler`] keeps what it made of each document, and after a change makes only what that touches; what comes out is the
//! same as if all had been compiled anew.
//!
//! Per service port: a listener, a route configuration (unless it is plain TCP), a cluster and its endpoints, for every
//! proxy; TLSRoutes become filter chains of the listener, HTTPRoutes the routes of the route configuration. A service
//! without an address of its own has them for each of its pods instead. Per workload and target port: an inbound listener and
//! cluster, for that workload's proxy alone.
//!
//! Of workloads that are captured as a whole, ports that no service has are served too: an inbound listener of all other
//! ports for each, and for every proxy a cluster of those that are reached in the same way, by their addresses (see `peers`).
//!
//! Who is behind each address is also said by resources of their own, for proxies that ask for it (see `destinations`).

mod compiler;
mod destinations;
mod envoy;
mod http_routes;
mod kept;
mod links;
mod peers;
mod places;
mod selection;
#[cfg(test)]
pub(crate) mod tests;
mod tls_routes;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use weft_core::detection::Verdict;
use weft_core::names::SpiffeId;
use weft_proto::names;

use crate::document::{
    Backends, Document, Key, Kind, Manifest, Metadata, Mtls, Protocol, ServicePort, ServiceSpec, WorkloadSpec,
};
use crate::verdicts::Seen;
pub use compiler::{Compiler, Findings, Outcome};
use envoy::{Address, Direction, NamedChain, Protection, ServiceFacts};
use http_routes::HttpRoutes;
pub use http_routes::{Condition, ParentStatus};
use places::{Place, by_pod, places};
use selection::Selection;
use tls_routes::TlsRoutes;

/// One resource, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Resource {
    type_url: &'static str,
    name: String,
    body: Bytes,
}

/// What was made of documents.
#[derive(Debug, Default, PartialEq, Eq)]
struct Made {
    /// By service.
    services: BTreeMap<Key, OfService>,
    /// By workload. Each that is wanted has an entry.
    workloads: BTreeMap<Key, OfWorkload>,
    /// What became of each HTTPRoute, parent by parent.
    routes: BTreeMap<Key, Vec<ParentStatus>>,
    warnings: Vec<Warning>,
}

/// What was made of a service.
#[derive(Debug, Default, PartialEq, Eq)]
struct OfService {
    /// For every proxy.
    resources: Vec<Resource>,
    /// Addresses that are listened for, each with the name of its listener.
    listens: Vec<(SocketAddr, String)>,
    /// What its undeclared ports are taken for, by `NAMESPACE/SERVICE:PORT`.
    verdicts: BTreeMap<String, Verdict>,
}

/// What was made of a workload.
#[derive(Debug, Default, PartialEq, Eq)]
struct OfWorkload {
    /// The service account that alone may have what is for its proxy.
    account: String,
    /// For its proxy alone.
    resources: Vec<Resource>,
    /// Its ports of undeclared protocol.
    undeclared: BTreeSet<u16>,
}

/// Something valid that is probably not what was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The document it is about.
    pub key: Key,
    pub what: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)
    }
}

/// Compiles the documents of a mesh, in whatever order they come, with what was `seen` of what they do not declare. Resources
/// are made of those documents alone that are `wanted`: the others say what they are to these.
fn make<'d>(
    documents: impl IntoIterator<Item = &'d Document>,
    trust_domain: &str,
    seen: &Seen,
    wanted: impl Fn(&Key) -> bool,
) -> Made {
    let selection = Selection::new(documents);
    let mut made = Made::default();
    let tls_routes = TlsRoutes::new(&selection, &mut made.warnings);
    let http_routes = HttpRoutes::new(&selection, &mut made.routes, &mut made.warnings);
    // Per workload, the service port that decides about each target port.
    let mut inbound: Vec<BTreeMap<u16, Target<'d>>> = vec![BTreeMap::new(); selection.workloads.len()];
    // Addresses of pods that are listened for, as pods may be of several services without addresses.
    let mut listened = HashSet::new();
    for (service, selected) in &selection.services {
        let key = key_of(service);
        let is_wanted = wanted(&key);
        if let (Backends::Selector(labels), true) = (&service.spec.backends, selected.is_empty()) {
            let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let what = format!("its selector {} selects no workload yet", labels.join(","));
            made.warnings.push(Warning { key: key.clone(), what });
        }
        let identities = is_wanted.then(|| identities(service, selected, &selection, trust_domain)).flatten();
        let mut of_service = OfService::default();
        for port in &service.spec.ports {
            let places = places(service, port, selected, &selection);
            let verdict = verdict(service, port, &places, &selection, seen);
            of_service.verdicts.extend(verdict.map(|verdict| (port_name(service, port), verdict)));
            let target = Target { service, port, verdict };
            made.warnings.extend(target.claim_all(&places, &mut inbound));
            let routing = || Routing {
                by_name: tls_routes.chains(service, port),
                requests: http_routes.configuration(service, port),
                verdict,
            };
            let outbound = is_wanted.then(|| Outbound { service, port, routing: routing() });
            if let Some(outbound) = &outbound {
                outbound.as_service(&places, &selection, identities.as_deref(), &mut of_service);
            }
            if is_headless(service) {
                for (pod, mut places) in by_pod(places) {
                    places.retain(|place| listened.insert(place.address));
                    if let Some(outbound) = &outbound {
                        outbound.as_pod(&pod, &places, &selection, trust_domain, &mut of_service);
                    }
                }
            }
        }
        if is_wanted {
            made.services.insert(key, of_service);
        }
    }
    for (workload, targets) in selection.workloads.iter().zip(&inbound) {
        let key = Key::new(Kind::Workload, &workload.metadata.namespace, &workload.metadata.name);
        if !wanted(&key) {
            continue;
        }
        let mut resources = Vec::new();
        if workload.spec.captured.is_some() {
            peers::inbound(workload, selection.mtls, &mut resources);
        }
        for (port, target) in targets {
            target.inbound(workload, *port, selection.mtls, &mut resources);
        }
        let undeclared = targets
            .iter()
            .filter_map(|(port, target)| (target.port.protocol == Protocol::Auto).then_some(*port))
            .collect();
        let account = workload.spec.service_account.clone();
        made.workloads.insert(key, OfWorkload { account, resources, undeclared });
    }
    made
}

/// What a compilation of these documents would warn of.
pub fn warnings<'d>(documents: impl IntoIterator<Item = &'d Document>) -> Vec<Warning> {
    make(documents, "unused", &Seen::default(), |_| false).warnings
}

/// A service port that sends to a target port of a workload.
#[derive(Clone, Copy)]
struct Target<'d> {
    service: &'d Manifest<ServiceSpec>,
    port: &'d ServicePort,
    verdict: Option<Verdict>,
}

impl Target<'_> {
    /// Takes what it leads to of all its workloads; a warning where another service says otherwise of one.
    fn claim_all(self, places: &[Place<'_>], inbound: &mut [BTreeMap<u16, Self>]) -> Option<Warning> {
        let mut conflict = None;
        for place in places {
            let Some(workload) = place.workload else { continue };
            let winner = self.claim(place.target_port, &mut inbound[workload]);
            conflict = winner.map(|winner| self.conflict(place.target_port, &winner)).or(conflict);
        }
        conflict
    }

    /// Takes a target port of a workload if it is free; otherwise the owner, if that says another protocol.
    /// Services come by name, so the first by name wins.
    fn claim(self, target_port: u16, targets: &mut BTreeMap<u16, Self>) -> Option<Self> {
        let owner = *targets.entry(target_port).or_insert(self);
        (owner.port.protocol != self.port.protocol).then_some(owner)
    }

    fn conflict(self, target_port: u16, winner: &Self) -> Warning {
        let what = format!(
            "port {} says that target port {} speaks {}, but port {} of {} says {} and decides; give both one protocol",
            self.port.port,
            target_port,
            self.port.protocol,
            winner.port.port,
            key_of(winner.service),
            winner.port.protocol
        );
        Warning { key: key_of(self.service), what }
    }

    /// What the workload's proxy needs to take connections for one of its ports.
    fn inbound(&self, workload: &Manifest<WorkloadSpec>, port: u16, mtls: Mtls, into: &mut Vec<Resource>) {
        let name = format!("inbound/{port}");
        let addresses: Vec<SocketAddr> =
            workload.spec.addresses.iter().map(|address| SocketAddr::new(*address, port)).collect();
        let (facts, protocol) = (facts(self.service, self.port), self.port.protocol);
        let cluster = if workload.spec.captured.is_some() {
            // At the address that was called, as without a mesh: some applications listen on the pod's address alone.
            envoy::original_destination_cluster(&name, &facts, protocol)
        } else {
            let application = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port);
            envoy::static_cluster(&name, application, &facts, protocol)
        };
        into.push(Resource { type_url: names::CLUSTER, name: name.clone(), body: cluster });
        let direction = Direction::Inbound { permissive: mtls == Mtls::Permissive };
        into.extend(listener(name.clone(), &addresses, self.port.protocol, &name, direction, &[], self.verdict));
    }
}

/// What is said of where a port's connections and requests go.
struct Routing<'r> {
    /// By TLSRoutes.
    by_name: &'r [NamedChain],
    /// By HTTPRoutes; `None`: all to the port's own endpoints.
    requests: Option<Bytes>,
    verdict: Option<Verdict>,
}

/// What every proxy needs to reach one port of a service.
struct Outbound<'d> {
    service: &'d Manifest<ServiceSpec>,
    port: &'d ServicePort,
    routing: Routing<'d>,
}

impl Outbound<'_> {
    /// By the service's addresses, to any of its endpoints.
    fn as_service(
        &self,
        places: &[Place<'_>],
        selection: &Selection<'_>,
        identities: Option<&[SpiffeId]>,
        into: &mut OfService,
    ) {
        let endpoints: Vec<envoy::Endpoint> = places.iter().map(|place| place.endpoint(selection)).collect();
        let of_port = |address: &IpAddr| SocketAddr::new(*address, self.port.port);
        let addresses = self.service.spec.addresses.iter().map(of_port).collect();
        let requests = self.routing.requests.clone();
        self.render(&port_name(self.service, self.port), addresses, &endpoints, identities, requests, into);
    }

    /// By a pod's own addresses, to it alone: whoever calls it has chosen it, so that it takes calls in any state, and no
    /// route leads them elsewhere.
    fn as_pod(
        &self,
        pod: &str,
        places: &[Place<'_>],
        selection: &Selection<'_>,
        trust_domain: &str,
        into: &mut OfService,
    ) {
        let Some(first) = places.iter().min_by_key(|place| place.address.is_ipv6()) else { return };
        let Metadata { namespace, name, .. } = &self.service.metadata;
        let name = format!("{namespace}/{pod}.{name}:{}", self.port.port);
        let endpoint = envoy::Endpoint { health: envoy::Health::Healthy, ..first.endpoint(selection) };
        let identity = first.workload.map(|position| identity(selection.workloads[position], trust_domain));
        let addresses = places.iter().map(|place| place.address).collect();
        self.render(&name, addresses, &[endpoint], identity.as_ref().map(std::slice::from_ref), None, into);
    }

    fn render(
        &self,
        name: &str,
        mut addresses: Vec<SocketAddr>,
        endpoints: &[envoy::Endpoint],
        identities: Option<&[SpiffeId]>,
        requests: Option<Bytes>,
        OfService { resources: into, listens, .. }: &mut OfService,
    ) {
        let Self { service, port, routing: Routing { by_name, verdict, .. } } = self;
        let protection = match identities {
            None => Protection::Plaintext,
            Some(identities) if endpoints.iter().all(|endpoint| endpoint.meshed) => Protection::Mutual(identities),
            Some(identities) => Protection::Mixed(identities),
        };
        let cluster = envoy::discovered_cluster(name, &facts(service, port), port.protocol, protection);
        into.push(Resource { type_url: names::CLUSTER, name: name.to_owned(), body: cluster });
        let body = envoy::assignment(name, endpoints, protection);
        into.push(Resource { type_url: names::ENDPOINTS, name: name.to_owned(), body });
        // IPv4 first: the one address older clients look at.
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let (listener_name, direction) = (format!("outbound/{name}"), Direction::Outbound);
        listens.extend(addresses.iter().map(|address| (*address, listener_name.clone())));
        into.extend(listener(listener_name, &addresses, port.protocol, name, direction, by_name, *verdict));
        if !matches!(port.protocol, Protocol::Tcp | Protocol::Tls) {
            let spec = &service.spec;
            let to_itself = || envoy::route_configuration(name, name, spec.timeouts, spec.retries.as_ref());
            let body = requests.unwrap_or_else(to_itself);
            into.push(Resource { type_url: names::ROUTE, name: name.to_owned(), body });
        }
    }
}

/// A listener; none where a service has no address that could be listened for.
fn listener(
    name: String,
    addresses: &[SocketAddr],
    protocol: Protocol,
    cluster: &str,
    direction: Direction,
    by_name: &[NamedChain],
    verdict: Option<Verdict>,
) -> Option<Resource> {
    let (first, additional) = addresses.split_first()?;
    let address = Address { first: *first, additional };
    let body = envoy::listener(&name, address, protocol, cluster, direction, by_name, verdict);
    Some(Resource { type_url: names::LISTENER, name, body })
}

/// Who may answer for a service: the accounts of its workloads. `None` for a service outside the mesh.
fn identities(
    service: &Manifest<ServiceSpec>,
    selected: &[usize],
    selection: &Selection<'_>,
    trust_domain: &str,
) -> Option<Vec<SpiffeId>> {
    let is_meshed = match &service.spec.backends {
        Backends::Selector(_) => true,
        Backends::Endpoints(_) => false,
        Backends::Discovered(discovered) => discovered.endpoints().any(|endpoint| endpoint.workload.is_some()),
    };
    is_meshed.then(|| {
        let account = |position: &usize| {
            let Manifest { metadata, spec } = selection.workloads[*position];
            (metadata.namespace.as_str(), spec.service_account.as_str())
        };
        let accounts: BTreeSet<(&str, &str)> = selected.iter().map(account).collect();
        accounts.iter().map(|(namespace, account)| SpiffeId::workload(trust_domain, namespace, account)).collect()
    })
}

fn identity(workload: &Manifest<WorkloadSpec>, trust_domain: &str) -> SpiffeId {
    SpiffeId::workload(trust_domain, &workload.metadata.namespace, &workload.spec.service_account)
}

/// Whether clients reach the endpoints of a service by their own addresses.
fn is_headless(service: &Manifest<ServiceSpec>) -> bool {
    matches!(&service.spec.backends, Backends::Discovered(discovered) if discovered.headless)
}

fn facts<'d>(service: &'d Manifest<ServiceSpec>, port: &ServicePort) -> ServiceFacts<'d> {
    ServiceFacts { namespace: &service.metadata.namespace, service: &service.metadata.name, port: port.port }
}

/// What the proxies of its workloads saw a port speak. What is declared is not asked.
fn verdict(
    service: &Manifest<ServiceSpec>,
    port: &ServicePort,
    places: &[Place<'_>],
    selection: &Selection<'_>,
    seen: &Seen,
) -> Option<Verdict> {
    let is_asked = port.protocol == Protocol::Auto && !matches!(service.spec.backends, Backends::Endpoints(_));
    let target = |place: &Place<'_>| Some((workload_name(selection.workloads[place.workload?]), place.target_port));
    is_asked.then(|| seen.verdict(&port_name(service, port), places.iter().filter_map(target))).flatten()
}

/// `NAMESPACE/SERVICE:PORT`
fn port_name(service: &Manifest<ServiceSpec>, port: &ServicePort) -> String {
    format!("{}/{}:{}", service.metadata.namespace, service.metadata.name, port.port)
}

fn key_of(service: &Manifest<ServiceSpec>) -> Key {
    Key::new(Kind::Service, &service.metadata.namespace, &service.metadata.name)
}

/// What the cluster of a service port is called.
fn cluster_name(namespace: &str, service: &str, port: u16) -> String {
    format!("{namespace}/{service}:{port}")
}

fn workload_name(workload: &Manifest<WorkloadSpec>) -> String {
    format!("{}/{}", workload.metadata.namespace, workload.metadata.name)
}
