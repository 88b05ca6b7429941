//! Bad input changes nothing, and says where it is bad, what was found, and what is allowed.

#![allow(clippy::unwrap_used, reason = "a test that cannot have what it needs has failed")]

use serde_json::Value;
use weft_tests::process::plane::{Plane, weft};
use weft_tests::process::{fed, files_below, run};

const GOOD: &str = "\
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: {name: orders}
spec:
  addresses: [10.96.0.2]
  ports: [{port: 80}]
  selector: {app: orders}
";

/// A Service whose spec is this text.
fn service(spec: &str) -> String {
    format!("apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{name: carts}}\nspec:\n{spec}\n")
}

fn workload(spec: &str) -> String {
    format!("apiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {{name: carts-1}}\nspec:\n{spec}\n")
}

/// What is wrong, in a text that stands in lines of its own; what the message says: place, document and field, found and
/// allowed.
fn bad_documents() -> Vec<(&'static str, String, Vec<&'static str>)> {
    let backends = "  selector: {app: carts}";
    let with_port = |port: &str| service(&format!("  ports:\n  - {{port: {port}}}\n{backends}"));
    vec![
        ("unknown kind", GOOD.replace("Service", "Servce"), vec![":2:7: ", "kind: unknown kind `Servce`", "`Service`"]),
        ("no kind", GOOD.replace("kind: Service\n", ""), vec![":1:1: ", "kind: missing", "kind: Service"]),
        ("old version", GOOD.replace("v1alpha1", "v1"), vec![":1:13: ", "`weft.dev/v1`", "use weft.dev/v1alpha1"]),
        ("no name", GOOD.replace("{name: orders}", "{}"), vec![":3:11: ", "metadata.name: missing", "name: orders"]),
        (
            "a name that is none",
            GOOD.replace("name: orders", "name: My_Orders"),
            vec![":3:18: ", "metadata.name", "`My_Orders`", "such as `my-orders`"],
        ),
        (
            "unknown field",
            GOOD.replace("ports:", "prots:"),
            vec![":6:3: ", "Service default/orders: spec.prots: unknown field `prots`", "`ports`", "selector"],
        ),
        (
            "unknown field in a list",
            service(&format!("  ports:\n  - {{port: 80, tagetPort: 8080}}\n{backends}")),
            vec![":6:16: ", "spec.ports[0].tagetPort", "did you mean `targetPort`"],
        ),
        (
            "text for a number",
            with_port("http"),
            vec![":6:12: ", "spec.ports[0].port", "the text \"http\"", "1 to 65535"],
        ),
        ("quoted number", with_port("\"80\""), vec!["spec.ports[0].port", "remove the quotes"]),
        ("port 0", with_port("0"), vec![":6:12: ", "spec.ports[0].port", "found the number 0", "1 to 65535"]),
        ("port 65536", with_port("65536"), vec!["spec.ports[0].port", "65536", "1 to 65535"]),
        ("negative port", with_port("-1"), vec!["spec.ports[0].port", "-1", "1 to 65535"]),
        ("no ports", service(&format!("  ports: []\n{backends}")), vec![":5:10: ", "spec.ports: the list is empty"]),
        (
            "a port twice",
            service(&format!("  ports:\n  - {{port: 80}}\n  - {{port: 80}}\n{backends}")),
            vec![":7:12: ", "spec.ports[1].port", "port 80 is given twice", "line 6"],
        ),
        (
            "unknown protocol",
            service(&format!("  ports: [{{port: 80, protocol: udp}}]\n{backends}")),
            vec!["spec.ports[0].protocol: unknown protocol `udp`", "http, http1, http2, grpc, tcp, tls, auto"],
        ),
        (
            "neither endpoints nor selector",
            service("  ports: [{port: 80}]"),
            vec![":5:3: ", "spec: neither `selector` nor `endpoints`", "selector: {app: NAME}"],
        ),
        (
            "both",
            service(&format!("  ports: [{{port: 80}}]\n  endpoints: [{{address: 192.0.2.1}}]\n{backends}")),
            vec!["spec.endpoints", "exactly one of the two"],
        ),
        (
            "endpoints without one",
            service("  ports: [{port: 80}]\n  endpoints: []"),
            vec!["spec.endpoints: the list is empty", "{address: 192.0.2.1}"],
        ),
        (
            "an empty selector",
            service("  ports: [{port: 80}]\n  selector: {}"),
            vec!["spec.selector", "would select every workload"],
        ),
        (
            "a bad address",
            workload("  addresses: [10.97.0.256]"),
            vec![
                ":5:15: ",
                "Workload default/carts-1: spec.addresses[0]: `10.97.0.256` is not an IP address",
                "10.96.0.2",
            ],
        ),
        ("an address of all", workload("  addresses: [0.0.0.0]"), vec!["spec.addresses[0]", "address of one host"]),
        ("no addresses", workload("  addresses: []"), vec!["spec.addresses: the list is empty"]),
        (
            "unknown state",
            workload("  addresses: [10.97.0.5]\n  state: up"),
            vec!["spec.state", "ready, draining, unhealthy"],
        ),
        (
            "a place without port",
            workload("  addresses: [10.97.0.5]\n  advertise: [{port: 80, at: 127.0.0.1}]"),
            vec!["spec.advertise[0].at: `127.0.0.1` is not ADDRESS:PORT"],
        ),
        ("a mesh of another name", GOOD.replace("Service", "Mesh"), vec!["name of a Mesh `orders`", "default"]),
        ("a tab", GOOD.replace("  ports", "\tports"), vec![":6:", "tab"]),
        ("a bracket that stays open", GOOD.replace("{port: 80}]", "{port: 80}"), vec![":7:"]),
        ("an alias without anchor", GOOD.replace("{app: orders}", "*nobody"), vec![":7:13: ", "unknown anchor"]),
        (
            "a field twice",
            GOOD.replace("  ports", "  ports: [{port: 81}]\n  ports"),
            vec![":7:3: ", "spec.ports: given twice", "line 6"],
        ),
        ("a list", "- a\n- b\n".to_owned(), vec![":1:1: ", "found a list", "expected a mapping"]),
        ("a word", "orders\n".to_owned(), vec![":1:1: ", "the text \"orders\"", "expected a mapping"]),
        ("nothing", String::new(), vec!["holds no document", "apiVersion: weft.dev/v1alpha1"]),
        ("a comment", "# nothing here\n".to_owned(), vec!["holds no document"]),
    ]
}

