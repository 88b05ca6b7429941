//! Destinations that are asked for one by one, by the connections that need them.
//!
//! A proxy that asks holds what its workload calls, and no more. A connection to an address that nothing is known of puts
//! it into this table and waits for the answer; the task that has the stream to the control plane asks, and tells every
//! waiter by closing a channel. An answer stays a subscription, also that nobody is there: it is told when it changes. Here is
//! what both sides share; who asks and what is given up is decided by that task.
//!
//! The table is looked at only for addresses that have no listener. It is bounded: of answers by the task, of addresses not
//! answered yet by [`AWAITED`]; one more goes without an answer, as does every unknown address while there is no stream.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::snapshot::unmapped;

/// Addresses asked for and not answered. 1,024: more at once is a scan, not a workload.
const AWAITED: usize = 1024;
/// Answers that nobody is there: addresses outside the mesh.
const NOBODIES: usize = 1024;
/// Services' ports and workloads.
const SOMEBODIES: usize = 4096;

/// Who is behind an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Service,
    Peer,
    Nobody,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Service, Self::Peer, Self::Nobody];

    /// What metrics and people call it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Peer => "peer",
            Self::Nobody => "nobody",
        }
    }
}

/// How an address is used. Marked by connections, read by whoever makes room.
#[derive(Debug)]
pub struct Usage {
    since: Instant,
    /// Milliseconds from `since` to when a connection last began or ended.
    last: AtomicU64,
    open: AtomicUsize,
}

/// A connection that lives.
#[derive(Debug)]
pub struct InUse(Arc<Usage>);

/// What is known of an address.
#[derive(Debug)]
pub enum Look {
    Answered(Kind, Arc<Usage>),
    /// Closes when there is an answer.
    Wait(watch::Receiver<()>),
    /// Nobody can be asked now.
    Unasked(Unasked),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unasked {
    Unconnected,
    /// Somebody has waited for it in vain.
    Late,
    /// Too many are waited for.
    Full,
}

/// The addresses asked for.
#[derive(Debug)]
pub struct Demand {
    table: RwLock<HashMap<SocketAddr, Asked>>,
    awaited: AtomicUsize,
    asks: mpsc::Sender<SocketAddr>,
    is_connected: AtomicBool,
    limits: Limits,
}

/// How many answers are kept.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub nobodies: usize,
    pub somebodies: usize,
}

#[derive(Debug)]
struct Asked {
    state: State,
    usage: Arc<Usage>,
}

#[derive(Debug)]
enum State {
    Awaited {
        /// Dropping it wakes all who wait.
        told: watch::Sender<()>,
        /// Somebody has waited in vain.
        is_late: bool,
    },
    Answered(Kind),
}

/// An address that was asked for, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedSummary {
    pub address: SocketAddr,
    /// `None` before there is an answer.
    pub answer: Option<Kind>,
    pub open: usize,
    pub last: Instant,
}

impl Default for Limits {
    fn default() -> Self {
        Self { nobodies: NOBODIES, somebodies: SOMEBODIES }
    }
}

impl Usage {
    pub fn new(now: Instant) -> Self {
        Self { since: now, last: AtomicU64::new(0), open: AtomicUsize::new(0) }
    }

    /// Counts a connection until the mark is dropped.
    pub fn begin(self: &Arc<Self>, now: Instant) -> InUse {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.touch(now);
        InUse(Arc::clone(self))
    }

