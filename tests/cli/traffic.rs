//! Documents to traffic: what is applied is what curl sees, through two proxies and mTLS between them.

#![allow(clippy::unwrap_used, reason = "a test that cannot have what it needs has failed")]

use serde_json::Value;
use weft_tests::process::application::Application;
use weft_tests::process::metrics::Metrics;
use weft_tests::process::pair::{self, CLUSTER, Pair, VIRTUAL};
use weft_tests::process::plane::Plane;
use weft_tests::process::sidecar::{Settings, Sidecar};
use weft_tests::process::{Port, holds, http, until};

/// Responses a proxy has got, by type.
fn responses(metrics: &Metrics) -> [(&'static str, u64); 4] {
    ["cluster", "endpoints", "listener", "routes"]
        .map(|kind| (kind, metrics.sum("weft_xds_responses_total", &[("type", kind)])))
}

/// Waits until the control plane knows that a proxy has everything; at most a second of work.
fn up_to_date(plane: &Plane, workload: &str) {
    until(&format!("{workload} is up to date"), || {
        let revision = plane.revision();
        let proxy = plane.proxy(workload).ok_or("it is not connected")?;
        holds(proxy["appliedRevision"] == revision && proxy["pending"] == 0, || proxy.to_string())
    });
}

#[test]
fn curl_reaches_the_application_through_two_proxies_and_mutual_tls() {
    let place = tempfile::tempdir().unwrap();
    let pair = Pair::start(place.path());
    assert_eq!(pair.curl("/"), (200, "echo-1\n".to_owned()));
    let outbound = [("direction", "outbound"), ("tls", "mutual"), ("destination", CLUSTER)];
    let connections = || pair.client.metrics().sum("weft_connections_total", &outbound);
    assert_eq!(connections(), 1, "what travels inside a shared connection is no connection of its own");
    let from_client = [("direction", "inbound"), ("source", "default/client"), ("destination", CLUSTER)];
    // The answer is there before the request is counted.
    until("the server's proxy has counted the request", || {
        let counted = pair.server.metrics().sum("weft_requests_total", &from_client);
        holds(counted == 1, || counted.to_string())
    });
    assert_eq!(pair.curl("/"), (200, "echo-1\n".to_owned()));
    assert_eq!(connections(), 1, "the second request finds the first one's connection");
    // Nobody without a certificate gets in.
    assert_eq!(http::curl(pair.inbound.address(), "/").0, 0);
    assert_eq!(pair.application.requests(), 2);
}

#[test]
fn an_endpoint_that_comes_reaches_the_proxy_and_nothing_else_is_sent() {
    let place = tempfile::tempdir().unwrap();
    let pair = Pair::start(place.path());
    let (second, inbound) = (Application::start("echo-2"), Port::reserve());
    // Both replicas have the service's one target port; the second one's proxy leads to another.
    up_to_date(&pair.plane, "default/client-1");
    let before = responses(&pair.client.metrics());
    let untouched = responses(&pair.server.metrics());

    pair.plane.apply(&pair::workload("echo-2", pair.application.port(), inbound.address()));
    pair.has_endpoints(&[pair.inbound.address(), inbound.address()]);
    up_to_date(&pair.plane, "default/client-1");
    let after = responses(&pair.client.metrics());
    for ((kind, before), (_, after)) in before.iter().zip(after) {
        let expected = u64::from(*kind == "endpoints");
        assert_eq!(after - before, expected, "{kind}");
    }
    // The proxy of echo-1 knows all services as well; it gets the same and no more.
    let now = responses(&pair.server.metrics());
    assert!(
        now.iter().zip(untouched).all(|((kind, now), (_, before))| *kind == "endpoints" || *now == before),
        "{now:?}"
    );

    let server = Settings::new(&pair.plane, "echo-2", "echo").inbound(&inbound, pair.application.address());
    let server = server.start(&pair.plane);
    server.ready();
    until("both replicas have answered", || {
        assert_eq!(pair.curl("/").0, 200);
        let answered = server.metrics().sum("weft_requests_total", &[("code_class", "2xx")]);
        holds(answered > 0, || "the second has not".to_owned())
    });
    assert_eq!(second.requests(), 0);

    // One that drains gets nothing new.
    let draining = pair::workload("echo-2", pair.application.port(), inbound.address()) + "  state: draining\n";
    pair.plane.apply(&draining);
    until("the client knows of the drain", || {
        let dump = pair.client.dump().to_string();
        holds(dump.contains("draining"), || dump)
    });
    let before = server.metrics().sum("weft_requests_total", &[]);
    for _ in 0..20 {
        assert_eq!(pair.curl("/").0, 200);
    }
    assert_eq!(server.metrics().sum("weft_requests_total", &[]), before);
}

#[test]
fn the_status_shows_a_revision_as_applied_within_a_second() {
    let place = tempfile::tempdir().unwrap();
    let pair = Pair::start(place.path());
    let mut times = Vec::new();
    for number in 2..12 {
        let applied = weft_tests::process::now();
        pair.plane.apply(&pair::workload(&format!("echo-{number}"), pair.application.port(), pair.inbound.address()));
        up_to_date(&pair.plane, "default/client-1");
        times.push(applied.elapsed());
    }
    times.sort();
    // Four processes are started for each measurement, so the middle counts, not the worst of a busy machine.
    assert!(times[times.len() / 2].as_secs_f64() < 1.0, "{times:?}");
}

#[test]
fn a_service_that_is_deleted_is_gone_for_its_callers() {
    let place = tempfile::tempdir().unwrap();
    let pair = Pair::start(place.path());
    assert_eq!(pair.curl("/").0, 200);
    let mut kept = http::Connection::open(pair.outbound.address()).unwrap();
    assert_eq!(kept.get("/").unwrap().status, 200);
    pair.plane.weft(&["delete", "service", "echo"]).succeeded();
    until("the client's proxy has forgotten the service", || {
        let dump = pair.client.dump();
        holds(dump["listeners"] == Value::Array(Vec::new()) && !dump.to_string().contains(CLUSTER), || dump.to_string())
    });
    // Nobody has the virtual address any more: it is dialled as any address outside the mesh, and refused.
    assert_eq!(pair.curl("/").0, 0);
    assert_eq!(kept.get("/").unwrap().status, 503, "a connection that is kept learns of it too");
    // The server's proxy refuses a port nobody describes.
    assert_eq!(http::curl(pair.inbound.address(), "/").0, 0);
    up_to_date(&pair.plane, "default/client-1");
    up_to_date(&pair.plane, "default/echo-1");

    pair.plane.apply(&pair::service(pair.application.port()));
    until("it is back", || holds(pair.curl("/").0 == 200, || "not yet".to_owned()));
}

#[test]
fn a_service_without_ready_endpoints_answers_503_with_the_reason() {
    let place = tempfile::tempdir().unwrap();
    let pair = Pair::start(place.path());
    pair.plane.weft(&["delete", "workload", "echo-1"]).succeeded();
    pair.has_endpoints(&[]);
    let answer = http::get(pair.outbound.address(), "/").unwrap();
    assert_eq!((answer.status, answer.field("weft-error")), (503, Some("no-endpoints")), "{answer:?}");
    pair.plane.apply(&pair::workload("echo-1", pair.application.port(), pair.inbound.address()));
    pair.has_endpoints(&[pair.inbound.address()]);
    until("the server's proxy takes connections again", || holds(pair.curl("/").0 == 200, || "not yet".to_owned()));
}

#[test]
fn an_endpoint_with_another_identity_than_the_services_is_not_talked_to() {
    let place = tempfile::tempdir().unwrap();
    let pair = Pair::start(place.path());
    // A workload of another account, with a port of its own, at the address that is advertised for echo-1.
    let (impostor, inbound) = (Application::start("impostor"), Port::reserve());
    let target = pair.application.port();
    pair.plane.apply(&format!(
        "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{name: stolen}}\nspec:\n  addresses: [127.96.0.10]\n  \
         ports: [{{port: 80, targetPort: {target}, protocol: http}}]\n  selector: {{app: stolen}}\n---\n\
         apiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {{name: thief-1, labels: {{app: stolen}}}}\nspec:\n  \
         addresses: [127.0.0.1]\n  serviceAccount: thief\n  advertise: [{{port: {target}, at: \"{}\"}}]\n",
        inbound.address()
    ));
    let thief = Settings::new(&pair.plane, "thief-1", "thief").inbound(&inbound, pair.application.address());
    let thief: Sidecar = thief.set("WEFT_LOG", &"info").start(&pair.plane);
    thief.ready();
    pair.plane.apply(&pair::workload("echo-1", pair.application.port(), inbound.address()));
    pair.has_endpoints(&[inbound.address()]);
    let before = pair.application.requests();
    let answer = http::get(pair.outbound.address(), "/").unwrap();
    assert_eq!((answer.status, answer.field("weft-error")), (503, Some("peer-identity")), "{answer:?}");
    assert_eq!((pair.application.requests(), impostor.requests()), (before, 0));
}

#[test]
fn a_proxy_that_claims_a_workload_of_another_account_is_told_nothing() {
    let place = tempfile::tempdir().unwrap();
    let pair = Pair::start(place.path());
    let token = pair.plane.token("thief");
    let thief = Settings::with_token("echo-1", "thief", token).set("WEFT_LOG", &"info").start(&pair.plane);
    until("the thief is told why not", || {
        let log = thief.process.log();
        let is_told = log.contains("has the service account `echo`") && log.contains("the certificate says `thief`");
        if is_told { Ok(()) } else { Err(log) }
    });
    assert_eq!(thief.ask("/ready").unwrap().status, 503);
    // Whose workload it is goes on as before.
    assert_eq!(pair.curl("/").0, 200);
}

#[test]
fn a_service_outside_the_mesh_is_reached_in_plaintext() {
    let place = tempfile::tempdir().unwrap();
    let plane = Plane::start(place.path());
    let (application, outbound) = (Application::start("outside"), Port::reserve());
    plane.apply(&format!(
        "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{name: outside}}\nspec:\n  addresses: [127.96.0.9]\n  \
         ports: [{{port: 80, protocol: http}}]\n  endpoints: [{{address: 127.0.0.1, port: {}}}]\n",
        application.port()
    ));
    let client =
        Settings::new(&plane, "client-1", "client").outbound(&outbound, VIRTUAL.parse().unwrap()).start(&plane);
    client.ready();
    assert_eq!(http::curl(outbound.address(), "/"), (200, "outside\n".to_owned()));
    let plain = [("tls", "none"), ("destination", "default/outside:80")];
    assert_eq!(client.metrics().sum("weft_connections_total", &plain), 1);
}

#[test]
fn permissive_takes_plaintext_and_strict_again_refuses_it() {
    let place = tempfile::tempdir().unwrap();
    let pair = Pair::start(place.path());
    assert_eq!(http::curl(pair.inbound.address(), "/").0, 0);
    let mesh = |mode: &str| {
        format!("apiVersion: weft.dev/v1alpha1\nkind: Mesh\nmetadata: {{name: default}}\nspec: {{mtls: {mode}}}\n")
    };
    pair.plane.apply(&mesh("permissive"));
    until("plaintext is taken", || holds(http::curl(pair.inbound.address(), "/").0 == 200, || "not yet".to_owned()));
    assert_eq!(pair.curl("/").0, 200, "and mTLS as well");
    pair.plane.apply(&mesh("strict"));
    until("plaintext is refused", || holds(http::curl(pair.inbound.address(), "/").0 == 0, || "not yet".to_owned()));
    assert_eq!(pair.curl("/").0, 200);
}
