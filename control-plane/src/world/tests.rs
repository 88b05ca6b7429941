//! Resources, publications and who hears of them.

use std::time::Duration;

use prost::Message;
use weft_proto::envoy::envoy::config::cluster::v3::Cluster;
use weft_proto::envoy::envoy::config::core::v3::Metadata;
use weft_proto::envoy::envoy::config::endpoint::v3::{ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints};
use weft_proto::envoy::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use weft_proto::envoy::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};
use weft_proto::envoy::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_connection_manager::RouteSpecifier,
};
use weft_proto::envoy::google::protobuf::{Any, ListValue, Struct, Value, value};
use weft_proto::names;

use super::*;
use crate::serve::session::tests::{cluster, endpoints, listener};

impl World {
    /// Puts these resources in force, and no others.
    pub(crate) fn put(&self, revision: u64, shared: Vec<Resource>, own: BTreeMap<WorkloadKey, Own>) {
        let before = self.published();
        let names: HashSet<(Kind, Arc<str>)> = shared.iter().map(|r| (r.kind, r.name.clone())).collect();
        let gone = before.shared.keys().filter(|key| !names.contains(key)).collect();
        let no_more = before.scoped.keys().filter(|key| !own.contains_key(*key)).map(|key| (key.clone(), None));
        let no_more: Vec<_> = no_more.collect();
        let own = own.into_iter().map(|(key, own)| (key, Some(own))).chain(no_more).collect();
        self.publish(revision, Change { shared, gone, own });
    }
}

/// Metadata with maps in maps, built anew so that its hash maps iterate in another order each time.
fn metadata() -> Metadata {
    let text = |text: &str| Value { kind: Some(value::Kind::StringValue(text.to_owned())) };
    let fields = || (0..8).map(|i| (format!("key-{i}"), text("value"))).collect();
    let inner = Value { kind: Some(value::Kind::StructValue(Struct { fields: fields() })) };
    let list = Value { kind: Some(value::Kind::ListValue(ListValue { values: vec![inner.clone(), text("x")] })) };
    let mut fields: std::collections::HashMap<_, _> = fields();
    fields.extend([("inner".to_owned(), inner), ("list".to_owned(), list)]);
    let filter_metadata = (0..4).map(|i| (format!("filter-{i}"), Struct { fields: fields.clone() })).collect();
    Metadata { filter_metadata, ..Metadata::default() }
}

fn per_filter() -> std::collections::HashMap<String, Any> {
    (0..8).map(|i| (format!("filter-{i}"), Any { type_url: "x".to_owned(), value: vec![i] })).collect()
}

fn routes() -> RouteConfiguration {
    let route = Route { metadata: Some(metadata()), typed_per_filter_config: per_filter(), ..Route::default() };
    RouteConfiguration {
        virtual_hosts: vec![VirtualHost {
            routes: vec![route],
            typed_per_filter_config: per_filter(),
            metadata: Some(metadata()),
            ..VirtualHost::default()
        }],
        ..RouteConfiguration::default()
    }
}

fn load_assignment() -> ClusterLoadAssignment {
    let endpoint = || LbEndpoint { metadata: Some(metadata()), ..LbEndpoint::default() };
    ClusterLoadAssignment {
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: vec![endpoint(), endpoint()],
            metadata: Some(metadata()),
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    }
}

/// One resource of each kind with maps wherever the table knows of them.
fn with_maps() -> [Resource; 4] {
    let manager =
        HttpConnectionManager { route_specifier: Some(RouteSpecifier::RouteConfig(routes())), ..Default::default() };
    let config = Any { type_url: names::HTTP_CONNECTION_MANAGER.to_owned(), value: manager.encode_to_vec() };
    let filter = Filter { name: "http".to_owned(), config_type: Some(filter::ConfigType::TypedConfig(config)) };
    let listener = Listener {
        filter_chains: vec![FilterChain {
            filters: vec![filter],
            metadata: Some(metadata()),
            ..FilterChain::default()
        }],
        metadata: Some(metadata()),
        ..Listener::default()
    };
    let cluster = Cluster {
        metadata: Some(metadata()),
        load_assignment: Some(load_assignment()),
        typed_extension_protocol_options: per_filter(),
        ..Cluster::default()
    };
    [
        Resource::new(names::CLUSTER, "a", &cluster),
        Resource::new(names::ENDPOINTS, "a", &load_assignment()),
        Resource::new(names::LISTENER, "a", &listener),
        Resource::new(names::ROUTE, "a", &routes()),
    ]
}

