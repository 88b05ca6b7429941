//! A cluster watched from its first list to its documents, over an API server in this process.

mod any_order;
mod fake;
mod large;

use std::time::Duration;

use serde_json::{Value, json};

use super::mirror::Step;
use super::*;
use crate::document::{Document, Kind};
use fake::{FakeServer, NAMESPACES, NODES, PODS, SERVICES, SLICES};

const PATIENCE: Duration = Duration::from_secs(30);
const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/tlsroutes";
const MESHES: &str = "/apis/weft.dev/v1alpha1/meshes";

fn service(name: &str, address: &str) -> Value {
    json!({"metadata": {"namespace": "shop", "name": name}, "spec": {"clusterIP": address, "ports": [{"port": 80}]}})
}

fn pod(name: &str, address: &str) -> Value {
    json!({
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"containers": [{"name": "app"}, {"name": "weft-proxy"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": address}]},
    })
}

fn slice(service: &str, address: &str, pod: &str) -> Value {
    json!({
        "metadata": {"namespace": "shop", "name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080}],
        "endpoints": [{"addresses": [address], "targetRef": {"kind": "Pod", "name": pod}}],
    })
}

fn route(name: &str, port: u16) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "TLSRoute",
        "metadata": {"namespace": "shop", "name": name, "generation": 1, "managedFields": [{"manager": "kubectl"}]},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "front"}],
            "hostnames": ["orders.example"],
            "rules": [{"backendRefs": [{"group": "", "kind": "Service", "name": "orders", "port": port, "weight": 1}]}],
        },
        "status": {"parents": []},
    })
}

fn start(server: &FakeServer) -> Discovery {
    Discovery::start(&server.client(), fastrand::Rng::with_seed(7))
}

/// The names of the documents, `KIND NAME`.
fn names(snapshot: &Snapshot) -> Vec<String> {
    snapshot.documents.keys().map(|key| format!("{} {}", key.kind, key.name)).collect()
}

impl Discovery {
    /// The first snapshot from now on for which this holds.
    async fn snapshot(&mut self, what: &str, mut holds: impl FnMut(&Snapshot) -> bool) -> Arc<Snapshot> {
        let waiting = tokio::time::timeout(PATIENCE, self.snapshots.wait_for(|found| holds(found))).await;
        let found = waiting.ok().map(|found| Arc::clone(&found.unwrap()));
        found.unwrap_or_else(|| panic!("waited in vain until {what}: {:?}", names(&self.snapshots.borrow())))
    }

    async fn readings(&mut self, what: &str, mut holds: impl FnMut(&Readings) -> bool) -> Arc<Readings> {
        let waiting = tokio::time::timeout(PATIENCE, self.readings.wait_for(|found| holds(found))).await;
        let found = waiting.ok().map(|found| Arc::clone(&found.unwrap()));
        found.unwrap_or_else(|| panic!("waited in vain until {what}: {:?}", self.readings.borrow()))
    }

    async fn health(&self, what: &str, holds: impl Fn(&health::WatchStatus) -> bool) {
        let met = async {
            while !self.health.watches_at(weft_proxy::clock::now()).iter().any(&holds) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, met).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
    }
}

#[tokio::test]
async fn nothing_is_published_until_a_complete_list_of_every_kind_came() {
    for held in [PODS, SERVICES, SLICES, NAMESPACES, NODES, MESHES] {
        let server = FakeServer::new();
        server.serve(MESHES);
        server.put(SERVICES, service("orders", "10.96.0.1"));
        server.put(PODS, pod("orders-1", "10.1.0.1"));
        server.put(SLICES, slice("orders", "10.1.0.1", "orders-1"));
        let release = server.hold(held);
        let mut discovery = start(&server);
        let others = [PODS, SERVICES, SLICES, NAMESPACES, NODES, MESHES].into_iter().filter(|path| *path != held);
        for path in others {
            let plural = path.rsplit('/').next().unwrap();
            discovery.health(path, |watch| watch.resource.starts_with(plural) && watch.synced).await;
        }
        assert_eq!(discovery.snapshots.borrow().revision, 0, "{held}");
        assert!(!discovery.health.is_ready());
        release.send_replace(true);
        let first = discovery.snapshot("it is published", |snapshot| snapshot.revision > 0).await;
        assert_eq!(
            (first.revision, names(&first)),
            (1, vec!["Service orders".to_owned(), "Workload orders-1".to_owned()])
        );
    }
}

