use http::{Method, StatusCode};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use weft_proxy::clock;

use super::events::{Reporter, Said, event};
use super::*;
use crate::kubernetes::fake_api::{FakeApi, Fault, refusal};
use crate::kubernetes::time::simulated::SimulatedTime;

fn pod(namespace: &str, name: &str, changes: &Value) -> Pod {
    let mut pod = json!({
        "metadata": { "namespace": namespace, "name": name, "uid": format!("uid of {name}") },
        "spec": { "containers": [{ "name": "app" }] },
        "status": { "phase": "Running" },
    });
    json_patch_merge(&mut pod, changes);
    serde_json::from_value(pod).unwrap()
}

fn json_patch_merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                json_patch_merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn namespace(name: &str, label: Option<&str>) -> Namespace {
    let labels = label.map(|label| json!({ names::INJECT_LABEL: label }));
    serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } })).unwrap()
}

fn labelled(label: &str) -> Value {
    json!({ "metadata": { "labels": { names::INJECT_LABEL: label } } })
}

fn with(mut first: Value, second: &Value) -> Value {
    json_patch_merge(&mut first, second);
    first
}

#[test]
fn pods_that_ask_and_have_no_proxy_are_found_and_no_others() {
    let proxy = json!({ "spec": { "initContainers": [{ "name": "weft-init" }, { "name": "weft-proxy" }] } });
    let beside = json!({ "spec": { "containers": [{ "name": "app" }, { "name": "weft-proxy" }] } });
    let captured_only = json!({ "spec": { "initContainers": [{ "name": "weft-init" }] } });
    let host = json!({ "spec": { "hostNetwork": true } });
    let mirror = json!({ "metadata": { "annotations": { "kubernetes.io/config.mirror": "x" } } });
    let deleted = json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } });
    let phase = |phase: &str| json!({ "status": { "phase": phase } });
    let nothing = json!({});
    let cases = [
        ("the namespace asks", "asking", nothing.clone(), Some(Cause::AskedByNamespace)),
        ("the namespace asks and the pod waits", "asking", phase("Pending"), Some(Cause::AskedByNamespace)),
        ("nobody asks", "silent", nothing.clone(), None),
        ("the namespace asks not to", "refusing", nothing.clone(), None),
        ("a namespace nobody knows", "unknown", nothing.clone(), None),
        ("the pod asks", "silent", labelled("enabled"), Some(Cause::AskedByPod)),
        ("the pod asks against its namespace", "refusing", labelled("enabled"), Some(Cause::AskedByPod)),
        ("the pod does not want to", "asking", labelled("disabled"), None),
        ("the pod says something else", "asking", labelled("yes"), Some(Cause::AskedByNamespace)),
        ("it has the proxy", "asking", proxy, None),
        ("it has the proxy as a container", "asking", beside, None),
        ("it has only what captures", "asking", captured_only, Some(Cause::AskedByNamespace)),
        ("it has ended well", "asking", phase("Succeeded"), None),
        ("it has ended badly", "asking", phase("Failed"), None),
        ("it is ending", "asking", deleted, None),
        ("the host's network, by its namespace", "asking", host.clone(), None),
        ("the host's network, by itself", "asking", with(labelled("enabled"), &host), Some(Cause::HostNetwork)),
        ("the kubelet's own", "asking", mirror, None),
        ("the cluster's own namespace", "kube-system", labelled("enabled"), None),
        ("our own namespace", "weft-system", labelled("enabled"), None),
    ];
    let namespaces = [
        namespace("asking", Some("enabled")),
        namespace("silent", None),
        namespace("refusing", Some("disabled")),
        namespace("kube-system", Some("enabled")),
        namespace("weft-system", Some("enabled")),
    ];
    for (what, place, changes, expected) in cases {
        let found = find([pod(place, "p", &changes)], &namespaces, "weft-system");
        assert_eq!(found.first().map(|found| found.cause), expected, "{what}");
    }
}

