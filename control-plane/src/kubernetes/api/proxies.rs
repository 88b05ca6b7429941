//! One proxy, for the command line: what it is sent, what it says it runs with, and the level of its log.
//!
//! A proxy is asked by the replica it is connected to; any other says 404.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Extension, Json, Router};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::json;
use tracing::level_filters::LevelFilter;
use weft_proxy::telemetry;

use super::{Bearer, Exhibits};
use crate::manage::asking::{self, Author};
use crate::serve::operations::AskError;

/// `NAMESPACE/WORKLOAD`.
const PROXY: &str = "/api/proxies/{namespace}/{workload}";

/// What readers may ask.
pub(super) fn reading() -> Router<Exhibits> {
    Router::new()
        .route(PROXY, get(sent))
        .route(&format!("{PROXY}/configuration"), get(own_configuration))
        .route(&format!("{PROXY}/log-level"), get(log_level))
}

/// What operators may change.
pub(super) fn changing() -> Router<Exhibits> {
    Router::new().route(&format!("{PROXY}/log-level"), put(set_log_level))
}

type Workload = Path<(String, String)>;

/// What one proxy is sent. Made off the asynchronous threads: of a large mesh that takes a moment.
async fn sent(State(exhibits): State<Exhibits>, Path((namespace, workload)): Workload) -> Response {
    let (facts, name) = (Arc::clone(&exhibits.facts), format!("{namespace}/{workload}"));
    let asked = name.clone();
    match tokio::task::spawn_blocking(move || facts.configuration(&asked)).await {
        Ok(Some(found)) => Json(found).into_response(),
        Ok(None) => {
            let message = format!("no proxy of {name} is connected, and no workload is known by that name");
            (StatusCode::NOT_FOUND, Json(json!({"message": message, "workload": name}))).into_response()
        }
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// In the proxy's words: not looked into.
async fn own_configuration(State(exhibits): State<Exhibits>, Path((namespace, workload)): Workload) -> Response {
    let name = format!("{namespace}/{workload}");
    match asking::configuration(exhibits.facts.as_ref(), &name).await {
        Ok(dump) => ([(CONTENT_TYPE, "application/json")], dump).into_response(),
        Err(error) => unanswered(&name, &error),
    }
}

async fn log_level(State(exhibits): State<Exhibits>, Path((namespace, workload)): Workload) -> Response {
    let name = format!("{namespace}/{workload}");
    told(&name, asking::log_level(exhibits.facts.as_ref(), &name).await)
}

/// `?level=`, and `?author=` for whoever the caller says to be.
async fn set_log_level(
    State(exhibits): State<Exhibits>,
    Path((namespace, workload)): Workload,
    Query(asked): Query<BTreeMap<String, String>>,
    Extension(bearer): Extension<Bearer>,
) -> Response {
    let name = format!("{namespace}/{workload}");
    let Some(level) = asked.get("level").and_then(|level| telemetry::level_of_name(level)) else {
        return refused(StatusCode::BAD_REQUEST, telemetry::LEVELS);
    };
    let Bearer { user, credential } = bearer;
    let proved = credential.map_or(user.clone(), |credential| format!("{user} {credential}"));
    let author = Author::new(proved, asked.get("author").map(String::as_str).unwrap_or_default());
    told(&name, asking::set_log_level(exhibits.facts.as_ref(), &name, level, &author).await)
}

fn told(workload: &str, result: Result<LevelFilter, AskError>) -> Response {
    match result {
        Ok(level) => Json(json!({"workload": workload, "level": level.to_string()})).into_response(),
        Err(error) => unanswered(workload, &error),
    }
}

fn unanswered(workload: &str, error: &AskError) -> Response {
    let status = match error {
        AskError::NotConnected => StatusCode::NOT_FOUND,
        AskError::Busy => StatusCode::TOO_MANY_REQUESTS,
        AskError::Late(_) => StatusCode::GATEWAY_TIMEOUT,
        AskError::Gone => StatusCode::BAD_GATEWAY,
        AskError::Refused(_) => StatusCode::CONFLICT,
    };
    refused(status, &format!("{workload}: {error}"))
}

fn refused(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"message": message}))).into_response()
}
