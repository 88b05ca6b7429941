//! What a user should know of each failure: cause, how to confirm, fix.

use super::Failure;

/// The long text behind a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation {
    pub cause: &'static str,
    /// Commands, each a line to type or a metric to look at.
    pub confirm: &'static [&'static str],
    pub fix: &'static str,
}

impl Failure {
    /// Cause, how to confirm, and fix.
    pub fn explanation(self) -> Explanation {
        let explanation = |cause, confirm, fix| Explanation { cause, confirm, fix };
        match self {
            Self::BadRequest => explanation(
                "The head of the request breaks a rule of HTTP (RFC 9112), or can be read in two ways: a line that does \
                 not end in CRLF, a folded field, two lengths, `Transfer-Encoding` beside `Content-Length`, no `Host`. \
                 What is ambiguous is refused, never repaired: it is how requests are smuggled.",
                &["curl -sv --raw URL", "the answer's body names the rule", "WEFT_LOG=debug shows each refusal"],
                "Repair the client, or whatever stands before it and rewrites its requests.",
            ),
            Self::BadBody => explanation(
                "The body of the request is not valid: a chunk size that is no number, chunk data without its line end, \
                 a trailer that is no field, or a peer that ended the body early.",
                &["the answer's body names the rule", "curl -sv --raw -H 'Transfer-Encoding: chunked' -d x URL"],
                "Repair the client's chunked encoding, or let it send `Content-Length`.",
            ),
            Self::HeadTooLarge => explanation(
                "Request line and header fields together are longer than the proxy holds. Mostly cookies or tokens that \
                 grew.",
                &["the answer's body names limit and proxy", "curl -sv URL | wc -c"],
                "Make cookies smaller; or raise WEFT_MAX_HEAD_BYTES of the proxy named, up to 65536.",
            ),
            Self::TooManyFields => explanation(
                "The request has more header fields than the proxy reads.",
                &["the answer's body names limit, value and proxy", "count the request's header lines"],
                "Send fewer fields; or raise WEFT_MAX_FIELDS of the proxy named, up to 200.",
            ),
            Self::TargetTooLong => explanation(
                "The path and query of the request are longer than allowed.",
                &["the answer's body names limit, value and proxy"],
                "Send long input in a body; or raise WEFT_MAX_TARGET_BYTES of the proxy named.",
            ),
            Self::ConnectNotAllowed => explanation(
                "The client used the method CONNECT, as to a forward proxy. A sidecar is none: connections are redirected \
                 by the kernel.",
                &["env | grep -i proxy   # in the client"],
                "Remove the proxy settings (HTTP_PROXY, HTTPS_PROXY) from the client, or make the port plain TCP.",
            ),
            Self::Http2Protocol => explanation(
                "The client's frames break a rule of HTTP/2 (RFC 9113); the connection ends with GOAWAY and its error.",
                &["weft_failures_total{code=\"http2-protocol\"}", "WEFT_LOG=debug names the rule"],
                "Update or repair the client's HTTP/2 library.",
            ),
            Self::Http2Flood => explanation(
                "The client sent many frames that cost work and carry nothing: streams reset at once, empty frames, \
                 PING, SETTINGS, PRIORITY, WINDOW_UPDATE or CONTINUATION without end. The connection ended with \
                 GOAWAY(ENHANCE_YOUR_CALM).",
                &["weft_http2_floods_total by kind", "weft_failures_total{code=\"http2-flood\"} by source"],
                "Find the source in the metric. If it is an honest client, tell us its library and version.",
            ),
            Self::ClientGone => explanation(
                "The client closed its connection before the answer was written: it gave up, was stopped, or its own \
                 timeout was shorter than the answer took.",
                &["weft_request_duration_seconds of the destination", "the timeouts of the client"],
                "Make the service faster or the client more patient. Nothing to do when users cancel.",
            ),
            Self::ClientTimeout => explanation(
                "The head of a request was begun but not finished in time. A slow link, a stopped client, or somebody who \
                 holds connections on purpose.",
                &["the answer's body names the limit", "weft_failures_total{code=\"client-timeout\"} by source"],
                "Repair the client; or raise WEFT_REQUEST_HEADERS_TIMEOUT.",
            ),
            Self::ClientStalled => explanation(
                "The client sent no further byte of its request's body, or took no byte of its answer, for as long as the \
                 stream idle timeout.",
                &["the answer's body names the limit", "ss -tno state established   # Send-Q and timers"],
                "Repair the client; for uploads with long pauses raise WEFT_STREAM_IDLE_TIMEOUT.",
            ),
            Self::OverLimit => explanation(
                "The proxy holds as many connections, streams or buffered bytes as it may. It refuses what is new rather \
                 than to fail in what it has.",
                &[
                    "weft_connections_open and weft_connections_limit",
                    "weft_buffered_bytes and weft_buffered_bytes_limit",
                    "weft_connections_refused_total{reason=\"over-limit\"}",
                ],
                "Find who opens so many connections or reads so slowly (weft_connections_active by source). Raise \
                 WEFT_MAX_CONNECTIONS, WEFT_MAX_BUFFERED_BYTES or `ulimit -n` if the load is honest.",
            ),
            Self::NoRoute => explanation(
                "None of the listener's routes takes a request of this host, path, method, headers and query, or it has not been \
                 told its routes yet. A service that HTTPRoutes name serves what they take, and nothing else.",
                &[
                    "weft proxy config WORKLOAD   # listeners with their routes, and whether they are known",
                    "weft get httproute -A",
                ],
                "Correct the request, or the routes of the service: a rule without `matches` takes what the others leave.",
            ),
            Self::NoCluster => explanation(
                "The route leads to a cluster that the control plane has not described (deleted, or not sent yet).",
                &["weft proxy config WORKLOAD   # clusters", "weft get service -A"],
                "Create the service, or correct the route. If it exists, see the control plane's log.",
            ),
            Self::NoBackend => explanation(
                "The HTTPRoute that takes this request names no backend for it that is valid: a service or port that does not \
                 exist, one of another namespace that no ReferenceGrant there permits to the route, or only backends of weight \
                 0. Where some are valid, the share of the others gets this answer (Gateway API).",
                &[
                    "the answer's body names the route",
                    "weft get httproute -A",
                    "weft apply --dry-run -f ROUTES   # warns of backends that do not exist",
                    "kubectl get referencegrants -A   # in Kubernetes: who permits what",
                ],
                "Create the service, or name one that exists in the route's `backendRefs`. In Kubernetes, one of another \
                 namespace needs a ReferenceGrant in its namespace, from the route's; elsewhere routes send to services of \
                 their own namespace alone.",
            ),
            Self::NoEndpoints => explanation(
                "The service exists, but no workload stands behind it: its selector matches none, or all were scaled away.",
                &["weft get service,workload -A", "weft_endpoints{destination=\"NAMESPACE/SERVICE:PORT\"}"],
                "Start workloads, or correct the service's selector.",
            ),
            Self::NoneAvailable => explanation(
                "Every endpoint of the service is draining, unhealthy, ejected after failures, or was tried for this request.",
                &["weft proxy config WORKLOAD   # health and ejected of each endpoint", "weft_endpoints_ejected"],
                "See why the endpoints fail (their logs, weft_failures_total); ejected ones are tried again by themselves.",
            ),
            Self::ConnectRefused => explanation(
                "The endpoint's machine answered that nobody listens there, or that it cannot be reached.",
                &[
                    "ss -ltn   # beside the endpoint: does it listen, and on which address?",
                    "weft proxy config WORKLOAD",
                ],
                "Start the application or its proxy, or correct the service's target port.",
            ),
            Self::ConnectTimeout => explanation(
                "The endpoint did not answer the connection attempt within the connect timeout: the machine is gone, \
                 overloaded, or a firewall drops packets.",
                &[
                    "ping and nc -vz ENDPOINT PORT from the client's machine",
                    "the answer's body names endpoint and limit",
                ],
                "Remove dead workloads; open the firewall; raise the cluster's connect timeout on long links.",
            ),
            Self::PeerIdentity => explanation(
                "The endpoint's certificate is missing, expired, of another trust domain, or of an identity the service \
                 may not have; or the TLS handshake failed.",
                &["WEFT_LOG=debug names the reason", "weft status   # certificates", "date   # on both machines"],
                "Give the workload the service account its service expects; check clocks; restart a proxy whose \
                 certificate has expired.",
            ),
            Self::NoCertificate => explanation(
                "The proxy has not got its certificate: the control plane cannot be reached, or refused its join token.",
                &["curl http://127.0.0.1:15000/ready", "the proxy's log says why the control plane refused"],
                "Bring the control plane back, or give the proxy a valid join token (weft token create).",
            ),
            Self::ProtocolMismatch => explanation(
                "The client asked for something that has no form in the protocol its service speaks: a WebSocket towards an \
                 application of HTTP/2 that has not announced extended CONNECT (RFC 8441), or one of HTTP/1.1 that answered \
                 the upgrade without switching.",
                &["weft proxy config WORKLOAD   # protocol of the cluster", "curl -sv URL"],
                "Declare the service's port with the protocol the application speaks, or let the client speak it.",
            ),
            Self::UpstreamClosed => explanation(
                "The endpoint closed the connection after it got the request and before it answered: it crashed, was \
                 stopped, or closes idle connections sooner than it says.",
                &["the application's log at that time", "weft_failures_total{code=\"upstream-closed\"} by destination"],
                "Let the application finish its requests when it stops; let it keep idle connections for at least 5 s.",
            ),
            Self::UpstreamReset => explanation(
                "The endpoint ended this one request (RST_STREAM) and kept its connection: the application gave up or failed.",
                &["the application's log at that time", "the answer's body names the HTTP/2 error"],
                "See why the application cancels the request.",
            ),
            Self::UpstreamRefused => explanation(
                "The endpoint said that it did not look at the request: it is shutting down (GOAWAY) or over its limit of \
                 streams (REFUSED_STREAM), and no other endpoint took the request.",
                &["weft_failures_total{code=\"upstream-refused\"} by destination", "the application's stream limit"],
                "Add replicas, or raise the application's limit of concurrent streams.",
            ),
            Self::UpstreamProtocol => explanation(
                "The endpoint's answer breaks a rule of HTTP, or can be read in two ways; or the port does not speak HTTP.",
                &["curl -sv --raw http://ENDPOINT/ beside the application", "WEFT_LOG=debug names the rule"],
                "Repair the application's server, or declare the port as `tcp`.",
            ),
            Self::UpstreamLimit => explanation(
                "The head of the endpoint's answer has more bytes or fields than the proxy reads.",
                &["the answer's body names limit and proxy", "curl -sI http://ENDPOINT/ | wc"],
                "Let the application send fewer or shorter fields (mostly Set-Cookie).",
            ),
            Self::RequestTimeout => explanation(
                "The whole answer did not come within the route's timeout.",
                &["weft_request_duration_seconds of the destination", "the answer's body names the limit"],
                "Make the service faster, or raise the route's timeout.",
            ),
            Self::PerTryTimeout => explanation(
                "The endpoint's answer did not begin within the time the route allows for one try, and no further try was \
                 allowed or it failed too.",
                &["weft_request_duration_seconds of the destination", "weft_retries_total"],
                "Make the service faster, or raise the route's per-try timeout.",
            ),
            Self::StreamIdle => explanation(
                "A request was under way, and for as long as the stream idle timeout neither side moved a byte: the \
                 application hangs, or a peer vanished.",
                &["the answer's body names the limit", "weft_requests_in_flight", "a thread dump of the application"],
                "Repair what hangs. For answers that may pause longer (long polling) raise WEFT_STREAM_IDLE_TIMEOUT or \
                 let the application send something now and then.",
            ),
            Self::ApplicationUnreachable => explanation(
                "The proxy beside the application got the request, but the application does not accept connections: it is \
                 starting, has crashed, or listens on another port or address.",
                &["ss -ltn   # beside the application", "the application's log"],
                "Start the application, or correct the service's target port. It must listen on an address its own \
                 machine can reach.",
            ),
        }
    }
}
