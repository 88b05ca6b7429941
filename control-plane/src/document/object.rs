//! Objects as the API server gives them, to the tree documents are read from.
//!
//! Of an object's metadata only what a document has is looked at, and its status not at all: those are the API server's
//! and the controllers' to write. Everything else is read as if it stood in a file, by the same checks.

use std::sync::Arc;

use serde_json::Value as Json;

use super::field::Origin;
use super::problem::{Place, Position, Problem, Problems};
use super::read;
use super::yaml::{FieldName, MAX_DEPTH, Node, Value};
use super::{CREATED, Key, Kind, Located};

/// The metadata of a document.
const METADATA: [&str; 3] = ["name", "namespace", "labels"];
/// An object has no lines: what is wrong is found by its field.
const NOWHERE: Position = Position { line: 0, column: 0 };

/// Reads one object. `source` says in messages where it comes from.
///
/// Whether an object of the Gateway API is for us at all, [`is_ours`] says; parents of it that are not services are
/// passed over here.
///
/// # Errors
/// Every problem found.
pub fn from_object(object: &Json, source: &str) -> Result<Located, Problems> {
    let place = Place { source: source.into(), position: None };
    let tree = document(object).ok_or_else(|| {
        let what = format!("nested deeper than {MAX_DEPTH} levels");
        let document = key_of(object).map(|key| key.to_string()).unwrap_or_default();
        Problems(vec![Problem { place: place.clone(), document, field: String::new(), what }])
    })?;
    let document = read::document(&tree, &Arc::clone(&place.source), Origin::Object)?;
    Ok(Located { document, place })
}

/// Whether an object is one of ours: all are but routes of the Gateway API that name no service as a parent. Those are
/// for gateways, which are other controllers' concern.
pub fn is_ours(object: &Json) -> bool {
    let foreign_api = object.get("apiVersion").and_then(Json::as_str).is_some_and(read::is_gateway_api);
    let parents = object.pointer("/spec/parentRefs").and_then(Json::as_array);
    !foreign_api || parents.is_some_and(|parents| parents.iter().any(is_service_reference))
}

/// Whether a reference of the Gateway API, in which the API server has filled in the defaults, is to a service.
pub fn is_service_reference(reference: &Json) -> bool {
    let text = |name| reference.get(name).and_then(Json::as_str);
    text("group") == Some("") && text("kind") == Some("Service")
}

/// What an object would be called as a document, readable or not; `None` for kinds that are none of ours.
pub fn key_of(object: &Json) -> Option<Key> {
    let text = |pointer| object.pointer(pointer).and_then(Json::as_str);
    let kind = text("/kind")?;
    let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind)?;
    Some(Key::new(kind, text("/metadata/namespace").unwrap_or_default(), text("/metadata/name")?))
}

/// The parts of an object that make a document; `None` when it is nested deeper than any document.
fn document(object: &Json) -> Option<Node> {
    let Json::Object(fields) = object else { return node(object, 0) };
    // Of two routes that take the same requests the older one has them.
    let age_counts = fields.get("kind").and_then(Json::as_str) == Some(Kind::HttpRoute.as_str());
    let mut entries = Vec::new();
    for (name, value) in fields.iter().filter(|(name, _)| *name != "status") {
        let value = match value {
            Json::Object(metadata) if name == "metadata" => {
                let is_read = |name: &str| METADATA.contains(&name) || (name == CREATED && age_counts);
                mapping(metadata.iter().filter(|(name, _)| is_read(name)), 1)?
            }
            other => node(other, 1)?,
        };
        entries.push((field_name(name), value));
    }
    Some(placeless(Value::Mapping(entries)))
}

fn node(json: &Json, depth: usize) -> Option<Node> {
    if depth > MAX_DEPTH {
        return None;
    }
    Some(placeless(match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Boolean(*value),
        Json::Number(number) => Value::Number(number.to_string()),
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(items) => Value::List(items.iter().map(|item| node(item, depth + 1)).collect::<Option<_>>()?),
        Json::Object(fields) => return mapping(fields.iter(), depth),
    }))
}

fn mapping<'j>(fields: impl Iterator<Item = (&'j String, &'j Json)>, depth: usize) -> Option<Node> {
    let entry = |(name, value): (&String, &Json)| Some((field_name(name), node(value, depth + 1)?));
    Some(placeless(Value::Mapping(fields.map(entry).collect::<Option<_>>()?)))
}

fn field_name(text: &str) -> FieldName {
    FieldName { at: NOWHERE, text: text.to_owned() }
}

fn placeless(value: Value) -> Node {
    Node { at: NOWHERE, value }
}

#[cfg(test)]
mod tests;
