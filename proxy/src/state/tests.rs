use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use weft_core::model::{
    ClusterSpec, Direction, EndpointHealth, EndpointSetSpec, EndpointSource, EndpointSpec, InboundTls, ListenerSpec,
    OutlierPolicy, PathMatch, Protocol, RouteSource, RouteSpec, RouteTableSpec, UpstreamProtocol, VirtualHostSpec,
};
use weft_core::names::ServiceRef;

use super::*;

fn address(port: u16) -> SocketAddr {
    ([10, 0, 0, 1], port).into()
}

/// A cluster that takes the endpoints of a name.
fn cluster(name: &str, endpoints: &str, connect_timeout: u64) -> ClusterSpec {
    ClusterSpec {
        name: name.into(),
        service: ServiceRef { namespace: "default".into(), name: name.into(), port: 80 },
        endpoints: EndpointSource::Discovered(endpoints.into()),
        connect_timeout: Duration::from_secs(connect_timeout),
        tls: None,
        protocol: UpstreamProtocol::Http1,
        outlier: OutlierPolicy::default(),
    }
}

fn endpoints(name: &str, ports: &[u16]) -> EndpointSetSpec {
    let endpoint = |&port: &u16| EndpointSpec {
        address: address(port),
        workload: "w".into(),
        health: EndpointHealth::Ready,
        transport: None,
    };
    EndpointSetSpec { name: name.into(), endpoints: ports.iter().map(endpoint).collect() }
}

fn routes(name: &str) -> RouteTableSpec {
    let route = RouteSpec::new(PathMatch::Prefix("/".into()), name);
    RouteTableSpec {
        name: name.into(),
        virtual_hosts: vec![VirtualHostSpec { domains: vec!["*".into()], routes: vec![route] }],
    }
}

fn listener(name: &str, port: u16) -> ListenerSpec {
    ListenerSpec {
        name: name.into(),
        direction: Direction::Outbound,
        addresses: vec![address(port)],
        protocol: Protocol::Http,
        tls: InboundTls::Strict,
        routes: Some(RouteSource::Named(name.into())),
        cluster: None,
        http: None,
        server_names: Vec::new(),
        detected: None,
    }
}

fn store() -> Store {
    Store::new("default/caller".to_owned())
}

fn ports(store: &Store, cluster: &str) -> Vec<u16> {
    let snapshot = store.load();
    let cluster = snapshot.clusters().find(|known| known.spec.name.as_str() == cluster).expect("a cluster");
    cluster.endpoints().endpoints().iter().map(|endpoint| endpoint.address().port()).collect()
}

fn clusters(clusters: Vec<ClusterSpec>) -> Change {
    Change { clusters, ..Change::default() }
}

fn with_endpoints(set: EndpointSetSpec) -> Change {
    Change { endpoints: vec![set], ..Change::default() }
}

#[test]
fn clusters_that_take_the_same_endpoints_all_have_them_whoever_came_first() {
    let store = store();
    store.apply(clusters(vec![cluster("shop", "shop", 1), cluster("first", "shop", 1)]));
    store.apply(with_endpoints(endpoints("shop", &[1, 2])));
    store.apply(clusters(vec![cluster("later", "shop", 1)]));
    for name in ["shop", "first", "later"] {
        assert_eq!(ports(&store, name), [1, 2], "{name}");
    }
    store.apply(with_endpoints(endpoints("shop", &[3])));
    for name in ["shop", "first", "later"] {
        assert_eq!(ports(&store, name), [3], "{name}");
    }
    store.apply(Change { removed_endpoints: vec!["shop".into()], ..Change::default() });
    assert!(ports(&store, "later").is_empty());
}

#[test]
fn endpoints_wait_for_their_cluster_and_outlive_it() {
    let store = store();
    store.apply(with_endpoints(endpoints("shop", &[1])));
    store.apply(clusters(vec![cluster("shop", "shop", 1)]));
    assert_eq!(ports(&store, "shop"), [1]);
    store.apply(Change { removed_clusters: vec!["shop".into()], ..Change::default() });
    store.apply(clusters(vec![cluster("shop", "shop", 1)]));
    assert_eq!(ports(&store, "shop"), [1]);
    store.apply(Change {
        removed_clusters: vec!["shop".into()],
        removed_endpoints: vec!["shop".into()],
        ..Change::default()
    });
    store.apply(clusters(vec![cluster("shop", "shop", 1)]));
    assert!(ports(&store, "shop").is_empty());
}

#[test]
fn a_cluster_that_takes_other_endpoints_leaves_the_old_ones_behind() {
    let store = store();
    store.apply(clusters(vec![cluster("shop", "old", 1)]));
    store.apply(with_endpoints(endpoints("old", &[1])));
    store.apply(with_endpoints(endpoints("new", &[2])));
    store.apply(clusters(vec![cluster("shop", "new", 1)]));
    assert_eq!(ports(&store, "shop"), [2]);
    store.apply(with_endpoints(endpoints("old", &[3])));
    assert_eq!(ports(&store, "shop"), [2], "it does not take them any more");
    store.apply(clusters(vec![cluster("shop", "old", 1)]));
    assert_eq!(ports(&store, "shop"), [3]);
}

#[test]
fn a_replaced_cluster_keeps_what_is_known_of_its_endpoints() {
    let store = store();
    store.apply(clusters(vec![cluster("shop", "shop", 1)]));
    store.apply(with_endpoints(endpoints("shop", &[1])));
    let endpoint = |store: &Store| {
        let snapshot = store.load();
        let cluster = snapshot.clusters().next().expect("a cluster");
        Arc::clone(&cluster.endpoints().endpoints()[0])
    };
    let before = endpoint(&store);
    store.apply(clusters(vec![cluster("shop", "shop", 2)]));
    assert!(Arc::ptr_eq(&before, &endpoint(&store)));
}

#[test]
fn a_change_touches_what_it_changes_and_what_leads_there() {
    let store = store();
    let names = ["carts", "orders"];
    store.apply(Change {
        listeners: vec![listener("carts", 1), listener("orders", 2)],
        routes: names.iter().map(|name| routes(name)).collect(),
        clusters: names.iter().map(|name| cluster(name, name, 1)).collect(),
        ..Change::default()
    });
    let listener_at = |port| Arc::clone(store.load().listener(Direction::Outbound, address(port)).expect("a listener"));
    let (carts, orders) = (listener_at(1), listener_at(2));
    store.apply(clusters(vec![cluster("orders", "orders", 2)]));
    assert!(Arc::ptr_eq(&carts, &listener_at(1)));
    assert!(!Arc::ptr_eq(&orders, &listener_at(2)));
    let timeout_of = |listener: &Listener| {
        let table = listener.routes.as_ref().expect("routes");
        table.targets().next().expect("a cluster").spec.connect_timeout
    };
    assert_eq!(timeout_of(&listener_at(2)), Duration::from_secs(2));
    store.apply(Change { removed_clusters: vec!["orders".into()], ..Change::default() });
    let listener = listener_at(2);
    let table = listener.routes.as_ref().expect("routes");
    assert_eq!((table.routes().count(), table.targets().count()), (1, 0));
}
