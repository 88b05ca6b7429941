//! Documents to xDS resources: pure, deterministic, linear in the documents and what they select.
//!
//! Per service port: a listener, a route configuration (unless it is plain TCP), a cluster and its endpoints, for every
//! proxy; TLSRoutes become filter chains of the listener, HTTPRoutes the routes of the route configuration. Per workload and target port: an inbound listener and cluster, for that workload's proxy alone.

mod envoy;
mod http_routes;
mod selection;
#[cfg(test)]
mod tests;
mod tls_routes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use weft_core::detection::Verdict;
use weft_core::names::SpiffeId;
use weft_proto::names;

use crate::document::{
    Backends, Document, Key, Kind, Manifest, Mtls, Protocol, ServicePort, ServiceSpec, WorkloadSpec, WorkloadState,
};
use crate::verdicts::{Seen, Undeclared};
use envoy::{Address, Direction, Health, NamedChain, Protection, ServiceFacts};
use http_routes::HttpRoutes;
pub use http_routes::{Condition, ParentStatus};
use selection::Selection;
use tls_routes::TlsRoutes;

/// One resource, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    pub type_url: &'static str,
    pub name: String,
    pub body: Bytes,
}

/// What all proxies of a mesh are told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// For every proxy.
    pub shared: Vec<Resource>,
    /// By workload, `NAMESPACE/NAME`: for its proxy alone. Every workload has an entry, if an empty one.
    pub scoped: BTreeMap<String, Vec<Resource>>,
    /// By workload: the service account that alone may have what is for its proxy.
    pub accounts: BTreeMap<String, String>,
    /// What undeclared service ports are taken for, by `NAMESPACE/SERVICE:PORT`.
    pub verdicts: BTreeMap<String, Verdict>,
    /// By workload, where it has ports of undeclared protocol.
    pub undeclared: BTreeMap<String, Undeclared>,
    /// What became of each HTTPRoute, parent by parent.
    pub routes: BTreeMap<Key, Vec<ParentStatus>>,
    pub warnings: Vec<Warning>,
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

/// Compiles the documents of a mesh, in whatever order they come, with what was `seen` of what they do not declare.
pub fn compile<'d>(documents: impl IntoIterator<Item = &'d Document>, trust_domain: &str, seen: &Seen) -> Compiled {
    let selection = Selection::new(documents);
    let mut compiled = Compiled::default();
    for workload in &selection.workloads {
        compiled.scoped.insert(workload_name(workload), Vec::new());
        compiled.accounts.insert(workload_name(workload), workload.spec.service_account.clone());
    }
    let tls_routes = TlsRoutes::new(&selection, &mut compiled.warnings);
    let http_routes = HttpRoutes::new(&selection, &mut compiled.routes, &mut compiled.warnings);
    // Per workload, the service port that decides about each target port.
    let mut inbound: Vec<BTreeMap<u16, Target<'d>>> = vec![BTreeMap::new(); selection.workloads.len()];
    for (service, selected) in &selection.services {
        let workloads: Vec<&Manifest<WorkloadSpec>> =
            selected.iter().map(|index| selection.workloads[*index]).collect();
        if let (Backends::Selector(labels), true) = (&service.spec.backends, workloads.is_empty()) {
            let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let what = format!("its selector {} selects no workload yet", labels.join(","));
            compiled.warnings.push(Warning { key: key_of(service), what });
        }
        let identities = identities(service, &workloads, trust_domain);
        for port in &service.spec.ports {
            let verdict = verdict(service, port, &workloads, seen);
            compiled.verdicts.extend(verdict.map(|verdict| (port_name(service, port), verdict)));
            let routing = Routing {
                by_name: tls_routes.chains(service, port),
                requests: http_routes.configuration(service, port),
                verdict,
            };
            outbound(service, port, &workloads, identities.as_deref(), routing, &mut compiled.shared);
            let target = Target { service, port };
            let loser = selected.iter().filter_map(|index| target.claim(&mut inbound[*index])).last();
            compiled.warnings.extend(loser.map(|winner| target.conflict(&winner)));
        }
    }
    for (workload, targets) in selection.workloads.iter().zip(&inbound) {
        let scoped = compiled.scoped.entry(workload_name(workload)).or_default();
        for (port, target) in targets {
            let verdict = compiled.verdicts.get(&port_name(target.service, target.port)).copied();
            target.inbound(workload, *port, selection.mtls, verdict, scoped);
        }
        let undeclared: BTreeSet<u16> = targets
            .iter()
            .filter_map(|(port, target)| (target.port.protocol == Protocol::Auto).then_some(*port))
            .collect();
        if !undeclared.is_empty() {
            let service_account = workload.spec.service_account.clone();
            compiled.undeclared.insert(workload_name(workload), Undeclared { service_account, ports: undeclared });
        }
    }
    compiled
}

