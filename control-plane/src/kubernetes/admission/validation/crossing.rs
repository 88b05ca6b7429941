//! One object held against the documents there are. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use crate::compile;
use crate::document::{Document, Key, Located, Manifest, Place, Problem, Problems, ServiceSpec, from_object};
use crate::store::Snapshot;

/// What is to be said of an object.
#[derive(Debug, Default)]
pub(super) struct Examined {
    /// Why it is refused.
    pub(super) problems: Vec<Problem>,
    /// What is probably not meant.
    pub(super) warnings: Vec<String>,
}

/// Reads an object and compares it with the documents in force.
pub(super) fn examine(object: &Value, snapshot: &Snapshot) -> Examined {
    let Located { document, place } = match from_object(object, "object") {
        Ok(located) => located,
        Err(Problems(problems)) => return Examined { problems, warnings: Vec::new() },
    };
    let problems = match &document {
        Document::Service(service) => addresses(service, &document.key(), &place, snapshot),
        _ => Vec::new(),
    };
    let warnings = if problems.is_empty() { warnings(document, snapshot) } else { Vec::new() };
    Examined { problems, warnings }
}

/// Addresses that lead elsewhere already: two documents would take each other's traffic.
fn addresses(service: &Manifest<ServiceSpec>, key: &Key, place: &Place, snapshot: &Snapshot) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, address) in service.spec.addresses.iter().enumerate() {
        let Some(owner) = owner(*address, key, snapshot) else { continue };
        let what = format!("{address} already belongs to {owner}; choose another, or leave it out to be given one");
        problems.push(Problem::of(key, place.clone(), &format!("spec.addresses[{index}]"), what));
    }
    problems
}

/// Whose an address is. A workload's may be its own namespace's services' too.
fn owner<'s>(address: IpAddr, key: &Key, snapshot: &'s Snapshot) -> Option<&'s Key> {
    let has = |(other, document): (&'s Key, &Document)| {
        let owns = match document {
            Document::Service(service) => service.spec.addresses.contains(&address),
            Document::Workload(workload) => {
                other.namespace != key.namespace && workload.spec.addresses.contains(&address)
            }
            _ => false,
        };
        (owns && other != key).then_some(other)
    };
    snapshot.documents.iter().find_map(|(other, stored)| has((other, &stored.document)))
}

/// What the compiler would say of the document. Documents select and refer to what is in their own namespace alone, but for
/// backends of HTTPRoutes; whether their namespace permits those is told in the route's status.
fn warnings(mut document: Document, snapshot: &Snapshot) -> Vec<String> {
    let key = document.key();
    let mut namespaces = BTreeSet::from([key.namespace.to_string()]);
    if let Document::HttpRoute(route) = &mut document {
        for backend in route.spec.rules.iter_mut().flat_map(|rule| &mut rule.backend_refs) {
            backend.permitted = true;
            namespaces.extend(backend.namespace.clone());
        }
    }
    let is_beside = |other: &Key| namespaces.contains(&*other.namespace) || !other.kind.is_namespaced();
    let beside = snapshot.documents.iter().filter(|(other, _)| **other != key && is_beside(other));
    let warnings = compile::warnings(beside.map(|(_, stored)| &stored.document).chain([&document]));
    warnings.into_iter().filter(|warning| warning.key == key).map(|warning| warning.to_string()).collect()
}
