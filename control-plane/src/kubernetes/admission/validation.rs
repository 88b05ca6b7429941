//! Validation, as the API server asks for it: an `AdmissionReview` in, a refusal with every problem or warnings out.
//!
//! Our own kinds, and routes of the Gateway API that have a service as a parent. What one object can get wrong its schema
//! refuses first; here it is read once more by the reader that decides what is in force, and held against the documents
//! there are. What refers to something that is not there is a warning, as with `weft apply`: objects come in any order.
//! An update that leaves `spec` as it is passes, whatever is in it: an object that is wrong already can still be labelled
//! and deleted.
//!
//! Nothing is written, so that a dry run is answered as any other request.

mod crossing;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhook;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation};
use kube::core::response::{StatusCause, StatusDetails, StatusSummary};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::document::{self, API_VERSION, GATEWAY_API_GROUP, Key, Kind, Problem};
use crate::kubernetes::{custom_resources, names};
use crate::store::Snapshot;
use crossing::{Examined, examine};

/// More than the API server takes for an object with all it says about the request.
const MAX_BODY: usize = 8 << 20;
/// For asking whether a name is taken: well inside of what the API server waits for us.
const NAME_TIMEOUT: Duration = Duration::from_secs(2);
/// What the API server waits for us.
const TIMEOUT_SECONDS: i32 = 5;
/// The API server cuts longer warnings, and drops what is too many.
const WARNING_CHARACTERS: usize = 250;
const MOST_WARNINGS: usize = 8;
/// Problems that are told; more are counted.
const MOST_PROBLEMS: usize = 32;

const VALIDATIONS: &str = "weft_validations_total";

/// What the validator answers from.
#[derive(Clone)]
pub struct ValidateState {
    /// The documents in force; of revision 0 until they have been read.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// Asked whether the cluster itself has something of a new document's name.
    pub client: Client,
}

impl fmt::Debug for ValidateState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValidateState").finish_non_exhaustive()
    }
}

/// `POST /validate`.
pub fn validate_router(state: ValidateState) -> Router {
    metrics::describe_counter!(VALIDATIONS, "Objects the API server asked about, by the answer");
    Router::new().route("/validate", post(answer)).layer(DefaultBodyLimit::max(MAX_BODY)).with_state(state)
}

/// What asks for validation, for the `ValidatingWebhookConfiguration` of an installation in `namespace`. The control plane
/// itself adds the certificate to trust.
///
/// - Our own kinds: `Fail`. Nobody but us uses them, a wrong one takes effect on all of a service's traffic, and while no
///   control plane answers it would have no effect anyway. Deleting is never asked about.
/// - Routes of the Gateway API, those with a service as a parent alone: `Ignore`. The kinds are shared: routes of gateways
///   must not wait for us, and one that slips through is told of in its status.
pub fn webhooks(namespace: &str) -> Vec<ValidatingWebhook> {
    let (group, version) = custom_resources::group_version();
    let own: Vec<&str> = Kind::ALL.into_iter().map(custom_resources::plural).collect();
    let is_route = |kind: &Kind| !matches!(kind, Kind::Mesh | Kind::Service | Kind::Workload);
    let routes: Vec<&str> = Kind::ALL.into_iter().filter(is_route).map(custom_resources::plural).collect();
    let webhook = |name: &str, rule: Value, policy: &str, conditions: Value| {
        json!({
            "name": name,
            "clientConfig": {
                "service": {"name": names::CONTROL_PLANE, "namespace": namespace, "path": "/validate", "port": 443},
            },
            "rules": [rule],
            "matchConditions": conditions,
            "failurePolicy": policy,
            "matchPolicy": "Equivalent",
            "sideEffects": "None",
            "timeoutSeconds": TIMEOUT_SECONDS,
            "admissionReviewVersions": ["v1"],
        })
    };
    let rule = |group: &str, version: &str, resources: &[&str]| {
        json!({
            "apiGroups": [group], "apiVersions": [version], "resources": resources,
            "operations": ["CREATE", "UPDATE"], "scope": "*",
        })
    };
    let webhooks = json!([
        webhook("documents.validator.weft.dev", rule(group, version, &own), "Fail", json!([])),
        webhook(
            "routes.validator.weft.dev",
            rule(GATEWAY_API_GROUP, "*", &routes),
            "Ignore",
            json!([{"name": "has-a-service-as-parent", "expression": SERVICE_PARENT}]),
        ),
    ]);
    serde_json::from_value(webhooks).expect("the webhooks are written out above")
}

/// The API server has filled in group and kind where the route says none.
const SERVICE_PARENT: &str = "has(object.spec.parentRefs) && object.spec.parentRefs.exists(parent, \
     has(parent.kind) && parent.kind == 'Service' && has(parent.group) && parent.group == '')";

