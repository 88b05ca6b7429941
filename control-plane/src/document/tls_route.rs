//! `TLSRoute`: where TLS connections to a service go by the name they ask for, in the shape of the Gateway API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{limits, schema};

/// Routes of TLS that is passed through: nothing in it is read but its first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TlsRouteSpec {
    /// Services of the same namespace; at least one.
    #[schemars(length(min = 1, max = limits::PARENTS), extend("x-kubernetes-validations" = schema::PARENTS))]
    pub parent_refs: Vec<ParentRef>,
    /// Whole names, and `*.example` for all below `example`, in lower case. Empty: whatever no other route names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        with = "Vec<schema::Hostname>",
        length(min = 1, max = limits::HOSTNAMES),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub hostnames: Vec<String>,
    /// Exactly one, as in the Gateway API: there is nothing two could be told apart by.
    #[schemars(length(min = 1, max = 1))]
    pub rules: Vec<TlsRouteRule>,
}

/// A service whose connections a route takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = schema::to_service)]
pub struct ParentRef {
    #[schemars(with = "schema::Label")]
    pub name: String,
    /// All its ports of protocol `tls` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Port>")]
    pub port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TlsRouteRule {
    /// At least one with a weight that is not 0.
    #[schemars(
        length(min = 1, max = limits::BACKENDS),
        extend(
            "x-kubernetes-list-type" = "map",
            "x-kubernetes-list-map-keys" = ["name", "port"],
            "x-kubernetes-validations" = schema::BACKENDS,
        )
    )]
    pub backend_refs: Vec<BackendRef>,
}

/// A service port of the same namespace and its share of the connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = schema::to_service)]
pub struct BackendRef {
    #[schemars(with = "schema::Label")]
    pub name: String,
    #[schemars(with = "schema::Port")]
    pub port: u16,
    /// The share is this of the sum; 0 takes nothing.
    #[schemars(range(max = MAX_WEIGHT), default = "default_weight")]
    pub weight: u32,
}

/// Largest weight of a backend, as in the Gateway API.
pub(super) const MAX_WEIGHT: u32 = 1_000_000;

/// The weight of a backend that names none.
pub(super) fn default_weight() -> u32 {
    1
}

impl TlsRouteSpec {
    /// Where the route sends, 0 shares left out.
    pub fn backends(&self) -> impl Iterator<Item = &BackendRef> {
        self.rules.iter().flat_map(|rule| &rule.backend_refs).filter(|backend| backend.weight > 0)
    }
}
