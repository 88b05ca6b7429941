//! One ADS stream as a state machine: no sockets, no clock, no locks.
//!
//! [`delta`] and [`sotw`] (state of the world) are the two variants of the protocol over the same books: `Acks` per type of
//! resource, one `Stream` for the nonces and the revisions. Nothing in here survives a stream.
//!
//! Rules both keep:
//! - A nonce is judged alone: an unknown one acknowledges nothing, and never costs the request its names.
//! - Only `error_detail` makes a refusal. A refused version is not repeated unless the client asks for the name
//!   again; the next version is sent.
//! - A type with an unacknowledged response collects further changes until the acknowledgement, at most for
//!   [`PATIENCE`]. Types do not wait for each other, except that the removal of clusters and endpoints waits as long
//!   for the acknowledgement of the listeners and routes that used them.
//! - Endpoints follow each change of their cluster, changed or not: without them a client would keep the cluster
//!   warming.

pub mod delta;
pub mod sotw;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_proto::discovery::{Node, Status};

use crate::world::{Changes, Interest, Kind, Progress, View};

/// How long changes of a type wait for the acknowledgement of its last response: long enough that a slow
/// client is not flooded; short of the time Envoy may take to acknowledge clusters while they warm (15 s).
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Size of one response. gRPC clients drop a stream whose response exceeds 4 MiB, and come back for the same; and they
/// keep a buffer of the size of the largest for as long as the stream lives.
pub const RESPONSE_LIMIT: usize = 1024 * 1024;

/// What one stream may make us remember of names: one name's length and its place in the tables.
const NAMES_LIMIT: usize = 32 * 1024 * 1024;
const NAME_OVERHEAD: usize = 128;

/// Unacknowledged responses remembered per type; the oldest is given up for one more.
const IN_FLIGHT_LIMIT: usize = 64;

/// Revisions between the first unacknowledged response and now that are told apart.
const MARKS_LIMIT: usize = 32;

/// Refused names that are told of, by type: a refusal that names none is of all that a response held.
const REFUSED_NAMES_LIMIT: usize = 256;

/// Characters kept of a refusal: clients quote whole resources in it.
const REFUSAL_LIMIT: usize = 1024;

/// A variant of the protocol.
pub trait Session: Send {
    type Request: Send + 'static;
    type Response: Send + 'static;

    /// A session whose nonces start with `salt`, so that nonces of other streams mean nothing here.
    fn new(salt: u64, star: Star) -> Self;

    fn node(request: &Self::Request) -> Option<&Node>;

    /// Takes a request in. What it begins or ceases to ask for must be noted before the next [`Session::flush`].
    fn request(&mut self, request: Self::Request, now: Instant) -> Result<Vec<Interest>, Violation>;

    /// Takes in what may have changed, up to `revision`.
    fn changed(&mut self, changes: Changes, revision: u64);

    /// What is to be sent now.
    fn flush(&mut self, now: Instant, view: &View) -> Vec<Self::Response>;

    /// When [`Session::flush`] is to be called next, whatever happens or not.
    fn wake_at(&self) -> Option<Instant>;

    fn standing(&self) -> Standing;
}

/// What `*` means to a client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Star {
    /// All there is.
    #[default]
    Everything,
    /// What is for its own workload alone. Of what is for every proxy it asks for what it uses, by name.
    Own,
}

/// Why a stream is ended.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Violation {
    #[error("the stream asks for more names than {} MiB hold; subscribe to fewer, or to `*`", NAMES_LIMIT >> 20)]
    TooManyNames,
    #[error("more than {0} requests for unknown types await their answer; the first is `{1}`")]
    TooManyUnknownTypes(usize, String),
}

/// How far the client has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub progress: Progress,
    /// Resources sent and not acknowledged.
    pub pending: usize,
    /// The newest refusal that no acknowledgement has remedied.
    pub refusal: Option<Refusal>,
    /// What is refused and not remedied, by type.
    pub refused: Vec<RefusedNames>,
}

/// Resources of one type that the client does not accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedNames {
    pub refusal: Refusal,
    /// At most [`REFUSED_NAMES_LIMIT`].
    pub names: Vec<Arc<str>>,
    /// There are more than are named.
    pub more: bool,
}

/// A response the client did not accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub kind: Kind,
    /// Text of the client; may quote configuration.
    pub message: String,
    pub at: Instant,
}

