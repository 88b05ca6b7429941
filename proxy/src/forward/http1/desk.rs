//! Where a request is answered: memory that an idle connection does not own.
//!
//! What answering a request keeps is several times what waiting for one does, and most connections wait. A desk is one
//! future that answers request after request for whoever sits down at it. Desks are lent as buffers are, so that neither
//! an idle connection pays for one nor a request allocates.

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

/// Free desks kept per worker, as many as small buffers; what comes back beyond that is freed.
const KEPT: usize = 128;

thread_local! {
    static FREE: RefCell<Vec<Desk>> = const { RefCell::new(Vec::new()) };
}

/// What is brought to a desk.
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
struct Tray {
    task: Cell<Option<Task>>,
    answered: Cell<Option<Answered>>,
}

struct Desk {
    work: Pin<Box<dyn Future<Output = ()>>>,
    tray: Rc<Tray>,
}

impl Desk {
    fn take() -> Self {
        FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| {
            let tray = Rc::<Tray>::default();
            Self { work: Box::pin(work(Rc::clone(&tray))), tray }
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

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Desk")
    }
}

/// Answers one request after the other.
async fn work(tray: Rc<Tray>) {
    loop {
        // Nobody has to be woken: who brings a task polls.
        let task = poll_fn(|_| tray.task.take().map_or(Poll::Pending, Poll::Ready)).await;
        let Task { service, mut client, request, mut timer } = task;
        let (end, at) = answer(&service.lend(), &mut client, request, &mut timer).await;
        drop(service);
        tray.answered.set(Some(Answered { client, timer, end, at }));
    }
}

/// A request that is being answered; dropped, it is given up with its connection.
#[derive(Debug)]
pub(super) struct Answering(Option<Desk>);

/// Answers `request`, which came from `client`.
pub(super) fn sit(service: &Service<'_>, client: Connection, request: Direct, timer: Timer) -> Answering {
    let desk = Desk::take();
    desk.tray.task.set(Some(Task { service: service.to_owned(), client, request, timer }));
    Answering(Some(desk))
}

impl Future for Answering {
    type Output = Answered;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answered> {
        let Some(desk) = &mut self.0 else { return Poll::Pending };
        // Never ready: it waits for its next task.
        let _ = desk.work.as_mut().poll(cx);
        match desk.tray.answered.take() {
            Some(answered) => {
                if let Some(desk) = self.0.take() {
                    desk.give();
                }
                Poll::Ready(answered)
            }
            None => Poll::Pending,
        }
    }
}
