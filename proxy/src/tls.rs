//! Stage `tls`: mutual TLS between workloads, with SPIFFE identities on both sides.
//!
//! Invariants: TLS 1.3 only; the peer's certificate chains to the mesh's bundle and carries exactly one URI name,
//! an identity of our own trust domain; the protocol inside is one of the `weft/*` names. Whoever breaks one of
//! these is refused during the handshake, with a typed [`TlsError`] that says which.
//!
//! The current key and certificate live in a [`CredentialStore`]. A rotation publishes new [`Credentials`]:
//! connections that exist go on with what they began with, new ones use the new certificate. Sessions are resumed
//! within one generation only; what protects that stands in `ticket.rs`.
//!
//! A connection owns no buffer while it has nothing to send; rustls holds at most 64 KiB for a peer that does not
//! read.

mod certificate;
mod credentials;
mod failure;
mod known;
mod sessions;
mod signals;
mod ticket;
mod verify;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::CertificateDer;
use rustls::{CommonState, Error, HandshakeKind, NamedGroup};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use weft_core::names::SpiffeId;
use weft_proto::names::{ALPN_DETECT, ALPN_HTTP1, ALPN_HTTP2, ALPN_MUX, ALPN_TCP};

pub use certificate::{PeerError, expires_at, identity_of};
pub use credentials::{CredentialStore, Credentials, CredentialsError, MeshClient, trust_anchors};
pub use failure::TlsError;
pub use verify::{ClientCertificate, client_verifier};

/// What a mesh connection carries inside, as its ALPN name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MeshProtocol {
    Http1,
    Http2,
    /// Many connections of HTTP/1, each as a stream.
    Mux,
    Tcp,
    Detect,
}

impl MeshProtocol {
    /// The name in the handshake.
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => ALPN_HTTP1,
            Self::Http2 => ALPN_HTTP2,
            Self::Mux => ALPN_MUX,
            Self::Tcp => ALPN_TCP,
            Self::Detect => ALPN_DETECT,
        }
    }

    /// The protocol of an ALPN name; `None` for a name that is not ours.
    pub fn from_alpn(name: &[u8]) -> Option<Self> {
        [Self::Http1, Self::Http2, Self::Mux, Self::Tcp, Self::Detect]
            .into_iter()
            .find(|protocol| protocol.alpn() == name)
    }
}

/// A mesh connection we took.
#[derive(Debug)]
pub struct Accepted<IO> {
    pub stream: server::TlsStream<IO>,
    /// Who is on the other side, verified.
    pub peer: SpiffeId,
    pub protocol: MeshProtocol,
}

/// The key exchange of every full handshake.
const POST_QUANTUM: NamedGroup = NamedGroup::X25519MLKEM768;

/// The one crypto provider: aws-lc-rs, with X25519MLKEM768 as the first key exchange.
///
/// AES-128-GCM comes first: ten rounds instead of fourteen for each block of traffic, and Grover's algorithm does
/// not make 128 bits reachable.
pub fn provider() -> Arc<CryptoProvider> {
    use rustls::crypto::aws_lc_rs::{self, cipher_suite};
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        Arc::new(CryptoProvider {
            cipher_suites: vec![
                cipher_suite::TLS13_AES_128_GCM_SHA256,
                cipher_suite::TLS13_AES_256_GCM_SHA384,
                cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            ..aws_lc_rs::default_provider()
        })
    });
    Arc::clone(&PROVIDER)
}

/// The provider of clients that show a ticket: they offer a share of X25519 alone, see `ticket.rs`.
fn resuming_provider() -> Arc<CryptoProvider> {
    use rustls::crypto::aws_lc_rs::kx_group::{X25519, X25519MLKEM768};
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        Arc::new(CryptoProvider { kx_groups: vec![X25519, X25519MLKEM768], ..CryptoProvider::clone(&provider()) })
    });
    Arc::clone(&PROVIDER)
}

/// Takes a mesh connection: handshake, certificate and protocol, within `limit`.
pub async fn accept<IO>(credentials: &Credentials, io: IO, limit: Duration) -> Result<Accepted<IO>, TlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = TlsAcceptor::from(Arc::clone(&credentials.server)).accept(io);
    let outcome = match tokio::time::timeout(limit, handshake).await {
        Ok(Ok(stream)) => judge_client(credentials, stream),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(TlsError::TimedOut(limit)),
    };
    match &outcome {
        Ok(accepted) => credentials.accepted.succeeded(accepted.stream.get_ref().1),
        Err(error) => credentials.accepted.failed(error),
    }
    outcome
}

