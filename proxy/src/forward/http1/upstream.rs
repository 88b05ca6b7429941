//! The upstream's side of one request: pick, connect, exchange, and try again where that is safe.

use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_core::endpoint::{Endpoint, InFlight, Outcome};

use super::End;
use super::request::Direct;
use crate::clock;
use crate::connect;
use crate::failure::{Blame, Failure};
use crate::forward::Service;
use crate::forward::exchange::{self, Answered};
use crate::forward::patience::Patience;
use crate::forward::pump::Pump;
use crate::forward::timer::Timer;
use crate::forward::tries::{self, Sent, Tries};
use crate::pool::Pooled;
use crate::stream::Connection;

/// A request that got an answer.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) status: u16,
    pub(super) received: u64,
    /// When it ended.
    pub(super) at: Instant,
    pub(super) end: End,
    /// The answer was cut off after its head.
    pub(super) broken: Option<Failure>,
    /// After `101`: bytes follow, both ways.
    pub(super) tunnel: Option<Box<Pooled>>,
}

/// An answer's head, and the connection its rest comes from.
struct Answering {
    answered: Answered,
    answer: Pump,
    upstream: Box<Pooled>,
    in_flight: InFlight,
}

/// Forwards the request and its answer.
///
/// # Errors
/// [`Failure`] when nothing of an answer was written.
pub(super) async fn forward(
    service: &Service<'_>,
    client: &mut Connection,
    request: &mut Direct,
    timer: &mut Timer,
) -> Result<Done, Failure> {
    let rest = service.stream_idle();
    let mut patience = Patience::new(timer, request.started, request.asked.deadline, rest);
    let Answering { answered, mut answer, mut upstream, in_flight } =
        ask(service, client, request, &mut patience).await?;
    let finished = exchange::finish(
        client,
        &mut upstream.connection,
        &mut request.pump,
        &mut answer,
        &request.asked,
        &mut patience,
    )
    .await;
    let now = clock::now();
    if answered.is_upgrade {
        request.target.record(service, in_flight, Outcome::Success, now);
        finished?;
        return Ok(Done {
            status: answered.status,
            received: answer.sent,
            at: now,
            end: End::Close,
            broken: None,
            tunnel: Some(upstream),
        });
    }
    let outcome = match finished {
        Ok(()) => Outcome::of_status(answered.status),
        Err(failure) if failure.facts().blame == Blame::Client => Outcome::Abandoned,
        Err(_) => Outcome::Failure,
    };
    request.target.record(service, in_flight, outcome, now);
    if let (Err(failure), 0) = (finished, answer.sent) {
        return Err(failure);
    }
    let end = match finished {
        Err(_) => End::Close,
        Ok(()) if !request.pump.is_finished() => End::Linger,
        Ok(()) => {
            if answered.upstream_keeps {
                upstream.said = answered.idle_timeout;
                service.worker.pool.give(upstream, now);
            }
            if answered.client_keeps { End::Reuse } else { End::Linger }
        }
    };
    Ok(Done { status: answered.status, received: answer.sent, at: now, end, broken: finished.err(), tunnel: None })
}

/// Sends the request until an endpoint answers.
async fn ask(
    service: &Service<'_>,
    client: &mut Connection,
    request: &mut Direct,
    patience: &mut Patience<'_>,
) -> Result<Answering, Failure> {
    let mut tries = Tries::new(request.retry.clone());
    // At once: the clock need not be asked again.
    let mut in_flight = tries.pick(service, &request.target, request.started)?;
    loop {
        let endpoint = Arc::clone(in_flight.endpoint());
        request.asked.upstream_is_proxy = request.target.cluster.protects(&endpoint);
        patience.begin_try(tries.per_try_timeout(), request.is_bare);
        let tried = try_endpoint(service, client, request, &endpoint, patience).await;
        match judge(service, request, &mut tries, in_flight, tried)? {
            Judged::Answered(answering) => {
                patience.end_try();
                return Ok(answering);
            }
            Judged::Again { next, wait } => {
                in_flight = next;
                if !wait.is_zero() {
                    // Boxed: few requests wait, and all would be larger.
                    let is_whole = sent(request).is_whole;
                    Box::pin(exchange::pause(client, is_whole, &request.asked, patience, wait)).await?;
                }
                request.pump.rewind();
            }
        }
    }
}

/// What follows from how a try ended.
#[allow(clippy::large_enum_variant, reason = "nearly always the large one, for which nothing is to be allocated")]
enum Judged {
    Answered(Answering),
    /// From that endpoint, after this wait.
    Again {
        next: InFlight,
        wait: Duration,
    },
}

fn judge(
    service: &Service<'_>,
    request: &Direct,
    tries: &mut Tries,
    in_flight: InFlight,
    tried: Result<(Answered, Pump, Box<Pooled>), Failure>,
) -> Result<Judged, Failure> {
    let (target, sent) = (&request.target, sent(request));
    let failure = match tried {
        Ok((answered, ..)) if answered.is_unsent && tries.may_follow(Failure::ApplicationUnreachable, sent) => {
            Failure::ApplicationUnreachable
        }
        Ok((answered, answer, upstream)) => {
            let status = (answered.status, None);
            let Some((next, wait)) = tries.instead_of(service, target, &in_flight, status, sent) else {
                return Ok(Judged::Answered(Answering { answered, answer, upstream, in_flight }));
            };
            target.record(service, in_flight, Outcome::of_status(answered.status), clock::now());
            return Ok(Judged::Again { next, wait });
        }
        Err(failure) => failure,
    };
    let wait = tries.failed(service, target, in_flight, failure, sent)?;
    Ok(Judged::Again { next: tries.pick(service, target, clock::now())?, wait })
}

/// A body that stands behind its head is sent again only where the route says something of retries.
fn sent(request: &Direct) -> Sent {
    let is_whole = request.is_bare || request.retry.is_some() && request.pump.is_repeatable();
    Sent { nothing: request.pump.sent == 0, is_whole, is_idempotent: request.is_idempotent }
}

/// One try: a pooled connection first. A pooled connection that turns out closed before it answered is replaced by a
/// new one to the same endpoint, where the request may be repeated.
async fn try_endpoint(
    service: &Service<'_>,
    client: &mut Connection,
    request: &mut Direct,
    endpoint: &Arc<Endpoint>,
    patience: &mut Patience<'_>,
) -> Result<(Answered, Pump, Box<Pooled>), Failure> {
    if let Some(mut upstream) = service.worker.pool.take(&request.target.cluster, endpoint) {
        let Direct { pump, asked, .. } = request;
        match exchange::ask(service, client, &mut upstream.connection, pump, asked, patience).await {
            Ok((answered, answer)) => return Ok((answered, answer, upstream)),
            Err(Failure::UpstreamClosed) => {
                service.worker.pool.met_closing(&upstream);
                if !tries::may_repeat(Failure::UpstreamClosed, sent(request)) && request.pump.sent > 0 {
                    return Err(Failure::UpstreamClosed);
                }
                request.pump.rewind();
            }
            Err(failure) => return Err(failure),
        }
    }
    let worker = service.worker;
    let mut upstream = {
        // Boxed, once per new connection: a handshake's state would set the size of every idle one.
        let open = connect::open_http1(worker, &request.target.cluster, endpoint, &request.target.edge);
        exchange::within(patience.limit(), Box::pin(open).as_mut()).await?
    };
    let Direct { pump, asked, .. } = request;
    let (answered, answer) = exchange::ask(service, client, &mut upstream.connection, pump, asked, patience).await?;
    Ok((answered, answer, upstream))
}
