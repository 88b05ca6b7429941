//! A proxy that asks for destinations has what it asks for, whatever happens on the way.

use proptest::prelude::*;
use weft_core::model::{RouteSource, Who};
use weft_proto::names::ASKS_FOR_DESTINATIONS;

use super::*;
use crate::xds::ResourceType::Destination;
use crate::xds::fixtures::control_plane::{Applied, ControlPlane, OWN};
use crate::xds::fixtures::{delivered_destination, own_cluster, own_listener, peer_at, service_at};

const ANY: &str = "inbound/any";
const PLACE: &str = "10.96.0.2:80";
const ADDRESS: &str = "10.96.0.2";

fn asking_session() -> Session {
    Session::on_demand(Node {
        id: "default/shop-1".to_owned(),
        client_features: vec![ASKS_FOR_DESTINATIONS.to_owned()],
        ..Default::default()
    })
}

fn both() -> [Arc<str>; 2] {
    [PLACE.into(), ADDRESS.into()]
}

fn at(nonce: &str) -> DeltaDiscoveryResponse {
    response(Destination, nonce, vec![delivered_destination(PLACE, "d1", &service_at(OUT))], &[ADDRESS])
}

/// A session that is told its own listener and has asked for nothing.
fn session_alone() -> Session {
    let mut session = asking_session();
    session.stream_opened();
    session.response(response(Clusters, "1", vec![delivered(ANY, "c1", &own_cluster(ANY))], &[]));
    let output = session.response(response(Listeners, "1", vec![delivered(ANY, "l1", &own_listener(ANY, ANY))], &[]));
    assert!(output.completed, "the fixture is what is for our own workload");
    session
}

/// The same that has asked for the shop and has it.
fn session_that_asked() -> Session {
    let mut session = session_alone();
    session.ask(both());
    session.response(at("2"));
    let [clusters, endpoints, listeners, routes] = shop("2");
    for response in [listeners, routes, clusters, endpoints] {
        session.response(response);
    }
    assert_eq!(session.answer(PLACE), Answer::Service);
    session
}

#[test]
fn a_fresh_stream_asks_for_what_is_for_our_own_workload() {
    let requests = asking_session().stream_opened().requests;
    assert_eq!(brief(&requests), ["cluster +*", "listener +*"]);
    assert_eq!(requests[0].node.as_ref().unwrap().client_features, [ASKS_FOR_DESTINATIONS]);
}

#[test]
fn one_answer_leads_to_the_next_question_until_the_listener_is_in_force() {
    let mut session = session_alone();
    assert_eq!(brief(&session.ask(both()).requests), ["destination +10.96.0.2 +10.96.0.2:80"]);
    assert_eq!(session.answer(PLACE), Answer::Awaited);
    let output = session.response(at("2"));
    assert_eq!(brief(&output.requests), ["destination nonce 2", "listener +outbound/default/shop:80"]);
    assert_eq!(output.told, both().into_iter().rev().collect::<Vec<_>>());
    assert_eq!((session.answer(PLACE), session.answer(ADDRESS)), (Answer::Awaited, Answer::Nobody));
    let [clusters, endpoints, listeners, routes] = shop("3");
    for (response, further) in [
        (listeners, Some("routes +default/shop:80")),
        (routes, Some("cluster +default/shop:80")),
        (clusters, Some("endpoints +default/shop:80")),
    ] {
        let output = session.response(response);
        assert_eq!(output.change, None, "nothing is in force before all is there");
        assert_eq!(brief(&output.requests).get(1).map(String::as_str), further);
        assert_eq!(session.answer(PLACE), Answer::Awaited);
    }
    let change = session.response(endpoints).change.expect("all is there");
    let counts = [change.listeners.len(), change.routes.len(), change.clusters.len(), change.endpoints.len()];
    assert_eq!((counts, change.destinations.len()), ([1, 1, 1, 1], 1));
    assert_eq!(session.answer(PLACE), Answer::Service);
}