/// What [`compile`] would warn of in these documents.
pub fn warnings<'d>(documents: impl IntoIterator<Item = &'d Document>) -> Vec<Warning> {
    compile(documents, "unused", &Seen::default()).warnings
}

/// A service port that sends to a target port of a workload.
#[derive(Clone, Copy)]
struct Target<'d> {
    service: &'d Manifest<ServiceSpec>,
    port: &'d ServicePort,
}

impl Target<'_> {
    /// Takes the target port of a workload if it is free; otherwise the owner, if that says another protocol.
    /// Services come by name, so the first by name wins.
    fn claim(self, targets: &mut BTreeMap<u16, Self>) -> Option<Self> {
        let owner = *targets.entry(self.port.target_port).or_insert(self);
        (owner.port.protocol != self.port.protocol).then_some(owner)
    }

    fn conflict(self, winner: &Self) -> Warning {
        let what = format!(
            "port {} says that target port {} speaks {}, but port {} of {} says {} and decides; give both one protocol",
            self.port.port,
            self.port.target_port,
            self.port.protocol,
            winner.port.port,
            key_of(winner.service),
            winner.port.protocol
        );
        Warning { key: key_of(self.service), what }
    }

    /// What the workload's proxy needs to take connections for one of its ports.
    fn inbound(
        &self,
        workload: &Manifest<WorkloadSpec>,
        port: u16,
        mtls: Mtls,
        verdict: Option<Verdict>,
        into: &mut Vec<Resource>,
    ) {
        let name = format!("inbound/{port}");
        let addresses: Vec<SocketAddr> =
            workload.spec.addresses.iter().map(|address| SocketAddr::new(*address, port)).collect();
        let cluster = envoy::static_cluster(
            &name,
            SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port),
            &facts(self.service, self.port),
            self.port.protocol,
        );
        into.push(Resource { type_url: names::CLUSTER, name: name.clone(), body: cluster });
        let direction = Direction::Inbound { permissive: mtls == Mtls::Permissive };
        into.extend(listener(name.clone(), &addresses, self.port.protocol, &name, direction, &[], verdict));
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
fn outbound(
    service: &Manifest<ServiceSpec>,
    port: &ServicePort,
    workloads: &[&Manifest<WorkloadSpec>],
    identities: Option<&[SpiffeId]>,
    routing: Routing<'_>,
    into: &mut Vec<Resource>,
) {
    let name = port_name(service, port);
    let endpoints = match &service.spec.backends {
        Backends::Selector(_) => workloads.iter().map(|workload| endpoint(workload, port.target_port)).collect(),
        Backends::Endpoints(endpoints) => endpoints
            .iter()
            .map(|endpoint| envoy::Endpoint {
                address: SocketAddr::new(endpoint.address, endpoint.port.unwrap_or(port.target_port)),
                health: Health::Healthy,
                workload: None,
                meshed: false,
            })
            .collect::<Vec<_>>(),
    };
    let protection = match identities {
        None => Protection::Plaintext,
        Some(identities) if endpoints.iter().all(|endpoint| endpoint.meshed) => Protection::Mutual(identities),
        Some(identities) => Protection::Mixed(identities),
    };
    let cluster = envoy::discovered_cluster(&name, &facts(service, port), port.protocol, protection);
    into.push(Resource { type_url: names::CLUSTER, name: name.clone(), body: cluster });
    let body = envoy::assignment(&name, &endpoints, protection);
    into.push(Resource { type_url: names::ENDPOINTS, name: name.clone(), body });
    // IPv4 first: the one address older clients look at.
    let (v4, v6): (Vec<&IpAddr>, Vec<&IpAddr>) = service.spec.addresses.iter().partition(|address| address.is_ipv4());
    let addresses: Vec<SocketAddr> =
        v4.into_iter().chain(v6).map(|address| SocketAddr::new(*address, port.port)).collect();
    let (direction, Routing { by_name, requests, verdict }) = (Direction::Outbound, routing);
    into.extend(listener(format!("outbound/{name}"), &addresses, port.protocol, &name, direction, by_name, verdict));
    if !matches!(port.protocol, Protocol::Tcp | Protocol::Tls) {
        let spec = &service.spec;
        let to_itself = || envoy::route_configuration(&name, &name, spec.timeouts, spec.retries.as_ref());
        let body = requests.unwrap_or_else(to_itself);
        into.push(Resource { type_url: names::ROUTE, name, body });
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

/// Where peers reach a target port of a workload.
fn endpoint(workload: &Manifest<WorkloadSpec>, port: u16) -> envoy::Endpoint {
    let spec = &workload.spec;
    let advertised = spec.advertise.iter().find(|advertised| advertised.port == port).map(|advertised| advertised.at);
    // A valid workload has an address; one that was made wrong gets no traffic rather than a panic.
    let own = spec.addresses.first().copied().unwrap_or(IpAddr::from([127, 0, 0, 1]));
    envoy::Endpoint {
        address: advertised.unwrap_or(SocketAddr::new(own, port)),
        health: match spec.state {
            WorkloadState::Ready => Health::Healthy,
            WorkloadState::Draining => Health::Draining,
            WorkloadState::Unhealthy => Health::Unhealthy,
        },
        workload: Some(workload_name(workload)),
        meshed: true,
    }
}

/// Who may answer for a service: the accounts of its workloads. `None` for a service outside the mesh.
fn identities(
    service: &Manifest<ServiceSpec>,
    workloads: &[&Manifest<WorkloadSpec>],
    trust_domain: &str,
) -> Option<Vec<SpiffeId>> {
    let Backends::Selector(_) = service.spec.backends else { return None };
    let mut accounts: Vec<&str> = workloads.iter().map(|workload| workload.spec.service_account.as_str()).collect();
    accounts.sort_unstable();
    accounts.dedup();
    let namespace = &service.metadata.namespace;
    Some(accounts.into_iter().map(|account| SpiffeId::workload(trust_domain, namespace, account)).collect())
}

fn facts<'d>(service: &'d Manifest<ServiceSpec>, port: &ServicePort) -> ServiceFacts<'d> {
    ServiceFacts { namespace: &service.metadata.namespace, service: &service.metadata.name, port: port.port }
}

/// What the proxies of its workloads saw a port speak. What is declared is not asked.
fn verdict(
    service: &Manifest<ServiceSpec>,
    port: &ServicePort,
    workloads: &[&Manifest<WorkloadSpec>],
    seen: &Seen,
) -> Option<Verdict> {
    let is_asked = port.protocol == Protocol::Auto && matches!(service.spec.backends, Backends::Selector(_));
    let names = workloads.iter().map(|workload| workload_name(workload));
    is_asked.then(|| seen.verdict(&port_name(service, port), names, port.target_port)).flatten()
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
