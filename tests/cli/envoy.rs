//! Envoy as a client of the control plane, over both variants of the protocol: it takes what our proxies take.

#![allow(clippy::unwrap_used, reason = "a test that cannot have what it needs has failed")]

#[path = "envoy/peer.rs"]
mod peer;
#[path = "envoy/routes.rs"]
mod routes;

use peer::{Envoy, Signed, Variant, block_on, channel, sign};
use tokio_stream::StreamExt as _;
use weft_proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use weft_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use weft_proto::envoy::google::protobuf::value::Kind;
use weft_proto::envoy::google::protobuf::{Struct, Value};
use weft_proto::names;
use weft_tests::process::pair::{self, CLUSTER, Pair};
use weft_tests::process::plane::Plane;
use weft_tests::process::{PATIENCE, Port, holds, http, until};

/// One service of each kind there is, and the workload Envoy stands beside, which is a replica of three of them.
const ALL_KINDS: &str = "\
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: {name: web}
spec: {ports: [{port: 80, targetPort: 18080, protocol: http}, {port: 81, targetPort: 18081}], selector: {app: envoy}}
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: {name: bytes}
spec: {ports: [{port: 5432, protocol: tcp}], selector: {app: envoy}}
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: {name: outside}
spec: {addresses: [10.96.0.77, 'fd57::77'], ports: [{port: 80, protocol: http}], endpoints: [{address: 192.0.2.1}, {address: '2001:db8::1', port: 81}]}
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: {name: secure}
spec: {ports: [{port: 443, name: https}, {port: 8443, protocol: tls}], endpoints: [{address: 192.0.2.2}]}
---
apiVersion: weft.dev/v1alpha1
kind: TLSRoute
metadata: {name: named}
spec:
  parentRefs: [{name: secure, port: 443}]
  hostnames: [a.example, '*.b.example']
  rules: [{backendRefs: [{name: secure, port: 443, weight: 9}, {name: secure, port: 8443}]}]
---
apiVersion: weft.dev/v1alpha1
kind: TLSRoute
metadata: {name: others}
spec: {parentRefs: [{name: secure}], rules: [{backendRefs: [{name: secure, port: 8443}]}]}
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: {name: nobody}
spec: {ports: [{port: 80}], selector: {app: nobody}}
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: envoy-1, labels: {app: envoy}}
spec: {addresses: [127.0.0.1, '::1'], serviceAccount: client}
";

const PERMISSIVE: &str = "\
apiVersion: weft.dev/v1alpha1
kind: Mesh
metadata: {name: default}
spec: {mtls: permissive}
";

/// Waits until the control plane knows that Envoy has accepted everything, and Envoy says so too.
fn accepted(plane: &Plane, envoy: &Envoy) {
    until("Envoy has accepted everything", || {
        let proxy = plane.proxy("default/envoy-1").ok_or_else(|| format!("not connected: {}", envoy.log()))?;
        assert_eq!(proxy["nack"], "", "{proxy:#}");
        holds(proxy["appliedRevision"] == plane.revision() && proxy["pending"] == 0, || proxy.to_string())
    });
    let (_, warming) = envoy.clusters();
    assert_eq!(
        warming,
        0,
        "clusters that wait for endpoints: {}",
        envoy.ask("/config_dump?resource=dynamic_warming_clusters")
    );
    let (_, others) = envoy.listeners();
    assert!(others.is_empty(), "{others:?}");
    let rejected = envoy.statistics("update_rejected|update_failure|init_fetch_timeout");
    // A stream that ends counts as a failure to update.
    let rejected: Vec<_> =
        rejected.iter().filter(|(name, count)| !name.ends_with("update_failure") && **count > 0).collect();
    assert!(rejected.is_empty(), "{rejected:?}");
}