#[test]
fn the_same_content_always_has_the_same_bytes_and_version() {
    let first = with_maps();
    for _ in 0..100 {
        assert_eq!(with_maps(), first);
    }
}

#[test]
fn a_canonical_encoding_says_the_same_message() {
    let [_, resource, ..] = with_maps();
    assert_eq!(ClusterLoadAssignment::decode(resource.body).unwrap(), load_assignment());
}

#[test]
fn repeated_fields_keep_their_order() {
    let hosts = ["z", "a", "m"].map(|name| VirtualHost { name: name.to_owned(), ..VirtualHost::default() });
    let table = RouteConfiguration { virtual_hosts: hosts.into(), ..RouteConfiguration::default() };
    let resource = Resource::new(names::ROUTE, "r", &table);
    assert_eq!(&resource.body[..], table.encode_to_vec());
}

#[test]
fn bytes_that_are_no_message_are_kept() {
    for bytes in [&b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..], b"\x0a\x05ab", b"\x0b", b"\x09\x01", b""] {
        assert_eq!(canonical::canonical(names::CLUSTER, bytes), bytes);
    }
}

#[test]
fn a_version_is_the_start_of_the_contents_sha256() {
    assert_eq!(&*content_hash(b"abc"), "ba7816bf8f01cfea414140de5dae2223");
}

fn watch_all(world: &Arc<World>, workload: &str) -> Watch {
    let mut watch = world.watch(workload.into());
    watch.note_interest(Kind::ALL.map(Interest::Wildcard));
    watch
}

fn key(kind: Kind, name: &str) -> (Kind, Arc<str>) {
    (kind, name.into())
}

fn taken(watch: &Watch) -> Vec<(Kind, Arc<str>)> {
    let changes = watch.take().0;
    assert!(!changes.everything);
    changes.keys.into_iter().collect()
}

#[tokio::test]
async fn a_world_is_synced_with_its_first_publication() {
    let world = World::new();
    assert!(!world.is_synced());
    let waiting = tokio::spawn({
        let world = world.clone();
        async move { world.synced().await }
    });
    world.put(1, Vec::new(), BTreeMap::new());
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    world.synced().await;
    assert!(world.is_synced());
}

#[test]
fn a_change_is_told_to_those_who_asked_for_it_and_to_nobody_else() {
    let world = World::new();
    world.put(1, vec![endpoints("a", 1), endpoints("b", 1), cluster("a", 1)], BTreeMap::new());
    let everything = watch_all(&world, "ns/everything");
    let mut named = world.watch("ns/named".into());
    named.note_interest([Interest::Name(Kind::Endpoints, "a".into())]);
    let mut other = world.watch("ns/other".into());
    other.note_interest([Interest::Name(Kind::Endpoints, "b".into()), Interest::Wildcard(Kind::Cluster)]);
    world.put(2, vec![endpoints("a", 2), endpoints("b", 1), cluster("a", 1)], BTreeMap::new());
    assert_eq!(taken(&everything), [key(Kind::Endpoints, "a")]);
    assert_eq!(taken(&named), [key(Kind::Endpoints, "a")]);
    assert_eq!(taken(&other), []);
    named.note_interest([Interest::NotName(Kind::Endpoints, "a".into())]);
    world.put(3, vec![endpoints("b", 1)], BTreeMap::new());
    assert_eq!(taken(&everything), [key(Kind::Cluster, "a"), key(Kind::Endpoints, "a")]);
    assert_eq!(taken(&named), []);
    assert_eq!(taken(&other), [key(Kind::Cluster, "a")]);
}

#[test]
fn equal_content_published_again_is_no_change_and_keeps_its_memory() {
    let world = World::new();
    world.put(1, vec![cluster("a", 1)], BTreeMap::new());
    let watch = watch_all(&world, "ns/a");
    let before = watch.view().get(Kind::Cluster, "a").unwrap().body.as_ptr();
    world.put(2, vec![cluster("a", 1)], BTreeMap::new());
    assert_eq!(taken(&watch), []);
    assert_eq!(watch.view().get(Kind::Cluster, "a").unwrap().body.as_ptr(), before);
    assert_eq!(watch.view().revision(), 2);
}