/// What is left to judge when the handshake is done.
fn judge_client<IO>(credentials: &Credentials, stream: server::TlsStream<IO>) -> Result<Accepted<IO>, TlsError> {
    let state = stream.get_ref().1;
    judge_key_exchange(state)?;
    // A client that offers no protocol at all passes the handshake (RFC 7301 leaves that to us).
    let protocol = state.alpn_protocol().and_then(MeshProtocol::from_alpn).ok_or(TlsError::NoProtocol)?;
    let (leaf, intermediates) = chain_of(state)?;
    // Once more for a full handshake, from memory. For a resumed one rustls takes the certificate as it stands in the
    // ticket: here it is verified.
    let now = credentials.server.time_provider.current_time().ok_or(Error::FailedToGetCurrentTime)?;
    let peer = credentials.clients.identify(leaf, intermediates, now)?;
    Ok(Accepted { stream, peer, protocol })
}

/// Opens a mesh connection to `endpoint` over `io`, within `limit`.
///
/// In TLS 1.3 the client is done before the server has judged its certificate: a refusal arrives as an error of the
/// first read, and `TlsError::from` explains that one too.
///
/// # Errors
/// After [`TlsError::NotPostQuantum`] the endpoint's tickets are forgotten: over another `io` the handshake is a full one
/// from its first byte.
pub async fn connect<IO>(
    client: &MeshClient,
    endpoint: SocketAddr,
    io: IO,
    limit: Duration,
) -> Result<client::TlsStream<IO>, TlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let name = sessions::name_of(endpoint);
    let config = if client.sessions.holds(&name) { &client.resuming } else { &client.config };
    let handshake = TlsConnector::from(Arc::clone(config)).connect(name.clone(), io);
    let outcome = match tokio::time::timeout(limit, handshake).await {
        Ok(Ok(stream)) => judge_server(client, stream.get_ref().1).map(|()| stream),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(TlsError::TimedOut(limit)),
    };
    match &outcome {
        Ok(stream) => client.opened.succeeded(stream.get_ref().1),
        Err(error) => {
            if matches!(error, TlsError::NotPostQuantum) {
                client.sessions.forget(&name);
            }
            client.opened.failed(error);
        }
    }
    outcome
}

/// A full handshake agrees on a post-quantum key, whoever offered what; only a session that began with one may go on with
/// less. A client whose ticket is not taken any more ends here, and begins again without it.
fn judge_key_exchange(state: &CommonState) -> Result<(), TlsError> {
    let is_resumed = state.handshake_kind() == Some(HandshakeKind::Resumed);
    let group = state.negotiated_key_exchange_group().map(SupportedKxGroup::name);
    if is_resumed || group == Some(POST_QUANTUM) { Ok(()) } else { Err(TlsError::NotPostQuantum) }
}

/// What is left to judge when the handshake is done, before a byte is sent.
fn judge_server(client: &MeshClient, state: &CommonState) -> Result<(), TlsError> {
    judge_key_exchange(state)?;
    let agreed = state.alpn_protocol();
    // A server may ignore ALPN; then nobody knows what it would make of our bytes.
    if agreed.is_none() || agreed != client.config.alpn_protocols.first().map(Vec::as_slice) {
        return Err(TlsError::NoProtocol);
    }
    // As in `judge_client`.
    let (leaf, intermediates) = chain_of(state)?;
    let now = client.config.time_provider.current_time().ok_or(Error::FailedToGetCurrentTime)?;
    Ok(client.servers.expect(leaf, intermediates, now)?)
}

/// What the peer presented, in this handshake or in the one that is resumed.
fn chain_of(state: &CommonState) -> Result<(&CertificateDer<'static>, &[CertificateDer<'static>]), TlsError> {
    state.peer_certificates().and_then(<[_]>::split_first).ok_or(TlsError::NoCertificate)
}

/// The identity in the peer's certificate; `None` before the handshake is done or without a certificate.
pub fn peer_identity(state: &CommonState) -> Option<SpiffeId> {
    identity_of(state.peer_certificates()?.first()?).ok()
}
