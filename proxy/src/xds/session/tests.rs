use std::collections::BTreeMap;

use prost::Message;
use weft_core::names::{ClusterName, ListenerName, RouteName};
use weft_proto::envoy::envoy::config::cluster::v3::Cluster;

use super::*;
use crate::xds::ResourceType::{Cluster as Clusters, Endpoints, Listener as Listeners, Routes};
use crate::xds::fixtures::{
    cluster, delivered, endpoints, http_listener, one_endpoint, response, routes, tcp_listener,
};

mod convergence;
mod demand;

const SHOP: &str = "default/shop:80";
const OUT: &str = "outbound/default/shop:80";

fn session() -> Session {
    Session::new(Node { id: "default/shop-1".to_owned(), ..Default::default() })
}

/// A session on an open stream.
fn open_session() -> Session {
    let mut session = session();
    session.stream_opened();
    session
}

fn bad_cluster(name: &str) -> Cluster {
    Cluster { lb_policy: 2, ..cluster(name) }
}

/// A cluster whose endpoint resource has another name.
fn cluster_with_endpoints(name: &str, endpoints: &str) -> Cluster {
    let mut cluster = cluster(name);
    cluster.eds_cluster_config.as_mut().unwrap().service_name = endpoints.to_owned();
    cluster
}

/// One HTTP service, all resources held and in force.
fn session_with_shop() -> Session {
    let mut session = open_session();
    for response in shop("1") {
        session.response(response);
    }
    assert!(session.has_completed(), "the fixture is a complete configuration");
    session
}

fn shop(nonce: &str) -> [DeltaDiscoveryResponse; 4] {
    [
        response(Clusters, nonce, vec![delivered(SHOP, "c1", &cluster(SHOP))], &[]),
        response(Endpoints, nonce, vec![delivered(SHOP, "e1", &one_endpoint(SHOP, 8080))], &[]),
        response(Listeners, nonce, vec![delivered(OUT, "l1", &http_listener(OUT, SHOP))], &[]),
        response(Routes, nonce, vec![delivered(SHOP, "r1", &routes(SHOP, SHOP))], &[]),
    ]
}

/// Requests in short: type, subscribed, unsubscribed, nonce, and whether it refuses.
fn brief(requests: &[DeltaDiscoveryRequest]) -> Vec<String> {
    let one = |request: &DeltaDiscoveryRequest| {
        let kind = ResourceType::from_url(&request.type_url).map_or("unknown", ResourceType::label);
        let names = |sign: &str, names: &[String]| {
            names.iter().fold(String::new(), |text, name| format!("{text} {sign}{name}"))
        };
        format!(
            "{kind}{}{}{}{}",
            names("+", &request.resource_names_subscribe),
            names("-", &request.resource_names_unsubscribe),
            if request.response_nonce.is_empty() {
                String::new()
            } else {
                format!(" nonce {}", request.response_nonce)
            },
            if request.error_detail.is_some() { " refused" } else { "" }
        )
    };
    requests.iter().map(one).collect()
}

fn versions(request: &DeltaDiscoveryRequest) -> Vec<(&str, &str)> {
    let mut versions: Vec<_> =
        request.initial_resource_versions.iter().map(|(name, version)| (name.as_str(), version.as_str())).collect();
    versions.sort_unstable();
    versions
}

#[test]
fn a_fresh_stream_asks_for_clusters_and_listeners_and_for_nothing_by_name() {
    let output = session().stream_opened();
    assert_eq!(brief(&output.requests), ["cluster", "listener"]);
    assert!(output.requests.iter().all(|request| request.initial_resource_versions.is_empty()));
}

#[test]
fn the_node_goes_with_the_first_request_of_each_stream_only() {
    let mut session = session_with_shop();
    session.stream_lost();
    let requests = session.stream_opened().requests;
    let with_node: Vec<bool> = requests.iter().map(|request| request.node.is_some()).collect();
    assert_eq!(with_node, [true, false, false, false]);
    let later = session.response(response(Clusters, "2", vec![], &[])).requests;
    assert!(later.iter().all(|request| request.node.is_none()));
}

