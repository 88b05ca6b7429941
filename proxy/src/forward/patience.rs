//! How long an exchange and each of its tries may take, and how long it may rest.
//!
//! All share the one timer of the client's connection, which is armed again only when it fires: an exchange that ends soon
//! costs no registration. Rest is noticed by looking a few times whether anything has moved, so that no byte that moves
//! costs a look at the clock.

use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::timer::Timer;
use crate::clock;
use crate::failure::Failure;

/// Looks without movement after which an exchange rests: it is noticed after the limit, and a quarter of it at most.
const LOOKS: u32 = 4;

/// What is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired {
    /// The route's time for the whole answer.
    Request,
    /// The time of one try for the head of its answer.
    Try,
    /// The time in which something must move.
    Rest,
}

#[derive(Debug)]
pub(super) struct Patience<'t> {
    timer: &'t mut Timer,
    deadline: Option<Instant>,
    /// What a try gets, and when it is over: once all of the request was passed on.
    try_limit: Option<Duration>,
    try_until: Option<Instant>,
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
        Self {
            timer,
            deadline,
            try_limit: None,
            try_until: None,
            interval,
            look_at: started + interval,
            rested: 0,
            moved: 0,
        }
    }

    /// A try begins that gets so long. `is_bare`: its request is nothing but a head.
    pub(super) fn begin_try(&mut self, limit: Option<Duration>, is_bare: bool) {
        self.try_limit = limit;
        self.try_until = limit.filter(|_| is_bare).map(|limit| clock::now() + limit);
    }

    /// Its answer has begun.
    pub(super) fn end_try(&mut self) {
        self.try_limit = None;
        self.try_until = None;
    }

    /// What is over first, of what can be told yet, and what it is called.
    pub(super) fn limit(&self) -> Option<(Instant, Failure)> {
        first_of(self.deadline, self.try_until)
    }

    /// All of the request was passed on: from now on it is the endpoint that takes its time.
    pub(super) fn sent(&mut self) {
        if let (Some(limit), None) = (self.try_limit, self.try_until) {
            self.try_until = Some(clock::now() + limit);
        }
    }

    /// Ready when it is `until`, or the route's time is over.
    pub(super) fn poll_until(&mut self, until: Instant, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match self.deadline.filter(|deadline| *deadline < until) {
            Some(deadline) => self.timer.poll(deadline, cx).map(|()| Err(Failure::RequestTimeout)),
            None => self.timer.poll(until, cx).map(Ok),
        }
    }

    /// Called when an exchange has to wait: `moved` changes with every byte.
    pub(super) fn poll(&mut self, moved: u64, cx: &mut Context<'_>) -> Poll<Expired> {
        loop {
            let limit = self.limit();
            let next = limit.map_or(self.look_at, |(limit, _)| limit.min(self.look_at));
            ready!(self.timer.poll(next, cx));
            match limit {
                Some((limit, Failure::PerTryTimeout)) if limit <= next => return Poll::Ready(Expired::Try),
                Some((limit, _)) if limit <= next => return Poll::Ready(Expired::Request),
                _ => {}
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

/// Which of two ends comes first, and what it is called: that of the whole request, or of one try.
pub(super) fn first_of(request: Option<Instant>, one_try: Option<Instant>) -> Option<(Instant, Failure)> {
    match (request, one_try) {
        (Some(request), Some(one_try)) if one_try < request => Some((one_try, Failure::PerTryTimeout)),
        (Some(request), _) => Some((request, Failure::RequestTimeout)),
        (None, one_try) => Some((one_try?, Failure::PerTryTimeout)),
    }
}
