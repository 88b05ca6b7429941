//! The status of routes of the Gateway API: one entry for each parent of ours, beside those of other controllers.

use serde_json::{Value, json};

use super::condition::{
    ACCEPTED, Condition, Difference, PROGRAMMED_OF_ROUTE, RESOLVED_REFERENCES, Truth, difference, rendered,
};
use super::facts::{Facts, Fate, Patch, Write, not_accepted};
use super::observed::{Observed, Reference};
use crate::compile::{self, ParentStatus};
use crate::document::{Document, Key, Kind, ServiceSpec, is_service_reference};

/// Who we are in entries of a route's status.
pub(super) const CONTROLLER: &str = "weft.dev/controller";

/// What is said where nothing is wrong with backends.
const EVERY_BACKEND: &str = "every backend exists";

/// What is said of one parent.
pub(super) struct Parent {
    reference: Value,
    conditions: Vec<Condition>,
}

/// What is to be said of each parent of ours; `None` while it cannot be known.
pub(super) fn parents(facts: &Facts<'_>, object: &Observed) -> Option<Vec<Parent>> {
    let mut references = object.parents().peekable();
    if references.peek().is_none() {
        // Ours no more: what we said of it is to go.
        return Some(Vec::new());
    }
    let fate = facts.fate(object)?;
    let compiled = facts.compiled(object, &fate);
    let parent = |reference: Reference<'_>| {
        let known = compiled.and_then(|parents| parents.iter().find(|known| is_parent(known, &reference)));
        let (accepted, resolved) = match (&fate, known) {
            (Fate::InForce { .. }, Some(known)) => (accepted_by(&known.accepted), resolved_by(&known.resolved)),
            (Fate::InForce { .. }, None) => (of_parent(facts, object, &reference), resolved(facts, object)),
            (fate, _) => (accepted_by_gateway_api(not_accepted(fate)), resolved(facts, object)),
        };
        let programmed = facts.programmed(object, &fate, PROGRAMMED_OF_ROUTE);
        Parent { reference: identity(reference.value), conditions: vec![accepted, resolved, programmed] }
    };
    Some(references.map(parent).collect())
}

/// Whether the compiler speaks of this parent.
fn is_parent(known: &ParentStatus, reference: &Reference<'_>) -> bool {
    let section = reference.value.get("sectionName").and_then(Value::as_str);
    let parent = &known.parent;
    parent.name == reference.name && parent.port == reference.port && parent.section_name.as_deref() == section
}

fn accepted_by(compiled: &compile::Condition) -> Condition {
    said(ACCEPTED, compiled, "valid and in force")
}

/// `ResolvedRefs` as the compiler has it.
pub(super) fn resolved_by(compiled: &compile::Condition) -> Condition {
    said(RESOLVED_REFERENCES, compiled, EVERY_BACKEND)
}

fn said(kind: &'static str, compiled: &compile::Condition, otherwise: &str) -> Condition {
    let (truth, message) =
        if compiled.holds { (Truth::True, otherwise) } else { (Truth::False, compiled.message.as_str()) };
    Condition::new(kind, truth, compiled.reason, message)
}

/// The Gateway API has its own word for a valid object that says what a controller cannot do.
fn accepted_by_gateway_api(condition: Condition) -> Condition {
    let reason = if condition.reason == "Invalid" { "UnsupportedValue" } else { condition.reason };
    Condition { reason, ..condition }
}

/// The fields by which the status tells parents apart.
fn identity(reference: &Value) -> Value {
    let fields = ["group", "kind", "namespace", "name", "sectionName", "port"];
    let named = fields.iter().filter_map(|field| Some(((*field).to_owned(), reference.get(*field)?.clone())));
    Value::Object(named.collect())
}

