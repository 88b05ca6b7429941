//! What can be seen between pods: nothing but TLS, unless the mesh says otherwise.

use std::path::PathBuf;

use nix::sys::signal::Signal;
use weft_tests::mesh::command::{PATIENCE, Running, run, until};
use weft_tests::mesh::machine::has_namespaces;
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
/// Sent when all is done: with it in a recording, all that was before is in it too.
const LAST: &str = "last-of-all-55d0";

fn shop(mtls: &str) -> Mesh {
    let ground = Ground::new(How::Root, &format!("mtls: {mtls}\n{SHOP}"));
    ground.write("frontend.py", FRONTEND);
    ground.write("orders.py", ORDERS);
    Mesh::on(&ground.into())
}

/// A recording of packets.
struct Recording {
    tcpdump: Running,
    file: PathBuf,
}

impl Recording {
    /// Begins to record an interface; `inside` runs a command where that interface is.
    fn begin(mesh: &Mesh, name: &str, interface: &str, inside: impl Fn(&[&str]) -> std::process::Command) -> Self {
        let file = mesh.ground().path().join(name);
        let path = file.display().to_string();
        let options = ["tcpdump", "-i", interface, "--immediate-mode", "-U", "-Z", "root", "-w", &path];
        let mut tcpdump = Running::start(inside(&options));
        tcpdump.says("listening on");
        Self { tcpdump, file }
    }

    /// Ends it once it holds a packet that is sent to `address` now.
    fn end(self, address: &str, inside: impl Fn(&[&str]) -> std::process::Command) -> Self {
        let send = format!("echo {LAST} >/dev/udp/{address}/9");
        until("the last packet is recorded", || {
            run(inside(&["bash", "-c", &send]));
            self.holds(LAST).then_some(())
        });
        self.tcpdump.signal(Signal::SIGTERM);
        self
    }

    fn holds(&self, text: &str) -> bool {
        let bytes = std::fs::read(&self.file).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// How many packets a filter matches.
    fn count(&self, filter: &str) -> usize {
        let mut tcpdump = std::process::Command::new("tcpdump");
        tcpdump.args(["-n", "-r"]).arg(&self.file).arg(filter);
        Running::start(tcpdump).finish(PATIENCE).ok().stdout.lines().count()
    }
}

/// Packets of the application's port that begin with a TLS record of application data.
const TLS_RECORDS: &str = "tcp port 8080 and tcp[((tcp[12] & 0xf0) >> 2)] = 0x17";

#[test]
fn applications_speak_plain_http_and_only_tls_is_between_them() {
    if !has_namespaces() {
        return;
    }
    let mesh = shop("strict");
    let outside = |arguments: &[&str]| mesh.outside(arguments);
    let beside_orders = |arguments: &[&str]| mesh.inside("orders-1", arguments);
    let wire = Recording::begin(&mesh, "wire.pcap", "any", outside);
    let loopback = Recording::begin(&mesh, "loopback.pcap", "lo", beside_orders);

    let header = format!("x-marker: {MARKER}");
    let said = mesh.exec("caller-1", &["curl", "-sS", "--max-time", "30", "-H", &header, "http://frontend/"]).ok();
    assert_eq!(said.stdout, format!("answer {MARKER}"));

    let wire = wire.end(&mesh.address("orders-1"), outside);
    let loopback = loopback.end("127.0.0.1", beside_orders);
    // The same search finds it where the application takes its request: it is not blind.
    assert!(loopback.holds(MARKER), "the application's own loopback interface carries plain HTTP");
    assert!(loopback.holds("answer"), "and its answer");
    assert_eq!(loopback.count(TLS_RECORDS), 0);
    assert!(wire.count(TLS_RECORDS) >= 4, "two requests and two answers passed between pods as TLS records");
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
    assert_eq!(refused, 1.0);
}

#[test]
fn a_permissive_port_takes_plaintext_from_outside_and_tls_from_the_mesh() {
    if !has_namespaces() {
        return;
    }
    let mesh = shop("permissive");
    let outside = |arguments: &[&str]| mesh.outside(arguments);
    let wire = Recording::begin(&mesh, "wire.pcap", "any", outside);
    let address = mesh.address("orders-1");
    let header = format!("x-marker: {MARKER}");
    let url = format!("http://{address}:8080/");
    let said = run(mesh.outside(&["curl", "-sS", "--max-time", "30", "-H", &header, &url])).ok();
    assert_eq!(said.stdout, format!("answer {MARKER}"));
    mesh.exec("caller-1", &["curl", "-sS", "--max-time", "30", "-H", "x-marker: quiet", "http://frontend/"]).ok();

    let wire = wire.end(&address, outside);
    assert!(wire.holds(MARKER), "what came in plaintext can be read: the search for it works");
    assert!(!wire.holds("quiet"), "the mesh's own calls stay encrypted");
    let figures = mesh.scrape("orders-1");
    let requests = |source, tls| {
        let requests = figures.sum("weft_requests_total", &[("direction", "inbound"), ("source", source)]);
        let labels = [("direction", "inbound"), ("source", source), ("tls", tls)];
        (requests, figures.sum("weft_connections_total", &labels))
    };
    assert_eq!(requests("unknown", "none"), (1.0, 1.0));
    assert_eq!(requests("default/frontend", "mutual"), (1.0, 1.0));
}
