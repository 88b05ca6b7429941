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

/// Requests without end, well under way.
fn load(mesh: &Mesh) -> Load {
    let load = mesh.load("caller-1", &["http://orders/stock", "--rate", "200"]);
    until("the load is under way", || (requests(mesh, "caller-1") > 100).then_some(()));
    load
}

/// How many requests of `caller` to `orders` the proxy of that workload has counted.
fn requests(mesh: &Mesh, workload: &str) -> u64 {
    let edge = [("source", "default/caller"), ("destination", "default/orders:80")];
    mesh.scrape(workload).sum("weft_requests_total", &edge)
}

fn gets_work(mesh: &Mesh, replica: &str) {
    let before = requests(mesh, replica);
    until(&format!("{replica} gets work"), || (requests(mesh, replica) > before).then_some(()));
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
    until("the application runs again", || {
        mesh.find_pod("orders-1")?.application.filter(|application| *application != killed)
    });
    mesh.settle();
    gets_work(&mesh, "orders-1");
    let load = load.stop();
    // What the application had taken when it died may fail; all that comes later is tried elsewhere.
    assert!(load.failures <= CONNECTIONS, "{load:?}");
}

#[test]
fn a_pod_killed_under_load_costs_at_most_what_was_under_way_and_comes_back() {
    if !has_namespaces() {
        return;
    }
    let mesh = Mesh::start(SHOP);
    let load = load(&mesh);
    let killed = mesh.pod("orders-1");
    kill_now(killed.init);
    until("the pod is made again", || mesh.find_pod("orders-1").filter(|pod| pod.init != killed.init));
    assert_eq!(process(killed.proxy), None, "all of the old pod is gone");
    mesh.settle();
    gets_work(&mesh, "orders-1");
    let load = load.stop();
    assert!(load.failures <= CONNECTIONS, "{load:?}");
}

#[test]
fn replicas_come_and_go_without_a_failed_request() {
    if !has_namespaces() {
        return;
    }
    let mesh = Mesh::start(SHOP);
    let load = load(&mesh);
    mesh.weft(&["scale", "orders", "4"]).ok();
    gets_work(&mesh, "orders-3");
    gets_work(&mesh, "orders-4");
    mesh.weft(&["scale", "orders", "1"]).ok();
    assert_eq!(mesh.ready().into_iter().collect::<Vec<_>>(), ["caller-1", "orders-1"]);
    assert_eq!(mesh.find_pod("orders-4"), None);
    gets_work(&mesh, "orders-1");
    // Once more: a name that comes back is another replica than the one that went.
    mesh.weft(&["scale", "orders", "2"]).ok();
    gets_work(&mesh, "orders-2");
    let load = load.stop();
    assert_eq!(load.failures, 0, "{load:?}");
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
    let updates = |proxy| mesh.scrape(proxy).sum("weft_xds_updates_applied_total", &[]);
    let load = load(&mesh);
    let before = proxies.map(updates);
    let revision = mesh.ask(&["status"]).expect("it answers")["revision"].as_u64();
    let killed = mesh.control_plane();
    kill_now(killed);
    until("another control plane runs", || (mesh.control_plane() != killed).then_some(()));
    until("all proxies are connected to it", || (mesh.current().len() == proxies.len()).then_some(()));

    assert_eq!(mesh.ask(&["status"]).expect("it answers")["revision"].as_u64(), revision);
    for (proxy, before) in proxies.into_iter().zip(before) {
        assert_eq!(updates(proxy), before, "{proxy} was sent what it already had");
        let figures = mesh.scrape(proxy);
        assert_eq!(figures.sum("weft_xds_connected", &[]), 1, "{proxy}");
        assert_eq!(figures.sum("weft_xds_nacks_total", &[]), 0, "{proxy}");
        assert!(figures.sum("weft_xds_stream_failures_total", &[]) >= 1, "{proxy} lost its stream");
    }
    // The new one is in charge: what it is told reaches the proxies.
    mesh.weft(&["scale", "orders", "3"]).ok();
    gets_work(&mesh, "orders-3");
    let load = load.stop();
    assert_eq!(load.failures, 0, "{load:?}");
}
