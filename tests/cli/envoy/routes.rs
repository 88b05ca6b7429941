//! The same HTTPRoutes followed by Envoy and by our proxy: each request reaches the same backend through either.

use std::net::SocketAddr;

use weft_tests::process::application::Application;
use weft_tests::process::pair::virtual_address;
use weft_tests::process::plane::Plane;
use weft_tests::process::sidecar::{Settings, Sidecar};
use weft_tests::process::{Port, holds, http, until};

use crate::peer::{Envoy, Variant};

const ROUTES: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: matches}
spec:
  parentRefs: [{kind: Service, name: echo, port: 80}]
  rules:
  - matches: [{path: {type: Exact, value: /exact}}, {path: {value: /api/v2}}]
    backendRefs: [{name: v2, port: 80}]
  - matches: [{path: {value: /api}}, {path: {type: RegularExpression, value: '/r[0-9]+'}}]
    backendRefs: [{name: v1, port: 80}]
  - matches:
    - {headers: [{name: X-Version, value: two}, {name: color, type: RegularExpression, value: 'blu.|green'}]}
    - {method: PUT}
    - {queryParams: [{name: version, value: '2'}]}
    backendRefs: [{name: v2, port: 80}]
  - matches: [{path: {value: /gone}}]
    backendRefs: [{name: nobody, port: 80}]
  - matches: [{path: {value: /nothing}}]
  - matches: [{path: {value: /slow}}]
    backendRefs: [{name: v1, port: 80}]
    timeouts: {request: 300ms}
  - matches: [{path: {value: /shared}}]
    backendRefs: [{name: v1, port: 80, weight: 9}, {name: v2, port: 80, weight: 1}, {name: echo, port: 80, weight: 0}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: of-hosts}
spec:
  parentRefs: [{kind: Service, name: echo, port: 80}]
  hostnames: [two.example, '*.two.example']
  rules: [{matches: [{path: {value: /host}}, {path: {value: /api}}], backendRefs: [{name: v2, port: 80}]}]
";

/// Method, host, target, fields, and status and backend; a backend of none is not looked at.
type Row = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)], u16, &'static str);

const ROWS: [Row; 23] = [
    ("GET", "echo", "/exact", &[], 200, "v2"),
    ("GET", "echo", "/exact?a=b", &[], 200, "v2"),
    ("GET", "echo", "/exact/", &[], 404, ""),
    ("GET", "echo", "/api", &[], 200, "v1"),
    ("GET", "echo", "/api/v2", &[], 200, "v2"),
    ("GET", "echo", "/api/v2/x?y", &[], 200, "v2"),
    ("GET", "echo", "/api/v22", &[], 200, "v1"),
    ("GET", "echo", "/apis", &[], 404, ""),
    ("GET", "echo", "/r12", &[], 200, "v1"),
    ("GET", "echo", "/r12x", &[], 404, ""),
    ("GET", "echo", "/", &[("x-version", "two"), ("Color", "blue")], 200, "v2"),
    ("GET", "echo", "/", &[("x-version", "two"), ("color", "dark blue")], 404, ""),
    ("GET", "echo", "/", &[("x-version", "two"), ("x-version", "two"), ("color", "blue")], 404, ""),
    ("PUT", "echo", "/", &[], 200, "v2"),
    ("GET", "echo", "/?a=1&version=2", &[], 200, "v2"),
    ("GET", "echo", "/?version=2&version=3", &[], 200, "v2"),
    ("GET", "echo", "/?version=22", &[], 404, ""),
    ("GET", "echo", "/gone", &[], 500, ""),
    ("GET", "echo", "/nothing", &[], 500, ""),
    ("GET", "two.example", "/host", &[], 200, "v2"),
    ("GET", "a.two.example:80", "/host", &[], 200, "v2"),
    ("GET", "two.example", "/api", &[], 200, "v2"),
    ("GET", "other.example", "/host", &[], 404, ""),
];

fn service(name: &str, address: &str, application: &Application) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  addresses: [{address}]\n  \
         ports: [{{port: 80, protocol: http1}}]\n  endpoints: [{{address: 127.0.0.1, port: {}}}]\n---\n",
        application.port()
    )
}

fn workload(name: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}}}\n\
         spec: {{addresses: [127.0.0.1], serviceAccount: client}}\n---\n"
    )
}

