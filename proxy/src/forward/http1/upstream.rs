//! The upstream's side of one request: pick, connect, exchange, and try again where that is safe.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;

use weft_core::balance::PickFailure;
use weft_core::endpoint::{Endpoint, InFlight, Outcome};

use super::End;
use super::request::Request;
use crate::clock;
use crate::connect;
use crate::failure::{Blame, Failure, Retry};
use crate::forward::Service;
use crate::forward::exchange::{self, Answered};
use crate::forward::pump::Pump;
use crate::pool::Pooled;
use crate::stream::Connection;
use crate::tls::MeshProtocol;

/// Tries on other endpoints after the first. One: what fails twice in a row is rarely cured by a third endpoint, and
/// retries multiply load when there is least to spare.
const RETRIES: usize = 1;
const UNTRIED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A request that got an answer.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) status: u16,
    pub(super) received: u64,
    pub(super) end: End,
    /// The answer was cut off after its head.
    pub(super) broken: Option<Failure>,
    /// After `101`: bytes follow, both ways.
    pub(super) tunnel: Option<Pooled>,
}

/// An answer's head, and the connection its rest comes from.
struct Answering {
    answered: Answered,
    answer: Pump,
    upstream: Pooled,
    in_flight: InFlight,
}

/// Forwards the request and its answer.
///
/// # Errors
/// [`Failure`] when nothing of an answer was written.
pub(super) async fn forward(
    service: &Service<'_>,
    client: &mut Connection,
    request: &mut Request,
) -> Result<Done, Failure> {
    let Answering { answered, mut answer, mut upstream, in_flight } = ask(service, client, request).await?;
    if answered.is_upgrade {
        let written = exchange::finish(client, &mut upstream.connection, &mut request.pump, &mut answer).await;
        record(service, request, in_flight, Outcome::Success);
        written?;
        return Ok(Done {
            status: answered.status,
            received: answer.sent,
            end: End::Close,
            broken: None,
            tunnel: Some(upstream),
        });
    }
    let finished = {
        let finish = pin!(exchange::finish(client, &mut upstream.connection, &mut request.pump, &mut answer));
        exchange::within(request.asked.deadline, finish).await
    };
    let outcome = match finished {
        Ok(()) if answered.status < 500 => Outcome::Success,
        Err(Failure::ClientGone) => Outcome::Abandoned,
        _ => Outcome::Failure,
    };
    record(service, request, in_flight, outcome);
    if let (Err(failure), 0) = (finished, answer.sent) {
        return Err(failure);
    }
    let end = match finished {
        Err(_) => End::Close,
        Ok(()) if !request.pump.is_finished() => End::Linger,
        Ok(()) => {
            if answered.upstream_keeps {
                service.worker.pool.give(upstream, clock::now());
            }
            if answered.client_keeps { End::Reuse } else { End::Linger }
        }
    };
    Ok(Done { status: answered.status, received: answer.sent, end, broken: finished.err(), tunnel: None })
}

/// Sends the request until an endpoint answers.
async fn ask(service: &Service<'_>, client: &mut Connection, request: &mut Request) -> Result<Answering, Failure> {
    let mut tried = [UNTRIED; RETRIES];
    let mut tries = 0;
    let mut last_failure = None;
    loop {
        let in_flight = match pick(service, request, &tried[..tries]) {
            Ok(in_flight) => in_flight,
            // With nobody left to try, the first failure says more.
            Err(failure) => return Err(last_failure.unwrap_or(failure)),
        };
        let endpoint = Arc::clone(in_flight.endpoint());
        let failure = match try_endpoint(service, client, request, &endpoint).await {
            Ok((answered, answer, upstream)) => {
                let may_repeat = answered.is_unsent && request.is_bare && tries < RETRIES;
                if !may_repeat {
                    return Ok(Answering { answered, answer, upstream, in_flight });
                }
                Failure::ApplicationUnreachable
            }
            Err(failure) => failure,
        };
        if failure.facts().blame == Blame::Client {
            record(service, request, in_flight, Outcome::Abandoned);
            return Err(failure);
        }
        record(service, request, in_flight, Outcome::Failure);
        if tries == RETRIES || !may_retry(request, failure) {
            return Err(failure);
        }
        tracing::debug!(endpoint = %endpoint.address(), code = failure.facts().code, "trying another endpoint");
        request.edge.retries.increment(1);
        request.pump.rewind();
        tried[tries] = endpoint.address();
        tries += 1;
        last_failure = Some(failure);
    }
}

/// Only when no application can have acted on the request, or acting twice is the same as once.
fn may_retry(request: &Request, failure: Failure) -> bool {
    match failure.facts().retry {
        Retry::Never => false,
        Retry::NothingSent => request.is_bare || request.pump.sent == 0,
        Retry::IfIdempotent => request.is_bare && request.is_idempotent,
    }
}

fn pick(service: &Service<'_>, request: &Request, tried: &[SocketAddr]) -> Result<InFlight, Failure> {
    let endpoints = request.cluster.endpoints();
    let picked = service.worker.chance(|chance| endpoints.pick(clock::now(), chance, tried));
    match picked {
        Ok(pick) => {
            if pick.panic {
                request.edge.panics.increment(1);
            }
            Ok(pick.in_flight)
        }
        Err(PickFailure::NoEndpoints) => Err(Failure::NoEndpoints),
        Err(PickFailure::NoneReady | PickFailure::AllTried) => Err(Failure::NoneAvailable),
    }
}

/// One try: a pooled connection first. A pooled connection that turns out closed before it answered is replaced by a
/// new one to the same endpoint, where the request may be repeated.
async fn try_endpoint(
    service: &Service<'_>,
    client: &mut Connection,
    request: &mut Request,
    endpoint: &Arc<Endpoint>,
) -> Result<(Answered, Pump, Pooled), Failure> {
    if let Some(mut upstream) = service.worker.pool.take(&request.cluster, endpoint) {
        match exchange::ask(service, client, &mut upstream.connection, &mut request.pump, &request.asked).await {
            Ok((answered, answer)) => return Ok((answered, answer, upstream)),
            Err(Failure::UpstreamClosed) if may_retry(request, Failure::UpstreamClosed) || request.pump.sent == 0 => {
                request.pump.rewind();
            }
            Err(failure) => return Err(failure),
        }
    }
    let worker = service.worker;
    let mut upstream = {
        // Boxed, once per new connection: a handshake's state would set the size of every idle one.
        let open = connect::open(worker, &request.cluster, endpoint, MeshProtocol::Http1, &request.edge);
        exchange::within(request.asked.deadline, Box::pin(open).as_mut()).await?
    };
    let (answered, answer) =
        exchange::ask(service, client, &mut upstream.connection, &mut request.pump, &request.asked).await?;
    Ok((answered, answer, upstream))
}

/// Tells the balancer how it went, and counts an ejection that follows.
fn record(service: &Service<'_>, request: &Request, mut in_flight: InFlight, outcome: Outcome) {
    let endpoints = request.cluster.endpoints();
    let address = in_flight.endpoint().address();
    let ejection = service.worker.chance(|chance| endpoints.record(&mut in_flight, clock::now(), outcome, chance));
    if let Some(ejection) = ejection {
        request.edge.ejections.increment(1);
        tracing::info!(
            cluster = %request.cluster.spec.name, endpoint = %address, seconds = ejection.duration.as_secs_f32(),
            again = ejection.again, "endpoint ejected"
        );
    }
}
