//! An API server of tests: objects by path with resource versions, watches, and faults on demand.
//!
//! It knows create, get, list, watch, replace (409 on an old version), merge patch and a server-side apply that merges
//! maps, and lists by `name`. It checks no schema and no permission.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::BroadcastStream;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Value,
}

/// What a test does about a request before the server does.
pub(crate) enum Fault {
    /// The server does its work.
    None,
    /// This answer, and nothing happens.
    Answer(StatusCode, Value),
    /// No answer for ever; the work is done or not.
    Silence { done: bool },
    /// The work is done after the one, and the answer comes after the other.
    Slow(Pause, Pause),
}

pub(crate) type Pause = Pin<Box<dyn Future<Output = ()> + Send>>;

type Faults = dyn Fn(&Asked) -> Fault + Send + Sync;

/// The server. Clones are the same.
#[derive(Clone)]
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<(String, Value)>,
}

struct State {
    version: u64,
    objects: BTreeMap<String, Value>,
    /// What watches tell: version, collection, event.
    events: Vec<(u64, String, Value)>,
    asked: Vec<Asked>,
    faults: Arc<Faults>,
}

impl FakeApi {
    pub(crate) fn new() -> Self {
        let state = State {
            version: 0,
            objects: BTreeMap::new(),
            events: Vec::new(),
            asked: Vec::new(),
            faults: Arc::new(|_| Fault::None),
        };
        Self { state: Arc::new(Mutex::new(state)), events: broadcast::channel(1024).0 }
    }

    pub(crate) fn client(&self) -> Client {
        self.client_with(|_| Fault::None)
    }

