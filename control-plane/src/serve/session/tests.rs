//! The rules of both variants, one by one. Responses are written as `CDS +changed -removed`.

mod delta;
mod on_demand;
mod property;
mod sotw;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_proto::discovery::{DeltaDiscoveryResponse, DiscoveryResponse, Node, Status};
use weft_proto::envoy::envoy::config::cluster::v3::Cluster;
use weft_proto::envoy::envoy::config::endpoint::v3::ClusterLoadAssignment;
use weft_proto::envoy::envoy::config::endpoint::v3::cluster_load_assignment::Policy;
use weft_proto::envoy::envoy::config::listener::v3::Listener;
use weft_proto::envoy::envoy::config::route::v3::RouteConfiguration;
use weft_proto::envoy::google::protobuf::{Struct, UInt32Value, Value, value};
use weft_proto::names;
use weft_proto::weft::Destination;
use weft_proto::weft::destination::{Service, Who};

use super::*;
use crate::world::{Resource, Watch, WorkloadKey, World};

/// A node as our proxy sends it.
pub(crate) fn node(namespace: &str, workload: &str) -> Node {
    node_of("0.2.0", namespace, workload)
}

/// The same, of another version.
pub(crate) fn node_of(version: &str, namespace: &str, workload: &str) -> Node {
    let text = |text: &str| Value { kind: Some(value::Kind::StringValue(text.to_owned())) };
    let facts = Struct {
        fields: [("namespace", namespace), ("workload", workload), ("admin", "127.0.0.1:15000"), ("version", version)]
            .map(|(key, value)| (key.to_owned(), text(value)))
            .into(),
    };
    let metadata = Value { kind: Some(value::Kind::StructValue(facts)) };
    Node {
        id: format!("{namespace}/{workload}"),
        metadata: Some(Struct { fields: [(names::METADATA.to_owned(), metadata)].into() }),
        user_agent_name: "weft".to_owned(),
        ..Node::default()
    }
}

/// A resource whose content is `content`.
pub(crate) fn resource(kind: Kind, name: &str, content: u32) -> Resource {
    let number = Some(UInt32Value { value: content });
    let (url, text) = (kind.type_url(), name.to_owned());
    match kind {
        Kind::Cluster => {
            let cluster = Cluster { name: text, per_connection_buffer_limit_bytes: number, ..Cluster::default() };
            Resource::new(url, name, &cluster)
        }
        Kind::Endpoints => {
            let policy = Some(Policy { overprovisioning_factor: number, ..Policy::default() });
            let endpoints = ClusterLoadAssignment { cluster_name: text, policy, ..ClusterLoadAssignment::default() };
            Resource::new(url, name, &endpoints)
        }
        Kind::Listener => {
            let listener = Listener { name: text, per_connection_buffer_limit_bytes: number, ..Listener::default() };
            Resource::new(url, name, &listener)
        }
        Kind::Route => {
            let routes = RouteConfiguration {
                name: text,
                max_direct_response_body_size_bytes: number,
                ..RouteConfiguration::default()
            };
            Resource::new(url, name, &routes)
        }
        Kind::Destination => {
            let who = Who::Service(Service { listener: content.to_string() });
            Resource::new(url, name, &Destination { who: Some(who) })
        }
    }
}

pub(crate) fn cluster(name: &str, content: u32) -> Resource {
    resource(Kind::Cluster, name, content)
}

pub(crate) fn endpoints(name: &str, content: u32) -> Resource {
    resource(Kind::Endpoints, name, content)
}

pub(crate) fn listener(name: &str, content: u32) -> Resource {
    resource(Kind::Listener, name, content)
}

pub(crate) fn route(name: &str, content: u32) -> Resource {
    resource(Kind::Route, name, content)
}

pub(crate) fn destination(name: &str, content: u32) -> Resource {
    resource(Kind::Destination, name, content)
}

/// What the tests read of a response.
pub(crate) trait Summary {
    fn summary(&self) -> String;
}

fn abbreviation(type_url: &str) -> &str {
    match Kind::from_type_url(type_url) {
        Some(Kind::Cluster) => "CDS",
        Some(Kind::Endpoints) => "EDS",
        Some(Kind::Listener) => "LDS",
        Some(Kind::Route) => "RDS",
        Some(Kind::Destination) => "Destination",
        None => type_url,
    }
}

impl Summary for DeltaDiscoveryResponse {
    fn summary(&self) -> String {
        let sent = self.resources.iter().map(|resource| format!(" +{}", resource.name));
        let removed = self.removed_resources.iter().map(|name| format!(" -{name}"));
        std::iter::once(abbreviation(&self.type_url).to_owned()).chain(sent).chain(removed).collect()
    }
}

