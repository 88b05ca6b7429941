//! Stage: detect. What comes on a port whose protocol nobody declared.
//!
//! Never stalls: the upstream is dialled at once, both sides are watched, and whoever speaks first decides. A server that
//! speaks first is opaque; a client that sends an HTTP/1 request line or the preface of HTTP/2 gets requests; anything
//! else is opaque.
//!
//! What a port turned out to speak is remembered ([`Detection`]), and heard of from the control plane, to save two things:
//!
//! - Where requests are expected, nothing is dialled until the client has had a [`HEAD_START`]; its request then takes a
//!   kept connection, or the one its route asks for.
//! - Where bytes are expected, those that may become a request line are not held back until they have.
//!
//! The bytes still decide, and correct the memory. What a wrong one costs at most: a client that waits for a server to
//! speak first waits [`HEAD_START`] longer in each proxy, until the server's word corrects that proxy's memory; a request
//! line that comes in pieces to a port where bytes were expected is carried as bytes, unharmed and not routed.
//!
//! And what TLS is that nobody here terminates: it goes where the name in its ClientHello says.

#[cfg(any(test, feature = "fuzzing"))]
pub mod check;
pub mod client_hello;
mod greeting;
mod sniff;
mod tls;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;
use weft_core::detection::Verdict;
use weft_core::model::Direction;

use crate::clock;
use crate::connect;
use crate::drain::Place;
use crate::forward::tcp;
use crate::forward::{Service, http1};
use crate::http2;
use crate::pool::Pooled;
use crate::state::{Cluster, DecidedBy, Detection, Listener, Version};
use crate::stream::Connection;
use crate::tls::MeshProtocol;
use greeting::{Greeting, greeting};

pub use sniff::{Sniffed, sniff};
pub use tls::{Begin, begins, serve as serve_tls};

/// How long a client may take between the first byte of what may be a request line and its end, before its bytes go on
/// as they are. 100 ms: a request line arrives in one piece but for the unluckiest. A server that speaks HTTP/2 may say
/// so before its client: the client's preface is waited for as long.
const UNDECIDED: Duration = Duration::from_millis(100);

/// How long a client may say nothing where a request is expected before the upstream is dialled all the same. 10 ms: a
/// client that speaks first mostly does so in the same millisecond, and one that waits for the server hardly notices.
const HEAD_START: Duration = Duration::from_millis(10);

/// How long a client may say nothing when there is nobody it could be waiting for: the upstream cannot be reached, or
/// this proxy drains. 1 s: a client that speaks first does so at once.
const SILENT: Duration = Duration::from_secs(1);

/// What was seen of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// The client's first bytes are this.
    Client(Verdict),
    /// The server spoke, the client has not.
    Server,
    /// The client's first bytes may become a request and go where bytes are expected.
    Expected,
    /// They may, and have not in time.
    Undecided,
    /// A side ended before either had said anything that tells.
    End,
}

/// Serves a connection as what it turns out to be.
pub async fn serve(service: &Service<'_>, mut client: Connection, listener: Arc<Listener>) {
    let place = service.worker.drain.enter(service.direction);
    let (Some(cluster), Some(detection)) = (listener.cluster.clone(), listener.detection.clone()) else {
        tracing::debug!(listener = %listener.spec.name, "no cluster: connection closed");
        return;
    };
    let watch = Watch::new(service, &place, &cluster, &detection);
    if watch.expects_requests() && watch.client_asks(&mut client).await {
        drop(place);
        return Box::pin(http1::serve(service, client, listener)).await;
    }
    let edge = service.edge(&cluster);
    let connected = tcp::connect(service, &cluster, &edge, MeshProtocol::Detect).await;
    let (mut upstream, in_flight) = match connected {
        Ok(connected) => connected,
        Err(failure) => {
            // A client that speaks HTTP gets an answer that says why.
            service.tell(&edge, &failure.into());
            let seen = watch.both(&mut client, None).await;
            drop(place);
            if matches!(seen, Ok(Seen::Client(verdict)) if verdict.is_http()) {
                Box::pin(http1::serve(service, client, listener)).await;
            }
            return;
        }
    };
    let Ok(seen) = watch.both(&mut client, Some(&mut upstream.connection)).await else { return };
    watch.conclude(seen);
    match seen {
        Seen::Client(verdict) if verdict.is_http() => {
            drop(in_flight);
            drop(place);
            keep(service, &cluster, upstream, verdict);
            Box::pin(http1::serve(service, client, listener)).await;
        }
        _ => Box::pin(tcp::carry(service, &cluster, &edge, &mut client, &mut upstream, in_flight)).await,
    }
}

/// What was dialled while the client was watched carries its first request.
fn keep(service: &Service<'_>, cluster: &Cluster, upstream: Box<Pooled>, verdict: Verdict) {
    let downstream = if verdict == Verdict::Http2 { Version::Http2 } else { Version::Http1 };
    match cluster.version(downstream) {
        Version::Http1 => service.worker.pool.give(upstream, clock::now()),
        Version::Http2 => connect::adopt(service.worker, upstream),
    }
}

/// What the client's first bytes say, as far as they have come.
fn said(bytes: &[u8]) -> Option<Verdict> {
    match sniff(bytes) {
        Sniffed::Http if http2::is_preface(bytes) == Some(true) => Some(Verdict::Http2),
        Sniffed::Http => Some(Verdict::Http1),
        Sniffed::Other if bytes.first() == Some(&tls::HANDSHAKE) => Some(Verdict::Tls),
        Sniffed::Other => Some(Verdict::ClientFirst),
        Sniffed::NeedMore => None,
    }
}