#[test]
fn nobody_and_a_workload_are_answers_too() {
    let mut session = session_alone();
    session.ask(both());
    let output = session.response(response(Destination, "2", vec![], &[PLACE, ADDRESS]));
    assert_eq!(brief(&output.requests), ["destination nonce 2"]);
    assert_eq!((session.answer(PLACE), session.answer(ADDRESS)), (Answer::Nobody, Answer::Nobody));
    let came = delivered_destination(ADDRESS, "d1", &peer_at("orders"));
    let change = session.response(response(Destination, "3", vec![came], &[])).change.expect("somebody came");
    assert!(matches!(&change.destinations[0].who, Who::Peer(peer) if peer.identity.service_account() == "orders"));
    assert_eq!(session.answer(ADDRESS), Answer::Peer);
    let change = session.response(response(Destination, "4", vec![], &[ADDRESS])).change.expect("and went");
    assert_eq!(change.removed_destinations.len(), 1);
    assert_eq!(session.answer(ADDRESS), Answer::Nobody);
}

#[test]
fn what_is_given_up_takes_with_it_what_nothing_else_leads_to() {
    let mut session = session_that_asked();
    let output = session.give_up([PLACE, ADDRESS]);
    assert_eq!(
        brief(&output.requests),
        [
            "cluster -default/shop:80",
            "endpoints -default/shop:80",
            "listener -outbound/default/shop:80",
            "routes -default/shop:80",
            "destination -10.96.0.2 -10.96.0.2:80",
        ]
    );
    let change = output.change.expect("it was in force");
    assert_eq!(change.removed_listeners, [ListenerName::from(OUT)]);
    assert_eq!(change.removed_clusters, [ClusterName::from(SHOP)]);
    assert_eq!((change.removed_routes.len(), change.removed_endpoints.len()), (1, 1));
    assert!(output.held_changed);
    let held: Vec<_> = session.held().iter().map(|resource| resource.name.to_string()).collect();
    assert_eq!(held, [ANY, ANY], "its own stays");
}

#[test]
fn an_answer_that_crossed_giving_up_is_not_kept() {
    let mut session = session_that_asked();
    session.give_up([PLACE, ADDRESS]);
    for response in shop("9") {
        assert_eq!(session.response(response).change, None);
    }
    session.response(at("9"));
    assert_eq!(session.held().len(), 2);
}

#[test]
fn what_answers_giving_up_does_not_answer_asking_again() {
    let mut session = session_that_asked();
    session.give_up([PLACE, ADDRESS]);
    session.ask(both());
    session.response(at("3"));
    for kind in [Listeners, Clusters] {
        session.response(response(kind, "4", vec![], &[OUT, SHOP]));
    }
    assert_eq!(session.answer(PLACE), Answer::Awaited, "somebody is there, who was asked for again");
    let [clusters, endpoints, listeners, routes] = shop("5");
    for response in [listeners, routes, clusters, endpoints] {
        session.response(response);
    }
    assert_eq!(session.answer(PLACE), Answer::Service);
    session.response(response(Listeners, "6", vec![], &[OUT]));
    assert_eq!(session.held_count(Listeners), 1, "a removal of what is held is one");
}

#[test]
fn what_the_server_does_not_have_is_not_waited_for() {
    let mut session = session_alone();
    session.ask(both());
    session.response(at("2"));
    assert_eq!(session.answer(PLACE), Answer::Awaited);
    session.response(response(Listeners, "3", vec![], &[OUT]));
    assert_eq!(session.answer(PLACE), Answer::Nobody, "there is no such listener");
    let [_, _, listeners, routes] = shop("4");
    session.response(listeners);
    session.response(routes);
    assert_eq!(session.answer(PLACE), Answer::Awaited);
    let change = session.response(response(Clusters, "5", vec![], &[SHOP])).change.expect("all is answered");
    assert_eq!((change.listeners.len(), change.routes.len()), (1, 1));
    assert_eq!(session.answer(PLACE), Answer::Service);
}

#[test]
fn new_routes_take_force_when_the_clusters_they_lead_to_have_endpoints() {
    let mut session = session_that_asked();
    let moved = delivered(SHOP, "r2", &routes(SHOP, "default/new:80"));
    let output = session.response(response(Routes, "3", vec![moved], &[]));
    assert_eq!(output.change, None);
    assert_eq!(brief(&output.requests), ["routes nonce 3", "cluster +default/new:80"]);
    let new = delivered("default/new:80", "1", &cluster("default/new:80"));
    assert_eq!(session.response(response(Clusters, "4", vec![new], &[])).change, None);
    let new = delivered("default/new:80", "1", &one_endpoint("default/new:80", 9));
    let output = session.response(response(Endpoints, "5", vec![new], &[]));
    let change = output.change.expect("all is there");
    assert_eq!((change.routes.len(), change.clusters.len(), change.endpoints.len()), (1, 1, 1));
    assert_eq!(change.removed_clusters, [ClusterName::from(SHOP)]);
    assert_eq!(brief(&output.requests)[1..], ["cluster -default/shop:80", "endpoints -default/shop:80"]);
}

