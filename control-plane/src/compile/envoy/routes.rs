//! Routes of a service port: to its own endpoints, or as HTTPRoutes say, in the order in which they are asked.

use std::time::Duration as Time;

use bytes::Bytes;
use weft_proto::envoy::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use weft_proto::envoy::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use weft_proto::envoy::envoy::config::route::v3::route::Action;
use weft_proto::envoy::envoy::config::route::v3::route_action::{ClusterNotFoundResponseCode, ClusterSpecifier};
use weft_proto::envoy::envoy::config::route::v3::route_match::PathSpecifier;
use weft_proto::envoy::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use weft_proto::envoy::envoy::config::route::v3::{
    HeaderMatcher, QueryParameterMatcher, RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost,
    WeightedCluster,
};
use weft_proto::envoy::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use weft_proto::envoy::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};
use weft_proto::envoy::google::protobuf::{Duration, UInt32Value};

use super::{encode, policy};
use crate::document::{HttpPathMatch, HttpRouteMatch, PathMatchType, Retries, RouteRetry, Timeouts, ValueMatchType};

/// Requests to one host, `*` for all others.
pub(in crate::compile) struct Host<'d> {
    pub(in crate::compile) domain: String,
    /// The first that takes a request decides.
    pub(in crate::compile) rules: Vec<Rule<'d>>,
}

/// Requests that one match takes, and what happens to them.
#[derive(Clone)]
pub(in crate::compile) struct Rule<'d> {
    /// `NAMESPACE/ROUTE/RULE`
    pub(in crate::compile) name: String,
    /// `None`: every request.
    pub(in crate::compile) taken: Option<&'d HttpRouteMatch>,
    /// Clusters and their shares, at least one with a share.
    pub(in crate::compile) clusters: Vec<(String, u32)>,
    /// One of the clusters stands for a backend that is not valid: nobody describes it.
    pub(in crate::compile) has_invalid: bool,
    pub(in crate::compile) waits: Waits<'d>,
}

/// How long requests may take, and when they are tried again.
#[derive(Clone, Copy)]
pub(in crate::compile) struct Waits<'d> {
    pub(in crate::compile) request: Option<Time>,
    pub(in crate::compile) per_try: Option<Time>,
    pub(in crate::compile) retry: Retry<'d>,
}

/// Who says when.
#[derive(Clone, Copy)]
pub(in crate::compile) enum Retry<'d> {
    Rule(Option<&'d RouteRetry>),
    /// The rule says nothing, the service does.
    Service(&'d Retries),
}

/// Routes that send everything to one cluster.
pub(in crate::compile) fn route_configuration(
    name: &str,
    cluster: &str,
    timeouts: Option<Timeouts>,
    retries: Option<&Retries>,
) -> Bytes {
    let mut routes = to_one(name, cluster);
    for route in routes.virtual_hosts.iter_mut().flat_map(|host| &mut host.routes) {
        if let Some(Action::Route(action)) = &mut route.action {
            let timeouts = timeouts.unwrap_or_default();
            if let Some(request) = timeouts.request {
                action.timeout = Some(policy::duration(request.duration()));
            }
            action.retry_policy = policy::retries(timeouts.per_try, retries);
        }
    }
    encode(&routes)
}

/// The same without any policy: what comes in from peers has theirs already.
pub(super) fn to_one(name: &str, cluster: &str) -> RouteConfiguration {
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        // None: left out, Envoy would take 15 s.
        timeout: Some(Duration::default()),
        ..RouteAction::default()
    };
    let all = RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".to_owned())), ..RouteMatch::default() };
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: "all".to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![Route { r#match: Some(all), action: Some(Action::Route(action)), ..Route::default() }],
            ..VirtualHost::default()
        }],
        ..RouteConfiguration::default()
    }
}

/// The routes of a service port. `port`: other proxies than ours look at a host with its port.
pub(in crate::compile) fn configuration(name: &str, port: u16, hosts: &[Host<'_>]) -> Bytes {
    encode(&RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: hosts.iter().map(|host| virtual_host(host, port)).collect(),
        ..RouteConfiguration::default()
    })
}

