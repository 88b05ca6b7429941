//! Why the proxy answered in the application's place, or gave up: one table.
//!
//! A code is stable and documented: it labels metrics, stands in the `weft-error` response field and in logs, and
//! `weft explain-code CODE` explains it. What is known of one case beyond its code (the limit, the value found) goes
//! with it as a [`Failed`].

mod answer;
mod explanation;
mod log;

use std::borrow::Cow;

use crate::http1::HeadError;

pub use answer::{Answer, Hop};
pub use explanation::Explanation;
pub use log::FailureLog;

/// Where in the life of a connection it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Accept,
    Tls,
    Detect,
    /// Reading the request.
    Request,
    Route,
    Balance,
    Connect,
    /// Moving the request and its answer.
    Forward,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Tls => "tls",
            Self::Detect => "detect",
            Self::Request => "request",
            Self::Route => "route",
            Self::Balance => "balance",
            Self::Connect => "connect",
            Self::Forward => "forward",
        }
    }
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    Client,
    Proxy,
    Upstream,
}

/// Whether the same request may be tried elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    Never,
    /// No byte of the request reached an application.
    NothingSent,
    /// An application may have seen it: only a request that may be repeated.
    IfIdempotent,
}

/// How loud the log is about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Clients do this all day.
    Debug,
    /// Part of running services; of interest when somebody asks why.
    Info,
    /// Somebody should look.
    Warn,
}

/// The ways a request or a connection fails here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The request's head broke a rule of HTTP.
    BadRequest,
    /// The request's body broke a rule of HTTP.
    BadBody,
    HeadTooLarge,
    TooManyFields,
    TargetTooLong,
    ConnectNotAllowed,
    /// The client broke HTTP/2: its connection ends.
    Http2Protocol,
    /// The client made the proxy work for nothing, faster than any honest client: its connection ends.
    Http2Flood,
    /// The client went away before its answer.
    ClientGone,
    /// The client was too slow to send its head.
    ClientTimeout,
    /// The client stopped sending its body, or taking its answer.
    ClientStalled,
    /// A limit of this proxy is reached: connections, buffered bytes, streams.
    OverLimit,
    NoRoute,
    /// The route names a cluster nobody described.
    NoCluster,
    /// The route names no backend that is valid.
    NoBackend,
    NoEndpoints,
    /// Every endpoint was tried or is taken out.
    NoneAvailable,
    ConnectRefused,
    ConnectTimeout,
    /// The peer is not who it should be, or TLS failed.
    PeerIdentity,
    /// This proxy has no certificate yet.
    NoCertificate,
    /// What was asked for cannot be said in the upstream's protocol.
    ProtocolMismatch,
    /// The upstream closed before it answered.
    UpstreamClosed,
    /// The upstream gave up this request (`RST_STREAM`), its connection stays.
    UpstreamReset,
    /// The upstream says that it did not look at the request (`REFUSED_STREAM`, or `GOAWAY` before it).
    UpstreamRefused,
    /// The upstream broke HTTP.
    UpstreamProtocol,
    /// The response head was over a limit.
    UpstreamLimit,
    RequestTimeout,
    PerTryTimeout,
    /// No byte moved either way for too long, and the upstream was the one to move.
    StreamIdle,
    /// The proxy beside the application could not reach it (said by that proxy).
    ApplicationUnreachable,
}

/// One row of the table. The code is also the metrics' `code` label.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    pub code: &'static str,
    pub stage: Stage,
    pub blame: Blame,
    pub retry: Retry,
    /// HTTP status of the answer. 499 is never sent: nobody is left to read it.
    pub status: u16,
    /// gRPC status code, where the client speaks gRPC.
    pub grpc: u8,
    pub level: Level,
    pub text: &'static str,
}

/// gRPC status codes (`google.rpc.Code`).
mod grpc {
    pub(super) const CANCELLED: u8 = 1;
    pub(super) const DEADLINE_EXCEEDED: u8 = 4;
    pub(super) const RESOURCE_EXHAUSTED: u8 = 8;
    pub(super) const UNIMPLEMENTED: u8 = 12;
    pub(super) const INTERNAL: u8 = 13;
    pub(super) const UNAVAILABLE: u8 = 14;
}

