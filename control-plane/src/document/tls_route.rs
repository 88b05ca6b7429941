//! `TLSRoute`: where TLS connections to a service go by the name they ask for, in the shape of the Gateway API.

use serde::{Deserialize, Serialize};

/// Routes of TLS that is passed through: nothing in it is read but its first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TlsRouteSpec {
    /// Services of the same namespace; at least one.
    pub parent_refs: Vec<ParentRef>,
    /// Whole names, and `*.example` for all below `example`, in lower case. Empty: whatever no other route names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// Exactly one, as in the Gateway API: there is nothing two could be told apart by.
    pub rules: Vec<TlsRouteRule>,
}

/// A service whose connections a route takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParentRef {
    pub name: String,
    /// All its ports of protocol `tls` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TlsRouteRule {
    /// At least one with a weight that is not 0.
    pub backend_refs: Vec<BackendRef>,
}

/// A service port of the same namespace and its share of the connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendRef {
    pub name: String,
    pub port: u16,
    /// The share is this of the sum; 0 takes nothing.
    pub weight: u32,
}

impl TlsRouteSpec {
    /// Where the route sends, 0 shares left out.
    pub fn backends(&self) -> impl Iterator<Item = &BackendRef> {
        self.rules.iter().flat_map(|rule| &rule.backend_refs).filter(|backend| backend.weight > 0)
    }
}
