//! Requests and answers between two sides of which at least one speaks HTTP/2.
//!
//! The head of an answer meets in one form, that of HTTP/2; bodies pass piece by piece. What is decided (which endpoint,
//! whether again, how long) is decided by the same parts as between two sides of HTTP/1, which have their own way
//! ([`super::exchange`]): bytes there need no new framing.

mod http1;
mod http1_upstream;
mod http2;
mod side;
mod transfer;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use weft_core::endpoint::{Endpoint, InFlight, Outcome};
use weft_core::retry::RetryPolicy;

use super::exchange::{MAX_INTERIM, within};
use super::patience::first_of;
use super::tries::{self, Sent, Target, Tries, TryClock};
use super::{Service, grpc, tcp};
use crate::clock;
use crate::failure::{Blame, Failure};
use crate::http2::ErrorCode;
use crate::http2::websocket::Accept;
use crate::stream::Connection;
use crate::telemetry::{CodeClass, Edge};

pub(super) use http1::Http1;
pub(super) use http1_upstream::Borrowed;
pub(super) use http2::{Http2, Pace};
pub(super) use side::{AnswerHead, Broken, Client, Outgoing, RequestHead, Tunnel, Upstream};
pub(super) use transfer::{Stopped, Transfer};

/// Connections to one endpoint that one request tries, when each was closing or full just then.
const CONNECTIONS: usize = 3;

/// A request on its way.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) started: Instant,
    pub(super) target: Target,
    pub(super) deadline: Option<Instant>,
    pub(super) retry: Option<Arc<RetryPolicy>>,
    pub(super) head: RequestHead,
    pub(super) body: Transfer,
    pub(super) is_idempotent: bool,
    pub(super) to_head: bool,
    pub(super) is_grpc: bool,
    /// The endpoint asked now is a proxy of ours: its `weft-error` is true.
    pub(super) upstream_is_proxy: bool,
    /// It asks for a WebSocket: what the handshake of HTTP/1 must answer, on whichever side that is spoken.
    pub(super) websocket: Option<Box<Accept>>,
    /// Its head for an upstream of the other version, where the first one cannot say it.
    pub(super) otherwise: Option<Box<RequestHead>>,
}

impl Request {
    /// The proxy beside the application says with this code that the application saw nothing of the request.
    fn says_unsent(&self, weft_error: Option<&[u8]>) -> bool {
        self.upstream_is_proxy && weft_error == Some(Failure::ApplicationUnreachable.facts().code.as_bytes())
    }

    /// `nothing`: not even its head.
    fn sent(&self, nothing: bool) -> Sent {
        Sent { nothing, is_whole: self.body.is_repeatable(), is_idempotent: self.is_idempotent }
    }
}

/// A request that got an answer.
#[derive(Debug)]
pub(super) struct Done {
    /// What the application said, in the terms of HTTP.
    pub(super) status: u16,
    pub(super) grpc_status: Option<grpc::Status>,
    pub(super) received: u64,
    /// The answer was cut off after its head.
    pub(super) cut: Option<Cut>,
    /// Bytes follow, both ways.
    pub(super) tunnel: Option<Box<Tunnel>>,
}

/// Why an answer did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) failure: Failure,
    /// As it is told to a client of HTTP/2.
    pub(super) code: ErrorCode,
}

