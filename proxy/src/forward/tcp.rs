//! Opaque bytes both ways, each way ended on its own (half-close).

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use weft_core::balance::PickFailure;
use weft_core::endpoint::{InFlight, Outcome};

use super::Service;
use super::pump::{Pump, PumpError};
use crate::clock;
use crate::connect;
use crate::failure::{Failure, Retry};
use crate::pool::Pooled;
use crate::state::{Cluster, Listener};
use crate::stream::Connection;
use crate::telemetry::Edge;
use crate::tls::MeshProtocol;

/// A side that takes nothing any more and has said all it will leaves only what the other still says, which is dropped.
/// It is read for this long and up to this much, so that a close does not destroy what is on its way there; an endless
/// answer to a client that has gone ends here.
const LINGER: Duration = Duration::from_secs(5);
const DROPPED: u64 = 1024 * 1024;

/// What a finished tunnel carried.
#[derive(Debug, Default, Clone, Copy)]
pub struct Carried {
    /// Bytes from the client to the upstream.
    pub to_upstream: u64,
    pub to_client: u64,
}

#[derive(Debug)]
enum Way {
    Moving(Pump),
    /// The source has ended: tell the sink.
    Closing(u64),
    Closed(u64),
    /// The sink takes nothing any more, but what it said before is still on its way: a server that refuses and closes
    /// while it is being written to. What the source still says is dropped; unread, it would make the kernel reset the
    /// connection and destroy those last words.
    Refused {
        sent: u64,
        kind: io::ErrorKind,
        dropped: u64,
    },
}

impl Way {
    fn sent(&self) -> u64 {
        match self {
            Self::Moving(pump) => pump.sent,
            Self::Closing(sent) | Self::Closed(sent) | Self::Refused { sent, .. } => *sent,
        }
    }

    fn is_over(&self) -> bool {
        matches!(self, Self::Closed(_) | Self::Refused { .. })
    }

    /// What was read and dropped, when nothing else is left to carry; `None` while something is.
    fn leftover(&self, other: &Self) -> Option<u64> {
        match self {
            Self::Refused { dropped, .. } if other.is_over() => Some(*dropped),
            _ => None,
        }
    }

    fn poll(&mut self, source: &mut Connection, sink: &mut Connection, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self {
                Self::Moving(pump) => match pump.poll(source, sink, cx) {
                    Poll::Ready(Ok(())) => *self = Self::Closing(pump.sent),
                    Poll::Ready(Err(PumpError::Write(error))) => {
                        *self = Self::Refused { sent: pump.sent, kind: error.kind(), dropped: 0 };
                    }
                    Poll::Ready(Err(PumpError::Read(error))) => return Poll::Ready(Err(error)),
                    Poll::Ready(Err(PumpError::Body(error))) => return Poll::Ready(Err(io::Error::other(error))),
                    Poll::Pending => return Poll::Pending,
                },
                Self::Closing(sent) => match sink.poll_shutdown(cx) {
                    // A peer that is already gone has nothing to be told.
                    Poll::Ready(_) => *self = Self::Closed(*sent),
                    Poll::Pending => return Poll::Pending,
                },
                Self::Closed(_) => return Poll::Ready(Ok(())),
                Self::Refused { dropped, .. } => {
                    let length = source.data().len();
                    source.consume(length);
                    *dropped += length as u64;
                    match source.poll_fill(cx) {
                        Poll::Ready(Ok(1..)) => {}
                        Poll::Ready(_) => return Poll::Ready(Ok(())),
                        Poll::Pending => return Poll::Pending,
                    }
                }
            }
        }
    }
}

