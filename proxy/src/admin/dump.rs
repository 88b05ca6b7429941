//! The live state as JSON for people, and as gauges for scrapers. Never a key.

mod routes;

use std::sync::Arc;

use serde_json::{Value, json};
use weft_core::detection::Verdict;
use weft_core::model::{ClusterSpec, Direction, EndpointSource, RouteSource, ServerNameSpec, WeightedCluster};
use weft_core::names::SpiffeId;

use crate::clock;
use crate::config::Tuning;
use crate::limits::NEVER;
use crate::state::{AskedSummary, Cluster, Demand, Kind, Listener, PeersSummary, Store};
use crate::telemetry::Gauges;
use crate::tls::Credentials;

/// Everything in force.
pub(super) fn config(store: &Store, credentials: Option<&Credentials>, tuning: &Tuning) -> Value {
    let mut dump = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "snapshot": store.load().version,
        "settings": settings(tuning),
        "certificate": credentials.map(certificate),
    });
    for (part, value) in [("listeners", listeners(store)), ("clusters", clusters(store)), ("peers", peers(store))] {
        dump[part] = value;
    }
    if let Some(demand) = store.demand() {
        dump["destinations"] = destinations(store, demand);
    }
    dump
}

/// What was asked for, by address.
fn destinations(store: &Store, demand: &Demand) -> Value {
    let now = clock::now();
    let mut asked = demand.summaries(|address| store.usage(address));
    asked.sort_unstable_by_key(|asked| asked.address);
    let destination = |asked: &AskedSummary| {
        json!({
            "address": asked.address.to_string(),
            "answer": asked.answer.map(Kind::label),
            "connections": asked.open,
            "unused_seconds": now.saturating_duration_since(asked.last).as_secs(),
        })
    };
    asked.iter().map(destination).collect()
}

/// By name; one that has several addresses is one.
pub(super) fn listeners(store: &Store) -> Value {
    let snapshot = store.load();
    let mut listeners: Vec<&Listener> = snapshot.listeners().map(AsRef::as_ref).collect();
    listeners.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    listeners.dedup_by(|a, b| a.spec.name == b.spec.name);
    listeners.into_iter().map(listener).collect()
}

/// By name.
pub(super) fn clusters(store: &Store) -> Value {
    let snapshot = store.load();
    let mut clusters: Vec<&Cluster> = snapshot.clusters().map(AsRef::as_ref).collect();
    clusters.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    clusters.into_iter().map(cluster).collect()
}

/// Workloads that are known by their addresses.
pub(super) fn peers(store: &Store) -> Value {
    store.peers().iter().map(of_peers).collect()
}

fn of_peers(summary: &PeersSummary) -> Value {
    let except = match &summary.spec.endpoints {
        EndpointSource::AnyPort { except, .. } => &except[..],
        _ => &[],
    };
    json!({
        "name": summary.spec.name.as_str(),
        "identities": identities(&summary.spec),
        "except_ports": except,
        "addresses": summary.addresses,
    })
}

/// Waits in seconds and limits, by the names they are set with.
fn settings(tuning: &Tuning) -> Value {
    let seconds = |wait: std::time::Duration| if wait == NEVER { Value::Null } else { json!(wait.as_secs_f64()) };
    json!({
        "handshake_timeout": seconds(tuning.handshake_timeout),
        "tls_resumption": tuning.tls_resumption,
        "request_headers_timeout": seconds(tuning.request_headers_timeout),
        "stream_idle_timeout": seconds(tuning.stream_idle_timeout),
        "idle_timeout": seconds(tuning.idle_timeout),
        "tcp_idle_timeout": seconds(tuning.tcp_idle_timeout),
        "delayed_close_timeout": seconds(tuning.delayed_close_timeout),
        "destination_timeout": seconds(tuning.destination_timeout),
        "upstream_idle_timeout": seconds(tuning.upstream_idle_timeout),
        "max_connections": tuning.max_connections,
        "max_buffered_bytes": tuning.max_buffered_bytes,
        "max_head_bytes": tuning.max_head_bytes,
        "max_fields": tuning.max_fields,
        "max_target_bytes": tuning.max_target_bytes,
    })
}

