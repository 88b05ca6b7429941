//! Route tables.

use weft_core::model::{MissingCluster, RequestConditions, RouteSpec, TextMatch, ValueMatch};
use weft_core::pattern::Pattern;
use weft_proto::envoy::envoy::config::core::v3::{HeaderValueOption, RuntimeFractionalPercent};
use weft_proto::envoy::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier as HeaderIs;
use weft_proto::envoy::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier as ParameterIs;
use weft_proto::envoy::envoy::config::route::v3::route::Action;
use weft_proto::envoy::envoy::config::route::v3::route_action::{
    ClusterSpecifier, HostRewriteSpecifier, MaxStreamDuration, RequestMirrorPolicy, UpgradeConfig,
};
use weft_proto::envoy::envoy::config::route::v3::weighted_cluster::{ClusterWeight, RandomValueSpecifier};
use weft_proto::envoy::envoy::config::route::v3::{
    CookieMatcher, CorsPolicy, DirectResponseAction, FilterAction, HeaderMatcher, InternalRedirectPolicy,
    NonForwardingAction, QueryParameterMatcher, RateLimit, RedirectAction, Vhds, VirtualHost, WeightedCluster,
};
use weft_proto::envoy::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use weft_proto::envoy::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};

use super::*;

fn base() -> RouteConfiguration {
    routes("default/orders:80", "default/orders:80")
}

fn read(message: &RouteConfiguration) -> weft_core::model::RouteTableSpec {
    decode::route(&message.encode_to_vec()).unwrap()
}

fn with_rules(rules: Vec<weft_proto::envoy::envoy::config::route::v3::Route>) -> RouteConfiguration {
    let mut table = base();
    table.virtual_hosts[0].routes = rules;
    table
}

fn action(table: &mut RouteConfiguration) -> &mut RouteAction {
    match &mut table.virtual_hosts[0].routes[0].action {
        Some(Action::Route(action)) => action,
        _ => unreachable!("the fixture forwards"),
    }
}

#[test]
fn a_route_table_is_read_as_rendered() {
    let spec = read(&base());
    assert_eq!(spec.name.as_str(), "default/orders:80");
    let [host] = spec.virtual_hosts.as_slice() else { panic!("{spec:?}") };
    assert_eq!(host.domains, ["*"]);
    assert_eq!(host.routes, [RouteSpec::new(PathMatch::Prefix("/".to_owned()), "default/orders:80")]);
}

#[test]
fn paths_keep_their_order() {
    let rules = [
        PathSpecifier::Path("/exact".to_owned()),
        PathSpecifier::PathSeparatedPrefix("/part".to_owned()),
        PathSpecifier::PathSeparatedPrefix("/".to_owned()),
        PathSpecifier::SafeRegex(regex("/v[0-9]+")),
        PathSpecifier::Prefix(String::new()),
    ];
    let spec = read(&with_rules(rules.map(|path| rule(path, to_cluster("c"))).to_vec()));
    let paths: Vec<_> = spec.virtual_hosts[0].routes.iter().map(|rule| rule.path.clone()).collect();
    let (exact, prefix) = (|p: &str| PathMatch::Exact(p.to_owned()), |p: &str| PathMatch::Prefix(p.to_owned()));
    let segments = PathMatch::Segments("/part".to_owned());
    let pattern = PathMatch::Pattern(Pattern::new("/v[0-9]+").unwrap());
    assert_eq!(paths, [exact("/exact"), segments, prefix("/"), pattern, prefix("")]);
}

fn regex(text: &str) -> RegexMatcher {
    RegexMatcher { regex: text.to_owned(), ..Default::default() }
}

fn string(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ..Default::default() }
}

fn header(name: &str, is: Option<HeaderIs>) -> HeaderMatcher {
    HeaderMatcher { name: name.to_owned(), header_match_specifier: is, ..Default::default() }
}

fn conditions(headers: Vec<HeaderMatcher>, query_parameters: Vec<QueryParameterMatcher>) -> RequestConditions {
    let mut table = base();
    let matched = table.virtual_hosts[0].routes[0].r#match.as_mut().unwrap();
    (matched.headers, matched.query_parameters) = (headers, query_parameters);
    read(&table).virtual_hosts.remove(0).routes.remove(0).conditions
}

