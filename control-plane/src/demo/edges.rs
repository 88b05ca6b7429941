//! Golden signals from two scrapes: who calls whom, how much, how well, how fast, and which replica answers.
//!
//! An edge (source, destination) is what the source's proxies counted outbound. A replica is what the proxy beside it
//! counted inbound, so that its own speed and failures show even where callers are spared them by retries.
//! A counter that went down belongs to a proxy that started again: all it counts since is new.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::scrape::{Labels, Scrape};

pub mod distribution;

pub use distribution::Distribution;

/// The scrapes of one moment, by workload.
pub type Snapshot = BTreeMap<String, Scrape>;

/// Whether the connections of an edge are mutual TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mtls {
    /// No connection so far.
    #[default]
    Unknown,
    No,
    Partly,
    Yes,
}

impl Mtls {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "-",
            Self::No => "no",
            Self::Partly => "partly",
            Self::Yes => "yes",
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unknown, other) => other,
            (this, Self::Unknown) => this,
            (this, other) if this == other => this,
            _ => Self::Partly,
        }
    }
}

/// What went from a source to a destination during an interval.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Edge {
    pub source: String,
    pub destination: String,
    /// The interval's length.
    pub elapsed: Duration,
    pub requests: f64,
    /// Requests that ended in 5xx, or without an answer.
    pub failures: f64,
    pub latency: Distribution,
    /// Of all connections so far, not only this interval's: kept connections are opened once.
    pub mtls: Mtls,
    /// Endpoints out of balancing at the interval's end, in the proxy that has most of them out.
    pub ejected: u64,
    /// Which ones they are, where proxies say so.
    pub out: BTreeSet<String>,
    /// Ejections during the interval.
    pub ejections: f64,
    pub retries: f64,
    /// Requests sent to each endpoint, where proxies count them.
    pub endpoints: BTreeMap<String, f64>,
}

impl Edge {
    /// Whether anything ever went there: a proxy knows every service, called or not.
    pub fn is_used(&self) -> bool {
        self.requests > 0.0 || self.mtls != Mtls::Unknown
    }

    /// Requests per second; zero for an interval without length.
    pub fn rate(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.requests / seconds } else { 0.0 }
    }

    /// The fraction of requests that did not fail; none without requests.
    pub fn success(&self) -> Option<f64> {
        success(self.requests, self.failures)
    }

    /// Takes in what the same edge did in the interval after.
    pub fn extend(&mut self, later: &Self) {
        self.elapsed += later.elapsed;
        self.requests += later.requests;
        self.failures += later.failures;
        self.latency.extend(&later.latency);
        self.mtls = self.mtls.and(later.mtls);
        self.ejected = later.ejected;
        self.out.clone_from(&later.out);
        self.ejections += later.ejections;
        self.retries += later.retries;
        for (endpoint, requests) in &later.endpoints {
            *self.endpoints.entry(endpoint.clone()).or_default() += requests;
        }
    }

    pub fn to_json(&self) -> Value {
        json!({
            "source": self.source, "destination": self.destination,
            "requests": self.requests, "rate": self.rate(), "failures": self.failures, "success": self.success(),
            "p50_ms": self.latency.millis(0.5), "p95_ms": self.latency.millis(0.95), "p99_ms": self.latency.millis(0.99),
            "mtls": self.mtls.as_str(), "ejected": self.ejected, "ejections": self.ejections, "retries": self.retries,
        })
    }
}

/// What one replica of a destination did during an interval.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Replica {
    pub destination: String,
    pub name: String,
    pub elapsed: Duration,
    /// Requests sent to it.
    pub requests: f64,
    /// Requests it answered, by its own proxy's count; differs from `requests` when it could not be reached.
    pub answered: f64,
    pub failures: f64,
    pub latency: Distribution,
}

impl Replica {
    /// Requests per second; zero for an interval without length.
    pub fn rate(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.requests / seconds } else { 0.0 }
    }

    /// The fraction of its answers that were no failures; none without answers.
    pub fn success(&self) -> Option<f64> {
        success(self.answered, self.failures)
    }

    /// Takes in what the same replica did in the interval after.
    pub fn extend(&mut self, later: &Self) {
        self.elapsed += later.elapsed;
        self.requests += later.requests;
        self.answered += later.answered;
        self.failures += later.failures;
        self.latency.extend(&later.latency);
    }

    pub fn to_json(&self, share: Option<f64>) -> Value {
        json!({
            "destination": self.destination, "name": self.name, "requests": self.requests, "share": share,
            "failures": self.failures, "success": self.success(),
            "p50_ms": self.latency.millis(0.5), "p95_ms": self.latency.millis(0.95), "p99_ms": self.latency.millis(0.99),
        })
    }
}

fn success(requests: f64, failures: f64) -> Option<f64> {
    (requests > 0.0).then(|| (1.0 - failures / requests).clamp(0.0, 1.0))
}

/// A name as people say it: the default namespace goes without saying.
pub fn short(name: &str) -> &str {
    name.strip_prefix("default/").unwrap_or(name)
}

/// The fraction of its destination's requests each replica got, in the order given.
pub fn shares(replicas: &[Replica]) -> Vec<Option<f64>> {
    let mut totals: BTreeMap<&str, f64> = BTreeMap::new();
    for replica in replicas {
        *totals.entry(&replica.destination).or_default() += replica.requests;
    }
    let share = |replica: &Replica| {
        let total = totals[replica.destination.as_str()];
        (total > 0.0).then(|| replica.requests / total)
    };
    replicas.iter().map(share).collect()
}

