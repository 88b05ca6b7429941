//! A stream of HTTP/2 as a side of the relay: of a client that asks, or of an upstream that is asked.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use weft_core::endpoint::Endpoint;

use super::Request;
use super::side::{AnswerHead, Available, Broken, Client, RequestHead, Side, Tunnel, Upstream};
use crate::connect;
use crate::failure::Failure;
use crate::forward::Service;
use crate::forward::tries::Target;
use crate::http2::{Fields, ResponseHead, Trailers};
use crate::multiplex::{self, Pipe, Stream, StreamError};
use crate::stream::{self, Connection};

/// Reads one message of a stream and writes the other.
#[derive(Debug)]
pub(in crate::forward) struct Http2 {
    stream: Stream,
    /// The connection had carried a request before this one.
    is_used: bool,
    /// Of a client's stream.
    pace: Option<Pace>,
}

/// Time as one connection counts it for all its streams: none of them needs a timer.
#[derive(Debug)]
pub(in crate::forward) struct Pace {
    ticks: Rc<Cell<u32>>,
    /// The tick since which as much has moved as now.
    since: u32,
    moved: u64,
}

impl Pace {
    /// Ticks without anything moving that are too many. More make the limit more exact, and cost more wake-ups.
    pub(in crate::forward) const LIMIT: u32 = 5;

    pub(in crate::forward) fn of(ticks: &Rc<Cell<u32>>) -> Self {
        Self { ticks: Rc::clone(ticks), since: ticks.get(), moved: 0 }
    }

    fn has_stood_still(&mut self, moved: u64) -> bool {
        let now = self.ticks.get();
        if moved != self.moved {
            self.moved = moved;
            self.since = now;
        }
        now.wrapping_sub(self.since) > Self::LIMIT
    }
}

impl Http2 {
    pub(in crate::forward) fn new(stream: Stream, pace: Pace) -> Self {
        Self { stream, is_used: false, pace: Some(pace) }
    }

    pub(in crate::forward) fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// What is left of it is bytes.
    pub(in crate::forward) fn into_connection(self) -> Connection {
        Connection::new(stream::Stream::Inside(Box::new(Pipe::new(self.stream))))
    }
}

impl Http2 {
    /// Waits for the end of a message that was taken as a whole before its sender said so: reset, it would look as if
    /// some of it had been refused.
    pub(in crate::forward) async fn part(&mut self, limit: Duration) {
        if !self.stream.is_complete() {
            let _ = tokio::time::timeout(limit, poll_fn(|cx| self.stream.poll_data(cx))).await;
        }
    }
}

impl From<StreamError> for Broken {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Reset(code) => Self::Reset(code),
            StreamError::Refused => Self::Unprocessed,
            StreamError::Malformed(_) => Self::Malformed,
            StreamError::Cancelled(_) | StreamError::ConnectionLost => Self::Lost,
        }
    }
}

impl Side for Http2 {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Available, Broken>> {
        Poll::Ready(match ready!(self.stream.poll_data(cx)) {
            Ok(multiplex::Available::Data) => Ok(Available::Data),
            Ok(multiplex::Available::End) => Ok(Available::End),
            Err(error) => Err(error.into()),
        })
    }

    fn with_data(&mut self, take: impl FnOnce(&[u8], bool) -> usize) {
        // Shown is what lies together, which may not be all there is.
        let last = self.stream.ends_after_data().then(|| self.stream.received());
        self.stream.with_data(|bytes| (take(bytes, last == Some(bytes.len())), ()));
    }

    fn take_trailers(&mut self) -> Option<Fields> {
        let trailers = self.stream.trailers()?;
        Trailers::read(&trailers).ok().map(|trailers| trailers.forwarded())
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        self.stream.poll_capacity(cx).map_err(Broken::from)
    }

    // A stream that is over takes nothing; the next poll says so.

    fn write(&mut self, bytes: &[u8], ends: bool) {
        let _ = self.stream.send_data(bytes, ends);
    }

    fn end(&mut self, trailers: Option<&Fields>) {
        let _ = match trailers {
            Some(trailers) => self.stream.send_trailers(trailers),
            None => self.stream.send_data(&[], true).map(drop),
        };
    }

    /// What is queued goes out with the connection's next turn, at the latest when its window opens.
    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(self.stream.error().map_or(Ok(()), |error| Err(error.into())))
    }
}

impl Client for Http2 {
    fn answer(&mut self, head: &AnswerHead, _request_is_finished: bool) {
        let _ = self.stream.send_head(&head.fields, head.ended);
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        self.stream.poll_reset(cx).map(Broken::from)
    }

    /// Looked at whenever the connection's clock ticks: it wakes its streams then.
    fn poll_idle(&mut self, moved: u64, _: &mut Context<'_>) -> Poll<()> {
        let stands_still = self.pace.as_mut().is_some_and(|pace| pace.has_stood_still(moved));
        if stands_still { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Upstream for Http2 {
    async fn reach(
        service: &Service<'_>,
        request: &Request,
        endpoint: &Arc<Endpoint>,
        _fresh: bool,
    ) -> Result<Self, Failure> {
        let RequestHead::Http2(head) = &request.head else { return Err(Failure::UpstreamProtocol) };
        let target = &request.target;
        let Target { cluster, edge } = target;
        let opened = if request.websocket.is_some() {
            // Boxed: rare, and all requests would be larger.
            Box::pin(connect::open_tunnel(service.worker, cluster, endpoint, edge, head)).await?
        } else {
            connect::open_stream(service.worker, cluster, endpoint, edge, head, request.body.is_none()).await?
        };
        Ok(Self { stream: opened.stream, is_used: opened.is_used, pace: None })
    }

    fn may_be_stale(&self, failure: Failure) -> bool {
        failure == Failure::UpstreamRefused || self.is_used && failure == Failure::UpstreamClosed
    }

    fn sent_nothing(&self) -> bool {
        false
    }

    fn poll_head(&mut self, request: &Request, cx: &mut Context<'_>) -> Poll<Result<AnswerHead, Failure>> {
        let (fields, ended) = ready!(self.stream.poll_head(cx)).map_err(|error| Broken::from(error).of_upstream())?;
        Poll::Ready(read(&fields, ended, request))
    }

    fn into_tunnel(self) -> Tunnel {
        Tunnel::Http2(self.into_connection())
    }

    /// Streams are not used again.
    fn give_back(self, _: &Service<'_>) {}
}

fn read(fields: &Fields, ended: bool, request: &Request) -> Result<AnswerHead, Failure> {
    let head = ResponseHead::read(fields, ended, request.to_head).map_err(|error| {
        tracing::debug!(%error, "answer refused");
        Failure::UpstreamProtocol
    })?;
    Ok(AnswerHead {
        fields: head.forwarded(request.upstream_is_proxy),
        status: head.status,
        ended,
        is_unsent: request.says_unsent(head.weft_error()),
        is_tunnel: request.websocket.is_some() && (200..300).contains(&head.status),
    })
}
