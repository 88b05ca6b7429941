//! The life of a connection that arrives for our workload.
//!
//! accept, tls (who is it?), detect where nobody said, route to the application, forward. Plaintext is refused unless the
//! mesh says permissive, the applications' own TLS with it; ports nobody described are the same to callers of the mesh.

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::TcpStream;
use weft_core::model::{Direction, InboundTls, Protocol};
use weft_core::names::SpiffeId;
use weft_proto::names::annotation;

use crate::clock;
use crate::detect::{self, Begin};
use crate::forward::tcp::forward_connection;
use crate::forward::{Service, http1, mux};
use crate::refusal::Refusal;
use crate::state::Listener;
use crate::stream::{Connection, ReadAhead, Stream};
use crate::tls::{self, MeshProtocol, TlsError};
use crate::worker::{PLAINTEXT_SOURCE, Worker};

/// Who is on the other side, and what comes.
struct Arrived {
    connection: Connection,
    peer: Option<SpiffeId>,
    protocol: Protocol,
    /// Many connections of HTTP/1 come inside this one.
    is_mux: bool,
}

/// Serves one connection to its end. Not an `async fn`: that would hold its arguments twice.
///
/// # Errors
/// [`Refusal`] when nothing was forwarded.
pub fn serve(
    worker: Rc<Worker>,
    socket: TcpStream,
    destination: SocketAddr,
) -> impl Future<Output = Result<(), Refusal>> {
    let listener = worker.store.inbound(destination);
    async move {
        // Boxed: a handshake's state would set the size of a connection for all its life.
        let arriving = Box::pin(identify(&worker, socket, &listener, destination));
        let Arrived { connection, peer, protocol, is_mux } = arriving.await?;
        let (source, certificate) = named(peer);
        let service = Service {
            worker: &worker,
            direction: Direction::Inbound,
            destination,
            source: Some(&source),
            client_certificate: certificate.as_ref(),
            http: listener.spec.http.clone(),
        };
        match protocol {
            Protocol::Http if is_mux => Box::pin(mux::serve(&service, connection, listener)).await,
            Protocol::Http => Box::pin(http1::serve(&service, connection, listener)).await,
            // Which name it asked for was seen on the way out.
            Protocol::Tcp | Protocol::Tls => {
                Box::pin(forward_connection(&service, connection, &listener, MeshProtocol::Tcp)).await;
            }
            Protocol::Detect => Box::pin(detect::serve(&service, connection, listener)).await,
        }
        Ok(())
    }
}

/// Whoever comes without a certificate of the mesh. To a port that no service names it is a scraper, or the cluster's own:
/// told aloud, as nobody on the other side learns why.
fn refused(worker: &Worker, destination: SocketAddr, source: TlsError) -> Refusal {
    if worker.store.load().listener(Direction::Inbound, destination).is_some() {
        return Refusal::Tls(source);
    }
    let port = destination.port();
    // Who says nothing is a port scan, or our own proof that the pod is captured.
    let says_nothing = matches!(source, TlsError::Closed);
    if !says_nothing && let Some(untold) = worker.strangers.turn((), clock::now()) {
        tracing::info!(
            port, %source, untold,
            "refused a connection from outside the mesh to a port that no service names; to let such in, exclude the port \
             from capture (annotation {})", annotation::EXCLUDE_INBOUND_PORTS
        );
    }
    Refusal::UnknownPort { port, source }
}

/// How the caller is called in the signals, and what is said of its certificate.
fn named(peer: Option<SpiffeId>) -> (Rc<str>, Option<Rc<str>>) {
    match peer {
        Some(peer) => {
            let source = format!("{}/{}", peer.namespace(), peer.service_account());
            (source.into(), Some(format!("URI={peer}").into()))
        }
        None => (PLAINTEXT_SOURCE.into(), None),
    }
}

/// TLS and identity; or plaintext, where that is allowed.
async fn identify(
    worker: &Worker,
    socket: TcpStream,
    listener: &Listener,
    destination: SocketAddr,
) -> Result<Arrived, Refusal> {
    let limit = worker.timeouts.handshake;
    let mut socket = ReadAhead::new(socket);
    if listener.spec.tls == InboundTls::Permissive {
        let protocol = match detect::begins(&mut socket, listener.spec.protocol, limit).await? {
            Begin::Mesh => None,
            Begin::Plain => Some(listener.spec.protocol),
            Begin::OtherTls => Some(Protocol::Tcp),
        };
        if let Some(protocol) = protocol {
            return Ok(Arrived { connection: socket.into_plain(), peer: None, protocol, is_mux: false });
        }
    }
    let credentials = worker.credentials.current().ok_or(Refusal::NoCertificate)?;
    let accepted = tls::accept(&credentials, socket, limit).await;
    let accepted = accepted.map_err(|error| refused(worker, destination, error))?;
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
