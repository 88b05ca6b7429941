//! What one change costs among many objects, counted rather than timed.

use futures_util::FutureExt;
use prost::Message;
use weft_proto::discovery::DeltaDiscoveryRequest;

use super::*;
use crate::compile::{Compiler, Outcome};
use crate::serve::session::Star;
use crate::serve::session::delta::Delta;
use crate::serve::session::tests::{Bench, summaries};
use crate::world::{Kind as Type, World};

/// A cluster of services with five pods each.
fn large(services: usize) -> Objects {
    let mut objects = Objects::default();
    for index in 0..services {
        let name = format!("service-{index}");
        let of = |object: Value| serde_json::from_value::<Service>(object).unwrap();
        let object = of(service(&name, &format!("10.96.{}.{}", index / 250, index % 250 + 1)));
        objects.take(Update::Service(Step::Set(ObjectName::of(&object.metadata), ServiceFacts::of(&object))));
        let mut endpoints = Vec::new();
        for replica in 0..5 {
            let (address, name) =
                (format!("10.{replica}.{}.{}", index / 250, index % 250 + 1), format!("{name}-{replica}"));
            let object: Pod = serde_json::from_value(pod(&name, &address)).unwrap();
            objects.take(Update::Pod(Step::Set(ObjectName::of(&object.metadata), PodFacts::of(&object))));
            endpoints.push(json!({"addresses": [address], "targetRef": {"kind": "Pod", "name": name}}));
        }
        let mut object = slice(&name, "", "");
        object["endpoints"] = endpoints.into();
        let object: EndpointSlice = serde_json::from_value(object).unwrap();
        objects.take(Update::Slice(Step::Set(ObjectName::of(&object.metadata), SliceFacts::of(&object))));
    }
    objects
}

/// All of a control plane between the objects and the proxies.
struct ControlPlane {
    translator: Translator,
    snapshot: Arc<Snapshot>,
    compiler: Compiler,
    world: Arc<World>,
}

impl ControlPlane {
    fn new() -> Self {
        let (translator, compiler) = (Translator::default(), Compiler::new("shop.local"));
        Self { translator, snapshot: Arc::default(), compiler, world: World::new() }
    }

    /// Puts in force what changed.
    fn follow(&mut self, objects: &mut Objects) -> (usize, Vec<String>) {
        let changed = objects.take_changed();
        let documents = self.translator.follow(objects, changed);
        self.snapshot = Arc::new(publication::follow(&self.snapshot, documents, 0).expect("something changed"));
        let Outcome { change, made, .. } = self.compiler.follow(&self.snapshot, &Arc::default());
        let shared = change.shared.iter().map(|resource| format!("{:?} {}", resource.kind, resource.name));
        let own = change.own.keys().map(|workload| format!("Own {workload}"));
        let told = shared.chain(own).collect();
        self.world.publish(self.snapshot.revision, change);
        (made, told)
    }
}

/// A pod of the seventh service, which is to end or not.
fn seventh(is_ending: bool) -> Update {
    let mut object: Pod = serde_json::from_value(pod("service-7-3", "10.3.0.8")).unwrap();
    let at = || serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    object.metadata.deletion_timestamp = is_ending.then(at);
    Update::Pod(Step::Set(ObjectName::of(&object.metadata), PodFacts::of(&object)))
}

#[test]
fn what_a_change_costs_does_not_grow_with_the_cluster() {
    for services in [20, 150] {
        let mut objects = large(services);
        let mut control_plane = ControlPlane::new();
        let (made, told) = control_plane.follow(&mut objects);
        // For each service four resources, for each pod four of its own; two for calls to all of them by their addresses.
        // A destination for the address of each.
        let destinations = services * (1 + 5);
        let (of_services, of_pods) = (services * 4, services * 5);
        assert_eq!(made, of_services + of_pods * 4 + 2 + destinations);
        assert_eq!(told.len(), of_services + of_pods + 2 + destinations);
        for is_ending in [true, false] {
            objects.take(seventh(is_ending));
            assert_eq!(objects.take_changed().pods.len(), 1);
            objects.take(seventh(!is_ending));
            objects.take(seventh(is_ending));
            let (made, told) = control_plane.follow(&mut objects);
            assert_eq!((made, told), (8, vec!["Endpoints shop/service-7:80".to_owned()]), "{services} services");
        }
        // A pod that goes takes its own with it, its service knows nobody of that name, and nobody has its address: what told
        // of that is taken back.
        objects.take(Update::Pod(Step::Gone(ObjectName::new("shop", "service-7-3"))));
        let (made, told) = control_plane.follow(&mut objects);
        assert_eq!((made, told.len()), (6, 3), "{told:?}");
    }
}

#[test]
fn a_change_is_told_to_those_who_ask_for_what_it_changes_and_to_nobody_else() {
    let mut objects = large(20);
    let mut control_plane = ControlPlane::new();
    control_plane.follow(&mut objects);
    let ask = |kind: Type, names: &[String]| {
        let mut bench = Bench::<Delta>::on(Arc::clone(&control_plane.world), 7);
        let responses = bench.send(DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: names.to_vec(),
            ..DeltaDiscoveryRequest::default()
        });
        for response in &responses {
            let (type_url, response_nonce) = (response.type_url.clone(), response.nonce.clone());
            bench.send(DeltaDiscoveryRequest { type_url, response_nonce, ..DeltaDiscoveryRequest::default() });
        }
        bench
    };
    let endpoints = |services: &[usize]| {
        ask(Type::Endpoints, &services.iter().map(|index| format!("shop/service-{index}:80")).collect::<Vec<_>>())
    };
    let mut sessions = vec![ask(Type::Cluster, &[]), ask(Type::Listener, &[]), endpoints(&[6, 7]), endpoints(&[7])];
    sessions.extend((8..20).map(|index| endpoints(&[index])));
    // The change of no session is in the way of it.
    for session in &sessions {
        let _ = session.watch.changed().now_or_never();
    }
    objects.take(seventh(true));
    control_plane.follow(&mut objects);
    let mut responses = Vec::new();
    for (index, session) in sessions.iter_mut().enumerate() {
        if session.watch.changed().now_or_never().is_some() {
            responses.push((index, summaries(&session.hear())));
        }
    }
    let told = || vec!["EDS +shop/service-7:80".to_owned()];
    assert_eq!(responses, [(2, told()), (3, told())]);
}

