//! Stage: connect. A pooled or new connection to an endpoint, with the identity the service must have.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use weft_core::endpoint::Endpoint;

use crate::failure::Failure;
use crate::http2::Fields;
use crate::multiplex::{self, Client, Driver, NotOpened, Pipe};
use crate::pool::{Join, Opened, Opening, Pooled, SharedRoute};
use crate::state::Cluster;
use crate::stream::{Connection, ReadAhead, Stream, tune};
use crate::telemetry::Edge;
use crate::tls::{self, MeshClient, MeshProtocol, TlsError};
use crate::worker::Worker;

/// Opens a new connection to an endpoint of a cluster, within its connect timeout.
///
/// # Errors
/// [`Failure`] with nothing sent; [`Failure::ProtocolMismatch`] where the endpoint's proxy shares no connections.
pub async fn open(
    worker: &Worker,
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    protocol: MeshProtocol,
    edge: &Edge,
) -> Result<Box<Pooled>, Failure> {
    let (address, limit) = (endpoint.address(), cluster.spec.connect_timeout);
    let dial = || dial_from(cluster.caller(address), address, worker.socket_mark, limit);
    let socket = dial().await?;
    // By what is said of the endpoint alone: what is meant to be protected is never sent in another way.
    let is_protected = cluster.protects(endpoint);
    let stream = if is_protected {
        let credentials = worker.credentials.current().ok_or(Failure::NoCertificate)?;
        match cluster.tls(&credentials, protocol) {
            Some(client) => match protect(worker, cluster, endpoint, &client, socket).await {
                // Our ticket is not taken any more: once again without it.
                Err(TlsError::NotPostQuantum) => protect(worker, cluster, endpoint, &client, dial().await?).await,
                outcome => outcome,
            }
            .map_err(|error| match (error, protocol) {
                (TlsError::NoProtocol, MeshProtocol::Mux) => Failure::ProtocolMismatch,
                _ => Failure::PeerIdentity,
            })?,
            // A cluster that protects any endpoint has the means to.
            None => return Err(Failure::PeerIdentity),
        }
    } else {
        Stream::Plain(socket)
    };
    // On the way in the signals tell how the caller came.
    let is_exception = cluster.spec.tls.is_some() && !is_protected;
    let active = if is_exception { edge.plaintext_connection() } else { edge.connection() };
    Ok(Pooled::new(Connection::new(stream), Arc::clone(cluster), Arc::clone(endpoint), Some(active)))
}

/// Mutual TLS over a socket.
async fn protect(
    worker: &Worker,
    cluster: &Cluster,
    endpoint: &Endpoint,
    client: &MeshClient,
    socket: TcpStream,
) -> Result<Stream, TlsError> {
    let (socket, limit) = (ReadAhead::new(socket), worker.timeouts.handshake);
    match tls::connect(client, endpoint.address(), socket, limit).await {
        Ok(tls) => Ok(Stream::Client(Box::new(tls))),
        Err(error) => {
            tracing::debug!(cluster = %cluster.spec.name, endpoint = %endpoint.address(), %error, "mesh handshake failed");
            Err(error)
        }
    }
}

/// Opens a connection for requests of HTTP/1: towards the mesh inside a shared one, unless the proxy there is from before
/// connections were shared. Each connection to such a one costs a handshake in vain; the next request finds it in the pool.
///
/// # Errors
/// [`Failure`] with nothing sent.
pub async fn open_http1(
    worker: &Rc<Worker>,
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    edge: &Rc<Edge>,
) -> Result<Box<Pooled>, Failure> {
    if !cluster.protects(endpoint) {
        return open(worker, cluster, endpoint, MeshProtocol::Http1, edge).await;
    }
    let opened = match on_shared(worker, cluster, endpoint, edge, MeshProtocol::Mux, Pipe::open).await {
        Err(Failure::ProtocolMismatch) => return open(worker, cluster, endpoint, MeshProtocol::Http1, edge).await,
        opened => opened?,
    };
    let connection = Connection::new(Stream::Inside(Box::new(opened.stream)));
    Ok(Pooled::new(connection, Arc::clone(cluster), Arc::clone(endpoint), None))
}

/// Opens a stream to an endpoint of a cluster, with the head of a request on its way; `ended`: that is all of it.
///
/// # Errors
/// [`Failure`] with nothing sent.
pub async fn open_stream(
    worker: &Rc<Worker>,
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    edge: &Rc<Edge>,
    head: &Fields,
    ended: bool,
) -> Result<Opened<multiplex::Stream>, Failure> {
    on_shared(worker, cluster, endpoint, edge, MeshProtocol::Http2, |client| client.open(head, ended)).await
}

/// The same for an extended CONNECT, which only a server that has said so takes (RFC 8441 section 3).
///
/// # Errors
/// [`Failure`] with nothing sent; [`Failure::ProtocolMismatch`] where the endpoint takes none.
pub async fn open_tunnel(
    worker: &Rc<Worker>,
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    edge: &Rc<Edge>,
    head: &Fields,
) -> Result<Opened<multiplex::Stream>, Failure> {
    let open = |client: &Client| match (client.is_settled(), client.takes_tunnels()) {
        // Its settings are still to come: who waits for room waits for them too.
        (false, _) => Err(NotOpened::Full),
        (true, false) => Ok(None),
        (true, true) => client.open(head, false).map(Some),
    };
    let Opened { stream, is_used } = on_shared(worker, cluster, endpoint, edge, MeshProtocol::Http2, open).await?;
    stream.map(|stream| Opened { stream, is_used }).ok_or(Failure::ProtocolMismatch)
}