#[tokio::test]
async fn an_empty_cluster_is_published_too() {
    let mut discovery = start(&FakeServer::new());
    let first = discovery.snapshot("it is published", |snapshot| snapshot.revision == 1).await;
    assert!(first.documents.is_empty());
}

#[tokio::test]
async fn a_change_makes_a_revision_and_leaves_everything_else_as_it_was() {
    let server = FakeServer::new();
    server.put(SERVICES, service("orders", "10.96.0.1"));
    server.put(SERVICES, service("mail", "10.96.0.2"));
    let mut discovery = start(&server);
    let first = discovery.snapshot("it is published", |snapshot| snapshot.documents.len() == 2).await;
    server.put(SERVICES, service("orders", "10.96.0.9"));
    let second = discovery.snapshot("it changes", |snapshot| snapshot.revision > first.revision).await;
    let (mail, orders) = (Key::new(Kind::Service, "shop", "mail"), Key::new(Kind::Service, "shop", "orders"));
    assert!(Arc::ptr_eq(&first.documents[&mail], &second.documents[&mail]), "it is the same memory");
    assert_eq!(second.documents[&orders].revision, second.revision);
    server.delete(SERVICES, "shop", "mail");
    let third = discovery.snapshot("it goes", |snapshot| snapshot.documents.len() == 1).await;
    assert!(third.revision > second.revision);
}

#[tokio::test]
async fn a_lost_watch_leaves_its_last_state_says_so_and_catches_up_with_what_it_missed() {
    let server = FakeServer::new();
    server.put(SERVICES, service("orders", "10.96.0.1"));
    server.put(PODS, pod("a", "10.1.0.1"));
    server.put(PODS, pod("b", "10.1.0.2"));
    let mut discovery = start(&server);
    discovery.snapshot("it is published", |snapshot| snapshot.documents.len() == 3).await;
    server.fail(PODS, 500);
    discovery.health("the watch is lost", |watch| watch.resource == "pods" && !watch.synced && watch.errors > 1).await;
    server.delete(PODS, "shop", "a");
    server.put(PODS, pod("c", "10.1.0.3"));
    // What other watches say goes out meanwhile.
    server.put(SERVICES, service("mail", "10.96.0.2"));
    let meanwhile = discovery.snapshot("others go on", |snapshot| snapshot.documents.len() == 4).await;
    assert_eq!(names(&meanwhile), ["Service mail", "Service orders", "Workload a", "Workload b"]);
    assert!(discovery.health.is_ready(), "what was said last is in force");
    server.recover(PODS);
    let after =
        discovery.snapshot("it catches up", |snapshot| names(snapshot).contains(&"Workload c".to_owned())).await;
    assert_eq!(names(&after), ["Service mail", "Service orders", "Workload b", "Workload c"]);
    discovery
        .health("the watch is well", |watch| watch.resource == "pods" && watch.synced && watch.lost.is_none())
        .await;
}

