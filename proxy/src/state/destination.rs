//! Listeners of connections that go on to the very address they were for.
//!
//! A cluster of type `ORIGINAL_DST` has no endpoints before somebody calls. What such a cluster is for one destination, and the
//! listener that leads there, are made with the first connection and kept for the next: their connections are pooled, and
//! what the port speaks is remembered, as everywhere else.
//!
//! Callers choose destinations, so what is kept has a bound; and so have the ports that signals tell apart.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use weft_core::balance::EndpointSet;
use weft_core::model::{
    ClusterSpec, Direction, EndpointSetSpec, EndpointSource, InboundTls, ListenerSpec, OutlierPolicy, PathMatch,
    Protocol, RouteSource, RouteSpec, RouteTableSpec, UpstreamProtocol, VirtualHostSpec,
};
use weft_core::names::{ClusterName, ServiceRef};
use weft_core::route::RouteTable;
use weft_core::server_name::ServerNames;
use weft_proto::names;

use super::{Cluster, Listener};
use crate::clock;

/// What the signals call a port that no service names.
pub(super) const SERVICE: &str = "undeclared";
/// The application is on this machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Ports the signals tell apart where nobody declared any; all others count as port 0. Whoever calls chooses them.
const NAMED_PORTS: usize = 64;

/// Listeners that were made for destinations, up to a bound.
#[derive(Debug)]
pub(super) struct Destinations {
    known: Mutex<HashMap<SocketAddr, Known>>,
    capacity: usize,
}

#[derive(Debug)]
struct Known {
    /// What it was made from: another one makes another.
    base: Arc<Listener>,
    listener: Arc<Listener>,
}

impl Destinations {
    pub(super) fn new(capacity: usize) -> Self {
        Self { known: Mutex::default(), capacity }
    }

    /// The listener of a destination, made where there is none. With one more than there is room for, those nobody uses at
    /// the moment are forgotten, and all where that are none: they are made again for those who still call.
    pub(super) fn listener(
        &self,
        base: &Arc<Listener>,
        destination: SocketAddr,
        make: impl FnOnce() -> Listener,
    ) -> Arc<Listener> {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(&destination).filter(|known| Arc::ptr_eq(&known.base, base)) {
            return Arc::clone(&known.listener);
        }
        if all.len() >= self.capacity {
            all.retain(|_, known| Arc::strong_count(&known.listener) > 1);
        }
        if all.len() >= self.capacity {
            all.clear();
        }
        let listener = Arc::new(make());
        all.insert(destination, Known { base: Arc::clone(base), listener: Arc::clone(&listener) });
        listener
    }
}

/// The ports that signals tell apart where nobody declared any.
#[derive(Debug, Default)]
pub(super) struct NamedPorts(Mutex<HashSet<u16>>);

impl NamedPorts {
    /// The port, or 0 for one too many.
    pub(super) fn label(&self, port: u16) -> u16 {
        let mut named = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = named.len() < NAMED_PORTS;
        if named.contains(&port) || (has_room && named.insert(port)) { port } else { 0 }
    }
}

/// What a listener is for one destination. `port` is what signals call it where the cluster says none.
pub(super) fn at(
    base: &Listener,
    destination: SocketAddr,
    port: u16,
    clusters: &HashMap<ClusterName, Arc<Cluster>>,
) -> Listener {
    let mut made: HashMap<ClusterName, Arc<Cluster>> = HashMap::new();
    // Requests and bytes share what was made.
    let mut lead = |name: &ClusterName| {
        let own = base.cluster.as_ref().filter(|cluster| cluster.spec.name == *name);
        let cluster = own.or_else(|| clusters.get(name))?;
        if cluster.spec.endpoints != EndpointSource::OriginalDestination {
            return Some(Arc::clone(cluster));
        }
        let at = || Arc::new(cluster.at(base.spec.direction, destination, port));
        Some(Arc::clone(made.entry(name.clone()).or_insert_with(at)))
    };
    let cluster = base.spec.cluster.as_ref().and_then(&mut lead);
    let routes = base.routes.as_ref().map(|table| Arc::new(table.resolved(&mut lead)));
    let server_names =
        base.server_names.as_ref().map(|_| Box::new(ServerNames::compile(&base.spec.server_names, &mut lead)));
    Listener {
        spec: base.spec.clone(),
        routes,
        cluster,
        server_names,
        detection: base.detection.clone(),
        authority: base.authority.clone(),
        by_destination: false,
        usage: base.usage.clone(),
    }
}

/// [`at`] for a listener of many ports: what one of them speaks says nothing of the others.
pub(super) fn at_port(
    base: &Listener,
    destination: SocketAddr,
    ports: &NamedPorts,
    clusters: &HashMap<ClusterName, Arc<Cluster>>,
) -> Listener {
    let listener = at(base, destination, ports.label(destination.port()), clusters);
    let side = match base.spec.direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    };
    let spec = ListenerSpec {
        name: format!("{side}/{destination}").as_str().into(),
        addresses: vec![destination],
        ..listener.spec
    };
    let detection = (spec.protocol == Protocol::Detect).then(Arc::default);
    Listener { spec, detection, authority: destination.to_string().into(), ..listener }
}