/// Forwards the request and its answer.
///
/// # Errors
/// [`Failure`] when nothing of an answer was given to the client, unless it was interim.
pub(super) async fn forward<C: Client, U: Upstream>(
    service: &Service<'_>,
    client: &mut C,
    request: &mut Request,
) -> Result<Done, Failure> {
    let (head, mut upstream, in_flight) = ask::<C, U>(service, client, request).await?;
    request.body.forget();
    client.answer(&head, request.body.is_finished());
    if head.is_tunnel {
        request.target.record(service, in_flight, Outcome::Success, clock::now());
        let tunnel = Some(Box::new(upstream.into_tunnel()));
        let received = head.fields.list_size() as u64;
        return Ok(Done { status: head.status, grpc_status: None, received, cut: None, tunnel });
    }
    let mut answer = if head.ended { Transfer::none() } else { Transfer::once() };
    let finished = {
        let (deadline, body) = (request.deadline, &mut request.body);
        let finish = pin!(poll_fn(|cx| poll_rest(client, &mut upstream, body, &mut answer, cx).map(Ok)));
        within(first_of(deadline, None), finish)
            .await
            .unwrap_or_else(|failure| Err(Cut { failure, code: ErrorCode::CANCEL }))
    };
    let grpc_status = request.is_grpc.then(|| grpc::Status::of(&head.fields, answer.trailers())).flatten();
    let status = grpc_status.filter(|_| head.status == 200).map_or(head.status, grpc::Status::as_http);
    let outcome = match finished {
        Ok(()) => Outcome::of_status(status),
        Err(cut) if cut.failure.facts().blame == Blame::Client => Outcome::Abandoned,
        Err(_) => Outcome::Failure,
    };
    request.target.record(service, in_flight, outcome, clock::now());
    if finished.is_ok() && request.body.is_finished() {
        upstream.give_back(service);
    }
    let received = answer.moved + head.fields.list_size() as u64;
    Ok(Done { status, grpc_status, received, cut: finished.err(), tunnel: None })
}

/// Carries the bytes of a tunnel to its end. Its handshake was measured by itself.
pub(super) async fn carry(service: &Service<'_>, edge: &Edge, client: &mut Connection, tunnel: &mut Tunnel) {
    let mut carried = tcp::Carried::default();
    let idle = service.worker.timeouts.tcp_idle;
    let _ = tcp::tunnel(client, tunnel.as_mut(), &mut carried, idle).await;
    edge.bytes(carried.to_upstream, carried.to_client);
}

/// Tells the signals how a request ended.
pub(super) fn measure(service: &Service<'_>, request: &Request, result: &Result<Done, Failure>) {
    let edge = &request.target.edge;
    let (class, grpc_status) = match result {
        Ok(done) => {
            if let Some(cut) = done.cut {
                service.tell(edge, &service.detailed(cut.failure, request.started));
            }
            edge.bytes(request.body.moved + request.head.size(), done.received);
            (CodeClass::of(done.status), done.grpc_status)
        }
        Err(Failure::ClientGone) => {
            service.tell(edge, &Failure::ClientGone.into());
            (CodeClass::Failed, None)
        }
        Err(failure) => {
            let failure = service.seen(*failure);
            service.tell(edge, &service.detailed(failure, request.started));
            (CodeClass::of(failure.facts().status), Some(grpc::Status::of_failure(failure)))
        }
    };
    if let Some(status) = grpc_status.filter(|_| request.is_grpc) {
        edge.grpc(status.code());
    }
    edge.request(class, clock::now() - request.started);
}

/// Sends the request until an endpoint answers.
async fn ask<C: Client, U: Upstream>(
    service: &Service<'_>,
    client: &mut C,
    request: &mut Request,
) -> Result<(AnswerHead, U, InFlight), Failure> {
    let mut tries = Tries::new(request.retry.clone());
    // At once: the clock need not be asked again.
    let mut in_flight = tries.pick(service, &request.target, request.started)?;
    loop {
        let endpoint = Arc::clone(in_flight.endpoint());
        request.upstream_is_proxy = request.target.cluster.protects(&endpoint);
        let mut clock = TryClock::start(tries.per_try_timeout(), request.body.is_none());
        let tried = ask_endpoint::<C, U>(service, client, request, &endpoint, &mut clock).await;
        let sent = request.sent(!clock.has_reached);
        match judge(service, request, &mut tries, in_flight, tried, sent)? {
            Judged::Answered(head, upstream, in_flight) => return Ok((head, upstream, in_flight)),
            Judged::Again { next, wait } => {
                in_flight = next;
                if !wait.is_zero() {
                    // Boxed: few requests wait, and all would be larger.
                    Box::pin(pause(client, request.deadline, wait)).await?;
                }
                request.body.rewind();
            }
        }
    }
}

