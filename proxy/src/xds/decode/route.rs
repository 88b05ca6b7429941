//! `RouteConfiguration`: which requests go to which clusters, and how long that may take.

#![allow(deprecated, reason = "deprecated fields are read so that they can be refused by name")]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use weft_core::model::{MissingCluster, RouteSpec, RouteTableSpec, VirtualHostSpec, WeightedCluster};
use weft_core::names::RouteName;
use weft_core::retry::RetryPolicy;
use weft_proto::envoy::envoy::config::route::v3::route::Action;
use weft_proto::envoy::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, InternalRedirectAction,
};
use weft_proto::envoy::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use weft_proto::envoy::envoy::config::route::v3::{
    FilterConfig, Route, RouteAction, RouteConfiguration, VirtualHost, WeightedCluster as Shares,
};
use weft_proto::envoy::google::protobuf;

use super::field::{Decoding, Refusal, Within, duration, is_true, lasts, present, type_name, unset};
use super::{retry, route_match};

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
        routes.push(route(rule, retries.as_ref()).within_item("routes", index)?);
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
fn route(rule: &Route, retries: Option<&Arc<RetryPolicy>>) -> Decoding<RouteSpec> {
    unset(&[
        ("request_headers_to_add", !rule.request_headers_to_add.is_empty()),
        ("request_headers_to_remove", !rule.request_headers_to_remove.is_empty()),
        ("response_headers_to_add", !rule.response_headers_to_add.is_empty()),
        ("response_headers_to_remove", !rule.response_headers_to_remove.is_empty()),
        ("route_specifiers", !rule.route_specifiers.is_empty()),
    ])?;
    filter_settings(&rule.typed_per_filter_config)?;
    let matched = rule.r#match.as_ref().ok_or_else(|| Refusal::missing("match", "prefix or path"))?;
    let (path, conditions) = route_match::read(matched).within("match")?;
    let forwarding = match &rule.action {
        Some(Action::Route(action)) => forward(action).within("route")?,
        Some(Action::Redirect(_)) => return Err(Refusal::new("redirect", "a redirect", "route")),
        Some(Action::DirectResponse(_)) => return Err(Refusal::new("direct_response", "a direct response", "route")),
        Some(Action::FilterAction(_)) => return Err(Refusal::new("filter_action", "a filter action", "route")),
        Some(Action::NonForwardingAction(_)) => {
            return Err(Refusal::new("non_forwarding_action", "a non-forwarding action", "route"));
        }
        None => return Err(Refusal::missing("route", "route")),
    };
    Ok(RouteSpec {
        name: (!rule.name.is_empty()).then(|| rule.name.as_str().into()),
        path,
        conditions,
        clusters: forwarding.clusters,
        missing: forwarding.missing,
        timeout: forwarding.timeout,
        // As a whole: what a route leaves out of its policy is not the virtual host's.
        retry: forwarding.retry.or_else(|| retries.cloned()),
    })
}

/// Where a route sends, and how long it waits.
struct Forwarding {
    clusters: Vec<WeightedCluster>,
    missing: MissingCluster,
    timeout: Option<Duration>,
    retry: Option<Arc<RetryPolicy>>,
}

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
    let retry = action.retry_policy.as_ref().map(retry::policy).transpose().within("retry_policy")?;
    Ok(Forwarding { clusters: clusters(action)?, missing: missing(action)?, timeout: timeout(action)?, retry })
}

/// The clusters that share a route.
fn clusters(action: &RouteAction) -> Decoding<Vec<WeightedCluster>> {
    let supported = "cluster or weighted_clusters";
    match &action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => {
            present(name, "cluster")?;
            Ok(vec![WeightedCluster { cluster: name.as_str().into(), weight: 1 }])
        }
        Some(ClusterSpecifier::WeightedClusters(weighted)) => shares(weighted).within("weighted_clusters"),
        Some(ClusterSpecifier::ClusterHeader(_)) => Err(Refusal::new("cluster_header", "a value", supported)),
        Some(ClusterSpecifier::ClusterSpecifierPlugin(_) | ClusterSpecifier::InlineClusterSpecifierPlugin(_)) => {
            Err(Refusal::new("cluster_specifier_plugin", "a value", supported))
        }
        None => Err(Refusal::missing("cluster", supported)),
    }
}

/// Weights are shares of their sum, which must be one that Envoy takes.
fn shares(weighted: &Shares) -> Decoding<Vec<WeightedCluster>> {
    // With it, shares come from a header; at run time they could only be changed where there is such a thing.
    unset(&[("random_value_specifier", weighted.random_value_specifier.is_some())])?;
    let mut clusters = Vec::with_capacity(weighted.clusters.len());
    for (index, share) in weighted.clusters.iter().enumerate() {
        clusters.push(cluster_weight(share).within_item("clusters", index)?);
    }
    let sum: u64 = clusters.iter().map(|share| u64::from(share.weight)).sum();
    let wanted = weighted.total_weight.as_ref().map_or(sum, |total| u64::from(total.value));
    if sum != wanted {
        return Err(Refusal::new("total_weight", wanted, "the sum of the weights, or nothing"));
    }
    if !(1..=u64::from(u32::MAX)).contains(&sum) {
        return Err(Refusal::new("clusters", format_args!("weights of {sum} in all"), "a sum from 1 to 4294967295"));
    }
    Ok(clusters)
}

fn cluster_weight(share: &ClusterWeight) -> Decoding<WeightedCluster> {
    unset(&[
        ("cluster_header", !share.cluster_header.is_empty()),
        ("metadata_match", share.metadata_match.is_some()),
        ("request_headers_to_add", !share.request_headers_to_add.is_empty()),
        ("request_headers_to_remove", !share.request_headers_to_remove.is_empty()),
        ("response_headers_to_add", !share.response_headers_to_add.is_empty()),
        ("response_headers_to_remove", !share.response_headers_to_remove.is_empty()),
        ("host_rewrite", share.host_rewrite_specifier.is_some()),
    ])?;
    filter_settings(&share.typed_per_filter_config)?;
    present(&share.name, "name")?;
    // Absent is 0: Envoy's documentation of the field.
    let weight = share.weight.as_ref().map_or(0, |weight| weight.value);
    Ok(WeightedCluster { cluster: share.name.as_str().into(), weight })
}

fn missing(action: &RouteAction) -> Decoding<MissingCluster> {
    match ClusterNotFoundResponseCode::try_from(action.cluster_not_found_response_code) {
        Ok(ClusterNotFoundResponseCode::ServiceUnavailable) => Ok(MissingCluster::Unavailable),
        Ok(ClusterNotFoundResponseCode::NotFound) => Ok(MissingCluster::NotFound),
        Ok(ClusterNotFoundResponseCode::InternalServerError) => Ok(MissingCluster::NoBackend),
        Err(_) => {
            let found = action.cluster_not_found_response_code;
            Err(Refusal::new("cluster_not_found_response_code", found, "a code of the v3 API"))
        }
    }
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
