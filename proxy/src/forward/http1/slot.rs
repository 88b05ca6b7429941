//! Where a request is answered: memory that an idle connection does not own.
//!
//! What answering a request keeps is several times what waiting for one does, and most connections wait. A slot is one
//! future that answers request after request for whoever has it. Slots are lent as buffers are, so that neither an idle
//! connection pays for one nor a request allocates.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::request::Direct;
use super::{End, answer};
use crate::forward::Service;
use crate::forward::service::OwnedService;
use crate::forward::timer::Timer;
use crate::stream::Connection;

/// Free slots kept per worker, as many as small buffers; what comes back beyond that is freed.
const KEPT: usize = 128;

thread_local! {
    static FREE: RefCell<Vec<Slot>> = const { RefCell::new(Vec::new()) };
}

/// What is put into a slot.
struct Task {
    service: OwnedService,
    client: Connection,
    request: Direct,
    timer: Timer,
}

/// What is taken back.
pub(super) struct Answered {
    pub(super) client: Connection,
    pub(super) timer: Timer,
    pub(super) end: End,
    /// When that was.
    pub(super) at: Instant,
}

/// Between the connection and the future that works for it.
#[derive(Default)]
struct Mailbox {
    task: Cell<Option<Task>>,
    answered: Cell<Option<Answered>>,
}

struct Slot {
    work: Pin<Box<dyn Future<Output = ()>>>,
    mailbox: Rc<Mailbox>,
}

impl Slot {
    fn take() -> Self {
        FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| {
            let mailbox = Rc::<Mailbox>::default();
            Self { work: Box::pin(work(Rc::clone(&mailbox))), mailbox }
        })
    }

    /// Only when its last request is answered: it then holds nothing of anybody's.
    fn give(self) {
        FREE.with_borrow_mut(|free| {
            if free.len() < KEPT {
                free.push(self);
            }
        });
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot")
    }
}

/// Answers one request after the other.
async fn work(mailbox: Rc<Mailbox>) {
    loop {
        // Nobody has to be woken: who brings a task polls.
        let task = poll_fn(|_| mailbox.task.take().map_or(Poll::Pending, Poll::Ready)).await;
        let Task { service, mut client, request, mut timer } = task;
        let (end, at) = answer(&service.lend(), &mut client, request, &mut timer).await;
        drop(service);
        mailbox.answered.set(Some(Answered { client, timer, end, at }));
    }
}

/// A request that is being answered; dropped, it is given up with its connection.
#[derive(Debug)]
pub(super) struct Answering(Option<Slot>);

/// Answers `request`, which came from `client`.
pub(super) fn run(service: &Service<'_>, client: Connection, request: Direct, timer: Timer) -> Answering {
    let slot = Slot::take();
    slot.mailbox.task.set(Some(Task { service: service.to_owned(), client, request, timer }));
    Answering(Some(slot))
}

impl Future for Answering {
    type Output = Answered;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answered> {
        let Some(slot) = &mut self.0 else { return Poll::Pending };
        // Never ready: it waits for its next task.
        let _ = slot.work.as_mut().poll(cx);
        match slot.mailbox.answered.take() {
            Some(answered) => {
                if let Some(slot) = self.0.take() {
                    slot.give();
                }
                Poll::Ready(answered)
            }
            None => Poll::Pending,
        }
    }
}