/// The listener of our own workload's ports where nobody described even those that no service names.
pub(super) fn undescribed(tls: InboundTls, source: &Arc<str>) -> Listener {
    let namespace = source.split('/').next().unwrap_or_default();
    let name = "inbound/undeclared";
    let spec = ClusterSpec {
        name: name.into(),
        service: ServiceRef { namespace: namespace.into(), name: SERVICE.into(), port: 0 },
        endpoints: EndpointSource::OriginalDestination,
        connect_timeout: CONNECT_TIMEOUT,
        tls: None,
        protocol: UpstreamProtocol::AsDownstream,
        outlier: OutlierPolicy { consecutive_failures: 0, ..OutlierPolicy::default() },
    };
    of_any_protocol(spec, Direction::Inbound, tls, source)
}

/// A listener that leads to one cluster whatever is spoken.
pub(super) fn of_any_protocol(spec: ClusterSpec, direction: Direction, tls: InboundTls, source: &Arc<str>) -> Listener {
    let name = spec.name.clone();
    let none = EndpointSetSpec { name: name.clone(), endpoints: Vec::new() };
    let none = EndpointSet::build(&none, spec.outlier, None, clock::now());
    let cluster = Arc::new(Cluster::new(spec, direction, Arc::clone(source), none));
    let table = RouteTableSpec {
        name: name.as_str().into(),
        virtual_hosts: vec![VirtualHostSpec {
            domains: vec!["*".to_owned()],
            routes: vec![RouteSpec::new(PathMatch::Prefix("/".to_owned()), name.clone())],
        }],
    };
    Listener {
        routes: Some(Arc::new(RouteTable::compile(&table, |_| Some(Arc::clone(&cluster))))),
        spec: ListenerSpec {
            name: name.as_str().into(),
            direction,
            addresses: vec![SocketAddr::new(IpAddr::from([0, 0, 0, 0]), names::INBOUND_PORT)],
            protocol: Protocol::Detect,
            tls,
            routes: Some(RouteSource::Inline(table)),
            cluster: Some(name),
            http: None,
            server_names: Vec::new(),
            detected: None,
        },
        cluster: Some(cluster),
        server_names: None,
        detection: None,
        authority: Box::default(),
        by_destination: true,
        usage: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    fn base() -> Arc<Listener> {
        Arc::new(undescribed(InboundTls::Strict, &Arc::from("shop/web")))
    }

    #[test]
    fn a_destination_keeps_its_listener_until_what_it_was_made_from_changes() {
        let (destinations, ports, first) = (Destinations::new(8), NamedPorts::default(), base());
        let of = |base: &Arc<Listener>, port: u16| {
            destinations.listener(base, place(port), || at_port(base, place(port), &ports, &HashMap::new()))
        };
        let known = of(&first, 9100);
        assert!(Arc::ptr_eq(&known, &of(&first, 9100)));
        assert!(!Arc::ptr_eq(&known, &of(&first, 9101)));
        assert!(!Arc::ptr_eq(&known, &of(&base(), 9100)));
    }

    #[test]
    fn what_nobody_uses_makes_room_and_the_bound_holds() {
        let (destinations, ports, base) = (Destinations::new(8), NamedPorts::default(), base());
        let of = |port: u16| {
            destinations.listener(&base, place(port), || at_port(&base, place(port), &ports, &HashMap::new()))
        };
        let used = of(9100);
        for port in 1..100 {
            of(port);
            assert!(destinations.known.lock().unwrap().len() <= 8);
        }
        assert!(Arc::ptr_eq(&used, &of(9100)), "it was in use");
        let all: Vec<_> = (200..300).map(of).collect();
        assert!(destinations.known.lock().unwrap().len() <= 8);
        drop(all);
    }

    #[test]
    fn signals_tell_some_ports_apart_and_count_the_others_as_one() {
        let ports = NamedPorts::default();
        assert!((1..=64).all(|port| ports.label(port) == port));
        assert_eq!(ports.label(65), 0);
        assert_eq!(ports.label(64), 64, "known ones stay");
    }

    #[test]
    fn requests_and_bytes_of_a_destination_go_to_the_same_place() {
        let listener = at_port(&base(), place(9100), &NamedPorts::default(), &HashMap::new());
        let cluster = listener.cluster.clone().expect("made");
        assert!(Arc::ptr_eq(&cluster, listener.routes.as_ref().unwrap().targets().next().unwrap()));
        assert_eq!(cluster.spec.service.to_string(), "shop/undeclared:9100");
        assert_eq!(cluster.endpoints().endpoints()[0].address(), place(9100));
        assert_eq!(&*listener.authority, "10.0.0.1:9100");
        assert!(listener.detection.is_some());
    }
}
