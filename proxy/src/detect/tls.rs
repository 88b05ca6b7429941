//! TLS by its first message: passed through to where the name in it says, or, on a port that takes plaintext as well,
//! told from the mesh's own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use weft_core::model::Protocol;

use super::UNDECIDED;
use super::client_hello::{Peek, peek};
use crate::forward::{Service, tcp};
use crate::refusal::Refusal;
use crate::state::{Cluster, Listener};
use crate::stream::{Connection, ReadAhead};
use crate::tls::MeshProtocol;

/// A fatal alert, `unrecognized_name` (RFC 6066 section 3): the client says what is wrong, rather than that a connection
/// was closed.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
/// First byte of every TLS connection: a handshake record (RFC 8446 section 5.1).
pub(super) const HANDSHAKE: u8 = 22;

/// Carries a TLS connection, not a byte changed, to the cluster of the name it asks for. The whole ClientHello must come
/// within the handshake timeout.
///
/// # Errors
/// [`Refusal`] when nothing takes that name; the client has been told by an alert.
pub async fn serve(service: &Service<'_>, mut client: Connection, listener: Arc<Listener>) -> Result<(), Refusal> {
    let limit = service.worker.timeouts.handshake;
    let chosen = match tokio::time::timeout(limit, hello_comes(&mut client)).await {
        Ok(Ok(())) => choose(service, client.data(), &listener),
        Ok(Err(_)) | Err(_) if client.data().is_empty() => Err(Refusal::Silent),
        Ok(Err(_)) | Err(_) => Err(Refusal::HelloUnfinished),
    };
    match chosen {
        Ok(cluster) => {
            Box::pin(tcp::forward_to(service, client, Some(&cluster), MeshProtocol::Tcp)).await;
            Ok(())
        }
        Err(refusal @ (Refusal::UnknownServerName(_) | Refusal::NoServerName)) => {
            let _ = tokio::time::timeout(service.worker.timeouts.linger, async {
                if client.write_all(&UNRECOGNIZED_NAME).await.is_ok() {
                    client.linger().await;
                }
            })
            .await;
            Err(refusal)
        }
        Err(refusal) => Err(refusal),
    }
}

/// Reads until the ClientHello is whole, or it is known that there is none.
async fn hello_comes(client: &mut Connection) -> io::Result<()> {
    while matches!(peek(client.data()), Peek::NeedMore) {
        if client.fill().await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// The cluster of what came. Where a route takes what nobody names, it takes what is no TLS as well, as in Envoy.
fn choose(service: &Service<'_>, bytes: &[u8], listener: &Listener) -> Result<Arc<Cluster>, Refusal> {
    let names = listener.server_names.as_deref();
    let find = |name| names.and_then(|names| names.find(name));
    let (split, refusal) = match peek(bytes) {
        Peek::ClientHello(hello) => {
            let name = hello.server_name();
            let refusal = name.map_or(Refusal::NoServerName, |name| Refusal::UnknownServerName(name.to_owned()));
            (find(name), refusal)
        }
        Peek::NotTls(flaw) => (find(None), Refusal::NotTls(flaw)),
        Peek::NeedMore => return Err(Refusal::HelloUnfinished),
    };
    let picked = service.worker.chance(|chance| split.and_then(|split| split.pick(|bound| chance.u64(..bound))));
    let (name, cluster) = picked.ok_or(refusal)?;
    cluster.cloned().ok_or_else(|| Refusal::NoCluster(name.clone()))
}

/// How a connection begins on a port that takes plaintext and the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    Mesh,
    Plain,
    /// TLS of the applications' own, which goes on as it is.
    OtherTls,
}

/// Looks how a connection begins; what was read stays in `socket`. The mesh is known by the protocols it offers. Where
/// requests are declared, all TLS is the mesh's: the application would not understand it. Where the application may
/// speak first, a silent client is taken for plaintext after [`UNDECIDED`]: TLS clients speak at once.
///
/// # Errors
/// [`Refusal::Silent`] when nothing came within `limit`.
pub async fn begins(socket: &mut ReadAhead, protocol: Protocol, limit: Duration) -> Result<Begin, Refusal> {
    let is_declared = protocol == Protocol::Http;
    let wait = if is_declared { limit } else { UNDECIDED };
    match tokio::time::timeout(wait, socket.fill()).await {
        Ok(Ok(0) | Err(_)) => return Err(Refusal::Silent),
        Ok(Ok(_)) => {}
        Err(_) if is_declared => return Err(Refusal::Silent),
        Err(_) => return Ok(Begin::Plain),
    }
    if socket.data().first() != Some(&HANDSHAKE) {
        return Ok(Begin::Plain);
    }
    if is_declared {
        return Ok(Begin::Mesh);
    }
    let whole =
        async { while matches!(peek(socket.data()), Peek::NeedMore) && matches!(socket.fill().await, Ok(1..)) {} };
    // Bytes that look like TLS and stop are somebody's own protocol: they go on as they are.
    let _ = tokio::time::timeout(limit, whole).await;
    Ok(match peek(socket.data()) {
        Peek::ClientHello(hello) => {
            let is_ours = hello.protocols().any(|name| MeshProtocol::from_alpn(name.as_bytes()).is_some());
            if is_ours { Begin::Mesh } else { Begin::OtherTls }
        }
        Peek::NeedMore | Peek::NotTls(_) => Begin::Plain,
    })
}