    fn touch(&self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since).as_millis();
        self.last.fetch_max(u64::try_from(elapsed).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub fn last(&self) -> Instant {
        self.since + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.touch(crate::clock::now());
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Demand {
    /// The table, and where its asks arrive.
    pub fn new(limits: Limits) -> (Self, mpsc::Receiver<SocketAddr>) {
        // Every awaited address has room: an ask is never refused for a full queue.
        let (asks, receiver) = mpsc::channel(AWAITED);
        let demand = Self {
            table: RwLock::default(),
            awaited: AtomicUsize::new(0),
            asks,
            is_connected: AtomicBool::new(false),
            limits,
        };
        (demand, receiver)
    }

    /// What is known of an address that has no listener; asks where nothing is.
    pub fn look(&self, destination: SocketAddr, now: Instant) -> Look {
        let destination = unmapped(destination);
        if let Some(known) = self.known(destination) {
            return known;
        }
        if !self.is_connected.load(Ordering::Acquire) {
            return Look::Unasked(Unasked::Unconnected);
        }
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(asked) = table.get(&destination) {
            return asked.look();
        }
        if self.awaited.load(Ordering::Relaxed) >= AWAITED || self.asks.try_send(destination).is_err() {
            return Look::Unasked(Unasked::Full);
        }
        let (told, receiver) = watch::channel(());
        let asked = Asked { state: State::Awaited { told, is_late: false }, usage: Arc::new(Usage::new(now)) };
        table.insert(destination, asked);
        self.awaited.fetch_add(1, Ordering::Relaxed);
        Look::Wait(receiver)
    }

    /// Somebody has waited for an answer in vain: until there is one, or another stream, nobody waits for it again.
    pub fn late(&self, destination: SocketAddr) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(Asked { state: State::Awaited { is_late, .. }, .. }) = table.get_mut(&unmapped(destination)) {
            *is_late = true;
        }
    }

    /// Whether somebody said who has this very address and port.
    pub(super) fn is_answered(&self, destination: SocketAddr) -> bool {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.get(&unmapped(destination)).is_some_and(|asked| asked.answer().is_some())
    }

    fn known(&self, destination: SocketAddr) -> Option<Look> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let asked = table.get(&destination)?;
        if matches!(asked.state, State::Awaited { .. }) && !self.is_connected.load(Ordering::Acquire) {
            return Some(Look::Unasked(Unasked::Unconnected));
        }
        Some(asked.look())
    }

    /// Whether there is a stream to ask on. Without one nobody waits.
    pub fn connected(&self, is_connected: bool) {
        self.is_connected.store(is_connected, Ordering::Release);
        if !is_connected {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            for asked in table.values_mut() {
                if let State::Awaited { .. } = asked.state {
                    asked.state = State::awaited();
                }
            }
        }
    }

    /// Takes in what an earlier life asked for.
    pub fn restore(&self, destination: SocketAddr, now: Instant) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let asked = Asked { state: State::awaited(), usage: Arc::new(Usage::new(now)) };
        if table.insert(destination, asked).is_none() {
            self.awaited.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells an answer, or that there is none yet; false when it is not asked for.
    pub fn answer(&self, destination: SocketAddr, answer: Option<Kind>) -> bool {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let Some(asked) = table.get_mut(&destination) else { return false };
        let was_awaited = matches!(asked.state, State::Awaited { .. });
        match answer {
            Some(kind) => {
                asked.state = State::Answered(kind);
                self.awaited.fetch_sub(usize::from(was_awaited), Ordering::Relaxed);
            }
            None if !was_awaited => {
                asked.state = State::awaited();
                self.awaited.fetch_add(1, Ordering::Relaxed);
            }
            None => {}
        }
        true
    }

    /// Forgets an address: the next connection asks anew.
    pub fn forget(&self, destination: SocketAddr) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(asked) = table.remove(&destination) {
            let was_awaited = matches!(asked.state, State::Awaited { .. });
            self.awaited.fetch_sub(usize::from(was_awaited), Ordering::Relaxed);
        }
    }

    /// Addresses one by one, with their last use and open connections: those of the listener or workload that they lead to
    /// count too, as `used` tells them.
    pub fn summaries(&self, used: impl Fn(SocketAddr) -> Option<Arc<Usage>>) -> Vec<AskedSummary> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let summary = |(address, asked): (&SocketAddr, &Asked)| {
            let other = used(*address);
            let of_other = other.as_ref().map_or((0, asked.usage.last()), |usage| (usage.open(), usage.last()));
            AskedSummary {
                address: *address,
                answer: asked.answer(),
                open: asked.usage.open() + of_other.0,
                last: asked.usage.last().max(of_other.1),
            }
        };
        table.iter().map(summary).collect()
    }

    /// How many answers there are of each kind, in the order of [`Kind::ALL`].
    pub fn counts(&self) -> [usize; 3] {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        Kind::ALL.map(|kind| table.values().filter(|asked| asked.answer() == Some(kind)).count())
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }
}

impl State {
    /// Nobody waits yet.
    fn awaited() -> Self {
        Self::Awaited { told: watch::channel(()).0, is_late: false }
    }
}

impl Asked {
    fn look(&self) -> Look {
        match &self.state {
            State::Awaited { is_late: true, .. } => Look::Unasked(Unasked::Late),
            State::Awaited { told, .. } => Look::Wait(told.subscribe()),
            State::Answered(kind) => Look::Answered(*kind, Arc::clone(&self.usage)),
        }
    }

    fn answer(&self) -> Option<Kind> {
        match self.state {
            State::Awaited { .. } => None,
            State::Answered(kind) => Some(kind),
        }
    }
}

/// The names by which an address is asked for: who has this port of it, and who has it.
pub fn names(destination: SocketAddr) -> [String; 2] {
    [destination.to_string(), destination.ip().to_string()]
}
