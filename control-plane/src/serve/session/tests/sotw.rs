//! Rules of the state-of-the-world variant.

use weft_proto::discovery::DiscoveryRequest;

use super::*;
use crate::serve::session::sotw::Sotw;

type SotwBench = Bench<Sotw>;

fn ask(kind: Kind, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        type_url: kind.type_url().to_owned(),
        resource_names: names.iter().map(ToString::to_string).collect(),
        ..DiscoveryRequest::default()
    }
}

fn ack(response: &DiscoveryResponse, names: &[&str]) -> DiscoveryRequest {
    let kind = Kind::from_type_url(&response.type_url).unwrap();
    let (version_info, response_nonce) = (response.version_info.clone(), response.nonce.clone());
    DiscoveryRequest { version_info, response_nonce, ..ask(kind, names) }
}

fn nack(response: &DiscoveryResponse, names: &[&str], message: &str) -> DiscoveryRequest {
    DiscoveryRequest { error_detail: Some(error(message)), ..ack(response, names) }
}

impl SotwBench {
    fn ask(&mut self, kind: Kind, names: &[&str]) -> Vec<String> {
        summaries(&self.send(ask(kind, names)))
    }

    fn settle(&mut self, kind: Kind, names: &[&str]) {
        for response in self.send(ask(kind, names)) {
            assert_eq!(summaries(&self.send(ack(&response, names))), NOTHING);
        }
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_grpc_client_gets_each_resource_it_names_in_turn() {
    let mut bench = SotwBench::new(&[
        cluster("a", 1),
        cluster("b", 1),
        endpoints("a", 1),
        listener("l", 1),
        listener("other", 1),
        route("r", 1),
    ]);
    assert_eq!(bench.ask(Kind::Listener, &["l"]), ["LDS +l"]);
    assert_eq!(bench.ask(Kind::Route, &["r"]), ["RDS +r"]);
    assert_eq!(bench.ask(Kind::Cluster, &["a"]), ["CDS +a"]);
    assert_eq!(bench.ask(Kind::Endpoints, &["a"]), ["EDS +a"]);
}

#[test]
fn an_empty_list_is_a_wildcard_only_before_any_name_and_only_for_clusters_and_listeners() {
    let mut bench = SotwBench::new(&[cluster("a", 1), endpoints("a", 1), route("r", 1), listener("l", 1)]);
    assert_eq!(bench.ask(Kind::Endpoints, &[]), NOTHING);
    assert_eq!(bench.ask(Kind::Route, &[]), NOTHING);
    assert_eq!(bench.ask(Kind::Cluster, &[]), ["CDS +a"]);
    bench.settle(Kind::Listener, &["l"]);
    assert_eq!(bench.ask(Kind::Listener, &[]), NOTHING);
    assert_eq!(summaries(&bench.publish(&[listener("l", 2)])), NOTHING);
}

#[test]
fn a_change_of_one_cluster_sends_all_and_its_endpoints_but_a_change_of_endpoints_only_those() {
    let world = |a, b| [cluster("a", a), cluster("b", 1), endpoints("a", 1), endpoints("b", b)];
    let mut bench = SotwBench::new(&world(1, 1));
    bench.settle(Kind::Cluster, &[]);
    bench.settle(Kind::Endpoints, &["a", "b"]);
    let changed = bench.publish(&world(2, 1));
    assert_eq!(summaries(&changed), ["CDS +a +b", "EDS +a"]);
    bench.send(ack(&changed[0], &[]));
    bench.send(ack(&changed[1], &["a", "b"]));
    assert_eq!(summaries(&bench.publish(&world(2, 2))), ["EDS +b"]);
}

#[test]
fn a_cluster_leaves_only_after_its_users_are_acknowledged() {
    let mut bench = SotwBench::new(&[cluster("blue", 1), route("r", 1)]);
    bench.settle(Kind::Cluster, &[]);
    bench.settle(Kind::Route, &["r"]);
    let moved = bench.publish(&[cluster("green", 1), route("r", 2)]);
    assert_eq!(summaries(&moved), ["CDS +blue +green", "RDS +r"]);
    assert_eq!(summaries(&bench.send(ack(&moved[1], &["r"]))), NOTHING);
    assert_eq!(summaries(&bench.send(ack(&moved[0], &[]))), ["CDS +green"]);
}

#[test]
fn a_listener_that_is_gone_is_absent_at_once() {
    let mut bench = SotwBench::new(&[listener("a", 1), listener("b", 1)]);
    bench.settle(Kind::Listener, &[]);
    assert_eq!(summaries(&bench.publish(&[listener("b", 1)])), ["LDS +b"]);
}

#[test]
fn names_in_a_request_with_a_stale_nonce_are_answered() {
    let mut bench = SotwBench::new(&[endpoints("a", 1), endpoints("b", 1)]);
    let first = bench.send(ask(Kind::Endpoints, &["a"]));
    bench.send(ack(&first[0], &["a"]));
    bench.publish(&[endpoints("a", 2), endpoints("b", 1)]);
    assert_eq!(summaries(&bench.send(ack(&first[0], &["a", "b"]))), ["EDS +b"]);
}

#[test]
fn only_the_error_makes_a_refusal_whatever_the_version_says() {
    let mut bench = SotwBench::new(&[cluster("a", 1)]);
    let first = bench.send(ask(Kind::Cluster, &[]));
    // The current version with an error is a refusal ...
    bench.send(nack(&first[0], &[], "a is bad"));
    assert!(bench.session.standing().refusal.is_some());
    // ... and is not repeated; an older version without one is none.
    let second = bench.publish(&[cluster("a", 2)]);
    let mut accepted = ack(&second[0], &[]);
    "old".clone_into(&mut accepted.version_info);
    assert_eq!(summaries(&bench.send(accepted)), NOTHING);
    assert_eq!(bench.session.standing().refusal, None);
    assert_eq!(bench.acknowledged(), 2);
}

#[test]
fn an_unknown_type_is_not_answered() {
    let mut bench = SotwBench::new(&[]);
    let type_url = "type.googleapis.com/of.the.Future".to_owned();
    assert_eq!(summaries(&bench.send(DiscoveryRequest { type_url, ..DiscoveryRequest::default() })), NOTHING);
}

#[test]
fn versions_are_those_of_the_content() {
    let all = [cluster("a", 1), cluster("b", 1)];
    let version = |salt| {
        let world = World::new();
        world.put(salt, all.to_vec(), BTreeMap::new());
        SotwBench::on(world, salt).send(ask(Kind::Cluster, &[]))[0].version_info.clone()
    };
    assert_eq!(version(1), version(2));
}

#[test]
fn changes_wait_for_the_acknowledgement_or_a_second() {
    let mut bench = SotwBench::new(&[cluster("a", 1)]);
    bench.ask(Kind::Cluster, &[]);
    assert_eq!(summaries(&bench.publish(&[cluster("a", 2)])), NOTHING);
    let (waited, responses) = bench.wait();
    assert_eq!((waited, summaries(&responses)), (PATIENCE, vec!["CDS +a".to_owned()]));
}

#[test]
fn a_name_asked_for_before_it_exists_is_sent_when_created() {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_of_whole_state()) {
        let mut bench = SotwBench::new(&[]);
        bench.settle(kind, &["later"]);
        let created = bench.publish(&[resource(kind, "later", 1)]);
        assert_eq!(summaries(&created), [format!("{} +later", abbreviation(kind.type_url()))]);
    }
}

#[test]
fn destinations_are_not_of_the_whole_state() {
    let mut bench = SotwBench::new(&[destination("10.96.0.7:80", 1)]);
    assert_eq!(bench.ask(Kind::Destination, &["10.96.0.7:80", "*"]), NOTHING);
    assert_eq!(bench.ask(Kind::Destination, &[]), NOTHING);
    assert_eq!(summaries(&bench.publish(&[destination("10.96.0.7:80", 2)])), NOTHING);
}