/// A stream of a shared connection where one has room, else of a new one: one is opened at a time, and all who need it
/// wait for it.
async fn on_shared<T>(
    worker: &Rc<Worker>,
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    edge: &Rc<Edge>,
    protocol: MeshProtocol,
    open: impl Fn(&multiplex::Client) -> Result<T, NotOpened>,
) -> Result<Opened<T>, Failure> {
    let route = SharedRoute { cluster, endpoint, protocol };
    loop {
        // Connections of an earlier certificate take nothing new, so that none outlives it by much.
        let generation = generation(worker, cluster, endpoint);
        if let Some(opened) = worker.pool.open_stream(&route, generation, &open) {
            return Ok(opened);
        }
        let opening = match worker.pool.join(&route)? {
            Join::Wait(opening) => opening,
            Join::Open(opening) => {
                let share = share(
                    Rc::clone(worker),
                    Arc::clone(cluster),
                    Arc::clone(endpoint),
                    Rc::clone(edge),
                    protocol,
                    Rc::clone(&opening),
                );
                // Of its own: whoever asked first may be gone before the others are.
                tokio::task::spawn_local(share);
                opening
            }
        };
        opening.progress().await?;
    }
}

/// Shares a connection that nobody has used yet. It is dropped where another one is being opened, or the endpoint has as
/// many as it gets.
pub fn adopt(worker: &Rc<Worker>, pooled: Box<Pooled>) {
    let (cluster, protocol) = (Arc::clone(pooled.cluster()), MeshProtocol::Http2);
    let endpoint = Arc::clone(&pooled.endpoint);
    let route = SharedRoute { cluster: &cluster, endpoint: &endpoint, protocol };
    if let Ok(Join::Open(opening)) = worker.pool.join(&route) {
        tokio::task::spawn_local(carry(
            Rc::clone(worker),
            pooled,
            protocol,
            generation(worker, &cluster, &endpoint),
            opening,
        ));
    }
}

/// Opens a connection to be shared, and lives as long as it does.
async fn share(
    worker: Rc<Worker>,
    cluster: Arc<Cluster>,
    endpoint: Arc<Endpoint>,
    edge: Rc<Edge>,
    protocol: MeshProtocol,
    opening: Rc<Opening>,
) {
    let generation = generation(&worker, &cluster, &endpoint);
    // Boxed: the state of a handshake would set the size of the connection for all its life.
    let opened = Box::pin(open(&worker, &cluster, &endpoint, protocol, &edge)).await;
    drop(edge);
    match opened {
        Ok(pooled) => carry(worker, pooled, protocol, generation, opening).await,
        Err(failure) => {
            let route = SharedRoute { cluster: &cluster, endpoint: &endpoint, protocol };
            worker.pool.opened(&route, &opening, Err(failure));
        }
    }
}

/// Of the credentials that connections to the endpoint are opened with.
fn generation(worker: &Worker, cluster: &Cluster, endpoint: &Endpoint) -> u64 {
    if cluster.protects(endpoint) { worker.credentials.generation() } else { 0 }
}

/// The life of one shared connection.
async fn carry(worker: Rc<Worker>, pooled: Box<Pooled>, protocol: MeshProtocol, generation: u64, opening: Rc<Opening>) {
    let (cluster, endpoint) = (Arc::clone(pooled.cluster()), Arc::clone(&pooled.endpoint));
    let settings =
        if cluster.protects(&endpoint) { multiplex::Settings::mesh() } else { multiplex::Settings::default() };
    let (connection, _active) = pooled.into_parts();
    let (client, mut driver) = multiplex::client(connection, settings);
    let route = SharedRoute { cluster: &cluster, endpoint: &endpoint, protocol };
    worker.pool.begin(&route, generation, &opening, client.clone());
    let limit = worker.timeouts.handshake;
    let settled = tokio::time::timeout(limit, poll_fn(|cx| poll_settled(&client, &mut driver, cx))).await;
    let result = settled.unwrap_or(Err(Failure::ConnectTimeout));
    if result.is_err() {
        client.close();
    }
    worker.pool.opened(&route, &opening, result);
    drop((worker, opening, client));
    if result != Err(Failure::UpstreamClosed)
        && let Err(error) = driver.await
    {
        tracing::debug!(cluster = %cluster.spec.name, endpoint = %endpoint.address(), %error, "shared connection ended");
    }
}

/// Ready when the server's settings have come.
fn poll_settled(client: &Client, driver: &mut Driver, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
    match Pin::new(driver).poll(cx) {
        Poll::Ready(_) => Poll::Ready(Err(Failure::UpstreamClosed)),
        Poll::Pending if client.is_settled() => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
    }
}

/// Opens a TCP connection of the proxy itself: marked where capture needs it, and tuned as all are.
///
/// # Errors
/// [`Failure::ConnectTimeout`] after `limit`, else [`Failure::ConnectRefused`].
pub async fn dial(address: SocketAddr, mark: Option<u32>, limit: Duration) -> Result<TcpStream, Failure> {
    dial_from(None, address, mark, limit).await
}

/// [`dial`] from one of our own addresses.
async fn dial_from(
    caller: Option<IpAddr>,
    address: SocketAddr,
    mark: Option<u32>,
    limit: Duration,
) -> Result<TcpStream, Failure> {
    let connect = async {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(mark) = mark {
            SockRef::from(&socket).set_mark(mark)?;
        }
        if let Some(caller) = caller {
            socket.bind(SocketAddr::new(caller, 0))?;
        }
        let stream = socket.connect(address).await?;
        tune(&SockRef::from(&stream));
        io::Result::Ok(stream)
    };
    match tokio::time::timeout(limit, connect).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "cannot connect");
            Err(Failure::ConnectRefused)
        }
        Err(_) => Err(Failure::ConnectTimeout),
    }
}
