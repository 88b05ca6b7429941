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
use std::time::Instant;

use weft_core::endpoint::{Endpoint, InFlight, Outcome};

use super::exchange::{MAX_INTERIM, within};
use super::tries::{self, Target, Tries};
use super::{Service, grpc};
use crate::clock;
use crate::failure::{Blame, Failure};
use crate::http2::ErrorCode;
use crate::telemetry::CodeClass;

pub(super) use http1::{Http1, Outgoing};
pub(super) use http1_upstream::Borrowed;
pub(super) use http2::{Http2, Pace};
pub(super) use side::{AnswerHead, Broken, Client, RequestHead, Upstream};
pub(super) use transfer::{Stopped, Transfer};

/// Connections to one endpoint that one request tries, when each was closing or full just then.
const CONNECTIONS: usize = 3;

/// A request on its way.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) started: Instant,
    pub(super) target: Target,
    pub(super) deadline: Option<Instant>,
    pub(super) head: RequestHead,
    pub(super) body: Transfer,
    pub(super) is_idempotent: bool,
    pub(super) to_head: bool,
    pub(super) is_grpc: bool,
}

impl Request {
    /// Its `weft-error` is true.
    fn upstream_is_proxy(&self) -> bool {
        self.target.cluster.is_meshed()
    }

    /// The proxy beside the application says with this code that the application saw nothing of the request.
    fn says_unsent(&self, weft_error: Option<&[u8]>) -> bool {
        self.upstream_is_proxy() && weft_error == Some(Failure::ApplicationUnreachable.facts().code.as_bytes())
    }

    fn may_repeat(&self, failure: Failure) -> bool {
        let nothing_sent = self.body.moved == 0;
        tries::may_repeat(failure, nothing_sent, self.body.is_repeatable(), self.is_idempotent)
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
    let mut answer = if head.ended { Transfer::none() } else { Transfer::once() };
    let finished = {
        let (deadline, body) = (request.deadline, &mut request.body);
        let finish = pin!(poll_fn(|cx| poll_rest(client, &mut upstream, body, &mut answer, cx).map(Ok)));
        within(deadline, finish).await.unwrap_or_else(|failure| Err(Cut { failure, code: ErrorCode::CANCEL }))
    };
    let grpc_status = request.is_grpc.then(|| grpc::Status::of(&head.fields, answer.trailers())).flatten();
    let status = grpc_status.filter(|_| head.status == 200).map_or(head.status, grpc::Status::as_http);
    let outcome = match finished {
        Ok(()) if status < 500 => Outcome::Success,
        Err(cut) if cut.failure.facts().blame == Blame::Client => Outcome::Abandoned,
        _ => Outcome::Failure,
    };
    request.target.record(service, in_flight, outcome, clock::now());
    if finished.is_ok() && request.body.is_finished() {
        upstream.give_back(service);
    }
    let received = answer.moved + head.fields.list_size() as u64;
    Ok(Done { status, grpc_status, received, cut: finished.err() })
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
    let mut tries = Tries::new();
    loop {
        let in_flight = tries.pick(service, &request.target, request.started)?;
        let endpoint = Arc::clone(in_flight.endpoint());
        let failure = match ask_endpoint::<C, U>(service, client, request, &endpoint).await {
            Ok((head, upstream)) => {
                let again = head.is_unsent && request.may_repeat(Failure::ApplicationUnreachable) && tries.are_left();
                if !again {
                    return Ok((head, upstream, in_flight));
                }
                Failure::ApplicationUnreachable
            }
            Err(failure) => failure,
        };
        let may_repeat = request.may_repeat(failure);
        tries.failed(service, &request.target, in_flight, failure, may_repeat)?;
        request.body.rewind();
    }
}

/// One try. A connection that turns out to be closing, or closed before it answered, is replaced by another one to the
/// same endpoint, where the request may be repeated.
async fn ask_endpoint<C: Client, U: Upstream>(
    service: &Service<'_>,
    client: &mut C,
    request: &mut Request,
    endpoint: &Arc<Endpoint>,
) -> Result<(AnswerHead, U), Failure> {
    let mut connections = 1;
    loop {
        let is_last = connections == CONNECTIONS;
        let mut upstream = {
            let reach = pin!(U::reach(service, request, endpoint, connections > 1));
            within(request.deadline, pin!(unless_gone(client, reach))).await?
        };
        match ask_once(client, &mut upstream, request).await {
            Ok(head) => return Ok((head, upstream)),
            Err(failure)
                if !is_last
                    && upstream.may_be_stale(failure)
                    && (request.may_repeat(failure) || upstream.sent_nothing() && request.body.is_repeatable()) =>
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
) -> Result<AnswerHead, Failure> {
    for interim in 0..MAX_INTERIM {
        let deadline = request.deadline;
        let head = pin!(poll_fn(|cx| poll_head(client, upstream, request, interim, cx)));
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
