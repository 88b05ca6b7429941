use proptest::prelude::*;

use super::*;
use crate::model::VirtualHostSpec;

fn prefix(path: &str, cluster: &str) -> RouteSpec {
    RouteSpec { path: PathMatch::Prefix(path.into()), cluster: cluster.into(), timeout: None, retry: None }
}

fn exact(path: &str, cluster: &str) -> RouteSpec {
    RouteSpec { path: PathMatch::Exact(path.into()), ..prefix(path, cluster) }
}

fn host(domains: &[&str], routes: Vec<RouteSpec>) -> VirtualHostSpec {
    VirtualHostSpec { domains: domains.iter().map(|&d| d.to_owned()).collect(), routes }
}

fn table(virtual_hosts: Vec<VirtualHostSpec>) -> RouteTable<ClusterName> {
    let spec = RouteTableSpec { name: "default/orders:80".into(), virtual_hosts };
    RouteTable::compile(&spec, |cluster| (cluster.as_str() != "missing").then(|| cluster.clone()))
}

fn cluster_of<'a>(table: &'a RouteTable<ClusterName>, authority: &str, path: &str) -> Option<&'a str> {
    table.matches(authority.as_bytes(), path.as_bytes()).map(|route| route.cluster().as_str())
}

#[test]
fn the_most_exact_host_decides() {
    let table = table(vec![
        host(&["*"], vec![prefix("/", "any")]),
        host(&["*.example"], vec![prefix("/", "below-example")]),
        host(&["*.shop.example", "*-test.example"], vec![prefix("/", "below-shop")]),
        host(&["orders.shop.example", "Orders:80", "[fd57::2]", "10.96.0.2"], vec![prefix("/", "orders")]),
    ]);
    for (authority, cluster) in [
        ("orders.shop.example", "orders"),
        ("orders.shop.example:8080", "orders"),
        ("ORDERS.Shop.Example", "orders"),
        ("orders.shop.example.", "orders"),
        ("orders.shop.example.:80", "orders"),
        ("orders", "orders"),
        ("[fd57::2]:80", "orders"),
        ("[fd57::2]", "orders"),
        ("[FD57::2]", "orders"),
        ("10.96.0.2:80", "orders"),
        ("carts.shop.example", "below-shop"),
        ("a.b.Shop.example:80", "below-shop"),
        ("orders-test.example", "below-shop"),
        ("shop.example", "below-example"),
        (".shop.example", "below-example"),
        ("example", "any"),
        (".example", "any"),
        ("fd57::3", "any"),
        ("[fd57::2", "any"),
        ("", "any"),
        (":80", "any"),
    ] {
        assert_eq!(cluster_of(&table, authority, "/"), Some(cluster), "authority {authority:?}");
    }
}

#[test]
fn the_first_matching_path_decides() {
    let table = table(vec![host(
        &["*"],
        vec![exact("/health", "health"), prefix("/api/v2", "new"), prefix("/api", "old"), exact("/api/v3", "shadowed")],
    )]);
    for (path, cluster) in [
        ("/health", Some("health")),
        ("/health?verbose=1", Some("health")),
        ("/health/", None),
        ("/healthy", None),
        ("/Health", None),
        ("/api/v2/orders", Some("new")),
        ("/api/v1", Some("old")),
        ("/apis", Some("old")),
        ("/api/v3", Some("old")),
        ("/?/api", None),
        ("/", None),
        ("*", None),
        ("", None),
    ] {
        assert_eq!(cluster_of(&table, "orders", path), cluster, "path {path:?}");
    }
}

#[test]
fn an_exact_host_without_a_matching_path_does_not_fall_back_to_the_wildcard() {
    let table = table(vec![host(&["orders"], vec![prefix("/api", "orders")]), host(&["*"], vec![prefix("/", "any")])]);
    assert_eq!(cluster_of(&table, "orders", "/other"), None);
    assert_eq!(cluster_of(&table, "carts", "/other"), Some("any"));
}

#[test]
fn without_a_wildcard_an_unknown_host_has_no_route() {
    let table = table(vec![host(&["orders"], vec![prefix("/", "orders")])]);
    assert_eq!(cluster_of(&table, "carts", "/"), None);
    assert_eq!(cluster_of(&table, &"x".repeat(5000), "/"), None);
}

#[test]
fn a_missing_cluster_is_a_route_without_target() {
    let table = table(vec![host(&["*"], vec![prefix("/new", "missing"), prefix("/", "orders")])]);
    let route = table.matches(b"orders", b"/new").unwrap();
    assert_eq!((route.cluster().as_str(), route.target()), ("missing", None));
    let route = table.matches(b"orders", b"/").unwrap();
    assert_eq!(route.target(), Some(&ClusterName::from("orders")));
}

#[test]
fn of_two_hosts_with_one_domain_the_first_has_it() {
    for domain in ["orders", "*.orders", "*"] {
        let table =
            table(vec![host(&[domain], vec![prefix("/", "first")]), host(&[domain], vec![prefix("/", "second")])]);
        assert_eq!(cluster_of(&table, &domain.replace('*', "a"), "/"), Some("first"), "domain {domain}");
    }
}

#[test]
fn a_route_carries_its_timeout() {
    let timeout = Some(Duration::from_secs(3));
    let table = table(vec![host(&["*"], vec![RouteSpec { timeout, ..prefix("/", "orders") }])]);
    assert_eq!(table.matches(b"orders", b"/").unwrap().timeout(), timeout);
}

proptest! {
    #[test]
    fn no_input_panics(authority: Vec<u8>, path: Vec<u8>) {
        let table = table(vec![
            host(&["orders", "*.example"], vec![prefix("/a", "orders")]),
            host(&["*"], vec![prefix("/a", "any")]),
        ]);
        let route = table.matches(&authority, &path);
        prop_assert!(route.is_some_and(|route| route.target().is_some()) || !path.starts_with(b"/a"));
    }

    #[test]
    fn letter_case_and_port_of_the_authority_never_matter(name in "[a-z]{1,8}(\\.[a-z]{1,8}){0,3}", port: u16) {
        let table = table(vec![
            host(&["a.b", "abc"], vec![prefix("/", "exact")]),
            host(&["*.b", "*c"], vec![prefix("/", "suffix")]),
            host(&["*"], vec![prefix("/", "any")]),
        ]);
        let plain = cluster_of(&table, &name, "/");
        prop_assert_eq!(cluster_of(&table, &name.to_uppercase(), "/"), plain);
        prop_assert_eq!(cluster_of(&table, &format!("{name}:{port}"), "/"), plain);
    }
}