#[test]
fn a_scoped_resource_is_for_its_workload_alone() {
    let world = World::new();
    let scoped = |content| {
        let resources = vec![listener("inbound/80", content), cluster("c", 9)];
        BTreeMap::from([(WorkloadKey::new("ns", "a"), Own { account: "orders".into(), resources })])
    };
    let shared = || vec![cluster("c", 1), cluster("d", 1)];
    world.put(1, shared(), scoped(1));
    let (a, b) = (watch_all(&world, "ns/a"), watch_all(&world, "ns/b"));
    let names = |watch: &Watch, kind| watch.view().all(kind).map(|r| r.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&a, Kind::Listener), ["inbound/80"]);
    assert_eq!(names(&b, Kind::Listener), Vec::<String>::new());
    assert_eq!(names(&a, Kind::Cluster), ["c", "d"]);
    assert_eq!(a.view().get(Kind::Cluster, "c"), Some(&cluster("c", 9)), "the scoped one hides the shared one");
    world.put(2, shared(), scoped(2));
    assert_eq!(taken(&a), [key(Kind::Listener, "inbound/80")]);
    assert_eq!(taken(&b), []);
    world.put(3, shared(), BTreeMap::new());
    assert_eq!(taken(&a), [key(Kind::Cluster, "c"), key(Kind::Listener, "inbound/80")]);
    assert_eq!(taken(&b), []);
}

/// How far a client has come that refused nothing.
fn progress(acknowledged: u64, settled: bool) -> Progress {
    Progress { acknowledged, settled, answered: acknowledged, quiet: settled, on_demand: false }
}

#[test]
fn a_refusal_is_an_answer_and_no_acknowledgement() {
    let world = World::new();
    world.put(1, vec![cluster("a", 1)], BTreeMap::new());
    let watch = watch_all(&world, "ns/a");
    let standing = watch.standing();
    watch.report(progress(1, true));
    world.put(2, vec![cluster("a", 2)], BTreeMap::new());
    assert_eq!((standing.acknowledged(), standing.answered()), (1, 1));
    watch.take();
    watch.report(Progress { acknowledged: 1, settled: false, answered: 2, quiet: true, on_demand: false });
    assert_eq!((standing.acknowledged(), standing.answered()), (1, 2));
    // What does not concern the client it has answered as soon as it is in force.
    let own = Own { account: "b".into(), resources: vec![listener("inbound/80", 1)] };
    world.put(3, vec![cluster("a", 2)], BTreeMap::from([("ns/b".into(), own)]));
    assert_eq!((standing.acknowledged(), standing.answered()), (1, 3));
}

#[test]
fn news_is_a_publication_or_the_progress_of_a_client_and_nothing_else() {
    let world = World::new();
    let mut news = world.news();
    let mut is_news = || {
        std::mem::take(&mut news.has_changed().unwrap()) && {
            news.mark_unchanged();
            true
        }
    };
    world.put(1, vec![cluster("a", 1)], BTreeMap::new());
    assert!(is_news());
    let watch = watch_all(&world, "ns/a");
    watch.report(progress(1, true));
    assert!(is_news());
    watch.report(progress(1, true));
    assert!(!is_news(), "the same again");
    watch.take();
    watch.report(progress(1, true));
    assert!(is_news(), "what was taken is answered");
}

#[test]
fn the_workload_furthest_behind_says_what_is_acknowledged() {
    let world = World::new();
    world.put(1, vec![cluster("a", 1)], BTreeMap::new());
    assert_eq!(world.acknowledged("ns/a"), None);
    let (first, second) = (watch_all(&world, "ns/a"), watch_all(&world, "ns/a"));
    first.report(progress(1, true));
    assert_eq!(world.acknowledged("ns/a"), Some(0));
    drop(second);
    assert_eq!(world.acknowledged("ns/a"), Some(1));
    world.put(2, vec![cluster("a", 2)], BTreeMap::new());
    assert_eq!(world.acknowledged("ns/a"), Some(1));
    first.take();
    assert_eq!(world.acknowledged("ns/a"), Some(1), "taken is not applied");
    first.report(progress(1, false));
    assert_eq!(world.acknowledged("ns/a"), Some(1));
    first.report(progress(2, true));
    assert_eq!(world.acknowledged("ns/a"), Some(2));
}

#[test]
fn a_session_that_ends_leaves_nothing_in_the_index() {
    let world = World::new();
    let mut watch = watch_all(&world, "ns/a");
    watch.note_interest([Interest::Name(Kind::Endpoints, "a".into()), Interest::Name(Kind::Route, "r".into())]);
    watch.note_interest([Interest::OwnWildcard(Kind::Listener)]);
    drop(watch);
    let text = format!("{:?}", world.watchers());
    assert!(text.contains("inboxes: {}") && text.contains("workloads: {}"), "{text}");
    assert!(text.contains("wildcards: [{}, {}, {}, {}, {}], own_wildcards: [{}, {}, {}, {}, {}]"), "{text}");
    assert!(text.contains("names: [{}, {}, {}, {}, {}]"), "{text}");
}
