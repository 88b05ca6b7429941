//! The certificate authority: root, workload certificates, join tokens, and the TLS of the control plane's port.
//!
//! Everything rests on `DIR/ca/root.key`; it is made on the first start, never leaves the machine and is refused when
//! others can read it. Workload certificates are signed over the network by [`IdentityService`], against a join token
//! or the caller's still valid certificate. In a cluster the root is in a Secret and the proof is a service-account token
//! ([`crate::kubernetes`]): everything but [`Authority::open`] and [`JoinTokens`] is the same there.
//!
//! Wiring:
//! ```ignore
//! let authority = Arc::new(Authority::open(&data, &AuthorityOptions::default(), clock::wall())?);
//! let tokens = Arc::new(JoinTokens::open(&data, clock::wall())?);
//! let connections = incoming(listener, server_tls(&authority, clock::wall)?);
//! Server::builder()
//!     .add_service(IdentityService::new(authority, tokens).server())
//!     .serve_with_incoming_shutdown(connections, shutdown)
//! ```

mod authority;
mod binding;
mod connection;
mod files;
mod proof;
mod service;
mod serving;
mod tokens;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

use weft_core::names::InvalidSpiffeId;
use weft_proxy::tls::CredentialsError;

pub use authority::{Authority, AuthorityOptions, DEFAULT_TRUST_DOMAIN, Issued, NewRoot, Pem, SignError, create_root};
pub use connection::{Connection, Peer, incoming, peer, peer_identity};
pub use proof::{BoundPod, ProofSource};
pub use service::IdentityService;
pub use serving::{server_tls, webhook_tls};
pub use tokens::{DEFAULT_TOKEN_LIFE, JoinToken, JoinTokens, TokenError};

/// Directory of the authority's files below the data directory.
const DIRECTORY: &str = "ca";
/// Namespace and service account of the control plane itself.
const OWN_IDENTITY: (&str, &str) = ("weft-system", "control-plane");

/// Why the authority cannot start or keep its files.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("cannot {action} {}: {source}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} can be read or written by others (mode {mode:04o}); run `chmod go= {}`", path.display(), path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{} is missing although {} exists; restore it from a backup, or move the `ca` directory and bundle.pem away to begin a new mesh identity", missing.display(), present.display())]
    HalfThere { missing: PathBuf, present: PathBuf },
    #[error("{place} cannot be used: {reason}")]
    Unusable { place: String, reason: String },
    #[error("`{0}` is no trust domain; lower-case letters, digits, `.`, `-` and `_` are allowed, like `weft.local`")]
    TrustDomain(String),
    #[error(
        "this data directory belongs to trust domain `{existing}`, asked was `{asked}`; use another data directory"
    )]
    OtherTrustDomain { existing: String, asked: String },
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("cannot make a certificate: {0}")]
    Sign(#[from] SignError),
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    #[error("tls: {0}")]
    Credentials(#[from] CredentialsError),
    #[error("tls: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error(transparent)]
    Identity(#[from] InvalidSpiffeId),
}
