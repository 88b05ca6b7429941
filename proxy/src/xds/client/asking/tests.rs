//! What connections ask for is asked of a server in miniature, within bounds.

use weft_core::model::Direction;
use weft_proto::discovery::Node;
use weft_proto::names::ASKS_FOR_DESTINATIONS;

use super::*;
use crate::state::{Demand, Limits, Look, Unasked};
use crate::xds::ResourceType::{self, Cluster, Destination, Endpoints, Listener as Listeners, Routes};
use crate::xds::fixtures::control_plane::ControlPlane;
use crate::xds::fixtures::{
    cluster, http_listener, one_endpoint, own_cluster, own_listener, peer_at, routes, service_at,
};

const SHOP: &str = "default/shop:80";
const OUT: &str = "outbound/default/shop:80";
const ANY: &str = "inbound/any";

fn shop() -> SocketAddr {
    // Where the fixtures' listeners are.
    SocketAddr::from(([10, 96, 0, 2], 80))
}

fn outside(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 443))
}

struct World {
    server: ControlPlane,
    session: Session,
    store: Arc<Store>,
    asks: Option<mpsc::Receiver<SocketAddr>>,
    asking: Asking,
    now: Instant,
}

impl World {
    /// A proxy that is connected and has asked for nothing, and a server that has a shop.
    fn new(nobodies: usize, somebodies: usize) -> Self {
        let mut server = ControlPlane::default();
        server.put(Cluster, ANY, &own_cluster(ANY));
        server.put(Listeners, ANY, &own_listener(ANY, ANY));
        server.put(Cluster, SHOP, &cluster(SHOP));
        server.put(Endpoints, SHOP, &one_endpoint(SHOP, 8080));
        server.put(Listeners, OUT, &http_listener(OUT, SHOP));
        server.put(Routes, SHOP, &routes(SHOP, SHOP));
        server.put(Destination, &shop().to_string(), &service_at(OUT));
        let (demand, asks) = Demand::new(Limits { nobodies, somebodies });
        let store = Arc::new(Store::on_demand("default/caller".to_owned(), demand));
        let node = Node { client_features: vec![ASKS_FOR_DESTINATIONS.to_owned()], ..Default::default() };
        let asking = Asking::new(Arc::clone(&store));
        let session = Session::on_demand(node);
        let mut world = Self { server, session, store, asks: Some(asks), asking, now: clock::now() };
        world.connect();
        world.converse();
        world
    }

    fn demand(&self) -> &Demand {
        self.store.demand().expect("it asks")
    }

    fn connect(&mut self) {
        self.server.open();
        let output = self.session.stream_opened();
        self.asking.connected(true);
        self.follow(output);
    }

    fn lose(&mut self) {
        self.server.lose();
        self.session.stream_lost();
        self.asking.connected(false);
    }

    fn follow(&mut self, output: Output) {
        for request in &output.requests {
            self.server.request(request);
        }
        if let Some(change) = output.change {
            self.store.apply(change);
        }
        if let Some(further) = self.asking.told(&mut self.session, &output.told) {
            self.follow(further);
        }
    }