#[test]
fn endpoints_and_routes_are_asked_for_as_clusters_and_listeners_name_them() {
    let mut session = open_session();
    let [clusters, _, listeners, _] = shop("7");
    assert_eq!(brief(&session.response(clusters).requests), ["cluster nonce 7", "endpoints +default/shop:80"]);
    assert_eq!(brief(&session.response(listeners).requests), ["listener nonce 7", "routes +default/shop:80"]);
}

#[test]
fn an_acknowledgement_carries_its_nonce_and_nothing_else() {
    let mut session = session_with_shop();
    let requests = session.response(response(Endpoints, "n-9", vec![], &[])).requests;
    let expected = DeltaDiscoveryRequest {
        type_url: Endpoints.url().to_owned(),
        response_nonce: "n-9".to_owned(),
        ..Default::default()
    };
    assert_eq!(requests, [expected]);
}

#[test]
fn names_nothing_refers_to_any_more_are_given_up_and_removed_together() {
    let mut session = session_with_shop();
    let output = session.response(response(Listeners, "2", vec![], &[OUT]));
    assert_eq!(brief(&output.requests), ["listener nonce 2", "routes -default/shop:80"]);
    let change = output.change.unwrap();
    assert_eq!(change.removed_listeners, [ListenerName::from(OUT)]);
    assert_eq!(change.removed_routes, [RouteName::from(SHOP)]);

    let output = session.response(response(Clusters, "3", vec![], &[SHOP]));
    assert_eq!(brief(&output.requests), ["cluster nonce 3", "endpoints -default/shop:80"]);
    let change = output.change.unwrap();
    assert_eq!(change.removed_clusters, [ClusterName::from(SHOP)]);
    assert_eq!(change.removed_endpoints, [ClusterName::from(SHOP)]);
    assert!(session.held().is_empty());
}

#[test]
fn a_type_given_up_and_used_again_is_asked_for_without_a_nonce() {
    let mut session = session_with_shop();
    session.response(response(Listeners, "2", vec![], &[OUT]));
    let output = session.response(response(Listeners, "3", vec![delivered(OUT, "l2", &http_listener(OUT, SHOP))], &[]));
    assert_eq!(brief(&output.requests), ["listener nonce 3", "routes +default/shop:80"]);
    assert!(output.requests[1].initial_resource_versions.is_empty(), "it was forgotten, so it is not held");
}

#[test]
fn good_resources_of_a_response_apply_and_the_bad_ones_make_one_refusal() {
    let mut session = open_session();
    let resources = vec![
        delivered("a/bad:1", "1", &bad_cluster("a/bad:1")),
        delivered("a/good:1", "1", &cluster("a/good:1")),
        delivered("a/worse:1", "1", &bad_cluster("a/worse:1")),
    ];
    let output = session.response(response(Clusters, "5", resources, &[]));
    assert_eq!(brief(&output.requests), ["cluster nonce 5 refused", "endpoints +a/good:1"]);
    let detail = output.requests[0].error_detail.as_ref().unwrap();
    assert_eq!(detail.code, 3);
    for word in ["a/bad:1", "a/worse:1", "lb_policy", "RING_HASH"] {
        assert!(detail.message.contains(word), "{word} is missing in: {}", detail.message);
    }
    assert_eq!(output.rejected.len(), 2);
    let names: Vec<_> = output.change.unwrap().clusters.into_iter().map(|spec| spec.name).collect();
    assert_eq!(names, [ClusterName::from("a/good:1")]);
    session.stream_lost();
    assert_eq!(versions(&session.stream_opened().requests[0]), [("a/good:1", "1")]);
}

#[test]
fn a_refused_update_leaves_the_old_version_in_force_and_held() {
    let mut session = session_with_shop();
    let output = session.response(response(Clusters, "2", vec![delivered(SHOP, "c2", &bad_cluster(SHOP))], &[]));
    assert_eq!(output.change, None);
    assert!(!output.held_changed);
    session.stream_lost();
    assert_eq!(versions(&session.stream_opened().requests[0]), [(SHOP, "c1")]);
}

#[test]
fn the_text_of_a_refusal_is_bounded_and_says_how_much_it_leaves_out() {
    let mut session = open_session();
    let resources = (0..1000).map(|n| format!("default/service-{n}:80"));
    let resources = resources.map(|name| delivered(&name, "1", &bad_cluster(&name))).collect();
    let output = session.response(response(Clusters, "5", resources, &[]));
    let message = &output.requests[0].error_detail.as_ref().unwrap().message;
    assert!(message.len() < NACK_TEXT + 32, "{} bytes", message.len());
    let named = message.matches("default/service-").count();
    assert!(message.ends_with(&format!("and {} more", 1000 - named)), "{message}");
}

