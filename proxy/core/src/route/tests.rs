use proptest::prelude::*;

use super::*;
use crate::model::{TextMatch, ValueMatch, VirtualHostSpec, WeightedCluster};
use crate::pattern::Pattern;

/// A request as a test writes it.
#[derive(Default)]
struct Asked<'a> {
    authority: &'a [u8],
    target: &'a [u8],
    method: &'a str,
    fields: &'a [(&'a str, &'a str)],
}

impl Request for Asked<'_> {
    fn authority(&self) -> &[u8] {
        self.authority
    }

    fn path(&self) -> &[u8] {
        self.target.split(|&byte| byte == b'?').next().unwrap()
    }

    fn query(&self) -> Option<&[u8]> {
        self.target.iter().position(|&byte| byte == b'?').map(|at| &self.target[at + 1..])
    }

    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }

    fn values<'r>(&'r self, name: &'r str) -> impl Iterator<Item = &'r [u8]> {
        self.fields.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_bytes())
    }
}

fn asked<'a>(authority: &'a str, target: &'a str) -> Asked<'a> {
    Asked { authority: authority.as_bytes(), target: target.as_bytes(), method: "GET", fields: &[] }
}

fn prefix(path: &str, cluster: &str) -> RouteSpec {
    RouteSpec::new(PathMatch::Prefix(path.into()), cluster)
}

fn exact(path: &str, cluster: &str) -> RouteSpec {
    RouteSpec::new(PathMatch::Exact(path.into()), cluster)
}

fn segments(path: &str, cluster: &str) -> RouteSpec {
    RouteSpec::new(PathMatch::Segments(path.into()), cluster)
}

fn host(domains: &[&str], routes: Vec<RouteSpec>) -> VirtualHostSpec {
    VirtualHostSpec { domains: domains.iter().map(|&d| d.to_owned()).collect(), routes }
}

fn table(virtual_hosts: Vec<VirtualHostSpec>) -> RouteTable<ClusterName> {
    let spec = RouteTableSpec { name: "default/orders:80".into(), virtual_hosts };
    RouteTable::compile(&spec, |cluster| (cluster.as_str() != "missing").then(|| cluster.clone()))
}

fn found<'t>(table: &'t RouteTable<ClusterName>, request: &Asked<'_>) -> Option<&'t str> {
    let route = table.matches(request)?;
    route.split().pick(|_| 0).map(|(cluster, _)| cluster.as_str())
}

fn cluster_of<'a>(table: &'a RouteTable<ClusterName>, authority: &str, target: &str) -> Option<&'a str> {
    found(table, &asked(authority, target))
}

#[test]
fn the_most_exact_host_decides() {
    let table = table(vec![
        host(&["*"], vec![prefix("/", "any")]),
        host(&["*.example"], vec![prefix("/", "below-example")]),
        host(&["*.shop.example", "*-test.example"], vec![prefix("/", "below-shop")]),
        host(&["orders.shop.example", "Orders:80", "[fd57::2]", "10.96.0.2"], vec![prefix("/", "orders")]),
    ]);
    for (authority, cluster) in [
        ("orders.shop.example", "orders"),
        ("orders.shop.example:8080", "orders"),
        ("ORDERS.Shop.Example", "orders"),
        ("orders.shop.example.", "orders"),
        ("orders.shop.example.:80", "orders"),
        ("orders", "orders"),
        ("[fd57::2]:80", "orders"),
        ("[fd57::2]", "orders"),
        ("[FD57::2]", "orders"),
        ("10.96.0.2:80", "orders"),
        ("carts.shop.example", "below-shop"),
        ("a.b.Shop.example:80", "below-shop"),
        ("orders-test.example", "below-shop"),
        ("shop.example", "below-example"),
        (".shop.example", "below-example"),
        ("example", "any"),
        (".example", "any"),
        ("fd57::3", "any"),
        ("[fd57::2", "any"),
        ("", "any"),
        (":80", "any"),
    ] {
        assert_eq!(cluster_of(&table, authority, "/"), Some(cluster), "authority {authority:?}");
    }
}

