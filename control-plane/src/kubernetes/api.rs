//! What the control plane tells over plain HTTP: to the kubelet (`/ready`, `/live`), to Prometheus (`/metrics`), and to the
//! command line (`/api/...`), which comes through the API server.
//!
//! Whoever wants more than probes and metrics shows a token of the account [`READER`] for the audience
//! [`CLI_AUDIENCE`]; TokenReview says whose it is. So who may read is decided by Kubernetes: by the role that allows
//! making such tokens. Whoever wants to change what a proxy does shows one of [`OPERATOR`], which another role allows. Everything is bounded: connections, requests under way, heads, and how long a review may take.
//! What comes beyond a bound is refused at once (503), so that probes are never late because somebody reads.

mod proxies;
mod serving;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::{Semaphore, watch};
use weft_proto::weft::GetRequest;
use weft_proxy::clock;
use weft_proxy::telemetry::{Gauges, Registry};

pub use serving::serve;

use crate::kubernetes::names::{
    CLI_AUDIENCE, CLI_TOKEN_HEADER, CONTROL_PLANE, OPERATOR, READER, REPLICA_AUDIENCE, REPORT_PATH,
};
use crate::kubernetes::status::Report;
use crate::manage::{Facts, view};
use crate::store::Snapshot;

/// Requests of the command line under way at once: each costs a review by the API server.
const MOST_REQUESTS: usize = 32;
/// How long the API server may take to say whose a token is.
const REVIEW: Duration = Duration::from_secs(5);
/// How long a replica's token is believed after a review: its pod may be gone for so long.
const BELIEF: Duration = Duration::from_secs(30);
/// What TokenReview calls the one token among all of an account: the API server's audit log has it where the token was made,
/// with the name of whoever had it made.
const CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";
/// Longer than any token of a service account.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// What the endpoint shows.
#[derive(Clone)]
pub struct Exhibits {
    /// What is missing until proxies and webhooks are served, in words; nothing when all is there.
    pub missing: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    pub registry: Registry,
    /// What is in force though it may be old, in words.
    pub stale: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// What other parts show a scraper of their live state.
    pub gauges: Arc<dyn Fn(&mut Gauges) + Send + Sync>,
    pub facts: Arc<dyn Facts>,
    pub documents: watch::Receiver<Arc<Snapshot>>,
    /// Seconds since the Unix epoch.
    pub started_at: i64,
    pub reviewer: Reviewer,
    /// The same of those who may change what proxies do.
    pub operators: Reviewer,
    /// The same of the other replicas.
    pub replicas: Reviewer,
}

impl std::fmt::Debug for Exhibits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exhibits").finish_non_exhaustive()
    }
}

/// Who has been admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bearer {
    user: String,
    /// Which of the user's tokens, where the API server tells.
    credential: Option<String>,
}

/// Who is admitted: to read, unless it says otherwise.
#[derive(Clone)]
pub struct Reviewer {
    client: Client,
    /// The account's name as TokenReview says it.
    user: String,
    audience: &'static str,
    places: Arc<Semaphore>,
    /// How long a token is believed after it was reviewed.
    belief: Duration,
    last: Arc<Mutex<Option<(String, Instant)>>>,
}

impl std::fmt::Debug for Reviewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reviewer").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Why somebody may not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error(
        "no token: send one of service account {READER}, or of {OPERATOR} to change something, for the audience \
         {CLI_AUDIENCE} in the header {CLI_TOKEN_HEADER}"
    )]
    NoToken,
    #[error("the token is not valid for the audience {CLI_AUDIENCE}; it may have expired: make another")]
    Invalid,
    #[error("the token is of {found}, and only those of {expected} are taken for this")]
    OtherUser { found: String, expected: String },
    #[error("too many requests are under way; try again")]
    Busy,
    #[error("the API server could not say whose the token is: {0}; try again")]
    Review(String),
}

impl Denied {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoToken | Self::Invalid => StatusCode::UNAUTHORIZED,
            Self::OtherUser { .. } => StatusCode::FORBIDDEN,
            Self::Busy | Self::Review(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        (self.status(), Json(json!({"message": self.to_string()}))).into_response()
    }
}

impl Reviewer {
    pub fn new(client: Client, system_namespace: &str) -> Self {
        let user = format!("system:serviceaccount:{system_namespace}:{READER}");
        Self::of(client, user, CLI_AUDIENCE, Duration::ZERO)
    }

    /// Of those who may change what proxies do.
    pub fn of_operators(client: Client, system_namespace: &str) -> Self {
        let user = format!("system:serviceaccount:{system_namespace}:{OPERATOR}");
        Self::of(client, user, CLI_AUDIENCE, Duration::ZERO)
    }

    /// Of the other replicas, which ask many times a minute.
    pub fn of_replicas(client: Client, system_namespace: &str) -> Self {
        let user = format!("system:serviceaccount:{system_namespace}:{CONTROL_PLANE}");
        Self::of(client, user, REPLICA_AUDIENCE, BELIEF)
    }

    fn of(client: Client, user: String, audience: &'static str, belief: Duration) -> Self {
        Self { client, user, audience, places: Arc::new(Semaphore::new(MOST_REQUESTS)), belief, last: Arc::default() }
    }

    fn is_believed(&self, token: &str, now: Instant) -> bool {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().is_some_and(|(known, until)| known == token && now < *until)
    }

