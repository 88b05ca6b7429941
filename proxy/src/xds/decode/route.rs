//! `RouteConfiguration`: authorities and paths to clusters.

#![allow(deprecated, reason = "deprecated fields are read so that they can be refused by name")]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use weft_core::model::{PathMatch, RouteSpec, RouteTableSpec, VirtualHostSpec};
use weft_core::names::{ClusterName, RouteName};
use weft_core::retry::RetryPolicy;
use weft_proto::envoy::envoy::config::route::v3::route::Action;
use weft_proto::envoy::envoy::config::route::v3::route_action::{ClusterSpecifier, InternalRedirectAction};
use weft_proto::envoy::envoy::config::route::v3::route_match::PathSpecifier;
use weft_proto::envoy::envoy::config::route::v3::{
    FilterConfig, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost,
};
use weft_proto::envoy::google::protobuf;

use super::field::{Decoding, Refusal, Within, duration, is_true, lasts, present, type_name, unset};
use super::retry;

/// Reads a route table. Its name may be empty: within a listener it needs none.
pub(super) fn route_table(table: &RouteConfiguration) -> Decoding<RouteTableSpec> {
    unset(&[
        ("vhds", table.vhds.is_some()),
        ("internal_only_headers", !table.internal_only_headers.is_empty()),
        ("request_headers_to_add", !table.request_headers_to_add.is_empty()),
        ("request_headers_to_remove", !table.request_headers_to_remove.is_empty()),
        ("response_headers_to_add", !table.response_headers_to_add.is_empty()),
        ("response_headers_to_remove", !table.response_headers_to_remove.is_empty()),
        ("request_mirror_policies", !table.request_mirror_policies.is_empty()),
        ("vhost_header", !table.vhost_header.is_empty()),
        ("ignore_path_parameters_in_path_matching", table.ignore_path_parameters_in_path_matching),
        ("route_specifiers", !table.route_specifiers.is_empty()),
    ])?;
    filter_settings(&table.typed_per_filter_config)?;
    let mut taken = HashSet::new();
    let virtual_hosts = table
        .virtual_hosts
        .iter()
        .enumerate()
        .map(|(index, host)| virtual_host(host, &mut taken).within_item("virtual_hosts", index))
        .collect::<Decoding<_>>()?;
    Ok(RouteTableSpec { name: RouteName::from(table.name.as_str()), virtual_hosts })
}

/// Settings for HTTP filters: the proxy has none of them, so only what may be ignored may stand here.
fn filter_settings(settings: &HashMap<String, protobuf::Any>) -> Decoding<()> {
    const FILTER_CONFIG: &str = "envoy.config.route.v3.FilterConfig";
    let mut filters: Vec<_> = settings.iter().collect();
    filters.sort_unstable_by_key(|(name, _)| *name);
    for (name, any) in filters {
        let ignorable = type_name(&any.type_url) == FILTER_CONFIG
            && FilterConfig::decode(any.value.as_slice()).is_ok_and(|config| config.is_optional || config.disabled);
        if !ignorable {
            return Err(Refusal::new("typed_per_filter_config", name, "settings of optional filters"));
        }
    }
    Ok(())
}

fn virtual_host(host: &VirtualHost, taken: &mut HashSet<String>) -> Decoding<VirtualHostSpec> {
    unset(&[
        ("matcher", host.matcher.is_some()),
        ("require_tls", host.require_tls != 0),
        ("rate_limits", !host.rate_limits.is_empty()),
        ("request_headers_to_add", !host.request_headers_to_add.is_empty()),
        ("request_headers_to_remove", !host.request_headers_to_remove.is_empty()),
        ("response_headers_to_add", !host.response_headers_to_add.is_empty()),
        ("response_headers_to_remove", !host.response_headers_to_remove.is_empty()),
        ("cors", host.cors.is_some()),
        ("retry_policy_typed_config", host.retry_policy_typed_config.is_some()),
        ("hedge_policy", host.hedge_policy.is_some()),
        ("request_mirror_policies", !host.request_mirror_policies.is_empty()),
        ("route_specifiers", !host.route_specifiers.is_empty()),
    ])?;
    filter_settings(&host.typed_per_filter_config)?;
    let retries = host.retry_policy.as_ref().map(retry::policy).transpose().within("retry_policy")?;
    let mut routes = Vec::with_capacity(host.routes.len());
    for (index, rule) in host.routes.iter().enumerate() {
        routes.extend(route(rule, retries.as_ref()).within_item("routes", index)?);
    }
    Ok(VirtualHostSpec { domains: domains(&host.domains, taken)?, routes })
}