#[test]
fn the_first_matching_path_decides() {
    let table = table(vec![host(
        &["*"],
        vec![
            exact("/health", "health"),
            RouteSpec::new(PathMatch::Pattern(Pattern::new("/v[0-9]+/[a-z]*").unwrap()), "pattern"),
            prefix("/api/v2", "new"),
            prefix("/api", "old"),
            exact("/api/v3", "shadowed"),
        ],
    )]);
    for (path, cluster) in [
        ("/health", Some("health")),
        ("/health?verbose=1", Some("health")),
        ("/health/", None),
        ("/healthy", None),
        ("/Health", None),
        ("/api/v2/orders", Some("new")),
        ("/api/v1", Some("old")),
        ("/apis", Some("old")),
        ("/api/v3", Some("old")),
        ("/v12/orders?a=/v1/B", Some("pattern")),
        ("/v12/Orders", None),
        ("/?/api", None),
        ("/", None),
        ("*", None),
        ("", None),
    ] {
        assert_eq!(cluster_of(&table, "orders", path), cluster, "path {path:?}");
    }
}

#[test]
fn segments_take_a_path_and_what_is_below_it() {
    let table = table(vec![host(&["*"], vec![segments("/a/b", "deep"), segments("/a", "flat")])]);
    for (path, cluster) in [
        ("/a", Some("flat")),
        ("/a/", Some("flat")),
        ("/a?b", Some("flat")),
        ("/a/bc", Some("flat")),
        ("/a/b", Some("deep")),
        ("/a/b/c", Some("deep")),
        ("/ab", None),
        ("/", None),
        ("/b/a", None),
    ] {
        assert_eq!(cluster_of(&table, "orders", path), cluster, "path {path:?}");
    }
}

/// A table whose routes look at more than the path: by what, and to which cluster.
fn by_conditions(routes: Vec<(RequestConditions, &str)>) -> RouteTable<ClusterName> {
    let route = |(conditions, cluster)| RouteSpec { conditions, ..prefix("/", cluster) };
    table(vec![host(&["*"], routes.into_iter().map(route).collect())])
}

fn value(name: &str, value: TextMatch) -> ValueMatch {
    ValueMatch { name: name.into(), value }
}

#[test]
fn a_method_must_be_the_same_to_the_letter() {
    let only = |method: &str| RequestConditions { method: Some(method.into()), ..RequestConditions::default() };
    let table = by_conditions(vec![(only("POST"), "writes"), (only("GET"), "reads")]);
    for (method, expected) in
        [("POST", Some("writes")), ("GET", Some("reads")), ("get", None), ("POSTS", None), ("HEAD", None)]
    {
        assert_eq!(found(&table, &Asked { method, ..asked("a", "/") }), expected, "{method}");
    }
}

#[test]
fn a_header_is_what_its_condition_says() {
    let text = |text: &str| Box::<str>::from(text);
    let table: &[(TextMatch, &[(&str, &str)], bool)] = &[
        (TextMatch::Exact(text("b")), &[("X-Version", "b")], true),
        (TextMatch::Exact(text("b")), &[("x-version", "B")], false),
        (TextMatch::Exact(text("b")), &[("x-other", "b")], false),
        (TextMatch::Exact(text("a,b")), &[("x-version", "a"), ("x-other", "c"), ("X-VERSION", "b")], true),
        (TextMatch::Exact(text("a")), &[("x-version", "a"), ("x-version", "b")], false),
        (TextMatch::Exact(text("")), &[("x-version", "")], true),
        (TextMatch::Exact(text("")), &[], false),
        (TextMatch::Prefix(text("b-")), &[("x-version", "b-2")], true),
        (TextMatch::Prefix(text("b-")), &[("x-version", "ab-2")], false),
        (TextMatch::Suffix(text("-2")), &[("x-version", "b-2")], true),
        (TextMatch::Suffix(text("-2")), &[("x-version", "b-22")], false),
        (TextMatch::Contains(text("-2")), &[("x-version", "b-22")], true),
        (TextMatch::Contains(text("-2")), &[("x-version", "b2-")], false),
        (TextMatch::Pattern(Pattern::new("v[12]").unwrap()), &[("x-version", "v2")], true),
        (TextMatch::Pattern(Pattern::new("v[12]").unwrap()), &[("x-version", "v22")], false),
        (TextMatch::Pattern(Pattern::new("v[12],v[34]").unwrap()), &[("x-version", "v1"), ("x-version", "v4")], true),
        (TextMatch::Present, &[("x-version", "")], true),
        (TextMatch::Present, &[], false),
        (TextMatch::Absent, &[("x-version", "")], false),
        (TextMatch::Absent, &[], true),
    ];
    for (wanted, fields, expected) in table {
        let headers = vec![value("x-version", wanted.clone())];
        let table = by_conditions(vec![(RequestConditions { headers, ..RequestConditions::default() }, "it")]);
        let request = Asked { fields, ..asked("a", "/") };
        assert_eq!(found(&table, &request).is_some(), *expected, "{wanted:?} on {fields:?}");
    }
}

