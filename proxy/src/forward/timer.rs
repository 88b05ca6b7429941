//! One timer for the many waits of a connection.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::task::coop::unconstrained;
use tokio::time::Sleep;

/// Made when its connection first waits, armed again only when it fires: most waits end long before.
#[derive(Debug, Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whom it wakes when it fires.
    waker: Option<Waker>,
}

impl Timer {
    /// Ready when it is `deadline`, or later.
    pub(super) fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        let is_late = sleep.deadline() > deadline.into();
        if is_late {
            sleep.as_mut().reset(deadline.into());
        }
        // It fires no later, and wakes this task: nothing to do for most waits.
        let is_set = !is_late && self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if is_set && !sleep.is_elapsed() {
            return Poll::Pending;
        }
        // Outside the runtime's budget for this task: when that is used up, the timer would not learn whom to wake.
        while Pin::new(&mut unconstrained(sleep.as_mut())).poll(cx).is_ready() {
            if sleep.deadline() >= deadline.into() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline.into());
        }
        if !is_set {
            self.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}