#[test]
fn the_first_requests_of_a_new_stream_tell_exactly_what_is_held() {
    let mut session = session_with_shop();
    session.response(response(Endpoints, "2", vec![delivered(SHOP, "e2", &one_endpoint(SHOP, 8081))], &[]));
    session.stream_lost();
    let requests = session.stream_opened().requests;
    let named = "+default/shop:80";
    assert_eq!(
        brief(&requests),
        ["cluster".to_owned(), format!("endpoints {named}"), "listener".to_owned(), format!("routes {named}")]
    );
    let told: Vec<_> = requests.iter().map(versions).collect();
    assert_eq!(told, [vec![(SHOP, "c1")], vec![(SHOP, "e2")], vec![(OUT, "l1")], vec![(SHOP, "r1")]]);
}

#[test]
fn a_resource_that_is_sent_again_unchanged_changes_nothing() {
    let mut session = session_with_shop();
    session.stream_lost();
    session.stream_opened();
    for response in shop("again") {
        let output = session.response(response);
        assert_eq!(output.change, None);
        assert!(!output.held_changed);
    }
}

#[test]
fn a_new_version_that_says_the_same_is_remembered_but_is_no_change() {
    let mut session = session_with_shop();
    let output = session.response(response(Clusters, "2", vec![delivered(SHOP, "c2", &cluster(SHOP))], &[]));
    assert_eq!(output.change, None);
    assert!(output.held_changed);
    session.stream_lost();
    assert_eq!(versions(&session.stream_opened().requests[0]), [(SHOP, "c2")]);
}

#[test]
fn the_first_configuration_is_complete_when_everything_referred_to_was_answered_and_only_once() {
    let mut session = open_session();
    let completed = shop("1").map(|response| session.response(response).completed);
    assert_eq!(completed, [false, false, false, true]);
    session.stream_lost();
    session.stream_opened();
    assert!(shop("2").into_iter().all(|response| !session.response(response).completed));
}

#[test]
fn an_empty_mesh_is_a_complete_configuration() {
    let mut session = open_session();
    assert!(!session.response(response(Listeners, "1", vec![], &[])).completed);
    assert!(session.response(response(Clusters, "1", vec![], &[])).completed);
}

#[test]
fn what_does_not_exist_and_what_is_refused_does_not_hold_the_first_configuration_up() {
    let mut bad_routes = routes(SHOP, SHOP);
    bad_routes.internal_only_headers.push("x".to_owned());
    for answer in
        [response(Routes, "1", vec![], &[SHOP]), response(Routes, "1", vec![delivered(SHOP, "1", &bad_routes)], &[])]
    {
        let mut session = open_session();
        for response in shop("1").into_iter().take(3) {
            assert!(!session.response(response).completed);
        }
        assert_eq!(session.awaited(), 1);
        assert!(session.response(answer).completed);
    }
}

#[test]
fn a_resource_that_was_missing_and_is_created_later_arrives() {
    let mut session = open_session();
    let [clusters, endpoints, ..] = shop("1");
    session.response(clusters);
    session.response(response(Endpoints, "1", vec![], &[SHOP]));
    let change = session.response(endpoints).change.unwrap();
    assert_eq!(change.endpoints.len(), 1);
}

#[test]
fn a_resource_removed_and_sent_in_one_response_is_held() {
    let mut session = session_with_shop();
    let output = session.response(response(Clusters, "2", vec![delivered(SHOP, "c2", &cluster(SHOP))], &[SHOP]));
    assert_eq!(brief(&output.requests), ["cluster nonce 2"], "its endpoints stay subscribed");
    assert!(output.change.is_none_or(|change| change.removed_clusters.is_empty()));
    assert_eq!(session.held_count(Clusters), 1);
}

