//! What is known of an object when its status is made: what became of it, and how far the proxies have come with it. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::condition::{ACCEPTED, Condition, Difference, PROGRAMMED, Truth};
use super::observed::{ObjectKey, Observed};
use super::proxies::{Proxies, Tally};
use crate::compile::{Findings, ParentStatus};
use crate::document::from_object;
use crate::kubernetes::discovery::Reading;
use crate::store::Snapshot;

/// An object that is not read within this has not just been written: something is wrong. Discovery takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known when statuses are made.
#[derive(Debug)]
pub(super) struct Facts<'f> {
    pub(super) snapshot: &'f Snapshot,
    pub(super) readings: &'f HashMap<ObjectKey, Reading>,
    pub(super) findings: &'f Findings,
    pub(super) proxies: &'f Proxies,
    pub(super) now: Instant,
}

/// A status that differs from the one the object has.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Write {
    pub(super) patch: Patch,
    pub(super) difference: Difference,
}

/// How it is written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Patch {
    /// Server-side apply of `status`: its conditions are ours by their types.
    Apply(Value),
    /// Merge of `status`, if the object is still the one that was seen: a list in it is other controllers' too.
    Merge(Value),
}

/// What became of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate<'f> {
    /// As it is, since a revision.
    InForce { since: u64 },
    /// It cannot be read, or something else counts in its place.
    Refused { problems: &'f [String], reason: &'static str, earlier: bool },
    /// Nothing has read it in all this time.
    Unread,
}

impl Facts<'_> {
    /// What the compiler made of a route, parent by parent; `None` where it says nothing of the kind, or the object is not in
    /// force.
    pub(super) fn compiled(&self, object: &Observed, fate: &Fate<'_>) -> Option<&[ParentStatus]> {
        matches!(fate, Fate::InForce { .. })
            .then(|| self.findings.routes.get(&object.id.key))
            .flatten()
            .map(Vec::as_slice)
    }

    /// `None` while it cannot be known.
    pub(super) fn fate(&self, object: &Observed) -> Option<Fate<'_>> {
        let reading = self.readings.get(&object.id).filter(|reading| reading.generation >= object.generation);
        let Some(reading) = reading else {
            let waited = self.now.saturating_duration_since(object.seen_at);
            return (waited >= PATIENCE).then_some(Fate::Unread);
        };
        // What is in force has been read before it: one that is newer is not what was seen.
        if reading.generation > object.generation {
            return None;
        }
        let stored = self.snapshot.documents.get(&object.id.key);
        match (reading.problems.as_slice(), stored) {
            ([], Some(stored)) if stored.revision <= self.findings.revision => {
                Some(Fate::InForce { since: stored.revision })
            }
            // Read, and about to be published or compiled.
            ([], _) => None,
            (problems, stored) => {
                let is_valid = from_object(&object.object, "").is_ok();
                let reason = if is_valid { "Conflicted" } else { "Invalid" };
                Some(Fate::Refused { problems, reason, earlier: stored.is_some() && !is_valid })
            }
        }
    }

    /// How far the proxies have come with it.
    pub(super) fn programmed(&self, object: &Observed, fate: &Fate<'_>, kind: &'static str) -> Condition {
        let since = match fate {
            Fate::InForce { since } => *since,
            Fate::Refused { reason, .. } => {
                return Condition::new(kind, Truth::False, reason, "no proxy has been told of it: it is not accepted");
            }
            Fate::Unread => return Condition::new(kind, Truth::False, "Pending", "no proxy has been told of it yet"),
        };
        let Tally { connected, applied, refused, refusal, silent } = self.proxies.tally(object, since);
        let proxies = |count: usize| if count == 1 { "proxy" } else { "proxies" };
        match refusal {
            Some(refusal) => {
                let message =
                    format!("{refused} of {connected} connected {} refused it: {refusal}", proxies(connected));
                Condition::new(kind, Truth::False, "Refused", &message).counting()
            }
            None if silent > 0 => {
                let message = format!(
                    "applied by {applied} of {connected} connected {}; of the proxies of {silent} further {} of the control \
                     plane nothing is known",
                    proxies(connected),
                    if silent == 1 { "replica" } else { "replicas" }
                );
                Condition::new(kind, Truth::Unknown, "ReplicaSilent", &message).counting()
            }
            None if connected == 0 => Condition::new(kind, Truth::Unknown, "NoProxies", "no proxy is connected"),
            None if applied == connected => {
                let message = format!("applied by {applied} of {connected} connected {}", proxies(connected));
                Condition::new(kind, Truth::True, PROGRAMMED, &message).counting()
            }
            None => {
                let message = format!("applied by {applied} of {connected} connected {}", proxies(connected));
                Condition::new(kind, Truth::False, "Pending", &message).counting()
            }
        }
    }

    pub(super) fn with_warnings(&self, object: &Observed, text: &str) -> String {
        let warnings = self.findings.warnings.get(&object.id.key).into_iter().flatten();
        std::iter::once(text.to_owned())
            .chain(warnings.map(|warning| warning.what.clone()))
            .collect::<Vec<_>>()
            .join("; ")
    }
}

/// `Accepted` of an object that is not in force.
pub(super) fn not_accepted(fate: &Fate<'_>) -> Condition {
    let (reason, message) = match fate {
        Fate::Refused { problems, reason, earlier } => {
            let effect = if *earlier { "its last valid version stays in force" } else { "nothing of it is in force" };
            (*reason, format!("{effect}: {}", problems.join("; ")))
        }
        Fate::InForce { .. } | Fate::Unread => {
            ("Pending", "the control plane has not read it yet; see its health and its log".to_owned())
        }
    };
    Condition::new(ACCEPTED, Truth::False, reason, &message)
}
