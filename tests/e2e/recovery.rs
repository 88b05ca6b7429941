//! What is killed under load comes back, and what comes and goes in order is not noticed at all.

use weft_tests::mesh::command::until;
use weft_tests::mesh::machine::{has_namespaces, process};
use weft_tests::mesh::{Load, Mesh, kill_now};

const SHOP: &str = r#"
services:
  caller: {command: [sleep, infinity]}
  orders:
    command: ["<weft>", shop, inventory]
    # So that there is always something under way.
    env: {SLOW: 40ms}
    port: 80
    targetPort: 8080
    protocol: http
    replicas: 2
"#;
/// Connections of the load: so many requests can be under way at once.
const CONNECTIONS: u64 = 16;
const EDGE: [(&str, &str); 2] = [("source", "default/caller"), ("destination", "default/orders:80")];

/// Ten seconds of requests, well under way.
fn load(mesh: &Mesh) -> Load {
    let before = asked(mesh);
    let load = mesh.load("caller-1", &["http://orders/stock", "--rate", "200", "--requests", "2000"]);
    until("the load is under way", || (asked(mesh) > before + 100).then_some(()));
    load
}

fn asked(mesh: &Mesh) -> u64 {
    mesh.scrape("caller-1").sum("weft_requests_total", &EDGE)
}

fn answered(mesh: &Mesh, replica: &str) -> u64 {
    mesh.scrape(replica).sum("weft_requests_total", &EDGE)
}

/// Requests that must all succeed, some of them answered by `replica`.
fn serves_again(mesh: &Mesh, replica: &str) {
    let before = answered(mesh, replica);
    let load = mesh.load("caller-1", &["http://orders/stock", "--rate", "200", "--requests", "300"]).finish();
    assert_eq!((load.requests, load.failures), (300, 0), "{load:?}");
    assert!(answered(mesh, replica) > before, "{replica} gets work again");
}

#[test]
fn an_application_killed_under_load_costs_at_most_what_was_under_way_and_comes_back() {
    if !has_namespaces() {
        return;
    }
    let mesh = Mesh::start(SHOP);
    let load = load(&mesh);
    let killed = mesh.pod("orders-1").application.expect("its application runs");
    kill_now(killed);
    let load = load.finish();
    assert_eq!(load.requests, 2000);
    // What the application had taken when it died may fail; all that comes later is tried elsewhere.
    assert!(load.failures <= CONNECTIONS, "{load:?}");
    mesh.settle();
    let pod = mesh.pod("orders-1");
    assert!(pod.application.is_some_and(|now| now != killed), "{pod:?}");
    serves_again(&mesh, "orders-1");
}

#[test]
fn a_pod_killed_under_load_costs_at_most_what_was_under_way_and_comes_back() {
    if !has_namespaces() {
        return;
    }
    let mesh = Mesh::start(SHOP);
    let mut load = load(&mesh);
    let killed = mesh.pod("orders-1");
    kill_now(killed.init);
    until("all of the pod is gone", || process(killed.proxy).is_none().then_some(()));
    // What follows is answered by the other replica; the load does not wait for this one.
    assert!(load.is_running());
    let load = load.finish();
    assert_eq!(load.requests, 2000);
    assert!(load.failures <= CONNECTIONS, "{load:?}");
    until("the pod is made again", || mesh.find_pod("orders-1").filter(|pod| pod.init != killed.init));
    mesh.settle();
    serves_again(&mesh, "orders-1");
}

#[test]
fn replicas_come_and_go_without_a_failed_request() {
    if !has_namespaces() {
        return;
    }
    let mesh = Mesh::start(SHOP);
    let mut under_way = load(&mesh);
    mesh.weft(&["scale", "orders", "4"]).ok();
    for replica in ["orders-3", "orders-4"] {
        until("a new replica gets work", || (answered(&mesh, replica) > 0).then_some(()));
    }
    assert!(under_way.is_running(), "the replicas were added under load");
    let added = under_way.finish();
    assert_eq!((added.requests, added.failures), (2000, 0), "{added:?}");

    let mut under_way = load(&mesh);
    mesh.weft(&["scale", "orders", "1"]).ok();
    assert!(under_way.is_running(), "the replicas were removed under load");
    assert_eq!(mesh.ready().into_iter().collect::<Vec<_>>(), ["caller-1", "orders-1"]);
    let removed = under_way.finish();
    assert_eq!((removed.requests, removed.failures), (2000, 0), "{removed:?}");
    assert_eq!(mesh.find_pod("orders-4"), None);
    let refused = mesh.weft(&["scale", "ordres", "2"]);
    assert!(!refused.status.success() && refused.stderr.contains("allowed: caller, orders"), "{refused}");
}

#[test]
fn without_its_control_plane_the_mesh_goes_on_and_learns_nothing_twice_from_the_next() {
    if !has_namespaces() {
        return;
    }
    let mesh = Mesh::start(SHOP);
    let proxies = ["caller-1", "orders-1", "orders-2"];
    let resources = |proxy| mesh.scrape(proxy).sum("weft_xds_updates_applied_total", &[]);
    let mut load = load(&mesh);
    let before = proxies.map(resources);
    let revision = mesh.ask(&["status"]).expect("it answers")["revision"].as_u64();
    let killed = mesh.control_plane();
    kill_now(killed);
    until("another control plane runs", || (mesh.control_plane() != killed).then_some(()));
    until("all proxies are connected to it", || (mesh.current().len() == proxies.len()).then_some(()));
    assert!(load.is_running(), "the control plane was away under load");
    let load = load.finish();
    assert_eq!((load.requests, load.failures), (2000, 0), "{load:?}");

    assert_eq!(mesh.ask(&["status"]).expect("it answers")["revision"].as_u64(), revision);
    for (proxy, before) in proxies.into_iter().zip(before) {
        assert_eq!(resources(proxy), before, "{proxy} was sent what it already had");
        let figures = mesh.scrape(proxy);
        assert_eq!(figures.sum("weft_xds_connected", &[]), 1, "{proxy}");
        assert_eq!(figures.sum("weft_xds_nacks_total", &[]), 0, "{proxy}");
        assert!(figures.sum("weft_xds_stream_failures_total", &[]) >= 1, "{proxy} lost its stream");
    }
    // The new one is in charge: what it is told reaches the proxies.
    mesh.weft(&["scale", "orders", "3"]).ok();
    mesh.settle();
    serves_again(&mesh, "orders-3");
}
