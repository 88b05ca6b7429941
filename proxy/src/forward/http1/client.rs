//! The client's side between requests: waiting, reading heads, and parting.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::request::Request;
use crate::clock;
use crate::drain::Place;
use crate::failure::{Failed, Failure};
use crate::forward::Service;
use crate::forward::routing::Routing;
use crate::forward::timer::Timer;
use crate::http1::HeadScan;
use crate::http2;
use crate::stream::Connection;

/// The client of one connection.
#[derive(Debug)]
pub(super) struct Client<'a> {
    place: Place<'a>,
    timer: Timer,
    /// Since when no request has been under way.
    rests_since: Instant,
    /// Requests that were read: what comes next, if anything, is another one.
    asked: u32,
    /// When the connection has lived for as long as its listener allows.
    closes_at: Option<Instant>,
}

/// What comes from the client next.
pub(super) enum Next {
    Request(Request),
    /// What comes is no request: the client has begun with the preface of HTTP/2.
    Http2,
    /// Nothing: the connection is over.
    Over,
}

/// Why waiting for bytes ended.
enum Woken {
    Bytes,
    Closed,
    TimedOut,
    Draining,
}

impl<'a> Client<'a> {
    pub(super) fn new(service: &Service<'_>, place: Place<'a>) -> Self {
        let now = clock::now();
        let closes_at = service.http.is_some().then(|| service.closes_at(now)).flatten();
        Self { place, timer: Timer::default(), rests_since: now, asked: 0, closes_at }
    }

    /// Waits for what is next.
    pub(super) async fn next(
        &mut self,
        service: &Service<'_>,
        connection: &mut Connection,
        routing: &mut Routing,
    ) -> Result<Next, Failed> {
        let mut head_since = None;
        let mut scan = HeadScan::default();
        loop {
            let preface = if self.asked > 0 { None } else { http2::is_preface(connection.data()) };
            match preface {
                Some(true) => return Ok(Next::Http2),
                // As far as it has come.
                Some(false) => {}
                None if connection.data().is_empty() => {}
                None => {
                    if scan.should_parse(connection.data()) {
                        let is_last = self.is_last(service);
                        if let Some(request) = Request::read(service, connection, routing, is_last)? {
                            self.asked = self.asked.saturating_add(1);
                            return Ok(Next::Request(request));
                        }
                        // What is here counts as searched; what of it was an empty line is gone.
                        scan.consumed(drop_empty_lines(connection));
                    }
                    within_limits(service, connection)?;
                }
            }
            let is_idle = connection.data().is_empty();
            // A head's time runs from its first byte on: byte by byte it would never be over.
            let since = if is_idle { self.rests_since } else { *head_since.get_or_insert_with(clock::now) };
            match poll_fn(|cx| self.poll_bytes(service, connection, is_idle, since, cx)).await {
                Woken::Bytes => {}
                Woken::Closed | Woken::Draining => return Ok(Next::Over),
                Woken::TimedOut if is_idle => return Ok(Next::Over),
                Woken::TimedOut => {
                    let limit = service.head_timeout();
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
        if !is_idle {
            return self.timer.poll(since + service.head_timeout(), cx).map(|()| Woken::TimedOut);
        }
        if !service.worker.drain.closes_idle(service.direction) {
            self.place.wait(cx.waker());
            let idle_until = since + service.client_idle();
            let until = self.closes_at.map_or(idle_until, |closes_at| closes_at.min(idle_until));
            return self.timer.poll(until, cx).map(|()| Woken::TimedOut);
        }
        // Inside another connection the caller learns of the drain from that one, and begins nothing here.
        if self.asked > 0 && !connection.is_inside() {
            return Poll::Ready(Woken::Draining);
        }
        // Whoever has just connected does not know of the drain: its first request is still answered.
        self.timer.poll(since + service.linger(), cx).map(|()| Woken::TimedOut)
    }

    /// The last request was answered, now.
    pub(super) fn rests(&mut self, now: Instant) {
        self.rests_since = now;
    }

    /// The request that comes now is the last one, by the listener's word.
    fn is_last(&self, service: &Service<'_>) -> bool {
        service.is_last(self.asked.saturating_add(1))
            || self.closes_at.is_some_and(|closes_at| clock::now() >= closes_at)
    }

    /// The one timer of this connection, for as long as a request is answered.
    pub(super) fn take_timer(&mut self) -> Timer {
        std::mem::take(&mut self.timer)
    }

    pub(super) fn return_timer(&mut self, timer: Timer) {
        self.timer = timer;
    }

    /// Reads and drops what the client still sends, so that closing does not destroy the answer on its way (RFC 9112
    /// section 9.6).
    pub(super) async fn linger(&mut self, service: &Service<'_>, connection: &mut Connection) {
        let limit: Duration = service.linger();
        let _ = tokio::time::timeout(limit, connection.linger()).await;
    }
}

/// Empty lines before a request are nothing (RFC 9112 section 2.2); dropped, they are not read again with every byte.
fn drop_empty_lines(connection: &mut Connection) -> usize {
    let count = connection.data().chunks_exact(2).take_while(|pair| pair == b"\r\n").count() * 2;
    connection.consume(count);
    count
}

/// More than a method and a version.
const AROUND_TARGET: usize = 128;

/// A head that is not complete may still grow.
fn within_limits(service: &Service<'_>, connection: &Connection) -> Result<(), Failed> {
    let limits = service.limits();
    let found = connection.data().len();
    let limit = limits.target_bytes;
    if found > limit + AROUND_TARGET && memchr::memchr(b'\n', connection.data()).is_none() {
        return Err(Failure::TargetTooLong.with(format!("limit {limit} bytes, found {found} without an end")));
    }
    let limit = limits.head_bytes;
    if connection.is_full() || found > limit {
        return Err(Failure::HeadTooLarge.with(format!("limit {limit} bytes, found {found} without an end")));
    }
    Ok(())
}
