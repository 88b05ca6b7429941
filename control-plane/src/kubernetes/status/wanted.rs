//! What the status of an object should be: facts in, conditions out. Pure.

use serde_json::{Value, json};

use super::condition::{ACCEPTED, Condition, Difference, PROGRAMMED, Truth, difference, rendered};
use super::facts::{Facts, Fate, Patch, Write, not_accepted};
use super::observed::Observed;
use super::route;

/// What is to be done about an object's status.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Same,
    /// It cannot be known yet: what reads the objects, and what looks at their statuses, see them at their own time.
    Unknown,
    Write(Write),
}

impl Facts<'_> {
    /// What is to be done about an object's status. `now` is the time that goes into it.
    pub(super) fn outcome(&self, object: &Observed, now: &str) -> Outcome {
        if object.is_of_gateway_api() {
            return match route::parents(self, object) {
                Some(parents) => route::write(object, &parents, now).map_or(Outcome::Same, Outcome::Write),
                None => Outcome::Unknown,
            };
        }
        let Some(wanted) = self.conditions(object) else { return Outcome::Unknown };
        let written = object.conditions();
        let observed = object.object.pointer("/status/observedGeneration").and_then(Value::as_i64);
        let difference = match difference(&wanted, object.generation, written) {
            Difference::None if observed == Some(object.generation) => return Outcome::Same,
            Difference::None => Difference::Real,
            other => other,
        };
        let conditions = rendered(&wanted, object.generation, written, now);
        let status = json!({"observedGeneration": object.generation, "conditions": conditions});
        Outcome::Write(Write { patch: Patch::Apply(status), difference })
    }

    /// The conditions of an object whose status is ours.
    fn conditions(&self, object: &Observed) -> Option<Vec<Condition>> {
        let fate = self.fate(object)?;
        let compiled = self.compiled(object, &fate);
        let accepted = match (&fate, compiled) {
            (Fate::InForce { .. }, Some(parents)) if !parents.iter().any(|parent| parent.accepted.holds) => {
                let reason = parents.first().map_or("NoMatchingParent", |parent| parent.accepted.reason);
                let messages: Vec<&str> = parents.iter().map(|parent| parent.accepted.message.as_str()).collect();
                Condition::new(ACCEPTED, Truth::False, reason, &messages.join("; "))
            }
            (Fate::InForce { .. }, _) => {
                let message = self.with_warnings(object, "valid and in force");
                Condition::new(ACCEPTED, Truth::True, ACCEPTED, &message)
            }
            _ => not_accepted(&fate),
        };
        let resolved = compiled.and_then(|parents| parents.first()).map(|parent| route::resolved_by(&parent.resolved));
        let programmed = self.programmed(object, &fate, PROGRAMMED);
        Some(std::iter::once(accepted).chain(resolved).chain([programmed]).collect())
    }
}