#[test]
fn a_new_stream_tells_what_is_held_and_asks_for_it_again() {
    let mut session = session_that_asked();
    session.stream_lost();
    assert_eq!(session.answer(PLACE), Answer::Service, "what is in force stays");
    let requests = session.stream_opened().requests;
    assert_eq!(
        brief(&requests),
        [
            "cluster +* +default/shop:80",
            "endpoints +default/shop:80",
            "listener +* +outbound/default/shop:80",
            "routes +default/shop:80",
            "destination +10.96.0.2 +10.96.0.2:80",
        ]
    );
    assert_eq!(versions(&requests[0]), [(SHOP, "c1"), (ANY, "c1")]);
    assert_eq!(versions(&requests[4]), [(PLACE, "d1")]);
}

#[test]
fn a_restored_session_has_what_was_asked_for_and_no_more() {
    let held = session_that_asked().held();
    for (asked, listeners) in [(Some(both()), 2), (None, 1)] {
        let mut session = asking_session();
        session.ask(asked.into_iter().flatten());
        let output = session.restore(held.clone());
        assert!(output.completed && output.rejected.is_empty());
        assert_eq!(session.held_count(Listeners), listeners);
    }
}

#[test]
fn with_a_server_that_does_not_know_destinations_everything_is_held() {
    let mut world = World::new();
    world.server.is_old = true;
    for n in 1..3 {
        world.step(&Step::Cluster { name: n, endpoints: n, timeout: 1 });
        world.step(&Step::Endpoints { name: n, port: 1 });
        world.step(&Step::Listener { name: n, target: n, is_http: false });
    }
    world.step(&Step::Own(0));
    world.step(&Step::Ask(1));
    world.run_dry();
    assert!(!world.session.is_on_demand() && world.session.has_completed());
    let everything = world.applied.resources.len();
    assert_eq!(everything, world.server.resources.len());
    world.step(&Step::Lose);
    world.server.is_old = false;
    world.run_dry();
    assert_eq!(world.applied.resources.len(), everything, "nor does one that knows them take any of it away");
    world.step(&Step::Remove { kind: Listeners, name: 2 });
    world.run_dry();
    assert_eq!(world.applied.resources.len(), everything - 1);
}

#[derive(Debug, Clone)]
enum Step {
    Ask(u8),
    GiveUp(u8),
    Service { at: u8, listener: u8 },
    Peer(u8),
    Own(u8),
    Cluster { name: u8, endpoints: u8, timeout: i64 },
    Listener { name: u8, target: u8, is_http: bool },
    Routes { name: u8, cluster: u8 },
    Endpoints { name: u8, port: u32 },
    Remove { kind: ResourceType, name: u8 },
    Respond(ResourceType),
    Lose,
    Restart,
}

/// A cluster of this name is never removed, nor are its endpoints; another may be.
const STABLE: u8 = 0;

fn any_kind() -> impl Strategy<Value = ResourceType> {
    prop::sample::select(ResourceType::ALL.to_vec())
}

fn any_step() -> impl Strategy<Value = Step> {
    let name = 0..3u8;
    prop_oneof![
        3 => name.clone().prop_map(Step::Ask),
        1 => name.clone().prop_map(Step::GiveUp),
        3 => (name.clone(), name.clone()).prop_map(|(at, listener)| Step::Service { at, listener }),
        1 => name.clone().prop_map(Step::Peer),
        1 => name.clone().prop_map(Step::Own),
        2 => (name.clone(), name.clone(), 1..3i64)
            .prop_map(|(name, endpoints, timeout)| Step::Cluster { name, endpoints, timeout }),
        2 => (name.clone(), name.clone(), any::<bool>())
            .prop_map(|(name, target, is_http)| Step::Listener { name, target, is_http }),
        2 => (name.clone(), name.clone()).prop_map(|(name, cluster)| Step::Routes { name, cluster }),
        1 => (name.clone(), 1..3u32).prop_map(|(name, port)| Step::Endpoints { name, port }),
        1 => (any_kind(), name).prop_map(|(kind, name)| Step::Remove { kind, name }),
        12 => any_kind().prop_map(Step::Respond),
        1 => Just(Step::Lose),
        1 => Just(Step::Restart),
    ]
}

