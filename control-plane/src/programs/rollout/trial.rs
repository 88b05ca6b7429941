//! One program, and the proxies that are to run it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use semver::Version;

use super::{MEMORY, MOST_AT_ONCE, Outcome, PROBATION, RETURN, Running, SHARE, WATCH};
use crate::programs::Facts;

/// One program and the proxies of its architecture.
#[derive(Debug)]
pub struct Trial {
    pub program: Facts,
    version: Option<Version>,
    proxies: BTreeMap<Arc<str>, Record>,
    /// Namespaces where a proxy has kept the program. The first of them ends the time of the canary.
    proven: BTreeSet<Arc<str>>,
    pub stopped: Option<Stopped>,
    pub(super) news: Vec<News>,
}

/// Why nobody is asked any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    pub workload: Arc<str>,
    pub why: String,
}

/// What happened to a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// It came back with the program.
    Replaced { workload: Arc<str> },
    /// It did not, and that ends the rollout. `result`: in one word.
    Failed { workload: Arc<str>, result: &'static str, why: String },
}

/// How far a proxy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    Untouched,
    /// It had the program before anybody asked.
    HadIt,
    Asked,
    /// It has answered, or fallen silent, and is to come back.
    Awaited(Instant),
    /// It came back.
    Replaced(Instant),
    /// It keeps what it has.
    Left(String),
}

#[derive(Debug)]
struct Record {
    stage: Stage,
    /// `None` while it is away.
    running: Option<Running>,
    seen_at: Instant,
}

/// How many proxies of a program's architecture are how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Connected, of any digest.
    pub connected: usize,
    /// Of these, those with another program, which is not of a newer version.
    pub outdated: usize,
    /// Of these, those that can be replaced while they run and were not left alone.
    pub replaceable: usize,
    /// Asked, or awaited.
    pub under_way: usize,
    /// Came back with the program since this control plane began.
    pub replaced: usize,
}

impl Trial {
    pub(super) fn new(program: Facts) -> Self {
        let version = Version::parse(&program.version).ok();
        Self { program, version, proxies: BTreeMap::new(), proven: BTreeSet::new(), stopped: None, news: Vec::new() }
    }

    /// Forgets what went wrong, and what went well.
    pub(super) fn begin_anew(&mut self) {
        self.stopped = None;
        self.proven.clear();
        for record in self.proxies.values_mut().filter(|record| matches!(record.stage, Stage::Left(_))) {
            record.stage = Stage::Untouched;
        }
    }

    /// How far a proxy is.
    pub fn stage(&self, workload: &str) -> Option<&Stage> {
        self.proxies.get(workload).map(|record| &record.stage)
    }

    pub(super) fn observe(&mut self, running: &[Running], stays: &impl Fn(&str) -> bool, now: Instant) {
        let mut here: HashMap<&Arc<str>, &Running> = HashMap::new();
        let is_ours = |proxy: &&Running| proxy.architecture == self.program.architecture && stays(&proxy.workload);
        for proxy in running.iter().filter(is_ours) {
            // While one program takes over from another both may be connected: the new one counts.
            let is_new = proxy.digest == self.program.digest;
            here.entry(&proxy.workload)
                .and_modify(|known| *known = if is_new { proxy } else { known })
                .or_insert(proxy);
        }
        for (workload, proxy) in &here {
            let fresh = || Record { stage: Stage::Untouched, running: None, seen_at: now };
            let record = self.proxies.entry(Arc::clone(workload)).or_insert_with(fresh);
            record.running = Some((*proxy).clone());
            record.seen_at = now;
            self.met(workload, proxy.digest == self.program.digest, now);
        }
        let away: Vec<Arc<str>> =
            self.proxies.keys().filter(|workload| !here.contains_key(workload)).cloned().collect();
        for workload in away {
            let record = self.proxies.get_mut(&workload).expect("its key was read a moment ago");
            record.running = None;
            let is_forgotten = now >= record.seen_at + MEMORY && !record.is_under_way();
            // A pod that is deleted fails nobody.
            if is_forgotten || !stays(&workload) {
                self.proxies.remove(&workload);
            }
        }
        self.elapse(now);
    }

    /// A proxy is connected, with our program or another.
    fn met(&mut self, workload: &Arc<str>, has_it: bool, now: Instant) {
        let Some(record) = self.proxies.get_mut(workload) else { return };
        match (&record.stage, has_it) {
            (Stage::Untouched, true) => record.stage = Stage::HadIt,
            (Stage::Asked | Stage::Awaited(_), true) => {
                record.stage = Stage::Replaced(now);
                self.news.push(News::Replaced { workload: Arc::clone(workload) });
            }
            (Stage::HadIt, false) => record.stage = Stage::Left("it had this program and has another again".to_owned()),
            (Stage::Replaced(at), false) => {
                let is_early = now < *at + PROBATION;
                let why = "it went back to another program after it had this one".to_owned();
                record.stage = Stage::Left(why.clone());
                if is_early {
                    self.fail(workload, "relapsed", why);
                }
            }
            _ => {}
        }
    }

    pub(super) fn answered(&mut self, workload: &str, outcome: Outcome, now: Instant) {
        let Some((workload, record)) = self.proxies.get_key_value(workload) else { return };
        // Its return was seen first.
        if record.stage != Stage::Asked {
            return;
        }
        let workload = Arc::clone(workload);
        let record = self.proxies.get_mut(&workload).expect("it was found a moment ago");
        match outcome {
            Outcome::Upgraded | Outcome::Silent => record.stage = Stage::Awaited(now),
            Outcome::Refused(why) => {
                record.stage = Stage::Left(format!("refused: {why}"));
                self.fail(&workload, "refused", format!("it refused: {why}"));
            }
        }
    }

