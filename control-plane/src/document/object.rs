//! Objects as the API server gives them, read as documents.

use serde_json::{Map, Value as Json, json};

use super::problem::{Place, Problem, Problems};
use super::{GATEWAY_API_GROUP, Located, Source, read};

/// Reads one object. Of its metadata only what a document has is looked at, and its status not at all: those are the API
/// server's and the controllers' to write. `source` says in messages where it comes from.
///
/// # Errors
/// Every problem found.
pub fn from_object(object: &Json, source: &str) -> Result<Located, Problems> {
    let field = |name: &str| object.get(name).cloned().unwrap_or_default();
    let metadata = object.get("metadata").and_then(Json::as_object);
    let kept = ["name", "namespace", "labels"];
    let metadata: Map<String, Json> = metadata
        .into_iter()
        .flatten()
        .filter(|(name, _)| kept.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let mut spec = field("spec");
    if is_gateway_api(object)
        && let Some(parents) = spec.get_mut("parentRefs").and_then(Json::as_array_mut)
    {
        parents.retain(is_service_reference);
    }
    let document = json!({
        "apiVersion": field("apiVersion"), "kind": field("kind"), "metadata": metadata, "spec": spec,
    });
    // JSON is YAML.
    let read = read(&[Source { name: source.to_owned(), text: document.to_string() }])?;
    let place = Place { source: source.into(), position: None };
    match read.into_iter().next() {
        Some(located) => Ok(Located { place, ..located }),
        None => {
            let what = "holds no document".to_owned();
            Err(Problems(vec![Problem { place, document: String::new(), field: String::new(), what }]))
        }
    }
}

/// Whether an object is one of ours: all are but routes of the Gateway API that name no service as a parent. Those are
/// for gateways, which are other controllers' concern.
pub fn is_ours(object: &Json) -> bool {
    let parents = object.pointer("/spec/parentRefs").and_then(Json::as_array);
    !is_gateway_api(object) || parents.is_some_and(|parents| parents.iter().any(is_service_reference))
}

fn is_gateway_api(object: &Json) -> bool {
    let version = object.get("apiVersion").and_then(Json::as_str);
    version.and_then(|version| version.split_once('/')).is_some_and(|(group, _)| group == GATEWAY_API_GROUP)
}

/// Whether a reference of the Gateway API, in which the API server has filled in the defaults, is to a service.
fn is_service_reference(reference: &Json) -> bool {
    let text = |name| reference.get(name).and_then(Json::as_str);
    text("group") == Some("") && text("kind") == Some("Service")
}
