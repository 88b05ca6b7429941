//! HTTPRoutes from document to decision: what the proxies' own table makes of what was compiled.
//!
//! The tables of matches, their order and invalid backends follow what the Gateway API's conformance tests ask of a mesh.

use weft_core::model::MissingCluster::{NoBackend, Unavailable};
use weft_core::names::ClusterName;
use weft_core::retry::MOST_RETRIES;
use weft_core::route::{Request, Route, RouteTable};

use super::*;

const SERVICES: &str = r"
kind: Service
metadata: {name: echo}
spec:
  addresses: [10.96.0.2]
  ports: [{name: web, port: 80, protocol: http}, {name: calls, port: 81, protocol: grpc}, {name: raw, port: 82, protocol: tcp}, {name: any, port: 83}]
  endpoints: [{address: 192.0.2.1}]
---
kind: Service
metadata: {name: v1}
spec: {addresses: [10.96.0.3], ports: [{port: 80, protocol: http}, {port: 90, protocol: tls}], endpoints: [{address: 192.0.2.2}]}
---
kind: Service
metadata: {name: v2}
spec: {addresses: [10.96.0.4], ports: [{port: 80, protocol: http}], endpoints: [{address: 192.0.2.3}]}
---
kind: Service
metadata: {name: elsewhere, namespace: other}
spec: {addresses: [10.96.0.5], ports: [{port: 80, protocol: http}], endpoints: [{address: 192.0.2.4}]}
";

type Fields<'a> = &'a [(&'a str, &'a str)];

/// A request as a table writes it: `METHOD HOST TARGET`, and its fields.
struct Asked<'a> {
    method: &'a str,
    host: &'a str,
    target: &'a str,
    fields: &'a [(&'a str, &'a str)],
}

impl<'a> Asked<'a> {
    fn new(line: &'a str, fields: &'a [(&'a str, &'a str)]) -> Self {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap();
        Self { method: word(), host: word(), target: word(), fields }
    }
}

impl Request for Asked<'_> {
    fn authority(&self) -> &[u8] {
        self.host.as_bytes()
    }

    fn path(&self) -> &[u8] {
        self.target.split('?').next().unwrap().as_bytes()
    }

    fn query(&self) -> Option<&[u8]> {
        self.target.split_once('?').map(|(_, query)| query.as_bytes())
    }

    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }

    fn values<'r>(&'r self, name: &'r str) -> impl Iterator<Item = &'r [u8]> {
        self.fields.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_bytes())
    }
}

fn with_routes(routes: &str) -> Compiled {
    let compiled = compiled(&format!("{SERVICES}---\n{routes}"));
    for resource in &compiled.shared {
        weft_proxy::xds::decode::decode(resource.type_url, &resource.name, &resource.body).unwrap();
    }
    compiled
}

/// The table of a service port, as a proxy has it that knows every compiled cluster.
fn table(compiled: &Compiled, name: &str) -> RouteTable<ClusterName> {
    let body = compiled.shared.iter().find(|r| r.type_url == names::ROUTE && r.name == name).unwrap();
    let spec = weft_proxy::xds::decode::route(&body.body).unwrap();
    let clusters =
        |name: &ClusterName| compiled.shared.iter().any(|r| r.type_url == names::CLUSTER && r.name == name.as_str());
    RouteTable::compile(&spec, |name| clusters(name).then(|| name.clone()))
}