fn service(n: u8) -> String {
    format!("default/s{n}:80")
}

fn places(n: u8) -> [Arc<str>; 2] {
    [format!("10.96.0.{n}:80").into(), format!("10.96.0.{n}").into()]
}

struct World {
    server: ControlPlane,
    session: Session,
    applied: Applied,
    asked: BTreeSet<Arc<str>>,
}

impl World {
    fn new() -> Self {
        let mut server = ControlPlane::default();
        server.put(Clusters, &service(STABLE), &cluster(&service(STABLE)));
        server.put(Endpoints, &service(STABLE), &one_endpoint(&service(STABLE), 1));
        Self { server, session: asking_session(), applied: Applied::default(), asked: BTreeSet::new() }
    }

    fn follow(&mut self, output: Output) {
        if let Some(change) = output.change {
            let removed: Vec<String> = change.removed_clusters.iter().map(ToString::to_string).collect();
            self.applied.apply(change);
            let used = self.applied.used_clusters();
            for name in removed {
                assert!(!used.contains(&name), "{name} was removed while used");
            }
            if used.contains(&service(STABLE)) {
                for kind in [Clusters, Endpoints] {
                    let key = (kind, service(STABLE));
                    assert!(self.applied.resources.contains_key(&key), "{kind} is led to and missing");
                }
            }
        }
        for request in &output.requests {
            self.server.request(request);
        }
    }

