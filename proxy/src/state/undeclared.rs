//! Ports of our own workload that no service names.
//!
//! Whoever proves to be of the mesh reaches them: a caller may know a new service a moment before we do, and the pods of one
//! set may call each other at any port. Plaintext is taken where the mesh takes it elsewhere on this workload, and refused
//! otherwise. The application is reached at the address that was called, not on loopback: what it serves on loopback
//! alone is not for others, and nobody has named it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use weft_core::balance::EndpointSet;
use weft_core::model::{
    ClusterSpec, Direction, EndpointHealth, EndpointSetSpec, EndpointSource, EndpointSpec, InboundTls, ListenerSpec,
    OutlierPolicy, PathMatch, Protocol, RouteSource, RouteSpec, RouteTableSpec, UpstreamProtocol, VirtualHostSpec,
};
use weft_core::names::{ClusterName, ServiceRef};
use weft_core::route::RouteTable;

use super::{Cluster, Listener};
use crate::clock;

/// Ports that are remembered. Callers of the mesh choose them: with one more, all are forgotten, and made again for those
/// who still call.
const REMEMBERED: usize = 64;
/// The application is on this machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// What the signals call the service.
const SERVICE: &str = "undeclared";

/// Listeners that nobody described, made when somebody calls.
#[derive(Debug, Default)]
pub(super) struct Undeclared(Mutex<HashMap<SocketAddr, Arc<Listener>>>);

impl Undeclared {
    /// The listener of a port; `source` is `NAMESPACE/SERVICE-ACCOUNT` of our own workload.
    pub(super) fn listener(&self, destination: SocketAddr, tls: InboundTls, source: &Arc<str>) -> Arc<Listener> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(&destination).filter(|known| known.spec.tls == tls) {
            return Arc::clone(known);
        }
        if all.len() >= REMEMBERED {
            all.clear();
        }
        let listener = Arc::new(listener(destination, tls, source));
        all.insert(destination, Arc::clone(&listener));
        listener
    }
}

fn listener(destination: SocketAddr, tls: InboundTls, source: &Arc<str>) -> Listener {
    let name = format!("inbound/{destination}");
    let cluster = Arc::new(cluster(name.as_str().into(), destination, source));
    let to_cluster = |name: &ClusterName| (*name == cluster.spec.name).then(|| Arc::clone(&cluster));
    let table = RouteTableSpec {
        name: name.as_str().into(),
        virtual_hosts: vec![VirtualHostSpec {
            domains: vec!["*".to_owned()],
            routes: vec![RouteSpec::new(PathMatch::Prefix("/".to_owned()), name.as_str())],
        }],
    };
    let routes = Arc::new(RouteTable::compile(&table, to_cluster));
    Listener {
        spec: ListenerSpec {
            name: name.as_str().into(),
            direction: Direction::Inbound,
            addresses: vec![destination],
            protocol: Protocol::Detect,
            tls,
            routes: Some(RouteSource::Inline(table)),
            cluster: Some(name.as_str().into()),
            http: None,
            server_names: Vec::new(),
            detected: None,
        },
        routes: Some(routes),
        cluster: Some(cluster),
        server_names: None,
        detection: Some(Arc::default()),
        authority: destination.to_string().into(),
    }
}

fn cluster(name: ClusterName, destination: SocketAddr, source: &Arc<str>) -> Cluster {
    let namespace = source.split('/').next().unwrap_or_default();
    let endpoints = vec![EndpointSpec {
        address: destination,
        workload: SERVICE.into(),
        health: EndpointHealth::Ready,
        transport: None,
    }];
    // Its only endpoint is never left out.
    let outlier = OutlierPolicy { consecutive_failures: 0, ..OutlierPolicy::default() };
    let set = EndpointSetSpec { name: name.clone(), endpoints: endpoints.clone() };
    let spec = ClusterSpec {
        name,
        service: ServiceRef { namespace: namespace.into(), name: SERVICE.into(), port: destination.port() },
        endpoints: EndpointSource::Static(endpoints),
        connect_timeout: CONNECT_TIMEOUT,
        tls: None,
        protocol: UpstreamProtocol::AsDownstream,
        outlier,
    };
    let set = EndpointSet::build(&set, outlier, None, clock::now());
    Cluster::new(spec, Direction::Inbound, Arc::clone(source), set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_remembered_up_to_a_bound_and_as_they_treat_plaintext() {
        let (undeclared, source) = (Undeclared::default(), Arc::from("shop/web"));
        let place = |port: u16| SocketAddr::from(([10, 0, 0, 1], port));
        let strict = |port| undeclared.listener(place(port), InboundTls::Strict, &source);
        let first = strict(9100);
        assert!(Arc::ptr_eq(&first, &strict(9100)));
        assert_eq!(first.cluster.as_ref().unwrap().spec.service.to_string(), "shop/undeclared:9100");
        let permissive = undeclared.listener(place(9100), InboundTls::Permissive, &source);
        assert_eq!(permissive.spec.tls, InboundTls::Permissive);
        for port in 1..1000 {
            strict(port);
        }
        assert!(undeclared.0.lock().unwrap().len() <= REMEMBERED);
    }
}
