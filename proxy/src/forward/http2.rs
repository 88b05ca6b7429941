//! HTTP/2: one connection, and the requests on it, each routed, balanced and answered on its own.
//!
//! All that one connection's requests do is done by one task. In one turn it takes what has come, moves every request
//! that can move, and writes what they have queued at once.

mod request;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::relay::{self, Borrowed, Done, Http1, Http2, Pace, RequestHead};
use super::routing::Routing;
use super::timer::Timer;
use super::{Service, grpc};
use crate::clock;
use crate::drain::Place;
use crate::failure::{Answer, Failed, Failure};
use crate::http2::{ErrorCode, HeadLimits};
use crate::multiplex::{Incoming, Keepalive, Server, Settings};
use crate::state::Listener;
use crate::stream::Connection;
use crate::telemetry::CodeClass;
use request::{Asked, Refused};

/// Serves requests on `connection` until it ends.
pub async fn serve(service: &Service<'_>, connection: Connection, listener: Arc<Listener>) {
    let routing = RefCell::new(Routing::new(service, listener));
    let mut client = Client::new(service, connection, settings(service));
    client.counts_requests = true;
    let ticks = Rc::clone(&client.ticks);
    let mut requests = FuturesUnordered::new();
    while let Some(incoming) = poll_fn(|cx| client.poll_next(&mut requests, cx)).await {
        requests.push(answer(service, &routing, incoming, Pace::of(&ticks)));
    }
    // Whose connection is gone will find out, and say so in its signals.
    while requests.next().await.is_some() {}
}

/// What the client may do.
fn settings(service: &Service<'_>) -> Settings {
    let (idle, limits) = (service.stream_idle(), service.limits());
    // Who comes from the mesh brings what many clients ask.
    let (default, window_stall) = match service.client_certificate {
        Some(_) => (Settings::mesh(), Settings::mesh().window_stall.max(idle)),
        None => (Settings::default(), idle),
    };
    // What is over the limits is read a little further where it can be, so that the answer names what was found.
    let head = HeadLimits { bytes: default.head.bytes.max(limits.head_bytes), ..default.head };
    let settings = Settings { head, window_stall, ..default };
    let Some(http) = &service.http else { return settings };
    Settings {
        max_streams: http.streams.unwrap_or(settings.max_streams),
        stream_window: http.stream_window.unwrap_or(settings.stream_window),
        connection_window: http.connection_window.unwrap_or(settings.connection_window),
        keepalive: http.keepalive.map(|(after, answer)| Keepalive { after, answer }).or(settings.keepalive),
        ..settings
    }
}

/// The client's side of a connection with streams.
pub(super) struct Client<'a> {
    service: &'a Service<'a>,
    place: Place<'a>,
    server: Server,
    timer: Timer,
    since: Instant,
    asked: u32,
    /// Its streams are requests, not connections that count their own.
    counts_requests: bool,
    /// The client was told that no further request is taken.
    is_leaving: bool,
    /// What requests that stand still are measured by.
    ticks: Rc<Cell<u32>>,
    ticked: Instant,
    clock: Timer,
}

impl<'a> Client<'a> {
    pub(super) fn new(service: &'a Service<'a>, connection: Connection, settings: Settings) -> Self {
        Self {
            service,
            place: service.worker.drain.enter(service.direction),
            server: Server::new(connection, settings),
            timer: Timer::default(),
            since: clock::now(),
            asked: 0,
            counts_requests: false,
            is_leaving: false,
            ticks: Rc::default(),
            ticked: clock::now(),
            clock: Timer::default(),
        }
    }

    /// The next stream; `None` when the connection is over. Meanwhile those under way move.
    pub(super) fn poll_next<F: Future>(
        &mut self,
        requests: &mut FuturesUnordered<F>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Incoming>> {
        loop {
            if let Poll::Ready(next) = self.poll_accept(cx) {
                return Poll::Ready(next);
            }
            self.server.attend();
            while let Poll::Ready(Some(_)) = requests.poll_next_unpin(cx) {}
            // Writes what the requests have queued.
            if let Poll::Ready(next) = self.poll_accept(cx) {
                return Poll::Ready(next);
            }
            let ticks = self.poll_tick(cx).is_ready();
            let leaves = !self.is_leaving && self.poll_leave(cx).is_ready();
            if leaves {
                self.is_leaving = true;
                self.server.drain();
            }
            if !ticks && !leaves {
                return Poll::Pending;
            }
        }
    }

    /// Ready when the requests were woken to see whether they stand still.
    fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.server.open_streams() == 0 {
            return Poll::Pending;
        }
        let interval = self.service.stream_idle() / Pace::LIMIT;
        self.clock.poll(self.ticked + interval, cx).map(|()| {
            self.ticked = clock::now();
            self.ticks.set(self.ticks.get().wrapping_add(1));
            self.server.nudge();
        })
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        self.server.poll_accept(cx).map(|next| match next? {
            Ok(incoming) => {
                self.asked = self.asked.saturating_add(1);
                Some(incoming)
            }
            Err(error) => {
                tracing::debug!(%error, "connection ended");
                None
            }
        })
    }