#[tokio::test]
async fn an_object_that_cannot_be_read_leaves_its_last_good_version_and_is_named() {
    let server = FakeServer::new();
    server.serve(ROUTES);
    server.put(ROUTES, route("by-name", 443));
    let mut discovery = start(&server);
    let first = discovery.snapshot("it is published", |snapshot| snapshot.documents.len() == 1).await;
    let mut broken = route("by-name", 443);
    broken["metadata"]["generation"] = 2.into();
    broken["spec"]["rules"] = json!([]);
    server.put(ROUTES, broken.clone());
    let is_told = |readings: &Readings| readings.values().any(|reading| reading.generation == 2);
    let readings = discovery.readings("the second generation is read", is_told).await;
    let ((resource, name), reading) = readings.iter().next().unwrap();
    assert_eq!(
        (resource.to_string(), name.to_string()),
        ("tlsroutes.gateway.networking.k8s.io".into(), "shop/by-name".into())
    );
    assert_eq!(reading.key, Key::new(Kind::TlsRoute, "shop", "by-name"));
    assert!(reading.problems[0].contains("spec.rules"), "{:?}", reading.problems);
    assert!(Arc::ptr_eq(&discovery.snapshots.borrow(), &first), "nothing changed");
    // It stays so when the watch begins again, and ends when the object is right.
    let before = server.lists(ROUTES);
    server.fail(ROUTES, 500);
    server.recover(ROUTES);
    discovery.health("it is listed again", |_| server.lists(ROUTES) > before).await;
    discovery.health("the watch is well", |watch| watch.resource.starts_with("tlsroutes") && watch.synced).await;
    assert_eq!(names(&discovery.snapshots.borrow()), ["TLSRoute by-name"]);
    let mut right = route("by-name", 8443);
    right["metadata"]["generation"] = 3.into();
    server.put(ROUTES, right);
    let readings = discovery.readings("it is right", |readings| readings.values().all(|r| r.generation == 3)).await;
    assert_eq!(readings.values().next().unwrap().problems, [] as [String; 0]);
    assert!(discovery.snapshots.borrow().revision > first.revision, "the snapshot comes before the reading");
}

#[tokio::test]
async fn a_backend_of_another_namespace_is_permitted_while_a_grant_there_says_so() {
    let (routes, grants) =
        ("/apis/gateway.networking.k8s.io/v1/httproutes", "/apis/gateway.networking.k8s.io/v1beta1/referencegrants");
    let server = FakeServer::new();
    server.serve(routes);
    server.serve(grants);
    let backend =
        json!({"group": "", "kind": "Service", "name": "stock", "namespace": "store", "port": 80, "weight": 1});
    server.put(routes, json!({
        "metadata": {"namespace": "shop", "name": "stock", "generation": 1},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "front"}], "rules": [{"backendRefs": [backend]}]},
    }));
    let grant = |from: &str| {
        json!({
            "metadata": {"namespace": "store", "name": "shop"},
            "spec": {
                "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": from}],
                "to": [{"group": "", "kind": "Service"}],
            },
        })
    };
    let is_permitted = |snapshot: &Snapshot| match snapshot.documents.values().next().map(|stored| &stored.document) {
        Some(Document::HttpRoute(route)) => route.spec.backends().all(|backend| backend.permitted),
        other => panic!("{other:?}"),
    };
    let mut discovery = start(&server);
    let first = discovery.snapshot("it is published", |snapshot| snapshot.revision > 0).await;
    assert!(!is_permitted(&first));
    server.put(grants, grant("shop"));
    discovery.snapshot("it is permitted", &is_permitted).await;
    server.put(grants, grant("other"));
    discovery.snapshot("it is permitted to another", |snapshot| !is_permitted(snapshot)).await;
    server.put(grants, grant("shop"));
    discovery.snapshot("it is permitted again", &is_permitted).await;
    server.delete(grants, "store", "shop");
    discovery.snapshot("the grant is gone", |snapshot| !is_permitted(snapshot)).await;
}