/// What belongs to a stream as a whole: nonces, and which revision is acknowledged.
#[derive(Debug)]
struct Stream {
    salt: u64,
    sequence: u64,
    /// All changes up to here have been taken in.
    revision: u64,
    /// At `marks[i].0` everything up to that revision had been sent, the last response being number `marks[i].1`.
    marks: VecDeque<(u64, u64)>,
    acknowledged: u64,
    names_size: usize,
}

impl Stream {
    fn new(salt: u64) -> Self {
        Self { salt, sequence: 0, revision: 0, marks: VecDeque::new(), acknowledged: 0, names_size: 0 }
    }

    fn next_nonce(&mut self) -> (u64, String) {
        self.sequence += 1;
        (self.sequence, format!("{:x}.{:x}", self.salt, self.sequence))
    }

    fn sequence_of(&self, nonce: &str) -> Option<u64> {
        let (salt, sequence) = nonce.split_once('.')?;
        let ours = u64::from_str_radix(salt, 16) == Ok(self.salt);
        u64::from_str_radix(sequence, 16).ok().filter(|_| ours)
    }

    /// Notes that everything up to the revision known has been sent.
    fn all_sent(&mut self) {
        let mark = (self.revision, self.sequence);
        let is_full = self.marks.len() == MARKS_LIMIT;
        match self.marks.back_mut() {
            Some(last) if last.1 == mark.1 || is_full => *last = mark,
            _ => self.marks.push_back(mark),
        }
    }

    /// `open`: number of the first response without acknowledgement.
    fn settle(&mut self, open: Option<u64>) {
        while let Some(&(revision, sequence)) = self.marks.front()
            && open.is_none_or(|open| sequence < open)
        {
            self.acknowledged = self.acknowledged.max(revision);
            self.marks.pop_front();
        }
    }

    /// The newest revision whose responses are all before `open`, the first that awaits its answer.
    fn answered(&self, open: Option<u64>) -> u64 {
        let is_answered = |mark: &&(u64, u64)| open.is_none_or(|open| mark.1 < open);
        self.marks.iter().filter(is_answered).map(|mark| mark.0).fold(self.acknowledged, u64::max)
    }

    fn name_added(&mut self, name: &str) -> Result<(), Violation> {
        self.names_size += name.len() + NAME_OVERHEAD;
        if self.names_size > NAMES_LIMIT { Err(Violation::TooManyNames) } else { Ok(()) }
    }

    fn name_dropped(&mut self, name: &str) {
        self.names_size = self.names_size.saturating_sub(name.len() + NAME_OVERHEAD);
    }
}

/// What has been sent of one type and what became of it.
#[derive(Debug, Default)]
struct Acks {
    in_flight: VecDeque<Sent>,
    rejected: BTreeSet<Arc<str>>,
    /// The refusal did not say which resources it is about.
    rejected_vaguely: bool,
    refusal: Option<Refusal>,
}

#[derive(Debug)]
struct Sent {
    sequence: u64,
    contents: Contents,
    at: Instant,
}

/// Names in a response.
#[derive(Debug, Default)]
struct Contents {
    sent: Vec<Arc<str>>,
    removed: Vec<Arc<str>>,
}

impl Contents {
    fn len(&self) -> usize {
        self.sent.len() + self.removed.len()
    }
}

impl Acks {
    fn sent(&mut self, sequence: u64, contents: Contents, at: Instant) {
        if self.in_flight.len() == IN_FLIGHT_LIMIT {
            self.in_flight.pop_front();
        }
        self.in_flight.push_back(Sent { sequence, contents, at });
    }

    /// Until when changes wait for an acknowledgement.
    fn blocked_until(&self) -> Option<Instant> {
        self.in_flight.back().map(|sent| sent.at + PATIENCE)
    }

    fn is_blocked(&self, now: Instant) -> bool {
        self.blocked_until().is_some_and(|until| now < until)
    }

    fn pending(&self) -> usize {
        self.in_flight.iter().map(|sent| sent.contents.len()).sum()
    }

    /// Takes the judgement of a response in. Clients work through responses in order, so that it also ends the wait
    /// for earlier ones of the type. `asked` says what the client still asks for: a refusal of anything else has
    /// crossed the end of the subscription and matters no more.
    fn judge(
        &mut self,
        kind: Kind,
        sequence: u64,
        error: Option<&Status>,
        now: Instant,
        asked: impl Fn(&Arc<str>) -> bool,
    ) {
        let Some(position) = self.in_flight.iter().position(|sent| sent.sequence == sequence) else { return };
        let mut judged: Vec<Sent> = self.in_flight.drain(..=position).collect();
        let last = judged.pop();
        for sent in judged.iter().chain(last.as_ref().filter(|_| error.is_none())) {
            self.accept(&sent.contents);
        }
        if let (Some(error), Some(sent)) = (error, last) {
            self.reject(kind, sent.contents, &error.message, now, asked);
        }
    }

