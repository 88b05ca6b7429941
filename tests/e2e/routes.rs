//! HTTPRoutes in a whole mesh: a canary by weight and by header, by path, with its own time.

use std::sync::Arc;

use weft_tests::mesh::command::until;
use weft_tests::mesh::machine::has_namespaces;
use weft_tests::mesh::{Ground, How, Mesh};

const SERVICES: &str = "\
services:
  caller: {command: [sleep, infinity]}
  orders: {command: ['<python>', named.py, orders], port: 80, targetPort: 8080, protocol: http1}
  stable: {command: ['<python>', named.py, stable], port: 80, targetPort: 8080, protocol: http1, replicas: 2}
  next: {command: ['<python>', named.py, next], port: 80, targetPort: 8080, protocol: http1}
";

/// Answers with its name, and `/slow` never.
const NAMED: &str = "
import http.server, sys, threading
name = (sys.argv[1] + '\\n').encode()
class Named(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        if self.path.startswith('/slow'):
            threading.Event().wait()
        self.send_response(200)
        self.send_header('content-length', str(len(name)))
        self.end_headers()
        self.wfile.write(name)
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(('127.0.0.1', 8080), Named).serve_forever()
";

const CANARY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: canary}
spec:
  parentRefs: [{kind: Service, name: orders, port: 80}]
  rules:
  - name: by-header
    matches: [{headers: [{name: x-version, value: next}]}]
    backendRefs: [{name: next, port: 80}]
  - name: by-path
    matches: [{path: {type: PathPrefix, value: /api/v2}}]
    backendRefs: [{name: next, port: 80}]
  - name: in-time
    matches: [{path: {type: PathPrefix, value: /slow}}]
    backendRefs: [{name: stable, port: 80}]
    timeouts: {request: 300ms}
  - name: by-weight
    backendRefs: [{name: stable, port: 80, weight: 90}, {name: next, port: 80, weight: 10}]
";

/// What curl prints beside the caller.
fn curl(mesh: &Mesh, arguments: &[&str]) -> String {
    let arguments = [&["curl", "-sS", "--max-time", "50"], arguments].concat();
    mesh.exec("caller-1", &arguments).ok()
}

fn apply(mesh: &Mesh, documents: &str) -> String {
    mesh.ground().write("routes.yaml", documents);
    let file = mesh.ground().path().join("routes.yaml").display().to_string();
    let told = mesh.weft(&["apply", "-f", &file]);
    assert!(told.status.success(), "{told}");
    mesh.settle();
    told.stderr
}

/// Answers of so many requests to the service that were the canary's.
fn canaries(mesh: &Mesh, more: &[&str]) -> usize {
    let url = "http://orders/?n=[1-500]";
    let said = curl(mesh, &[more, &[url]].concat());
    let names: Vec<&str> = said.lines().collect();
    assert!(names.len() == 500 && names.iter().all(|name| ["stable", "next"].contains(name)), "{said}");
    names.iter().filter(|name| **name == "next").count()
}

#[test]
fn a_canary_gets_what_its_route_says() {
    if !has_namespaces() {
        return;
    }
    let ground = Ground::new(How::Root, SERVICES);
    ground.write("named.py", NAMED);
    let mesh = Mesh::on(&Arc::new(ground));
    assert_eq!(curl(&mesh, &["http://orders/"]), "orders\n");

    assert_eq!(apply(&mesh, CANARY), "", "nothing to warn of");
    for versions in [&["--http1.1"][..], &["--http2-prior-knowledge"]] {
        let asked = |more: &[&str]| curl(&mesh, &[versions, more].concat());
        assert_eq!(asked(&["-H", "x-version: next", "http://orders/"]), "next\n", "{versions:?}");
        assert_eq!(asked(&["http://orders/api/v2/items?a=b"]), "next\n", "{versions:?}");
        let late = asked(&["-o", "/dev/null", "-w", "%{http_code} %header{weft-error}", "http://orders/slow"]);
        assert_eq!(late, "504 request-timeout", "{versions:?}");
        // A tenth of 500: five times further off than chance goes.
        let share = canaries(&mesh, versions);
        assert!((15..90).contains(&share), "{share} of 500 for a tenth, {versions:?}");
    }

    // Whoever was chosen is who the signals name, on both sides and by mutual TLS.
    let caller = mesh.settled("caller-1");
    let outbound = |service: &str| {
        let edge = [("direction", "outbound"), ("destination", service), ("code_class", "2xx")];
        caller.sum("weft_requests_total", &edge)
    };
    let (stable, next) = (outbound("default/stable:80"), outbound("default/next:80"));
    assert_eq!((stable + next, outbound("default/orders:80")), (1004, 1), "{stable} and {next}");
    let inbound = mesh.settled("next-1");
    let edge = [("direction", "inbound"), ("source", "default/caller"), ("destination", "default/next:80")];
    assert_eq!(inbound.sum("weft_requests_total", &edge), next);
    assert_eq!(inbound.sum("weft_connections_total", &[&edge[..], &[("tls", "none")]].concat()), 0);
    let (_, dump) = mesh.admin("caller-1", "/config_dump").expect("the proxy answers");
    for rule in ["by-header", "by-path", "in-time", "by-weight"] {
        assert!(dump.contains(&format!("default/canary/{rule}")), "{rule} in {dump}");
    }

    // All of it to the canary, then to one that does not exist, then back to the service's own.
    apply(&mesh, &CANARY.replace("weight: 90", "weight: 0"));
    assert_eq!(canaries(&mesh, &[]), 500);
    let told = apply(
        &mesh,
        &CANARY
            .replace("{name: next, port: 80, weight: 10}", "{name: gone, port: 80, weight: 10}")
            .replace("weight: 90", "weight: 0"),
    );
    assert!(told.contains("its backend, port 80 of the service gone, does not exist yet"), "{told}");
    let refused = curl(&mesh, &["-w", "%{http_code}", "http://orders/"]);
    assert!(
        refused.contains("no-backend") && refused.contains("default/canary/by-weight") && refused.ends_with("500"),
        "{refused}"
    );
    let deleted = mesh.weft(&["delete", "httproute", "canary"]);
    assert!(deleted.status.success(), "{deleted}");
    until("the service serves its own requests again", || {
        (curl(&mesh, &["http://orders/"]) == "orders\n").then_some(())
    });
}