/// A proxy of ours beside the same account, whose outbound port stands for the service.
fn ours(plane: &Plane, outbound: &Port) -> Sidecar {
    let client = Settings::new(plane, "client-1", "client").outbound(outbound, virtual_address()).start(plane);
    client.ready();
    client
}

fn decides(way: &str, at: SocketAddr) {
    for (method, host, target, fields, status, backend) in ROWS {
        let answer =
            http::ask(at, method, target, host, fields).unwrap_or_else(|error| panic!("{way} {target}: {error}"));
        let found = (answer.status, if status == 200 { answer.body.trim() } else { "" });
        assert_eq!(found, (status, backend), "{way}: {method} {host} {target} {fields:?}: {answer:?}");
    }
    let late = http::ask(at, "GET", "/slow", "echo", &[]).unwrap();
    assert_eq!(late.status, 504, "{way}: {late:?}");
    let mut connection = http::Connection::open(at).unwrap();
    let mut seconds = 0;
    for _ in 0..300 {
        let answer = connection.get("/shared").unwrap();
        assert_eq!(answer.status, 200, "{way}: {answer:?}");
        seconds += u32::from(answer.body.trim() == "v2");
    }
    // A tenth; twice as far off as chance goes once in a million times.
    assert!((5..70).contains(&seconds), "{way}: {seconds} of 300 for a tenth");
}

#[test]
fn envoy_and_our_proxy_send_every_request_to_the_same_backend() {
    let place = tempfile::tempdir().unwrap();
    let plane = Plane::start(place.path());
    let [echo, v1, v2] = ["echo", "v1", "v2"].map(Application::start);
    let documents = service("echo", "127.96.0.9", &echo) + &service("v1", "127.96.0.10", &v1);
    let documents = documents + &service("v2", "127.96.0.11", &v2) + &workload("envoy-1") + &workload("client-1");
    plane.apply(&documents);
    let (outbound, by_envoy) = (Port::reserve(), Port::reserve());
    let client = ours(&plane, &outbound);
    // Without a route its own endpoints.
    assert_eq!(http::curl(outbound.address(), "/exact"), (200, "echo\n".to_owned()));

    let told = plane.try_apply(ROUTES);
    assert!(told.stderr.contains("port 80 of the service nobody, does not exist yet"), "{told:?}");
    let envoy = Envoy::start_with_routes(&plane, Variant::Delta, &by_envoy, "default/echo:80");
    until("our proxy has the routes", || {
        let dump = client.dump().to_string();
        holds(dump.contains("default/matches/0") && dump.contains("default/of-hosts/0"), || dump.clone())
    });
    decides("our proxy", outbound.address());
    until("Envoy has the routes", || {
        let (status, body) = http::curl(by_envoy.address(), "/exact");
        holds(status == 200, || format!("{status} {body} {}", envoy.log()))
    });
    decides("Envoy", by_envoy.address());
    assert_eq!(echo.requests(), 1, "who has routes gets nothing past them");

    // Its signals tell who was chosen.
    let metrics = client.settled();
    let chosen = |service: &str| {
        let destination = format!("default/{service}:80");
        metrics.sum(
            "weft_requests_total",
            &[("direction", "outbound"), ("destination", &destination), ("code_class", "2xx")],
        )
    };
    assert!(chosen("v1") > 200 && chosen("v2") > 15 && chosen("echo") == 1, "{} {}", chosen("v1"), chosen("v2"));
    let refused = [("destination", "default/echo:80"), ("code", "no-backend")];
    assert_eq!(metrics.sum("weft_failures_total", &refused), 2);

    // A backend that comes to be takes its requests, and without routes the service is as it was.
    plane.apply(&service("nobody", "127.96.0.12", &v1));
    for at in [outbound.address(), by_envoy.address()] {
        until("the new backend is asked", || {
            let answer = http::curl(at, "/gone");
            holds(answer == (200, "v1\n".to_owned()), || format!("{answer:?}"))
        });
    }
    for route in ["matches", "of-hosts"] {
        plane.weft(&["delete", "httproute", route]).succeeded();
    }
    for at in [outbound.address(), by_envoy.address()] {
        until("the service serves its own requests again", || {
            let answer = http::curl(at, "/anything");
            holds(answer == (200, "echo\n".to_owned()), || format!("{answer:?}"))
        });
    }
}
