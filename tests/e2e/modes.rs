//! The same mesh where less is allowed: without root, and without namespaces.

use std::sync::Arc;

use weft_tests::mesh::command::{run, until};
use weft_tests::mesh::machine::{has_namespaces, has_user_namespaces, python, variable};
use weft_tests::mesh::recording::{Recording, TLS_RECORDS};
use weft_tests::mesh::{Ground, How, Mesh, kill_now};

const SHOP: &str = r#"
services:
  caller: {command: [sleep, infinity]}
  orders:
    command: ["<weft>", shop, inventory, --port, "${PORT}"]
    port: 80
    targetPort: 8080
    protocol: http
    replicas: 2
"#;
/// `nobody`: a user of every Debian that owns nothing.
const NOBODY: u32 = 65534;

/// Requests of `caller` to `url`: none fails, and both sides count the same.
fn requests_succeed_over_mutual_tls(mesh: &Mesh, url: &str) {
    let load = mesh.load("caller-1", &[url, "--requests", "1000", "--rate", "1000000", "--timeout", "30s"]).finish();
    assert_eq!((load.requests, load.failures), (1000, 0), "{load:?}");
    let side = |workload: &str, direction, more: &[(&str, &str)], name| {
        let edge = [("source", "default/caller"), ("direction", direction)];
        mesh.settled(workload).sum(name, &[&edge[..], more].concat())
    };
    let requests = |workload, direction| side(workload, direction, &[("code_class", "2xx")], "weft_requests_total");
    assert_eq!(requests("caller-1", "outbound"), 1000);
    assert_eq!(requests("orders-1", "inbound") + requests("orders-2", "inbound"), 1000);
    for replica in ["orders-1", "orders-2"] {
        assert!(side(replica, "inbound", &[("tls", "mutual")], "weft_connections_total") >= 1, "{replica}");
        assert_eq!(side(replica, "inbound", &[("tls", "none")], "weft_connections_total"), 0, "{replica}");
    }
}

/// Dies with its supervisor, as with root and namespaces.
fn nothing_outlives_its_supervisor(mesh: &Mesh) {
    kill_now(mesh.supervisor());
    until("every process is gone", || mesh.ground().processes().is_empty().then_some(()));
}

#[test]
fn a_user_without_privileges_has_the_same_mesh() {
    if !has_user_namespaces() {
        return;
    }
    let mesh = Mesh::on(&Arc::new(Ground::new(How::User(NOBODY), SHOP)));
    assert!(!mesh.told().contains("no network namespaces"), "{}", mesh.told());
    let outside = |arguments: &[&str]| mesh.outside(arguments);
    let wire = Recording::begin(mesh.ground().path().join("wire.pcap"), "any", outside);
    requests_succeed_over_mutual_tls(&mesh, "http://orders/stock");
    let wire = wire.end(&mesh.address("orders-1"), outside);
    assert!(wire.count(&format!("port 8080 and {TLS_RECORDS}")) >= 100);
    for secret in ["apples", "HTTP/1.1", "/stock"] {
        assert!(!wire.holds(secret), "`{secret}` can be read between pods");
    }
    // Captured by address family alike, and refused to strangers.
    mesh.exec("caller-1", &["curl", "-6", "-fsS", "--max-time", "30", "http://orders/stock"]).ok();
    let url = format!("http://{}:8080/stock", mesh.address("orders-1"));
    let stranger = run(mesh.outside(&["curl", "-sS", "--max-time", "30", &url]));
    assert!(!stranger.status.success() && stranger.stdout.is_empty(), "{stranger}");
    nothing_outlives_its_supervisor(&mesh);
}

#[test]
fn without_namespaces_services_call_each_other_through_ports_of_their_proxies() {
    if !has_namespaces() {
        return;
    }
    let mesh = Mesh::on(&Arc::new(Ground::new(How::Loopback, SHOP)));
    assert!(mesh.told().contains("traffic is not intercepted"), "{}", mesh.told());
    let application = mesh.pod("caller-1").application.expect("it runs");
    let url = variable(application, "WEFT_URL_ORDERS").expect("it is told where orders is");
    requests_succeed_over_mutual_tls(&mesh, &format!("{url}/stock"));
    // A stranger on this machine has no certificate: the port the replica is reached at tells it nothing.
    let documents = mesh.ask(&["get", "workload"]).expect("the control plane answers");
    let at = documents.to_string();
    let at = at.split("\"at\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("it is advertised");
    let probe = "
import socket, sys
host, port = sys.argv[1].rsplit(':', 1)
server = socket.create_connection((host, int(port)), timeout=30)
server.sendall(b'GET /stock HTTP/1.1\\r\\nhost: a\\r\\n\\r\\n')
try:
    print(server.recv(65536))
except ConnectionResetError:
    print('reset')
";
    let mut stranger = std::process::Command::new(python());
    stranger.args(["-c", probe, at]);
    let said = run(stranger).ok();
    assert!(!said.contains("HTTP/1.1") && !said.contains("apples"), "{said}");
    nothing_outlives_its_supervisor(&mesh);
}