/// One connection, watched.
struct Watch<'a> {
    service: &'a Service<'a>,
    place: &'a Place<'a>,
    cluster: &'a Cluster,
    detection: &'a Detection,
    /// As it was when the connection came.
    expected: Option<Verdict>,
    since: Instant,
}

impl<'a> Watch<'a> {
    fn new(service: &'a Service<'a>, place: &'a Place<'a>, cluster: &'a Cluster, detection: &'a Detection) -> Self {
        let expected = detection.belief().verdict();
        Self { service, place, cluster, detection, expected, since: Instant::from(clock::now()) }
    }

    fn expects_requests(&self) -> bool {
        self.expected.is_some_and(Verdict::is_http)
    }

    fn expects_bytes(&self) -> bool {
        self.expected.is_some_and(|expected| !expected.is_http())
    }

    /// Whether the client begins with requests within its head start. Whatever else it does is seen again by
    /// [`both`](Self::both).
    async fn client_asks(&self, client: &mut Connection) -> bool {
        let first_words = async {
            loop {
                if let Some(verdict) = said(client.data()) {
                    return Some(verdict);
                }
                if !matches!(client.fill().await, Ok(1..)) {
                    return None;
                }
            }
        };
        match tokio::time::timeout_at(self.since + HEAD_START, first_words).await {
            Ok(Some(verdict)) if verdict.is_http() => {
                self.conclude(Seen::Client(verdict));
                true
            }
            _ => false,
        }
    }

    /// Watches both sides until one has said enough. A side that ends without a word makes the connection opaque, so
    /// that the end is passed on.
    ///
    /// # Errors
    /// What a socket says, or `TimedOut` when both stay silent.
    async fn both(&self, client: &mut Connection, mut upstream: Option<&mut Connection>) -> io::Result<Seen> {
        let (mut asked, mut answered) = (None, None);
        let now = || Instant::from(clock::now());
        let mut timer = pin!(tokio::time::sleep_until(self.since + self.service.worker.timeouts.tcp_idle));
        poll_fn(|cx| {
            if let Poll::Ready(seen) = self.poll_client(client, cx) {
                return Poll::Ready(seen);
            }
            if let Some(upstream) = &mut upstream
                && let Poll::Ready(seen) = self.poll_server(upstream, cx)
            {
                return Poll::Ready(seen);
            }
            let has_upstream = upstream.is_some();
            let has_answered = upstream.as_ref().is_some_and(|upstream| !upstream.data().is_empty());
            let (deadline, seen) = if !client.data().is_empty() {
                (*asked.get_or_insert_with(now) + UNDECIDED, Ok(Seen::Undecided))
            } else if has_answered {
                (*answered.get_or_insert_with(now) + UNDECIDED, Ok(Seen::Server))
            } else {
                (self.since + self.silence(has_upstream, cx), Err(io::ErrorKind::TimedOut.into()))
            };
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            timer.as_mut().poll(cx).map(|()| seen)
        })
        .await
    }

    /// How long both may say nothing.
    fn silence(&self, has_upstream: bool, cx: &mut Context<'_>) -> Duration {
        let worker = self.service.worker;
        if !has_upstream || worker.drain.closes_idle(self.service.direction) {
            return SILENT;
        }
        self.place.wait(cx.waker());
        worker.timeouts.tcp_idle
    }

    fn poll_client(&self, client: &mut Connection, cx: &mut Context<'_>) -> Poll<io::Result<Seen>> {
        loop {
            if let Some(verdict) = said(client.data()) {
                return Poll::Ready(Ok(Seen::Client(verdict)));
            }
            if self.expects_bytes() && !client.data().is_empty() {
                return Poll::Ready(Ok(Seen::Expected));
            }
            match client.poll_fill(cx) {
                Poll::Ready(Ok(0)) if client.data().is_empty() => return Poll::Ready(Ok(Seen::End)),
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(Seen::Undecided)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Pending with something read: it may be a server of HTTP/2, which need not wait for its client.
    fn poll_server(&self, upstream: &mut Connection, cx: &mut Context<'_>) -> Poll<io::Result<Seen>> {
        while upstream.data().is_empty() {
            match upstream.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(Seen::End)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        match greeting(upstream.data()) {
            Greeting::Http2 if !self.expects_bytes() => Poll::Pending,
            // Weary of a silent client (408): says nothing of who speaks first here.
            Greeting::Http1 => Poll::Ready(Ok(Seen::End)),
            _ => Poll::Ready(Ok(Seen::Server)),
        }
    }

    /// Counts and remembers what was seen.
    fn conclude(&self, seen: Seen) {
        let remembered = |verdict, by| if self.expected == Some(verdict) { DecidedBy::Memory } else { by };
        let (verdict, by, is_proof) = match seen {
            Seen::Client(verdict) => (Some(verdict), remembered(verdict, DecidedBy::Client), true),
            Seen::Server => (Some(Verdict::ServerFirst), remembered(Verdict::ServerFirst, DecidedBy::Server), true),
            Seen::Expected => (self.expected, DecidedBy::Memory, false),
            Seen::Undecided => (Some(Verdict::ClientFirst), DecidedBy::Timeout, false),
            Seen::End => (None, DecidedBy::End, false),
        };
        let took = Instant::from(clock::now()).saturating_duration_since(self.since);
        let direction = self.service.direction;
        self.detection.count(direction, &self.cluster.spec.service, verdict, by, took);
        let is_news = verdict.filter(|_| is_proof).is_some_and(|verdict| self.detection.saw(verdict));
        if is_news && direction == Direction::Inbound {
            self.service.worker.store.seen.notify_one();
        }
    }
}
