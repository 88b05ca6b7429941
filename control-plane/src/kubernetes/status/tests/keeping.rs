//! The keeper against an API server in this process.

use std::convert::Infallible;
use std::sync::Mutex;

use axum::body::{Body, Bytes};
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::document::GATEWAY_API_VERSIONS;

/// A status that was written.
#[derive(Debug, Clone)]
struct Patched {
    path: String,
    query: String,
    body: Value,
}

/// Where events of a watch go.
type Watcher = mpsc::Sender<Result<Bytes, Infallible>>;

/// It serves Services of ours and TLSRoutes of the Gateway API, all in the namespace `shop`.
#[derive(Default)]
struct Server {
    objects: Mutex<BTreeMap<String, Value>>,
    watchers: Mutex<Vec<(String, Watcher)>>,
    patches: watch::Sender<Vec<Patched>>,
    /// Statuses of the next answers to writes, before they succeed.
    refusals: Mutex<Vec<u16>>,
}

const OWN: &str = "/apis/weft.dev/v1alpha1";
const GATEWAY: &str = "/apis/gateway.networking.k8s.io/v1";

impl Server {
    fn client(self: &Arc<Self>) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        Client::new(service, "default")
    }

    /// Puts an object there as somebody else, and tells those who watch.
    async fn put(&self, object: Value) {
        let plural = if object["kind"] == "Service" { "services" } else { "tlsroutes" };
        let version = object["apiVersion"].as_str().unwrap();
        let collection = format!("/apis/{version}/{plural}");
        let name = object["metadata"]["name"].as_str().unwrap();
        let path = format!("/apis/{version}/namespaces/shop/{plural}/{name}");
        self.objects.lock().unwrap().insert(path, object.clone());
        let event = json!({"type": "MODIFIED", "object": object}).to_string() + "\n";
        let watchers = self.watchers.lock().unwrap().clone();
        for (_, watcher) in watchers.iter().filter(|(watched, _)| *watched == collection) {
            let _ = watcher.send(Ok(event.clone().into())).await;
        }
    }

    fn get(&self, path: &str) -> Value {
        self.objects.lock().unwrap()[path].clone()
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
        let served = |kind: &str, plural: &str| {
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": path.trim_start_matches("/apis/"), "resources": [
                {"name": plural, "singularName": "", "namespaced": true, "kind": kind, "verbs": ["list"]},
            ]})
        };
        let (code, body) = match (parts.method.as_str(), path) {
            ("GET", OWN) => (200, served("Service", "services")),
            ("GET", GATEWAY) => (200, served("TLSRoute", "tlsroutes")),
            ("GET", path) if query.contains("watch=true") => return self.watched(path),
            ("GET", path) if path.ends_with("/services") || path.ends_with("/tlsroutes") => (200, self.listed(path)),
            ("PATCH", path) => {
                let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
                self.patched(path, query, &body)
            }
            _ => failure(404),
        };
        Response::builder().status(code).body(Body::from(body.to_string())).unwrap()
    }

    fn listed(&self, path: &str) -> Value {
        let (group, plural) = path.rsplit_once('/').unwrap();
        let objects = self.objects.lock().unwrap();
        let items = objects.iter().filter(|(path, _)| path.starts_with(group) && path.contains(plural));
        let items: Vec<&Value> = items.map(|(_, object)| object).collect();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items})
    }

    fn watched(&self, path: &str) -> Response<Body> {
        let (sender, events) = mpsc::channel(16);
        self.watchers.lock().unwrap().push((path.to_owned(), sender));
        Response::new(Body::from_stream(ReceiverStream::new(events)))
    }

    fn patched(&self, path: &str, query: &str, body: &Value) -> (u16, Value) {
        let refusal = self.refusals.lock().unwrap().pop();
        let patched = Patched { path: path.to_owned(), query: query.to_owned(), body: body.clone() };
        self.patches.send_modify(|patches| patches.push(patched));
        if let Some(code) = refusal {
            return failure(code);
        }
        let mut objects = self.objects.lock().unwrap();
        let object = objects.get_mut(path.trim_end_matches("/status")).unwrap();
        object["status"] = body["status"].clone();
        (200, object.clone())
    }

    /// Waits until statuses that satisfy this have been written.
    async fn wait_for(&self, is_enough: impl Fn(&[Patched]) -> bool) -> Vec<Patched> {
        let mut patches = self.patches.subscribe();
        let wait = patches.wait_for(|patches| is_enough(patches));
        let Ok(patches) = tokio::time::timeout(Duration::from_secs(20), wait).await else {
            panic!("not within 20 s: {:#?}", self.patches.borrow())
        };
        patches.unwrap().clone()
    }
}

fn failure(code: u16) -> (u16, Value) {
    let reason = if code == 409 { "Conflict" } else { "Unknown" };
    (
        code,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": "no"}),
    )
}

