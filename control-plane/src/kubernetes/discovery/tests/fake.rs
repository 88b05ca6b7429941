//! An API server as far as watches need one: lists with pages, watches from a resource version, discovery, and failures on
//! demand. In this process, behind a client that knows no better.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;

type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;
/// `/api/v1/pods` and the like to the objects there, by namespace and name.
type Collections = BTreeMap<String, BTreeMap<(String, String), Value>>;

#[derive(Default)]
struct State {
    version: u64,
    collections: Collections,
    /// Open watches by collection.
    watches: Vec<(String, mpsc::UnboundedSender<Bytes>)>,
    /// Collections whose requests fail, with this status.
    failing: BTreeMap<String, u16>,
    lists: BTreeMap<String, usize>,
    /// Collections whose requests are answered when this says so.
    held: BTreeMap<String, watch::Receiver<bool>>,
}

/// The server; clones are the same one.
#[derive(Clone, Default)]
pub(super) struct FakeServer(Arc<Mutex<State>>);

impl FakeServer {
    /// One that serves no custom kinds.
    pub(super) fn new() -> Self {
        let server = Self::default();
        for path in [PODS, SERVICES, SLICES, NAMESPACES, NODES] {
            server.state().collections.insert(path.to_owned(), BTreeMap::new());
        }
        server
    }

    pub(super) fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let held = server.state().held.get(request.uri().path()).cloned();
                if let Some(mut held) = held {
                    let _ = held.wait_for(|released| *released).await;
                }
                Ok::<_, Infallible>(server.answer(&request))
            }
        });
        Client::new(service, "default")
    }

    /// Serves a custom kind from now on.
    pub(super) fn serve(&self, path: &str) {
        self.state().collections.entry(path.to_owned()).or_default();
    }

    /// Puts an object there; its watches hear of it.
    pub(super) fn put(&self, path: &str, mut object: Value) {
        let mut state = self.state();
        state.version += 1;
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        let name = name(&object);
        let collection = state.collections.get_mut(path).unwrap();
        let kind = if collection.insert(name, object.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        state.tell(path, kind, &object);
    }

    pub(super) fn delete(&self, path: &str, namespace: &str, name: &str) {
        let mut state = self.state();
        state.version += 1;
        let key = (namespace.to_owned(), name.to_owned());
        let mut object = state.collections.get_mut(path).unwrap().remove(&key).unwrap();
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        state.tell(path, "DELETED", &object);
    }

    /// Requests of a collection fail from now on, and its open watches break off. While that is so, what happens to its
    /// objects is told to nobody.
    pub(super) fn fail(&self, path: &str, status: u16) {
        let mut state = self.state();
        state.failing.insert(path.to_owned(), status);
        // An error in the stream, as of a connection that breaks.
        let gone = json!({"type": "ERROR", "object": {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410, "reason": "Expired", "message": "too old",
        }});
        for (_, watch) in state.watches.iter().filter(|(of, _)| of == path) {
            let _ = watch.send(line(&gone));
        }
        state.watches.retain(|(of, _)| of != path);
    }

    pub(super) fn recover(&self, path: &str) {
        self.state().failing.remove(path);
    }

    /// Requests of a collection wait for their answer until `true` is sent, or the sender is gone.
    pub(super) fn hold(&self, path: &str) -> watch::Sender<bool> {
        let (release, held) = watch::channel(false);
        self.state().held.insert(path.to_owned(), held);
        release
    }

    /// How often a collection has been listed.
    pub(super) fn lists(&self, path: &str) -> usize {
        self.state().lists.get(path).copied().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn answer(&self, request: &Request<Body>) -> Reply {
        let path = request.uri().path().trim_end_matches('/').to_owned();
        let query: BTreeMap<&str, &str> =
            request.uri().query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
        let mut state = self.state();
        if let Some(status) = state.failing.get(&path) {
            return failure(*status);
        }
        if state.collections.contains_key(&path) {
            return if query.get("watch") == Some(&"true") { state.watch(&path) } else { state.list(&path) };
        }
        state.resources(&path).unwrap_or_else(unknown)
    }
}

impl State {
    fn tell(&mut self, path: &str, kind: &str, object: &Value) {
        let event = line(&json!({"type": kind, "object": object}));
        self.watches.retain(|(of, watch)| of != path || watch.send(event.clone()).is_ok());
    }

    fn list(&mut self, path: &str) -> Reply {
        *self.lists.entry(path.to_owned()).or_default() += 1;
        let items: Vec<&Value> = self.collections[path].values().collect();
        let version = self.version.to_string();
        ok(&json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}))
    }

    fn watch(&mut self, path: &str) -> Reply {
        let (watch, events) = mpsc::unbounded_channel();
        self.watches.push((path.to_owned(), watch));
        let frames = UnboundedReceiverStream::new(events).map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
        Response::new(StreamBody::new(frames).boxed_unsync())
    }

    /// What `/apis/GROUP/VERSION` says.
    fn resources(&self, path: &str) -> Option<Reply> {
        let of_version = |collection: &String| collection.strip_prefix(path)?.strip_prefix('/').map(str::to_owned);
        let plurals: Vec<String> = self.collections.keys().filter_map(of_version).collect();
        let version = path.strip_prefix("/apis/").filter(|_| !plurals.is_empty())?;
        let kinds = [
            ("meshes", "Mesh"),
            ("services", "Service"),
            ("workloads", "Workload"),
            ("tlsroutes", "TLSRoute"),
            ("httproutes", "HTTPRoute"),
            ("referencegrants", "ReferenceGrant"),
        ];
        let resources: Vec<Value> = kinds
            .iter()
            .filter(|(plural, _)| plurals.iter().any(|known| known == plural))
            .map(|(plural, kind)| json!({"name": plural, "singularName": "", "namespaced": true, "kind": kind, "verbs": ["list", "watch"]}))
            .collect();
        Some(ok(
            &json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}),
        ))
    }
}

pub(super) const PODS: &str = "/api/v1/pods";
pub(super) const SERVICES: &str = "/api/v1/services";
pub(super) const NAMESPACES: &str = "/api/v1/namespaces";
pub(super) const NODES: &str = "/api/v1/nodes";
pub(super) const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";

fn name(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

fn line(value: &Value) -> Bytes {
    format!("{value}\n").into()
}

fn ok(value: &Value) -> Reply {
    Response::builder().header("content-type", "application/json").body(body(value)).unwrap()
}

/// What API servers say of paths they do not know: no Status.
fn unknown() -> Reply {
    let body = Full::new(Bytes::from_static(b"404 page not found\n")).boxed_unsync();
    Response::builder().status(404).header("content-type", "text/plain; charset=utf-8").body(body).unwrap()
}

fn failure(status: u16) -> Reply {
    let value = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": status,
        "message": "not now", "reason": if status == 404 { "NotFound" } else { "InternalError" },
    });
    Response::builder().status(status).header("content-type", "application/json").body(body(&value)).unwrap()
}

fn body(value: &Value) -> UnsyncBoxBody<Bytes, Infallible> {
    Full::new(Bytes::from(value.to_string())).boxed_unsync()
}
