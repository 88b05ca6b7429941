//! Stage: accept. Listeners, original destinations, one task a connection.

mod listen;

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpStream};
use weft_core::model::Direction;

use crate::refusal::Refusal;
use crate::worker::Worker;
use crate::{inbound, outbound, stream};

pub use listen::{Listen, ParseListenError, bind, fill};

/// Pause after the kernel would not give a connection (no descriptors, no memory): accepting again at once would spin.
const PAUSE: Duration = Duration::from_millis(50);

/// A listener of one worker.
#[derive(Debug)]
pub struct Accepting {
    pub listener: TcpListener,
    pub direction: Direction,
    /// The original destination where no kernel rule tells it.
    pub fixed: Option<SocketAddr>,
}

/// Accepts until dropped; each connection is a task of this worker.
pub async fn serve(worker: Rc<Worker>, accepting: Accepting, limit: usize) {
    loop {
        let (socket, client) = match accepting.listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if let Err(refusal) = has_room(&worker, limit) {
            refused(accepting.direction, client, &refusal);
            continue;
        }
        let destination = match accepting.fixed {
            Some(destination) => Ok(destination),
            None => original_destination(&worker, &socket),
        };
        let destination = match destination {
            Ok(destination) => destination,
            Err(refusal) => {
                refused(accepting.direction, client, &refusal);
                continue;
            }
        };
        // Each a task of its own size.
        let serving = Rc::clone(&worker);
        match accepting.direction {
            Direction::Inbound => {
                spawn(&worker, accepting.direction, client, inbound::serve(serving, socket, destination));
            }
            Direction::Outbound => {
                spawn(&worker, accepting.direction, client, outbound::serve(serving, socket, destination));
            }
        }
    }
}

/// Not an `async` block around `connection`: that would hold it twice.
fn spawn(
    worker: &Worker,
    direction: Direction,
    client: SocketAddr,
    connection: impl Future<Output = Result<(), Refusal>> + 'static,
) {
    // At once: a handshake counts for the limit, and the drain waits for it.
    let open = worker.arrive(direction);
    tokio::task::spawn_local(connection.map(move |outcome| {
        let _open = open;
        if let Err(refusal) = outcome {
            refused(direction, client, &refusal);
        }
    }));
}

/// Whether one more connection can be held.
fn has_room(worker: &Worker, limit: usize) -> Result<(), Refusal> {
    let open = worker.drain.open(Direction::Inbound) + worker.drain.open(Direction::Outbound);
    if open >= limit {
        return Err(Refusal::Limit { what: "the number of connections", limit });
    }
    let limit = worker.limits.buffered_bytes;
    if stream::buffered() > limit {
        return Err(Refusal::Limit { what: "the number of buffered bytes", limit });
    }
    Ok(())
}

/// Where the connection was going before the kernel redirected it here. One made straight to our own port would come
/// back to us for ever.
fn original_destination(worker: &Worker, socket: &TcpStream) -> Result<SocketAddr, Refusal> {
    let local = socket.local_addr().map_err(Refusal::NoDestination)?;
    let reference = socket2::SockRef::from(socket);
    let is_ipv4 = local.ip().to_canonical().is_ipv4();
    let found = if is_ipv4 { reference.original_dst_v4() } else { reference.original_dst_v6() };
    let destination = match found {
        Ok(address) => address.as_socket().unwrap_or(local),
        // Not redirected: connection tracking does not know it.
        Err(error) if matches!(error.raw_os_error(), Some(nix::libc::ENOENT | nix::libc::ENOPROTOOPT)) => local,
        Err(error) => return Err(Refusal::NoDestination(error)),
    };
    if destination == local && worker.own_ports.contains(&destination.port()) {
        return Err(Refusal::OwnPort(destination.port()));
    }
    Ok(destination)
}

/// Counts and logs a connection that got nothing. Not on the path of one that goes well.
fn refused(direction: Direction, client: SocketAddr, refusal: &Refusal) {
    let side = match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    };
    metrics::counter!("weft_connections_refused_total", "direction" => side, "reason" => refusal.reason().code())
        .increment(1);
    tracing::debug!(%client, direction = side, reason = %refusal, "connection refused");
}