#[test]
fn cookies_in_pieces_are_one_and_the_host_is_the_authority() {
    let headers =
        vec![value("cookie", TextMatch::Exact("a=1; b=2".into())), value("host", TextMatch::Exact("orders:80".into()))];
    let table = by_conditions(vec![(RequestConditions { headers, ..RequestConditions::default() }, "it")]);
    let fields = &[("cookie", "a=1"), ("cookie", "b=2"), ("host", "other")];
    assert_eq!(found(&table, &Asked { fields, ..asked("orders:80", "/") }), Some("it"));
    assert_eq!(found(&table, &Asked { fields, ..asked("orders", "/") }), None);
}

#[test]
fn the_first_of_a_parameter_counts_as_it_is_written() {
    let table: &[(&str, TextMatch, &str, bool)] = &[
        ("v", TextMatch::Exact("2".into()), "/?v=2", true),
        ("v", TextMatch::Exact("2".into()), "/?a=1&v=2&b", true),
        ("v", TextMatch::Exact("2".into()), "/?v=2&v=3", true),
        ("v", TextMatch::Exact("3".into()), "/?v=2&v=3", false),
        ("v", TextMatch::Exact("2".into()), "/?vv=2", false),
        ("v", TextMatch::Exact("2".into()), "/v=2", false),
        ("v", TextMatch::Exact(String::new().into()), "/?v", true),
        ("v", TextMatch::Exact("a=b".into()), "/?v=a=b", true),
        ("v", TextMatch::Exact("a b".into()), "/?v=a%20b", false),
        ("v", TextMatch::Exact("a%20b".into()), "/?v=a%20b", true),
        ("v", TextMatch::Present, "/?v", true),
        ("v", TextMatch::Present, "/?", false),
        ("v", TextMatch::Present, "/", false),
    ];
    for (name, wanted, target, expected) in table {
        let query = vec![value(name, wanted.clone())];
        let table = by_conditions(vec![(RequestConditions { query, ..RequestConditions::default() }, "it")]);
        assert_eq!(cluster_of(&table, "a", target).is_some(), *expected, "{wanted:?} on {target:?}");
    }
}

#[test]
fn all_conditions_of_a_route_must_hold_and_the_next_route_is_asked_otherwise() {
    let both = RequestConditions {
        method: Some("GET".into()),
        headers: vec![value("x-a", TextMatch::Present), value("x-b", TextMatch::Exact("1".into()))],
        query: vec![value("q", TextMatch::Present)],
    };
    let table = by_conditions(vec![(both, "all"), (RequestConditions::default(), "others")]);
    let fields: &[(&str, &str)] = &[("x-a", "7"), ("x-b", "1")];
    for (request, expected) in [
        (Asked { fields, ..asked("a", "/?q") }, "all"),
        (Asked { fields, ..asked("a", "/") }, "others"),
        (Asked { fields, method: "PUT", ..asked("a", "/?q") }, "others"),
        (Asked { fields: &fields[..1], ..asked("a", "/?q") }, "others"),
        (Asked { fields: &fields[1..], ..asked("a", "/?q") }, "others"),
    ] {
        assert_eq!(found(&table, &request), Some(expected));
    }
}

