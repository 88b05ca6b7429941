//! Time that passes when a test says so.
//!
//! Everything of a test is on one thread. Between two moments all tasks run until they have nothing to do; then the next
//! sleeper wakes. Should they have had something to do after all, it took them until the next moment.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;
use weft_proxy::clock;

use super::Time;

/// More than any chain of tasks that wake each other here is long.
const TURNS: usize = 30;

/// A clock that runs at `rate` times the speed of simulated time. Clones are the same.
#[derive(Clone)]
pub(crate) struct SimulatedTime {
    shared: Arc<Shared>,
    rate: f64,
}

struct Shared {
    start: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    passed: Duration,
    next: u64,
    sleepers: BTreeMap<(Duration, u64), oneshot::Sender<()>>,
}

impl SimulatedTime {
    pub(crate) fn new() -> Self {
        let shared = Shared { start: clock::now(), state: Mutex::default() };
        Self { shared: Arc::new(shared), rate: 1.0 }
    }

    /// The same time on a clock of another speed.
    pub(crate) fn drifting(&self, rate: f64) -> Self {
        Self { shared: Arc::clone(&self.shared), rate }
    }

    pub(crate) fn passed(&self) -> Duration {
        self.shared.state.lock().unwrap().passed
    }

    /// Lets `duration` pass, with everything that happens in it.
    pub(crate) async fn pass(&self, duration: Duration) {
        let end = self.passed() + duration;
        loop {
            settle().await;
            let mut state = self.shared.state.lock().unwrap();
            let Some(first) = state.sleepers.first_entry().filter(|first| first.key().0 <= end) else {
                state.passed = end;
                return;
            };
            let ((when, _), sleeper) = first.remove_entry();
            state.passed = state.passed.max(when);
            // Nobody: it was given up.
            let _ = sleeper.send(());
        }
    }
}

/// Lets all tasks run until they have nothing to do.
pub(crate) async fn settle() {
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
}

impl Time for SimulatedTime {
    fn now(&self) -> Instant {
        self.shared.start + self.passed().mul_f64(self.rate)
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.passed()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        let (wake, woken) = oneshot::channel();
        let mut state = self.shared.state.lock().unwrap();
        // Never too short by rounding: the clock must have come that far.
        let when = state.passed + duration.div_f64(self.rate) + Duration::from_nanos(10);
        let number = state.next;
        state.next += 1;
        state.sleepers.insert((when, number), wake);
        async move { drop(woken.await) }
    }
}
