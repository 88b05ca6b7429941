//! Route tables.

use weft_proto::envoy::envoy::config::core::v3::{HeaderValueOption, RuntimeFractionalPercent};
use weft_proto::envoy::envoy::config::route::v3::route::Action;
use weft_proto::envoy::envoy::config::route::v3::route_action::{
    ClusterSpecifier, HostRewriteSpecifier, MaxStreamDuration, RequestMirrorPolicy, UpgradeConfig,
};
use weft_proto::envoy::envoy::config::route::v3::{
    CookieMatcher, CorsPolicy, DirectResponseAction, FilterAction, HeaderMatcher, InternalRedirectPolicy,
    NonForwardingAction, QueryParameterMatcher, RateLimit, RedirectAction, Vhds, VirtualHost, WeightedCluster,
};
use weft_proto::envoy::envoy::r#type::matcher::v3::RegexMatcher;

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
    let [rule] = host.routes.as_slice() else { panic!("{spec:?}") };
    assert_eq!(rule.path, PathMatch::Prefix("/".to_owned()));
    assert_eq!((rule.cluster.as_str(), rule.timeout), ("default/orders:80", None));
}

#[test]
fn paths_keep_their_order_and_a_separated_prefix_is_two_rules() {
    let rules = [
        PathSpecifier::Path("/exact".to_owned()),
        PathSpecifier::PathSeparatedPrefix("/part".to_owned()),
        PathSpecifier::Prefix(String::new()),
    ];
    let spec = read(&with_rules(rules.map(|path| rule(path, to_cluster("c"))).to_vec()));
    let paths: Vec<_> = spec.virtual_hosts[0].routes.iter().map(|rule| rule.path.clone()).collect();
    let (exact, prefix) = (|p: &str| PathMatch::Exact(p.to_owned()), |p: &str| PathMatch::Prefix(p.to_owned()));
    assert_eq!(paths, [exact("/exact"), exact("/part"), prefix("/part/"), prefix("")]);
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
    let cases: [(&str, Change); 9] = [
        ("headers", |m| m.headers.push(HeaderMatcher::default())),
        ("query_parameters", |m| m.query_parameters.push(QueryParameterMatcher::default())),
        ("cookies", |m| m.cookies.push(CookieMatcher::default())),
        ("grpc", |m| m.grpc = Some(Default::default())),
        ("runtime_fraction", |m| m.runtime_fraction = Some(RuntimeFractionalPercent::default())),
        ("prefix", |m| m.path_specifier = None),
        ("safe_regex", |m| m.path_specifier = Some(PathSpecifier::SafeRegex(RegexMatcher::default()))),
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
        ("cluster", |a| a.cluster_specifier = None),
        ("cluster", |a| a.cluster_specifier = Some(ClusterSpecifier::Cluster(String::new()))),
        ("cluster_header", |a| a.cluster_specifier = Some(ClusterSpecifier::ClusterHeader("x".to_owned()))),
        ("weighted_clusters", |a| {
            a.cluster_specifier = Some(ClusterSpecifier::WeightedClusters(WeightedCluster::default()));
        }),
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
