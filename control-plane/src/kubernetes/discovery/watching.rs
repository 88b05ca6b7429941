//! The watches: one task for each kind of object, which tells what it hears to the one who keeps the copies.
//!
//! A watch that fails begins again with a complete list: what went meanwhile is then known to be gone, and that the list
//! came is the proof that the watch is well. Its tries are spread and grow apart. Nothing is lost on the way: where the keeper
//! is slow, watches wait, and the API server's buffers with them.

use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::Api;
use kube::api::Resource;
use kube::runtime::watcher::{self, Event, watcher};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::health::Health;
use super::mirror::Step;
use super::object::ObjectName;
use crate::kubernetes::causes::chain;

/// A watch is asked anew so often: a server that vanished without a word is noticed a little later. (Between two events
/// an open watch looks like a dead one.)
const WATCH_SECONDS: u32 = 60;
/// Objects asked for at once in a list.
const PAGE: u32 = 500;
/// Waits between tries: the first, doubled each time, up to the longest; each is spread over its upper half.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// A watch that held so long was a good one: the next waits are short again. (That a list came is not enough, where what
/// follows it fails: the lists would be asked for four times a second.)
const HELD: Duration = Duration::from_secs(30);

/// One watch: what is watched, and what becomes of it.
pub(super) struct Watching<K, T, U> {
    pub(super) api: Api<K>,
    /// As metrics and messages call it.
    pub(super) resource: String,
    /// What is kept of an object.
    pub(super) keep: fn(K) -> Option<T>,
    /// What the keeper is told.
    pub(super) tell: Box<dyn Fn(Step<T>) -> U + Send + Sync>,
    pub(super) keeper: mpsc::Sender<U>,
    pub(super) health: Arc<Health>,
}

impl<K, T, U> Watching<K, T, U>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    T: Send,
    U: Send,
{
    /// Watches until nobody listens any more.
    pub(super) async fn run(self, mut rng: fastrand::Rng) {
        self.health.begins(&self.resource);
        let mut waits = Waits::default();
        loop {
            let began = weft_proxy::clock::now();
            match self.attempt().await {
                Ok(()) => return,
                Err(error) => self.failed(&error),
            }
            if began.elapsed() > HELD {
                waits.reset();
            }
            tokio::time::sleep(waits.next(&mut rng)).await;
        }
    }

    /// From a list to the first failure; `Ok` when nobody listens any more.
    async fn attempt(&self) -> Result<(), watcher::Error> {
        let settings = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
        let mut events = pin!(watcher(self.api.clone(), settings));
        while let Some(event) = events.next().await {
            let event = event?;
            let now = weft_proxy::clock::now();
            self.health.heard(&self.resource, now);
            let is_complete = matches!(event, Event::InitDone);
            let told = self.keeper.send((self.tell)(self.step(event))).await;
            if told.is_err() {
                return Ok(());
            }
            if is_complete && let Some(lost) = self.health.synced(&self.resource, now) {
                tracing::info!(resource = self.resource, seconds = lost.as_secs(), "a lost watch is back");
            }
        }
        Ok(())
    }

    fn step(&self, event: Event<K>) -> Step<T> {
        let name = |object: &K| ObjectName::of(object.meta());
        match event {
            Event::Init => Step::Begin,
            Event::InitApply(object) => Step::Listed(name(&object), (self.keep)(object)),
            Event::InitDone => Step::Complete,
            Event::Apply(object) => Step::Set(name(&object), (self.keep)(object)),
            Event::Delete(object) => Step::Gone(name(&object)),
        }
    }

    fn failed(&self, error: &watcher::Error) {
        let reason = chain(error);
        if self.health.failed(&self.resource, reason.clone(), weft_proxy::clock::now()) {
            tracing::warn!(resource = self.resource, %reason, "a watch is lost; what it said last stays in force");
        } else {
            tracing::debug!(resource = self.resource, %reason, "the watch is still lost");
        }
    }
}

/// How long to wait before the next try.
#[derive(Debug, Default)]
pub(super) struct Waits {
    tries: u32,
}

impl Waits {
    pub(super) fn next(&mut self, rng: &mut fastrand::Rng) -> Duration {
        let longest = FIRST_WAIT.saturating_mul(1_u32.checked_shl(self.tries).unwrap_or(u32::MAX)).min(LONGEST_WAIT);
        self.tries = self.tries.saturating_add(1);
        longest.mul_f64(0.5 + rng.f64() / 2.0)
    }

    pub(super) fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_are_spread_and_have_an_end() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut waits = Waits::default();
        let ceilings = [250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000].map(Duration::from_millis);
        for ceiling in ceilings {
            let wait = waits.next(&mut rng);
            assert!(wait >= ceiling / 2 && wait <= ceiling, "{wait:?} of {ceiling:?}");
        }
        waits.tries = u32::MAX;
        assert!(waits.next(&mut rng) <= LONGEST_WAIT);
        waits.reset();
        assert!(waits.next(&mut rng) <= FIRST_WAIT);
    }
}