    fn accept(&mut self, contents: &Contents) {
        let before = self.rejected.len();
        for name in contents.sent.iter().chain(&contents.removed) {
            self.rejected.remove(name);
        }
        // One of them was remedied; which others were ever wrong, the client did not say.
        if self.rejected_vaguely && self.rejected.len() < before {
            self.rejected.clear();
        }
        self.forget_remedied();
    }

    fn reject(
        &mut self,
        kind: Kind,
        contents: Contents,
        message: &str,
        now: Instant,
        asked: impl Fn(&Arc<str>) -> bool,
    ) {
        // What was removed is gone, whatever is wrong with the rest.
        self.accept(&Contents { sent: Vec::new(), removed: contents.removed });
        let mut sent = contents.sent;
        let crossed = !sent.is_empty() && !sent.iter().any(&asked);
        if crossed {
            return;
        }
        sent.retain(asked);
        let named: Vec<Arc<str>> = sent.iter().filter(|name| mentions(message, name)).cloned().collect();
        if named.is_empty() {
            self.rejected_vaguely = true;
            self.rejected.extend(sent);
        } else {
            // Clients apply the good ones of a response in which they refuse others.
            self.accept(&Contents { sent, removed: Vec::new() });
            self.rejected.extend(named);
        }
        self.refusal = Some(Refusal { kind, message: shorten(message), at: now });
    }

    /// What is refused and not remedied.
    fn refused(&self) -> Option<RefusedNames> {
        let names = self.rejected.iter().take(REFUSED_NAMES_LIMIT).cloned().collect();
        let more = self.rejected.len() > REFUSED_NAMES_LIMIT;
        self.refusal.clone().map(|refusal| RefusedNames { refusal, names, more })
    }

    /// The client no longer asks for this name.
    fn forget(&mut self, name: &str) {
        self.rejected.remove(name);
        self.forget_remedied();
    }

    fn forget_remedied(&mut self) {
        if self.rejected.is_empty() {
            self.refusal = None;
            self.rejected_vaguely = false;
        }
    }
}

/// Whether a text has this name in it, not as a part of a longer one.
fn mentions(text: &str, name: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '/' | '-' | '_');
    !name.is_empty()
        && text.match_indices(name).any(|(at, _)| {
            !text[..at].chars().next_back().is_some_and(is_name)
                && !text[at + name.len()..].chars().next().is_some_and(is_name)
        })
}

fn shorten(message: &str) -> String {
    let mut text: String = message.trim_end().chars().take(REFUSAL_LIMIT).collect();
    if text.len() < message.trim_end().len() {
        text.push_str(" ...");
    }
    text
}

/// Notes what has been acknowledged, unless a refusal stands.
fn settle<'a>(stream: &mut Stream, acks: impl Iterator<Item = &'a Acks> + Clone) {
    if acks.clone().all(|acks| acks.rejected.is_empty()) {
        let open = acks.filter_map(|acks| acks.in_flight.front()).map(|sent| sent.sequence).min();
        stream.settle(open);
    }
}

/// The standing of a stream from that of its types.
fn standing<'a>(stream: &Stream, acks: impl Iterator<Item = &'a Acks> + Clone, all_sent: bool) -> Standing {
    let pending = acks.clone().map(Acks::pending).sum();
    let settled = all_sent && acks.clone().all(|acks| acks.in_flight.is_empty() && acks.rejected.is_empty());
    let quiet = all_sent && acks.clone().all(|acks| acks.in_flight.is_empty());
    let open = acks.clone().filter_map(|acks| acks.in_flight.front()).map(|sent| sent.sequence).min();
    let answered = stream.answered(open);
    let refused: Vec<RefusedNames> = acks.filter_map(Acks::refused).collect();
    let refusal = refused.iter().map(|refused| &refused.refusal).max_by_key(|refusal| refusal.at).cloned();
    let progress = Progress { acknowledged: stream.acknowledged, settled, answered, quiet, on_demand: false };
    Standing { progress, pending, refusal, refused }
}