#[test]
fn a_removed_cluster_and_its_endpoints_stay_until_nothing_refers_to_them() {
    let mut session = session_with_shop();
    assert_eq!(session.response(response(Clusters, "2", vec![], &[SHOP])).change, None);
    assert_eq!(session.response(response(Endpoints, "3", vec![], &[SHOP])).change, None);
    assert_eq!(session.held_count(Clusters), 0, "a ghost is not told as held");

    let moved = response(Routes, "4", vec![delivered(SHOP, "r2", &routes(SHOP, "default/new:80"))], &[]);
    let output = session.response(moved);
    let change = output.change.unwrap();
    assert_eq!(change.routes.len(), 1);
    assert_eq!(change.removed_clusters, [ClusterName::from(SHOP)]);
    assert_eq!(change.removed_endpoints, [ClusterName::from(SHOP)]);
    assert_eq!(brief(&output.requests), ["routes nonce 4", "endpoints -default/shop:80"]);
}

#[test]
fn removed_endpoints_of_a_cluster_that_is_there_are_removed() {
    let mut session = session_with_shop();
    let change = session.response(response(Endpoints, "2", vec![], &[SHOP])).change.unwrap();
    assert_eq!(change.removed_endpoints, [ClusterName::from(SHOP)]);
}

#[test]
fn an_empty_endpoint_set_is_an_update() {
    let mut session = session_with_shop();
    let output = session.response(response(Endpoints, "2", vec![delivered(SHOP, "e2", &endpoints(SHOP, vec![]))], &[]));
    let change = output.change.unwrap();
    assert!(change.removed_endpoints.is_empty());
    assert!(change.endpoints[0].endpoints.is_empty());
}

#[test]
fn a_cluster_that_moves_to_other_endpoints_serves_the_old_ones_until_the_new_ones_arrive() {
    for answer in [
        response(Endpoints, "3", vec![delivered("other", "1", &one_endpoint("other", 1))], &[]),
        response(Endpoints, "3", vec![], &["other"]),
    ] {
        let mut session = session_with_shop();
        let moved = cluster_with_endpoints(SHOP, "other");
        let output = session.response(response(Clusters, "2", vec![delivered(SHOP, "c2", &moved)], &[]));
        assert_eq!(output.change, None);
        assert_eq!(brief(&output.requests), ["cluster nonce 2", "endpoints +other"]);
        let output = session.response(answer);
        let change = output.change.unwrap();
        assert_eq!(change.clusters.len(), 1);
        assert_eq!(change.removed_endpoints, [ClusterName::from(SHOP)]);
        assert_eq!(brief(&output.requests), ["endpoints nonce 3", "endpoints -default/shop:80"]);
    }
}

#[test]
fn old_endpoints_stay_up_to_date_while_a_cluster_waits_for_new_ones() {
    let mut session = session_with_shop();
    let moved = cluster_with_endpoints(SHOP, "other");
    session.response(response(Clusters, "2", vec![delivered(SHOP, "c2", &moved)], &[]));
    let news = response(Endpoints, "3", vec![delivered(SHOP, "e2", &one_endpoint(SHOP, 9))], &[]);
    let change = session.response(news).change.unwrap();
    assert_eq!((change.endpoints.len(), change.clusters.len()), (1, 0));
}

#[test]
fn a_changed_cluster_whose_endpoints_are_held_is_in_force_at_once() {
    let mut session = session_with_shop();
    let changed = Cluster { connect_timeout: crate::xds::fixtures::seconds(3), ..cluster(SHOP) };
    let output = session.response(response(Clusters, "2", vec![delivered(SHOP, "c2", &changed)], &[]));
    assert_eq!(output.change.unwrap().clusters.len(), 1);
}

#[test]
fn a_listener_that_moves_to_other_routes_serves_the_old_ones_until_the_new_ones_arrive() {
    let mut session = session_with_shop();
    let output =
        session.response(response(Listeners, "2", vec![delivered(OUT, "l2", &http_listener(OUT, "new"))], &[]));
    assert_eq!(output.change, None);
    let output = session.response(response(Routes, "3", vec![delivered("new", "1", &routes("new", SHOP))], &[]));
    let change = output.change.unwrap();
    assert_eq!((change.listeners.len(), change.routes.len()), (1, 1));
    assert_eq!(change.removed_routes, [RouteName::from(SHOP)]);
}