/// Carries bytes until both ways have ended, one failed, or nothing moved for `limit`.
///
/// # Errors
/// What the socket that failed first said, or `TimedOut`; the bytes carried so far are in `carried`.
pub async fn tunnel(
    client: &mut Connection,
    upstream: &mut Connection,
    carried: &mut Carried,
    limit: Duration,
) -> io::Result<()> {
    let mut to_upstream = Way::Moving(Pump::bytes());
    let mut to_client = Way::Moving(Pump::bytes());
    let mut moved = 0;
    let mut lingering = None;
    let mut idle = std::pin::pin!(tokio::time::sleep(limit));
    let result = poll_fn(|cx| {
        let first = to_upstream.poll(client, upstream, cx);
        let second = to_client.poll(upstream, client, cx);
        match (first, second) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => return Poll::Ready(Err(error)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Ok(())),
            _ => {}
        }
        if let Some(dropped) = to_upstream.leftover(&to_client).or_else(|| to_client.leftover(&to_upstream)) {
            let since = *lingering.get_or_insert_with(|| {
                idle.as_mut().reset(tokio::time::Instant::now() + LINGER);
                dropped
            });
            if dropped.saturating_sub(since) > DROPPED {
                return Poll::Ready(Ok(()));
            }
        }
        // The timer is armed again only when it fires: one that moves with every byte costs more than the byte.
        while idle.as_mut().poll(cx).is_ready() {
            if lingering.is_some() {
                return Poll::Ready(Ok(()));
            }
            let now_moved = to_upstream.sent() + to_client.sent();
            if now_moved == moved {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            moved = now_moved;
            idle.as_mut().reset(tokio::time::Instant::now() + limit);
        }
        Poll::Pending
    })
    .await;
    carried.to_upstream += to_upstream.sent();
    carried.to_client += to_client.sent();
    match (&to_upstream, &to_client) {
        (Way::Refused { kind, .. }, _) | (_, Way::Refused { kind, .. }) => result.and(Err((*kind).into())),
        _ => result,
    }
}

/// Carries one connection to an endpoint of its listener's cluster; another endpoint is tried once when the first does
/// not take the connection.
pub fn forward_connection<'a>(
    service: &'a Service<'_>,
    client: Connection,
    listener: &'a Listener,
    protocol: MeshProtocol,
) -> impl Future<Output = ()> + 'a {
    if listener.cluster.is_none() {
        tracing::debug!(listener = %listener.spec.name, "no cluster: connection closed");
    }
    // Not awaited here: a future within a future would hold its arguments twice.
    forward_to(service, client, listener.cluster.as_ref(), protocol)
}

/// [`forward_connection`] to a cluster that is chosen; without one the connection is closed.
pub(crate) async fn forward_to(
    service: &Service<'_>,
    mut client: Connection,
    cluster: Option<&Arc<Cluster>>,
    protocol: MeshProtocol,
) {
    let Some(cluster) = cluster else { return };
    let edge = service.edge(cluster);
    match connect(service, cluster, &edge, protocol).await {
        Ok((mut upstream, in_flight)) => carry(service, cluster, &edge, &mut client, &mut upstream, in_flight).await,
        Err(failure) => service.tell(&edge, &failure.into()),
    }
}

/// Carries bytes between two connections and tells the signals and the balancer.
pub(crate) async fn carry(
    service: &Service<'_>,
    cluster: &Cluster,
    edge: &Edge,
    client: &mut Connection,
    upstream: &mut Pooled,
    mut in_flight: InFlight,
) {
    let mut carried = Carried::default();
    // How long a connection lasts says nothing about the endpoint; that it was taken does.
    service.worker.chance(|chance| cluster.endpoints().record(&mut in_flight, clock::now(), Outcome::Success, chance));
    let limit = service.worker.timeouts.tcp_idle;
    let _ = tunnel(client, &mut upstream.connection, &mut carried, limit).await;
    edge.bytes(carried.to_upstream, carried.to_client);
}

/// Picks an endpoint and connects; one more try on another.
///
/// # Errors
/// The failure of the last try.
pub(crate) async fn connect(
    service: &Service<'_>,
    cluster: &Arc<Cluster>,
    edge: &Edge,
    protocol: MeshProtocol,
) -> Result<(Box<Pooled>, InFlight), Failure> {
    let worker = service.worker;
    let mut tried: Option<SocketAddr> = None;
    loop {
        let picked = worker.chance(|chance| cluster.endpoints().pick(clock::now(), chance, tried.as_slice()));
        let mut in_flight = match picked {
            Ok(picked) => picked.in_flight,
            Err(PickFailure::NoEndpoints) => return Err(Failure::NoEndpoints),
            Err(PickFailure::NoneReady | PickFailure::AllTried) => return Err(Failure::NoneAvailable),
        };
        let endpoint = Arc::clone(in_flight.endpoint());
        // Boxed: a handshake's state would set the size of a connection for all its life.
        match Box::pin(connect::open(worker, cluster, &endpoint, protocol, edge)).await {
            Ok(upstream) => return Ok((upstream, in_flight)),
            Err(failure) => {
                let ejection = worker.chance(|chance| {
                    cluster.endpoints().record(&mut in_flight, clock::now(), Outcome::Failure, chance)
                });
                if ejection.is_some() {
                    edge.ejections.increment(1);
                }
                if tried.is_some() || failure.facts().retry != Retry::NothingSent {
                    return Err(failure);
                }
                edge.retries.increment(1);
                tried = Some(endpoint.address());
            }
        }
    }
}
