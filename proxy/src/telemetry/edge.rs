//! The signals of one edge: from a source, through this proxy, to a destination.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label};
use weft_core::model::Direction;

/// Names of the signals, in one place.
mod name {
    pub(super) const REQUESTS: &str = "weft_requests_total";
    pub(super) const DURATION: &str = "weft_request_duration_seconds";
    pub(super) const BYTES: &str = "weft_bytes_total";
    pub(super) const CONNECTIONS: &str = "weft_connections_total";
    pub(super) const ACTIVE: &str = "weft_connections_active";
    pub(super) const IN_FLIGHT: &str = "weft_requests_in_flight";
    pub(super) const RETRIES: &str = "weft_retries_total";
    pub(super) const EJECTIONS: &str = "weft_ejections_total";
    pub(super) const PANICS: &str = "weft_panic_picks_total";
    pub(super) const FAILURES: &str = "weft_failures_total";
    pub(super) const GRPC: &str = "weft_grpc_responses_total";
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeClass {
    Informational,
    Success,
    Redirection,
    ClientError,
    ServerError,
    /// No answer reached the client.
    Failed,
}

impl CodeClass {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Informational, "1xx"),
        (Self::Success, "2xx"),
        (Self::Redirection, "3xx"),
        (Self::ClientError, "4xx"),
        (Self::ServerError, "5xx"),
        (Self::Failed, "failed"),
    ];

    pub fn of(status: u16) -> Self {
        match status {
            100..200 => Self::Informational,
            200..300 => Self::Success,
            300..400 => Self::Redirection,
            400..500 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

/// What tells one edge from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EdgeLabels {
    pub direction: Direction,
    /// `NAMESPACE/SERVICE-ACCOUNT` of the caller, or `unknown` for plaintext.
    pub source: String,
    /// `NAMESPACE/SERVICE:PORT`.
    pub destination: String,
}

impl EdgeLabels {
    pub(crate) fn pairs(&self) -> Vec<(&'static str, String)> {
        vec![
            ("direction", direction_label(self.direction).to_owned()),
            ("source", self.source.clone()),
            ("destination", self.destination.clone()),
        ]
    }

    fn with(&self, more: Option<(&'static str, &'static str)>) -> Vec<Label> {
        let own = self.pairs().into_iter().map(|(key, value)| Label::new(key, value));
        own.chain(more.map(|(key, value)| Label::from_static_parts(key, value))).collect()
    }
}

/// What metrics call a direction.
pub(crate) fn direction_label(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}

/// One edge; a clone is another handle to it. Its series come into being with its first signal: a proxy knows every
/// service of the mesh and calls few.
#[derive(Debug, Clone)]
pub struct Edge(Arc<Known>);

#[derive(Debug)]
struct Known {
    labels: EdgeLabels,
    /// How connections of this edge are protected.
    mutual_tls: bool,
    /// Boxed: most edges have none.
    handles: OnceLock<Box<Handles>>,
}

/// Resolved handles of one edge.
#[derive(Debug)]
pub struct Handles {
    requests: [Counter; 6],
    duration: Histogram,
    sent: Counter,
    received: Counter,
    connections: Counter,
    active: Gauge,
    /// Of connections that are not protected where the edge's others are; most edges have none.
    plaintext: OnceLock<Box<(Counter, Gauge)>>,
    in_flight: Gauge,
    pub retries: Counter,
    pub ejections: Counter,
    pub panics: Counter,
    /// By status; most edges never see one.
    grpc: [OnceLock<Counter>; GRPC_STATUSES],
}

/// Statuses of gRPC that have a name: 0 to 16.
const GRPC_STATUSES: usize = 17;

/// The handles, resolved by whoever needs them first.
impl Deref for Edge {
    type Target = Handles;

    fn deref(&self) -> &Handles {
        self.0.handles.get_or_init(|| Box::new(Handles::new(&self.0.labels, self.0.mutual_tls)))
    }
}

impl Handles {
    fn new(labels: &EdgeLabels, mutual_tls: bool) -> Self {
        let tls = ("tls", if mutual_tls { "mutual" } else { "none" });
        let counter = |name: &'static str, more| metrics::counter!(name, labels.with(more));
        Self {
            requests: CodeClass::ALL.map(|(_, class)| counter(name::REQUESTS, Some(("code_class", class)))),
            duration: metrics::histogram!(name::DURATION, labels.with(None)),
            sent: counter(name::BYTES, Some(("way", "sent"))),
            received: counter(name::BYTES, Some(("way", "received"))),
            connections: counter(name::CONNECTIONS, Some(tls)),
            active: metrics::gauge!(name::ACTIVE, labels.with(Some(tls))),
            plaintext: OnceLock::new(),
            in_flight: metrics::gauge!(name::IN_FLIGHT, labels.with(None)),
            retries: counter(name::RETRIES, None),
            ejections: counter(name::EJECTIONS, None),
            panics: counter(name::PANICS, None),
            grpc: [const { OnceLock::new() }; GRPC_STATUSES],
        }
    }
}

impl Edge {
    /// `mutual_tls`: how connections of this edge are protected.
    pub fn new(labels: EdgeLabels, mutual_tls: bool) -> Self {
        Self(Arc::new(Known { labels, mutual_tls, handles: OnceLock::new() }))
    }

    pub fn labels(&self) -> &EdgeLabels {
        &self.0.labels
    }

    /// A request has ended after `took`.
    pub fn request(&self, class: CodeClass, took: Duration) {
        self.requests[class as usize].increment(1);
        self.duration.record(took.as_secs_f64());
    }

    /// A request was answered before it was known what it asks for, so that its time means nothing.
    pub fn refused(&self, class: CodeClass) {
        self.requests[class as usize].increment(1);
    }

    /// Bytes towards the destination, and back.
    pub fn bytes(&self, sent: u64, received: u64) {
        self.sent.increment(sent);
        self.received.increment(received);
    }

    /// An upstream connection was opened; it counts as active until the guard is dropped.
    pub fn connection(&self) -> Active {
        self.connections.increment(1);
        Active::new(&self.active)
    }

    /// The same for one in plaintext, where the edge's others are protected.
    pub fn plaintext_connection(&self) -> Active {
        let (connections, active) = &**self.plaintext.get_or_init(|| {
            let labels = self.0.labels.with(Some(("tls", "none")));
            Box::new((metrics::counter!(name::CONNECTIONS, labels.clone()), metrics::gauge!(name::ACTIVE, labels)))
        });
        connections.increment(1);
        Active::new(active)
    }

    /// A request is under way until the guard is dropped.
    pub fn in_flight(&self) -> Underway<'_> {
        let gauge = &self.in_flight;
        gauge.increment(1.0);
        Underway(gauge)
    }

    /// Counts an answer of gRPC by its status.
    pub fn grpc(&self, status: u8) {
        let Some(place) = self.grpc.get(usize::from(status)) else { return };
        let counter = place.get_or_init(|| {
            let mut labels = self.0.labels.with(None);
            labels.push(Label::new("grpc_status", status.to_string()));
            metrics::counter!(name::GRPC, labels)
        });
        counter.increment(1);
    }

    /// Counts a failure by its code. Not on the path of a request that goes well: looks the series up.
    pub fn failure(&self, code: &'static str) {
        metrics::counter!(name::FAILURES, self.0.labels.with(Some(("code", code)))).increment(1);
    }
}