#[test]
fn a_bad_document_is_refused_with_place_field_and_remedy_and_nothing_of_its_batch_is_applied() {
    let place = tempfile::tempdir().unwrap();
    let plane = Plane::start(place.path());
    plane.apply(GOOD);
    let (before, revision) = (plane.json(&["get", "-A"]), plane.revision());
    let good = place.path().join("good.yaml");
    let bad = place.path().join("bad.yaml");
    std::fs::write(&good, GOOD.replace("orders", "invoices").replace("10.96.0.2", "10.96.0.3")).unwrap();
    let mut failures = Vec::new();
    for (what, text, expected) in bad_documents() {
        std::fs::write(&bad, text).unwrap();
        let refused = plane.weft(&["apply", "-f", good.to_str().unwrap(), "-f", bad.to_str().unwrap()]);
        let mut complain = |complaint: &str| failures.push(format!("{what}: {complaint}: {refused:#?}"));
        if refused.code != Some(1) {
            complain("the exit code is not 1");
        }
        if !refused.stdout.is_empty() {
            complain("standard output is not empty");
        }
        if !refused.stderr.lines().all(|line| line.starts_with(&format!("error: {}:", bad.display()))) {
            complain("a line does not begin with the file");
        }
        for part in expected.iter().filter(|part| !refused.stderr.contains(*part)) {
            complain(&format!("`{part}` is not said"));
        }
        if plane.json(&["get", "-A"]) != before || plane.revision() != revision {
            complain("something was changed");
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert_eq!(plane.log().matches("panicked").count(), 0, "{}", plane.log());
}

#[test]
fn what_only_the_whole_store_can_know_is_refused_as_well() {
    let place = tempfile::tempdir().unwrap();
    let plane = Plane::start(place.path());
    plane.apply(GOOD);
    let revision = plane.revision();
    for (what, text, expected) in [
        ("a document twice in a batch", format!("{GOOD}---\n{GOOD}"), "given twice"),
        ("a virtual address with an owner", GOOD.replace("name: orders", "name: carts"), "10.96.0.2"),
    ] {
        let refusal = plane.try_apply(&text).failed(1);
        assert!(refusal.contains(expected) && refusal.contains("<stdin>"), "{what}: {refusal}");
        assert_eq!(plane.revision(), revision, "{what}");
    }
}

#[test]
fn all_problems_of_a_batch_are_told_at_once() {
    let place = tempfile::tempdir().unwrap();
    let plane = Plane::start(place.path());
    let text = format!(
        "{}---\n{}",
        service("  ports: [{port: 0}, {port: 1, protocol: udp}]\n  selector: {app: a}"),
        workload("  addresses: [nowhere]\n  state: up")
    );
    let refusal = plane.try_apply(&text).failed(1);
    for field in ["spec.ports[0].port", "spec.ports[1].protocol", "spec.addresses[0]", "spec.state"] {
        assert!(refusal.contains(field), "{field} is not told: {refusal}");
    }
    assert_eq!(refusal.lines().count(), 4, "{refusal}");
}

#[test]
fn text_that_is_no_text_is_refused_and_not_repeated_as_it_is() {
    let place = tempfile::tempdir().unwrap();
    let plane = Plane::start(place.path());
    let path = place.path().join("bytes.yaml");
    for bytes in [&b"\xff\xfe\x00"[..], b"a: \x00b\n", b"\x1b[31mred: 1\n"] {
        std::fs::write(&path, bytes).unwrap();
        let refusal = plane.weft(&["apply", "-f", path.to_str().unwrap()]).failed(1);
        assert!(refusal.lines().count() <= 3 && refusal.contains("bytes.yaml"), "{refusal:?}");
        assert!(!refusal.contains(['\x1b', '\0']), "this would reach a terminal: {refusal:?}");
    }
    // A name that would be a million lines.
    let refusal = plane.try_apply(&GOOD.replace("name: orders", &format!("name: \"{}\"", "x\\n".repeat(100_000))));
    assert!(refusal.clone().failed(1).len() < 2_000, "{} bytes", refusal.stderr.len());
}

/// A mesh file that differs from a good one in one thing, and what is said about it.
fn bad_meshes() -> Vec<(&'static str, String, Vec<&'static str>)> {
    let good = "services:\n  web:\n    command: [sleep, '60']\n    port: 80\n";
    vec![
        ("unknown field", good.replace("port:", "prot:"), vec!["mesh.yaml:4:5: ", "services.web", "`prot`", "`port`"]),
        ("port 0", good.replace("80", "0"), vec!["mesh.yaml:4:11: ", "services.web.port", "found 0", "1..=65535"]),
        ("wrong type", good.replace("80", "[80]"), vec!["mesh.yaml:4:11: ", "services.web.port"]),
        (
            "unknown protocol",
            format!("{good}    protocol: udp\n"),
            vec!["mesh.yaml:5:", "`udp`", "`http`, `http1`, `http2`, `grpc`, `tcp`, `tls`, `auto`"],
        ),
        ("too many replicas", format!("{good}    replicas: 51\n"), vec!["services.web.replicas", "found 51", "0..=50"]),
        (
            "no command",
            good.replace("    command: [sleep, '60']\n", ""),
            vec!["services.web", "missing field `command`"],
        ),
        ("a service twice", format!("{good}  web: {{command: [sleep, '1']}}\n"), vec!["found `web` twice"]),
        ("a name that is none", good.replace("web", "Web_1"), vec!["mesh.yaml:2: services.Web_1", "no host name"]),
        ("a port of the proxy", good.replace("80", "15001"), vec!["services.web.port", "15001", "15000..=15006"]),
        ("a tab", good.replace("    port", "\tport"), vec!["mesh.yaml:"]),
        ("no services", "services: {}\n".to_owned(), vec!["services: found none", "at least one"]),
        ("nothing", String::new(), vec!["mesh.yaml"]),
        ("unknown mode", format!("mtls: on\n{good}"), vec!["mesh.yaml:1:", "`strict`"]),
        (
            "a program that is missing",
            good.replace("sleep", "no-such-program-here"),
            vec!["services.web.command", "`no-such-program-here`", "not on this machine"],
        ),
    ]
}

#[test]
fn a_bad_mesh_file_starts_nothing_and_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let file = place.path().join("mesh.yaml");
    let mut failures = Vec::new();
    for (what, text, expected) in bad_meshes() {
        std::fs::write(&file, text).unwrap();
        let refused = run(weft(&data).args(["up", "--no-namespaces", "--for", "20s", file.to_str().unwrap()]));
        let mut complain = |complaint: &str| failures.push(format!("{what}: {complaint}: {refused:#?}"));
        if refused.code != Some(1) {
            complain("the exit code is not 1");
        }
        for part in expected.iter().filter(|part| !refused.stderr.contains(*part)) {
            complain(&format!("`{part}` is not said"));
        }
        if !files_below(&data).is_empty() || data.exists() {
            complain("something was left behind");
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn a_mesh_file_that_is_missing_is_named() {
    let place = tempfile::tempdir().unwrap();
    let mut weft = weft(&place.path().join("data"));
    let refusal = run(weft.current_dir(place.path()).args(["up"])).failed(1);
    assert!(refusal.contains("mesh.yaml") && refusal.lines().count() == 1, "{refusal}");
}

#[test]
fn a_batch_larger_than_what_is_taken_is_refused_in_one_line() {
    let place = tempfile::tempdir().unwrap();
    let plane = Plane::start(place.path());
    let comment = format!("# {}\n", "x".repeat(1000)).repeat(70_000);
    let refused = fed(weft(&plane.data()).args(["apply", "-f", "-"]), &format!("{GOOD}{comment}"));
    let refusal = refused.failed(1);
    assert_eq!(refusal.lines().count(), 1, "{refusal}");
    assert_eq!(plane.json(&["get"]), Value::Array(Vec::new()));
}
