//! Injection, as the API server asks for it: an `AdmissionReview` in, a JSON Patch or a refusal out.
//!
//! Nothing is written anywhere, so a dry run is answered as any other request. Labels decided already that we are asked
//! (the webhooks' selectors); they are looked at again, because whoever widens a selector by mistake must not put proxies
//! beside pods that nobody labelled. The namespace is read from the API server each time: a copy may be older than the
//! label that had us asked, and a pod would start outside the mesh in silence.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation};
use kube::core::response::StatusSummary;
use kube::{Api, Client};
use serde_json::Value;
use weft_proxy::clock;

use crate::kubernetes::inject::{InjectSettings, Injected, NamespaceFacts, between, inject, warnings};

/// More than the API server takes for an object with all it says about the request.
const MAX_BODY: usize = 8 << 20;
/// For asking for a namespace: well inside of what the API server waits for us.
const NAMESPACE_TIMEOUT: Duration = Duration::from_secs(2);
/// The API server cuts longer ones, and drops what is too many.
const WARNING_LENGTH: usize = 250;
const MOST_WARNINGS: usize = 8;

const INJECTIONS: &str = "weft_injections_total";
const DURATION: &str = "weft_injection_duration_seconds";

/// What the injector answers from.
#[derive(Clone)]
pub struct InjectState {
    pub settings: Arc<InjectSettings>,
    /// May get Namespaces.
    pub client: Client,
}

impl fmt::Debug for InjectState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InjectState").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// `POST /inject`.
pub fn inject_router(state: InjectState) -> Router {
    metrics::describe_counter!(INJECTIONS, "Pods the API server asked about, by what became of them");
    metrics::describe_histogram!(DURATION, "Time an answer about a pod took");
    Router::new().route("/inject", post(answer)).layer(DefaultBodyLimit::max(MAX_BODY)).with_state(state)
}

async fn answer(State(state): State<InjectState>, body: Bytes) -> Response {
    let started = clock::now();
    let (result, response) = match request(&body) {
        Ok((request, pod)) => {
            let (result, response) = state.decide(&request, pod).await;
            (result, Json(response.into_review()).into_response())
        }
        Err(what) => {
            tracing::warn!(what, "a request to the injector is no admission review");
            ("malformed", (StatusCode::BAD_REQUEST, format!("not an AdmissionReview of v1: {what}\n")).into_response())
        }
    };
    metrics::counter!(INJECTIONS, "result" => result).increment(1);
    metrics::histogram!(DURATION).record(clock::now().saturating_duration_since(started).as_secs_f64());
    response
}

/// The request, and its object as it was sent: types would lose what they do not know.
fn request(body: &[u8]) -> Result<(AdmissionRequest<DynamicObject>, Value), String> {
    let mut review: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let object = review.pointer_mut("/request/object").map(Value::take).unwrap_or_default();
    let review: AdmissionReview<DynamicObject> = serde_json::from_value(review).map_err(|error| error.to_string())?;
    if review.types.api_version != "admission.k8s.io/v1" {
        return Err(format!("it is of {}", review.types.api_version));
    }
    let request = review.try_into().map_err(|_| "it has no request".to_owned())?;
    Ok((request, object))
}

impl InjectState {
    /// What the metric calls the outcome, and the answer.
    async fn decide(&self, request: &AdmissionRequest<DynamicObject>, pod: Value) -> (&'static str, AdmissionResponse) {
        let response = AdmissionResponse::from(request);
        let is_pod = request.kind.group.is_empty() && request.kind.kind == "Pod" && request.sub_resource.is_none();
        if !is_pod || request.operation != Operation::Create {
            return ("unchanged", response);
        }
        let namespace = self.namespace(request.namespace.as_deref().unwrap_or_default()).await;
        let mut told = warnings(&pod);
        let outcome = inject(&pod, &namespace, &self.settings).map_err(|error| error.to_string());
        let (result, mut response) = match outcome {
            Ok(Injected::Changed(after)) => match response.with_patch(between(&pod, &after)) {
                Ok(response) => ("injected", response),
                Err(error) => ("denied", denied(AdmissionResponse::from(request), &error.to_string())),
            },
            Ok(Injected::Unchanged(reason)) => {
                if reason.is_surprising() {
                    told.push(format!("the pod stays outside the mesh: {reason}"));
                }
                ("unchanged", response)
            }
            Err(reason) => {
                tracing::info!(namespace = namespace.name, pod = name_of(&pod), reason, "a pod is refused");
                ("denied", denied(response, &reason))
            }
        };
        told.truncate(MOST_WARNINGS);
        if !told.is_empty() {
            response.warnings =
                Some(told.iter().map(|warning| warning.chars().take(WARNING_LENGTH).collect()).collect());
        }
        (result, response)
    }

    /// What counts of a namespace. When it cannot be known, the API server's selectors are believed.
    async fn namespace(&self, name: &str) -> NamespaceFacts {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        match tokio::time::timeout(NAMESPACE_TIMEOUT, namespaces.get(name)).await {
            Ok(Ok(namespace)) => NamespaceFacts::from(&namespace),
            Ok(Err(error)) => {
                tracing::warn!(namespace = name, %error, "cannot read the namespace of a pod to inject");
                NamespaceFacts::enabled(name)
            }
            Err(_) => {
                tracing::warn!(
                    namespace = name,
                    "the API server does not tell the namespace of a pod to inject in time"
                );
                NamespaceFacts::enabled(name)
            }
        }
    }
}

/// Refused, with the sentence for the pod's author.
fn denied(response: AdmissionResponse, reason: &str) -> AdmissionResponse {
    let mut response = response.deny(reason);
    response.result.status = Some(StatusSummary::Failure);
    response.result.code = StatusCode::UNPROCESSABLE_ENTITY.as_u16();
    "Invalid".clone_into(&mut response.result.reason);
    response
}

/// Most pods have no name yet, but the start of one.
fn name_of(pod: &Value) -> &str {
    let metadata = &pod["metadata"];
    metadata["name"].as_str().or_else(|| metadata["generateName"].as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
