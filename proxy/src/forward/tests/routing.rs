//! Which of several applications a request reaches, by routes that look at all of it.

use std::time::Duration;

use weft_core::model::{
    ClusterSpec, InboundTls, MissingCluster, PathMatch, RequestConditions, RouteSpec, RouteTableSpec, TextMatch,
    ValueMatch, VirtualHostSpec, WeightedCluster,
};
use weft_core::names::ServiceRef;

use super::http2::{Client2, block_on};
use super::named::{Named, ask};
use super::policy::policy;
use super::*;
use crate::state::Change;
use crate::testing::{Mesh, endpoint_set, inbound};

/// The service's listener with these routes; a cluster for each application.
fn routed(applications: &[(&str, &[SocketAddr])], routes: Vec<RouteSpec>) -> Change {
    let mut change = outbound(Protocol::Http, &[], None);
    let cluster = change.clusters.remove(0);
    change.endpoints.clear();
    for (name, endpoints) in applications {
        let service = ServiceRef { name: (*name).into(), ..cluster.service.clone() };
        let endpoint_source = weft_core::model::EndpointSource::Discovered((*name).into());
        change.clusters.push(ClusterSpec {
            name: (*name).into(),
            service,
            endpoints: endpoint_source,
            ..cluster.clone()
        });
        change.endpoints.push(endpoint_set(name, endpoints));
    }
    change.routes = vec![table(routes)];
    change
}

fn table(routes: Vec<RouteSpec>) -> RouteTableSpec {
    let host = VirtualHostSpec { domains: vec!["*".to_owned()], routes };
    RouteTableSpec { name: "default/orders:80".into(), virtual_hosts: vec![host] }
}

fn start(change: Change) -> RunningWorker {
    RunningWorker::start(Direction::Outbound, destination(), change)
}

fn to(cluster: &str, path: PathMatch, conditions: RequestConditions) -> RouteSpec {
    RouteSpec { conditions, ..RouteSpec::new(path, cluster) }
}

fn any() -> PathMatch {
    PathMatch::Prefix("/".to_owned())
}

fn exact(name: &str, value: &str) -> Vec<ValueMatch> {
    vec![ValueMatch { name: name.into(), value: TextMatch::Exact(value.into()) }]
}

/// Each looks at something else.
fn by_everything() -> Vec<RouteSpec> {
    let none = RequestConditions::default;
    vec![
        to("path", PathMatch::Segments("/api".to_owned()), none()),
        to("method", any(), RequestConditions { method: Some("PUT".into()), ..none() }),
        to("header", any(), RequestConditions { headers: exact("x-version", "v2"), ..none() }),
        to("query", any(), RequestConditions { query: exact("version", "2"), ..none() }),
        to("others", any(), none()),
    ]
}

/// Method, target, a field, and who must be asked.
const ASKED: [(&str, &str, Option<(&str, &str)>, &str); 8] = [
    ("GET", "/api/orders", None, "path"),
    ("GET", "/apis", None, "others"),
    ("PUT", "/api", Some(("x-version", "v2")), "path"),
    ("PUT", "/", Some(("x-version", "v2")), "method"),
    ("GET", "/", Some(("x-version", "v2")), "header"),
    ("GET", "/?version=2", Some(("x-version", "v1")), "query"),
    ("GET", "/?version=1", None, "others"),
    ("GET", "/", Some(("x-other", "v2")), "others"),
];

