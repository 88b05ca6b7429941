//! Route tables as people read them.

use std::sync::Arc;

use serde_json::{Value, json};
use weft_core::model::{PathMatch, RequestConditions, TextMatch, ValueMatch};
use weft_core::route::{Route, RouteTable};

use crate::state::Cluster;

/// The rules of a table, where there is more to say than that everything goes to one cluster.
pub(super) fn rules(table: &RouteTable<Arc<Cluster>>) -> Option<Vec<Value>> {
    let says_something = table.routes().count() > 1 || table.routes().any(|route| route.name().is_some());
    says_something.then(|| table.hosts().map(|(domains, routes)| host(&domains, routes)).collect())
}

fn host(domains: &[String], routes: &[Route<Arc<Cluster>>]) -> Value {
    json!({ "hosts": domains, "routes": routes.iter().map(rule).collect::<Vec<_>>() })
}

fn rule(route: &Route<Arc<Cluster>>) -> Value {
    let clusters = route
        .split()
        .shares()
        .map(|(name, weight, target)| json!({ "name": name.as_str(), "weight": weight, "known": target.is_some() }));
    json!({
        "name": route.name().map(|name| &**name),
        "path": path(route.path()),
        "conditions": route.conditions().map(conditions),
        "clusters": clusters.collect::<Vec<_>>(),
        "timeout_ms": route.timeout().map(|timeout| timeout.as_millis() as u64),
        "retries": route.retry().map(|policy| policy.retries),
    })
}

fn path(path: &PathMatch) -> String {
    match path {
        PathMatch::Prefix(text) => format!("prefix {text}"),
        PathMatch::Exact(text) => format!("exact {text}"),
        PathMatch::Segments(text) => format!("{text} and below"),
        PathMatch::Pattern(pattern) => format!("pattern {}", pattern.as_str()),
    }
}

fn conditions(conditions: &RequestConditions) -> Vec<String> {
    let method = conditions.method.iter().map(|method| format!("method {method}"));
    let headers = conditions.headers.iter().map(|header| format!("header {}", value(header)));
    let query = conditions.query.iter().map(|parameter| format!("query {}", value(parameter)));
    method.chain(headers).chain(query).collect()
}

fn value(wanted: &ValueMatch) -> String {
    let name = &wanted.name;
    match &wanted.value {
        TextMatch::Exact(text) => format!("{name} is {text}"),
        TextMatch::Prefix(text) => format!("{name} begins with {text}"),
        TextMatch::Suffix(text) => format!("{name} ends with {text}"),
        TextMatch::Contains(text) => format!("{name} contains {text}"),
        TextMatch::Pattern(pattern) => format!("{name} matches {}", pattern.as_str()),
        TextMatch::Present => format!("{name} is there"),
        TextMatch::Absent => format!("{name} is not there"),
    }
}