fn takes_all_kinds(variant: Variant) {
    let place = tempfile::tempdir().unwrap();
    let plane = Plane::start(place.path());
    plane.apply(ALL_KINDS);
    let outbound = Port::reserve();
    let envoy = Envoy::start(&plane, variant, &outbound, "default/outside:80");
    let clusters = [
        "default/bytes:5432",
        "default/nobody:80",
        "default/outside:80",
        "default/secure:443",
        "default/secure:8443",
        "default/web:80",
        "default/web:81",
    ];
    let targets = ["inbound/18080", "inbound/18081", "inbound/5432"];
    until("Envoy has all clusters", || {
        let expected: Vec<&str> = clusters.iter().chain(&targets).copied().collect();
        let (found, _) = envoy.clusters();
        holds(found == expected, || format!("{found:?}"))
    });
    accepted(&plane, &envoy);
    let (listeners, _) = envoy.listeners();
    let mut expected: Vec<String> = clusters.iter().map(|name| format!("outbound/{name}")).collect();
    expected.extend(targets.map(str::to_owned));
    expected.sort();
    assert_eq!(listeners, expected);
    let outside = ["192.0.2.1:80", "[2001:db8::1]:81"].map(|address| address.parse().unwrap());
    assert_eq!(envoy.hosts("default/outside:80"), outside);
    assert_eq!(envoy.hosts("default/nobody:80"), []);
    let routes = envoy.ask("/config_dump?resource=dynamic_route_configs");
    assert!(routes.contains("default/web:80") && !routes.contains("default/bytes:5432"), "{routes}");

    // The same workload when plaintext is permitted: each inbound port has chains with and without TLS.
    plane.apply(PERMISSIVE);
    until("Envoy has the new listeners", || {
        let updates = envoy.statistics("listener_manager.listener_modified|listener_manager.listener_in_place_updated");
        holds(updates.values().sum::<u64>() >= 3, || format!("{updates:?} {}", envoy.log()))
    });
    accepted(&plane, &envoy);

    // And when it loses them all.
    plane.weft(&["delete", "service", "web"]).succeeded();
    plane.weft(&["delete", "service", "bytes"]).succeeded();
    until("Envoy has let go of them", || {
        let (clusters, _) = envoy.clusters();
        let (listeners, _) = envoy.listeners();
        let left = (clusters.len(), listeners.len());
        holds(left == (4, 4), || format!("{clusters:?} {listeners:?}"))
    });
    accepted(&plane, &envoy);
}

#[test]
fn envoy_takes_every_kind_of_resource_by_delta() {
    takes_all_kinds(Variant::Delta);
}

#[test]
fn envoy_takes_every_kind_of_resource_by_state_of_the_world() {
    takes_all_kinds(Variant::StateOfTheWorld);
}

fn follows_and_survives(variant: Variant) {
    let place = tempfile::tempdir().unwrap();
    let mut pair = Pair::start(place.path());
    let outbound = Port::reserve();
    let envoy = Envoy::start(&pair.plane, variant, &outbound, CLUSTER);
    envoy.has_hosts(CLUSTER, vec![pair.inbound.address()]);
    accepted(&pair.plane, &envoy);

    // Its requests arrive by mutual TLS, under its own name.
    until("a request arrives", || {
        let (status, body) = http::curl(outbound.address(), "/");
        holds(status == 200, || format!("{status} {body} {}", envoy.log()))
    });
    let from_envoy = [("direction", "inbound"), ("source", "default/client"), ("code_class", "2xx")];
    assert_eq!(pair.server.settled().sum("weft_requests_total", &from_envoy), 1);

    let (updates, second) = (envoy.statistics("update_success"), Port::reserve());
    pair.plane.apply(&pair::workload("echo-2", pair.application.port(), second.address()));
    envoy.has_hosts(CLUSTER, vec![pair.inbound.address(), second.address()]);
    accepted(&pair.plane, &envoy);
    for (name, after) in envoy.statistics("update_success") {
        let is_endpoints = name == "cluster.default/echo_80.update_success";
        let more = after - updates.get(&name).copied().unwrap_or_default();
        assert_eq!(more, u64::from(is_endpoints), "{name}: the endpoints alone are sent");
    }
    pair.plane.weft(&["delete", "workload", "echo-2"]).succeeded();
    envoy.has_hosts(CLUSTER, vec![pair.inbound.address()]);

    pair.plane.kill();
    until("Envoy has noticed", || {
        let state = envoy.statistics("control_plane.connected_state");
        holds(state.values().all(|state| *state == 0), || format!("{state:?}"))
    });
    for _ in 0..10 {
        assert_eq!(http::curl(outbound.address(), "/").0, 200);
    }
    pair.plane.start_again();
    accepted(&pair.plane, &envoy);
    assert_eq!(envoy.hosts(CLUSTER), [pair.inbound.address()]);
    pair.plane.apply(&pair::workload("echo-2", pair.application.port(), second.address()));
    envoy.has_hosts(CLUSTER, vec![pair.inbound.address(), second.address()]);
    pair.plane.weft(&["delete", "workload", "echo-2"]).succeeded();
    envoy.has_hosts(CLUSTER, vec![pair.inbound.address()]);
    assert_eq!(http::curl(outbound.address(), "/").0, 200);
    accepted(&pair.plane, &envoy);
}

#[test]
fn envoy_follows_endpoints_calls_through_the_mesh_and_survives_a_restart_by_delta() {
    follows_and_survives(Variant::Delta);
}