/// Clusters and their shares; those that nobody describes in brackets.
fn shares(route: &Route<ClusterName>) -> String {
    let share = |(name, weight, target): (&ClusterName, u32, Option<&ClusterName>)| match target {
        Some(_) => format!("{name}*{weight}"),
        None => format!("({name}*{weight})"),
    };
    route.split().shares().map(share).collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn decides(compiled: &Compiled, rows: &[(&str, Fields<'_>, Option<&str>)]) {
    let table = table(compiled, "default/echo:80");
    for (line, fields, expected) in rows {
        let route = table.matches(&Asked::new(line, fields));
        let expected = expected.map(|backend| format!("default/{backend}:80*1"));
        assert_eq!(route.map(shares), expected, "{line} {fields:?}");
    }
}

/// A route with these rules.
fn route(name: &str, rules: &str) -> String {
    format!(
        "kind: HTTPRoute\nmetadata: {{name: {name}}}\nspec:\n  parentRefs: [{{name: echo, port: 80}}]\n  rules:\n{rules}---\n"
    )
}

fn rule(matches: &str, backend: &str) -> String {
    format!("  - {{matches: {matches}, backendRefs: [{{name: {backend}, port: 80}}]}}\n")
}

#[test]
fn a_service_without_a_route_keeps_its_own_endpoints() {
    let plain = compiled(SERVICES);
    let other = with_routes(&route("a", &rule("[{path: {value: /v1}}]", "v1")));
    for name in ["default/echo:81", "default/echo:83", "default/v1:80"] {
        let body = |compiled: &Compiled| {
            compiled.shared.iter().find(|r| r.type_url == names::ROUTE && r.name == name).cloned()
        };
        assert_eq!(body(&plain), body(&other), "{name}");
    }
    assert!(other.warnings.is_empty(), "{:?}", other.warnings);
}

#[test]
fn requests_are_matched_by_path_headers_method_and_query() {
    let rules = [
        rule("[{path: {type: Exact, value: /exact}}]", "v1"),
        rule("[{path: {type: PathPrefix, value: /v2}}]", "v2"),
        rule("[{headers: [{name: Version, value: two}]}, {path: {value: /alias}}]", "v2"),
        rule("[{headers: [{name: color, type: RegularExpression, value: 'b.*|green'}]}]", "v1"),
        rule("[{method: PATCH}]", "v2"),
        rule("[{queryParams: [{name: animal, value: whale}]}]", "v1"),
        rule("[{path: {type: RegularExpression, value: '/r[0-9]+'}}]", "v2"),
    ]
    .concat();
    decides(
        &with_routes(&route("a", &rules)),
        &[
            ("GET echo /exact", &[], Some("v1")),
            ("GET echo /exact?a=b", &[], Some("v1")),
            ("GET echo /exact/", &[], None),
            ("GET echo /v2", &[], Some("v2")),
            ("GET echo /v2/", &[], Some("v2")),
            ("GET echo /v2/example", &[], Some("v2")),
            ("GET echo /v2example", &[], None),
            ("GET echo /V2", &[], None),
            ("GET echo /", &[("version", "two")], Some("v2")),
            ("GET echo /", &[("VERSION", "two")], Some("v2")),
            ("GET echo /", &[("version", "Two")], None),
            ("GET echo /alias", &[], Some("v2")),
            ("GET echo /", &[("color", "blue")], Some("v1")),
            ("GET echo /", &[("color", "dark green")], None),
            ("PATCH echo /", &[], Some("v2")),
            ("PUT echo /", &[], None),
            ("GET echo /?animal=whale", &[], Some("v1")),
            ("GET echo /?animal=whales", &[], None),
            ("GET echo /?ANIMAL=whale", &[], None),
            ("GET echo /r12", &[], Some("v2")),
            ("GET echo /r12/x", &[], None),
            ("GET echo /", &[], None),
        ],
    );
}

#[test]
fn all_of_a_match_must_hold_and_any_of_several() {
    let both = "[{path: {value: /a}, method: POST, headers: [{name: x, value: '1'}, {name: X, value: '2'}]}, {queryParams: [{name: q, value: '1'}, {name: r, value: '2'}]}]";
    decides(
        &with_routes(&route("a", &rule(both, "v1"))),
        &[
            ("POST echo /a", &[("x", "1")], Some("v1")),
            // Of two with one name the first counts.
            ("POST echo /a", &[("x", "2")], None),
            ("GET echo /a", &[("x", "1")], None),
            ("POST echo /b", &[("x", "1")], None),
            ("GET echo /b?r=2&q=1", &[], Some("v1")),
            ("GET echo /b?r=2", &[], None),
        ],
    );
}

/// Whoever has the more exact match, in the order of the Gateway API, wherever it stands.
#[test]
fn the_more_exact_match_decides_whatever_the_order_of_rules_and_routes() {
    let exactness: [(&str, &str, Fields<'_>); 7] = [
        ("[{path: {type: Exact, value: /match}}]", "GET echo /match?q=1&r=2", &[("one", "1"), ("two", "2")]),
        ("[{path: {value: /match}}]", "GET echo /match/x?q=1&r=2", &[("one", "1"), ("two", "2")]),
        ("[{path: {value: /m}, method: GET}]", "GET echo /m?q=1&r=2", &[("one", "1"), ("two", "2")]),
        (
            "[{path: {value: /m}, headers: [{name: one, value: '1'}, {name: two, value: '2'}]}]",
            "PUT echo /m?q=1&r=2",
            &[("one", "1"), ("two", "2")],
        ),
        ("[{path: {value: /m}, headers: [{name: one, value: '1'}]}]", "PUT echo /m?q=1&r=2", &[("one", "1")]),
        (
            "[{path: {value: /m}, queryParams: [{name: q, value: '1'}, {name: r, value: '2'}]}]",
            "PUT echo /m?q=1&r=2",
            &[],
        ),
        ("[{path: {value: /m}}]", "PUT echo /m?q=1", &[]),
    ];
    for (index, (matches, line, fields)) in exactness.iter().enumerate() {
        // Against all that are less exact, in one route and in several, before and after.
        let (mine, others) =
            (rule(matches, "v1"), exactness[index + 1..].iter().map(|(matches, ..)| rule(matches, "v2")));
        let others: String = others.collect();
        let mut arrangements = vec![route("a", &format!("{mine}{others}")), route("a", &format!("{others}{mine}"))];
        if !others.is_empty() {
            arrangements.push(route("a", &mine) + &route("b", &others));
            arrangements.push(route("b", &mine) + &route("a", &others));
        }
        for routes in arrangements {
            decides(&with_routes(&routes), &[(line, fields, Some("v1"))]);
        }
    }
}

#[test]
fn of_two_routes_with_one_match_the_older_has_it_then_the_first_by_name() {
    let named = |name: &str, created: &str, backend: &str| {
        route(name, &rule("[{path: {value: /}}]", backend))
            .replace(&format!("{{name: {name}}}\nspec"), &format!("{{name: {name}{created}}}\nspec"))
    };
    let (old, new) = (", creationTimestamp: 2025-12-31T23:59:59Z", ", creationTimestamp: 2026-01-01T00:00:00Z");
    for (routes, expected) in [
        (named("a", "", "v1") + &named("b", "", "v2"), "v1"),
        (named("b", "", "v2") + &named("a", "", "v1"), "v1"),
        (named("a", new, "v2") + &named("b", old, "v1"), "v1"),
        (named("a", "", "v2") + &named("b", new, "v1"), "v1"),
    ] {
        decides(&with_routes(&routes), &[("GET echo /", &[], Some(expected))]);
    }
}

#[test]
fn within_a_route_the_first_rule_has_what_both_take() {
    let rules = rule("[{path: {value: /a}}]", "v1") + &rule("[{path: {value: /a}}]", "v2");
    decides(&with_routes(&route("a", &rules)), &[("GET echo /a", &[], Some("v1"))]);
}

#[test]
fn hosts_go_from_the_most_exact_route_to_the_others() {
    let of_hosts = |name: &str, hosts: &str, rules: &str| {
        route(name, rules).replace("  rules:", &format!("  hostnames: {hosts}\n  rules:"))
    };
    let routes = of_hosts("a", "['*.example']", &rule("[{path: {value: /wide}}, {path: {value: /both}}]", "v1"))
        + &of_hosts(
            "b",
            "[shop.example, '*.shop.example']",
            &rule("[{path: {value: /narrow}}, {path: {value: /both}}]", "v2"),
        )
        + &route("c", &rule("[{path: {type: Exact, value: /both}}, {path: {value: /any}}]", "v1"));
    decides(
        &with_routes(&routes),
        &[
            ("GET shop.example /narrow", &[], Some("v2")),
            ("GET shop.example:80 /narrow", &[], Some("v2")),
            ("GET SHOP.example /narrow", &[], Some("v2")),
            ("GET a.shop.example /narrow", &[], Some("v2")),
            ("GET other.example /narrow", &[], None),
            // A more exact host goes before a more exact path.
            ("GET shop.example /both", &[], Some("v2")),
            ("GET other.example /both", &[], Some("v1")),
            ("GET elsewhere /both", &[], Some("v1")),
            // What it does not take, the others are asked for.
            ("GET shop.example /wide", &[], Some("v1")),
            ("GET a.shop.example /any", &[], Some("v1")),
            ("GET elsewhere /wide", &[], None),
        ],
    );
}

#[test]
fn weights_are_shares_and_what_is_not_valid_is_answered_in_its_place() {
    let shared = |backends: &str| {
        let compiled = with_routes(&route("a", &format!("  - {{backendRefs: {backends}}}\n")));
        let table = table(&compiled, "default/echo:80");
        let route = table.matches(&Asked::new("GET echo /", &[])).unwrap();
        (shares(route), route.missing())
    };
    for (backends, expected, missing) in [
        ("[{name: v1, port: 80, weight: 9}, {name: v2, port: 80}]", "default/v1:80*9 default/v2:80*1", Unavailable),
        ("[{name: v1, port: 80, weight: 0}, {name: v2, port: 80}]", "default/v2:80*1", Unavailable),
        (
            "[{name: v1, port: 80}, {name: gone, port: 80, weight: 3}]",
            "default/v1:80*1 (NO-BACKEND/default/gone:80*3)",
            NoBackend,
        ),
        ("[{name: v1, port: 81}]", "(NO-BACKEND/default/v1:81*1)", NoBackend),
        ("[{name: v1, port: 90}]", "(NO-BACKEND/default/v1:90*1)", NoBackend),
        ("[{name: elsewhere, namespace: other, port: 80}]", "(NO-BACKEND/other/elsewhere:80*1)", NoBackend),
        ("[{name: v1, namespace: default, port: 80}]", "default/v1:80*1", Unavailable),
        ("[{name: v1, port: 80, weight: 0}]", "(NO-BACKEND*1)", NoBackend),
        ("[]", "(NO-BACKEND*1)", NoBackend),
    ] {
        assert_eq!(shared(backends), (expected.to_owned(), missing), "{backends}");
    }
}

#[test]
fn what_became_of_a_route_is_told_parent_by_parent() {
    let routes = "kind: HTTPRoute\nmetadata: {name: a}\nspec:\n  parentRefs: [{name: echo, sectionName: calls}, {name: echo, port: 82}, {name: echo, port: 99}, {name: nobody}]\n  \
                  rules: [{backendRefs: [{name: elsewhere, namespace: other, port: 80}, {name: v1, port: 90}, {name: v1, port: 80}]}]\n";
    let compiled = with_routes(routes);
    let statuses = &compiled.routes[&Key::new(Kind::HttpRoute, "default", "a")];
    let accepted: Vec<_> = statuses.iter().map(|status| (status.accepted.holds, status.accepted.reason)).collect();
    let not = (false, "NoMatchingParent");
    assert_eq!(accepted, [(true, "Accepted"), not, not, not]);
    assert!(statuses.iter().all(|status| !status.resolved.holds && status.resolved.reason == "RefNotPermitted"));
    let warnings: Vec<String> = compiled.warnings.iter().map(|warning| warning.what.clone()).collect();
    assert_eq!(
        warnings,
        [
            "its backend, port 80 of the service elsewhere, is of another namespace, other, which is not permitted; write the route where its backends are",
            "its backend, port 90 of the service v1, says tls and takes no requests; give it `protocol: http`",
            "it has no effect on port 82 of echo, which says tcp; give that port `protocol: http`",
            "its parent, the service echo, has no port 99",
            "its parent, the service nobody, does not exist yet",
        ]
    );
    assert_eq!(table(&compiled, "default/echo:81").routes().count(), 1);
    // Of a port by its name and of all that carry HTTP.
    let all = with_routes(&routes.replace("{name: echo, sectionName: calls}", "{name: echo}"));
    for port in [80, 81, 83] {
        let table = table(&all, &format!("default/echo:{port}"));
        assert_eq!(table.routes().next().unwrap().name().map(|name| &**name), Some("default/a/0"), "{port}");
    }
}

#[test]
fn waits_are_the_rules_own_else_those_of_the_service() {
    let waits = |service: &str, rule: &str| {
        let services = SERVICES.replacen("  endpoints:", &format!("{service}  endpoints:"), 1);
        let rule = format!("  - {{name: slow, backendRefs: [{{name: v1, port: 80}}]{rule}}}\n");
        let compiled = compiled(&format!("{services}---\n{}", route("a", &rule)));
        let table = table(&compiled, "default/echo:80");
        let route = table.matches(&Asked::new("GET echo /", &[])).unwrap();
        assert_eq!(route.name().map(|name| &**name), Some("default/a/slow"));
        (route.timeout(), route.retry().cloned())
    };
    let seconds = |seconds| Some(std::time::Duration::from_secs(seconds));
    assert_eq!(waits("", ""), (None, None));
    let of_service = "  timeouts: {request: 9s}\n  retries: {attempts: 2, on: [5xx]}\n";
    let (timeout, retry) = waits(of_service, "");
    assert!(timeout == seconds(9) && retry.as_ref().is_some_and(|retry| retry.retries == 2 && retry.on.server_error));
    let (timeout, retry) =
        waits(of_service, ", timeouts: {request: 0s}, retry: {codes: [503], attempts: 3, backoff: 100ms}");
    let retry = retry.unwrap();
    assert_eq!((timeout, retry.retries, &retry.on.statuses[..]), (None, 3, &[503][..]));
    assert!(retry.on.reset && retry.on.connect_failure && !retry.on.server_error && retry.retries <= MOST_RETRIES);
    assert_eq!(retry.back_off.base, std::time::Duration::from_millis(100));
    // A late try may have acted: it is repeated where somebody says so.
    let (timeout, retry) = waits("", ", timeouts: {request: 1m30s, backendRequest: 2s}");
    let retry = retry.unwrap();
    assert_eq!((timeout, retry.per_try_timeout), (seconds(90), seconds(2)));
    assert!(!retry.on.reset && retry.on.reset_before_request && retry.on.connect_failure);
}

#[test]
fn endpoints_without_a_proxy_are_told_from_those_with_one_by_envoys_words_as_by_ours() {
    let spiffe = [SpiffeId::workload("shop.local", "default", "orders")];
    let facts = ServiceFacts { namespace: "default", service: "orders", port: 80 };
    let endpoint = |last: u8, meshed: bool| envoy::Endpoint {
        address: SocketAddr::from(([10, 97, 0, last], 80)),
        health: envoy::Health::Healthy,
        workload: meshed.then(|| format!("default/orders-{last}")),
        meshed,
        locality: None,
    };
    let endpoints = [endpoint(1, true), endpoint(2, false)];
    for (protection, expected) in [
        (Protection::Mixed(&spiffe), [Some(true), Some(false)]),
        (Protection::Mutual(&spiffe), [Some(true), Some(true)]),
        (Protection::Plaintext, [None, None]),
    ] {
        let cluster = envoy::discovered_cluster("default/orders:80", &facts, Protocol::Http, protection);
        let cluster = weft_proxy::xds::decode::cluster(&cluster).unwrap();
        let assignment = envoy::assignment("default/orders:80", &endpoints, protection);
        let assignment = weft_proxy::xds::decode::endpoints(&assignment).unwrap();
        let by_tls = assignment
            .endpoints
            .iter()
            .map(|endpoint| cluster.tls.as_ref().map(|tls| tls.protects(endpoint.transport.as_ref())));
        assert_eq!(by_tls.collect::<Vec<_>>(), expected);
        assert_eq!(assignment.endpoints[0].workload.as_str(), "default/orders-1");
    }
}
