//! An object as it was last seen, and what is asked of it.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use crate::document::{self, GATEWAY_API_GROUP, Key};

/// Which object: the same name can be given once under each API version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ObjectKey {
    /// `GROUP/VERSION`
    pub(super) api_version: Arc<str>,
    pub(super) key: Key,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.api_version, self.key)
    }
}

/// One object that is ours to speak of.
#[derive(Debug, Clone)]
pub(super) struct Observed {
    pub(super) id: ObjectKey,
    pub(super) uid: String,
    pub(super) resource_version: String,
    pub(super) generation: i64,
    pub(super) object: Value,
    /// When this generation was first seen.
    pub(super) seen_at: Instant,
}

/// A reference to a service, as far as it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reference<'o> {
    pub(super) name: &'o str,
    pub(super) namespace: Option<&'o str>,
    pub(super) port: Option<u16>,
    pub(super) value: &'o Value,
}

impl Observed {
    /// `None` for what is no object of ours.
    pub(super) fn new(object: Value, seen_at: Instant) -> Option<Self> {
        let key = document::key_of(&object)?;
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(Self {
            id: ObjectKey { api_version: text("/apiVersion").into(), key },
            uid: text("/metadata/uid"),
            resource_version: text("/metadata/resourceVersion"),
            generation: object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default(),
            object,
            seen_at,
        })
    }

    /// Whether its status is the Gateway API's, in which every controller has a part.
    pub(super) fn is_of_gateway_api(&self) -> bool {
        self.id.api_version.starts_with(GATEWAY_API_GROUP)
    }

    /// Services that a route has as parents.
    pub(super) fn parents(&self) -> impl Iterator<Item = Reference<'_>> {
        let of_gateway_api = self.is_of_gateway_api();
        self.list("/spec/parentRefs")
            .filter(move |parent| !of_gateway_api || document::is_service_reference(parent))
            .filter_map(Reference::new)
    }

    /// What a route sends to, whatever it is.
    pub(super) fn backends(&self) -> impl Iterator<Item = &Value> {
        self.list("/spec/rules").filter_map(|rule| rule.get("backendRefs")?.as_array()).flatten()
    }

    /// The conditions of a status that is ours alone.
    pub(super) fn conditions(&self) -> Option<&Value> {
        self.object.pointer("/status/conditions")
    }

    pub(super) fn list(&self, pointer: &str) -> impl Iterator<Item = &Value> {
        self.object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
    }
}

impl<'o> Reference<'o> {
    pub(super) fn new(value: &'o Value) -> Option<Self> {
        let text = |field: &str| value.get(field).and_then(Value::as_str);
        let port = value.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
        Some(Self { name: text("name")?, namespace: text("namespace"), port, value })
    }
}
