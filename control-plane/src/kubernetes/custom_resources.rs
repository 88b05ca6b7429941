//! Our documents as custom resources: schemas and rules from their types.
//!
//! A definition is made from the Rust type of the kind's `spec` (`schemars`), brought into the form the API server wants
//! by [`structural`], with a status of conditions. What a single object can get wrong, its schema and rules refuse, so that
//! this holds while no control plane runs; what crosses objects is the webhook's ([`super::admission`]). A schema never
//! refuses what the reader takes: tests walk both through the same documents.
//!
//! A kind joins with one line in [`own`].

mod structural;
#[cfg(test)]
mod tests;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::ApiResource;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::names;
use crate::document::{API_VERSION, HttpRouteSpec, Kind, MeshSpec, ServiceSpec, TlsRouteSpec, WorkloadSpec, name_rule};
use structural::structural;

/// What `kubectl get weft` lists.
const CATEGORY: &str = "weft";
/// Longest list of conditions: those we write, and room for other controllers'.
const MAX_CONDITIONS: usize = 16;

/// What a kind is beside its types.
struct Own {
    plural: &'static str,
    short: &'static str,
    /// Makes the schema of `spec`.
    spec: fn() -> Value,
    /// Column of `kubectl get` after the name: heading and path.
    column: (&'static str, &'static str),
}

fn own(kind: Kind) -> Own {
    let own = |plural, short, spec, column| Own { plural, short, spec, column };
    match kind {
        Kind::Mesh => own("meshes", "wmesh", schema::<MeshSpec>, ("mTLS", ".spec.mtls")),
        Kind::Service => own("services", "wsvc", schema::<ServiceSpec>, ("Ports", ".spec.ports[*].port")),
        Kind::Workload => own("workloads", "wwl", schema::<WorkloadSpec>, ("State", ".spec.state")),
        Kind::TlsRoute => own("tlsroutes", "wtls", schema::<TlsRouteSpec>, ("Hostnames", ".spec.hostnames")),
        Kind::HttpRoute => own("httproutes", "whttp", schema::<HttpRouteSpec>, ("Hostnames", ".spec.hostnames")),
    }
}

/// The schema of a type, every type in it where it is used.
fn schema<S: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    structural(settings.into_generator().into_root_schema_for::<S>())
}

/// The definitions of all own kinds, in the order of [`Kind::ALL`].
pub fn all() -> Vec<CustomResourceDefinition> {
    Kind::ALL.into_iter().map(definition).collect()
}

/// How objects of a kind are asked for under an API version, `GROUP/VERSION`: ours, or the Gateway API's.
pub fn api_resource(kind: Kind, api_version: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: api_version.to_owned(),
        kind: kind.as_str().to_owned(),
        plural: plural(kind).to_owned(),
    }
}

/// The plural by which the API server knows a kind.
pub fn plural(kind: Kind) -> &'static str {
    own(kind).plural
}

/// Group and version of our own kinds.
pub fn group_version() -> (&'static str, &'static str) {
    API_VERSION.split_once('/').expect("the version of the documents' schema is GROUP/VERSION")
}

fn definition(kind: Kind) -> CustomResourceDefinition {
    let Own { plural, short, spec, column: (heading, path) } = own(kind);
    let (group, version) = group_version();
    let columns = [
        (heading, "string", path),
        ("Accepted", "string", ".status.conditions[?(@.type==\"Accepted\")].status"),
        ("Programmed", "string", ".status.conditions[?(@.type==\"Programmed\")].status"),
        ("Age", "date", ".metadata.creationTimestamp"),
    ];
    let columns = columns.map(|(name, kind, path)| json!({"name": name, "type": kind, "jsonPath": path}));
    let definition = json!({
        "metadata": {
            "name": format!("{plural}.{group}"),
            "labels": {
                "app.kubernetes.io/name": names::APP_NAME,
                "app.kubernetes.io/managed-by": names::APP_NAME,
            },
        },
        "spec": {
            "group": group,
            "scope": if kind.is_namespaced() { "Namespaced" } else { "Cluster" },
            "names": {
                "kind": kind.as_str(),
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.as_str().to_lowercase(),
                "shortNames": [short],
                "categories": [CATEGORY],
            },
            "versions": [{
                "name": version,
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns,
                "schema": {"openAPIV3Schema": root(kind, &spec())},
            }],
        },
    });
    serde_json::from_value(definition).expect("the definition is written above and its schema is checked by tests")
}

/// The schema of a whole object.
fn root(kind: Kind, spec: &Value) -> Value {
    // A Mesh that says nothing has the defaults.
    let required: &[&str] = if kind == Kind::Mesh { &[] } else { &["spec"] };
    let mut root = json!({
        "type": "object",
        "required": required,
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status(),
        },
    });
    if let Some(rule) = name_rule(kind) {
        root["x-kubernetes-validations"] = json!([rule]);
    }
    root
}

/// The status of every own kind: what became of the object.
fn status() -> Value {
    json!({
        "type": "object",
        "description": "What became of the object; written by the control plane.",
        "properties": {
            "observedGeneration": {
                "type": "integer",
                "format": "int64",
                "description": "The generation of the object that the status is about.",
            },
            "conditions": {
                "type": "array",
                "maxItems": MAX_CONDITIONS,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "description": "Accepted: it is valid and in force. Programmed: the proxies have applied it.",
                "items": condition(),
            },
        },
    })
}

/// `metav1.Condition`, as its own schema has it.
fn condition() -> Value {
    json!({
        "type": "object",
        "required": ["type", "status", "lastTransitionTime", "reason", "message"],
        "properties": {
            "type": {
                "type": "string",
                "maxLength": 316,
                "pattern": "^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
            },
            "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
            "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
            "lastTransitionTime": {"type": "string", "format": "date-time"},
            "reason": {
                "type": "string",
                "minLength": 1,
                "maxLength": 1024,
                "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
            },
            "message": {"type": "string", "maxLength": 32768},
        },
    })
}