fn five() -> [(&'static str, Named); 5] {
    ["path", "method", "header", "query", "others"].map(|name| (name, Named::start(name)))
}

fn places(applications: &[(&'static str, Named)]) -> Vec<(&'static str, Vec<SocketAddr>)> {
    applications.iter().map(|(name, application)| (*name, vec![application.address])).collect()
}

fn borrowed<'a>(places: &'a [(&'static str, Vec<SocketAddr>)]) -> Vec<(&'a str, &'a [SocketAddr])> {
    places.iter().map(|(name, endpoints)| (*name, endpoints.as_slice())).collect()
}

#[test]
fn requests_of_http1_go_where_the_first_route_that_takes_them_leads() {
    let applications = five();
    let worker = start(routed(&borrowed(&places(&applications)), by_everything()));
    let mut client = worker.connect();
    for (method, target, field, expected) in ASKED {
        let field = field.map(|(name, value)| format!("{name}: {value}\r\n")).unwrap_or_default();
        let request = format!("{method} {target} HTTP/1.1\r\nHost: orders\r\nContent-Length: 0\r\n{field}\r\n");
        assert_eq!(ask(&mut client, &request), (200, expected.to_owned()), "{request}");
    }
}

#[test]
fn requests_of_http2_go_where_the_first_route_that_takes_them_leads() {
    let applications = five();
    let worker = start(routed(&borrowed(&places(&applications)), by_everything()));
    block_on(async {
        let mut client = Client2::connect(worker.address).await;
        for (method, target, field, expected) in ASKED {
            let mut request = ::http::Request::builder().method(method).uri(format!("http://orders{target}"));
            if let Some((name, value)) = field {
                request = request.header(name, value);
            }
            let answer = client.exchange(request.body(()).expect("a request"), b"").await;
            assert_eq!(String::from_utf8_lossy(&answer.body), expected, "{method} {target} {field:?}");
        }
    });
}

#[test]
fn a_route_leads_into_the_mesh_and_past_it() {
    let (meshed, outside) = (Named::start("meshed"), Named::start("outside"));
    let mesh = Mesh::new();
    let inner = mesh.inner(inbound(Protocol::Http, InboundTls::Strict, meshed.address));
    let headers = exact("x-version", "meshed");
    let routes = vec![
        to("meshed", any(), RequestConditions { headers, ..RequestConditions::default() }),
        to("outside", any(), RequestConditions::default()),
    ];
    let mut change = routed(&[("meshed", &[inner.address]), ("outside", &[outside.address])], routes);
    let tls = outbound(Protocol::Http, &[], Some(mesh.orders.clone())).clusters.remove(0).tls;
    change.clusters[0].tls = tls;
    let outer = mesh.outer(change);
    let mut client = outer.connect();
    for _ in 0..3 {
        let versioned = "GET / HTTP/1.1\r\nHost: a\r\nx-version: meshed\r\n\r\n";
        assert_eq!(ask(&mut client, versioned), (200, "meshed".to_owned()));
        assert_eq!(ask(&mut client, GET), (200, "outside".to_owned()));
    }
    assert!(meshed.heads().iter().all(|head| head.contains("x-forwarded-client-cert: URI=")), "{:?}", meshed.heads());
    assert!(!outside.heads().iter().any(|head| head.contains("x-forwarded-client-cert")));
}

#[test]
fn a_route_without_a_valid_backend_is_answered_with_its_own_code() {
    let application = Named::start("orders");
    let weighted = |cluster: &str, weight| WeightedCluster { cluster: cluster.into(), weight };
    let mut route = to("orders", any(), RequestConditions::default());
    route.name = Some("default/canary/0".into());
    route.missing = MissingCluster::NoBackend;
    route.clusters = vec![weighted("orders", 1), weighted("NO-BACKEND/default/next:80", 1)];
    let worker = start(routed(&[("orders", &[application.address])], vec![route]));
    // A refused request ends its connection.
    let answers: Vec<_> = (0..200).map(|_| ask(&mut worker.connect(), GET)).collect();
    let failed: Vec<_> = answers.iter().filter(|(status, _)| *status == 500).collect();
    assert!((60..140).contains(&failed.len()), "{} of 200 for a half", failed.len());
    assert_eq!(application.requests(), 200 - failed.len(), "the valid backend serves its own share alone");
    assert!(failed[0].1.contains("no-backend") && failed[0].1.contains("route default/canary/0"), "{:?}", failed[0]);
}

#[test]
fn requests_are_shared_by_weight_and_each_stays_with_its_choice_when_it_is_tried_again() {
    const NO: &str = "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n";
    let failing = [Named::answering(NO.to_owned()), Named::answering(NO.to_owned())];
    let stable = Named::start("stable");
    let weighted = |cluster: &str, weight| WeightedCluster { cluster: cluster.into(), weight };
    let mut route = to("stable", any(), RequestConditions::default());
    route.clusters = vec![weighted("stable", 4), weighted("next", 1), weighted("never", 0)];
    route.retry = Some(policy(|policy| {
        policy.on.server_error = true;
        policy.retries = 2;
    }));
    let never = Named::start("never");
    let next: Vec<SocketAddr> = failing.iter().map(|application| application.address).collect();
    let places: [(&str, &[SocketAddr]); 3] =
        [("stable", &[stable.address]), ("next", &next), ("never", &[never.address])];
    let mut change = routed(&places, vec![route]);
    for cluster in &mut change.clusters {
        cluster.outlier.consecutive_failures = 0;
    }
    let worker = start(change);
    let mut client = worker.connect();
    let failed = (0..500).filter(|_| ask(&mut client, GET).0 == 503).count();
    assert!((60..140).contains(&failed), "{failed} of 500 for a fifth");
    assert_eq!(stable.requests(), 500 - failed);
    assert_eq!(failing[0].requests() + failing[1].requests(), 3 * failed, "a try and two more, there");
    assert_eq!(never.requests(), 0);
}

#[test]
fn new_routes_take_the_next_request_of_an_open_connection() {
    let (old, new) = (Named::start("old"), Named::start("new"));
    let places: [(&str, &[SocketAddr]); 2] = [("old", &[old.address]), ("new", &[new.address])];
    let worker = start(routed(&places, vec![to("old", any(), RequestConditions::default())]));
    let mut client = worker.connect();
    assert_eq!(ask(&mut client, GET).1, "old");
    let routes = vec![table(vec![to("new", any(), RequestConditions::default())])];
    worker.store.apply(Change { routes, ..Change::default() });
    assert_eq!(ask(&mut client, GET).1, "new");
}

#[test]
fn a_route_has_its_own_time() {
    let (silent, answering) = (Application::start(), Named::start("others"));
    let mut late = to("silent", PathMatch::Segments("/late".to_owned()), RequestConditions::default());
    late.timeout = Some(Duration::from_millis(50));
    let places: [(&str, &[SocketAddr]); 2] = [("silent", &[silent.address]), ("others", &[answering.address])];
    let worker = start(routed(&places, vec![late, to("others", any(), RequestConditions::default())]));
    let mut client = worker.connect();
    let (status, body) = ask(&mut client, "GET /late HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((status, body.contains("request-timeout")), (504, true), "{body}");
    assert_eq!(ask(&mut worker.connect(), GET).1, "others");
}
