//! What an HTTPRoute may say, and what it may not.

use std::time::Duration;

use super::*;

fn read_route(spec: &str) -> HttpRouteSpec {
    let text =
        format!("apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: a}}\nspec: {spec}\n");
    let documents = read(&[source("a.yaml", &text)]).unwrap_or_else(|problems| panic!("{problems}"));
    let Document::HttpRoute(route) = documents.into_iter().next().unwrap().document else { panic!("not a route") };
    route.spec
}

#[test]
fn a_route_is_read_with_the_defaults_of_the_gateway_api() {
    let documents = read(&[source("a.yaml", ALL_KINDS)]).unwrap();
    let Document::HttpRoute(route) = &documents[5].document else { panic!("not a route") };
    let spec = &route.spec;
    let parent = HttpParentRef { name: "orders".into(), port: Some(80), section_name: Some("http".into()) };
    assert_eq!(spec.parent_refs, [parent], "the gateway is somebody else's");
    assert_eq!(spec.created.as_deref(), Some("2026-01-31T08:00:00Z"));
    let [first, second] = spec.rules.as_slice() else { panic!("{spec:?}") };
    assert_eq!(first.matches[0].method, Some(HttpMethod::Post));
    let headers: Vec<_> = first.matches[0].headers().map(|header| (header.r#type, header.name.as_str())).collect();
    assert_eq!(headers, [(ValueMatchType::Exact, "X-Version"), (ValueMatchType::RegularExpression, "agent")]);
    assert_eq!(first.matches[1].path, HttpPathMatch { r#type: PathMatchType::PathPrefix, value: "/".into() });
    let backend = |name: &str, namespace: Option<&str>, weight| HttpBackendRef {
        name: name.into(),
        namespace: namespace.map(str::to_owned),
        port: 80,
        weight,
        permitted: false,
    };
    assert_eq!(first.backend_refs, [backend("orders", None, 0), backend("next", Some("other"), 1)]);
    assert_eq!(first.timeouts.request.map(RouteDuration::duration), Some(Duration::from_secs(90)));
    let retry = first.retry.as_ref().unwrap();
    assert_eq!((&retry.codes[..], retry.attempts), (&[503][..], 2));
    assert!(second.matches.is_empty() && second.backend_refs.is_empty() && second.retry.is_none());
}

#[test]
fn durations_are_those_of_the_gateway_api() {
    for (text, milliseconds, written) in [
        ("0s", 0, "0s"),
        ("0h0m0s0ms", 0, "0s"),
        ("500ms", 500, "500ms"),
        ("1h", 3_600_000, "1h"),
        ("1m30s", 90_000, "1m30s"),
        ("90s", 90_000, "1m30s"),
        ("10s5ms", 10_005, "10s5ms"),
        ("99999h", 359_996_400_000, "99999h"),
    ] {
        let duration = RouteDuration::parse(text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(duration.duration(), Duration::from_millis(milliseconds), "{text}");
        assert_eq!(duration.to_string(), written);
        assert_eq!(RouteDuration::parse(written), Some(duration));
    }
    for text in ["", "1", "s", "1.5s", "-1s", "1d", "100000s", "1s 1s", "1h1m1s1ms1s", "1S"] {
        assert_eq!(RouteDuration::parse(text), None, "{text}");
    }
}

#[test]
fn of_headers_with_one_name_the_first_counts() {
    let spec = read_route(
        "{parentRefs: [{name: a}], rules: [{matches: [{headers: [{name: X, value: '1'}, {name: y, value: '2'}, {name: x, value: '3'}], \
         queryParams: [{name: q, value: '1'}, {name: Q, value: '2'}, {name: q, value: '3'}]}]}]}",
    );
    let only = &spec.rules[0].matches[0];
    assert_eq!(only.headers().map(|header| header.value.as_str()).collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(only.query_params().map(|parameter| parameter.value.as_str()).collect::<Vec<_>>(), ["1", "2"]);
}

fn own_route(spec: &str) -> String {
    format!("apiVersion: weft.dev/v1alpha1\nkind: HTTPRoute\nmetadata: {{name: a}}\nspec: {spec}\n")
}

/// HTTPRoutes that are wrong in one way each, and how the problem begins.
pub(crate) fn bad_http_routes() -> Vec<(String, &'static str)> {
    let rule = |rule: &str| format!("{{parentRefs: [{{name: a}}], rules: [{{{rule}}}]}}");
    let matched = |matched: &str| rule(&format!("matches: [{{{matched}}}]"));
    let backend = |backend: &str| rule(&format!("backendRefs: [{{{backend}}}]"));
    let cases = [
        ("{rules: [{}]}".to_owned(), "spec.parentRefs: missing"),
        ("{parentRefs: [{name: a}]}".into(), "spec.rules: missing"),
        ("{parentRefs: [], rules: [{}]}".into(), "spec.parentRefs: the list is empty"),
        (
            "{parentRefs: [{name: a, namespace: b}], rules: [{}]}".into(),
            "spec.parentRefs[0].namespace: `b` is another namespace",
        ),
        ("{parentRefs: [{kind: Gateway, name: a}], rules: [{}]}".into(), "spec.parentRefs: no parent is a service"),
        ("{parentRefs: [{name: a}, {name: a}], rules: [{}]}".into(), "spec.parentRefs[1]: this parent is given twice"),
        (
            "{parentRefs: [{name: a}], hostnames: ['10.0.0.1'], rules: [{}]}".into(),
            "spec.hostnames[0]: `10.0.0.1` is not a host's name",
        ),
        (
            rule("filters: [{type: RequestMirror, requestMirror: {}}]"),
            "spec.rules[0].filters[0]: the proxies pass requests and answers on as they are, so a filter (RequestMirror) cannot be followed",
        ),
        (rule("sessionPersistence: {}"), "spec.rules[0].sessionPersistence: the proxies keep no sessions"),
        (rule("name: A"), "spec.rules[0].name: `A` is not a valid name"),
        (matched("path: {type: Suffix}"), "spec.rules[0].matches[0].path.type: unknown type of a path `Suffix`"),
        (matched("path: {value: a}"), "spec.rules[0].matches[0].path.value: `a` does not begin with `/`"),
        (matched("path: {value: /a//b}"), "spec.rules[0].matches[0].path.value: `/a//b` has an empty segment"),
        (matched("path: {value: /a/../b}"), "spec.rules[0].matches[0].path.value: `/a/../b` has a segment"),
        (matched("path: {value: /a%2Fb}"), "spec.rules[0].matches[0].path.value: `/a%2Fb` has an escaped `/`"),
        (matched("path: {value: '/a?b'}"), "spec.rules[0].matches[0].path.value: `/a?b` has a query"),
        (matched("path: {value: '/a b'}"), "spec.rules[0].matches[0].path.value: `/a b` has a character"),
        (
            matched("path: {type: RegularExpression, value: '('}"),
            "spec.rules[0].matches[0].path.value: `(` is not a regular expression of RE2: unclosed group",
        ),
        (matched("method: get"), "spec.rules[0].matches[0].method: unknown method of a route `get`"),
        (matched("method: CONNECT"), "spec.rules[0].matches[0].method: unknown method of a route `CONNECT`"),
        (
            matched("headers: [{name: ':path', value: a}]"),
            "spec.rules[0].matches[0].headers[0].name: `:path` is not the name of a header",
        ),
        (matched("headers: [{name: a}]"), "spec.rules[0].matches[0].headers[0].value: missing"),
        (
            matched("headers: [{name: a, type: Exactly, value: a}]"),
            "spec.rules[0].matches[0].headers[0].type: unknown type of a value `Exactly`",
        ),
        (
            matched("queryParams: [{name: a, type: RegularExpression, value: '(?=a)'}]"),
            "spec.rules[0].matches[0].queryParams[0].value: `(?=a)` is not a regular expression",
        ),
        (matched("cookies: []"), "spec.rules[0].matches[0].cookies: unknown field"),
        (backend("name: a"), "spec.rules[0].backendRefs[0].port: missing"),
        (
            backend("name: a, port: 80, kind: ServiceImport"),
            "spec.rules[0].backendRefs[0].kind: unknown kind of a reference",
        ),
        (backend("name: a, port: 80, weight: 1000001"), "spec.rules[0].backendRefs[0].weight: found"),
        (
            backend("name: a, port: 80, filters: [{type: RequestRedirect}]"),
            "spec.rules[0].backendRefs[0].filters[0]: the proxies pass",
        ),
        (rule("timeouts: {request: 10}"), "spec.rules[0].timeouts.request: `10` has no unit"),
        (rule("timeouts: {request: 1d}"), "spec.rules[0].timeouts.request: `1d` is not a duration"),
        (
            rule("timeouts: {request: 1s, backendRequest: 2s}"),
            "spec.rules[0].timeouts.backendRequest: 2s is more than `request`, 1s",
        ),
        (rule("retry: {codes: [200]}"), "spec.rules[0].retry.codes[0]: found"),
        (rule("retry: {attempts: 11}"), "spec.rules[0].retry.attempts: found"),
    ];
    cases.into_iter().map(|(spec, expected)| (own_route(&spec), expected)).collect()
}

#[test]
fn what_an_http_route_may_not_say_is_named_with_its_place() {
    for (text, expected) in bad_http_routes() {
        let problems = problems(&text);
        let [problem] = problems.as_slice() else { panic!("{text}: {problems:?}") };
        assert!(problem.contains(&format!("HTTPRoute default/a: {expected}")), "{text}: {problem}");
    }
    let many = vec!["{}"; 17].join(", ");
    let problems = problems(&own_route(&format!("{{parentRefs: [{{name: a}}], rules: [{many}]}}")));
    assert!(problems[0].contains("17 entries; at most 16 are allowed"), "{problems:?}");
}

#[test]
fn the_time_a_route_was_made_is_checked_and_of_no_other_kind() {
    let of = |kind: &str, spec: &str| {
        let metadata = "{name: a, creationTimestamp: yesterday}";
        problems(&format!("apiVersion: weft.dev/v1alpha1\nkind: {kind}\nmetadata: {metadata}\nspec: {spec}\n"))
    };
    let route = of("HTTPRoute", "{parentRefs: [{name: a}], rules: [{}]}");
    assert!(route[0].contains("metadata.creationTimestamp: `yesterday` is not a time"), "{route:?}");
    let service = of("Service", "{ports: [{port: 80}], selector: {app: a}}");
    assert!(service[0].contains("creationTimestamp: unknown field"), "{service:?}");
}
