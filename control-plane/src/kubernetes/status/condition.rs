//! Conditions as Kubernetes has them, and in what the wanted ones differ from those an object has.

use serde_json::{Value, json};

/// Longest message. NACKs are shorter already; problems of a document may be many.
const MESSAGE_CHARACTERS: usize = 1024;

pub(super) const ACCEPTED: &str = "Accepted";
pub(super) const PROGRAMMED: &str = "Programmed";
pub(super) const RESOLVED_REFERENCES: &str = "ResolvedRefs";
/// Conditions of the Gateway API are its own to name; ours beside them has our prefix.
pub(super) const PROGRAMMED_OF_ROUTE: &str = "weft.dev/Programmed";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A condition to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) kind: &'static str,
    pub(super) truth: Truth,
    pub(super) reason: &'static str,
    pub(super) message: String,
    /// The message counts proxies, which come and go: it may be a while old, and its change alone is no hurry.
    pub(super) counts: bool,
}

impl Condition {
    pub(super) fn new(kind: &'static str, truth: Truth, reason: &'static str, message: &str) -> Self {
        let mut short: String = message.chars().take(MESSAGE_CHARACTERS).collect();
        if short.len() < message.len() {
            short.push_str(" ...");
        }
        Self { kind, truth, reason, message: short, counts: false }
    }

    pub(super) fn counting(self) -> Self {
        Self { counts: true, ..self }
    }
}

/// In what wanted conditions differ from written ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Difference {
    None,
    /// In what is counted alone.
    Count,
    Real,
}

/// Compares with the `conditions` an object has.
pub(super) fn difference(wanted: &[Condition], generation: i64, written: Option<&Value>) -> Difference {
    let of_one = |condition: &Condition| {
        let Some(found) = find(written, condition.kind) else { return Difference::Real };
        let says = |field: &str, value: &str| found.get(field).and_then(Value::as_str) == Some(value);
        let same = says("status", condition.truth.as_str())
            && says("reason", condition.reason)
            && found.get("observedGeneration").and_then(Value::as_i64) == Some(generation);
        match (same, says("message", &condition.message)) {
            (true, true) => Difference::None,
            (true, false) if condition.counts => Difference::Count,
            _ => Difference::Real,
        }
    };
    wanted.iter().map(of_one).max().unwrap_or(Difference::None)
}

/// The conditions as they are to be written: one whose truth is what it was keeps the time since when.
pub(super) fn rendered(wanted: &[Condition], generation: i64, written: Option<&Value>, now: &str) -> Value {
    let of_one = |condition: &Condition| {
        let before = find(written, condition.kind)
            .filter(|found| found.get("status").and_then(Value::as_str) == Some(condition.truth.as_str()));
        let since = before.and_then(|found| found.get("lastTransitionTime")).and_then(Value::as_str).unwrap_or(now);
        json!({
            "type": condition.kind,
            "status": condition.truth.as_str(),
            "reason": condition.reason,
            "message": condition.message,
            "observedGeneration": generation,
            "lastTransitionTime": since,
        })
    };
    wanted.iter().map(of_one).collect()
}

fn find<'v>(written: Option<&'v Value>, kind: &str) -> Option<&'v Value> {
    written?.as_array()?.iter().find(|found| found.get("type").and_then(Value::as_str) == Some(kind))
}

/// A time as Kubernetes writes it, of seconds since the Unix epoch.
pub(super) fn timestamp(unix_seconds: i64) -> String {
    k8s_openapi::jiff::Timestamp::from_second(unix_seconds).unwrap_or_default().to_string()
}
