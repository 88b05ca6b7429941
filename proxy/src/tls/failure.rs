//! Why a handshake, or the first read after it, failed.

use std::io;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::certificate::PeerError;

/// Why a mesh connection did not come about.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the handshake was not done after {0:?}")]
    TimedOut(Duration),
    #[error("the peer presented no certificate")]
    NoCertificate,
    #[error("the peer's certificate has expired: {0}")]
    Expired(String),
    #[error("the peer's certificate is not valid yet: {0}; compare the clocks")]
    NotValidYet(String),
    #[error("the peer's certificate is not signed by a root of our bundle")]
    UnknownRoot,
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error("the peer's certificate is refused: {0}")]
    Certificate(CertificateError),
    #[error("the peer does not speak TLS")]
    NotTls,
    #[error("the peer does not speak TLS 1.3: {0}")]
    Version(String),
    #[error("no common protocol: the peer offers none of ours (ALPN)")]
    NoProtocol,
    #[error("the handshake is a full one without X25519MLKEM768: a ticket was not taken, the next one begins anew")]
    NotPostQuantum,
    #[error("the peer refused us: {alert:?}{}", hint(*alert))]
    RefusedByPeer { alert: AlertDescription },
    #[error("the peer closed the connection during the handshake")]
    Closed,
    #[error("tls: {0}")]
    Tls(Error),
    #[error(transparent)]
    Io(io::Error),
}

impl TlsError {
    /// The `reason` label of `weft_tls_handshake_failures_total`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TimedOut(_) => "timeout",
            Self::NoCertificate => "no-certificate",
            Self::Expired(_) => "expired",
            Self::NotValidYet(_) => "not-valid-yet",
            Self::UnknownRoot => "unknown-root",
            Self::Peer(_) => "identity",
            Self::Certificate(_) => "certificate",
            Self::NotTls => "not-tls",
            Self::Version(_) => "version",
            Self::NoProtocol => "no-protocol",
            Self::NotPostQuantum => "not-post-quantum",
            Self::RefusedByPeer { .. } => "refused-by-peer",
            Self::Closed => "closed",
            Self::Tls(_) => "tls",
            Self::Io(_) => "io",
        }
    }
}

impl From<io::Error> for TlsError {
    /// Unwraps what rustls put into an I/O error, also one of a read after the handshake.
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(inner) => Self::from(inner.clone()),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
            None => Self::Io(error),
        }
    }
}

impl From<Error> for TlsError {
    fn from(error: Error) -> Self {
        match error {
            Error::InvalidCertificate(error) => Self::from(error),
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::NoApplicationProtocol | Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
                Self::NoProtocol
            }
            Error::AlertReceived(alert) => Self::RefusedByPeer { alert },
            Error::InvalidMessage(_) => Self::NotTls,
            Error::PeerIncompatible(
                reason @ (PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::Tls13RequiredForQuic
                | PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig),
            ) => Self::Version(format!("{reason:?}")),
            other => Self::Tls(other),
        }
    }
}

impl From<CertificateError> for TlsError {
    fn from(error: CertificateError) -> Self {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired(error.to_string()),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotValidYet(error.to_string())
            }
            // A root of the same name with another key: a mesh whose data directory was made anew.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownRoot,
            CertificateError::Other(ref other) => match other.0.downcast_ref::<PeerError>() {
                Some(peer) => Self::Peer(peer.clone()),
                None => Self::Certificate(error),
            },
            other => Self::Certificate(other),
        }
    }
}

/// The alerts a mesh peer sends say little by design; this says where to look.
fn hint(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::UnknownCA => "; its bundle does not hold our root",
        AlertDescription::CertificateExpired => "; our certificate has expired, see the renewals in our log",
        AlertDescription::CertificateRequired => "; it wants a certificate and we have none",
        AlertDescription::CertificateUnknown | AlertDescription::BadCertificate => "; our identity is not accepted",
        _ => "",
    }
}