#[tokio::test]
async fn a_route_to_a_gateway_is_somebody_elses() {
    let server = FakeServer::new();
    server.serve(ROUTES);
    let mut foreign = route("ingress", 443);
    foreign["spec"]["parentRefs"] = json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "front"}]);
    server.put(ROUTES, foreign);
    let mut mixed = route("mixed", 443);
    let gateway = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "front"});
    mixed["spec"]["parentRefs"].as_array_mut().unwrap().push(gateway);
    server.put(ROUTES, mixed);
    let mut discovery = start(&server);
    let first = discovery.snapshot("it is published", |snapshot| snapshot.revision > 0).await;
    assert_eq!(names(&first), ["TLSRoute mixed"]);
    let readings = discovery.readings("they are read", |readings| !readings.is_empty()).await;
    let all: Vec<_> = readings.iter().map(|((_, name), reading)| (&*name.name, reading.problems.len())).collect();
    assert_eq!(all, [("mixed", 0)]);
}

#[tokio::test]
async fn an_object_that_names_what_the_cluster_itself_has_is_passed_over_and_told_so() {
    let services = "/apis/weft.dev/v1alpha1/services";
    let server = FakeServer::new();
    server.serve(services);
    server.put(SERVICES, service("orders", "10.96.0.1"));
    let own = json!({
        "metadata": {"namespace": "shop", "name": "orders", "generation": 1},
        "spec": {"ports": [{"port": 99}], "selector": {"app": "orders"}},
    });
    server.put(services, own);
    let mut discovery = start(&server);
    let first = discovery.snapshot("it is published", |snapshot| snapshot.revision > 0).await;
    let Document::Service(orders) = &first.documents[&Key::new(Kind::Service, "shop", "orders")].document else {
        panic!()
    };
    assert_eq!(orders.spec.ports[0].port, 80);
    let readings = discovery.readings("it is read", |readings| !readings.is_empty()).await;
    let problems = &readings.values().next().unwrap().problems;
    assert!(problems[0].contains("Service shop/orders, which counts"), "{problems:?}");
}

#[tokio::test]
async fn pods_without_the_proxy_they_or_their_namespace_ask_for_are_known() {
    let server = FakeServer::new();
    let namespace = |name: &str, label: &str| json!({"metadata": {"name": name, "labels": {"weft.dev/inject": label}}});
    server.put(NAMESPACES, namespace("shop", "enabled"));
    server.put(NAMESPACES, json!({"metadata": {"name": "other"}}));
    let pod = |namespace: &str, name: &str, label: Option<&str>, container: &str| {
        json!({
            "metadata": {
                "namespace": namespace, "name": name, "uid": format!("uid-{name}"),
                "labels": label.map(|label| json!({"weft.dev/inject": label})),
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "set", "uid": "1", "controller": true}],
            },
            "spec": {"containers": [{"name": container}]},
            "status": {"phase": "Running"},
        })
    };
    server.put(PODS, pod("shop", "asked", None, "app"));
    server.put(PODS, pod("shop", "objects", Some("disabled"), "app"));
    server.put(PODS, pod("shop", "meshed", None, "weft-proxy"));
    server.put(PODS, pod("other", "asks", Some("enabled"), "app"));
    server.put(PODS, pod("other", "nobody", None, "app"));
    let mut discovery = start(&server);
    discovery.snapshot("it is published", |snapshot| snapshot.revision > 0).await;
    let bare = Arc::clone(
        &tokio::time::timeout(PATIENCE, discovery.bare.wait_for(|bare| !bare.pods.is_empty())).await.unwrap().unwrap(),
    );
    let found: Vec<String> = bare.pods.iter().map(|(name, facts)| format!("{name} {}", facts.uid)).collect();
    assert_eq!(found, ["other/asks uid-asks", "shop/asked uid-asked"]);
    assert_eq!(bare.pods[1].1.owner, Some(("ReplicaSet".to_owned(), "set".to_owned())));
    assert_eq!(bare.namespaces, ["shop".into()]);
    server.put(NAMESPACES, namespace("shop", "disabled"));
    let only = |bare: &Bare| bare.pods.len() == 1;
    tokio::time::timeout(PATIENCE, discovery.bare.wait_for(|bare| only(bare))).await.unwrap().unwrap();
}