    /// What time alone changes.
    fn elapse(&mut self, now: Instant) {
        let overdue = |record: &Record| matches!(record.stage, Stage::Awaited(since) if now >= since + RETURN);
        let lost: Vec<Arc<str>> = self
            .proxies
            .iter()
            .filter(|(_, record)| overdue(record))
            .map(|(workload, _)| Arc::clone(workload))
            .collect();
        for workload in lost {
            let why = format!("it did not come back with the program within {} s", RETURN.as_secs());
            if let Some(record) = self.proxies.get_mut(&workload) {
                record.stage = Stage::Left(why.clone());
            }
            self.fail(&workload, "lost", why);
        }
        let has_kept = |record: &Record| {
            record.running.is_some() && matches!(record.stage, Stage::Replaced(at) if now >= at + WATCH)
        };
        let proven = self.proxies.iter().filter(|(_, record)| has_kept(record));
        self.proven.extend(proven.map(|(workload, _)| Arc::from(namespace(workload))));
    }

    fn fail(&mut self, workload: &Arc<str>, result: &'static str, why: String) {
        self.news.push(News::Failed { workload: Arc::clone(workload), result, why: why.clone() });
        self.stopped.get_or_insert(Stopped { workload: Arc::clone(workload), why });
    }

    pub(super) fn ask(&mut self, now: Instant) -> Vec<Arc<str>> {
        self.elapse(now);
        if self.stopped.is_some() {
            return Vec::new();
        }
        let mut candidates: Vec<Arc<str>> = self
            .proxies
            .iter()
            .filter(|(_, record)| record.stage == Stage::Untouched && self.is_replaceable(record))
            .map(|(workload, _)| Arc::clone(workload))
            .collect();
        candidates.sort_by_key(|workload| self.turn(workload));
        let mut under_way = self.proxies.values().filter(|record| record.is_under_way()).count();
        let limit = self.limit(candidates.len());
        // In a namespace without experience the next one waits until the first has kept the program.
        let trying =
            |(_, record): &(&Arc<str>, &Record)| record.is_under_way() || matches!(record.stage, Stage::Replaced(_));
        let mut tried: BTreeSet<Arc<str>> =
            self.proxies.iter().filter(trying).map(|(workload, _)| Arc::from(namespace(workload))).collect();
        let mut asked = Vec::new();
        for workload in candidates {
            if under_way >= limit {
                break;
            }
            let home: Arc<str> = namespace(&workload).into();
            if !self.proven.contains(&home) && !tried.insert(home) {
                continue;
            }
            if let Some(record) = self.proxies.get_mut(&workload) {
                record.stage = Stage::Asked;
            }
            under_way += 1;
            asked.push(workload);
        }
        asked
    }

    /// How many may be under way at once, while so many wait.
    fn limit(&self, waiting: usize) -> usize {
        if self.proven.is_empty() {
            // The one whose keeping is watched counts as well.
            let is_watched = self.proxies.values().any(|record| matches!(record.stage, Stage::Replaced(_)));
            return usize::from(!is_watched);
        }
        let begun = |record: &&Record| record.is_under_way() || matches!(record.stage, Stage::Replaced(_));
        let all = waiting + self.proxies.values().filter(begun).count();
        (all / SHARE).clamp(1, MOST_AT_ONCE)
    }

    /// Another order for each program, so that the canary is not the same pod for ever.
    fn turn(&self, workload: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.program.digest.as_str(), workload).hash(&mut hasher);
        hasher.finish()
    }

    fn is_replaceable(&self, record: &Record) -> bool {
        record.running.as_ref().is_some_and(|running| running.replaceable && self.is_outdated(running))
    }

    /// Whether a proxy of our architecture runs another program that is to be replaced by this one: of an older version; or of
    /// the same, built otherwise, where that can be done while it runs.
    pub fn is_outdated(&self, running: &Running) -> bool {
        if running.digest == self.program.digest {
            return false;
        }
        match self.order(running) {
            Some(Ordering::Less) => true,
            Some(Ordering::Equal) => running.replaceable,
            // What cannot be compared is left alone.
            _ => false,
        }
    }

    /// How its version stands to the program's.
    pub fn order(&self, running: &Running) -> Option<Ordering> {
        Some(Version::parse(&running.version).ok()?.cmp_precedence(self.version.as_ref()?))
    }

    pub(super) fn next(&self) -> Option<Instant> {
        let next = |(workload, record): (&Arc<str>, &Record)| match record.stage {
            Stage::Awaited(since) => Some(since + RETURN),
            Stage::Replaced(at) if !self.proven.contains(namespace(workload)) => {
                record.running.is_some().then_some(at + WATCH)
            }
            _ => None,
        };
        self.proxies.iter().filter_map(next).min()
    }

    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for record in self.proxies.values() {
            counts.under_way += usize::from(record.is_under_way());
            counts.replaced += usize::from(matches!(record.stage, Stage::Replaced(_)));
            let Some(running) = &record.running else { continue };
            counts.connected += 1;
            counts.outdated += usize::from(self.is_outdated(running));
            let is_left = matches!(record.stage, Stage::Left(_));
            counts.replaceable += usize::from(self.is_replaceable(record) && !is_left);
        }
        counts
    }
}

impl Record {
    fn is_under_way(&self) -> bool {
        matches!(self.stage, Stage::Asked | Stage::Awaited(_))
    }
}

/// Of `NAMESPACE/WORKLOAD`.
fn namespace(workload: &str) -> &str {
    workload.split_once('/').map_or("", |(namespace, _)| namespace)
}