fn of_parent(facts: &Facts<'_>, object: &Observed, reference: &Reference<'_>) -> Condition {
    let Reference { name, port, .. } = *reference;
    let missing = match service(facts, object, reference) {
        None => Some(format!("the service {name} does not exist")),
        Some(spec) => {
            port.filter(|port| !has_port(spec, *port)).map(|port| format!("the service {name} has no port {port}"))
        }
    };
    if let Some(missing) = missing {
        return Condition::new(ACCEPTED, Truth::False, "NoMatchingParent", &missing);
    }
    Condition::new(ACCEPTED, Truth::True, ACCEPTED, &facts.with_warnings(object, "valid and in force"))
}

/// Whether everything the route sends to is there.
fn resolved(facts: &Facts<'_>, object: &Observed) -> Condition {
    let problem = object.backends().find_map(|backend| unresolved(facts, object, backend));
    match problem {
        Some((reason, message)) => Condition::new(RESOLVED_REFERENCES, Truth::False, reason, &message),
        None => Condition::new(RESOLVED_REFERENCES, Truth::True, RESOLVED_REFERENCES, EVERY_BACKEND),
    }
}

fn unresolved(facts: &Facts<'_>, object: &Observed, backend: &Value) -> Option<(&'static str, String)> {
    let reference = Reference::new(backend)?;
    let name = reference.name;
    if !is_service_reference(backend) {
        let kind = backend.get("kind").and_then(Value::as_str).unwrap_or_default();
        return Some(("InvalidKind", format!("the backend {name} is a {kind}; only services can be sent to")));
    }
    let own = &*object.id.key.namespace;
    if let Some(other) = reference.namespace.filter(|namespace| *namespace != own) {
        let what = format!("the backend {name} is in namespace {other}; a route sends to services of its own, {own}");
        return Some(("RefNotPermitted", what));
    }
    let Some(spec) = service(facts, object, &reference) else {
        return Some(("BackendNotFound", format!("the service {name} does not exist")));
    };
    let port = reference.port.filter(|port| !has_port(spec, *port))?;
    Some(("BackendNotFound", format!("the service {name} has no port {port}")))
}

fn service<'f>(facts: &'f Facts<'_>, object: &Observed, reference: &Reference<'_>) -> Option<&'f ServiceSpec> {
    let namespace = reference.namespace.unwrap_or(&object.id.key.namespace);
    let key = Key::new(Kind::Service, namespace, reference.name);
    match &facts.snapshot.documents.get(&key)?.document {
        Document::Service(service) => Some(&service.spec),
        _ => None,
    }
}

fn has_port(spec: &ServiceSpec, port: u16) -> bool {
    spec.ports.iter().any(|known| known.port == port)
}

/// The change that makes our entries what they should be, and leaves the others as they were seen.
pub(super) fn write(object: &Observed, wanted: &[Parent], now: &str) -> Option<Write> {
    let is_ours = |entry: &&Value| entry.get("controllerName").and_then(Value::as_str) == Some(CONTROLLER);
    let entries: Vec<&Value> = object.list("/status/parents").collect();
    let written: Vec<&Value> = entries.iter().copied().filter(is_ours).collect();
    let find = |parent: &Parent| {
        let same = |entry: &&&Value| entry.get("parentRef").map(identity).as_ref() == Some(&parent.reference);
        written.iter().find(same).and_then(|entry| entry.get("conditions"))
    };
    let of_all = wanted.iter().map(|parent| difference(&parent.conditions, object.generation, find(parent)));
    let difference =
        if wanted.len() == written.len() { of_all.max().unwrap_or(Difference::None) } else { Difference::Real };
    if difference == Difference::None {
        return None;
    }
    let ours = wanted.iter().map(|parent| {
        json!({
            "parentRef": parent.reference,
            "controllerName": CONTROLLER,
            "conditions": rendered(&parent.conditions, object.generation, find(parent), now),
        })
    });
    let others = entries.iter().copied().filter(|entry| !is_ours(entry)).cloned();
    let parents: Vec<Value> = others.chain(ours).collect();
    Some(Write { patch: Patch::Merge(json!({"parents": parents})), difference })
}