    /// Ready when it is time to say goodbye: this proxy drains, no request has come for long, or the listener says that it
    /// is enough.
    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let worker = self.service.worker;
        if self.counts_requests && self.service.is_last(self.asked) {
            return Poll::Ready(());
        }
        if !worker.drain.is_draining(self.service.direction) {
            self.place.wait(cx.waker());
            let idle_until = self.server.idle_since().map(|since| since + self.service.client_idle());
            let ends = [idle_until, self.service.closes_at(self.since)].into_iter().flatten();
            let Some(end) = ends.min() else { return Poll::Pending };
            return self.timer.poll(end, cx);
        }
        if self.asked > 0 {
            return Poll::Ready(());
        }
        // Whoever has just connected does not know of the drain: its first request is still answered.
        self.timer.poll(self.since + self.service.linger(), cx)
    }
}

/// Answers one request and records its signals.
async fn answer(service: &Service<'_>, routing: &RefCell<Routing>, incoming: Incoming, pace: Pace) {
    let asked = Asked::of(&incoming.head);
    let request = request::read(service, &mut routing.borrow_mut(), &incoming, asked);
    let mut client = Http2::new(incoming.stream, pace);
    drop(incoming.head);
    let mut request = match request {
        Ok(request) => request,
        Err(Refused::Malformed) => return client.stream().reset(ErrorCode::PROTOCOL_ERROR),
        Err(Refused::Failed(failed)) => {
            let edge = routing.borrow_mut().refusing(service);
            edge.refused(CodeClass::of(failed.failure.facts().status));
            service.tell(&edge, &failed);
            return reply(service, &mut client, &failed, asked).await;
        }
    };
    let edge = Rc::clone(&request.target.edge);
    let in_flight = edge.in_flight();
    let result = match request.head {
        RequestHead::Http1 { .. } => relay::forward::<_, Http1<Borrowed>>(service, &mut client, &mut request).await,
        // Boxed: rare, and all requests would be larger.
        RequestHead::Http2(_) if request.otherwise.is_some() => {
            Box::pin(forward_either(service, &mut client, &mut request)).await
        }
        RequestHead::Http2(_) => relay::forward::<_, Http2>(service, &mut client, &mut request).await,
    };
    relay::measure(service, &request, &result);
    drop(in_flight);
    match result {
        Ok(Done { tunnel: Some(mut tunnel), .. }) => {
            let mut client = client.into_connection();
            Box::pin(relay::carry(service, &edge, &mut client, &mut tunnel)).await;
        }
        // What its client still means to send is for nobody.
        Ok(done) if done.cut.is_none() && request.websocket.is_some() => client.stream().reset(ErrorCode::NO_ERROR),
        Ok(done) if done.cut.is_none() && request.body.is_finished() => {
            client.part(service.linger()).await;
        }
        // An answer that came before the end of its request: the rest is of no use (RFC 9113 section 8.1).
        Ok(done) if done.cut.is_none() => client.stream().reset(ErrorCode::NO_ERROR),
        Ok(done) => client.stream().reset(done.cut.map_or(ErrorCode::CANCEL, |cut| cut.code)),
        Err(Failure::ClientGone) => {}
        Err(failure) => {
            let failed = service.detailed(service.seen(failure), request.started);
            reply(service, &mut client, &failed, asked).await;
        }
    }
}

/// In the version of its client, and in HTTP/1 where the endpoint cannot be asked so.
async fn forward_either(
    service: &Service<'_>,
    client: &mut Http2,
    request: &mut relay::Request,
) -> Result<Done, Failure> {
    let result = relay::forward::<_, Http2>(service, client, request).await;
    match (result, request.otherwise.take()) {
        (Err(Failure::ProtocolMismatch), Some(head)) => {
            request.head = *head;
            relay::forward::<_, Http1<Borrowed>>(service, client, request).await
        }
        (result, _) => result,
    }
}

/// Answers in the application's place. A client that is gone is no news.
async fn reply(service: &Service<'_>, client: &mut Http2, failed: &Failed, asked: Asked) {
    let stream = client.stream();
    let answer = Answer { failure: failed.failure, detail: &failed.detail, hop: service.hop() };
    if asked.is_grpc {
        let _ = stream.send_head(&grpc::trailers_only(&answer), true);
        return;
    }
    let explanation = format!("{answer}\n");
    let head = request::failed(&answer, explanation.len());
    if stream.send_head(&head, asked.to_head).is_err() || asked.to_head {
        return;
    }
    let mut rest = explanation.as_bytes();
    // A client that opens no window does not want to know.
    let _ = tokio::time::timeout(service.linger(), async {
        while !rest.is_empty() && poll_fn(|cx| stream.poll_capacity(cx)).await.is_ok() {
            let Ok(count) = stream.send_data(rest, true) else { return };
            rest = rest.get(count..).unwrap_or_default();
        }
    })
    .await;
}

/// Bytes of the future of one request.
#[cfg(test)]
pub(super) fn size_of_request() -> usize {
    fn size<A, B, C, D, F>(_: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }
    size(answer)
}