#[test]
fn envoy_follows_endpoints_calls_through_the_mesh_and_survives_a_restart_by_state_of_the_world() {
    follows_and_survives(Variant::StateOfTheWorld);
}

/// Opens a delta stream with one request and gives its first responses.
fn responses(
    plane: &Plane,
    signed: Option<&Signed>,
    request: DeltaDiscoveryRequest,
    number: usize,
) -> Result<Vec<DeltaDiscoveryResponse>, tonic::Status> {
    block_on(async {
        let mut client = AggregatedDiscoveryServiceClient::new(channel(plane, signed).await);
        let requests = tokio_stream::iter([request]).chain(tokio_stream::pending());
        let mut incoming = client.delta_aggregated_resources(requests).await?.into_inner();
        let mut responses = Vec::new();
        while responses.len() < number {
            let next = tokio::time::timeout(PATIENCE, incoming.message()).await;
            let next = next.map_err(|_| tonic::Status::deadline_exceeded(format!("{} came", responses.len())))??;
            responses.push(next.ok_or_else(|| tonic::Status::cancelled("the stream ended"))?);
        }
        Ok(responses)
    })
}

fn first_response(
    plane: &Plane,
    signed: Option<&Signed>,
    request: DeltaDiscoveryRequest,
) -> Result<DeltaDiscoveryResponse, tonic::Status> {
    responses(plane, signed, request, 1).map(|mut responses| responses.remove(0))
}

/// The first request of a stream of the workload `NAMESPACE/client-1`, for all clusters but those already known.
fn asking_for_clusters(namespace: &str, known: &[(String, String)]) -> DeltaDiscoveryRequest {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let fields = [("namespace", text(namespace)), ("workload", text("client-1"))];
    let own = Struct { fields: fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect() };
    let own = Value { kind: Some(Kind::StructValue(own)) };
    let metadata = Struct { fields: [(names::METADATA.to_owned(), own)].into_iter().collect() };
    DeltaDiscoveryRequest {
        node: Some(Node { id: format!("{namespace}/client-1"), metadata: Some(metadata), ..Node::default() }),
        type_url: names::CLUSTER.to_owned(),
        resource_names_subscribe: vec!["*".to_owned()],
        initial_resource_versions: known.iter().cloned().collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

#[test]
fn configuration_is_for_those_who_prove_that_they_belong_to_the_namespace_they_name() {
    let place = tempfile::tempdir().unwrap();
    let plane = Plane::start(place.path());
    plane.apply(ALL_KINDS);
    let refusal = first_response(&plane, None, asking_for_clusters("default", &[])).unwrap_err();
    assert_eq!(refusal.code(), tonic::Code::Unauthenticated, "{refusal}");
    let signed = sign(&plane, "client");
    let refusal = first_response(&plane, Some(&signed), asking_for_clusters("other", &[])).unwrap_err();
    assert_eq!(refusal.code(), tonic::Code::PermissionDenied, "{refusal}");
    assert!(refusal.message().contains("its certificate says `default`"), "{refusal}");
    let response = first_response(&plane, Some(&signed), asking_for_clusters("default", &[])).unwrap();
    assert_eq!(response.resources.len(), 7);
}

#[test]
fn who_comes_back_with_what_is_in_force_is_sent_nothing_even_by_a_control_plane_started_anew() {
    let place = tempfile::tempdir().unwrap();
    let mut plane = Plane::start(place.path());
    plane.apply(ALL_KINDS);
    let signed = sign(&plane, "client");
    let first = first_response(&plane, Some(&signed), asking_for_clusters("default", &[])).unwrap();
    let mut known: Vec<(String, String)> =
        first.resources.iter().map(|resource| (resource.name.clone(), resource.version.clone())).collect();
    plane.kill();
    plane.start_again();
    let again = first_response(&plane, Some(&signed), asking_for_clusters("default", &known)).unwrap();
    assert_eq!((again.resources.len(), again.removed_resources), (0, Vec::new()), "versions are the content's");
    // What it does not have, and what is gone, it is told.
    let missing = known.remove(0).0;
    known.push(("default/gone:80".to_owned(), "1".to_owned()));
    // Removals of clusters go last, when nothing can use them any more.
    let news = responses(&plane, Some(&signed), asking_for_clusters("default", &known), 2).unwrap();
    let sent: Vec<&str> = news.iter().flat_map(|news| &news.resources).map(|resource| resource.name.as_str()).collect();
    let removed: Vec<&str> = news.iter().flat_map(|news| &news.removed_resources).map(String::as_str).collect();
    assert_eq!((sent, removed), (vec![missing.as_str()], vec!["default/gone:80"]));
}
