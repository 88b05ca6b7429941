//! An API server of a few dozen lines, for tests of what talks to one: objects by path, server-side apply that merges,
//! dry runs that keep nothing, labels in lists, and answers a test puts in the place of its own.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};

use super::cluster::Cluster;

/// What a test says to a request: status and body, where a string is plain text; `None` leaves it to the server.
type Rule = Box<dyn Fn(&Asked) -> Option<(u16, Value)> + Send>;

/// A request as it came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Value,
    pub(crate) headers: http::HeaderMap,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    asked: Vec<Asked>,
    rules: Vec<Rule>,
    version: u64,
    date: Option<String>,
}

/// The server; clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct FakeApi(Arc<Mutex<State>>);

impl FakeApi {
    pub(crate) fn cluster(&self) -> Cluster {
        Cluster::new(self.client(), "a test")
    }

    pub(crate) fn client(&self) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Puts an object at its path.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.state().objects.insert(path.to_owned(), object);
    }

    /// Takes an object away, as its owner would.
    pub(crate) fn forget(&self, path: &str) {
        self.state().objects.remove(path);
    }

    pub(crate) fn object(&self, path: &str) -> Option<Value> {
        self.state().objects.get(path).cloned()
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    /// What the server says its clock is.
    pub(crate) fn set_date(&self, date: &str) {
        self.state().date = Some(date.to_owned());
    }

    /// Later rules come first.
    pub(crate) fn rule(&self, rule: impl Fn(&Asked) -> Option<(u16, Value)> + Send + 'static) {
        self.state().rules.insert(0, Box::new(rule));
    }

    /// All requests that were not reads, without rehearsals: `METHOD /path`.
    pub(crate) fn writes(&self) -> Vec<String> {
        let state = self.state();
        let writes = state.asked.iter().filter(|asked| asked.method != Method::GET && !asked.query.contains("dryRun"));
        writes.map(|asked| format!("{} {}", asked.method, asked.path)).collect()
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.expect("a request of the same process arrives whole").to_bytes();
        let asked = Asked {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            headers: parts.headers,
        };
        let mut state = self.state();
        state.asked.push(asked.clone());
        let ruled = state.rules.iter().find_map(|rule| rule(&asked));
        let (status, body) = ruled.unwrap_or_else(|| state.serve(&asked));
        let text = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
        let mut response = Response::new(Body::from(text.into_bytes()));
        *response.status_mut() = StatusCode::from_u16(status).expect("tests answer with statuses there are");
        if let Some(date) = &state.date {
            response.headers_mut().insert(http::header::DATE, date.parse().expect("tests give dates"));
        }
        response
    }
}

/// A refusal as the API server words it.
pub(crate) fn refusal(code: u16, message: &str) -> (u16, Value) {
    (
        code,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message, "reason": ""}),
    )
}

impl State {
    fn serve(&mut self, asked: &Asked) -> (u16, Value) {
        let dry = asked.query.contains("dryRun=All");
        match asked.method {
            Method::GET => match self.objects.get(&asked.path) {
                Some(object) => (200, object.clone()),
                None if is_collection(&asked.path) => (200, self.list(asked)),
                None => refusal(404, &format!("{} not found", asked.path)),
            },
            Method::PATCH => {
                if !self.has_namespace(&asked.path) {
                    return refusal(404, "namespaces not found");
                }
                let before = self.objects.get(&asked.path).cloned();
                let mut after =
                    before.clone().unwrap_or_else(|| json!({"metadata": {"uid": "u", "creationTimestamp": "now"}}));
                merge(&mut after, &asked.body);
                if before.as_ref() != Some(&after) {
                    self.version += 1;
                    after["metadata"]["resourceVersion"] = json!(self.version.to_string());
                    after["metadata"]["managedFields"] = json!([self.version]);
                }
                if !dry {
                    self.objects.insert(asked.path.clone(), after.clone());
                }
                (if before.is_some() { 200 } else { 201 }, after)
            }
            Method::DELETE => match self.objects.remove(&asked.path) {
                Some(_) => (200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})),
                None => refusal(404, "not found"),
            },
            Method::POST => (201, asked.body.clone()),
            _ => refusal(405, "no such method"),
        }
    }

    /// A namespaced object needs its namespace.
    fn has_namespace(&self, path: &str) -> bool {
        let mut parts = path.split('/').skip_while(|part| *part != "namespaces").skip(1);
        match (parts.next(), parts.next()) {
            (Some(namespace), Some(_)) => self.objects.contains_key(&format!("/api/v1/namespaces/{namespace}")),
            _ => true,
        }
    }

    fn list(&self, asked: &Asked) -> Value {
        let wanted: Vec<(String, String)> = asked
            .query
            .split('&')
            .find_map(|pair| pair.strip_prefix("labelSelector="))
            .unwrap_or_default()
            .split("%2C")
            .filter_map(|term| term.split_once("%3D"))
            .map(|(key, value)| (key.replace("%2F", "/"), value.replace("%2F", "/")))
            .collect();
        let in_collection = |path: &str| {
            // Of one namespace the path says it; of all, the namespace stands in between.
            let (root, plural) = asked.path.rsplit_once('/').expect("paths have slashes");
            let Some((parent, _)) = path.rsplit_once('/') else { return false };
            parent == asked.path
                || (parent.starts_with(&format!("{root}/namespaces/")) && parent.ends_with(&format!("/{plural}")))
        };
        let matches =
            |object: &Value| wanted.iter().all(|(key, value)| object["metadata"]["labels"][key] == json!(value));
        let items = self.objects.iter().filter(|(path, object)| in_collection(path) && matches(object));
        json!({"kind": "List", "metadata": {}, "items": items.map(|(_, object)| object.clone()).collect::<Vec<_>>()})
    }
}

/// `/api/v1/pods`, `/api/v1/namespaces/n/pods`: what has no name behind the kind.
fn is_collection(path: &str) -> bool {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let rest = if parts[0] == "api" { &parts[2..] } else { parts.get(3..).unwrap_or_default() };
    let rest = if rest.first() == Some(&"namespaces") && rest.len() > 2 { &rest[2..] } else { rest };
    rest.len() == 1
}

fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}