/// The edges of an interval, by source and destination.
pub fn edges(previous: &Snapshot, current: &Snapshot, elapsed: Duration) -> Vec<Edge> {
    let mut edges: BTreeMap<(String, String), Edge> = BTreeMap::new();
    for (proxy, now) in current {
        let before = previous.get(proxy);
        let mut each = |metric: &str, apply: &mut dyn FnMut(&mut Edge, &Labels, f64, f64)| {
            for (labels, value) in now.series(metric) {
                let Some((source, destination)) = ends(labels, "outbound") else { continue };
                let edge = edges.entry((source.to_owned(), destination.to_owned())).or_insert_with(|| Edge {
                    source: source.to_owned(),
                    destination: destination.to_owned(),
                    elapsed,
                    ..Edge::default()
                });
                apply(edge, labels, value, increase(before.and_then(|before| before.value(metric, labels)), value));
            }
        };
        each("weft_requests_total", &mut |edge, labels, _, more| {
            edge.requests += more;
            if is_failure(labels) {
                edge.failures += more;
            }
        });
        each("weft_request_duration_seconds_bucket", &mut |edge, labels, _, more| edge.latency.add(labels, more));
        each("weft_connections_total", &mut |edge, labels, total, _| edge.mtls = edge.mtls.and(mtls(labels, total)));
        // Who balances for whom is one proxy's view; several views of the same endpoint do not add up.
        let mut out: BTreeMap<(String, String), u64> = BTreeMap::new();
        each("weft_endpoints_ejected", &mut |edge, labels, value, _| {
            let out = out.entry((edge.source.clone(), edge.destination.clone())).or_default();
            *out += value.max(0.0) as u64;
            edge.ejected = edge.ejected.max(*out);
            if let Some(endpoint) = labels.get("endpoint").filter(|_| value > 0.0) {
                edge.out.insert(short(endpoint).to_owned());
            }
        });
        each("weft_ejections_total", &mut |edge, _, _, more| edge.ejections += more);
        each("weft_retries_total", &mut |edge, _, _, more| edge.retries += more);
        each("weft_endpoint_requests_total", &mut |edge, labels, _, more| {
            if let Some(endpoint) = labels.get("endpoint") {
                *edge.endpoints.entry(endpoint.clone()).or_default() += more;
            }
        });
    }
    edges.into_values().collect()
}

/// The replicas of every destination, by destination and name.
///
/// Requests are those `edges` sent to each endpoint, or, where proxies do not count them, those it was seen to answer.
pub fn replicas(previous: &Snapshot, current: &Snapshot, elapsed: Duration, edges: &[Edge]) -> Vec<Replica> {
    let mut replicas: BTreeMap<(String, String), Replica> = BTreeMap::new();
    let mut replica = |destination: &str, name: &str, apply: &mut dyn FnMut(&mut Replica)| {
        apply(replicas.entry((destination.to_owned(), short(name).to_owned())).or_insert_with(|| Replica {
            destination: destination.to_owned(),
            name: short(name).to_owned(),
            elapsed,
            ..Replica::default()
        }));
    };
    for (proxy, now) in current {
        let more = |metric: &str, labels: &Labels, value| {
            increase(previous.get(proxy).and_then(|before| before.value(metric, labels)), value)
        };
        for (labels, value) in now.series("weft_requests_total") {
            let Some((_, destination)) = ends(labels, "inbound") else { continue };
            let more = more("weft_requests_total", labels, value);
            replica(destination, proxy, &mut |replica| {
                replica.requests += more;
                replica.answered += more;
                if is_failure(labels) {
                    replica.failures += more;
                }
            });
        }
        for (labels, value) in now.series("weft_request_duration_seconds_bucket") {
            let Some((_, destination)) = ends(labels, "inbound") else { continue };
            let more = more("weft_request_duration_seconds_bucket", labels, value);
            replica(destination, proxy, &mut |replica| replica.latency.add(labels, more));
        }
    }
    let mut sent: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    for edge in edges {
        for (endpoint, requests) in &edge.endpoints {
            *sent.entry((&edge.destination, endpoint)).or_default() += requests;
        }
    }
    for ((destination, endpoint), requests) in sent {
        replica(destination, endpoint, &mut |replica| replica.requests = requests);
    }
    replicas.into_values().collect()
}

/// Source and destination of a series of this direction.
pub(crate) fn ends<'a>(labels: &'a Labels, direction: &str) -> Option<(&'a str, &'a str)> {
    if labels.get("direction").is_none_or(|found| found != direction) {
        return None;
    }
    Some((labels.get("source")?, labels.get("destination")?))
}

/// What a counter grew by; one that went down began again.
pub(crate) fn increase(before: Option<f64>, now: f64) -> f64 {
    let more = match before {
        Some(before) if before <= now => now - before,
        _ => now,
    };
    if more.is_finite() { more.max(0.0) } else { 0.0 }
}

/// Whether requests of these labels ended in 5xx, or without an answer.
pub(crate) fn is_failure(labels: &Labels) -> bool {
    labels.get("code_class").is_some_and(|class| class == "5xx" || class == "failed")
}

fn mtls(labels: &Labels, connections: f64) -> Mtls {
    match labels.get("tls").map(String::as_str) {
        Some("mutual") if connections > 0.0 => Mtls::Yes,
        Some("none") if connections > 0.0 => Mtls::No,
        _ => Mtls::Unknown,
    }
}

#[cfg(test)]
mod tests;