impl Failure {
    pub const ALL: [Self; 31] = [
        Self::BadRequest,
        Self::BadBody,
        Self::HeadTooLarge,
        Self::TooManyFields,
        Self::TargetTooLong,
        Self::ConnectNotAllowed,
        Self::Http2Protocol,
        Self::Http2Flood,
        Self::ClientGone,
        Self::ClientTimeout,
        Self::ClientStalled,
        Self::OverLimit,
        Self::NoRoute,
        Self::NoCluster,
        Self::NoBackend,
        Self::NoEndpoints,
        Self::NoneAvailable,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::PeerIdentity,
        Self::NoCertificate,
        Self::ProtocolMismatch,
        Self::UpstreamClosed,
        Self::UpstreamReset,
        Self::UpstreamRefused,
        Self::UpstreamProtocol,
        Self::UpstreamLimit,
        Self::RequestTimeout,
        Self::PerTryTimeout,
        Self::StreamIdle,
        Self::ApplicationUnreachable,
    ];

    pub fn facts(self) -> Facts {
        use Blame::{Client, Proxy, Upstream};
        use Level::{Debug, Info, Warn};
        use Retry::{IfIdempotent, Never, NothingSent};
        use grpc::{CANCELLED, DEADLINE_EXCEEDED, INTERNAL, RESOURCE_EXHAUSTED, UNAVAILABLE, UNIMPLEMENTED};
        let row = |code, stage, blame, retry, status, grpc, level, text| Facts {
            code,
            stage,
            blame,
            retry,
            status,
            grpc,
            level,
            text,
        };
        let request = |code, status, grpc, text| row(code, Stage::Request, Client, Never, status, grpc, Debug, text);
        let connect = |code, text| row(code, Stage::Connect, Upstream, NothingSent, 503, UNAVAILABLE, Info, text);
        let forward =
            |code, retry, status, grpc, text| row(code, Stage::Forward, Upstream, retry, status, grpc, Info, text);
        match self {
            Self::BadRequest => request("bad-request", 400, INTERNAL, "the request is malformed"),
            Self::BadBody => request("bad-body", 400, INTERNAL, "the request's body is malformed"),
            Self::HeadTooLarge => {
                request("head-too-large", 431, RESOURCE_EXHAUSTED, "the request's head is over the limit of bytes")
            }
            Self::TooManyFields => {
                request("too-many-fields", 431, RESOURCE_EXHAUSTED, "the request has more header fields than allowed")
            }
            Self::TargetTooLong => {
                request("target-too-long", 414, RESOURCE_EXHAUSTED, "the request's target is over the limit of bytes")
            }
            Self::ConnectNotAllowed => {
                request("connect-not-allowed", 405, UNIMPLEMENTED, "the method CONNECT is not allowed")
            }
            Self::Http2Protocol => request("http2-protocol", 400, INTERNAL, "the client broke a rule of HTTP/2"),
            Self::Http2Flood => row(
                "http2-flood",
                Stage::Request,
                Client,
                Never,
                429,
                RESOURCE_EXHAUSTED,
                Warn,
                "the client sent HTTP/2 frames that make work and carry nothing",
            ),
            Self::ClientGone => row(
                "client-gone",
                Stage::Forward,
                Client,
                Never,
                499,
                CANCELLED,
                Debug,
                "the client closed before its answer",
            ),
            Self::ClientTimeout => {
                request("client-timeout", 408, DEADLINE_EXCEEDED, "the client took too long to send its request's head")
            }
            Self::ClientStalled => row(
                "client-stalled",
                Stage::Forward,
                Client,
                Never,
                408,
                DEADLINE_EXCEEDED,
                Debug,
                "the client stopped in the middle of its request or of its answer",
            ),
            Self::OverLimit => row(
                "over-limit",
                Stage::Accept,
                Proxy,
                Never,
                503,
                RESOURCE_EXHAUSTED,
                Warn,
                "a limit of this proxy is reached",
            ),
            Self::NoRoute => {
                row("no-route", Stage::Route, Proxy, Never, 404, UNIMPLEMENTED, Info, "no route takes this request")
            }
            Self::NoCluster => row(
                "no-cluster",
                Stage::Route,
                Proxy,
                Never,
                503,
                UNAVAILABLE,
                Warn,
                "the route names a cluster that does not exist",
            ),
            // The status is the Gateway API's.
            Self::NoBackend => row(
                "no-backend",
                Stage::Route,
                Proxy,
                Never,
                500,
                INTERNAL,
                Warn,
                "the route has no valid backend for this request",
            ),
            Self::NoEndpoints => row(
                "no-endpoints",
                Stage::Balance,
                Upstream,
                Never,
                503,
                UNAVAILABLE,
                Info,
                "the service has no endpoints",
            ),
            Self::NoneAvailable => row(
                "none-available",
                Stage::Balance,
                Upstream,
                Never,
                503,
                UNAVAILABLE,
                Info,
                "no endpoint of the service can be used now",
            ),
            Self::ConnectRefused => connect("connect", "the endpoint refused the connection"),
            Self::ConnectTimeout => connect("connect-timeout", "the endpoint did not accept the connection in time"),
            Self::PeerIdentity => {
                connect("peer-identity", "the endpoint did not prove the identity the service must have")
            }
            Self::NoCertificate => row(
                "no-certificate",
                Stage::Tls,
                Proxy,
                Never,
                503,
                UNAVAILABLE,
                Warn,
                "this proxy has no certificate yet",
            ),
            Self::ProtocolMismatch => row(
                "protocol-mismatch",
                Stage::Connect,
                Proxy,
                Never,
                502,
                UNIMPLEMENTED,
                Info,
                "the request cannot be put into the protocol its service speaks",
            ),
            Self::UpstreamClosed => forward(
                "upstream-closed",
                IfIdempotent,
                503,
                UNAVAILABLE,
                "the endpoint closed the connection before it answered",
            ),
            Self::UpstreamReset => {
                forward("upstream-reset", IfIdempotent, 503, UNAVAILABLE, "the endpoint gave up the request")
            }
            Self::UpstreamRefused => forward(
                "upstream-refused",
                NothingSent,
                503,
                UNAVAILABLE,
                "the endpoint refused the request without looking at it",
            ),
            Self::UpstreamProtocol => {
                forward("upstream-protocol", Never, 502, INTERNAL, "the endpoint's answer is not valid HTTP")
            }
            Self::UpstreamLimit => {
                forward("upstream-limit", Never, 502, INTERNAL, "the endpoint's answer has a head over a limit")
            }
            Self::RequestTimeout => forward(
                "request-timeout",
                Never,
                504,
                DEADLINE_EXCEEDED,
                "the answer did not come in the time the route allows",
            ),
            Self::PerTryTimeout => forward(
                "per-try-timeout",
                IfIdempotent,
                504,
                DEADLINE_EXCEEDED,
                "the endpoint did not answer in the time the route allows for one try",
            ),
            Self::StreamIdle => forward(
                "stream-idle",
                Never,
                504,
                DEADLINE_EXCEEDED,
                "nothing moved between client and endpoint for too long",
            ),
            Self::ApplicationUnreachable => {
                connect("application-unreachable", "the application does not accept connections")
            }
        }
    }

    /// The stable code.
    pub fn code(self) -> &'static str {
        self.facts().code
    }

    /// This failure with what is known of the case.
    pub fn with(self, detail: impl Into<Cow<'static, str>>) -> Failed {
        Failed { failure: self, detail: detail.into() }
    }
}

/// A failure and what is known of this case: the limit, the value found, who was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    pub failure: Failure,
    /// Empty when the code says everything.
    pub detail: Cow<'static, str>,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        failure.with("")
    }
}

impl From<HeadError> for Failed {
    /// Of a request's head; an answer's is [`Failure::UpstreamProtocol`] or [`Failure::UpstreamLimit`].
    fn from(error: HeadError) -> Self {
        let failure = match error {
            HeadError::Malformed(_) => Failure::BadRequest,
            HeadError::TooLong => Failure::HeadTooLarge,
            HeadError::TooManyFields => Failure::TooManyFields,
            HeadError::TargetTooLong => Failure::TargetTooLong,
            HeadError::ConnectNotAllowed => Failure::ConnectNotAllowed,
        };
        failure.with(error.to_string())
    }
}

#[cfg(test)]
mod tests;