/// What follows from how a try ended.
enum Judged<U> {
    Answered(AnswerHead, U, InFlight),
    /// From that endpoint, after this wait.
    Again {
        next: InFlight,
        wait: Duration,
    },
}

fn judge<U>(
    service: &Service<'_>,
    request: &Request,
    tries: &mut Tries,
    in_flight: InFlight,
    tried: Result<(AnswerHead, U), Failure>,
    sent: Sent,
) -> Result<Judged<U>, Failure> {
    let target = &request.target;
    let failure = match tried {
        Ok((head, _)) if head.is_unsent && tries.may_follow(Failure::ApplicationUnreachable, sent) => {
            Failure::ApplicationUnreachable
        }
        Ok((head, upstream)) => {
            let grpc = request.is_grpc.then(|| grpc::Status::of(&head.fields, None)).flatten();
            let status = (head.status, grpc.map(grpc::Status::code));
            let Some((next, wait)) = tries.instead_of(service, target, &in_flight, status, sent) else {
                return Ok(Judged::Answered(head, upstream, in_flight));
            };
            let status = grpc.filter(|_| head.status == 200).map_or(head.status, grpc::Status::as_http);
            target.record(service, in_flight, Outcome::of_status(status), clock::now());
            return Ok(Judged::Again { next, wait });
        }
        Err(failure) => failure,
    };
    let wait = tries.failed(service, target, in_flight, failure, sent)?;
    Ok(Judged::Again { next: tries.pick(service, target, clock::now())?, wait })
}

/// Waits before the request is sent again.
async fn pause<C: Client>(client: &mut C, deadline: Option<Instant>, wait: Duration) -> Result<(), Failure> {
    let sleep = pin!(async {
        tokio::time::sleep(wait).await;
        Ok(())
    });
    within(first_of(deadline, None), pin!(unless_gone(client, sleep))).await
}

