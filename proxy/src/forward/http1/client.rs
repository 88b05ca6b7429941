//! The client's side between requests: waiting, reading heads, and parting.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use super::Routing;
use super::request::Request;
use crate::clock;
use crate::drain::Place;
use crate::failure::{Failed, Failure};
use crate::forward::Service;
use crate::http1::HeadError;
use crate::stream::Connection;

/// The client of one connection.
#[derive(Debug)]
pub(super) struct Client<'a> {
    place: Place<'a>,
    /// Made when the connection first waits, armed again only when it fires: most waits end long before.
    timer: Option<Pin<Box<Sleep>>>,
    /// A request was read: what comes next, if anything, is another one.
    has_asked: bool,
}

/// Why waiting for bytes ended.
enum Woken {
    Bytes,
    Closed,
    TimedOut,
    Draining,
}

impl<'a> Client<'a> {
    pub(super) fn new(place: Place<'a>) -> Self {
        Self { place, timer: None, has_asked: false }
    }

    /// The next request; `None` when the connection is over.
    pub(super) async fn next(
        &mut self,
        service: &Service<'_>,
        connection: &mut Connection,
        routing: &mut Routing,
    ) -> Result<Option<Request>, Failed> {
        let mut head_since = None;
        loop {
            if !connection.data().is_empty() {
                if let Some(request) = Request::read(service, connection, routing)? {
                    self.has_asked = true;
                    return Ok(Some(request));
                }
                if connection.is_full() {
                    return Err(HeadError::TooLong.into());
                }
            }
            let is_idle = connection.data().is_empty();
            let now = clock::now();
            // A head's time runs from its first byte on: byte by byte it would never be over.
            let since = if is_idle { now } else { *head_since.get_or_insert(now) };
            match poll_fn(|cx| self.poll_bytes(service, connection, is_idle, since, cx)).await {
                Woken::Bytes => {}
                Woken::Closed | Woken::Draining => return Ok(None),
                Woken::TimedOut if is_idle => return Ok(None),
                Woken::TimedOut => {
                    let limit = service.worker.timeouts.head;
                    return Err(Failure::ClientTimeout.with(format!("limit {limit:?} from its first byte to its last")));
                }
            }
        }
    }

    fn poll_bytes(
        &mut self,
        service: &Service<'_>,
        connection: &mut Connection,
        is_idle: bool,
        since: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<Woken> {
        match connection.poll_fill(cx) {
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Woken::Closed),
            Poll::Ready(Ok(_)) => return Poll::Ready(Woken::Bytes),
            Poll::Pending => {}
        }
        let timeouts = &service.worker.timeouts;
        if !is_idle {
            return self.poll_deadline(since + timeouts.head, cx);
        }
        if !service.worker.drain.is_draining(service.direction) {
            self.place.wait(cx.waker());
            return self.poll_deadline(since + timeouts.client_idle, cx);
        }
        if self.has_asked {
            return Poll::Ready(Woken::Draining);
        }
        // Whoever has just connected does not know of the drain: its first request is still answered.
        self.poll_deadline(since + timeouts.linger, cx)
    }

    fn poll_deadline(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<Woken> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        if timer.deadline() > deadline.into() {
            timer.as_mut().reset(deadline.into());
        }
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= deadline.into() {
                return Poll::Ready(Woken::TimedOut);
            }
            timer.as_mut().reset(deadline.into());
        }
        Poll::Pending
    }

    /// Reads and drops what the client still sends, so that closing does not destroy the answer on its way (RFC 9112
    /// section 9.6).
    pub(super) async fn linger(&mut self, service: &Service<'_>, connection: &mut Connection) {
        let limit: Duration = service.worker.timeouts.linger;
        let _ = tokio::time::timeout(limit, async {
            if poll_fn(|cx| connection.poll_shutdown(cx)).await.is_err() {
                return;
            }
            loop {
                let length = connection.data().len();
                connection.consume(length);
                if !matches!(connection.fill().await, Ok(1..)) {
                    return;
                }
            }
        })
        .await;
    }
}
