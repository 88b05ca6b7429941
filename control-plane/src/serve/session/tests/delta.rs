//! Rules of the incremental variant.

use weft_proto::discovery::DeltaDiscoveryRequest;

use super::*;
use crate::serve::session::delta::Delta;

type DeltaBench = Bench<Delta>;

fn ask(kind: Kind, subscribe: &[&str], unsubscribe: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.type_url().to_owned(),
        resource_names_subscribe: subscribe.iter().map(ToString::to_string).collect(),
        resource_names_unsubscribe: unsubscribe.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn ack(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    let (type_url, response_nonce) = (response.type_url.clone(), response.nonce.clone());
    DeltaDiscoveryRequest { type_url, response_nonce, ..DeltaDiscoveryRequest::default() }
}

fn nack(response: &DeltaDiscoveryResponse, message: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { error_detail: Some(error(message)), ..ack(response) }
}

impl DeltaBench {
    fn ask(&mut self, kind: Kind, subscribe: &[&str]) -> Vec<String> {
        summaries(&self.send(ask(kind, subscribe, &[])))
    }

    fn leave(&mut self, kind: Kind, unsubscribe: &[&str]) -> Vec<String> {
        summaries(&self.send(ask(kind, &[], unsubscribe)))
    }

    /// Acknowledges; the answer must be what the test expects.
    fn ack_all(&mut self, responses: &[DeltaDiscoveryResponse]) -> Vec<String> {
        responses.iter().flat_map(|response| summaries(&self.send(ack(response)))).collect()
    }

    /// Asks and acknowledges.
    fn settle(&mut self, kind: Kind, subscribe: &[&str]) {
        let responses = self.send(ask(kind, subscribe, &[]));
        assert_eq!(self.ack_all(&responses), Vec::<String>::new());
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn an_empty_first_request_asks_for_all_clusters_and_listeners_but_no_endpoints_and_routes() {
    let mut bench = DeltaBench::new(&[cluster("a", 1), endpoints("a", 1), listener("l", 1), route("r", 1)]);
    assert_eq!(bench.ask(Kind::Endpoints, &[]), NOTHING);
    assert_eq!(bench.ask(Kind::Route, &[]), NOTHING);
    assert_eq!(bench.ask(Kind::Cluster, &[]), ["CDS +a"]);
    assert_eq!(bench.ask(Kind::Listener, &[]), ["LDS +l"]);
}

#[test]
fn a_first_request_for_everything_is_answered_even_when_there_is_nothing() {
    let mut bench = DeltaBench::new(&[]);
    assert_eq!(bench.ask(Kind::Cluster, &[]), ["CDS"]);
    assert_eq!(bench.ask(Kind::Listener, &["*"]), ["LDS"]);
}

#[test]
fn an_empty_request_after_a_name_is_no_wildcard() {
    let mut bench = DeltaBench::new(&[cluster("a", 1), cluster("b", 1)]);
    assert_eq!(bench.ask(Kind::Cluster, &["a"]), ["CDS +a"]);
    assert_eq!(bench.ask(Kind::Cluster, &[]), NOTHING);
    assert_eq!(bench.leave(Kind::Cluster, &["a"]), NOTHING);
    assert_eq!(bench.ask(Kind::Cluster, &[]), NOTHING);
    assert_eq!(summaries(&bench.publish(&[cluster("a", 2), cluster("b", 2)])), NOTHING);
}

#[test]
fn a_star_taken_back_in_the_same_request_asks_for_nothing() {
    let mut bench = DeltaBench::new(&[cluster("a", 1)]);
    assert_eq!(summaries(&bench.send(ask(Kind::Cluster, &["*"], &["*"]))), NOTHING);
    assert_eq!(bench.ask(Kind::Cluster, &[]), NOTHING);
    assert_eq!(summaries(&bench.publish(&[cluster("a", 2)])), NOTHING);
    assert_eq!(bench.ask(Kind::Cluster, &["a"]), ["CDS +a"]);
}

#[test]
fn a_star_said_after_an_empty_first_request_goes_on_with_what_the_client_has() {
    let mut bench = DeltaBench::new(&[cluster("a", 1)]);
    bench.settle(Kind::Cluster, &[]);
    assert_eq!(bench.ask(Kind::Cluster, &["*", "missing"]), ["CDS -missing"]);
}

#[test]
fn a_star_renewed_while_a_response_is_under_way_names_what_of_it_is_gone() {
    let mut bench = DeltaBench::new(&[listener("a", 1), listener("b", 1)]);
    assert_eq!(bench.ask(Kind::Listener, &["*"]), ["LDS +a +b"]);
    assert_eq!(bench.leave(Kind::Listener, &["*"]), NOTHING);
    assert_eq!(summaries(&bench.publish(&[listener("a", 1)])), NOTHING);
    assert_eq!(bench.ask(Kind::Listener, &["*"]), ["LDS +a -b"]);
}

#[test]
fn a_name_dropped_while_the_star_holds_is_answered() {
    let mut bench = DeltaBench::new(&[cluster("a", 1)]);
    bench.settle(Kind::Cluster, &["*", "a", "missing"]);
    assert_eq!(bench.leave(Kind::Cluster, &["a"]), ["CDS +a"]);
    assert_eq!(bench.leave(Kind::Cluster, &["missing"]), ["CDS -missing"]);
}

#[test]
fn names_survive_the_end_of_the_star() {
    let mut bench = DeltaBench::new(&[cluster("a", 1), cluster("b", 1)]);
    bench.settle(Kind::Cluster, &["*", "a"]);
    assert_eq!(bench.leave(Kind::Cluster, &["*"]), NOTHING);
    assert_eq!(summaries(&bench.publish(&[cluster("a", 2), cluster("b", 2)])), ["CDS +a"]);
}

#[test]
fn what_the_client_holds_is_not_sent_again_and_what_is_gone_is_named() {
    let same = cluster("same", 1);
    let mut bench = DeltaBench::new(&[same.clone(), cluster("new", 1), cluster("changed", 2)]);
    let mut request = ask(Kind::Cluster, &[], &[]);
    request.initial_resource_versions = [("same", &*same.version), ("changed", "old"), ("gone", "old")]
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .into();
    assert_eq!(summaries(&bench.send(request)), ["CDS +changed +new"]);
    // Last of all, and after the acknowledgement of what may still use it.
    let (_, responses) = bench.wait();
    assert_eq!(summaries(&responses), ["CDS -gone"]);
}

#[test]
fn named_resources_the_client_holds_are_not_sent_again() {
    let same = endpoints("same", 1);
    let mut bench = DeltaBench::new(&[same.clone(), endpoints("changed", 2), endpoints("new", 1)]);
    let mut request = ask(Kind::Endpoints, &["same", "changed", "new"], &[]);
    request.initial_resource_versions = [("same", &*same.version), ("changed", "old"), ("not-asked-for", "old")]
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .into();
    assert_eq!(summaries(&bench.send(request)), ["EDS +new +changed"]);
}

#[test]
fn an_unchanged_world_costs_a_returning_client_one_empty_response_a_wildcard() {
    let all = [cluster("a", 1), endpoints("a", 1), listener("l", 1), route("r", 1)];
    let mut bench = DeltaBench::new(&all);
    for (resource, expected) in all.iter().zip([vec!["CDS"], vec![], vec!["LDS"], vec![]]) {
        let names: &[&str] = if resource.kind.has_legacy_wildcard() { &[] } else { &[&resource.name] };
        let mut request = ask(resource.kind, names, &[]);
        request.initial_resource_versions = [(resource.name.to_string(), resource.version.to_string())].into();
        assert_eq!(summaries(&bench.send(request)), expected);
    }
}

#[test]
fn every_new_or_repeated_subscription_is_answered_even_with_a_stale_nonce() {
    let mut bench = DeltaBench::new(&[endpoints("a", 1), endpoints("b", 1)]);
    let first = bench.send(ask(Kind::Endpoints, &["a"], &[]));
    assert_eq!(summaries(&bench.publish(&[endpoints("a", 2), endpoints("b", 1)])), NOTHING);
    let second = bench.send(ack(&first[0]));
    assert_eq!(summaries(&second), ["EDS +a"]);
    let mut stale = ask(Kind::Endpoints, &["a", "b", "missing"], &[]);
    stale.response_nonce.clone_from(&first[0].nonce);
    assert_eq!(summaries(&bench.send(stale)), ["EDS +a +b -missing"]);
}

#[test]
fn a_nonce_of_another_stream_is_no_error_and_acknowledges_nothing() {
    let mut bench = DeltaBench::new(&[cluster("a", 1)]);
    let mut request = ask(Kind::Cluster, &[], &[]);
    "6.1".clone_into(&mut request.response_nonce);
    let responses = bench.send(request.clone());
    assert_eq!(summaries(&responses), ["CDS +a"]);
    bench.send(request);
    assert_eq!(bench.session.standing().pending, 1);
    bench.ack_all(&responses);
    assert_eq!(bench.session.standing().pending, 0);
}

#[test]
fn a_missing_name_is_told_at_once_and_sent_when_it_is_created() {
    for kind in Kind::ALL {
        let mut bench = DeltaBench::new(&[]);
        let responses = bench.send(ask(kind, &["later"], &[]));
        assert_eq!(summaries(&responses), [format!("{} -later", abbreviation(kind.type_url()))]);
        bench.ack_all(&responses);
        let created = bench.publish(&[resource(kind, "later", 1)]);
        assert_eq!(summaries(&created), [format!("{} +later", abbreviation(kind.type_url()))]);
    }
}

#[test]
fn an_unknown_type_is_answered_empty_once() {
    let mut bench = DeltaBench::new(&[]);
    let unknown = DeltaDiscoveryRequest {
        type_url: "type.googleapis.com/of.the.Future".to_owned(),
        resource_names_subscribe: vec!["*".to_owned(), "a".to_owned()],
        ..DeltaDiscoveryRequest::default()
    };
    let responses = bench.send(unknown.clone());
    assert_eq!(summaries(&responses), ["type.googleapis.com/of.the.Future -a"]);
    assert_eq!(bench.ack_all(&responses), NOTHING);
    assert_eq!(summaries(&bench.send(nack(&responses[0], "no"))), NOTHING);
    // A flood of them ends the stream instead of filling memory.
    let flood = (0..1000).map(|_| bench.session.request(unknown.clone(), bench.now)).find_map(Result::err);
    assert!(matches!(flood, Some(Violation::TooManyUnknownTypes(..))), "{flood:?}");
}

#[test]
fn a_change_of_everything_goes_out_in_the_order_of_use() {
    let all = |content| [route("r", content), listener("l", content), endpoints("a", content), cluster("a", content)];
    let mut bench = DeltaBench::new(&all(1));
    for kind in Kind::ALL {
        bench.settle(kind, &["*"]);
    }
    assert_eq!(summaries(&bench.publish(&all(2))), ["CDS +a", "EDS +a", "LDS +l", "RDS +r"]);
}

#[test]
fn endpoints_follow_their_changed_cluster_though_they_did_not_change() {
    let mut bench = DeltaBench::new(&[cluster("a", 1), cluster("b", 1), endpoints("a", 1), endpoints("b", 1)]);
    bench.settle(Kind::Cluster, &[]);
    bench.settle(Kind::Endpoints, &["a", "b"]);
    let changed = [cluster("a", 2), cluster("b", 1), endpoints("a", 1), endpoints("b", 1)];
    assert_eq!(summaries(&bench.publish(&changed)), ["CDS +a", "EDS +a"]);
}

#[test]
fn endpoints_asked_for_before_their_clusters_are_answered_and_sent_again_with_them() {
    let mut bench = DeltaBench::new(&[cluster("a", 1), endpoints("a", 1)]);
    assert_eq!(bench.ask(Kind::Endpoints, &["a"]), ["EDS +a"]);
    assert_eq!(bench.ask(Kind::Cluster, &[]), ["CDS +a", "EDS +a"]);
}

#[test]
fn changes_of_a_type_wait_for_its_acknowledgement() {
    let mut bench = DeltaBench::new(&[cluster("a", 1)]);
    let first = bench.send(ask(Kind::Cluster, &[], &[]));
    assert_eq!(summaries(&bench.publish(&[cluster("a", 2)])), NOTHING);
    assert_eq!(summaries(&bench.publish(&[cluster("a", 3), cluster("b", 1)])), NOTHING);
    let merged = bench.send(ack(&first[0]));
    assert_eq!(summaries(&merged), ["CDS +a +b"]);
    assert_eq!(merged[0].resources[0].version, &*cluster("a", 3).version);
}

#[test]
fn changes_of_a_type_wait_no_longer_than_a_second() {
    let mut bench = DeltaBench::new(&[cluster("a", 1)]);
    bench.ask(Kind::Cluster, &[]);
    bench.publish(&[cluster("a", 2)]);
    let (waited, responses) = bench.wait();
    assert_eq!((waited, summaries(&responses)), (PATIENCE, vec!["CDS +a".to_owned()]));
    assert_eq!(bench.session.wake_at(), None);
}

#[test]
fn endpoints_never_wait_for_the_acknowledgement_of_clusters() {
    let mut bench = DeltaBench::new(&[cluster("a", 1), endpoints("a", 1)]);
    bench.ask(Kind::Cluster, &[]);
    bench.settle(Kind::Endpoints, &["a"]);
    assert_eq!(summaries(&bench.publish(&[cluster("a", 1), endpoints("a", 2)])), ["EDS +a"]);
}

#[test]
fn clusters_and_endpoints_are_removed_after_their_users_are_acknowledged() {
    let mut bench = DeltaBench::new(&[cluster("blue", 1), endpoints("blue", 1), listener("l", 1), route("r", 1)]);
    bench.settle(Kind::Cluster, &[]);
    bench.settle(Kind::Endpoints, &["blue"]);
    bench.settle(Kind::Listener, &[]);
    bench.settle(Kind::Route, &["r"]);
    let moved = bench.publish(&[cluster("green", 1), endpoints("green", 1), listener("l", 1), route("r", 2)]);
    assert_eq!(summaries(&moved), ["CDS +green", "RDS +r"]);
    assert_eq!(bench.ack_all(&moved[..1]), NOTHING);
    assert_eq!(bench.ack_all(&moved[1..]), ["CDS -blue", "EDS -blue"]);
}

#[test]
fn endpoints_are_not_removed_from_a_cluster_whose_removal_waits() {
    let mut bench = DeltaBench::new(&[cluster("blue", 1), endpoints("blue", 1)]);
    bench.settle(Kind::Endpoints, &["blue"]);
    let first = bench.send(ask(Kind::Cluster, &[], &[]));
    assert_eq!(summaries(&first), ["CDS +blue", "EDS +blue"]);
    assert_eq!(bench.ack_all(&first[1..]), NOTHING);
    // The client warms the cluster and has not acknowledged it.
    assert_eq!(summaries(&bench.publish(&[])), NOTHING);
    let (waited, responses) = bench.wait();
    assert_eq!((waited, summaries(&responses)), (PATIENCE, vec!["CDS -blue".to_owned(), "EDS -blue".to_owned()]));
}

#[test]
fn clusters_are_removed_after_a_second_when_their_users_are_not_acknowledged() {
    let mut bench = DeltaBench::new(&[cluster("blue", 1), route("r", 1)]);
    bench.settle(Kind::Cluster, &[]);
    bench.settle(Kind::Route, &["r"]);
    assert_eq!(summaries(&bench.publish(&[route("r", 2)])), ["RDS +r"]);
    let (waited, responses) = bench.wait();
    assert_eq!((waited, summaries(&responses)), (PATIENCE, vec!["CDS -blue".to_owned()]));
    assert_eq!(bench.session.wake_at(), None);
}

#[test]
fn a_cluster_that_returns_before_its_removal_was_never_gone() {
    let mut bench = DeltaBench::new(&[cluster("a", 1), route("r", 1)]);
    bench.settle(Kind::Cluster, &[]);
    bench.settle(Kind::Route, &["r"]);
    let moved = bench.publish(&[route("r", 2)]);
    assert_eq!(summaries(&bench.publish(&[cluster("a", 1), route("r", 2)])), NOTHING);
    assert_eq!(bench.ack_all(&moved), NOTHING);
}

#[test]
fn a_lone_removal_goes_at_once() {
    let mut bench = DeltaBench::new(&[cluster("a", 1), listener("l", 1)]);
    bench.settle(Kind::Cluster, &[]);
    bench.settle(Kind::Listener, &[]);
    assert_eq!(summaries(&bench.publish(&[listener("l", 1)])), ["CDS -a"]);
    assert_eq!(summaries(&bench.publish(&[])), ["LDS -l"]);
}

#[test]
fn a_refused_version_is_parked_until_a_newer_one() {
    let mut bench = DeltaBench::new(&[cluster("a", 1), cluster("b", 1)]);
    let first = bench.send(ask(Kind::Cluster, &[], &[]));
    assert_eq!(summaries(&bench.send(nack(&first[0], "cluster a: no such policy"))), NOTHING);
    let refusal = bench.session.standing().refusal.unwrap();
    assert_eq!((refusal.kind, refusal.message.as_str()), (Kind::Cluster, "cluster a: no such policy"));
    // Neither an acknowledgement nor another resource's change repeats it, or makes it forgotten.
    let other = bench.publish(&[cluster("a", 1), cluster("b", 2)]);
    assert_eq!(summaries(&other), ["CDS +b"]);
    assert_eq!(bench.ack_all(&other), NOTHING);
    assert!(bench.session.standing().refusal.is_some());
    let newer = bench.publish(&[cluster("a", 2), cluster("b", 2)]);
    assert_eq!(summaries(&newer), ["CDS +a"]);
    bench.ack_all(&newer);
    assert_eq!(bench.session.standing().refusal, None);
}

#[test]
fn a_refusal_is_an_answer_and_tells_what_is_refused() {
    let mut bench = DeltaBench::new(&[cluster("a", 1), cluster("b", 1)]);
    let first = bench.send(ask(Kind::Cluster, &[], &[]));
    let progress = bench.session.standing().progress;
    assert_eq!((progress.answered, progress.quiet), (0, false));
    bench.send(nack(&first[0], "cluster a: no such policy"));
    let names = |bench: &DeltaBench| -> Vec<String> {
        let refused = bench.session.standing().refused;
        refused.iter().flat_map(|refused| refused.names.iter().map(ToString::to_string)).collect()
    };
    let progress = bench.session.standing().progress;
    assert_eq!((progress.settled, progress.quiet), (false, true));
    assert_eq!(names(&bench), ["a"]);
    let newer = bench.publish(&[cluster("a", 2), cluster("b", 2)]);
    assert_eq!(bench.session.standing().progress.answered, 0);
    bench.send(nack(&newer[0], "it will not do"));
    let progress = bench.session.standing().progress;
    assert_eq!((progress.acknowledged, progress.answered), (0, 2));
    assert_eq!(names(&bench), ["a", "b"], "it may be any of them");
    let remedy = bench.publish(&[cluster("a", 3), cluster("b", 2)]);
    bench.ack_all(&remedy);
    assert_eq!(names(&bench), Vec::<String>::new());
    let progress = bench.session.standing().progress;
    assert_eq!((progress.acknowledged, progress.answered), (3, 3));
}

#[test]
fn a_refusal_that_names_nothing_ends_with_the_next_accepted_change_of_what_it_held() {
    let mut bench = DeltaBench::new(&[cluster("a", 1), cluster("b", 1)]);
    let first = bench.send(ask(Kind::Cluster, &[], &[]));
    bench.send(nack(&first[0], "it will not do"));
    let newer = bench.publish(&[cluster("a", 1), cluster("b", 2)]);
    assert!(bench.session.standing().refusal.is_some());
    bench.ack_all(&newer);
    assert_eq!(bench.session.standing().refusal, None);
}

#[test]
fn the_refusal_of_a_removal_leaves_no_version_parked() {
    let mut bench = DeltaBench::new(&[listener("a", 1)]);
    bench.settle(Kind::Listener, &[]);
    let removal = bench.publish(&[]);
    bench.send(nack(&removal[0], "a is in use"));
    assert!(bench.session.standing().refusal.is_some());
    let created = bench.publish(&[listener("b", 1)]);
    bench.ack_all(&created);
    assert_eq!(bench.session.standing().refusal, None);
}

#[test]
fn a_refused_resource_that_is_removed_beside_another_refused_one_is_done_with() {
    let mut bench = DeltaBench::new(&[listener("a", 1)]);
    let first = bench.send(ask(Kind::Listener, &["*"], &[]));
    bench.send(nack(&first[0], "it will not do"));
    let second = bench.publish(&[listener("b", 1)]);
    assert_eq!(summaries(&second), ["LDS +b -a"]);
    bench.send(nack(&second[0], "it will not do"));
    bench.leave(Kind::Listener, &["*"]);
    assert_eq!(bench.session.standing().refusal, None);
}

#[test]
fn a_refused_resource_that_the_client_gives_up_is_no_refusal_any_more() {
    let mut bench = DeltaBench::new(&[endpoints("a", 1)]);
    let first = bench.send(ask(Kind::Endpoints, &["a"], &[]));
    bench.send(nack(&first[0], "a is bad"));
    bench.leave(Kind::Endpoints, &["a"]);
    assert_eq!(bench.session.standing().refusal, None);
}

#[test]
fn a_refusal_that_crosses_the_end_of_the_subscription_is_forgotten() {
    let mut bench = DeltaBench::new(&[endpoints("a", 1)]);
    let first = bench.send(ask(Kind::Endpoints, &["a"], &[]));
    bench.leave(Kind::Endpoints, &["a"]);
    bench.send(nack(&first[0], "a is bad"));
    assert_eq!(bench.session.standing().refusal, None);
    assert_eq!(bench.acknowledged(), 1);
}

#[test]
fn what_nobody_asks_for_any_more_is_not_sent() {
    let mut bench = DeltaBench::new(&[endpoints("a", 1), endpoints("b", 1)]);
    bench.settle(Kind::Endpoints, &["a", "b"]);
    bench.leave(Kind::Endpoints, &["a"]);
    assert_eq!(summaries(&bench.publish(&[endpoints("a", 2), endpoints("b", 2)])), ["EDS +b"]);
    assert_eq!(bench.ask(Kind::Endpoints, &["a"]), ["EDS +a"]);
}

#[test]
fn a_session_that_fell_behind_compares_everything() {
    let many = |content| (0..5000).map(|i| endpoints(&format!("{i:04}"), content)).collect::<Vec<_>>();
    let mut bench = DeltaBench::new(&many(1));
    bench.settle(Kind::Endpoints, &["0007", "4999", "missing"]);
    bench.world.put(2, many(2), BTreeMap::new());
    let (changes, revision) = bench.watch.take();
    assert!(changes.everything);
    bench.session.changed(changes, revision);
    assert_eq!(summaries(&bench.flush()), ["EDS +0007 +4999"]);
}

#[test]
fn a_large_answer_is_split_below_the_limit() {
    let long = "x".repeat(RESPONSE_LIMIT * 3 / 10);
    let large = |name: &str| {
        let listener = Listener { name: name.to_owned(), stat_prefix: long.clone(), ..Listener::default() };
        Resource::new(names::LISTENER, name, &listener)
    };
    let mut bench = DeltaBench::new(&["a", "b", "c", "d"].map(large));
    let responses = bench.send(ask(Kind::Listener, &[], &[]));
    assert_eq!(summaries(&responses), ["LDS +a +b +c", "LDS +d"]);
    for response in &responses {
        assert!(prost::Message::encoded_len(response) < RESPONSE_LIMIT);
    }
    assert_ne!(responses[0].nonce, responses[1].nonce);
    bench.send(ack(&responses[1]));
    assert_eq!(bench.session.standing().pending, 0);
}

#[test]
fn names_beyond_the_limit_end_the_stream() {
    let mut bench = DeltaBench::new(&[]);
    let name = "x".repeat(1 << 20);
    let mut violation = None;
    for i in 0..40 {
        let asked = ask(Kind::Endpoints, &[&format!("{name}{i}")], &[]);
        violation = bench.session.request(asked, bench.now).err();
        if violation.is_some() {
            break;
        }
        // What is given up again does not count.
        bench.session.request(ask(Kind::Endpoints, &["a"], &[]), bench.now).unwrap();
        bench.session.request(ask(Kind::Endpoints, &[], &["a"]), bench.now).unwrap();
    }
    assert_eq!(violation, Some(Violation::TooManyNames));
}

#[test]
fn a_revision_counts_as_applied_when_all_of_it_is_acknowledged() {
    let mut bench = DeltaBench::new(&[cluster("a", 1), listener("l", 1)]);
    assert_eq!(bench.acknowledged(), 0, "a client that has asked for nothing has applied nothing");
    let clusters = bench.send(ask(Kind::Cluster, &[], &[]));
    let listeners = bench.send(ask(Kind::Listener, &[], &[]));
    assert_eq!(bench.acknowledged(), 0);
    bench.ack_all(&clusters);
    bench.ack_all(&listeners);
    assert_eq!(bench.acknowledged(), 1);

    let second = bench.publish(&[cluster("a", 2), listener("l", 2)]);
    assert_eq!(bench.acknowledged(), 1);
    let third = bench.publish(&[cluster("a", 2), listener("l", 3)]);
    assert_eq!(summaries(&third), NOTHING);
    let listeners = bench.send(ack(&second[1]));
    assert_eq!(summaries(&listeners), ["LDS +l"]);
    bench.send(ack(&second[0]));
    assert_eq!(bench.acknowledged(), 2, "the third revision's listener is on its way");
    bench.ack_all(&listeners);
    assert_eq!(bench.acknowledged(), 3);
}

#[test]
fn a_revision_that_does_not_concern_a_client_is_applied_at_once() {
    let mut bench = DeltaBench::new(&[cluster("a", 1)]);
    bench.settle(Kind::Cluster, &[]);
    assert_eq!(summaries(&bench.publish(&[cluster("a", 1), endpoints("a", 1)])), NOTHING);
    assert_eq!(bench.acknowledged(), 2);
}

#[test]
fn a_refused_revision_is_not_applied_until_its_remedy_is() {
    let mut bench = DeltaBench::new(&[cluster("a", 1)]);
    bench.settle(Kind::Cluster, &[]);
    let bad = bench.publish(&[cluster("a", 2)]);
    bench.send(nack(&bad[0], "a: no"));
    assert_eq!(bench.acknowledged(), 1);
    let good = bench.publish(&[cluster("a", 3)]);
    bench.ack_all(&good);
    assert_eq!(bench.acknowledged(), 3);
}
