//! The life of a connection that leaves our workload.
//!
//! accept, look up where it was going, then by protocol: requests (route, balance, connect, forward, each time),
//! bytes (once), TLS by the name it asks for (once), or watch who speaks first. What goes to a workload of the mesh at a port
//! that no service has goes to that workload alone. Where destinations are asked for, the first connection to one waits for the
//! answer. What goes to an address nobody described is carried there as it is,
//! unless only services have such addresses.

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;
use weft_core::model::{DEFAULT_CONNECT_TIMEOUT, Direction, Protocol};

use crate::clock;
use crate::connect;
use crate::detect;
use crate::forward::tcp::{Carried, forward_connection, tunnel};
use crate::forward::{Service, http1};
use crate::refusal::Refusal;
use crate::state::{InUse, Listener, Look, Unasked, Usage};
use crate::stream::{Connection, Stream};
use crate::telemetry::{Edge, EdgeLabels};
use crate::tls::MeshProtocol;
use crate::worker::Worker;

/// Serves one connection to its end. Not an `async fn`: that would hold its arguments twice.
///
/// # Errors
/// [`Refusal`] when nothing was forwarded.
pub fn serve(
    worker: Rc<Worker>,
    socket: TcpStream,
    destination: SocketAddr,
) -> impl Future<Output = Result<(), Refusal>> {
    let listener = worker.store.outbound(destination);
    async move {
        let mut listener = listener;
        let mut _in_use = listener.as_ref().and_then(|listener| listener.usage.as_ref()).map(in_use);
        if worker.store.must_ask(destination, listener.is_some()) {
            (listener, _in_use) = Box::pin(ask(&worker, destination)).await;
        }
        let connection = Connection::new(Stream::Plain(socket));
        let Some(listener) = listener else {
            // Nobody but a service can be meant, and what is meant for a service never leaves in plaintext.
            if worker.virtual_networks.contains(destination.ip()) {
                return Err(Refusal::UnknownService(destination));
            }
            return Box::pin(pass_through(&worker, connection, destination)).await;
        };
        let service = Service {
            worker: &worker,
            direction: Direction::Outbound,
            destination,
            source: None,
            client_certificate: None,
            http: listener.spec.http.clone(),
        };
        match listener.spec.protocol {
            Protocol::Http => Box::pin(http1::serve(&service, connection, listener)).await,
            Protocol::Tcp => Box::pin(forward_connection(&service, connection, &listener, MeshProtocol::Tcp)).await,
            Protocol::Tls => return Box::pin(detect::serve_tls(&service, connection, listener)).await,
            Protocol::Detect => Box::pin(detect::serve(&service, connection, listener)).await,
        }
        Ok(())
    }
}

/// Where a connection to an address without a listener goes, once somebody could say.
async fn ask(worker: &Worker, destination: SocketAddr) -> (Option<Arc<Listener>>, Option<InUse>) {
    let Some(demand) = worker.store.demand() else { return (None, None) };
    let mut has_waited = false;
    let asking = async {
        loop {
            match demand.look(destination, clock::now()) {
                Look::Answered(kind, usage) => return (kind.label(), Some(usage)),
                Look::Unasked(Unasked::Unconnected) => return ("unconnected", None),
                Look::Unasked(Unasked::Full) => return ("full", None),
                Look::Unasked(Unasked::Late) => return ("late", None),
                Look::Wait(mut answered) => {
                    has_waited = true;
                    // It closes with the answer, or with the stream: the next look tells.
                    let _ = answered.changed().await;
                }
            }
        }
    };
    let asked = tokio::time::timeout(worker.timeouts.destination, asking).await;
    let (result, usage) = asked.unwrap_or_else(|_| {
        demand.late(destination);
        ("late", None)
    });
    let is_known = !has_waited && usage.is_some();
    if !is_known {
        metrics::counter!("weft_destination_asks_total", "result" => result).increment(1);
    }
    let listener = worker.store.outbound(destination);
    let usage = listener.as_ref().and_then(|listener| listener.usage.as_ref()).or(usage.as_ref()).map(in_use);
    (listener, usage)
}

fn in_use(usage: &Arc<Usage>) -> InUse {
    usage.begin(clock::now())
}

/// To an address outside the mesh: bytes as they are, measured under one name.
async fn pass_through(worker: &Worker, mut client: Connection, destination: SocketAddr) -> Result<(), Refusal> {
    let labels = EdgeLabels {
        direction: Direction::Outbound,
        source: worker.store.source().to_owned(),
        destination: "passthrough".to_owned(),
    };
    let edge = Edge::new(labels, false);
    let socket = connect::dial(destination, worker.socket_mark, DEFAULT_CONNECT_TIMEOUT).await.map_err(|failure| {
        edge.failure(failure.facts().code);
        Refusal::Unreachable(destination)
    })?;
    let _active = edge.connection();
    let mut upstream = Connection::new(Stream::Plain(socket));
    let mut carried = Carried::default();
    let _ = tunnel(&mut client, &mut upstream, &mut carried, worker.timeouts.tcp_idle).await;
    edge.bytes(carried.to_upstream, carried.to_client);
    Ok(())
}