#[test]
fn every_way_to_say_what_a_header_must_be_is_read() {
    let text = |text: &str| Box::<str>::from(text);
    let pattern = || TextMatch::Pattern(Pattern::new("b+").unwrap());
    let of_string = |pattern| Some(HeaderIs::StringMatch(string(pattern)));
    let table = [
        (of_string(MatchPattern::Exact("b".to_owned())), TextMatch::Exact(text("b"))),
        (of_string(MatchPattern::Prefix("b".to_owned())), TextMatch::Prefix(text("b"))),
        (of_string(MatchPattern::Suffix("b".to_owned())), TextMatch::Suffix(text("b"))),
        (of_string(MatchPattern::Contains("b".to_owned())), TextMatch::Contains(text("b"))),
        (of_string(MatchPattern::SafeRegex(regex("b+"))), pattern()),
        (Some(HeaderIs::ExactMatch("b".to_owned())), TextMatch::Exact(text("b"))),
        (Some(HeaderIs::PrefixMatch("b".to_owned())), TextMatch::Prefix(text("b"))),
        (Some(HeaderIs::SuffixMatch("b".to_owned())), TextMatch::Suffix(text("b"))),
        (Some(HeaderIs::ContainsMatch("b".to_owned())), TextMatch::Contains(text("b"))),
        (Some(HeaderIs::SafeRegexMatch(regex("b+"))), pattern()),
        (Some(HeaderIs::PresentMatch(true)), TextMatch::Present),
        (Some(HeaderIs::PresentMatch(false)), TextMatch::Absent),
        (None, TextMatch::Present),
    ];
    for (is, expected) in table {
        let read = conditions(vec![header("X-Version", is)], Vec::new());
        assert_eq!(read.headers, [ValueMatch { name: "x-version".into(), value: expected }]);
    }
    let inverted = HeaderMatcher { invert_match: true, ..header("x", Some(HeaderIs::PresentMatch(true))) };
    assert_eq!(conditions(vec![inverted], Vec::new()).headers[0].value, TextMatch::Absent);
}

#[test]
fn method_and_authority_are_headers_of_the_api_and_none_of_ours() {
    let exact = |text: &str| Some(HeaderIs::StringMatch(string(MatchPattern::Exact(text.to_owned()))));
    let read = conditions(vec![header(":method", exact("PUT")), header(":authority", exact("orders:80"))], Vec::new());
    assert_eq!(read.method.as_deref(), Some("PUT"));
    assert_eq!(read.headers, [ValueMatch { name: "host".into(), value: TextMatch::Exact("orders:80".into()) }]);
}

#[test]
fn parameters_of_the_query_are_read() {
    let parameter =
        |name: &str, is| QueryParameterMatcher { name: name.to_owned(), query_parameter_match_specifier: is };
    let read = conditions(
        Vec::new(),
        vec![
            parameter("V", Some(ParameterIs::StringMatch(string(MatchPattern::Exact("2".to_owned()))))),
            parameter("w", Some(ParameterIs::PresentMatch(true))),
        ],
    );
    let value = |name: &str, value| ValueMatch { name: name.into(), value };
    assert_eq!(read.query, [value("V", TextMatch::Exact("2".into())), value("w", TextMatch::Present)]);
}

#[test]
fn requests_are_shared_and_a_missing_cluster_has_its_answer() {
    let share = |name: &str, weight| ClusterWeight { name: name.to_owned(), weight, ..Default::default() };
    let mut table = base();
    table.virtual_hosts[0].routes[0].name = "default/canary/0".to_owned();
    action(&mut table).cluster_specifier = Some(ClusterSpecifier::WeightedClusters(WeightedCluster {
        clusters: vec![share("a", number(9)), share("b", number(1)), share("c", None)],
        total_weight: number(10),
        ..Default::default()
    }));
    action(&mut table).cluster_not_found_response_code = 2;
    let route = read(&table).virtual_hosts.remove(0).routes.remove(0);
    let shares: Vec<_> = route.clusters.iter().map(|share| (share.cluster.as_str(), share.weight)).collect();
    assert_eq!(shares, [("a", 9), ("b", 1), ("c", 0)]);
    assert_eq!((route.missing, route.name.as_deref()), (MissingCluster::NoBackend, Some("default/canary/0")));
    for (code, expected) in [(0, MissingCluster::Unavailable), (1, MissingCluster::NotFound)] {
        action(&mut table).cluster_not_found_response_code = code;
        assert_eq!(read(&table).virtual_hosts[0].routes[0].missing, expected);
    }
}