impl Summary for DiscoveryResponse {
    fn summary(&self) -> String {
        let kind = Kind::from_type_url(&self.type_url).unwrap();
        // All four messages have their name in field 1 or, for nothing else in these tests, start with it.
        let name = |value: &[u8]| String::from_utf8(value[2..2 + usize::from(value[1])].to_vec()).unwrap();
        let sent = self.resources.iter().map(|resource| format!(" +{}", name(&resource.value)));
        std::iter::once(abbreviation(kind.type_url()).to_owned()).chain(sent).collect()
    }
}

/// A session with its world, driven by hand.
pub(crate) struct Bench<S> {
    pub(crate) world: Arc<World>,
    pub(crate) watch: Watch,
    pub(crate) session: S,
    pub(crate) now: Instant,
    revision: u64,
}

impl<S: Session> Bench<S>
where
    S::Response: Summary,
{
    pub(crate) fn new(resources: &[Resource]) -> Self {
        let world = World::new();
        world.put(1, resources.to_vec(), BTreeMap::new());
        Self::on(world, 7)
    }

    /// A new stream in a world that may have seen others.
    pub(crate) fn on(world: Arc<World>, salt: u64) -> Self {
        Self::meaning(Star::Everything, world, salt)
    }

    /// The same, of a client that means something else by `*`.
    pub(crate) fn meaning(star: Star, world: Arc<World>, salt: u64) -> Self {
        let watch = world.watch(WorkloadKey::from("default/orders-1"));
        let revision = world.revision();
        Self { world, watch, session: S::new(salt, star), now: weft_proxy::clock::now(), revision }
    }

    pub(crate) fn send(&mut self, request: S::Request) -> Vec<S::Response> {
        let interests = self.session.request(request, self.now).unwrap();
        self.watch.note_interest(interests);
        self.flush()
    }

    pub(crate) fn flush(&mut self) -> Vec<S::Response> {
        let responses = self.session.flush(self.now, &self.watch.view());
        self.watch.report(self.session.standing().progress);
        responses
    }

    /// Publishes the next revision and lets the session hear of it.
    pub(crate) fn publish(&mut self, resources: &[Resource]) -> Vec<S::Response> {
        self.revision += 1;
        self.world.put(self.revision, resources.to_vec(), BTreeMap::new());
        self.hear()
    }

    /// Lets the session hear of what was published.
    pub(crate) fn hear(&mut self) -> Vec<S::Response> {
        let (changes, revision) = self.watch.take();
        self.session.changed(changes, revision);
        self.flush()
    }

    /// Lets time pass until the session wants to act.
    pub(crate) fn wait(&mut self) -> (Duration, Vec<S::Response>) {
        let at = self.session.wake_at().expect("the session waits for something");
        let waited = at.saturating_duration_since(self.now);
        self.now = self.now.max(at);
        (waited, self.flush())
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.world.acknowledged("default/orders-1").unwrap()
    }
}

pub(crate) fn summaries<R: Summary>(responses: &[R]) -> Vec<String> {
    responses.iter().map(Summary::summary).collect()
}

fn error(message: &str) -> Status {
    Status { code: 13, message: message.to_owned() }
}

#[test]
fn a_refusal_names_a_resource_only_where_its_whole_name_stands() {
    for (text, expected) in [
        ("default/orders:80: bad", true),
        ("`default/orders:80`", true),
        ("cluster default/orders:80", true),
        ("default/orders:8080: bad", false),
        ("other-default/orders:80", false),
        ("", false),
    ] {
        assert_eq!(mentions(text, "default/orders:80"), expected, "{text}");
    }
}

#[test]
fn a_long_refusal_is_cut() {
    let text = shorten(&"ä".repeat(REFUSAL_LIMIT + 1));
    assert_eq!(text.chars().count(), REFUSAL_LIMIT + 4);
}

#[test]
fn unacknowledged_responses_are_forgotten_beyond_the_limit() {
    let now = weft_proxy::clock::now();
    let mut acks = Acks::default();
    for sequence in 0..1000 {
        acks.sent(sequence, Contents { sent: vec!["a".into()], removed: Vec::new() }, now);
    }
    assert_eq!(acks.in_flight.len(), IN_FLIGHT_LIMIT);
    acks.judge(Kind::Cluster, 999, None, now, |_| true);
    assert_eq!(acks.pending(), 0);
}