/// A keeper and the ends of its inputs.
struct Bench {
    server: Arc<Server>,
    leader: watch::Sender<bool>,
    news: watch::Sender<u64>,
    proxies: Arc<Mutex<Vec<ProxyInfo>>>,
    keeper: JoinHandle<()>,
    _documents: watch::Sender<Arc<Snapshot>>,
    _readings: watch::Sender<Arc<Readings>>,
    _findings: watch::Sender<Arc<Findings>>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Bench {
    async fn new(objects: &[Value]) -> Self {
        let server = Arc::new(Server::default());
        for object in objects {
            server.put(object.clone()).await;
        }
        let (leader, leads) = watch::channel(false);
        let (news, of_proxies) = watch::channel(0);
        let (snapshots, snapshot) = watch::channel(Arc::new(snapshot(SHOP)));
        let (findings, found) = watch::channel(Arc::new(Findings { revision: 9, ..Findings::default() }));
        let proxies = Arc::new(Mutex::new(vec![proxy("shop/a", 6, &[])]));
        let known = proxies.clone();
        let read = |object: &Value| {
            let Observed { id, generation, .. } = Observed::new(object.clone(), clock::now()).unwrap();
            let is_it = |known: &CustomResource| known.kind == id.key.kind && known.api_version == &*id.api_version;
            let resource = CustomResource::candidates().flatten().find(is_it).unwrap();
            let name = ObjectName { namespace: id.key.namespace.clone(), name: id.key.name.clone() };
            ((resource, name), Reading { key: id.key, generation, problems: Vec::new() })
        };
        let readings: Readings = objects.iter().map(read).collect();
        let (read, readings) = watch::channel(Arc::new(readings));
        let inputs = Inputs {
            client: server.client(),
            snapshots: snapshot,
            readings,
            findings: found,
            proxies: Arc::new(move || known.lock().unwrap().clone()),
            news: of_proxies,
            leader: leads,
            peers: Peers { system_namespace: "weft-system".into(), name: "own".into(), token: "absent".into() },
        };
        let keeper = tokio::spawn(keep(inputs));
        Self { server, leader, news, proxies, keeper, _documents: snapshots, _readings: read, _findings: findings }
    }

    /// What the proxies have become.
    fn proxies(&self, proxies: &[ProxyInfo]) {
        *self.proxies.lock().unwrap() = proxies.to_vec();
        self.news.send_modify(|count| *count += 1);
    }
}

fn reason(patched: &Patched) -> &str {
    patched.body["status"]["conditions"][1]["reason"].as_str().unwrap()
}

#[tokio::test]
async fn the_leader_writes_what_proxies_made_of_an_object_as_it_happens() {
    let bench = Bench::new(&[orders()]).await;
    bench.leader.send_replace(true);
    let written = bench.server.wait_for(|patches| patches.len() == 1).await;
    assert_eq!(written[0].path, format!("{OWN}/namespaces/shop/services/orders/status"));
    assert!(written[0].query.contains("fieldManager=weft-status") && written[0].query.contains("force=true"));
    assert_eq!(written[0].body["metadata"], json!({"name": "orders", "uid": "1"}));
    assert_eq!(reason(&written[0]), "Pending");
    bench.proxies(&[proxy("shop/a", 9, &[])]);
    let written = bench.server.wait_for(|patches| patches.len() == 2).await;
    assert_eq!(reason(&written[1]), "Programmed");
    bench.proxies(&[proxy("shop/a", 9, &[("shop/orders:80", "no")])]);
    let written = bench.server.wait_for(|patches| patches.len() == 3).await;
    assert_eq!(reason(&written[2]), "Refused");
}

#[tokio::test]
async fn who_does_not_lead_writes_nothing() {
    let bench = Bench::new(&[orders()]).await;
    bench.proxies(&[proxy("shop/a", 9, &[])]);
    bench.leader.send_replace(true);
    bench.server.wait_for(|patches| patches.len() == 1).await;
    bench.leader.send_replace(false);
    // The watch of one who leads no more ends.
    let ended = async {
        loop {
            let watchers = bench.server.watchers.lock().unwrap().clone();
            if watchers.iter().all(|(_, watcher)| watcher.is_closed()) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap();
    bench.proxies(&[proxy("shop/a", 6, &[])]);
    bench.leader.send_replace(true);
    let written = bench.server.wait_for(|patches| patches.len() == 2).await;
    assert_eq!(reason(&written[1]), "Pending", "and begins anew with what there is");
}

#[tokio::test]
async fn a_routes_status_is_written_on_what_was_seen_and_anew_when_others_were_quicker() {
    let bench = Bench::new(&[route()]).await;
    bench.server.refusals.lock().unwrap().push(409);
    bench.leader.send_replace(true);
    let written = bench.server.wait_for(|patches| patches.len() == 1).await;
    assert_eq!(written[0].path, format!("{GATEWAY}/namespaces/shop/tlsroutes/front/status"));
    assert_eq!(written[0].body["metadata"], json!({"resourceVersion": "5"}));
    // Another controller wrote its part meanwhile.
    let mut other = route();
    other["metadata"]["resourceVersion"] = json!("6");
    let entry = json!({"parentRef": {"name": "edge"}, "controllerName": "example.com/gateway", "conditions": []});
    other["status"] = json!({"parents": [entry]});
    bench.server.put(other).await;
    let written = bench.server.wait_for(|patches| patches.len() == 2).await;
    assert_eq!(written[1].body["metadata"], json!({"resourceVersion": "6"}));
    let parents = bench.server.get(&format!("{GATEWAY}/namespaces/shop/tlsroutes/front"))["status"]["parents"].clone();
    assert_eq!((&parents[0], &parents[1]["controllerName"]), (&entry, &json!("weft.dev/controller")));
}

#[tokio::test]
async fn the_gateway_api_is_followed_in_the_version_that_is_served() {
    assert_eq!(GATEWAY_API_VERSIONS[0], GATEWAY.trim_start_matches("/apis/"));
    let bench = Bench::new(&[orders(), route()]).await;
    bench.leader.send_replace(true);
    let written = bench.server.wait_for(|patches| patches.len() == 2).await;
    let kinds = written.iter().filter(|patched| patched.path.contains("tlsroutes")).count();
    assert_eq!(kinds, 1, "{written:#?}");
}
