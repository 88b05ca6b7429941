//! One request and its answer between two connections that are already there.
//!
//! Both ways move at once: an answer may come before the request's body has ended, and neither waits for the other.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::Service;
use super::patience::{Expired, Patience};
use super::pump::{Pump, PumpError};
use crate::clock;
use crate::failure::Failure;
use crate::http1::{
    BodyError, BodyKind, Connection as Keep, FieldStorage, Framing, HeadError, HeadScan, MAX_FIELDS, MAX_HEAD_BYTES,
    ResponseHead, ResponseWrite,
};
use crate::limits::{ADDED_BYTES, ADDED_FIELDS};
use crate::stream::{Connection, take_text};

/// Interim answers passed on for one request; more is an upstream gone wrong.
pub(super) const MAX_INTERIM: u32 = 16;

/// What of the request decides how its answer is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) to_head: bool,
    pub(super) is_http11: bool,
    /// The client wants to keep its connection.
    pub(super) keep_alive: bool,
    /// Its listener allows no further request on this connection.
    pub(super) is_last: bool,
    pub(super) upgrade: bool,
    /// The upstream is a proxy of ours: its `weft-error` is true.
    pub(super) upstream_is_proxy: bool,
    /// When the route's time for an answer is over.
    pub(super) deadline: Option<Instant>,
}

impl Asked {
    /// The client's connection may take another request after this one.
    pub(super) fn may_keep(&self) -> bool {
        self.keep_alive && !self.is_last
    }
}

/// What of the answer's head steers the rest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answered {
    pub(super) status: u16,
    /// The client was told that its connection stays open.
    pub(super) client_keeps: bool,
    pub(super) upstream_keeps: bool,
    pub(super) is_upgrade: bool,
    /// The proxy beside the application says that the application saw nothing of the request.
    pub(super) is_unsent: bool,
    /// How long the upstream says that it keeps the connection idle.
    pub(super) idle_timeout: Option<Duration>,
}

/// `future`, unless its time is over before it is ready.
///
/// # Errors
/// What the future says, or what its limit is called.
pub(super) async fn within<T>(
    limit: Option<(Instant, Failure)>,
    mut future: Pin<&mut impl Future<Output = Result<T, Failure>>>,
) -> Result<T, Failure> {
    let mut timer = pin!(limit.map(|(limit, _)| tokio::time::sleep_until(limit.into())));
    poll_fn(|cx| {
        if let Poll::Ready(result) = future.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        match (timer.as_mut().as_pin_mut(), limit) {
            (Some(timer), Some((_, failure))) => timer.poll(cx).map(|()| Err(failure)),
            _ => Poll::Pending,
        }
    })
    .await
}

/// Sends the request and waits for the head of the answer, which the returned pump has staged.
///
/// # Errors
/// [`Failure`] with nothing of an answer written to the client, unless it was interim.
pub(super) async fn ask(
    service: &Service<'_>,
    client: &mut Connection,
    upstream: &mut Connection,
    request: &mut Pump,
    asked: &Asked,
    patience: &mut Patience<'_>,
) -> Result<(Answered, Pump), Failure> {
    for _ in 0..MAX_INTERIM {
        let mut scan = HeadScan::default();
        let (answered, mut answer, is_interim) = poll_fn(|cx| {
            if let Poll::Ready(result) = poll_head(service, client, upstream, request, asked, &mut scan, cx) {
                return Poll::Ready(result);
            }
            if request.is_finished() {
                patience.sent();
            }
            let moved = request.sent + upstream.data().len() as u64;
            patience.poll(moved, cx).map(|expired| Err(too_late(expired, request, None)))
        })
        .await?;
        if !is_interim {
            return Ok((answered, answer));
        }
        // Not cut off by the deadline: half of an interim answer would spoil the final one.
        poll_fn(|cx| {
            poll_request(client, upstream, request, cx)?;
            if let Poll::Ready(written) = answer.poll(upstream, client, cx) {
                return Poll::Ready(written.map_err(|_| Failure::ClientGone));
            }
            // A client that does not even take an interim answer will take no other.
            match patience.poll(request.sent + answer.sent, cx) {
                Poll::Ready(Expired::Rest) => Poll::Ready(Err(Failure::ClientGone)),
                _ => Poll::Pending,
            }
        })
        .await?;
    }
    Err(Failure::UpstreamProtocol)
}