/// One try. A connection that turns out to be closing, or closed before it answered, is replaced by another one to the
/// same endpoint, where the request may be repeated.
async fn ask_endpoint<C: Client, U: Upstream>(
    service: &Service<'_>,
    client: &mut C,
    request: &mut Request,
    endpoint: &Arc<Endpoint>,
    clock: &mut TryClock,
) -> Result<(AnswerHead, U), Failure> {
    let mut connections = 1;
    loop {
        let is_last = connections == CONNECTIONS;
        let mut upstream = {
            let reach = pin!(U::reach(service, request, endpoint, connections > 1));
            within(first_of(request.deadline, clock.end()), pin!(unless_gone(client, reach))).await?
        };
        clock.has_reached = true;
        match ask_once(client, &mut upstream, request, clock).await {
            Ok(head) => return Ok((head, upstream)),
            Err(failure)
                if !is_last
                    && upstream.may_be_stale(failure)
                    && (tries::may_repeat(failure, request.sent(false))
                        || upstream.sent_nothing() && request.body.is_repeatable()) =>
            {
                request.body.rewind();
                connections += 1;
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Waits for the head of the final answer, while the request's body passes.
async fn ask_once<C: Client, U: Upstream>(
    client: &mut C,
    upstream: &mut U,
    request: &mut Request,
    clock: &mut TryClock,
) -> Result<AnswerHead, Failure> {
    for interim in 0..MAX_INTERIM {
        let deadline = first_of(request.deadline, None);
        let head = pin!(poll_fn(|cx| {
            if let Poll::Ready(head) = poll_head(client, upstream, request, interim, cx) {
                return Poll::Ready(head);
            }
            clock.poll(request.body.is_finished(), cx).map(|()| Err(Failure::PerTryTimeout))
        }));
        let head = within(deadline, head).await?;
        if !head.is_interim() {
            return Ok(head);
        }
        client.answer(&head, false);
    }
    Err(Failure::UpstreamProtocol)
}

/// `future`, unless the client gives up meanwhile: requests taken back must not pile up before an endpoint that does
/// not answer.
async fn unless_gone<C: Client, T>(
    client: &mut C,
    mut future: Pin<&mut impl Future<Output = Result<T, Failure>>>,
) -> Result<T, Failure> {
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(result),
        Poll::Pending => client.poll_gone(cx).map(|_| Err(Failure::ClientGone)),
    })
    .await
}

fn poll_head<C: Client, U: Upstream>(
    client: &mut C,
    upstream: &mut U,
    request: &mut Request,
    interim: u32,
    cx: &mut Context<'_>,
) -> Poll<Result<AnswerHead, Failure>> {
    let asking = poll_request(client, upstream, &mut request.body, cx);
    if let Some(failure) = asking.err() {
        return Poll::Ready(Err(failure));
    }
    if let Poll::Ready(head) = upstream.poll_head(request, cx) {
        return Poll::Ready(head);
    }
    if let Poll::Ready(Err(_)) = client.poll_flush(cx) {
        return Poll::Ready(Err(Failure::ClientGone));
    }
    if client.poll_gone(cx).is_ready() {
        return Poll::Ready(Err(Failure::ClientGone));
    }
    // Heads move too: one interim answer after the other is no standstill.
    let body = &request.body;
    client.poll_idle(body.moved + u64::from(interim), cx).map(|()| Err(stalled(body.waits_for_source())))
}

/// What a standstill is called, by who has to move.
fn stalled(is_the_clients: bool) -> Failure {
    if is_the_clients { Failure::ClientStalled } else { Failure::StreamIdle }
}

/// Moves the request on. A failure of the upstream to take it is not the end: its answer may already be on the way.
fn poll_request<C: Client, U: Upstream>(
    client: &mut C,
    upstream: &mut U,
    body: &mut Transfer,
    cx: &mut Context<'_>,
) -> Result<(), Failure> {
    if body.is_finished() || body.has_failed() {
        return Ok(());
    }
    match body.poll(client, upstream, cx) {
        Poll::Ready(Err(Stopped::Source(Broken::Malformed))) => Err(Failure::BadBody),
        Poll::Ready(Err(Stopped::Source(_))) => Err(Failure::ClientGone),
        _ => Ok(()),
    }
}

/// Moves the answer to its end, and what is left of the request meanwhile.
fn poll_rest<C: Client, U: Upstream>(
    client: &mut C,
    upstream: &mut U,
    request: &mut Transfer,
    answer: &mut Transfer,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Cut>> {
    const GONE: Cut = Cut { failure: Failure::ClientGone, code: ErrorCode::CANCEL };
    // A malformed rest of the request is no reason to cut off the answer.
    let asking = poll_request(client, upstream, request, cx);
    match answer.poll(upstream, client, cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
        Poll::Ready(Err(Stopped::Sink(_))) => Poll::Ready(Err(GONE)),
        Poll::Ready(Err(Stopped::Source(broken))) => {
            let code = match broken {
                // Not to be taken for an end: what came is not whole.
                Broken::Reset(code) if code != ErrorCode::NO_ERROR => code,
                _ => ErrorCode::INTERNAL_ERROR,
            };
            Poll::Ready(Err(Cut { failure: broken.of_upstream(), code }))
        }
        // Nobody is left to take the rest, which may be long in coming.
        Poll::Pending if asking == Err(Failure::ClientGone) => Poll::Ready(Err(GONE)),
        Poll::Pending if client.poll_gone(cx).is_ready() => Poll::Ready(Err(GONE)),
        Poll::Pending => {
            let is_the_clients = !answer.waits_for_source();
            client
                .poll_idle(request.moved + answer.moved, cx)
                .map(|()| Err(Cut { failure: stalled(is_the_clients), code: ErrorCode::CANCEL }))
        }
    }
}
