//! Stage: connect. A pooled or new connection to an endpoint, with the identity the service must have.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use weft_core::endpoint::Endpoint;

use crate::failure::Failure;
use crate::pool::Pooled;
use crate::state::Cluster;
use crate::stream::{Connection, ReadAhead, Stream};
use crate::telemetry::Edge;
use crate::tls::{self, MeshProtocol};
use crate::worker::Worker;

/// Opens a new connection to an endpoint of a cluster, within its connect timeout.
///
/// # Errors
/// [`Failure`] with nothing sent.
pub async fn open(
    worker: &Worker,
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    protocol: MeshProtocol,
    edge: &Edge,
) -> Result<Pooled, Failure> {
    let limit = cluster.spec.connect_timeout;
    let socket = dial(endpoint.address(), worker.socket_mark, limit).await?;
    let stream = if cluster.is_meshed() {
        let credentials = worker.credentials.current().ok_or(Failure::NoCertificate)?;
        match cluster.tls(&credentials, protocol) {
            Some(config) => {
                let (socket, limit) = (ReadAhead::new(socket), worker.timeouts.handshake);
                let tls = tls::connect(&config, endpoint.address(), socket, limit).await.map_err(|error| {
                    tracing::debug!(cluster = %cluster.spec.name, endpoint = %endpoint.address(), %error, "mesh handshake failed");
                    Failure::PeerIdentity
                })?;
                Stream::Client(Box::new(tls))
            }
            None => Stream::Plain(socket),
        }
    } else {
        Stream::Plain(socket)
    };
    Ok(Pooled::new(Connection::new(stream), Arc::clone(cluster), Arc::clone(endpoint), edge.connection()))
}

/// Opens a TCP connection of the proxy itself: marked where capture needs it, without Nagle's delay.
///
/// # Errors
/// [`Failure::ConnectTimeout`] after `limit`, else [`Failure::ConnectRefused`].
pub async fn dial(address: SocketAddr, mark: Option<u32>, limit: Duration) -> Result<TcpStream, Failure> {
    let connect = async {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(mark) = mark {
            socket2::SockRef::from(&socket).set_mark(mark)?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
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
