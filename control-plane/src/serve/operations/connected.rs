//! The proxies that can be asked now.
//!
//! Streams are few for each workload ([`MOST_OF_WORKLOAD`]): a program that drains and the one that took over have one each, and
//! the newest is asked. Workloads that documents speak of bound the others; of those that none speaks of there are
//! [`MOST_UNKNOWN`] at most. Whose a workload is may be learned after its proxy came: it is looked at again with each question.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc, oneshot};
use weft_core::names::SpiffeId;
use weft_proto::weft::Introduction;
use weft_proto::weft::question::Question;

use super::{Answer, AskError};
use crate::world::{WorkloadKey, World};

/// Streams of one workload; the oldest goes when another comes. 4: a program may replace one that replaced one.
const MOST_OF_WORKLOAD: usize = 4;
/// Workloads that no document speaks of: nobody can say whose they are, so nobody may have any number of them.
const MOST_UNKNOWN: usize = 1024;
/// Questions on their way to one stream's task.
const QUEUE: usize = 8;

/// A connected proxy, as it introduced itself.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectedProxy {
    pub workload: WorkloadKey,
    pub identity: SpiffeId,
    pub introduction: Introduction,
    /// Seconds since the Unix epoch.
    pub connected_since: i64,
}

/// A question, and who waits for its answer.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) question: Question,
    pub(super) answered: oneshot::Sender<Result<Answer, AskError>>,
}

/// The open streams.
#[derive(Debug)]
pub(super) struct Streams {
    world: Arc<World>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    last: u64,
    /// By workload, the oldest first.
    workloads: BTreeMap<WorkloadKey, Vec<Record>>,
    /// Those of them that no document spoke of when they came.
    unknown: usize,
}

#[derive(Debug)]
struct Record {
    id: u64,
    is_unknown: bool,
    proxy: ConnectedProxy,
    questions: mpsc::Sender<Asked>,
    /// Told when the stream is to end, as newer ones are there.
    superseded: Arc<Notify>,
}

impl Open {
    /// Looks which of the unknown have become known.
    fn learn(&mut self, world: &Arc<World>) {
        for record in self.workloads.values_mut().flatten().filter(|record| record.is_unknown) {
            if world.view(&record.proxy.workload).account().is_some() {
                record.is_unknown = false;
                self.unknown -= 1;
            }
        }
    }
}

/// Too many streams of workloads that nobody knows.
#[derive(Debug, thiserror::Error)]
#[error("{MOST_UNKNOWN} streams are open of workloads that no document speaks of; describe workload {0} by a Workload")]
pub(super) struct TooManyUnknown(WorkloadKey);

impl Streams {
    pub(super) fn new(world: Arc<World>) -> Self {
        Self { world, open: Mutex::default() }
    }

    /// Enters a stream until the returned value is dropped. The oldest of its workload is told to end where there are too many.
    pub(super) fn enter(self: &Arc<Self>, proxy: ConnectedProxy) -> Result<Entered, TooManyUnknown> {
        let is_unknown = self.world.view(&proxy.workload).account().is_none();
        let (sender, questions) = mpsc::channel(QUEUE);
        let superseded = Arc::new(Notify::new());
        let mut open = self.open();
        if is_unknown && open.unknown >= MOST_UNKNOWN {
            open.learn(&self.world);
            if open.unknown >= MOST_UNKNOWN {
                return Err(TooManyUnknown(proxy.workload));
            }
        }
        open.unknown += usize::from(is_unknown);
        open.last += 1;
        let (id, workload) = (open.last, proxy.workload.clone());
        let records = open.workloads.entry(workload.clone()).or_default();
        // It leaves the list with its task's end.
        if let Some(surplus) = (records.len() + 1).checked_sub(MOST_OF_WORKLOAD) {
            records.iter().take(surplus).for_each(|record| record.superseded.notify_one());
        }
        records.push(Record { id, is_unknown, proxy, questions: sender, superseded: Arc::clone(&superseded) });
        Ok(Entered { streams: Arc::clone(self), id, workload, questions, superseded })
    }

    pub(super) fn proxies(&self) -> Vec<ConnectedProxy> {
        let open = self.open();
        let newest = open.workloads.values().filter_map(|records| records.last());
        newest.map(|record| record.proxy.clone()).collect()
    }

    /// Hands a question to the newest stream of a workload that is the workload's own.
    pub(super) fn hand(&self, workload: &str, asked: Asked) -> Result<(), AskError> {
        let account = self.world.view(&WorkloadKey::from(workload)).account().map(str::to_owned);
        let is_own = |record: &&Record| {
            account.as_deref().is_none_or(|account| account == record.proxy.identity.service_account())
        };
        let questions = {
            let open = self.open();
            let newest = open.workloads.get(workload).and_then(|records| records.iter().rev().find(is_own));
            newest.map(|record| record.questions.clone()).ok_or(AskError::NotConnected)?
        };
        questions.try_send(asked).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AskError::Busy,
            mpsc::error::TrySendError::Closed(_) => AskError::Gone,
        })
    }

    /// Streams of a workload.
    #[cfg(test)]
    pub(super) fn count(&self, workload: &str) -> usize {
        self.open().workloads.get(workload).map_or(0, Vec::len)
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that is entered, and what it is asked.
#[derive(Debug)]
pub(super) struct Entered {
    streams: Arc<Streams>,
    id: u64,
    workload: WorkloadKey,
    pub(super) questions: mpsc::Receiver<Asked>,
    pub(super) superseded: Arc<Notify>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut open = self.streams.open();
        let open = &mut *open;
        let Some(records) = open.workloads.get_mut(&self.workload) else { return };
        if let Some(place) = records.iter().position(|record| record.id == self.id) {
            open.unknown -= usize::from(records.remove(place).is_unknown);
        }
        if records.is_empty() {
            open.workloads.remove(&self.workload);
        }
    }
}
