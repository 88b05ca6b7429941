//! Why a connection got nothing: no request of it was read, no byte of it forwarded.

use std::io;
use std::net::SocketAddr;

use crate::failure::{Explanation, Failure};
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
    #[error("no service has the address {0}, which lies in a network of services")]
    UnknownService(SocketAddr),
    #[error("this proxy has no certificate yet")]
    NoCertificate,
    #[error("{0}")]
    Tls(#[source] TlsError),
    #[error("the client said nothing")]
    Silent,
    #[error("cannot reach {0}")]
    Unreachable(SocketAddr),
    #[error("{what} is at its limit of {limit}")]
    Limit { what: &'static str, limit: usize },
}

/// A refusal without its case: what is counted and explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    NoDestination,
    OwnPort,
    UnknownPort,
    UnknownService,
    Tls,
    Silent,
    Unreachable,
    /// One that requests have too: one code, one explanation.
    Failed(Failure),
}

impl Reason {
    /// Those that only connections have.
    pub const OWN: [Self; 7] = [
        Self::NoDestination,
        Self::OwnPort,
        Self::UnknownPort,
        Self::UnknownService,
        Self::Tls,
        Self::Silent,
        Self::Unreachable,
    ];

    /// The stable code: the `reason` label of `weft_connections_refused_total`.
    pub fn code(self) -> &'static str {
        match self {
            Self::NoDestination => "no-destination",
            Self::OwnPort => "own-port",
            Self::UnknownPort => "unknown-port",
            Self::UnknownService => "unknown-service",
            Self::Tls => "tls",
            Self::Silent => "silent",
            Self::Unreachable => "unreachable",
            Self::Failed(failure) => failure.code(),
        }
    }

    pub fn text(self) -> &'static str {
        match self {
            Self::NoDestination => "the kernel does not tell where the connection was going",
            Self::OwnPort => "the connection was made to the proxy's own port",
            Self::UnknownPort => "no service of this workload listens on that port",
            Self::UnknownService => "no service has that address and port",
            Self::Tls => "the client's TLS handshake failed",
            Self::Silent => "the client said nothing",
            Self::Unreachable => "an address outside the mesh cannot be reached",
            Self::Failed(failure) => failure.facts().text,
        }
    }

    /// Cause, how to confirm, and fix.
    pub fn explanation(self) -> Explanation {
        let explanation = |cause, confirm, fix| Explanation { cause, confirm, fix };
        match self {
            Self::NoDestination => explanation(
                "The connection was redirected to the proxy, but connection tracking does not know its original \
                 destination: its table is full, or the proxy may not read it.",
                &["weft capture check", "cat /proc/sys/net/netfilter/nf_conntrack_{count,max}"],
                "Enlarge nf_conntrack_max, or name the destination with WEFT_INBOUND / WEFT_OUTBOUND (IP:PORT=IP:PORT).",
            ),
            Self::OwnPort => explanation(
                "Somebody connected straight to one of the proxy's own ports (15001, 15006). Passed on, such a connection \
                 would come back for ever.",
                &["weft capture check", "WEFT_LOG=debug names the client"],
                "Connect to the service's address instead; the kernel redirects it.",
            ),
            Self::UnknownPort => explanation(
                "A connection came for a port of the workload that no service names: inbound ports must be declared to be \
                 reachable in the mesh.",
                &["weft proxy config WORKLOAD   # inbound listeners", "weft get service -A"],
                "Add the port to a service that selects the workload, or exclude it from capture.",
            ),
            Self::UnknownService => explanation(
                "The workload called an address of a network that only services have addresses of, at a port that none of \
                 them has: the service was removed, the port is another one, or this proxy has no configuration yet. It is \
                 not passed on: it was meant for the mesh, and would leave in plaintext.",
                &[
                    "weft get service -A",
                    "weft proxy config WORKLOAD   # outbound listeners",
                    "WEFT_LOG=debug names the address",
                ],
                "Correct the address or the port, or add the port to the service. Where something outside the mesh has \
                 addresses of that network, set WEFT_VIRTUAL_NETWORKS.",
            ),
            Self::Tls => explanation(
                "The client spoke no TLS where only the mesh may come, has no certificate of this trust domain, an expired \
                 one, or broke off.",
                &["WEFT_LOG=debug names client and reason", "weft status", "date   # on both machines"],
                "Bring the client into the mesh, or allow plaintext for a time (mtls: permissive).",
            ),
            Self::Silent => explanation(
                "A client connected to a port that takes both TLS and plaintext, and sent nothing: a port scan, or a health \
                 check that only connects.",
                &["WEFT_LOG=debug names the client"],
                "Nothing, when it is a health check.",
            ),
            Self::Unreachable => explanation(
                "The workload called an address that no service has, and nobody answered there.",
                &["weft_failures_total{destination=\"passthrough\"}", "nc -vz ADDRESS PORT from the workload"],
                "Correct the address, or bring the service into the mesh.",
            ),
            Self::Failed(failure) => failure.explanation(),
        }
    }
}

impl Refusal {
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoDestination(_) => Reason::NoDestination,
            Self::OwnPort(_) => Reason::OwnPort,
            Self::UnknownPort => Reason::UnknownPort,
            Self::UnknownService(_) => Reason::UnknownService,
            Self::NoCertificate => Reason::Failed(Failure::NoCertificate),
            Self::Tls(_) => Reason::Tls,
            Self::Silent => Reason::Silent,
            Self::Unreachable(_) => Reason::Unreachable,
            Self::Limit { .. } => Reason::Failed(Failure::OverLimit),
        }
    }
}