    /// The bearer of these headers, if they are admitted.
    async fn admit(&self, headers: &HeaderMap) -> Result<Bearer, Denied> {
        let token = headers.get(CLI_TOKEN_HEADER).and_then(|value| value.to_str().ok()).ok_or(Denied::NoToken)?;
        let token = token.strip_prefix("Bearer ").unwrap_or(token).trim();
        if token.is_empty() {
            return Err(Denied::NoToken);
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Denied::Invalid);
        }
        if self.is_believed(token, clock::now()) {
            return Ok(Bearer { user: self.user.clone(), credential: None });
        }
        let spec = TokenReviewSpec { audiences: Some(vec![self.audience.to_owned()]), token: Some(token.to_owned()) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let parameters = PostParams::default();
        let answer = tokio::time::timeout(REVIEW, reviews.create(&parameters, &review)).await;
        let answer = answer
            .map_err(|_| Denied::Review(format!("no answer within {} s", REVIEW.as_secs())))?
            .map_err(|error| Denied::Review(error.to_string()))?;
        let status = answer.status.unwrap_or_default();
        // A server that does not know audiences says none back, and its word is about something else.
        let is_for_us = status.audiences.unwrap_or_default().iter().any(|audience| audience == self.audience);
        if status.authenticated != Some(true) || !is_for_us {
            return Err(Denied::Invalid);
        }
        let found = status.user.unwrap_or_default();
        let user = found.username.unwrap_or_default();
        if user != self.user {
            return Err(Denied::OtherUser { found: user, expected: self.user.clone() });
        }
        let credential = found.extra.and_then(|extra| extra.get(CREDENTIAL)?.first().cloned());
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) =
            (!self.belief.is_zero()).then(|| (token.to_owned(), clock::now() + self.belief));
        Ok(Bearer { user, credential })
    }
}

/// All paths. `report`: what this replica knows of its proxies, for the others.
pub fn router(exhibits: Exhibits, report: Arc<dyn Fn() -> Report + Send + Sync>) -> Router {
    let for_replicas = Router::new()
        .route(REPORT_PATH, get(move || std::future::ready(Json(report()))))
        .route_layer(axum::middleware::from_fn_with_state(exhibits.replicas.clone(), only_admitted));
    let protected = Router::new()
        .route("/api/status", get(status))
        .route("/api/documents", get(documents))
        .merge(proxies::reading())
        .route_layer(axum::middleware::from_fn_with_state(exhibits.reviewer.clone(), only_admitted));
    let for_operators = proxies::changing()
        .route_layer(axum::middleware::from_fn_with_state(exhibits.operators.clone(), only_admitted));
    Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .merge(protected)
        .merge(for_operators)
        .merge(for_replicas)
        .with_state(exhibits)
}

async fn only_admitted(State(reviewer): State<Reviewer>, mut request: Request, next: Next) -> Response {
    let Ok(_place) = reviewer.places.try_acquire() else { return Denied::Busy.into_response() };
    match reviewer.admit(request.headers()).await {
        Ok(bearer) => {
            request.extensions_mut().insert(bearer);
            next.run(request).await
        }
        Err(denied) => denied.into_response(),
    }
}

async fn ready(State(exhibits): State<Exhibits>) -> Response {
    let missing = (exhibits.missing)();
    if missing.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", missing.join(", "))).into_response()
}

async fn status(State(exhibits): State<Exhibits>) -> Json<view::Status> {
    let snapshot = Arc::clone(&exhibits.documents.borrow());
    let status = view::status(&snapshot, exhibits.facts.as_ref(), exhibits.started_at).into();
    Json(view::Status { problems: (exhibits.stale)(), ..status })
}

async fn documents(State(exhibits): State<Exhibits>, Query(asked): Query<BTreeMap<String, String>>) -> Response {
    let field = |name: &str| asked.get(name).cloned().unwrap_or_default();
    let request = GetRequest { kind: field("kind"), namespace: field("namespace"), name: field("name") };
    let snapshot = Arc::clone(&exhibits.documents.borrow());
    match view::documents(&snapshot, &request) {
        Ok(found) => Json(view::Documents::from(found)).into_response(),
        Err(message) => (StatusCode::BAD_REQUEST, Json(json!({"message": message}))).into_response(),
    }
}

async fn metrics(State(exhibits): State<Exhibits>) -> Response {
    let text = exhibits.registry.render(&gauges(&exhibits));
    ([(http::header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// What is read from live state when somebody scrapes.
fn gauges(exhibits: &Exhibits) -> Gauges {
    let snapshot = Arc::clone(&exhibits.documents.borrow());
    let status = view::status(&snapshot, exhibits.facts.as_ref(), exhibits.started_at);
    let mut gauges = Gauges::default();
    (exhibits.gauges)(&mut gauges);
    let mut add = |name, labels: &[(&'static str, String)], value: f64| gauges.add("gauge", name, labels, value);
    add("weft_control_plane_revision", &[], status.revision as f64);
    for (kind, count) in status.documents.iter().collect::<BTreeMap<_, _>>() {
        add("weft_control_plane_documents", &[("kind", kind.clone())], *count as f64);
    }
    let count = |holds: &dyn Fn(&weft_proto::weft::ProxyStatus) -> bool| {
        status.proxies.iter().filter(|p| holds(p)).count() as f64
    };
    add("weft_control_plane_proxies", &[], status.proxies.len() as f64);
    add(
        "weft_control_plane_proxies_behind",
        &[],
        count(&|proxy| proxy.pending > 0 || proxy.applied_revision < status.revision),
    );
    add("weft_control_plane_proxies_refusing", &[], count(&|proxy| !proxy.nack.is_empty()));
    add("weft_control_plane_root_expiry_seconds", &[], status.root_expires_at as f64);
    add("weft_control_plane_started_seconds", &[], status.started_at as f64);
    gauges
}
