//! Which statuses are written now, and which have time. Pure but for what it remembers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::condition::Difference;
use super::facts::{Facts, Write};
use super::observed::{ObjectKey, Observed};
use super::wanted::Outcome;
use super::watching::{Change, What};

/// Writes of one round; the rest follow in the next, at once.
const MOST_WRITES: usize = 64;
/// Numbers of proxies in a message may be as old as this.
const COUNTS: Duration = Duration::from_mins(1);
/// An object that cannot be judged yet is looked at again after this.
const RECHECK: Duration = Duration::from_millis(200);
/// A write that failed is tried again after this, doubled each time.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_mins(1);

/// The objects there are, and what was done about them.
#[derive(Debug, Default)]
pub(super) struct Desk {
    objects: BTreeMap<ObjectKey, Observed>,
    notes: HashMap<ObjectKey, Note>,
    /// Objects of kinds that are being listed, which are gone unless the list has them.
    doubtful: HashMap<What, BTreeSet<ObjectKey>>,
}

#[derive(Debug, Default)]
struct Note {
    written_at: Option<Instant>,
    failures: u32,
    not_before: Option<Instant>,
}

/// What is to be written now.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) writes: Vec<(Observed, Write)>,
    /// When something is due although nothing happens.
    pub(super) next: Option<Instant>,
}

impl Desk {
    /// Takes in what a watch said.
    pub(super) fn take(&mut self, (what, change): (What, Change), now: Instant) {
        match change {
            Change::Seen(object) => {
                let Some(object) = Observed::new(*object, now) else { return };
                if let Some(doubtful) = self.doubtful.get_mut(&what) {
                    doubtful.remove(&object.id);
                }
                self.keep(object);
            }
            Change::Gone(object) => {
                if let Some(object) = Observed::new(*object, now) {
                    self.forget(&object.id);
                }
            }
            Change::ListBegins => {
                let of_kind = self.objects.keys().filter(|key| what.is_of(key));
                self.doubtful.insert(what, of_kind.cloned().collect());
            }
            Change::ListEnds => {
                for key in self.doubtful.remove(&what).unwrap_or_default() {
                    self.forget(&key);
                }
            }
        }
    }

    fn keep(&mut self, object: Observed) {
        let before = self.objects.get(&object.id).filter(|before| before.generation == object.generation);
        let seen_at = before.map_or(object.seen_at, |before| before.seen_at);
        self.objects.insert(object.id.clone(), Observed { seen_at, ..object });
    }

    fn forget(&mut self, key: &ObjectKey) {
        self.objects.remove(key);
        self.notes.remove(key);
    }

    /// What is to be written now, what matters first.
    pub(super) fn plan(&self, facts: &Facts<'_>, stamp: &str) -> Plan {
        let mut writes = Vec::new();
        let mut next: Option<Instant> = None;
        let mut look_at = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        for (key, object) in &self.objects {
            let note = self.notes.get(key);
            let not_before = note.and_then(|note| note.not_before).filter(|at| *at > facts.now);
            match facts.outcome(object, stamp) {
                Outcome::Same => {}
                Outcome::Unknown => look_at(facts.now + RECHECK),
                Outcome::Write(write) => {
                    let leisure = note.and_then(|note| note.written_at).map(|at| at + COUNTS);
                    let leisure = leisure.filter(|at| write.difference == Difference::Count && *at > facts.now);
                    match not_before.max(leisure) {
                        Some(at) => look_at(at),
                        None => writes.push((object.clone(), write)),
                    }
                }
            }
        }
        writes.sort_by_key(|(_, write)| std::cmp::Reverse(write.difference));
        if writes.len() > MOST_WRITES {
            writes.truncate(MOST_WRITES);
            look_at(facts.now);
        }
        Plan { writes, next }
    }

    /// Notes what became of a write: the object as it is now, or nothing.
    pub(super) fn written(&mut self, object: &Observed, result: Option<Value>, now: Instant) {
        // Gone meanwhile: there is nothing to note.
        if !self.objects.contains_key(&object.id) {
            return;
        }
        let note = self.notes.entry(object.id.clone()).or_default();
        if let Some(after) = result.and_then(|object| Observed::new(object, now)) {
            *note = Note { written_at: Some(now), ..Note::default() };
            self.keep(after);
        } else {
            let wait = RETRY.saturating_mul(1_u32 << note.failures.min(6)).min(LONGEST_RETRY);
            note.failures += 1;
            note.not_before = Some(now + wait);
        }
    }

    /// The earlier of a time and the next try of what failed.
    pub(super) fn next(&self, planned: Option<Instant>, now: Instant) -> Option<Instant> {
        let tries = self.notes.values().filter_map(|note| note.not_before).filter(|at| *at > now);
        tries.chain(planned).min()
    }
}