/// Waits before the request is sent again. A client that hangs up meanwhile takes it back. `is_whole`: all of it was
/// read.
///
/// # Errors
/// [`Failure::ClientGone`], or [`Failure::RequestTimeout`].
pub(super) async fn pause(
    client: &mut Connection,
    is_whole: bool,
    asked: &Asked,
    patience: &mut Patience<'_>,
    wait: Duration,
) -> Result<(), Failure> {
    let until = clock::now() + wait;
    poll_fn(|cx| {
        if is_whole && let Poll::Ready(gone) = poll_client_gone(client, asked, cx) {
            return Poll::Ready(gone);
        }
        patience.poll_until(until, cx)
    })
    .await
}

/// Moves the answer to its end, and what is left of the request meanwhile.
///
/// # Errors
/// When the answer could not be written to its end: the client's connection cannot be used any more.
pub(super) async fn finish(
    client: &mut Connection,
    upstream: &mut Connection,
    request: &mut Pump,
    answer: &mut Pump,
    asked: &Asked,
    patience: &mut Patience<'_>,
) -> Result<(), Failure> {
    poll_fn(|cx| {
        if let Poll::Ready(result) = poll_finish(client, upstream, request, answer, asked, cx) {
            return Poll::Ready(result);
        }
        patience.poll(request.sent + answer.sent, cx).map(|expired| Err(too_late(expired, request, Some(answer))))
    })
    .await
}

fn poll_finish(
    client: &mut Connection,
    upstream: &mut Connection,
    request: &mut Pump,
    answer: &mut Pump,
    asked: &Asked,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Failure>> {
    // A malformed rest of the request is no reason to cut off the answer: the connection is closed after it.
    let asking = poll_request(client, upstream, request, cx);
    match answer.poll(upstream, client, cx) {
        Poll::Ready(result) => Poll::Ready(result.map_err(|error| match error {
            PumpError::Write(_) => Failure::ClientGone,
            PumpError::Read(_) | PumpError::Body(BodyError::Truncated) => Failure::UpstreamClosed,
            PumpError::Body(BodyError::Chunked(_)) => Failure::UpstreamProtocol,
        })),
        // Nobody is left to take the rest, which may be long in coming.
        Poll::Pending if asking == Err(Failure::ClientGone) => Poll::Ready(Err(Failure::ClientGone)),
        Poll::Pending if request.is_finished() => poll_client_gone(client, asked, cx),
        Poll::Pending => Poll::Pending,
    }
}

/// Who kept the other waiting.
fn too_late(expired: Expired, request: &Pump, answer: Option<&Pump>) -> Failure {
    let takes_nothing = answer.is_some_and(Pump::waits_for_sink);
    let sends_nothing = !request.is_finished() && !request.has_failed() && !request.waits_for_sink();
    match expired {
        Expired::Request => Failure::RequestTimeout,
        Expired::Try => Failure::PerTryTimeout,
        Expired::Rest if takes_nothing || sends_nothing => Failure::ClientStalled,
        Expired::Rest => Failure::StreamIdle,
    }
}

/// Moves the request on. A failure of the upstream to take it is not the end: its answer may already be on the way.
fn poll_request(
    client: &mut Connection,
    upstream: &mut Connection,
    request: &mut Pump,
    cx: &mut Context<'_>,
) -> Result<(), Failure> {
    if request.is_finished() || request.has_failed() {
        return Ok(());
    }
    let Poll::Ready(Err(error)) = request.poll(client, upstream, cx) else { return Ok(()) };
    // Once only: a decoder that has refused its bytes must not see them again.
    request.fail();
    match error {
        PumpError::Read(_) | PumpError::Body(BodyError::Truncated) => Err(Failure::ClientGone),
        PumpError::Body(BodyError::Chunked(error)) => {
            tracing::debug!(%error, "request body refused");
            Err(Failure::BadBody)
        }
        PumpError::Write(_) => Ok(()),
    }
}

fn poll_head(
    service: &Service<'_>,
    client: &mut Connection,
    upstream: &mut Connection,
    request: &mut Pump,
    asked: &Asked,
    scan: &mut HeadScan,
    cx: &mut Context<'_>,
) -> Poll<Result<(Answered, Pump, bool), Failure>> {
    poll_request(client, upstream, request, cx)?;
    loop {
        if scan.should_parse(upstream.data())
            && let Some(found) = read_head(service, upstream, request.is_finished(), asked)?
        {
            return Poll::Ready(Ok(found));
        }
        if upstream.is_full() || upstream.data().len() > most_of_a_head(asked).0 {
            return Poll::Ready(Err(Failure::UpstreamLimit));
        }
        match upstream.poll_fill(cx) {
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Failure::UpstreamClosed)),
            Poll::Ready(Ok(_)) => {}
            Poll::Pending => break,
        }
    }
    if request.is_finished() { poll_client_gone(client, asked, cx) } else { Poll::Pending }
}