#[test]
fn what_weights_may_not_say_is_refused_by_name() {
    fn weighted(action: &mut RouteAction) -> &mut WeightedCluster {
        match &mut action.cluster_specifier {
            Some(ClusterSpecifier::WeightedClusters(weighted)) => weighted,
            _ => unreachable!("the test's own"),
        }
    }
    let clusters = vec![ClusterWeight { name: "a".to_owned(), weight: number(1), ..Default::default() }];
    let mut table = base();
    action(&mut table).cluster_specifier =
        Some(ClusterSpecifier::WeightedClusters(WeightedCluster { clusters, ..Default::default() }));
    read(&table);
    type Change = fn(&mut WeightedCluster);
    let cases: [(&str, Change); 9] = [
        ("clusters", |w| w.clusters.clear()),
        ("clusters", |w| w.clusters[0].weight = number(0)),
        ("clusters", |w| {
            w.clusters
                .extend([w.clusters[0].clone(), ClusterWeight { weight: number(u32::MAX), ..w.clusters[0].clone() }])
        }),
        ("total_weight", |w| w.total_weight = number(100)),
        ("random_value_specifier", |w| {
            w.random_value_specifier = Some(RandomValueSpecifier::HeaderName("x".to_owned()))
        }),
        ("clusters[0].name", |w| w.clusters[0].name.clear()),
        ("clusters[0].cluster_header", |w| w.clusters[0].cluster_header = "x".to_owned()),
        ("clusters[0].request_headers_to_add", |w| w.clusters[0].request_headers_to_add.push(Default::default())),
        ("clusters[0].metadata_match", |w| w.clusters[0].metadata_match = Some(Default::default())),
    ];
    for (field, change) in cases {
        let mut table = table.clone();
        change(weighted(action(&mut table)));
        let error = decode::route(&table.encode_to_vec()).unwrap_err();
        assert_eq!(error.field, format!("virtual_hosts[0].routes[0].route.weighted_clusters.{field}"), "{error}");
    }
}

#[test]
fn the_deadline_is_the_shorter_of_the_two_and_zero_means_none() {
    let stream = |max_stream_duration| Some(MaxStreamDuration { max_stream_duration, ..Default::default() });
    let cases = [
        (None, None, None),
        (seconds(0), None, None),
        (seconds(5), None, Some(5)),
        (seconds(5), stream(seconds(3)), Some(3)),
        (seconds(5), stream(seconds(0)), Some(5)),
        (seconds(0), stream(seconds(7)), Some(7)),
    ];
    for (timeout, max_stream_duration, expected) in cases {
        let mut table = base();
        (action(&mut table).timeout, action(&mut table).max_stream_duration) = (timeout, max_stream_duration);
        let read = read(&table).virtual_hosts[0].routes[0].timeout;
        assert_eq!(read, expected.map(Duration::from_secs), "{timeout:?} {max_stream_duration:?}");
    }
}

#[test]
fn domains_are_lower_case_and_a_port_beside_the_same_domain_says_nothing_new() {
    let mut table = base();
    table.virtual_hosts[0].domains =
        ["Orders", "orders:80", "*.Example", "[fd57::2]", "[fd57::2]:80", "10.0.0.1", "10.0.0.1:*"]
            .map(str::to_owned)
            .to_vec();
    assert_eq!(read(&table).virtual_hosts[0].domains, ["orders", "*.example", "[fd57::2]", "10.0.0.1"]);
}

#[test]
fn settings_of_filters_that_may_be_ignored_are() {
    let optional = FilterConfig { is_optional: true, ..Default::default() };
    let mut table = base();
    table.virtual_hosts[0].routes[0].typed_per_filter_config.insert("x".to_owned(), pack(&optional));
    read(&table);
}

