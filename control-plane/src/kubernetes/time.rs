//! The clocks and the patience of what runs by time here: given to it, so that hours of it can be tested in moments.

#[cfg(test)]
pub(super) mod simulated;

use std::time::{Duration, Instant, SystemTime};

use weft_proxy::clock;

/// A replica's time.
pub(super) trait Time: Clone + Send + Sync + 'static {
    fn now(&self) -> Instant;
    fn wall(&self) -> SystemTime;
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send;
}

#[derive(Debug, Clone, Copy)]
pub(super) struct RealTime;

impl Time for RealTime {
    fn now(&self) -> Instant {
        clock::now()
    }

    fn wall(&self) -> SystemTime {
        clock::wall()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(duration)
    }
}

/// The outcome of `work`, unless `limit` is over before.
pub(super) async fn within<T: Time, W: Future>(time: &T, limit: Duration, work: W) -> Option<W::Output> {
    tokio::select! {
        outcome = work => Some(outcome),
        () = time.sleep(limit) => None,
    }
}

/// Sleeps until `when`; `None`: for ever.
pub(super) async fn sleep_until<T: Time>(time: &T, when: Option<Instant>) {
    let Some(when) = when else { return std::future::pending().await };
    loop {
        let left = when.saturating_duration_since(time.now());
        if left.is_zero() {
            return;
        }
        time.sleep(left).await;
    }
}