fn virtual_host(host: &Host<'_>, port: u16) -> VirtualHost {
    let domain = &host.domain;
    let domains = if domain == "*" { vec![domain.clone()] } else { vec![domain.clone(), format!("{domain}:{port}")] };
    VirtualHost {
        name: domain.clone(),
        domains,
        routes: host.rules.iter().map(route).collect(),
        ..VirtualHost::default()
    }
}

fn route(rule: &Rule<'_>) -> Route {
    let missing = if rule.has_invalid {
        ClusterNotFoundResponseCode::InternalServerError
    } else {
        ClusterNotFoundResponseCode::ServiceUnavailable
    };
    let action = RouteAction {
        cluster_specifier: Some(clusters(&rule.clusters)),
        cluster_not_found_response_code: missing as i32,
        // None: left out, Envoy would take 15 s.
        timeout: Some(policy::duration(rule.waits.request.unwrap_or_default())),
        retry_policy: retries(rule.waits),
        ..RouteAction::default()
    };
    Route {
        name: rule.name.clone(),
        r#match: Some(route_match(rule.taken)),
        action: Some(Action::Route(action)),
        ..Route::default()
    }
}

fn retries(waits: Waits<'_>) -> Option<RetryPolicy> {
    match waits.retry {
        Retry::Rule(retry) => policy::of_rule(waits.per_try, retry),
        Retry::Service(retries) => Some(policy::of_service(waits.per_try, retries)),
    }
}

fn clusters(shares: &[(String, u32)]) -> ClusterSpecifier {
    if let [(only, _)] = shares {
        return ClusterSpecifier::Cluster(only.clone());
    }
    let weight = |(name, weight): &(String, u32)| ClusterWeight {
        name: name.clone(),
        weight: Some(UInt32Value { value: *weight }),
        ..ClusterWeight::default()
    };
    ClusterSpecifier::WeightedClusters(WeightedCluster {
        clusters: shares.iter().map(weight).collect(),
        ..WeightedCluster::default()
    })
}

fn route_match(taken: Option<&HttpRouteMatch>) -> RouteMatch {
    let Some(taken) = taken else {
        return RouteMatch { path_specifier: Some(path(&HttpPathMatch::default())), ..RouteMatch::default() };
    };
    let header = |name: &str, pattern| HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(string(pattern))),
        ..HeaderMatcher::default()
    };
    let method = taken.method.map(|method| header(":method", MatchPattern::Exact(method.as_str().to_owned())));
    let headers = taken.headers().map(|wanted| header(&wanted.name, pattern(wanted.r#type, &wanted.value)));
    let parameters = taken.query_params().map(|wanted| QueryParameterMatcher {
        name: wanted.name.clone(),
        query_parameter_match_specifier: Some(QueryParameterMatchSpecifier::StringMatch(string(pattern(
            wanted.r#type,
            &wanted.value,
        )))),
    });
    RouteMatch {
        path_specifier: Some(path(&taken.path)),
        headers: method.into_iter().chain(headers).collect(),
        query_parameters: parameters.collect(),
        ..RouteMatch::default()
    }
}

fn path(path: &HttpPathMatch) -> PathSpecifier {
    match path.r#type {
        PathMatchType::Exact => PathSpecifier::Path(path.value.clone()),
        PathMatchType::RegularExpression => PathSpecifier::SafeRegex(regex(&path.value)),
        // Envoy refuses one that ends in a slash, and with it the root.
        PathMatchType::PathPrefix => match path.value.trim_end_matches('/') {
            "" => PathSpecifier::Prefix("/".to_owned()),
            segments => PathSpecifier::PathSeparatedPrefix(segments.to_owned()),
        },
    }
}

fn pattern(kind: ValueMatchType, value: &str) -> MatchPattern {
    match kind {
        ValueMatchType::Exact => MatchPattern::Exact(value.to_owned()),
        ValueMatchType::RegularExpression => MatchPattern::SafeRegex(regex(value)),
    }
}

fn string(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }
}

fn regex(text: &str) -> RegexMatcher {
    RegexMatcher { regex: text.to_owned(), ..RegexMatcher::default() }
}
