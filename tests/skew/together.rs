//! Control planes, proxies and command lines of different versions in one mesh.

use weft_tests::process::application::Application;
use weft_tests::process::crossing::{Behind, Cast, Crossing, Way};
use weft_tests::process::nghttpd::Nghttpd;
use weft_tests::process::plane::Plane;
use weft_tests::process::{Programs, command, holds, http, run, until};

use crate::earlier::{self, Earlier};

/// A mesh of these programs carries every protocol that all of them know, in plaintext and between two proxies, and follows
/// a change.
#[track_caller]
fn works(what: &str, cast: &Cast, has_http2: bool) {
    let place = tempfile::tempdir().unwrap();
    let applications = ["requests", "bytes", "undeclared"].map(Application::start);
    let web = Nghttpd::start(place.path(), 64);
    let [requests, bytes, undeclared] = applications.each_ref().map(Application::address);
    let mut behind = vec![
        Behind::new("requests", requests, Some("http")),
        Behind::new("bytes", bytes, Some("tcp")),
        Behind::new("undeclared", undeclared, None),
    ];
    if has_http2 {
        behind.push(Behind::new("web", web.address(), Some("http2")));
    }
    let crossing = Crossing::play(place.path(), &behind, cast, |settings| settings);
    for way in Way::BOTH {
        for name in ["requests", "bytes", "undeclared"] {
            let answer = http::curl(crossing.entrance(name, way), "/");
            assert_eq!(answer, (200, format!("{name}\n")), "{what}: {name}, {}", way.name());
        }
        if has_http2 {
            assert_eq!(over_http2(&crossing, way), "200 2 64", "{what}: HTTP/2, {}", way.name());
        }
    }
    let mutual = [("direction", "outbound"), ("tls", "mutual")];
    assert!(crossing.client.metrics().sum("weft_connections_total", &mutual) > 0, "{what}: between them it is TLS");

    crossing.plane.weft(&["delete", "service", "requests-plain"]).succeeded();
    until("the client's proxy has forgotten a service", || {
        // Nobody has its address any more.
        let answer = http::curl(crossing.entrance("requests", Way::Plain), "/");
        holds(answer.0 == 0, || format!("{what}: {answer:?}"))
    });
    crossing.is_settled();
    for sidecar in [&crossing.client, &crossing.server] {
        let proxy = crossing.plane.proxy(&sidecar.workload()).unwrap();
        assert_eq!(proxy["nack"], "", "{what}: {proxy}");
    }
    println!("ok {what}");
}

/// Status, version and size of an answer of the server that speaks HTTP/2 alone.
fn over_http2(crossing: &Crossing, way: Way) -> String {
    let mut curl = command("curl");
    curl.args(["--silent", "--max-time", "20", "--http2-prior-knowledge", "--output", "/dev/null"]);
    curl.args(["--write-out", "%{http_code} %{http_version} %{size_download}"]);
    run(curl.arg(format!("http://{}/", crossing.entrance("web", way)))).stdout
}

/// HTTP/2 came with 0.1.0.
fn has_http2(earlier: &Earlier) -> bool {
    earlier.version != "0.0.1"
}

#[test]
fn earlier_proxies_work_under_this_control_plane_with_each_other_and_with_this_one() {
    let ours = Programs::ours();
    for earlier in earlier::all() {
        let (version, theirs) = (earlier.version, &earlier.programs);
        for (what, client, server) in [
            ("both proxies", theirs, theirs),
            ("the client's proxy", theirs, &ours),
            ("the server's proxy", &ours, theirs),
        ] {
            let cast = Cast { plane: ours.clone(), client: client.clone(), server: server.clone() };
            works(&format!("{what} of {version}"), &cast, has_http2(earlier));
        }
    }
}

/// The other way round requests of HTTP fail, and no version after the two can mend it: 0.1.0 knows no way to send them
/// but inside shared connections, which 0.0.1 does not take. docs/versions.md says so.
#[test]
fn the_oldest_proxy_calls_the_one_before_this_under_this_control_plane() {
    let [older, newer] = earlier::all() else { return };
    let cast = Cast { plane: Programs::ours(), client: older.programs.clone(), server: newer.programs.clone() };
    works(&format!("from {} to {}", older.version, newer.version), &cast, false);
}

#[test]
fn this_proxy_works_under_earlier_control_planes_with_itself_and_with_theirs() {
    let ours = Programs::ours();
    for earlier in earlier::all() {
        let (version, theirs) = (earlier.version, &earlier.programs);
        for (what, client, server) in [
            ("the control plane", &ours, &ours),
            ("the control plane and the client's proxy", theirs, &ours),
            ("the control plane and the server's proxy", &ours, theirs),
        ] {
            let cast = Cast { plane: theirs.clone(), client: client.clone(), server: server.clone() };
            works(&format!("{what} of {version}"), &cast, has_http2(earlier));
        }
    }
}

const DOCUMENTS: &str = "\
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: {name: echo}
spec:
  addresses: [127.96.0.9]
  ports: [{name: http, port: 80, targetPort: 8080, protocol: http}]
  selector: {app: echo}
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: echo-1, labels: {app: echo}}
spec: {addresses: [127.0.0.1], serviceAccount: echo}
";

/// Each verb of `cli` on a control plane of `plane`.
#[track_caller]
fn verbs_work(what: &str, plane: &Programs, cli: &Programs) {
    let place = tempfile::tempdir().unwrap();
    let mut plane = Plane::start_as(place.path(), &[], plane);
    plane.ask_by(cli);
    plane.apply(DOCUMENTS);
    assert_eq!(plane.revision(), 1, "{what}");
    let found = plane.json(&["get", "service", "echo"]);
    let found = found.get(0).unwrap_or(&found);
    assert_eq!(found["spec"]["ports"][0]["targetPort"], 8080, "{what}: {found}");
    plane.weft(&["status"]).succeeded();
    plane.token("echo");
    plane.weft(&["delete", "workload", "echo-1"]).succeeded();
    assert_eq!(plane.revision(), 2, "{what}");
    let refused = plane.try_apply("apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {name: echo}\n").failed(1);
    assert!(refused.contains("spec"), "{what}: {refused}");
    println!("ok {what}");
}

#[test]
fn command_lines_and_control_planes_of_different_versions_understand_each_other() {
    let ours = Programs::ours();
    for Earlier { version, programs } in earlier::all() {
        verbs_work(&format!("weft of {version}"), &ours, programs);
        verbs_work(&format!("the control plane of {version}"), programs, &ours);
    }
}