/// Domains in the model's form, each once in the whole table (Envoy refuses a second one too).
///
/// The proxy compares authorities without port. `shop:80` beside `shop` in one virtual host says the same and is
/// dropped; alone it would widen from one port to all and is refused.
fn domains(domains: &[String], taken: &mut HashSet<String>) -> Decoding<Vec<String>> {
    if domains.is_empty() {
        return Err(Refusal::missing("domains", "at least one"));
    }
    let lower: Vec<String> = domains.iter().map(|domain| domain.to_ascii_lowercase()).collect();
    let mut kept = Vec::with_capacity(lower.len());
    for (index, domain) in lower.iter().enumerate() {
        let refuse = |supported| Err(Refusal::new("domain", format_args!("`{domain}`"), supported));
        let refused = match without_port(domain) {
            Some(bare) if lower.iter().any(|other| other == bare) => continue,
            Some(_) => refuse("the same domain without port beside it"),
            None if !is_domain(domain) => refuse("a host, `*`, or `*.` before a host"),
            None if !taken.insert(domain.clone()) => refuse("each domain once"),
            None => {
                kept.push(domain.clone());
                Ok(())
            }
        };
        refused.within_item("domains", index)?;
    }
    Ok(kept)
}

fn without_port(domain: &str) -> Option<&str> {
    let (host, port) = domain.rsplit_once(':')?;
    let is_port = !port.is_empty() && (port == "*" || port.bytes().all(|b| b.is_ascii_digit()));
    let host_is_whole = !host.contains(':') || host.ends_with(']');
    (is_port && host_is_whole && !host.is_empty()).then_some(host)
}

fn is_domain(domain: &str) -> bool {
    let host = domain.strip_prefix("*.").unwrap_or(domain);
    domain == "*" || (!host.is_empty() && !host.contains(['*', '/', ' ']) && !host.starts_with('.'))
}

/// `retries`: what the virtual host says of them, for routes that say nothing.
fn route(rule: &Route, retries: Option<&Arc<RetryPolicy>>) -> Decoding<Vec<RouteSpec>> {
    unset(&[
        ("request_headers_to_add", !rule.request_headers_to_add.is_empty()),
        ("request_headers_to_remove", !rule.request_headers_to_remove.is_empty()),
        ("response_headers_to_add", !rule.response_headers_to_add.is_empty()),
        ("response_headers_to_remove", !rule.response_headers_to_remove.is_empty()),
        ("route_specifiers", !rule.route_specifiers.is_empty()),
    ])?;
    filter_settings(&rule.typed_per_filter_config)?;
    let paths =
        paths(rule.r#match.as_ref().ok_or_else(|| Refusal::missing("match", "prefix or path"))?).within("match")?;
    let (cluster, timeout, own) = match &rule.action {
        Some(Action::Route(action)) => forward(action).within("route")?,
        Some(Action::Redirect(_)) => return Err(Refusal::new("redirect", "a redirect", "route")),
        Some(Action::DirectResponse(_)) => return Err(Refusal::new("direct_response", "a direct response", "route")),
        Some(Action::FilterAction(_)) => return Err(Refusal::new("filter_action", "a filter action", "route")),
        Some(Action::NonForwardingAction(_)) => {
            return Err(Refusal::new("non_forwarding_action", "a non-forwarding action", "route"));
        }
        None => return Err(Refusal::missing("route", "route")),
    };
    // As a whole: what a route leaves out of its policy is not the virtual host's.
    let retry = own.as_ref().or(retries);
    let rule = |path| RouteSpec { path, cluster: cluster.clone(), timeout, retry: retry.cloned() };
    Ok(paths.into_iter().map(rule).collect())
}

/// The paths of one match, in order of precedence; several stand for one rule each.
fn paths(rule: &RouteMatch) -> Decoding<Vec<PathMatch>> {
    unset(&[
        ("runtime_fraction", rule.runtime_fraction.is_some()),
        ("headers", !rule.headers.is_empty()),
        ("query_parameters", !rule.query_parameters.is_empty()),
        ("cookies", !rule.cookies.is_empty()),
        ("grpc", rule.grpc.is_some()),
        ("tls_context", rule.tls_context.is_some()),
        ("dynamic_metadata", !rule.dynamic_metadata.is_empty()),
        ("filter_state", !rule.filter_state.is_empty()),
    ])?;
    let paths = match &rule.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => vec![PathMatch::Prefix(prefix.clone())],
        Some(PathSpecifier::Path(path)) => vec![PathMatch::Exact(path.clone())],
        // `/a` takes `/a` and what is below `/a/`, not `/ab`: exactly these two rules.
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => {
            vec![PathMatch::Exact(prefix.clone()), PathMatch::Prefix(format!("{}/", prefix.trim_end_matches('/')))]
        }
        Some(PathSpecifier::SafeRegex(_)) => return Err(unsupported_path("safe_regex")),
        Some(PathSpecifier::ConnectMatcher(_)) => return Err(unsupported_path("connect_matcher")),
        Some(PathSpecifier::PathMatchPolicy(_)) => return Err(unsupported_path("path_match_policy")),
        None => return Err(Refusal::missing("prefix", "prefix, path or path_separated_prefix")),
    };
    let ignores_case = rule.case_sensitive.is_some_and(|flag| !flag.value);
    let has_letters = |path: &PathMatch| match path {
        PathMatch::Prefix(text) | PathMatch::Exact(text) => text.bytes().any(|b| b.is_ascii_alphabetic()),
    };
    if ignores_case && paths.iter().any(has_letters) {
        return Err(Refusal::new("case_sensitive", "false", "true"));
    }
    Ok(paths)
}

