//! How long an exchange may take, and how long it may rest.
//!
//! Both share the one timer of the client's connection, which is armed again only when it fires: an exchange that ends soon
//! costs no registration. Rest is noticed by looking a few times whether anything has moved, so that no byte that moves
//! costs a look at the clock.

use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::timer::Timer;
use crate::clock;

/// Looks without movement after which an exchange rests: it is noticed after the limit, and a quarter of it at most.
const LOOKS: u32 = 4;

/// What is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired {
    /// The route's time for the whole answer.
    Request,
    /// The time in which something must move.
    Rest,
}

#[derive(Debug)]
pub(super) struct Patience<'t> {
    timer: &'t mut Timer,
    deadline: Option<Instant>,
    interval: Duration,
    look_at: Instant,
    /// Looks in a row that saw no movement.
    rested: u32,
    moved: u64,
}

impl<'t> Patience<'t> {
    /// `rest`: how long nothing may move.
    pub(super) fn new(timer: &'t mut Timer, started: Instant, deadline: Option<Instant>, rest: Duration) -> Self {
        let interval = rest / LOOKS;
        Self { timer, deadline, interval, look_at: started + interval, rested: 0, moved: 0 }
    }

    /// When the route's time is over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Called when an exchange has to wait: `moved` changes with every byte.
    pub(super) fn poll(&mut self, moved: u64, cx: &mut Context<'_>) -> Poll<Expired> {
        loop {
            let next = self.deadline.map_or(self.look_at, |deadline| deadline.min(self.look_at));
            ready!(self.timer.poll(next, cx));
            if self.deadline.is_some_and(|deadline| deadline <= next) {
                return Poll::Ready(Expired::Request);
            }
            self.rested = if moved == self.moved { self.rested + 1 } else { 0 };
            self.moved = moved;
            if self.rested >= LOOKS {
                return Poll::Ready(Expired::Rest);
            }
            self.look_at = clock::now() + self.interval;
        }
    }
}