#[test]
#[ignore = "a measurement: cargo test --release -p weft-control-plane a_change_among -- --ignored --nocapture"]
fn a_change_among_a_thousand_services_is_in_force_within_a_tenth_of_a_second() {
    let mut objects = large(1000);
    let mut control_plane = ControlPlane::new();
    let start = weft_proxy::clock::now();
    let (made, _) = control_plane.follow(&mut objects);
    println!("1,000 services, 5,000 pods: {made} resources made at first in {:?}", start.elapsed());
    let mut longest = Duration::ZERO;
    for round in 0..10 {
        objects.take(seventh(round % 2 == 0));
        let start = weft_proxy::clock::now();
        let (made, told) = control_plane.follow(&mut objects);
        let took = start.elapsed();
        println!("a pod's change: {made} resources made, {} told, in {took:?}", told.len());
        longest = longest.max(took);
    }
    assert!(longest < Duration::from_millis(100), "{longest:?}");
}

/// A proxy that connects, and the bytes of all it is sent.
struct Connecting {
    bench: Bench<Delta>,
    bytes: usize,
}

impl Connecting {
    fn new(world: &Arc<World>, star: Star) -> Self {
        Self { bench: Bench::meaning(star, Arc::clone(world), 7), bytes: 0 }
    }

    fn ask(&mut self, kind: Type, names: &[String]) -> Vec<Vec<u8>> {
        let responses = self.bench.send(DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: names.to_vec(),
            ..DeltaDiscoveryRequest::default()
        });
        for response in &responses {
            self.bytes += response.encoded_len();
            let (type_url, response_nonce) = (response.type_url.clone(), response.nonce.clone());
            self.bench.send(DeltaDiscoveryRequest { type_url, response_nonce, ..DeltaDiscoveryRequest::default() });
        }
        let resources = responses.iter().flat_map(|response| &response.resources);
        resources.map(|resource| resource.resource.as_ref().unwrap().value.to_vec()).collect()
    }

    /// All a service takes, by its address.
    fn use_service(&mut self, index: usize) {
        let address = format!("10.96.{}.{}", index / 250, index % 250 + 1);
        self.ask(Type::Destination, &[format!("{address}:80"), address]);
        let name = format!("shop/service-{index}:80");
        self.ask(Type::Listener, &[format!("outbound/{name}")]);
        for kind in [Type::Route, Type::Cluster, Type::Endpoints] {
            assert_eq!(self.ask(kind, std::slice::from_ref(&name)).len(), 1, "{kind:?} {name}");
        }
    }

    /// Pods called at ports that no service has.
    fn use_pod(&mut self, address: &str) {
        assert_eq!(self.ask(Type::Destination, &[format!("{address}:9"), address.to_owned()]).len(), 1, "{address}");
    }
}

/// What the process has in memory.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
#[ignore = "a measurement: cargo test -p weft-control-plane what_a_new_proxy -- --ignored --nocapture"]
fn what_a_new_proxy_is_sent_in_a_mesh_of_a_thousand_services() {
    let mut objects = large(1000);
    let mut control_plane = ControlPlane::new();
    control_plane.follow(&mut objects);
    let world = &control_plane.world;
    let all = |prefix: &str| (0..1000).map(|index| format!("{prefix}shop/service-{index}:80")).collect::<Vec<_>>();
    let mut told_all = Connecting::new(world, Star::Everything);
    told_all.ask(Type::Cluster, &["*".to_owned()]);
    told_all.ask(Type::Listener, &["*".to_owned()]);
    told_all.ask(Type::Route, &all(""));
    let peers = ["peers/shop/default/15020".to_owned()];
    told_all.ask(Type::Endpoints, &[all(""), peers.to_vec()].concat());
    println!("1,000 services, 5,000 pods: a proxy that is told all is sent {} bytes", told_all.bytes);
    let mut asks = Connecting::new(world, Star::Own);
    asks.ask(Type::Cluster, &["*".to_owned()]);
    asks.ask(Type::Listener, &["*".to_owned()]);
    println!("a proxy that asks is sent {} bytes when it connects", asks.bytes);
    let before = asks.bytes;
    (0..10).for_each(|index| asks.use_service(index));
    println!("and {} for each service it uses", (asks.bytes - before) / 10);
    let before = asks.bytes;
    asks.use_pod("10.3.0.8");
    println!("and {} for a pod it calls by its address", asks.bytes - before);

    // A mesh of destinations alone, large enough that its memory can be told from the rest.
    const PODS: usize = 400_000;
    let one = world.view(&"shop/none".into()).get(Type::Destination, "10.3.0.8").unwrap().clone();
    let before = resident();
    let address = |index: usize| std::net::IpAddr::from([10, (index >> 16) as u8, (index >> 8) as u8, index as u8]);
    let shared = (0..PODS).map(|index| one.renamed(address(index).to_string())).collect();
    let world = World::new();
    world.publish(1, crate::world::Change { shared, ..crate::world::Change::default() });
    println!("{} bytes in memory for each destination of a pod", (resident() - before) / PODS);
    drop(world);
}
