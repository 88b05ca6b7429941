//! The life of a connection that arrives for our workload.
//!
//! accept, tls (who is it?), detect where nobody said, route to the application, forward. Plaintext is refused on
//! meshed ports unless the mesh says permissive; ports nobody described are refused.

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::TcpStream;
use weft_core::model::{Direction, InboundTls, Protocol};
use weft_core::names::SpiffeId;

use crate::detect;
use crate::forward::tcp::forward_connection;
use crate::forward::{Service, http1, mux};
use crate::refusal::Refusal;
use crate::state::Listener;
use crate::stream::{Connection, ReadAhead, Stream};
use crate::tls::{self, MeshProtocol};
use crate::worker::{PLAINTEXT_SOURCE, Worker};

/// Who is on the other side, and what comes.
struct Arrived {
    connection: Connection,
    peer: Option<SpiffeId>,
    protocol: Protocol,
    /// Many connections of HTTP/1 come inside this one.
    is_mux: bool,
}

/// Serves one connection to its end.
///
/// # Errors
/// [`Refusal`] when nothing was forwarded.
pub async fn serve(worker: &Rc<Worker>, socket: TcpStream, destination: SocketAddr) -> Result<(), Refusal> {
    let listener = worker.store.load().listener(Direction::Inbound, destination).cloned();
    let listener = listener.ok_or(Refusal::UnknownPort)?;
    // Boxed: a handshake's state would set the size of a connection for all its life.
    let arrived = Box::pin(identify(worker, socket, &listener)).await?;
    let source = arrived
        .peer
        .as_ref()
        .map_or_else(|| PLAINTEXT_SOURCE.to_owned(), |peer| format!("{}/{}", peer.namespace(), peer.service_account()));
    let certificate = arrived.peer.as_ref().map(|peer| format!("URI={peer}"));
    let service = Service {
        worker,
        direction: Direction::Inbound,
        destination,
        source: Some(&source),
        client_certificate: certificate.as_ref().map(String::as_bytes),
    };
    match arrived.protocol {
        Protocol::Http if arrived.is_mux => Box::pin(mux::serve(&service, arrived.connection, listener)).await,
        Protocol::Http => Box::pin(http1::serve(&service, arrived.connection, listener)).await,
        Protocol::Tcp => Box::pin(forward_connection(&service, arrived.connection, &listener, MeshProtocol::Tcp)).await,
        Protocol::Detect => Box::pin(detect::serve(&service, arrived.connection, listener)).await,
    }
    Ok(())
}

/// TLS and identity; or plaintext, where that is allowed.
async fn identify(worker: &Worker, socket: TcpStream, listener: &Listener) -> Result<Arrived, Refusal> {
    let limit = worker.timeouts.handshake;
    if listener.spec.tls == InboundTls::Permissive && !detect::starts_with_tls(&socket, listener, limit).await? {
        let connection = Connection::new(Stream::Plain(socket));
        return Ok(Arrived { connection, peer: None, protocol: listener.spec.protocol, is_mux: false });
    }
    let credentials = worker.credentials.current().ok_or(Refusal::NoCertificate)?;
    let accepted = tls::accept(&credentials, ReadAhead::new(socket), limit).await.map_err(Refusal::Tls)?;
    let protocol = match accepted.protocol {
        MeshProtocol::Http1 | MeshProtocol::Http2 | MeshProtocol::Mux => Protocol::Http,
        MeshProtocol::Tcp => Protocol::Tcp,
        // What was declared since the caller's proxy last heard wins.
        MeshProtocol::Detect => listener.spec.protocol,
    };
    let connection = Connection::new(Stream::Server(Box::new(accepted.stream)));
    let is_mux = accepted.protocol == MeshProtocol::Mux;
    Ok(Arrived { connection, peer: Some(accepted.peer), protocol, is_mux })
}