fn unsupported_path(field: &str) -> Refusal {
    Refusal::new(field, "a value", "prefix, path or path_separated_prefix")
}

type Forwarding = (ClusterName, Option<Duration>, Option<Arc<RetryPolicy>>);

fn forward(action: &RouteAction) -> Decoding<Forwarding> {
    unset(&[
        ("metadata_match", action.metadata_match.is_some()),
        ("prefix_rewrite", !action.prefix_rewrite.is_empty()),
        ("regex_rewrite", action.regex_rewrite.is_some()),
        ("path_rewrite_policy", action.path_rewrite_policy.is_some()),
        ("path_rewrite", !action.path_rewrite.is_empty()),
        ("host_rewrite", action.host_rewrite_specifier.is_some()),
        ("append_x_forwarded_host", action.append_x_forwarded_host),
        ("idle_timeout", lasts(action.idle_timeout.as_ref())),
        ("retry_policy_typed_config", action.retry_policy_typed_config.is_some()),
        ("request_mirror_policies", !action.request_mirror_policies.is_empty()),
        ("rate_limits", !action.rate_limits.is_empty()),
        ("cors", action.cors.is_some()),
        ("max_grpc_timeout", action.max_grpc_timeout.is_some()),
        (
            "upgrade_configs",
            action.upgrade_configs.iter().any(|upgrade| upgrade.enabled.is_none() || is_true(upgrade.enabled.as_ref())),
        ),
        ("internal_redirect_policy", action.internal_redirect_policy.is_some()),
        (
            "internal_redirect_action",
            action.internal_redirect_action != InternalRedirectAction::PassThroughInternalRedirect as i32,
        ),
        ("hedge_policy", action.hedge_policy.is_some()),
    ])?;
    let supported = "cluster";
    let cluster = match &action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => name,
        Some(ClusterSpecifier::ClusterHeader(_)) => return Err(Refusal::new("cluster_header", "a value", supported)),
        Some(ClusterSpecifier::WeightedClusters(_)) => {
            return Err(Refusal::new("weighted_clusters", "a value", supported));
        }
        Some(ClusterSpecifier::ClusterSpecifierPlugin(_) | ClusterSpecifier::InlineClusterSpecifierPlugin(_)) => {
            return Err(Refusal::new("cluster_specifier_plugin", "a value", supported));
        }
        None => return Err(Refusal::missing("cluster", supported)),
    };
    present(cluster, "cluster")?;
    let retries = action.retry_policy.as_ref().map(retry::policy).transpose().within("retry_policy")?;
    Ok((ClusterName::from(cluster.as_str()), timeout(action)?, retries))
}

/// The route's deadline: the shorter of `timeout` and `max_stream_duration`, zero meaning none.
///
/// Absent means none here, not Envoy's 15 s: a proxy cannot know how long a stream may take, and gRPC clients read the
/// absence the same way. Whoever wants a deadline says so.
fn timeout(action: &RouteAction) -> Decoding<Option<Duration>> {
    let mut limit = duration(action.timeout.as_ref(), "timeout")?.filter(|timeout| !timeout.is_zero());
    if let Some(stream) = &action.max_stream_duration {
        unset(&[("grpc_timeout_header_max", stream.grpc_timeout_header_max.is_some())])
            .within("max_stream_duration")?;
        let longest = duration(stream.max_stream_duration.as_ref(), "max_stream_duration.max_stream_duration")?;
        let longest = longest.filter(|longest| !longest.is_zero());
        limit = match (limit, longest) {
            (Some(limit), Some(longest)) => Some(limit.min(longest)),
            (limit, longest) => limit.or(longest),
        };
    }
    Ok(limit)
}