#[test]
fn what_a_route_table_may_not_say_is_refused_by_name() {
    fn host(table: &mut RouteConfiguration) -> &mut VirtualHost {
        &mut table.virtual_hosts[0]
    }
    assert_refused(
        &base(),
        decode::route,
        &[
            ("name", "nothing", |t| t.name.clear()),
            ("vhds", "", |t| t.vhds = Some(Vhds::default())),
            ("request_headers_to_add", "", |t| t.request_headers_to_add.push(HeaderValueOption::default())),
            ("internal_only_headers", "", |t| t.internal_only_headers.push("x".to_owned())),
            ("typed_per_filter_config", "cors", |t| {
                t.typed_per_filter_config.insert("cors".to_owned(), any_type("x.Cors"));
            }),
            ("virtual_hosts[0].domains", "nothing", |t| host(t).domains.clear()),
            ("virtual_hosts[0].domains[0].domain", "orders:80", |t| host(t).domains = vec!["orders:80".to_owned()]),
            ("virtual_hosts[0].domains[0].domain", "*-suffix", |t| host(t).domains = vec!["*-suffix".to_owned()]),
            ("virtual_hosts[0].domains[0].domain", "prefix.*", |t| host(t).domains = vec!["prefix.*".to_owned()]),
            ("virtual_hosts[0].domains[0].domain", "``", |t| host(t).domains = vec![String::new()]),
            ("virtual_hosts[1].domains[0].domain", "`*`", |t| {
                let same = t.virtual_hosts[0].clone();
                t.virtual_hosts.push(same);
            }),
            ("virtual_hosts[0].require_tls", "", |t| host(t).require_tls = 2),
            ("virtual_hosts[0].rate_limits", "", |t| host(t).rate_limits.push(RateLimit::default())),
            ("virtual_hosts[0].cors", "", |t| host(t).cors = Some(CorsPolicy::default())),
            ("virtual_hosts[0].response_headers_to_remove", "", |t| {
                host(t).response_headers_to_remove.push("x".to_owned());
            }),
            ("virtual_hosts[0].routes[0].request_headers_to_add", "", |t| {
                host(t).routes[0].request_headers_to_add.push(HeaderValueOption::default());
            }),
            ("virtual_hosts[0].routes[0].match", "nothing", |t| host(t).routes[0].r#match = None),
            ("virtual_hosts[0].routes[0].route", "nothing", |t| host(t).routes[0].action = None),
            ("virtual_hosts[0].routes[0].redirect", "redirect", |t| {
                host(t).routes[0].action = Some(Action::Redirect(RedirectAction::default()));
            }),
            ("virtual_hosts[0].routes[0].direct_response", "direct", |t| {
                host(t).routes[0].action = Some(Action::DirectResponse(DirectResponseAction::default()));
            }),
            ("virtual_hosts[0].routes[0].filter_action", "filter", |t| {
                host(t).routes[0].action = Some(Action::FilterAction(FilterAction::default()));
            }),
            ("virtual_hosts[0].routes[0].non_forwarding_action", "non-forwarding", |t| {
                host(t).routes[0].action = Some(Action::NonForwardingAction(NonForwardingAction::default()));
            }),
        ],
    );
}

#[test]
fn what_a_match_may_not_say_is_refused_by_name() {
    use weft_proto::envoy::envoy::config::route::v3::RouteMatch;
    type Change = fn(&mut RouteMatch);
    let cases: [(&str, Change); 17] = [
        ("headers[0].name", |m| m.headers.push(HeaderMatcher::default())),
        ("headers[0].name", |m| m.headers.push(header(":path", None))),
        ("headers[0].name", |m| m.headers.push(header(":method", None))),
        ("headers[0].range_match", |m| m.headers.push(header("x", Some(HeaderIs::RangeMatch(Default::default()))))),
        ("headers[0].invert_match", |m| {
            let exact = Some(HeaderIs::ExactMatch("a".to_owned()));
            m.headers.push(HeaderMatcher { invert_match: true, ..header("x", exact) });
        }),
        ("headers[0].treat_missing_header_as_empty", |m| {
            m.headers.push(HeaderMatcher { treat_missing_header_as_empty: true, ..header("x", None) });
        }),
        ("headers[0].string_match.ignore_case", |m| {
            let wanted = StringMatcher { ignore_case: true, ..string(MatchPattern::Exact("a".to_owned())) };
            m.headers.push(header("x", Some(HeaderIs::StringMatch(wanted))));
        }),
        ("headers[0].string_match.safe_regex.regex", |m| {
            let wanted = string(MatchPattern::SafeRegex(regex("(")));
            m.headers.push(header("x", Some(HeaderIs::StringMatch(wanted))));
        }),
        ("query_parameters[0].name", |m| m.query_parameters.push(QueryParameterMatcher::default())),
        ("query_parameters[0].present_match", |m| {
            let is = Some(ParameterIs::PresentMatch(false));
            m.query_parameters
                .push(QueryParameterMatcher { name: "a".to_owned(), query_parameter_match_specifier: is });
        }),
        ("cookies", |m| m.cookies.push(CookieMatcher::default())),
        ("grpc", |m| m.grpc = Some(Default::default())),
        ("runtime_fraction", |m| m.runtime_fraction = Some(RuntimeFractionalPercent::default())),
        ("prefix", |m| m.path_specifier = None),
        ("safe_regex.regex", |m| m.path_specifier = Some(PathSpecifier::SafeRegex(regex("(?=a)")))),
        ("connect_matcher", |m| m.path_specifier = Some(PathSpecifier::ConnectMatcher(Default::default()))),
        ("case_sensitive", |m| {
            m.path_specifier = Some(PathSpecifier::Prefix("/a".to_owned()));
            m.case_sensitive = Some(BoolValue { value: false });
        }),
    ];
    for (field, change) in cases {
        let mut table = base();
        change(table.virtual_hosts[0].routes[0].r#match.as_mut().unwrap());
        let error = decode::route(&table.encode_to_vec()).unwrap_err();
        assert_eq!(error.field, format!("virtual_hosts[0].routes[0].match.{field}"));
    }
}

#[test]
fn what_an_action_may_not_say_is_refused_by_name() {
    type Change = fn(&mut RouteAction);
    let cases: [(&str, Change); 15] = [
        ("cluster_not_found_response_code", |a| a.cluster_not_found_response_code = 7),
        ("cluster", |a| a.cluster_specifier = None),
        ("cluster", |a| a.cluster_specifier = Some(ClusterSpecifier::Cluster(String::new()))),
        ("cluster_header", |a| a.cluster_specifier = Some(ClusterSpecifier::ClusterHeader("x".to_owned()))),
        ("cluster_specifier_plugin", |a| {
            a.cluster_specifier = Some(ClusterSpecifier::ClusterSpecifierPlugin("x".to_owned()));
        }),
        ("metadata_match", |a| a.metadata_match = Some(Default::default())),
        ("prefix_rewrite", |a| a.prefix_rewrite = "/".to_owned()),
        ("host_rewrite", |a| {
            a.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewriteLiteral("x".to_owned()));
        }),
        ("request_mirror_policies", |a| a.request_mirror_policies.push(RequestMirrorPolicy::default())),
        ("rate_limits", |a| a.rate_limits.push(RateLimit::default())),
        ("idle_timeout", |a| a.idle_timeout = seconds(5)),
        ("upgrade_configs", |a| a.upgrade_configs.push(UpgradeConfig::default())),
        ("internal_redirect_policy", |a| a.internal_redirect_policy = Some(InternalRedirectPolicy::default())),
        ("timeout", |a| a.timeout = seconds(-1)),
        ("max_stream_duration.grpc_timeout_header_max", |a| {
            a.max_stream_duration =
                Some(MaxStreamDuration { grpc_timeout_header_max: seconds(1), ..Default::default() });
        }),
    ];
    for (field, change) in cases {
        let mut table = base();
        change(action(&mut table));
        let error = decode::route(&table.encode_to_vec()).unwrap_err();
        assert_eq!(error.field, format!("virtual_hosts[0].routes[0].route.{field}"));
    }
}