fn certificate(credentials: &Credentials) -> Value {
    let expires = credentials.expires_at.duration_since(clock::wall()).map_or(0, |left| left.as_secs());
    json!({
        "identity": credentials.identity.as_str(),
        "generation": credentials.generation,
        "expires_in_seconds": expires,
    })
}

fn listener(listener: &Listener) -> Value {
    let spec = &listener.spec;
    let detected = listener.detection.as_ref().map(|detection| {
        let belief = detection.belief();
        json!({ "protocol": belief.verdict().map(Verdict::name), "seen_here": belief.seen().is_some() })
    });
    let routes = match &spec.routes {
        Some(RouteSource::Named(name)) => {
            let rules = listener.routes.as_ref().and_then(|table| routes::rules(table));
            json!({ "name": name.as_str(), "known": listener.routes.is_some(), "rules": rules })
        }
        Some(RouteSource::Inline(table)) => json!({ "name": table.name.as_str(), "known": true }),
        None => Value::Null,
    };
    json!({
        "name": spec.name.as_str(),
        "direction": if spec.direction == Direction::Inbound { "inbound" } else { "outbound" },
        "addresses": spec.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "protocol": format!("{:?}", spec.protocol).to_lowercase(),
        "detected": detected,
        "tls": (spec.direction == Direction::Inbound).then(|| format!("{:?}", spec.tls).to_lowercase()),
        "routes": routes,
        "server_names": (!spec.server_names.is_empty()).then(|| spec.server_names.iter().map(server_names).collect::<Vec<_>>()),
        "cluster": spec.cluster.as_ref().map(|name| json!({ "name": name.as_str(), "known": listener.cluster.is_some() })),
    })
}

fn server_names(spec: &ServerNameSpec) -> Value {
    let cluster = |weighted: &WeightedCluster| json!({ "name": weighted.cluster.as_str(), "weight": weighted.weight });
    json!({ "names": spec.names, "clusters": spec.clusters.iter().map(cluster).collect::<Vec<_>>() })
}

fn cluster(cluster: &Cluster) -> Value {
    let spec = &cluster.spec;
    let endpoints = cluster.endpoints();
    let endpoints: Vec<Value> = endpoints
        .endpoints()
        .iter()
        .map(|endpoint| {
            json!({
                "address": endpoint.address().to_string(),
                "workload": endpoint.workload().as_str(),
                "health": format!("{:?}", endpoint.health()).to_lowercase(),
                "tls": if cluster.protects(endpoint) { "mutual" } else { "none" },
                "ejected": endpoint.is_ejected(),
                "in_flight": endpoint.in_flight(),
                "requests": endpoint.requests(),
                "latency_ms": endpoint.latency().map(|latency| latency.as_secs_f64() * 1e3),
            })
        })
        .collect();
    json!({
        "name": spec.name.as_str(),
        "service": spec.service.to_string(),
        "connect_timeout_ms": spec.connect_timeout.as_millis() as u64,
        "identities": identities(spec),
        "endpoints": endpoints,
        "original_destination": spec.endpoints == EndpointSource::OriginalDestination,
    })
}

/// Who must answer; `None` in plaintext.
fn identities(spec: &ClusterSpec) -> Option<Vec<&str>> {
    spec.tls.as_ref().map(|tls| tls.identities.iter().map(SpiffeId::as_str).collect())
}

/// What is read from live state at each scrape.
pub(super) fn gauges(store: &Store, gauges: &mut Gauges) {
    // Those without endpoints of their own have none to count.
    let has_endpoints = |cluster: &&Arc<Cluster>| cluster.spec.endpoints != EndpointSource::OriginalDestination;
    for cluster in store.load().clusters().filter(has_endpoints) {
        let labels = cluster.labels().pairs();
        let set = cluster.endpoints();
        gauges.add("gauge", "weft_endpoints", &labels, set.endpoints().len() as f64);
        for endpoint in set.endpoints() {
            let mut labels = labels.clone();
            labels.push(("endpoint", endpoint.workload().to_string()));
            gauges.add("gauge", "weft_endpoints_ejected", &labels, f64::from(u8::from(endpoint.is_ejected())));
            gauges.add("counter", "weft_endpoint_requests_total", &labels, endpoint.requests() as f64);
        }
    }
}