    fn respond(&mut self, kind: ResourceType) -> bool {
        if !self.server.has_stream() {
            self.server.open();
            let output = self.session.stream_opened();
            self.follow(output);
        }
        let Some(response) = self.server.respond(kind) else { return false };
        let output = self.session.response(response);
        self.follow(output);
        true
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Ask(n) => {
                self.asked.extend(places(n));
                let output = self.session.ask(places(n));
                self.follow(output);
            }
            Step::GiveUp(n) => {
                let names = places(n);
                for name in &names {
                    self.asked.remove(name);
                }
                let output = self.session.give_up(names.iter().map(AsRef::as_ref));
                self.follow(output);
            }
            Step::Service { at, listener } => {
                self.server.put(Destination, &places(at)[0], &service_at(&service(listener)));
            }
            Step::Peer(n) => self.server.put(Destination, &places(n)[1], &peer_at(&format!("a{n}"))),
            Step::Own(n) => {
                let name = format!("{OWN}{n}");
                self.server.put(Clusters, &name, &own_cluster(&name));
                self.server.put(Listeners, &name, &own_listener(&name, &name));
            }
            Step::Cluster { name: n, endpoints, timeout } => {
                let endpoints = if n == STABLE { STABLE } else { endpoints };
                let mut message = cluster_with_endpoints(&service(n), &service(endpoints));
                message.connect_timeout = crate::xds::fixtures::seconds(timeout);
                self.server.put(Clusters, &service(n), &message);
            }
            Step::Listener { name: n, target, is_http: true } => {
                self.server.put(Listeners, &service(n), &http_listener(&service(n), &service(target)));
            }
            Step::Listener { name: n, target, is_http: false } => {
                self.server.put(Listeners, &service(n), &tcp_listener(&service(n), &service(target)));
            }
            Step::Routes { name: n, cluster } => {
                self.server.put(Routes, &service(n), &routes(&service(n), &service(cluster)));
            }
            Step::Endpoints { name: n, port } => {
                self.server.put(Endpoints, &service(n), &one_endpoint(&service(n), port));
            }
            Step::Remove { kind, name: n } => self.remove(kind, n),
            Step::Respond(kind) => {
                self.respond(kind);
            }
            Step::Lose => {
                self.server.lose();
                self.session.stream_lost();
            }
            Step::Restart => {
                self.server.lose();
                let held = self.session.held();
                self.session = asking_session();
                self.applied = Applied::default();
                self.session.ask(self.asked.iter().cloned());
                let output = self.session.restore(held);
                self.follow(output);
            }
        }
    }

    fn remove(&mut self, kind: ResourceType, n: u8) {
        let mut names = vec![service(n), format!("{OWN}{n}")];
        if kind == Destination {
            names = places(n).iter().map(ToString::to_string).collect();
        } else if n == STABLE && matches!(kind, Clusters | Endpoints) {
            return;
        }
        for name in names {
            self.server.resources.remove(&(kind, name));
        }
    }

    /// Lets the server say everything it has to say.
    fn run_dry(&mut self) {
        for _ in 0..100 {
            let mut is_quiet = true;
            for kind in ResourceType::ALL {
                is_quiet &= !self.respond(kind);
            }
            if is_quiet {
                return;
            }
        }
        panic!("the conversation does not end");
    }

    /// What the server has of what is asked for, and of what that leads to.
    fn expected(&self) -> BTreeMap<(ResourceType, String), Decoded> {
        let own = self.server.resources.keys().filter(|(_, name)| name.starts_with(OWN)).cloned();
        let asked = self.asked.iter().map(|name| (Destination, name.to_string()));
        let mut open: Vec<_> = own.chain(asked).collect();
        let mut expected = BTreeMap::new();
        while let Some((kind, name)) = open.pop() {
            let key = (kind, name);
            let Some((_, body)) = self.server.resources.get(&key) else { continue };
            let decoded = decode_as(kind, &key.1, body).unwrap();
            match &decoded {
                Decoded::Destination(spec) => {
                    if let Who::Service(listener) = &spec.who {
                        open.push((Listeners, listener.to_string()));
                    }
                }
                Decoded::Listener(spec) => {
                    if let Some(RouteSource::Named(name)) = &spec.routes {
                        open.push((Routes, name.to_string()));
                    }
                    open.extend(spec.cluster.iter().map(|name| (Clusters, name.to_string())));
                }
                Decoded::Routes(spec) => {
                    let routes = spec.virtual_hosts.iter().flat_map(|host| &host.routes);
                    open.extend(
                        routes.flat_map(|route| &route.clusters).map(|share| (Clusters, share.cluster.to_string())),
                    );
                }
                Decoded::Cluster(spec) => {
                    if let weft_core::model::EndpointSource::Discovered(name) = &spec.endpoints {
                        open.push((Endpoints, name.to_string()));
                    }
                }
                Decoded::Endpoints(_) => {}
            }
            expected.insert(key, decoded);
        }
        expected
    }

    /// Whether something in force still needs what the server has no more.
    fn is_kept_for_its_users(&self, kind: ResourceType, name: &str) -> bool {
        let used = self.applied.used_clusters();
        let in_force = || self.applied.resources.values();
        match kind {
            Clusters => used.contains(name),
            Routes => in_force().any(|spec| {
                matches!(spec, Decoded::Listener(listener)
                    if listener.routes == Some(RouteSource::Named(RouteName::from(name))))
            }),
            Endpoints => in_force().any(|spec| {
                matches!(spec, Decoded::Cluster(cluster)
                    if cluster.endpoints == weft_core::model::EndpointSource::Discovered(ClusterName::from(name)))
            }),
            Listeners => in_force().any(
                |spec| matches!(spec, Decoded::Destination(spec) if spec.who == Who::Service(ListenerName::from(name))),
            ),
            Destination => false,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn any_history_ends_at_what_the_server_has_of_what_is_asked(steps in prop::collection::vec(any_step(), 0..80)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.run_dry();
        prop_assert!(world.session.has_completed());
        prop_assert_eq!(world.session.awaited(), 0);
        let expected = world.expected();
        for (key, spec) in &expected {
            prop_assert_eq!(world.applied.resources.get(key), Some(spec), "{:?} is not as the server has it", key);
        }
        for (kind, name) in world.applied.resources.keys().filter(|key| !expected.contains_key(*key)) {
            prop_assert!(world.is_kept_for_its_users(*kind, name), "{} {} is a ghost", kind, name);
        }
        for name in &world.asked {
            let answer = world.session.answer(name);
            prop_assert_ne!(answer, Answer::Awaited, "{} was never answered", name);
        }
    }
}
