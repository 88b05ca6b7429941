//! `TLSRoute` documents.

use std::collections::HashMap;

use crate::document::field::{Field, Fields, Reader, is_subdomain};
use crate::document::problem::shortened;
use crate::document::{BackendRef, ParentRef, TlsRouteRule, TlsRouteSpec};

/// Largest weight of a backend, as in the Gateway API.
const MAX_WEIGHT: u32 = 1_000_000;

impl Reader {
    /// `namespace` is the route's own: references leave it nowhere.
    pub(super) fn tls_route(&mut self, spec: &Field<'_>, namespace: &str) -> Option<TlsRouteSpec> {
        let fields = self.fields(spec, &["parentRefs", "hostnames", "rules"])?;
        let parents = fields
            .required(self, "parentRefs", "parentRefs: [{kind: Service, name: front, port: 443}]")
            .and_then(|field| self.parents(&field, namespace));
        let hostnames = fields.get("hostnames").map_or(Some(Vec::new()), |field| self.hostnames(&field));
        let rules = fields
            .required(self, "rules", "rules: [{backendRefs: [{name: orders, port: 443}]}]")
            .and_then(|field| self.rules(&field, namespace));
        Some(TlsRouteSpec { parent_refs: parents?, hostnames: hostnames?, rules: rules? })
    }

    fn parents(&mut self, field: &Field<'_>, namespace: &str) -> Option<Vec<ParentRef>> {
        let items = self.some_items(field, "services, such as `{kind: Service, name: front, port: 443}`")?;
        let mut seen = HashMap::new();
        let mut parents = Vec::new();
        for item in &items {
            let Some(fields) = self.fields(item, &["group", "kind", "namespace", "name", "port"]) else { continue };
            let name = self.service_reference(&fields, namespace);
            let port = fields.get("port").map_or(Some(None), |field| self.port(&field).map(Some));
            let (Some(name), Some(port)) = (name, port) else { continue };
            self.unique(&mut seen, (name.clone(), port), item, "this parent");
            parents.push(ParentRef { name, port });
        }
        Some(parents)
    }

    pub(super) fn hostnames(&mut self, field: &Field<'_>) -> Option<Vec<String>> {
        let items = self.some_items(field, "names, such as `orders.example` or `*.example`")?;
        let mut seen = HashMap::new();
        let mut hostnames = Vec::new();
        for item in &items {
            let Some(name) = self.text(item) else { continue };
            let is_address = name.parse::<std::net::IpAddr>().is_ok();
            if is_address || !is_subdomain(name.strip_prefix("*.").unwrap_or(name)) {
                let what = format!(
                    "`{}` is not a host's name; write a whole name in lower case such as `orders.example`, or `*.example` for all below `example`",
                    shortened(name)
                );
                self.problem(item.at(), &item.path, what);
                continue;
            }
            self.unique(&mut seen, name.to_owned(), item, &format!("`{name}`"));
            hostnames.push(name.to_owned());
        }
        Some(hostnames)
    }

    fn rules(&mut self, field: &Field<'_>, namespace: &str) -> Option<Vec<TlsRouteRule>> {
        let items = self.some_items(field, "rules, such as `{backendRefs: [{name: orders, port: 443}]}`")?;
        if let Some(second) = items.get(1) {
            let what = "a TLSRoute has one rule: give all backends in its `backendRefs`, or write another TLSRoute";
            self.problem(second.at(), &second.path, what.into());
        }
        let fields = self.fields(items.first()?, &["backendRefs"])?;
        let backends = fields.required(self, "backendRefs", "backendRefs: [{name: orders, port: 443}]")?;
        Some(vec![TlsRouteRule { backend_refs: self.backends(&backends, namespace)? }])
    }

    fn backends(&mut self, field: &Field<'_>, namespace: &str) -> Option<Vec<BackendRef>> {
        let items = self.some_items(field, "service ports, such as `{name: orders, port: 443, weight: 1}`")?;
        let mut seen = HashMap::new();
        let mut backends = Vec::new();
        for item in &items {
            let allowed = ["group", "kind", "namespace", "name", "port", "weight"];
            let Some(fields) = self.fields(item, &allowed) else { continue };
            let name = self.service_reference(&fields, namespace);
            let port = fields.required(self, "port", "port: 443").and_then(|field| self.port(&field));
            let weight = fields.get("weight").map_or(Some(1), |field| self.whole(&field, MAX_WEIGHT));
            let (Some(name), Some(port), Some(weight)) = (name, port, weight) else { continue };
            self.unique(&mut seen, (name.clone(), port), item, "this backend");
            backends.push(BackendRef { name, port, weight });
        }
        if backends.len() == items.len() && backends.iter().all(|backend| backend.weight == 0) {
            let what = "every weight is 0, so that nothing would take a connection; give one of them a weight";
            self.problem(field.at(), &field.path, what.into());
            return None;
        }
        Some(backends)
    }

    /// The name of a service, wherever it is.
    pub(super) fn service_anywhere(&mut self, fields: &Fields<'_>) -> Option<String> {
        if let Some(field) = fields.get("group") {
            self.choice(&field, "group", &[("", ())]);
        }
        if let Some(field) = fields.get("kind") {
            self.choice(&field, "kind of a reference", &[("Service", ())]);
        }
        fields.required(self, "name", "name: orders").and_then(|field| self.label(&field))
    }

    /// The name of a service of the route's own namespace.
    pub(super) fn service_reference(&mut self, fields: &Fields<'_>, namespace: &str) -> Option<String> {
        let name = self.service_anywhere(fields);
        if let Some(field) = fields.get("namespace")
            && let Some(found) = self.text(&field).filter(|found| *found != namespace)
        {
            let what = format!(
                "`{}` is another namespace than the route's, {namespace}; write the route where its services are",
                shortened(found)
            );
            self.problem(field.at(), &field.path, what);
        }
        name
    }
}
