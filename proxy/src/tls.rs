//! Stage `tls`: mutual TLS between workloads, with SPIFFE identities on both sides.
//!
//! Invariants: TLS 1.3 only; the peer's certificate chains to the mesh's bundle and carries exactly one URI name,
//! an identity of our own trust domain; the protocol inside is one of the `weft/*` names. Whoever breaks one of
//! these is refused during the handshake, with a typed [`TlsError`] that says which.
//!
//! The current key and certificate live in a [`CredentialStore`]. A rotation publishes new [`Credentials`]:
//! connections that exist go on with what they began with, new ones use the new certificate.
//!
//! A connection owns no buffer while it has nothing to send; rustls holds at most 64 KiB for a peer that does not
//! read.

mod certificate;
mod credentials;
mod failure;
mod verify;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, CommonState};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use weft_core::names::SpiffeId;
use weft_proto::names::{ALPN_DETECT, ALPN_HTTP1, ALPN_HTTP2, ALPN_TCP};

pub use certificate::{PeerError, expires_at, identity_of};
pub use credentials::{CredentialStore, Credentials, CredentialsError, trust_anchors};
pub use failure::TlsError;
pub use verify::{ClientCertificate, client_verifier};

/// What a mesh connection carries inside, as its ALPN name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MeshProtocol {
    Http1,
    Http2,
    Tcp,
    Detect,
}

impl MeshProtocol {
    /// The name in the handshake.
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => ALPN_HTTP1,
            Self::Http2 => ALPN_HTTP2,
            Self::Tcp => ALPN_TCP,
            Self::Detect => ALPN_DETECT,
        }
    }

    /// The protocol of an ALPN name; `None` for a name that is not ours.
    pub fn from_alpn(name: &[u8]) -> Option<Self> {
        [Self::Http1, Self::Http2, Self::Tcp, Self::Detect].into_iter().find(|protocol| protocol.alpn() == name)
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

/// Takes a mesh connection: handshake, certificate and protocol, within `limit`.
pub async fn accept<IO>(credentials: &Credentials, io: IO, limit: Duration) -> Result<Accepted<IO>, TlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = TlsAcceptor::from(Arc::clone(&credentials.server)).accept(io);
    let stream = tokio::time::timeout(limit, handshake).await.map_err(|_| TlsError::TimedOut(limit))??;
    let state = stream.get_ref().1;
    // A client that offers no protocol at all passes the handshake (RFC 7301 leaves that to us).
    let protocol = state.alpn_protocol().and_then(MeshProtocol::from_alpn).ok_or(TlsError::NoProtocol)?;
    let peer = peer_identity(state).ok_or(TlsError::NoCertificate)?;
    Ok(Accepted { stream, peer, protocol })
}

/// Opens a mesh connection with a configuration made by [`Credentials::client_config`], within `limit`.
///
/// In TLS 1.3 the client is done before the server has judged its certificate: a refusal arrives as an error of the
/// first read, and `TlsError::from` explains that one too.
pub async fn connect<IO>(config: &Arc<ClientConfig>, io: IO, limit: Duration) -> Result<client::TlsStream<IO>, TlsError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = TlsConnector::from(Arc::clone(config)).connect(server_name(), io);
    let stream = tokio::time::timeout(limit, handshake).await.map_err(|_| TlsError::TimedOut(limit))??;
    let agreed = stream.get_ref().1.alpn_protocol();
    // A server may ignore ALPN; then nobody knows what it would make of our bytes.
    if agreed.is_none() || agreed != config.alpn_protocols.first().map(Vec::as_slice) {
        return Err(TlsError::NoProtocol);
    }
    Ok(stream)
}

/// The name rustls wants for every client connection. It is neither sent (SNI is off) nor checked: the identity in
/// the certificate is.
pub fn server_name() -> ServerName<'static> {
    ServerName::try_from("mesh.weft").expect("a constant that is a DNS name")
}

/// The identity in the peer's certificate; `None` before the handshake is done or without a certificate.
pub fn peer_identity(state: &CommonState) -> Option<SpiffeId> {
    identity_of(state.peer_certificates()?.first()?).ok()
}
