//! ReferenceGrants of the Gateway API: what a namespace permits routes of others to send to.

use std::collections::BTreeSet;

use kube::api::{ApiResource, DynamicObject};
use serde_json::Value;

use crate::document::Kind;

/// Their kind, as the API server says it.
pub(super) const KIND: &str = "ReferenceGrant";
/// What the watch of them is called.
pub(super) const RESOURCE: &str = "referencegrants.gateway.networking.k8s.io";
/// The versions we know, the preferred one first.
pub(super) const VERSIONS: [&str; 2] = ["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"];

/// What a namespace permits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// HTTPRoutes of these API groups and namespaces...
    from: BTreeSet<(String, String)>,
    /// ...may name these services of the grant's namespace; `None`: all.
    to: BTreeSet<Option<String>>,
}

impl Grant {
    /// `None` where it permits nothing that is of interest.
    pub(super) fn of(grant: &DynamicObject) -> Option<Self> {
        let list = |field: &str| grant.data.get("spec")?.get(field)?.as_array();
        let text = |entry: &Value, field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let routes = list("from")?.iter().filter(|from| text(from, "kind") == Kind::HttpRoute.as_str());
        let from: BTreeSet<_> = routes.map(|from| (text(from, "group"), text(from, "namespace"))).collect();
        let services = list("to")?.iter().filter(|to| text(to, "kind") == "Service" && text(to, "group").is_empty());
        let name = |to: &Value| Some(text(to, "name")).filter(|name| !name.is_empty());
        let to: BTreeSet<_> = services.map(name).collect();
        (!from.is_empty() && !to.is_empty()).then_some(Self { from, to })
    }

    /// Whether an HTTPRoute of an API group and a namespace may send to a service of the grant's namespace.
    pub(super) fn permits(&self, group: &str, namespace: &str, service: &str) -> bool {
        let is_it = |to: &Option<String>| to.as_ref().is_none_or(|name| name == service);
        self.from.iter().any(|from| (from.0.as_str(), from.1.as_str()) == (group, namespace))
            && self.to.iter().any(is_it)
    }
}

/// Grants under one of [`VERSIONS`].
pub(super) fn api_resource(api_version: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: api_version.to_owned(),
        kind: KIND.to_owned(),
        plural: "referencegrants".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GATEWAY_API: &str = "gateway.networking.k8s.io";

    #[test]
    fn a_grant_permits_what_it_names_and_nothing_else() {
        let from = |group: &str, kind: &str| json!({"group": group, "kind": kind, "namespace": "shop"});
        let (routes, services) = (from(GATEWAY_API, "HTTPRoute"), json!({"group": "", "kind": "Service"}));
        let named = json!({"group": "", "kind": "Service", "name": "orders"});
        let asked = (GATEWAY_API, "shop", "orders");
        let table = [
            (&routes, &services, asked, true),
            (&routes, &named, asked, true),
            (&routes, &named, (GATEWAY_API, "shop", "mail"), false),
            (&routes, &services, (GATEWAY_API, "other", "orders"), false),
            (&routes, &services, ("weft.dev", "shop", "orders"), false),
            (&from("weft.dev", "HTTPRoute"), &services, ("weft.dev", "shop", "orders"), true),
            (&from(GATEWAY_API, "TLSRoute"), &services, asked, false),
            (&routes, &json!({"group": "", "kind": "Secret"}), asked, false),
            (&routes, &json!({"group": "example.com", "kind": "Service"}), asked, false),
        ];
        for (from, to, (group, namespace, service), expected) in table {
            let object = json!({"metadata": {"name": "g"}, "spec": {"from": [from], "to": [to]}});
            let grant = Grant::of(&serde_json::from_value(object).unwrap());
            let found = grant.is_some_and(|grant| grant.permits(group, namespace, service));
            assert_eq!(found, expected, "{from} {to} {group} {namespace} {service}");
        }
    }
}
