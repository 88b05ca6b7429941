//! Objects of an API server, as JSON: what an installation needs of a client, and no more.
//!
//! Objects are what users and templates wrote, so they stay JSON: a typed client would drop what its types do not know.
//! Each request has one deadline. What the server refuses is told in its own words, with the object and the server.

use std::fmt;
use std::time::Duration;

use http::{Method, Request};
use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use super::manifests::{MANAGED_BY_LABEL, NAME_LABEL};
use crate::kubernetes::access::{Access, AccessError};
use crate::kubernetes::causes::chain;
use crate::kubernetes::names;

/// For a connection alone; a cluster that is not there should not take half a minute to say so.
const CONNECT: Duration = Duration::from_secs(10);
/// One request with its answer: admission webhooks may take 30 s by themselves.
const ANSWER: Duration = Duration::from_secs(45);
/// Objects asked for at once.
const PAGE: usize = 500;
/// More pages than a list can have: a server that never ends it must not keep us for ever.
const MOST_PAGES: usize = 10_000;

/// A kind of object, as the API server's paths have it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    pub api_version: String,
    pub name: String,
    pub plural: String,
    pub is_namespaced: bool,
}

/// The kinds an installation consists of, in the order in which they are applied.
const KINDS: [(&str, &str, &str, bool); 17] = [
    ("v1", "Namespace", "namespaces", false),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", false),
    ("v1", "ServiceAccount", "serviceaccounts", true),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", false),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", false),
    ("rbac.authorization.k8s.io/v1", "Role", "roles", true),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings", true),
    ("v1", "Secret", "secrets", true),
    ("v1", "ConfigMap", "configmaps", true),
    ("coordination.k8s.io/v1", "Lease", "leases", true),
    ("v1", "Service", "services", true),
    ("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", true),
    ("apps/v1", "Deployment", "deployments", true),
    ("apps/v1", "DaemonSet", "daemonsets", true),
    ("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true),
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", false),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", false),
];

impl Kind {
    /// A kind of an installation, or one that is only read here.
    ///
    /// # Panics
    /// For any other kind: names are literals, and tests call all of them.
    pub fn of(name: &str) -> Self {
        match name {
            "Pod" => Self::new("v1", "Pod", "pods", true),
            "Node" => Self::new("v1", "Node", "nodes", false),
            "Event" => Self::new("v1", "Event", "events", true),
            _ => Self::ours().find(|kind| kind.name == name).expect("the kinds used here are in the table"),
        }
    }

    /// The kinds of an installation, in the order in which they are applied.
    pub fn ours() -> impl DoubleEndedIterator<Item = Self> {
        KINDS
            .into_iter()
            .map(|(api_version, name, plural, is_namespaced)| Self::new(api_version, name, plural, is_namespaced))
    }

    pub fn new(api_version: &str, name: &str, plural: &str, is_namespaced: bool) -> Self {
        Self { api_version: api_version.into(), name: name.into(), plural: plural.into(), is_namespaced }
    }

    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// Where objects of this kind are; of all namespaces without one.
    fn path(&self, namespace: Option<&str>) -> String {
        let prefix = if self.group().is_empty() { "api" } else { "apis" };
        match namespace.filter(|_| self.is_namespaced) {
            Some(namespace) => format!("/{prefix}/{}/namespaces/{namespace}/{}", self.api_version, self.plural),
            None => format!("/{prefix}/{}/{}", self.api_version, self.plural),
        }
    }
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    pub kind: Kind,
    /// Empty for an object of the whole cluster.
    pub namespace: String,
    pub name: String,
}

impl Reference {
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        let namespace = if kind.is_namespaced { namespace } else { "" };
        Self { kind, namespace: namespace.into(), name: name.into() }
    }

    /// The object a manifest of ours is about.
    pub fn of(manifest: &Value) -> Self {
        let text = |pointer| manifest.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        Self::new(Kind::of(text("/kind")), text("/metadata/namespace"), text("/metadata/name"))
    }

    /// An object of a list of its kind, whose items do not say their kind.
    fn listed(kind: &Kind, item: &Value) -> Self {
        let text = |pointer| item.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        Self::new(kind.clone(), text("/metadata/namespace"), text("/metadata/name"))
    }

    fn path(&self) -> String {
        let namespace = Some(self.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        format!("{}/{}", self.kind.path(namespace), self.name)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind.name, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind.name, self.namespace, self.name)
        }
    }
}

/// Why a request brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error("cannot {doing} at {place}: {what}; check that the cluster can be reached from here")]
    Unreachable { doing: String, place: String, what: String },
    #[error("cannot {doing} at {place}: no answer within {} s; try again", .patience.as_secs())]
    Late { doing: String, place: String, patience: Duration },
    #[error("cannot {doing} at {place}: {message}")]
    Refused { doing: String, place: String, code: u16, message: String },
    #[error("cannot {doing} at {place}: the answer is not what such a server sends ({what})")]
    Answer { doing: String, place: String, what: String },
}