    /// Lets everything be asked and answered.
    fn converse(&mut self) {
        loop {
            let mut batch = Vec::new();
            while let Some(Ok(address)) = self.asks.as_mut().map(mpsc::Receiver::try_recv) {
                batch.push(address);
            }
            let mut is_quiet = batch.is_empty();
            if !is_quiet {
                let output = self.asking.ask(&mut self.session, &batch, self.now);
                self.follow(output);
            }
            for kind in ResourceType::ALL {
                if let Some(response) = self.server.respond(kind) {
                    is_quiet = false;
                    let output = self.session.response(response);
                    self.follow(output);
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    fn give_up_unused(&mut self) {
        let output = self.asking.give_up_unused(&mut self.session, self.now);
        self.follow(output);
    }

    /// A connection comes to an address, is answered, and ends; the next comes later.
    fn call(&mut self, address: SocketAddr) -> Option<Kind> {
        self.now += Duration::from_secs(1);
        let is_known = self.store.outbound(address).is_some();
        if self.store.must_ask(address, is_known) {
            self.demand().look(address, self.now);
            self.converse();
        }
        let listener = self.store.outbound(address);
        let Look::Answered(kind, usage) = self.demand().look(address, self.now) else { return None };
        let usage = listener.and_then(|listener| listener.usage.clone()).unwrap_or(usage);
        drop(usage.begin(self.now));
        Some(kind)
    }

    fn known(&self) -> Vec<String> {
        let mut all = self.demand().summaries(|_| None);
        all.sort_unstable_by_key(|asked| asked.address);
        all.iter().map(|asked| format!("{} {:?}", asked.address, asked.answer)).collect()
    }
}

#[test]
fn who_waits_is_told_when_everything_is_in_force() {
    let mut world = World::new(8, 8);
    assert!(world.store.outbound(shop()).is_none());
    let Look::Wait(first) = world.demand().look(shop(), world.now) else { panic!("nobody knows it") };
    let Look::Wait(second) = world.demand().look(shop(), world.now) else { panic!("it is asked for") };
    assert!(first.has_changed().is_ok() && second.has_changed().is_ok(), "nothing is answered");
    world.converse();
    assert!(first.has_changed().is_err() && second.has_changed().is_err(), "both are woken");
    let listener = world.store.outbound(shop()).expect("it is in force");
    let target = listener.routes.as_ref().and_then(|table| table.targets().next().cloned()).expect("with its routes");
    assert_eq!(target.endpoints().endpoints().len(), 1, "and their endpoints");
}

#[test]
fn an_answer_changes_with_the_mesh_and_is_asked_for_once() {
    let mut world = World::new(8, 8);
    let address = outside(1);
    assert_eq!(world.call(address), Some(Kind::Nobody));
    world.server.put(Destination, &address.ip().to_string(), &peer_at("orders"));
    world.converse();
    assert_eq!(world.call(address), Some(Kind::Peer));
    assert!(world.store.outbound(address).is_some());
    let past_its_proxy = SocketAddr::new(address.ip(), 22);
    assert_eq!(world.call(past_its_proxy), Some(Kind::Peer));
    assert!(world.store.outbound(past_its_proxy).is_none(), "a port that its proxy leaves alone");
    world.server.resources.remove(&(Destination, address.ip().to_string()));
    world.converse();
    assert_eq!(world.call(address), Some(Kind::Nobody));
    assert!(world.store.outbound(address).is_none());
}

#[test]
fn a_workload_is_reached_as_by_a_cluster_of_any_port() {
    let mut world = World::new(8, 8);
    world.server.put(Destination, "192.0.2.1", &peer_at("orders"));
    world.call(outside(1));
    let listener = world.store.outbound(outside(1)).expect("a workload");
    let cluster = listener.cluster.as_ref().expect("bytes go there");
    assert_eq!(cluster.spec.service.to_string(), "default/undeclared:443");
    let identities = cluster.spec.tls.as_ref().map(|tls| tls.identities.clone()).unwrap_or_default();
    assert_eq!(identities[0].as_str(), "spiffe://weft.local/ns/default/sa/orders");
    assert_eq!(listener.spec.direction, Direction::Outbound);
}

#[test]
fn a_service_at_the_address_of_a_workload_known_by_another_port_is_found() {
    let mut world = World::new(8, 8);
    world.server.put(Destination, &shop().ip().to_string(), &peer_at("shop"));
    let other = SocketAddr::new(shop().ip(), 9100);
    assert_eq!(world.call(other), Some(Kind::Peer));
    assert!(world.store.outbound(shop()).is_some(), "the workload is known");
    assert_eq!(world.call(shop()), Some(Kind::Service));
    let listener = world.store.outbound(shop()).expect("it is in force");
    assert_eq!(listener.spec.name.as_str(), OUT);
    assert!([shop(), other].iter().all(|address| !world.store.must_ask(*address, true)), "both are answered");
}

#[test]
fn without_a_stream_nobody_waits_and_what_is_known_stays() {
    let mut world = World::new(8, 8);
    assert_eq!(world.call(shop()), Some(Kind::Service));
    let Look::Wait(waiting) = world.demand().look(outside(1), world.now) else { panic!("nobody knows it") };
    world.lose();
    assert!(waiting.has_changed().is_err(), "who waits is told at once");
    for address in [outside(1), outside(2)] {
        assert!(matches!(world.demand().look(address, world.now), Look::Unasked(Unasked::Unconnected)));
    }
    assert!(world.store.outbound(shop()).is_some());
    world.now += 10 * UNUSED;
    world.connect();
    world.converse();
    assert_eq!(world.call(outside(1)), Some(Kind::Nobody), "asked for before the loss, and answered after it");
}

#[test]
fn one_too_many_goes_that_was_used_longest_ago_and_has_no_connection() {
    let mut world = World::new(2, 8);
    world.call(shop());
    world.call(outside(1));
    world.call(outside(2));
    let Look::Answered(_, usage) = world.demand().look(outside(1), world.now) else { panic!("it was answered") };
    let open = usage.begin(world.now);
    world.call(outside(3));
    let nobody = |n| format!("{} Some(Nobody)", outside(n));
    let service = format!("{} Some(Service)", shop());
    assert_eq!(world.known(), [service.clone(), nobody(1), nobody(3)], "the first is in use");
    world.call(outside(4));
    assert_eq!(world.known(), [service.clone(), nobody(1), nobody(4)]);
    drop(open);
    world.call(outside(4));
    world.now += Duration::from_mins(1);
    world.call(outside(5));
    world.call(outside(4));
    world.call(outside(6));
    assert_eq!(world.known(), [service, nobody(4), nobody(6)], "by the last use, not the first");
    assert_eq!(world.asking.asked.len(), 3, "and the server is asked for no more");
}

#[test]
fn services_make_room_for_services_alone() {
    let mut world = World::new(8, 1);
    world.call(outside(1));
    assert_eq!(world.call(shop()), Some(Kind::Service));
    world.server.put(Destination, "192.0.2.9", &peer_at("orders"));
    assert_eq!(world.call(outside(9)), Some(Kind::Peer));
    assert_eq!(world.known(), [format!("{} Some(Nobody)", outside(1)), format!("{} Some(Peer)", outside(9))]);
    assert!(world.store.outbound(shop()).is_none());
    assert_eq!(world.session.held_count(Cluster), 1, "what led there alone went with it");
}

#[test]
fn what_nobody_used_for_an_hour_is_given_up_unless_a_connection_is_open() {
    let mut world = World::new(8, 8);
    world.call(shop());
    world.call(outside(1));
    let listener = world.store.outbound(shop()).expect("in force");
    let open = listener.usage.as_ref().expect("it is counted").begin(world.now);
    world.now += UNUSED;
    world.give_up_unused();
    assert_eq!(world.known(), [format!("{} Some(Service)", shop())]);
    assert!(world.asking.next_look.is_some_and(|at| at >= world.now + LOOK), "not at once again");
    drop(open);
    world.now += UNUSED + LOOK;
    world.give_up_unused();
    assert!(world.known().is_empty() && world.store.outbound(shop()).is_none());
    assert_eq!(world.asking.next_look, None, "with nothing asked for no timer runs");
    assert_eq!(world.call(shop()), Some(Kind::Service), "and it can be asked for again");
}

#[test]
fn an_address_that_is_never_answered_holds_nobody_else_up_and_is_given_up_too() {
    let mut world = World::new(8, 8);
    let Look::Wait(waiting) = world.demand().look(outside(1), world.now) else { panic!("nobody knows it") };
    let batch = [world.asks.as_mut().and_then(|asks| asks.try_recv().ok()).expect("it was asked for")];
    let output = world.asking.ask(&mut world.session, &batch, world.now);
    assert_eq!(output.requests.len(), 1, "which the server never sees");
    assert!(waiting.has_changed().is_ok());
    assert_eq!(world.call(shop()), Some(Kind::Service));
    world.now += 2 * UNUSED;
    let output = world.asking.give_up_unused(&mut world.session, world.now);
    assert!(waiting.has_changed().is_err());
    assert!(output.requests.iter().any(|request| !request.resource_names_unsubscribe.is_empty()));
    assert!(world.known().is_empty());
}

#[test]
fn more_unanswered_asks_than_there_is_room_for_go_without() {
    let (demand, _asks) = Demand::new(Limits::default());
    demand.connected(true);
    let now = clock::now();
    let address = |n: u16| SocketAddr::from(([192, 0, 2, 1], n));
    assert!((1..=1024).all(|n| matches!(demand.look(address(n), now), Look::Wait(_))));
    assert!(matches!(demand.look(address(2000), now), Look::Unasked(Unasked::Full)));
    assert!(matches!(demand.look(address(7), now), Look::Wait(_)), "those that are asked for are waited for");
    demand.answer(address(1), Some(Kind::Nobody));
    assert!(
        matches!(demand.look(address(2000), now), Look::Unasked(Unasked::Full)),
        "its ask still stands in the queue"
    );
}

#[test]
fn a_restart_knows_what_was_used_without_a_control_plane() {
    let mut before = World::new(8, 8);
    before.call(shop());
    before.call(outside(1));
    let (held, used) = (before.session.held(), before.asking.used());
    assert_eq!(used, [shop()]);
    let mut after = World::new(8, 8);
    after.lose();
    let Some(demand) = after.store.demand() else { panic!("it asks") };
    assert!(matches!(demand.look(shop(), after.now), Look::Unasked(_)));
    after.asking.restore(&mut after.session, &used);
    let output = after.session.restore(held);
    after.follow(output);
    assert!(after.store.outbound(shop()).is_some());
    assert_eq!(after.known(), [format!("{} Some(Service)", shop())]);
}
