//! Connections of the control plane's port: handshakes bounded in number and time, and who is on the other side.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures_util::Stream;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use weft_core::names::SpiffeId;
use weft_proxy::clock;
use weft_proxy::tls::{TlsError, expires_at};

use super::binding::workload_of;

/// Handshakes at a time; more wait in the kernel's backlog. Each costs about a millisecond, so this is a mesh of
/// thousands coming back at once; who stalls occupies a place for [`HANDSHAKE_LIMIT`] at most.
const MOST_HANDSHAKES: usize = 256;
/// From accepted to the end of the handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Connections ready and not taken by the server yet.
const READY: usize = 64;
/// Pause when the system gives no more connections (no descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is on the other side of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: SocketAddr,
    certificate: Option<Verified>,
}

/// What a verified certificate says.
#[derive(Debug, Clone)]
struct Verified {
    identity: SpiffeId,
    workload: Option<String>,
    expires_at: SystemTime,
}

impl Peer {
    /// The verified identity, as long as its certificate is valid.
    pub fn identity(&self, now: SystemTime) -> Option<&SpiffeId> {
        self.certificate.as_ref().filter(|certificate| now < certificate.expires_at).map(|found| &found.identity)
    }

    /// The one workload its certificate was given to, if it was given to one: no other of the identity may it be.
    pub fn workload(&self) -> Option<&str> {
        self.certificate.as_ref()?.workload.as_deref()
    }
}

/// A TLS connection whose handshake is done.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

/// The peer of a request that came over a [`Connection`].
pub fn peer<T>(request: &tonic::Request<T>) -> Option<&Peer> {
    request.extensions().get::<Peer>()
}

/// The identity a request's client proved by its certificate. `None` without one, and as soon as it has expired: a
/// connection may outlive its certificate.
pub fn peer_identity<T>(request: &tonic::Request<T>) -> Option<SpiffeId> {
    peer(request)?.identity(clock::wall()).cloned()
}

/// Takes connections of `listener`. Must be called within a runtime; dropping the stream closes the listener.
///
/// The stream never yields an error: a failed handshake concerns its client alone and is logged.
pub fn incoming(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
) -> impl Stream<Item = io::Result<Connection>> + Send + Unpin + use<> {
    let (ready, connections) = mpsc::channel(READY);
    tokio::spawn(accept(listener, TlsAcceptor::from(tls), ready));
    ReceiverStream::new(connections)
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, ready: mpsc::Sender<io::Result<Connection>>) {
    let places = Arc::new(Semaphore::new(MOST_HANDSHAKES));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            () = ready.closed() => return,
        };
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot take connections, trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (tls, ready) = (tls.clone(), ready.clone());
        tokio::spawn(async move {
            match handshake(tls, socket, address).await {
                // Nobody takes it: the server is ending.
                Ok(connection) => drop(ready.send(Ok(connection)).await),
                Err(error) => tracing::debug!(%address, %error, "handshake failed"),
            }
            drop(place);
        });
    }
}

async fn handshake(tls: TlsAcceptor, socket: TcpStream, address: SocketAddr) -> Result<Connection, TlsError> {
    socket.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE_LIMIT, tls.accept(socket))
        .await
        .map_err(|_| TlsError::TimedOut(HANDSHAKE_LIMIT))??;
    let state = stream.get_ref().1;
    let certificate = match state.peer_certificates().and_then(<[_]>::first) {
        Some(leaf) => Some(Verified {
            identity: weft_proxy::tls::identity_of(leaf)?,
            workload: workload_of(leaf),
            expires_at: expires_at(leaf)?,
        }),
        None => None,
    };
    Ok(Connection { peer: Peer { address, certificate }, stream })
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_outlives_its_certificate_proves_nothing_any_more() {
        let end = SystemTime::UNIX_EPOCH + Duration::from_hours(1);
        let identity = SpiffeId::workload("weft.local", "default", "orders");
        let certificate = Verified { identity: identity.clone(), workload: None, expires_at: end };
        let peer = Peer { address: ([127, 0, 0, 1], 1).into(), certificate: Some(certificate) };
        assert_eq!(peer.identity(end - Duration::from_secs(1)), Some(&identity));
        assert_eq!(peer.identity(end), None);
    }
}