/// A request under way.
#[derive(Debug)]
pub struct Underway<'e>(&'e Gauge);

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// One unit of a gauge, given back on drop.
#[derive(Debug)]
pub struct Active(Gauge);

impl Active {
    pub(crate) fn new(gauge: &Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Gauges, Registry};

    fn edge(destination: &str) -> Edge {
        let labels = EdgeLabels {
            direction: Direction::Outbound,
            source: "default/caller".to_owned(),
            destination: destination.to_owned(),
        };
        Edge::new(labels, true)
    }

    #[test]
    fn an_edge_without_signals_has_no_series() {
        let registry = Registry::default();
        metrics::with_local_recorder(&registry, || {
            let (_silent, called) = (edge("default/silent:80"), edge("default/called:80"));
            called.clone().request(CodeClass::Success, Duration::from_millis(3));
            called.request(CodeClass::Success, Duration::from_millis(3));
        });
        let text = registry.render(&Gauges::default());
        assert!(!text.contains("silent"), "{text}");
        let counted = "weft_requests_total{direction=\"outbound\",source=\"default/caller\",\
                       destination=\"default/called:80\",code_class=\"2xx\"} 2";
        assert!(text.contains(counted), "{text}");
    }

    #[test]
    fn calls_are_counted_by_their_status_and_only_where_there_are_some() {
        let registry = Registry::default();
        metrics::with_local_recorder(&registry, || {
            let edge = edge("default/orders:80");
            for status in [0, 14, 14, 200] {
                edge.grpc(status);
            }
        });
        let text = registry.render(&Gauges::default());
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("weft_grpc_responses_total{")).collect();
        let labels = "direction=\"outbound\",source=\"default/caller\",destination=\"default/orders:80\"";
        let expected = [(0, 1), (14, 2)]
            .map(|(status, count)| format!("weft_grpc_responses_total{{{labels},grpc_status=\"{status}\"}} {count}"));
        assert_eq!(lines, expected);
    }
}
