//! Why a connection got nothing: no request of it was read, no byte of it forwarded.

use std::io;
use std::net::SocketAddr;

use crate::tls::TlsError;

/// Why a connection was closed before anything was forwarded.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("cannot learn the original destination: {0}")]
    NoDestination(#[source] io::Error),
    #[error("the connection was made to the proxy's own port {0}: nothing redirected it here")]
    OwnPort(u16),
    #[error("no service of this workload listens on that port")]
    UnknownPort,
    #[error("this proxy has no certificate yet")]
    NoCertificate,
    #[error("{0}")]
    Tls(#[source] TlsError),
    #[error("the client said nothing")]
    Silent,
    #[error("cannot reach {0}")]
    Unreachable(SocketAddr),
    #[error("over the limit of connections")]
    Limit,
}

impl Refusal {
    /// The `reason` label of `weft_connections_refused_total`.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NoDestination(_) => "no-destination",
            Self::OwnPort(_) => "own-port",
            Self::UnknownPort => "unknown-port",
            Self::NoCertificate => "no-certificate",
            Self::Tls(_) => "tls",
            Self::Silent => "silent",
            Self::Unreachable(_) => "unreachable",
            Self::Limit => "limit",
        }
    }
}