impl ClusterError {
    /// The HTTP status of a refusal.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// What the server said, without what was asked.
    pub fn message(&self) -> String {
        match self {
            Self::Refused { message, .. } => message.clone(),
            other => other.to_string(),
        }
    }
}

/// An API server.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    /// What messages call it: a context, and the server's address.
    place: String,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Whether something is done, or the server only says what would come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Real,
    DryRun,
}

/// What an answer said beside its body.
#[derive(Debug)]
pub struct Answer {
    pub body: Value,
    /// The server's clock, seconds since the Unix epoch, where it told.
    pub date: Option<i64>,
}

impl Cluster {
    /// The cluster the user means.
    pub async fn connect(access: &Access) -> Result<Self, ClusterError> {
        let (mut config, context) = access.configuration().await?;
        config.connect_timeout = Some(CONNECT);
        let place = match context {
            Some(context) => format!("{context} ({})", config.cluster_url),
            None => config.cluster_url.to_string(),
        };
        let client = Client::try_from(config).map_err(|error| access.refused(&error))?;
        Ok(Self::new(client, place))
    }

    pub fn new(client: Client, place: impl Into<String>) -> Self {
        Self { client, place: place.into() }
    }

    pub fn place(&self) -> &str {
        &self.place
    }

    /// One object, if it exists.
    pub async fn get(&self, object: &Reference) -> Result<Option<Value>, ClusterError> {
        match self.ask(Method::GET, &object.path(), None, &format!("read {object}")).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All objects of a kind with these labels; none where the server does not know the kind.
    pub async fn list(&self, kind: &Kind, namespace: Option<&str>, labels: &str) -> Result<Vec<Value>, ClusterError> {
        let doing = format!("list {}", kind.plural);
        let mut items = Vec::new();
        let mut more = String::new();
        for _ in 0..MOST_PAGES {
            let query = format!("?limit={PAGE}&labelSelector={}&continue={}", encoded(labels), encoded(&more));
            let answer = match self.ask(Method::GET, &(kind.path(namespace) + &query), None, &doing).await {
                Ok(answer) => answer,
                Err(error) if error.is_not_found() => return Ok(items),
                Err(error) => return Err(error),
            };
            if let Some(Value::Array(page)) = answer.get("items") {
                items.extend(page.iter().cloned());
            }
            answer.pointer("/metadata/continue").and_then(Value::as_str).unwrap_or_default().clone_into(&mut more);
            if more.is_empty() {
                break;
            }
        }
        Ok(items)
    }

    /// What of a kind is ours to manage, by its labels.
    pub async fn ours(&self, kind: &Kind) -> Result<Vec<Reference>, ClusterError> {
        let labels = format!("{NAME_LABEL}={0},{MANAGED_BY_LABEL}={0}", names::APP_NAME);
        let items = self.list(kind, None, &labels).await?;
        Ok(items.iter().map(|item| Reference::listed(kind, item)).collect())
    }

    /// Server-side apply: the object afterwards. Fields of others that we claim become ours.
    pub async fn apply(&self, object: &Reference, manifest: &Value, mode: Mode) -> Result<Value, ClusterError> {
        let dry = if mode == Mode::DryRun { "&dryRun=All" } else { "" };
        let path =
            format!("{}?fieldManager={}&force=true&fieldValidation=Strict{dry}", object.path(), names::FIELD_MANAGER);
        self.ask(Method::PATCH, &path, Some(manifest), &format!("apply {object}")).await
    }

    /// Whether there was something to delete.
    pub async fn delete(&self, object: &Reference) -> Result<bool, ClusterError> {
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
        match self.ask(Method::DELETE, &object.path(), Some(&options), &format!("delete {object}")).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Creates what has no name of its own: reviews and requests; or, as a rehearsal, anything.
    pub async fn create(&self, path: &str, body: &Value, doing: &str) -> Result<Value, ClusterError> {
        self.ask(Method::POST, path, Some(body), doing).await
    }

    /// GETs a path.
    pub async fn read(&self, path: &str, doing: &str) -> Result<Answer, ClusterError> {
        self.exchange(request(Method::GET, path, None, None)?, doing).await
    }

    /// Sends a request without a body to a path, with a header of ours.
    pub async fn send_with(
        &self,
        method: Method,
        path: &str,
        header: (&str, &str),
        doing: &str,
    ) -> Result<Value, ClusterError> {
        Ok(self.exchange(request(method, path, None, Some(header))?, doing).await?.body)
    }

    /// GETs what is no object: a log, or what a pod answers through the API server. At most `most` bytes of it are read.
    pub async fn text(&self, path: &str, doing: &str, most: usize, patience: Duration) -> Result<String, ClusterError> {
        let (doing, place) = (doing.to_owned(), self.place.clone());
        let request = request(Method::GET, path, None, None)?;
        let exchange = async {
            let response = self.client.send(request).await.map_err(|error| chain(&error))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, most).collect().await;
            let bytes = body.map_err(|error| format!("{error} ({most} bytes)"))?.to_bytes();
            Ok::<_, String>((parts.status, bytes))
        };
        let (status, bytes) = match tokio::time::timeout(patience, exchange).await {
            Err(_) => return Err(ClusterError::Late { doing, place, patience }),
            Ok(Err(what)) => return Err(ClusterError::Unreachable { doing, place, what }),
            Ok(Ok(answer)) => answer,
        };
        if !status.is_success() {
            let message = refusal(&bytes).unwrap_or_else(|| status.to_string());
            return Err(ClusterError::Refused { doing, place, code: status.as_u16(), message });
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>, doing: &str) -> Result<Value, ClusterError> {
        Ok(self.exchange(request(method, path, body, None)?, doing).await?.body)
    }

    async fn exchange(&self, request: Request<Body>, doing: &str) -> Result<Answer, ClusterError> {
        let (doing, place) = (doing.to_owned(), self.place.clone());
        let exchange = async {
            let response = self.client.send(request).await.map_err(|error| chain(&error))?;
            let (parts, body) = response.into_parts();
            let date = parts.headers.get(http::header::DATE).and_then(|date| date.to_str().ok()).and_then(http_date);
            let bytes = body.collect_bytes().await.map_err(|error| chain(&error))?;
            Ok::<_, String>((parts.status, date, bytes))
        };
        let (status, date, bytes) = match tokio::time::timeout(ANSWER, exchange).await {
            Err(_) => return Err(ClusterError::Late { doing, place, patience: ANSWER }),
            Ok(Err(what)) => return Err(ClusterError::Unreachable { doing, place, what }),
            Ok(Ok(answer)) => answer,
        };
        if !status.is_success() {
            let message = refusal(&bytes).unwrap_or_else(|| status.to_string());
            return Err(ClusterError::Refused { doing, place, code: status.as_u16(), message });
        }
        let body = serde_json::from_slice(&bytes).map_err(|error| ClusterError::Answer {
            doing,
            place,
            what: error.to_string(),
        })?;
        Ok(Answer { body, date })
    }
}

fn request(
    method: Method,
    path: &str,
    body: Option<&Value>,
    header: Option<(&str, &str)>,
) -> Result<Request<Body>, ClusterError> {
    // JSON is YAML, and all servers take this type for an apply.
    let content = if method == Method::PATCH { "application/apply-patch+yaml" } else { "application/json" };
    let mut builder = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::ACCEPT, "application/json")
        .header(http::header::CONTENT_TYPE, content);
    if let Some((name, value)) = header {
        builder = builder.header(name, value);
    }
    let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
    builder.body(Body::from(bytes)).map_err(|error| ClusterError::Answer {
        doing: "ask".into(),
        place: path.into(),
        what: error.to_string(),
    })
}

/// The message of a `Status` object, or the text of what is none.
fn refusal(bytes: &[u8]) -> Option<String> {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(status) => Some(status.get("message")?.as_str()?.to_owned()),
        Err(_) => Some(String::from_utf8_lossy(bytes).trim().chars().take(300).collect())
            .filter(|text: &String| !text.is_empty()),
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` in seconds since the Unix epoch.
fn http_date(text: &str) -> Option<i64> {
    // RFC 2822 calls the same zone by its offset.
    let text = text.strip_suffix("GMT").map(|head| format!("{head}+0000"))?;
    let date = time::OffsetDateTime::parse(&text, &time::format_description::well_known::Rfc2822).ok()?;
    Some(date.unix_timestamp())
}

/// Text inside of a query.
pub fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_where_the_api_server_has_them() {
        for (kind, namespace, expected) in [
            ("Namespace", "", "/api/v1/namespaces/x"),
            ("ConfigMap", "n", "/api/v1/namespaces/n/configmaps/x"),
            ("Deployment", "n", "/apis/apps/v1/namespaces/n/deployments/x"),
            ("ClusterRole", "ignored", "/apis/rbac.authorization.k8s.io/v1/clusterroles/x"),
        ] {
            assert_eq!(Reference::new(Kind::of(kind), namespace, "x").path(), expected);
        }
        assert_eq!(Kind::of("Role").path(None), "/apis/rbac.authorization.k8s.io/v1/roles");
    }

    #[test]
    fn dates_of_http_are_read() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        for text in ["", "GMT", "yesterday", "Sun, 06 Nov 1994 08:49:37"] {
            assert_eq!(http_date(text), None, "{text}");
        }
    }

    #[test]
    fn queries_hold_any_text() {
        assert_eq!(encoded("a.b/c=d,e"), "a.b%2Fc%3Dd%2Ce");
    }
}