/// While the upstream works: a client that hangs up takes its request back, and what it sends early waits. One that said
/// that this is its last request may end its side and still read (RFC 9112 section 9.6).
fn poll_client_gone<T>(client: &mut Connection, asked: &Asked, cx: &mut Context<'_>) -> Poll<Result<T, Failure>> {
    while !client.is_full() {
        match client.poll_fill(cx) {
            Poll::Ready(Ok(0)) if !asked.keep_alive => break,
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Failure::ClientGone)),
            Poll::Ready(Ok(_)) => {}
            Poll::Pending => break,
        }
    }
    Poll::Pending
}

/// Bytes and fields of an answer's head. What a proxy of ours passes on may have more by what that one added.
fn most_of_a_head(asked: &Asked) -> (usize, usize) {
    if asked.upstream_is_proxy {
        (MAX_HEAD_BYTES + ADDED_BYTES, MAX_FIELDS + ADDED_FIELDS)
    } else {
        (MAX_HEAD_BYTES, MAX_FIELDS)
    }
}

/// Takes a complete head from the upstream's buffer; the pump has it staged as it goes to the client.
fn read_head(
    service: &Service<'_>,
    upstream: &mut Connection,
    request_is_finished: bool,
    asked: &Asked,
) -> Result<Option<(Answered, Pump, bool)>, Failure> {
    let mut storage = FieldStorage::new();
    let head = match ResponseHead::parse(upstream.data(), &mut storage, asked.to_head) {
        Ok(Some(head)) => head,
        Ok(None) => return Ok(None),
        Err(HeadError::TooManyFields | HeadError::TooLong) => return Err(Failure::UpstreamLimit),
        Err(error) => {
            tracing::debug!(%error, "answer refused");
            return Err(Failure::UpstreamProtocol);
        }
    };
    let (bytes, fields) = most_of_a_head(asked);
    if head.length > bytes || head.field_count() > fields {
        return Err(Failure::UpstreamLimit);
    }
    let is_upgrade = head.status == 101;
    // What is left of the request's body would be taken for bytes of the new protocol.
    if is_upgrade && !(asked.upgrade && request_is_finished) {
        return Err(Failure::UpstreamProtocol);
    }
    let unchunk = !asked.is_http11;
    let ends_with_connection = head.body == BodyKind::UntilClose || unchunk && head.body == BodyKind::Chunked;
    // Asked now, not when the request came: the drain may have begun since.
    let draining = service.worker.drain.is_draining(service.direction);
    let client_keeps = asked.may_keep() && request_is_finished && !ends_with_connection && !draining;
    let is_interim = head.is_informational();
    let connection = match (is_upgrade, is_interim || client_keeps, asked.is_http11) {
        (true, ..) => Keep::Upgrade,
        (false, true, true) => Keep::Persistent,
        (false, true, false) => Keep::KeepAlive,
        (false, false, _) => Keep::Close,
    };
    let mut staged = take_text();
    // Interim answers were invented after HTTP/1.0.
    if asked.is_http11 || !is_interim {
        head.write(&ResponseWrite { connection, unchunk, keep_error: asked.upstream_is_proxy }, &mut staged);
    }
    let is_unsent =
        asked.upstream_is_proxy && head.weft_error() == Some(Failure::ApplicationUnreachable.facts().code.as_bytes());
    let answered = Answered {
        status: head.status,
        client_keeps,
        upstream_keeps: head.keep_alive,
        is_upgrade,
        is_unsent,
        idle_timeout: head.idle_timeout(),
    };
    let (length, body) = (head.length, head.body);
    upstream.consume(length);
    Ok(Some((answered, Pump::new(staged, Framing::from(body), unchunk), is_interim)))
}