    /// A client whose requests meet faults of their own, after those of [`Self::on`].
    pub(crate) fn client_with(&self, faults: impl Fn(&Asked) -> Fault + Send + Sync + 'static) -> Client {
        let (server, faults) = (self.clone(), Arc::new(faults));
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let (server, faults) = (server.clone(), Arc::clone(&faults));
            async move { Ok::<_, std::convert::Infallible>(server.answer(request, &*faults).await) }
        });
        Client::new(service, "default")
    }

    pub(crate) fn on(&self, faults: impl Fn(&Asked) -> Fault + Send + Sync + 'static) {
        self.state.lock().unwrap().faults = Arc::new(faults);
    }

    /// What was asked so far, but for watches and listings.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.lock().unwrap().asked.clone()
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    /// Puts an object there, as somebody else.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.store(path, object);
    }

    pub(crate) fn delete(&self, path: &str) {
        let mut state = self.state.lock().unwrap();
        if let Some(object) = state.objects.remove(path) {
            state.version += 1;
            self.tell(&mut state, path, "DELETED", &object);
        }
    }

    /// Under the lock: a watch that begins meanwhile has the event from the one side or the other.
    fn tell(&self, state: &mut State, path: &str, kind: &str, object: &Value) {
        let event = (collection(path).to_owned(), json!({ "type": kind, "object": object }));
        state.events.push((state.version, event.0.clone(), event.1.clone()));
        let _ = self.events.send(event);
    }

    async fn answer(&self, request: Request<kube::client::Body>, own: &Faults) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let is_apply = parts.headers.get("content-type").is_some_and(|kind| kind == "application/apply-patch+yaml");
        let asked = Asked { method: parts.method, path, body: serde_json::from_slice(&body).unwrap_or_default() };
        let faults = {
            let mut state = self.state.lock().unwrap();
            if !query.contains("limit=") && !query.contains("watch=") {
                state.asked.push(asked.clone());
            }
            Arc::clone(&state.faults)
        };
        let fault = match faults(&asked) {
            Fault::None => own(&asked),
            fault => fault,
        };
        match fault {
            Fault::None => self.work(&asked, &query, is_apply),
            Fault::Answer(code, body) => answer(code, &body),
            Fault::Silence { done } => {
                if done {
                    self.work(&asked, &query, is_apply);
                }
                std::future::pending().await
            }
            // Also for a client that has stopped waiting.
            Fault::Slow(before, after) => {
                let server = self.clone();
                let work = tokio::spawn(async move {
                    before.await;
                    let response = server.work(&asked, &query, is_apply);
                    after.await;
                    response
                });
                work.await.unwrap()
            }
        }
    }

    fn work(&self, asked: &Asked, query: &str, is_apply: bool) -> Response<Body> {
        let Asked { method, path, body } = asked;
        match *method {
            Method::GET if query.contains("watch=") => self.watch(path, query),
            Method::GET if query.contains("limit=") => self.list(path, query),
            Method::GET => match self.get(path) {
                Some(object) => answer(StatusCode::OK, &object),
                None => status(StatusCode::NOT_FOUND, "NotFound"),
            },
            Method::POST => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap_or_default());
                if self.get(&path).is_some() {
                    return status(StatusCode::CONFLICT, "AlreadyExists");
                }
                answer(StatusCode::CREATED, &self.store(&path, body.clone()))
            }
            Method::PUT => match self.get(path) {
                None => status(StatusCode::NOT_FOUND, "NotFound"),
                Some(now) if now["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] => {
                    status(StatusCode::CONFLICT, "Conflict")
                }
                Some(_) => answer(StatusCode::OK, &self.store(path, body.clone())),
            },
            Method::PATCH => match self.get(path) {
                None if !is_apply => status(StatusCode::NOT_FOUND, "NotFound"),
                before => {
                    let mut object = before.unwrap_or_else(|| json!({}));
                    merge(&mut object, body);
                    answer(StatusCode::OK, &self.store(path, object))
                }
            },
            _ => status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }

    fn store(&self, path: &str, mut object: Value) -> Value {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        // As the real one does with the write-only half of Secrets.
        if let Some(Value::Object(texts)) = object.as_object_mut().and_then(|object| object.remove("stringData")) {
            for (key, text) in texts {
                let bytes = k8s_openapi::ByteString(text.as_str().unwrap_or_default().as_bytes().to_vec());
                object["data"][key] = serde_json::to_value(bytes).unwrap();
            }
        }
        let before = state.objects.insert(path.to_owned(), object.clone());
        self.tell(&mut state, path, if before.is_some() { "MODIFIED" } else { "ADDED" }, &object);
        object
    }

    fn list(&self, path: &str, query: &str) -> Response<Body> {
        let state = self.state.lock().unwrap();
        let items: Vec<_> = state
            .objects
            .iter()
            .filter(|(place, object)| collection(place) == path && is_selected(object, query))
            .map(|(_, object)| object.clone())
            .collect();
        let version = state.version.to_string();
        answer(
            StatusCode::OK,
            &json!({
                "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": version }, "items": items,
            }),
        )
    }

    fn watch(&self, path: &str, query: &str) -> Response<Body> {
        let (path, query) = (path.to_owned(), query.to_owned());
        let since = parameter(&query, "resourceVersion").and_then(|version| version.parse::<u64>().ok());
        let state = self.state.lock().unwrap();
        let missed = state.events.iter().filter(|(version, ..)| *version > since.unwrap_or_default());
        let missed: Vec<_> = missed.map(|(_, place, event)| (place.clone(), event.clone())).collect();
        let coming = BroadcastStream::new(self.events.subscribe()).filter_map(Result::ok);
        let lines = tokio_stream::iter(missed).chain(coming).filter_map(move |(place, event)| {
            let is_meant = place == path && is_selected(&event["object"], &query);
            is_meant.then(|| Ok::<_, std::convert::Infallible>(Bytes::from(format!("{event}\n"))))
        });
        Response::new(Body::from_stream(lines))
    }
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
}

fn collection(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(collection, _)| collection)
}

fn is_selected(object: &Value, query: &str) -> bool {
    let name = parameter(query, "fieldSelector").and_then(|selector| selector.strip_prefix("metadata.name%3D"));
    name.is_none_or(|name| object["metadata"]["name"] == name)
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(from)) if from.iter().all(|item| item["name"].is_string()) => {
            for item in from {
                match into.iter_mut().find(|known| known["name"] == item["name"]) {
                    Some(known) => merge(known, item),
                    None => into.push(item.clone()),
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn answer(code: StatusCode, body: &Value) -> Response<Body> {
    Response::builder().status(code).body(Body::from(body.to_string())).unwrap()
}

/// A refusal as the API server words it.
pub(crate) fn refusal(code: StatusCode, reason: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(), "reason": reason,
        "message": format!("the test says {reason}"),
    })
}

fn status(code: StatusCode, reason: &str) -> Response<Body> {
    answer(code, &refusal(code, reason))
}
