//! Why the proxy answered in the application's place, or gave up: one table.
//!
//! A code is stable and documented; it labels metrics, stands in the `weft-error` response field, and in logs.

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

/// The ways a request or a connection fails here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The request broke a rule; the status says which.
    BadRequest(u16),
    /// The client went away before its answer.
    ClientGone,
    /// The client was too slow to send its head.
    ClientTimeout,
    NoRoute,
    /// The route names a cluster nobody described.
    NoCluster,
    NoEndpoints,
    /// Every endpoint was tried or is taken out.
    NoneAvailable,
    ConnectRefused,
    ConnectTimeout,
    /// The peer is not who it should be, or TLS failed.
    PeerIdentity,
    /// This proxy has no certificate yet.
    NoCertificate,
    /// The upstream closed before it answered.
    UpstreamClosed,
    /// The upstream said that it did nothing with the request, and would not.
    UpstreamRefused,
    /// The upstream gave up this one request.
    UpstreamReset,
    /// The upstream broke HTTP.
    UpstreamProtocol,
    /// The response head was over a limit.
    UpstreamLimit,
    RequestTimeout,
    /// The proxy beside the application could not reach it (said by that proxy).
    ApplicationUnreachable,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    pub code: &'static str,
    pub status: u16,
    pub blame: Blame,
    pub retry: Retry,
    pub text: &'static str,
}

impl Failure {
    pub const ALL: [Self; 18] = [
        Self::BadRequest(400),
        Self::ClientGone,
        Self::ClientTimeout,
        Self::NoRoute,
        Self::NoCluster,
        Self::NoEndpoints,
        Self::NoneAvailable,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::PeerIdentity,
        Self::NoCertificate,
        Self::UpstreamClosed,
        Self::UpstreamRefused,
        Self::UpstreamReset,
        Self::UpstreamProtocol,
        Self::UpstreamLimit,
        Self::RequestTimeout,
        Self::ApplicationUnreachable,
    ];

    pub fn facts(self) -> Facts {
        use Blame::{Client, Proxy, Upstream};
        use Retry::{IfIdempotent, Never, NothingSent};
        let row = |code, status, blame, retry, text| Facts { code, status, blame, retry, text };
        match self {
            Self::BadRequest(status) => {
                row("bad-request", status, Client, Never, "the request is malformed or over a limit")
            }
            Self::ClientGone => row("client-gone", 499, Client, Never, "the client closed before its answer"),
            Self::ClientTimeout => {
                row("client-timeout", 408, Client, Never, "the client took too long to send its request")
            }
            Self::NoRoute => row("no-route", 404, Proxy, Never, "no route matches this host and path"),
            Self::NoCluster => row("no-cluster", 503, Proxy, Never, "the route names a cluster that does not exist"),
            Self::NoEndpoints => row("no-endpoints", 503, Upstream, Never, "the service has no endpoints"),
            Self::NoneAvailable => {
                row("none-available", 503, Upstream, Never, "no endpoint of the service can be used now")
            }
            Self::ConnectRefused => row("connect", 503, Upstream, NothingSent, "the endpoint refused the connection"),
            Self::ConnectTimeout => {
                row("connect-timeout", 503, Upstream, NothingSent, "the endpoint did not accept the connection in time")
            }
            Self::PeerIdentity => row(
                "peer-identity",
                503,
                Upstream,
                NothingSent,
                "the endpoint did not prove the identity the service must have",
            ),
            Self::NoCertificate => row("no-certificate", 503, Proxy, Never, "this proxy has no certificate yet"),
            Self::UpstreamClosed => row(
                "upstream-closed",
                503,
                Upstream,
                IfIdempotent,
                "the endpoint closed the connection before it answered",
            ),
            Self::UpstreamRefused => {
                row("upstream-refused", 503, Upstream, NothingSent, "the endpoint refused the request unprocessed")
            }
            Self::UpstreamReset => row(
                "upstream-reset",
                503,
                Upstream,
                IfIdempotent,
                "the endpoint gave the request up before it answered",
            ),
            Self::UpstreamProtocol => {
                row("upstream-protocol", 502, Upstream, Never, "the endpoint's answer is not valid HTTP")
            }
            Self::UpstreamLimit => {
                row("upstream-limit", 502, Upstream, Never, "the endpoint's answer has a head over the limit")
            }
            Self::RequestTimeout => {
                row("request-timeout", 504, Upstream, Never, "the answer did not come in the time the route allows")
            }
            Self::ApplicationUnreachable => row(
                "application-unreachable",
                503,
                Upstream,
                NothingSent,
                "the application does not accept connections",
            ),
        }
    }

    /// The body of an answer, for people.
    pub fn explanation(self) -> String {
        let facts = self.facts();
        format!("weft: {} ({})\n", facts.text, facts.code)
    }

    /// Appends a whole HTTP/1.1 answer that closes the connection, or keeps it.
    pub fn write_response(self, keep_alive: bool, to_head: bool, out: &mut Vec<u8>) {
        let facts = self.facts();
        let body = self.explanation();
        let connection = if keep_alive { "" } else { "connection: close\r\n" };
        let head = format!(
            "HTTP/1.1 {} {}\r\nweft-error: {}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n{connection}\r\n",
            facts.status,
            reason(facts.status),
            facts.code,
            body.len(),
        );
        out.extend_from_slice(head.as_bytes());
        if !to_head {
            out.extend_from_slice(body.as_bytes());
        }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        414 => "URI Too Long",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_its_own_code_and_a_status() {
        let mut codes: Vec<_> = Failure::ALL.iter().map(|f| f.facts().code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Failure::ALL.len());
        for failure in Failure::ALL {
            let facts = failure.facts();
            assert!((400..600).contains(&facts.status), "{failure:?}");
            assert_eq!(facts.status >= 500, facts.blame != Blame::Client && failure != Failure::NoRoute, "{failure:?}");
        }
    }

    #[test]
    fn an_answer_in_the_applications_place_is_valid_http() {
        for failure in Failure::ALL {
            let mut out = Vec::new();
            failure.write_response(false, false, &mut out);
            let mut storage = crate::http1::FieldStorage::new();
            let head = crate::http1::ResponseHead::parse(&out, &mut storage, false).expect("valid").expect("complete");
            assert_eq!(head.body, crate::http1::BodyKind::Length((out.len() - head.length) as u64));
            assert!(!head.keep_alive);
        }
    }
}
