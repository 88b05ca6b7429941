//! What can be seen between pods: nothing but TLS, unless the mesh says otherwise.

use weft_tests::mesh::command::run;
use weft_tests::mesh::machine::has_namespaces;
use weft_tests::mesh::recording::{Recording, TLS_RECORDS};
use weft_tests::mesh::{Ground, How, Mesh};

/// Three applications: one is called by hand, `frontend` asks `orders` by name, `orders` answers with what it was told.
const SHOP: &str = r#"
services:
  caller: {command: [sleep, infinity]}
  frontend: {command: ["<python>", frontend.py], port: 80, targetPort: 8080, protocol: http}
  orders: {command: ["<python>", orders.py], port: 80, targetPort: 8080, protocol: http}
"#;
const FRONTEND: &str = "
import http.server, urllib.request
class Frontend(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked = urllib.request.Request('http://orders/', headers={'x-marker': self.headers['x-marker']})
        body = urllib.request.urlopen(asked, timeout=20).read()
        self.send_response(200)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(('127.0.0.1', 8080), Frontend).serve_forever()
";
const ORDERS: &str = "
import http.server
class Orders(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = ('answer ' + self.headers['x-marker']).encode()
        self.send_response(200)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(('127.0.0.1', 8080), Orders).serve_forever()
";
/// What must not be read on the way.
const MARKER: &str = "marker-7f3a91c2";

fn shop(mtls: &str) -> Mesh {
    let ground = Ground::new(How::Root, &format!("mtls: {mtls}\n{SHOP}"));
    ground.write("frontend.py", FRONTEND);
    ground.write("orders.py", ORDERS);
    Mesh::on(&ground.into())
}

#[test]
fn applications_speak_plain_http_and_only_tls_is_between_them() {
    if !has_namespaces() {
        return;
    }
    let mesh = shop("strict");
    let outside = |arguments: &[&str]| mesh.outside(arguments);
    let beside_orders = |arguments: &[&str]| mesh.inside("orders-1", arguments);
    let wire = Recording::begin(mesh.ground().path().join("wire.pcap"), "any", outside);
    let loopback = Recording::begin(mesh.ground().path().join("loopback.pcap"), "lo", beside_orders);

    let header = format!("x-marker: {MARKER}");
    let said = mesh.exec("caller-1", &["curl", "-sS", "--max-time", "30", "-H", &header, "http://frontend/"]).ok();
    assert_eq!(said, format!("answer {MARKER}"));

    let wire = wire.end(&mesh.address("orders-1"), outside);
    let loopback = loopback.end("127.0.0.1", beside_orders);
    // The same search finds it where the application takes its request: it is not blind.
    assert!(loopback.holds(MARKER), "the application's own loopback interface carries plain HTTP");
    assert!(loopback.holds("answer"), "and its answer");
    assert_eq!(loopback.count(&format!("port 8080 and {TLS_RECORDS}")), 0);
    for answering in ["frontend-1", "orders-1"] {
        let answers = format!("src host {} and src port 8080 and {TLS_RECORDS}", mesh.address(answering));
        assert!(wire.count(&answers) >= 1, "the answer of {answering} passed between pods in TLS records");
    }
    for secret in [MARKER, "answer", "x-marker", "HTTP/1.1"] {
        assert!(!wire.holds(secret), "`{secret}` can be read between pods");
    }
}

#[test]
fn a_strict_port_refuses_plaintext_from_outside() {
    if !has_namespaces() {
        return;
    }
    let mesh = shop("strict");
    let url = format!("http://{}:8080/", mesh.address("orders-1"));
    let said = run(mesh.outside(&["curl", "-sS", "--max-time", "20", "-H", "x-marker: a", &url]));
    assert!(!said.status.success() && said.stdout.is_empty(), "{said}");
    // Refused, not silently dropped.
    assert_ne!(said.status.code(), Some(28), "curl waited in vain: {said}");
    let refused = mesh.scrape("orders-1").sum("weft_connections_refused_total", &[("reason", "tls")]);
    assert_eq!(refused, 1);
}

#[test]
fn a_permissive_port_takes_plaintext_from_outside_and_tls_from_the_mesh() {
    if !has_namespaces() {
        return;
    }
    let mesh = shop("permissive");
    let outside = |arguments: &[&str]| mesh.outside(arguments);
    let wire = Recording::begin(mesh.ground().path().join("wire.pcap"), "any", outside);
    let address = mesh.address("orders-1");
    let header = format!("x-marker: {MARKER}");
    let url = format!("http://{address}:8080/");
    let said = run(mesh.outside(&["curl", "-sS", "--max-time", "30", "-H", &header, &url])).ok();
    assert_eq!(said, format!("answer {MARKER}"));
    mesh.exec("caller-1", &["curl", "-sS", "--max-time", "30", "-H", "x-marker: quiet", "http://frontend/"]).ok();

    let wire = wire.end(&address, outside);
    assert!(wire.holds(MARKER), "what came in plaintext can be read: the search for it works");
    assert!(!wire.holds("quiet"), "the mesh's own calls stay encrypted");
    let figures = mesh.settled("orders-1");
    let requests = |source, tls| {
        let requests = figures.sum("weft_requests_total", &[("direction", "inbound"), ("source", source)]);
        let labels = [("direction", "inbound"), ("source", source), ("tls", tls)];
        (requests, figures.sum("weft_connections_total", &labels))
    };
    assert_eq!(requests("unknown", "none"), (1, 1));
    assert_eq!(requests("default/frontend", "mutual"), (1, 1));
}
