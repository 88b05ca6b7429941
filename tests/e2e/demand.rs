//! Proxies that ask for the destinations their workload uses, in a mesh of far more services than anybody calls.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use serde_json::Value;
use weft_tests::mesh::command::until;
use weft_tests::mesh::machine::has_namespaces;
use weft_tests::mesh::{Ground, How, Mesh};

const SERVICES: &str = "\
services:
  caller: {command: [sleep, infinity]}
  orders: {command: ['<python>', named.py, orders], port: 80, targetPort: 8080, protocol: http1, replicas: 2}
  stock: {command: ['<python>', named.py, stock], port: 80, targetPort: 8080, protocol: http1}
";

/// Answers with its name.
const NAMED: &str = "
import http.server, sys
name = (sys.argv[1] + '\\n').encode()
class Named(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        self.send_response(200)
        self.send_header('content-length', str(len(name)))
        self.end_headers()
        self.wfile.write(name)
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(('127.0.0.1', 8080), Named).serve_forever()
";

/// Services that nobody calls.
const OTHERS: usize = 300;

fn start() -> Mesh {
    let ground = Ground::new(How::Root, SERVICES).with("WEFT_DESTINATIONS", "used");
    ground.write("named.py", NAMED);
    Mesh::on(&Arc::new(ground))
}

/// The others, at endpoints outside the mesh that turn with each round.
fn others(round: u8) -> String {
    (0..OTHERS).fold(String::new(), |mut text, index| {
        write!(
            text,
            "---\napiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{name: other-{index}}}\n\
             spec: {{ports: [{{port: 80, protocol: http}}], endpoints: [{{address: 192.0.2.{round}}}]}}\n"
        )
        .expect("text in memory takes any write");
        text
    })
}

fn apply(mesh: &Mesh, documents: &str) {
    mesh.ground().write("more.yaml", documents);
    let file = mesh.ground().path().join("more.yaml").display().to_string();
    let told = mesh.weft(&["apply", "-f", &file]);
    assert!(told.status.success(), "{told}");
    mesh.settle();
}

/// What curl prints beside the caller, and whether it was content.
fn curl(mesh: &Mesh, url: &str) -> (bool, String) {
    let finished = mesh.exec("caller-1", &["curl", "-sS", "--max-time", "50", "-w", "%header{weft-error}", url]);
    (finished.status.success(), finished.stdout)
}

fn dump(mesh: &Mesh, workload: &str) -> Value {
    let (status, text) = mesh.admin(workload, "/config_dump").expect("the proxy answers");
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).expect("a dump is JSON")
}

/// Names of one part of a proxy's configuration.
fn names(dump: &Value, part: &str) -> BTreeSet<String> {
    let list = dump[part].as_array().unwrap_or_else(|| panic!("no {part} in {dump}"));
    list.iter().map(|one| one["name"].as_str().unwrap_or_default().to_owned()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

fn responses(mesh: &Mesh, workload: &str) -> u64 {
    mesh.scrape(workload).sum("weft_xds_responses_total", &[])
}

#[test]
fn a_proxy_holds_what_its_workload_called_and_news_of_anything_else_costs_it_nothing() {
    if !has_namespaces() {
        return;
    }
    let mesh = start();
    apply(&mesh, &others(1));
    let nothing_yet = dump(&mesh, "caller-1");
    assert_eq!((names(&nothing_yet, "listeners"), names(&nothing_yet, "clusters")), (set(&[]), set(&[])));

    // The first request waits for the answer, and nothing of it can be seen.
    assert_eq!(curl(&mesh, "http://orders/"), (true, "orders\n".to_owned()));
    let used = dump(&mesh, "caller-1");
    assert_eq!(names(&used, "listeners"), set(&["outbound/default/orders:80"]));
    assert_eq!(names(&used, "clusters"), set(&["default/orders:80"]));
    let destinations = used["destinations"].as_array().expect("it asks");
    let answers: Vec<&Value> = destinations.iter().map(|destination| &destination["answer"]).collect();
    assert_eq!(answers, ["service"], "{destinations:?}");
    // Both endpoints by mutual TLS, as everywhere.
    let endpoints = used["clusters"][0]["endpoints"].as_array().expect("endpoints");
    assert!(endpoints.len() == 2 && endpoints.iter().all(|endpoint| endpoint["tls"] == "mutual"), "{endpoints:?}");
    let own = dump(&mesh, "orders-1");
    assert_eq!(names(&own, "listeners"), set(&["inbound/8080"]), "who calls nobody knows its own ports");

    // A round of all services that nobody calls: every proxy is up to date, and was sent nothing.
    let workloads = ["caller-1", "orders-1", "orders-2", "stock-1"];
    let before = workloads.map(|workload| responses(&mesh, workload));
    apply(&mesh, &others(2));
    assert_eq!(workloads.map(|workload| responses(&mesh, workload)), before);

    // What is used is told of.
    let scaled = mesh.weft(&["scale", "orders", "1"]);
    assert!(scaled.status.success(), "{scaled}");
    until("the caller knows of the one that is left", || {
        (dump(&mesh, "caller-1")["clusters"][0]["endpoints"].as_array()?.len() == 1).then_some(())
    });
    assert_eq!(responses(&mesh, "stock-1"), before[3]);
}

#[test]
fn a_service_that_comes_after_its_address_was_called_is_found_and_its_end_too() {
    if !has_namespaces() {
        return;
    }
    let mesh = start();
    let late = "http://10.96.200.7/";
    // Of the networks that only services have addresses of: refused, not sent on in plaintext.
    assert!(!curl(&mesh, late).0, "nobody is there");
    let service = |name: &str| {
        format!(
            "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{name: {name}}}\n\
             spec: {{addresses: [10.96.200.7], ports: [{{port: 80, targetPort: 8080, protocol: http1}}], selector: {{app: {name}}}}}\n"
        )
    };
    let stock = mesh.ask(&["get", "workload", "stock-1"]).expect("the workload");
    let labels = stock.pointer("/0/metadata/labels").or_else(|| stock.pointer("/metadata/labels"));
    let (label, value) = labels.and_then(Value::as_object).and_then(|labels| labels.iter().next()).expect("a label");
    let selector = format!("{{{label}: {value}}}");
    apply(&mesh, &service("late").replace("{app: late}", &selector));
    until("the address is the service's", || (curl(&mesh, late) == (true, "stock\n".to_owned())).then_some(()));
    assert_eq!(names(&dump(&mesh, "caller-1"), "listeners"), set(&["outbound/default/late:80"]));

    let gone = mesh.weft(&["delete", "service", "late"]);
    assert!(gone.status.success(), "{gone}");
    until("the address is nobody's", || (!curl(&mesh, late).0).then_some(()));
    until("what led there is forgotten", || {
        let dump = dump(&mesh, "caller-1");
        (names(&dump, "listeners").is_empty() && names(&dump, "clusters").is_empty()).then_some(())
    });
}