#[test]
fn what_is_found_is_in_order_and_says_what_to_do() {
    let owner = json!({ "metadata": { "ownerReferences": [
        { "apiVersion": "v1", "kind": "Other", "name": "o", "uid": "o" },
        { "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "b-7d9f8", "uid": "r", "controller": true },
    ] } });
    let pods = [pod("asking", "b-7d9f8-x2x4p", &owner), pod("asking", "a", &json!({}))];
    let found = find(&pods, [namespace("asking", Some("enabled"))], "weft-system");
    let names: Vec<_> = found.iter().map(|found| (found.name.as_str(), found.owner.as_deref())).collect();
    assert_eq!(names, [("a", None), ("b-7d9f8-x2x4p", Some("ReplicaSet/b-7d9f8"))]);
    assert!(found[0].explanation().contains("delete it"), "{}", found[0].explanation());
    assert!(found[1].explanation().contains("kubectl rollout restart"), "{}", found[1].explanation());
}

#[tokio::test]
async fn a_pod_is_in_the_list_before_ten_seconds_have_passed_and_leaves_it() {
    let pods = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (list, found) = watch::channel(Arc::default());
    let (time, looked_at) = (SimulatedTime::new(), Arc::clone(&pods));
    let looking = {
        let time = time.clone();
        tokio::spawn(async move {
            let look = || find(&*looked_at.lock().unwrap(), [namespace("asking", Some("enabled"))], "weft-system");
            keep_by(&time, look, list).await;
        })
    };
    time.pass(INTERVAL / 2).await;
    for expected in [1, 0] {
        *pods.lock().unwrap() = vec![pod("asking", "a", &json!({})); expected];
        time.pass(Duration::from_secs(9)).await;
        assert_eq!(found.borrow().len(), expected);
    }
    looking.abort();
}

fn unmeshed(name: &str) -> UnmeshedPod {
    UnmeshedPod {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        uid: format!("uid of {name}"),
        owner: None,
        cause: Cause::AskedByNamespace,
    }
}

/// A replica that reports to a server of tests.
struct Replica {
    found: watch::Sender<Arc<Vec<UnmeshedPod>>>,
    leader: watch::Sender<bool>,
    reporting: JoinHandle<()>,
}

impl Replica {
    fn start(api: &FakeApi, time: &SimulatedTime, name: &str, pods: &[UnmeshedPod], leads: bool) -> Self {
        let (found, list) = watch::channel(Arc::new(pods.to_vec()));
        let (leader, leading) = watch::channel(leads);
        let reporter = Reporter { client: api.client(), instance: name.to_owned(), time: time.clone() };
        Self { found, leader, reporting: tokio::spawn(reporter.report(list, leading)) }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.reporting.abort();
    }
}

fn events(api: &FakeApi, method: &Method) -> usize {
    api.asked().iter().filter(|asked| asked.method == *method).count()
}

#[tokio::test]
async fn each_pod_has_one_event_whoever_leads() {
    let (api, time) = (FakeApi::new(), SimulatedTime::new());
    let pods = [unmeshed("a"), unmeshed("b")];
    let first = Replica::start(&api, &time, "weft-control-plane-1", &pods, true);
    let second = Replica::start(&api, &time, "weft-control-plane-2", &pods, false);
    time.pass(Duration::from_mins(1)).await;
    assert_eq!((events(&api, &Method::POST), events(&api, &Method::PATCH)), (2, 0));
    // A pod more, and the same list again.
    let more = [unmeshed("a"), unmeshed("b"), unmeshed("c")];
    first.found.send_replace(Arc::new(more.to_vec()));
    time.pass(Duration::from_mins(1)).await;
    assert_eq!(events(&api, &Method::POST), 3);
    first.leader.send_replace(false);
    second.leader.send_replace(true);
    time.pass(Duration::from_mins(1)).await;
    // The new leader finds them said, and counts up.
    assert_eq!((events(&api, &Method::POST), events(&api, &Method::PATCH)), (5, 2));
    let name = event(&pods[0], "", Timestamp::UNIX_EPOCH).metadata.name.unwrap();
    let said = api.get(&format!("/apis/events.k8s.io/v1/namespaces/shop/events/{name}")).unwrap();
    assert_eq!((&said["series"]["count"], &said["reportingInstance"]), (&json!(2), &json!("weft-control-plane-1")));
}

#[tokio::test]
async fn it_is_said_again_before_the_api_server_forgets_it() {
    let (api, time) = (FakeApi::new(), SimulatedTime::new());
    let _reporter = Replica::start(&api, &time, "r", &[unmeshed("a")], true);
    time.pass(Duration::from_secs(1)).await;
    assert_eq!(events(&api, &Method::POST), 1);
    time.pass(Duration::from_mins(59)).await;
    assert_eq!(events(&api, &Method::POST), 2);
}

#[tokio::test]
async fn an_event_that_could_not_be_written_is_tried_again_and_holds_up_no_other() {
    let (api, time) = (FakeApi::new(), SimulatedTime::new());
    api.on(|asked| match asked.body["regarding"]["name"].as_str() {
        Some("a") => Fault::Answer(StatusCode::FORBIDDEN, refusal(StatusCode::FORBIDDEN, "Forbidden")),
        _ => Fault::None,
    });
    let _reporter = Replica::start(&api, &time, "r", &[unmeshed("a"), unmeshed("b")], true);
    time.pass(Duration::from_secs(21)).await;
    let of = |name: &str| api.asked().iter().filter(|asked| asked.body["regarding"]["name"] == name).count();
    assert_eq!((of("a"), of("b")), (5, 1));
}

#[test]
fn an_event_has_what_the_api_server_demands_of_one() {
    let pod = unmeshed("a");
    let event = serde_json::to_value(event(&pod, &"r".repeat(200), Timestamp::UNIX_EPOCH)).unwrap();
    assert_eq!(event["reportingInstance"].as_str().unwrap().len(), 128);
    for field in ["eventTime", "reportingController", "action", "reason", "type", "note"] {
        assert!(event[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {event}");
    }
    assert!(event["note"].as_str().unwrap().len() <= 1024);
    assert_eq!(event["regarding"]["uid"], "uid of a");
}

#[test]
fn a_pod_that_was_mended_is_forgotten() {
    let (mut said, now) = (Said::default(), clock::now());
    said.note(&unmeshed("a"), 1, now + Duration::from_mins(1));
    assert!(!said.is_due(&unmeshed("a"), now));
    said.forget_others(&[unmeshed("b")]);
    assert!(said.is_due(&unmeshed("a"), now));
}