#[test]
fn an_exact_host_without_a_matching_path_does_not_fall_back_to_the_wildcard() {
    let table = table(vec![host(&["orders"], vec![prefix("/api", "orders")]), host(&["*"], vec![prefix("/", "any")])]);
    assert_eq!(cluster_of(&table, "orders", "/other"), None);
    assert_eq!(cluster_of(&table, "carts", "/other"), Some("any"));
}

#[test]
fn without_a_wildcard_an_unknown_host_has_no_route() {
    let table = table(vec![host(&["orders"], vec![prefix("/", "orders")])]);
    assert_eq!(cluster_of(&table, "carts", "/"), None);
    assert_eq!(cluster_of(&table, &"x".repeat(5000), "/"), None);
}

#[test]
fn a_missing_cluster_is_a_share_without_target() {
    let clusters = ["missing", "orders"].map(|cluster| WeightedCluster { cluster: cluster.into(), weight: 1 }).to_vec();
    let mut spec = RouteSpec { clusters, missing: MissingCluster::NoBackend, ..prefix("/", "orders") };
    spec.name = Some("default/canary".into());
    let table = table(vec![host(&["*"], vec![spec])]);
    let route = table.matches(&asked("orders", "/new")).unwrap();
    let picked = [0, 1].map(|drawn| route.split().pick(|_| drawn).unwrap());
    assert_eq!(
        picked.map(|(cluster, target)| (cluster.as_str(), target.is_some())),
        [("missing", false), ("orders", true)]
    );
    assert_eq!(
        (route.missing(), route.name().map(|name| &**name)),
        (MissingCluster::NoBackend, Some("default/canary"))
    );
}

#[test]
fn of_two_hosts_with_one_domain_the_first_has_it() {
    for domain in ["orders", "*.orders", "*"] {
        let table =
            table(vec![host(&[domain], vec![prefix("/", "first")]), host(&[domain], vec![prefix("/", "second")])]);
        assert_eq!(cluster_of(&table, &domain.replace('*', "a"), "/"), Some("first"), "domain {domain}");
    }
}

#[test]
fn a_route_carries_its_timeout() {
    let timeout = Some(Duration::from_secs(3));
    let table = table(vec![host(&["*"], vec![RouteSpec { timeout, ..prefix("/", "orders") }])]);
    assert_eq!(table.matches(&asked("orders", "/")).unwrap().timeout(), timeout);
}

proptest! {
    #[test]
    fn no_input_panics(authority: Vec<u8>, target: Vec<u8>, name in "[a-z]{0,3}", text: String) {
        let conditions = RequestConditions {
            method: None,
            headers: vec![value("a", TextMatch::Contains("b".into()))],
            query: vec![value("a", TextMatch::Suffix("b".into()))],
        };
        let table = table(vec![
            host(&["orders", "*.example"], vec![RouteSpec { conditions, ..prefix("/a", "orders") }, prefix("/a", "orders")]),
            host(&["*"], vec![segments("/a", "any"), prefix("/a", "any")]),
        ]);
        let fields = &[(name.as_str(), text.as_str()), ("a", text.as_str())];
        let request = Asked { authority: &authority, target: &target, method: &text, fields };
        let route = table.matches(&request);
        prop_assert!(route.is_some() || !request.path().starts_with(b"/a"));
    }

    #[test]
    fn letter_case_and_port_of_the_authority_never_matter(name in "[a-z]{1,8}(\\.[a-z]{1,8}){0,3}", port: u16) {
        let table = table(vec![
            host(&["a.b", "abc"], vec![prefix("/", "exact")]),
            host(&["*.b", "*c"], vec![prefix("/", "suffix")]),
            host(&["*"], vec![prefix("/", "any")]),
        ]);
        let plain = cluster_of(&table, &name, "/");
        prop_assert_eq!(cluster_of(&table, &name.to_uppercase(), "/"), plain);
        prop_assert_eq!(cluster_of(&table, &format!("{name}:{port}"), "/"), plain);
    }
}
