use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use weft_core::model::{
    ClusterSpec, Direction, EndpointHealth, EndpointSetSpec, EndpointSource, EndpointSpec, InboundTls, ListenerSpec,
    OutlierPolicy, PathMatch, Protocol, RouteSource, RouteSpec, RouteTableSpec, UpstreamProtocol, UpstreamTls,
    VirtualHostSpec,
};
use weft_core::names::{ServiceRef, SpiffeId};

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

/// A cluster of any port but 9100.
fn peers(name: &str, account: &str) -> ClusterSpec {
    let identity = SpiffeId::workload("test.local", "shop", account);
    ClusterSpec {
        service: ServiceRef { namespace: "shop".into(), name: "undeclared".into(), port: 0 },
        endpoints: EndpointSource::AnyPort { endpoints: name.into(), except: [9100].into() },
        tls: Some(UpstreamTls { identities: vec![identity], exceptions: Box::default() }),
        ..cluster(name, name, 1)
    }
}

fn peer_addresses(name: &str, addresses: &[&str]) -> EndpointSetSpec {
    let endpoint = |text: &&str| EndpointSpec {
        address: SocketAddr::new(text.parse().expect("an address"), 15006),
        workload: "w".into(),
        health: EndpointHealth::Ready,
        transport: None,
    };
    EndpointSetSpec { name: name.into(), endpoints: addresses.iter().map(endpoint).collect() }
}

/// Who must answer at a destination; `None` where nobody is known.
fn expected(store: &Store, destination: &str) -> Option<String> {
    let listener = store.outbound(destination.parse().expect("an address"))?;
    let cluster = listener.cluster.as_ref().expect("it leads somewhere");
    let tls = cluster.spec.tls.as_ref().expect("by mutual TLS");
    assert_eq!(cluster.endpoints().endpoints()[0].address().port(), destination.parse::<SocketAddr>().unwrap().port());
    Some(tls.identities[0].service_account().to_owned())
}

#[test]
fn a_peer_is_known_by_its_address_at_all_ports_but_those_that_go_past_its_proxy() {
    let store = store();
    store.apply(Change {
        clusters: vec![peers("peers/web", "web")],
        endpoints: vec![peer_addresses("peers/web", &["10.1.0.1", "fd00::1"])],
        ..Change::default()
    });
    for (destination, account) in [
        ("10.1.0.1:1", Some("web")),
        ("10.1.0.1:65535", Some("web")),
        ("[fd00::1]:8080", Some("web")),
        ("[::ffff:10.1.0.1]:8080", Some("web")),
        ("10.1.0.1:9100", None),
        ("10.1.0.2:8080", None),
    ] {
        assert_eq!(expected(&store, destination).as_deref(), account, "{destination}");
    }
    assert!(store.load().clusters().next().is_none(), "no endpoint is kept of those nobody calls");
    let destination = "10.1.0.1:8080".parse().unwrap();
    let listener = store.outbound(destination).unwrap();
    assert_eq!(listener.cluster.as_ref().unwrap().spec.service.to_string(), "shop/undeclared:8080");
    assert!(Arc::ptr_eq(&listener, &store.outbound(destination).unwrap()), "its connections are pooled");
}

#[test]
fn peers_that_come_and_go_make_no_snapshot() {
    let store = store();
    store.apply(with_endpoints(peer_addresses("peers/web", &["10.1.0.1"])));
    store.apply(clusters(vec![peers("peers/web", "web")]));
    assert_eq!(expected(&store, "10.1.0.1:80").as_deref(), Some("web"), "addresses may come first");
    let version = store.version();
    store.apply(with_endpoints(peer_addresses("peers/web", &["10.1.0.2"])));
    assert_eq!(store.version(), version);
    assert_eq!((expected(&store, "10.1.0.1:80"), expected(&store, "10.1.0.2:80").as_deref()), (None, Some("web")));
    store.apply(Change { removed_endpoints: vec!["peers/web".into()], ..Change::default() });
    assert_eq!(expected(&store, "10.1.0.2:80"), None);
}

#[test]
fn an_address_belongs_to_who_had_it_last() {
    let store = store();
    store.apply(clusters(vec![peers("a", "a"), peers("b", "b")]));
    store.apply(with_endpoints(peer_addresses("a", &["10.1.0.1"])));
    store.apply(with_endpoints(peer_addresses("b", &["10.1.0.1"])));
    assert_eq!(expected(&store, "10.1.0.1:80").as_deref(), Some("b"));
    store.apply(with_endpoints(peer_addresses("a", &[])));
    assert_eq!(expected(&store, "10.1.0.1:80").as_deref(), Some("b"), "not taken away by its former owner");
    store.apply(clusters(vec![peers("b", "c")]));
    assert_eq!(expected(&store, "10.1.0.1:80").as_deref(), Some("c"), "a changed cluster keeps its addresses");
    store.apply(Change { removed_clusters: vec!["b".into()], ..Change::default() });
    assert_eq!(expected(&store, "10.1.0.1:80"), None);
}

#[test]
fn a_service_of_an_address_comes_before_its_peer() {
    let store = store();
    store.apply(Change {
        clusters: vec![peers("peers/web", "web"), cluster("carts", "carts", 1)],
        endpoints: vec![peer_addresses("peers/web", &["10.0.0.1"])],
        listeners: vec![listener("carts", 80)],
        ..Change::default()
    });
    assert_eq!(store.outbound(address(80)).unwrap().spec.name.as_str(), "carts");
    assert_eq!(expected(&store, "10.0.0.1:81").as_deref(), Some("web"));
}
