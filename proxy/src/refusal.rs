//! Why a connection got nothing: no request of it was read, no byte of it forwarded.

use std::io;
use std::net::SocketAddr;

use weft_core::names::ClusterName;

use crate::detect::client_hello::Flaw;
use crate::failure::{Explanation, Failure};
use crate::tls::TlsError;

/// Why a connection was closed before anything was forwarded.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("cannot learn the original destination: {0}")]
    NoDestination(#[source] io::Error),
    #[error("the connection was made to the proxy's own port {0}: nothing redirected it here")]
    OwnPort(u16),
    #[error("no service of this workload has the port {port}, and the client is not of the mesh: {source}")]
    UnknownPort { port: u16, source: TlsError },
    #[error("no service has the address {0}, which lies in a network of services")]
    UnknownService(SocketAddr),
    #[error("this proxy has no certificate yet")]
    NoCertificate,
    #[error("{0}")]
    Tls(#[source] TlsError),
    #[error("the client said nothing")]
    Silent,
    #[error("{0}, and other connections have no route here")]
    NotTls(#[source] Flaw),
    #[error("the ClientHello did not come whole within the handshake timeout")]
    HelloUnfinished,
    #[error("no route takes the server name `{0}`")]
    UnknownServerName(String),
    #[error("the ClientHello names no server, and such connections have no route here")]
    NoServerName,
    #[error("the route names the cluster `{0}`, which nobody described")]
    NoCluster(ClusterName),
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
    NotTls,
    UnknownServerName,
    Unreachable,
    /// One that requests have too: one code, one explanation.
    Failed(Failure),
}

impl Reason {
    /// Those that only connections have.
    pub const OWN: [Self; 9] = [
        Self::NoDestination,
        Self::OwnPort,
        Self::UnknownPort,
        Self::UnknownService,
        Self::Tls,
        Self::Silent,
        Self::NotTls,
        Self::UnknownServerName,
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
            Self::NotTls => "not-tls",
            Self::UnknownServerName => "unknown-server-name",
            Self::Unreachable => "unreachable",
            Self::Failed(failure) => failure.code(),
        }
    }

    pub fn text(self) -> &'static str {
        match self {
            Self::NoDestination => "the kernel does not tell where the connection was going",
            Self::OwnPort => "the connection was made to the proxy's own port",
            Self::UnknownPort => "no service of this workload has that port, and the client is not of the mesh",
            Self::UnknownService => "no service has that address and port",
            Self::Tls => "the client's TLS handshake failed",
            Self::Silent => "the client said nothing",
            Self::NotTls => "the port is routed by TLS server name, and the client sent no valid ClientHello",
            Self::UnknownServerName => "no route takes the server name the client asks for",
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
                "A client that speaks no TLS of the mesh called a port of the workload that no service names: a scraper \
                 outside the mesh, or a workload inside whose proxy did not know of this pod yet. Callers with a certificate of \
                 the mesh reach such ports.",
                &[
                    "the proxy's log names the port",
                    "weft proxy config WORKLOAD   # inbound listeners",
                    "weft get service -A",
                ],
                "Let the scraper into the mesh, or exclude the port from capture (annotation weft.dev/exclude-inbound-ports).",
            ),
            Self::UnknownService => explanation(
                "The workload called an address of a network that only services have addresses of, at a port that none of \
                 them has: the service was removed, the port is another one, this proxy has no configuration yet, or it asks for \
                 destinations when they are first called and the control plane is away. It is not passed on: it was meant for the mesh, and would leave in plaintext.",
                &[
                    "weft get service -A",
                    "weft proxy config WORKLOAD   # outbound listeners",
                    "WEFT_LOG=debug names the address",
                ],
                "Correct the address or the port, or add the port to the service. Where something outside the mesh has \
                 addresses of that network, set WEFT_VIRTUAL_NETWORKS. What must be reached for the first time while the \
                 control plane is away needs WEFT_DESTINATIONS=all.",
            ),
            Self::Tls => explanation(
                "The client spoke no TLS where only the mesh may come, has no certificate of this trust domain, an expired \
                 one, or broke off.",
                &["WEFT_LOG=debug names client and reason", "weft status", "date   # on both machines"],
                "Bring the client into the mesh, or allow plaintext for a time (mtls: permissive).",
            ),
            Self::Silent => explanation(
                "A client connected to a port that takes both TLS and plaintext, or that is routed by TLS server name, and \
                 sent nothing: a port scan, or a health check that only connects.",
                &["WEFT_LOG=debug names the client"],
                "Nothing, when it is a health check.",
            ),
            Self::NotTls => explanation(
                "The service port has TLSRoutes, so every connection must begin with a TLS ClientHello. This one began with \
                 something else, with a ClientHello that can be read in two ways or is longer than 16 KiB, or stopped in the \
                 middle of it.",
                &[
                    "WEFT_LOG=debug names the client and what is wrong",
                    "openssl s_client -connect ADDRESS:PORT -servername NAME",
                ],
                "Let the client speak TLS. For a port that carries other things as well, add a TLSRoute without hostnames: it \
                 takes whatever no other route names.",
            ),
            Self::UnknownServerName => explanation(
                "The client's ClientHello asks for a server name (SNI) that no TLSRoute of this service port has among its \
                 hostnames, or for none. It got the TLS alert unrecognized_name.",
                &[
                    "weft get tlsroute -A",
                    "weft proxy config WORKLOAD   # server_names of the listener",
                    "WEFT_LOG=debug names the client and the name it asked for",
                ],
                "Correct the name the client uses, add it to a TLSRoute's hostnames, or add a TLSRoute without hostnames for \
                 all other names.",
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
            Self::UnknownPort { .. } => Reason::UnknownPort,
            Self::UnknownService(_) => Reason::UnknownService,
            Self::NoCertificate => Reason::Failed(Failure::NoCertificate),
            Self::Tls(_) => Reason::Tls,
            Self::Silent => Reason::Silent,
            Self::NotTls(_) | Self::HelloUnfinished => Reason::NotTls,
            Self::UnknownServerName(_) | Self::NoServerName => Reason::UnknownServerName,
            Self::NoCluster(_) => Reason::Failed(Failure::NoCluster),
            Self::Unreachable(_) => Reason::Unreachable,
            Self::Limit { .. } => Reason::Failed(Failure::OverLimit),
        }
    }
}
