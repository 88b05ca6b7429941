//! TLSRoutes, found by the service port they are for. What a route refers to may come later or be gone: it is a warning,
//! and the connections that would go there fail.

use std::collections::{BTreeMap, HashMap};

use super::envoy::NamedChain;
use super::selection::Selection;
use super::{Warning, cluster_name};
use crate::document::{Key, Kind, Manifest, Protocol, ServicePort, ServiceSpec, TlsRouteSpec};

/// What the listeners of service ports are to do, by namespace, service and port.
pub(super) struct TlsRoutes<'d> {
    by_port: HashMap<(&'d str, &'d str, u16), Vec<NamedChain>>,
}

type Services<'d> = HashMap<(&'d str, &'d str), &'d Manifest<ServiceSpec>>;

impl<'d> TlsRoutes<'d> {
    /// Resolves the routes, first by name first: of two that want one hostname of a port it has it.
    pub(super) fn new(selection: &Selection<'d>, warnings: &mut Vec<Warning>) -> Self {
        let mut routes = Self { by_port: HashMap::new() };
        if selection.tls_routes.is_empty() {
            return routes;
        }
        let by_name = |service: &&'d Manifest<ServiceSpec>| {
            ((service.metadata.namespace.as_str(), service.metadata.name.as_str()), *service)
        };
        let services: Services<'d> = selection.services.iter().map(|(service, _)| service).map(by_name).collect();
        // Per port, the route that has a name; the empty name stands for all others.
        let mut owners: BTreeMap<(&str, &str, u16, &str), &str> = BTreeMap::new();
        for route in selection.tls_routes.iter().copied() {
            let mut problems = backend_problems(route, &services);
            let namespace = route.metadata.namespace.as_str();
            for (service, port) in parent_ports(route, &services, &mut problems) {
                let mut names = Vec::new();
                for name in hostnames(route) {
                    match owners.get(&(namespace, service, port, name)) {
                        None => {
                            owners.insert((namespace, service, port, name), &route.metadata.name);
                            names.push(name);
                        }
                        Some(owner) => {
                            let which = if name.is_empty() { "what no route names" } else { name };
                            problems.push(format!("{which} at port {port} of {service} already goes by {owner}"));
                        }
                    }
                }
                if let Some(chain) = chain(route, &names) {
                    routes.by_port.entry((namespace, service, port)).or_default().push(chain);
                }
            }
            let key = || Key::new(Kind::TlsRoute, namespace, &route.metadata.name);
            warnings.extend(problems.into_iter().map(|what| Warning { key: key(), what }));
        }
        routes
    }

    /// The chains of a service port; none when no route names it.
    pub(super) fn chains(&self, service: &'d Manifest<ServiceSpec>, port: &ServicePort) -> &[NamedChain] {
        let key = (service.metadata.namespace.as_str(), service.metadata.name.as_str(), port.port);
        self.by_port.get(&key).map_or(&[], Vec::as_slice)
    }
}

/// The names a route takes; the empty one stands for all that no other route names.
fn hostnames(route: &Manifest<TlsRouteSpec>) -> Vec<&str> {
    let names = &route.spec.hostnames;
    if names.is_empty() { vec![""] } else { names.iter().map(String::as_str).collect() }
}

/// A chain for the names a route got; none when others have them all.
fn chain(route: &Manifest<TlsRouteSpec>, names: &[&str]) -> Option<NamedChain> {
    let namespace = &route.metadata.namespace;
    let cluster =
        |backend: &crate::document::BackendRef| (cluster_name(namespace, &backend.name, backend.port), backend.weight);
    (!names.is_empty()).then(|| NamedChain {
        names: names.iter().filter(|name| !name.is_empty()).map(ToString::to_string).collect(),
        clusters: route.spec.backends().map(cluster).collect(),
    })
}

/// The service ports a route is for.
fn parent_ports<'d>(
    route: &'d Manifest<TlsRouteSpec>,
    services: &Services<'d>,
    problems: &mut Vec<String>,
) -> Vec<(&'d str, u16)> {
    let mut found = Vec::new();
    for parent in &route.spec.parent_refs {
        let name = parent.name.as_str();
        let Some(service) = services.get(&(route.metadata.namespace.as_str(), name)) else {
            problems.push(format!("its parent, the service {name}, does not exist yet"));
            continue;
        };
        let ports = &service.spec.ports;
        let Some(number) = parent.port else {
            let before = found.len();
            found.extend(ports.iter().filter(|port| port.protocol == Protocol::Tls).map(|port| (name, port.port)));
            if found.len() == before {
                problems.push(format!("its parent, the service {name}, has no port of protocol tls"));
            }
            continue;
        };
        match ports.iter().find(|port| port.port == number).map(|port| port.protocol) {
            Some(Protocol::Tls) => found.push((name, number)),
            Some(other) => problems.push(format!(
                "it has no effect on port {number} of {name}, which says {other}; give that port `protocol: tls`"
            )),
            None => problems.push(format!("its parent, the service {name}, has no port {number}")),
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn backend_problems(route: &Manifest<TlsRouteSpec>, services: &Services<'_>) -> Vec<String> {
    let problem = |backend: &crate::document::BackendRef| {
        let (name, port) = (&backend.name, backend.port);
        let service = services.get(&(route.metadata.namespace.as_str(), name.as_str()));
        let found = service.and_then(|service| service.spec.ports.iter().find(|known| known.port == port));
        match found.map(|port| port.protocol) {
            None => Some(format!("its backend, port {port} of the service {name}, does not exist yet")),
            Some(Protocol::Tcp | Protocol::Tls | Protocol::Auto) => None,
            Some(other) => Some(format!(
                "its backend, port {port} of the service {name}, says {other} and would not take TLS; give it `protocol: tls`"
            )),
        }
    };
    route.spec.backends().filter_map(problem).collect()
}