async fn answer(State(state): State<ValidateState>, body: Bytes) -> Response {
    let review: Result<AdmissionReview<DynamicObject>, _> = serde_json::from_slice(&body);
    let request = review.map_err(|error| error.to_string()).and_then(|review| {
        let request: Result<AdmissionRequest<DynamicObject>, _> = review.try_into();
        request.map_err(|error| error.to_string())
    });
    let request = match request {
        Ok(request) => request,
        Err(what) => {
            tracing::warn!(what, "a request to the validator is no admission review");
            metrics::counter!(VALIDATIONS, "result" => "malformed").increment(1);
            return (StatusCode::BAD_REQUEST, format!("not an AdmissionReview of v1: {what}\n")).into_response();
        }
    };
    let response = state.decide(request).await;
    let result = if response.allowed { "allowed" } else { "refused" };
    metrics::counter!(VALIDATIONS, "result" => result).increment(1);
    Json(response.into_review()).into_response()
}

impl ValidateState {
    async fn decide(&self, request: AdmissionRequest<DynamicObject>) -> AdmissionResponse {
        let response = AdmissionResponse::from(&request);
        let creates = request.operation == Operation::Create;
        let details = details(&request);
        let Some(object) = request.object else { return response };
        let is_leaving = object.metadata.deletion_timestamp.is_some();
        let is_same = request.old_object.is_some_and(|old| old.data.get("spec") == object.data.get("spec"));
        // What was JSON is JSON again.
        let object = serde_json::to_value(object).unwrap_or_default();
        if is_leaving || is_same || !document::is_ours(&object) {
            return response;
        }
        let snapshot = Arc::clone(&self.snapshot.borrow());
        // Holding one object against many documents takes its time.
        let examined = tokio::task::spawn_blocking(move || (examine(&object, &snapshot), document::key_of(&object)));
        let (examined, key) = match examined.await {
            Ok(examined) => examined,
            Err(error) => return response.deny(error),
        };
        let Examined { mut problems, mut warnings } = examined;
        if let (true, true, Some(key)) = (creates, problems.is_empty(), key) {
            match timeout(NAME_TIMEOUT, self.taken(&key)).await {
                Ok(Ok(taken)) => problems.extend(taken),
                Ok(Err(error)) => {
                    warnings.push(format!("whether the cluster itself has {key} could not be asked: {error}"));
                }
                Err(_) => warnings.push(format!("whether the cluster itself has {key} was not answered in time")),
            }
        }
        if problems.is_empty() { with_warnings(response, warnings) } else { denied(response, &problems, details) }
    }

    /// Why a document may not have a name: the cluster makes a document of that name itself.
    async fn taken(&self, key: &Key) -> Result<Option<Problem>, kube::Error> {
        let found = match key.kind {
            Kind::Service => {
                let api: Api<Service> = Api::namespaced(self.client.clone(), &key.namespace);
                api.get_opt(&key.name).await?.map(|_| "the cluster has a Service of this name, which counts; policy for it needs no document of its own, and for something else choose another name")
            }
            Kind::Workload => {
                let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
                api.get_opt(&key.name)
                    .await?
                    .map(|_| "the cluster has a Pod of this name, which counts; choose another name")
            }
            _ => None,
        };
        let place = document::Place { source: API_VERSION.into(), position: None };
        Ok(found.map(|what| Problem::of(key, place, "metadata.name", what.to_owned())))
    }
}

fn with_warnings(mut response: AdmissionResponse, warnings: Vec<String>) -> AdmissionResponse {
    let count = warnings.len();
    let cut = |warning: String| warning.chars().take(WARNING_CHARACTERS).collect::<String>();
    let mut told: Vec<String> = warnings.into_iter().take(MOST_WARNINGS).map(cut).collect();
    if count > MOST_WARNINGS {
        told.push(format!("... and {} more", count - MOST_WARNINGS));
    }
    response.warnings = (!told.is_empty()).then_some(told);
    response
}

/// What the request is about: clients say so before they say what is wrong.
fn details(request: &AdmissionRequest<DynamicObject>) -> StatusDetails {
    StatusDetails {
        name: request.name.clone(),
        group: request.kind.group.clone(),
        kind: request.kind.kind.clone(),
        uid: String::new(),
        causes: Vec::new(),
        retry_after_seconds: 0,
    }
}

/// Refused as the API server itself refuses what a schema does not allow.
fn denied(response: AdmissionResponse, problems: &[Problem], details: StatusDetails) -> AdmissionResponse {
    let sentence = |problem: &Problem| match problem.field.as_str() {
        "" => problem.what.clone(),
        field => format!("{field}: {}", problem.what),
    };
    let mut lines: Vec<String> = problems.iter().take(MOST_PROBLEMS).map(sentence).collect();
    if problems.len() > MOST_PROBLEMS {
        lines.push(format!("... and {} more", problems.len() - MOST_PROBLEMS));
    }
    let mut response = response.deny(lines.join("\n"));
    let causes = problems.iter().take(MOST_PROBLEMS).map(|problem| StatusCause {
        reason: "FieldValueInvalid".to_owned(),
        message: problem.what.clone(),
        field: problem.field.clone(),
    });
    let details = StatusDetails { causes: causes.collect(), ..details };
    response.result.status = Some(StatusSummary::Failure);
    response.result.code = StatusCode::UNPROCESSABLE_ENTITY.as_u16();
    "Invalid".clone_into(&mut response.result.reason);
    response.result.details = Some(details);
    response
}