#[test]
fn a_route_table_the_server_removed_stays_while_a_listener_names_it() {
    let mut session = session_with_shop();
    assert_eq!(session.response(response(Routes, "2", vec![], &[SHOP])).change, None);
    let output = session.response(response(Listeners, "3", vec![delivered(OUT, "l2", &tcp_listener(OUT, SHOP))], &[]));
    assert_eq!(output.change.unwrap().removed_routes, [RouteName::from(SHOP)]);
}

#[test]
fn what_was_not_asked_for_is_acknowledged_and_ignored() {
    let mut session = open_session();
    let output = session.response(response(Endpoints, "1", vec![delivered("x", "1", &one_endpoint("x", 1))], &["y"]));
    assert_eq!(brief(&output.requests), ["endpoints nonce 1"]);
    assert_eq!(output.change, None);
    assert!(session.held().is_empty());
}

#[test]
fn a_type_nobody_asked_for_is_refused() {
    let unknown = DeltaDiscoveryResponse {
        type_url: "type.googleapis.com/a.B".to_owned(),
        nonce: "1".to_owned(),
        ..Default::default()
    };
    let output = open_session().response(unknown);
    assert_eq!(brief(&output.requests), ["unknown nonce 1 refused"]);
}

#[test]
fn a_resource_that_lies_about_itself_is_refused() {
    let mut other_type = delivered(SHOP, "1", &one_endpoint(SHOP, 1));
    let mut no_body = delivered(SHOP, "1", &cluster(SHOP));
    no_body.resource = None;
    other_type.resource.as_mut().unwrap().value = cluster(SHOP).encode_to_vec().into();
    for lie in [other_type, no_body, delivered("another/name:80", "1", &cluster(SHOP))] {
        let mut session = open_session();
        let output = session.response(response(Clusters, "1", vec![lie], &[]));
        assert_eq!(brief(&output.requests), ["cluster nonce 1 refused"]);
        assert!(session.held().is_empty());
    }
}

#[test]
fn a_resource_without_body_at_the_held_version_only_renews_it() {
    let mut session = session_with_shop();
    let mut renewal = delivered(SHOP, "c1", &cluster(SHOP));
    renewal.resource = None;
    let output = session.response(response(Clusters, "2", vec![renewal], &[]));
    assert_eq!(brief(&output.requests), ["cluster nonce 2"]);
    assert_eq!(output.change, None);
}

#[test]
fn losing_the_stream_changes_nothing_in_force_and_nothing_is_sent_without_one() {
    let mut session = session_with_shop();
    session.stream_lost();
    assert_eq!(session.held().len(), 4);
    assert!(session.subscriptions().is_empty());
}

#[test]
fn a_restored_session_is_complete_in_force_and_told_to_the_server() {
    let held = session_with_shop().held();
    let mut session = session();
    let output = session.restore(held);
    assert!(output.completed && output.rejected.is_empty());
    let change = output.change.unwrap();
    let counts = [change.clusters.len(), change.endpoints.len(), change.listeners.len(), change.routes.len()];
    assert_eq!(counts, [1, 1, 1, 1]);
    let told: Vec<usize> =
        session.stream_opened().requests.iter().map(|request| request.initial_resource_versions.len()).collect();
    assert_eq!(told, [1, 1, 1, 1]);
    assert!(shop("1").into_iter().all(|response| !session.response(response).completed));
}

#[test]
fn restored_resources_nothing_refers_to_or_nobody_can_read_are_left_out() {
    let mut held = session_with_shop().held();
    held.retain(|resource| resource.kind != Listeners);
    held.push(Resource { kind: Clusters, name: "x".into(), version: "1".into(), body: Bytes::from_static(b"\xff") });
    let mut session = session();
    let output = session.restore(held);
    assert_eq!(output.rejected.len(), 1);
    assert_eq!((session.held_count(Clusters), session.held_count(Routes)), (1, 0));
}

#[test]
fn a_held_body_does_not_keep_its_whole_response_in_memory() {
    let frame = Bytes::from(cluster(SHOP).encode_to_vec());
    let mut resource = delivered(SHOP, "1", &cluster(SHOP));
    resource.resource.as_mut().unwrap().value = frame.clone();
    let mut session = open_session();
    session.response(response(Clusters, "1", vec![resource], &[]));
    assert_ne!(session.held()[0].body.as_ptr(), frame.as_ptr());
}
