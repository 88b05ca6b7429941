//! One request: its head read, its route found, and its new head made.

use crate::clock;
use crate::failure::{Answer, Failed, Failure};
use crate::forward::relay::{self, Outgoing, Transfer};
use crate::forward::routing::{Decision, Routing};
use crate::forward::tries::Target;
use crate::forward::{Service, grpc, request_id};
use crate::http1::{BodyKind, HeadError, RequestWrite};
use crate::http2::{Fields, RequestHead, websocket};
use crate::multiplex::Incoming;
use crate::state::Version;
use crate::stream::Text;

/// What of a request decides how it is answered, also when it is refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) to_head: bool,
    pub(super) is_grpc: bool,
}

impl Asked {
    pub(super) fn of(head: &Fields) -> Self {
        Self { to_head: head.get(b":method") == Some(b"HEAD"), is_grpc: grpc::is_call(head.get(b"content-type")) }
    }
}

/// Why a request is not forwarded.
#[derive(Debug)]
pub(super) enum Refused {
    /// It is no request (RFC 9113 section 8.1.1).
    Malformed,
    Failed(Failed),
}

impl<T: Into<Failed>> From<T> for Refused {
    fn from(failed: T) -> Self {
        Self::Failed(failed.into())
    }
}

/// Makes of a head what goes on.
pub(super) fn read(
    service: &Service<'_>,
    routing: &mut Routing,
    incoming: &Incoming,
    asked: Asked,
) -> Result<relay::Request, Refused> {
    if incoming.is_too_large {
        let limits = service.limits();
        let detail = format!("limit {} bytes in {} fields, found more", limits.head_bytes, limits.fields);
        return Err(Failure::HeadTooLarge.with(detail).into());
    }
    let head = RequestHead::read(&incoming.head, incoming.ended).map_err(|error| {
        tracing::debug!(%error, "request refused");
        if matches!(error, HeadError::Malformed(_)) { Refused::Malformed } else { error.into() }
    })?;
    // Method, scheme and path stand in HTTP/1's request line; a field counts as HTTP/1 writes it.
    let fields = incoming.head.len();
    let bytes = incoming.head.list_size().saturating_sub(28 * fields);
    service.within_limits(head.target.len(), fields.saturating_sub(3), bytes)?;
    routing.refresh(service);
    let Decision { cluster, timeout, retry } = routing.route(service, &head)?;
    let edge = routing.edge(service, &cluster);
    let started = clock::now();
    let id = request_id::for_request(service);
    let write = RequestWrite {
        default_authority: routing.default_authority(),
        request_id: id.as_ref().map(|id| &id[..]),
        client_certificate: service.client_certificate(),
    };
    let key = head.is_websocket.then(|| websocket::key(service.worker.chance(|chance| chance.u128(..)).to_be_bytes()));
    let in_http1 = || {
        let mut bytes = Text::default();
        match &key {
            Some(key) => head.write_upgrade(&write, key, bytes.begin()),
            None => head.write_http1(&write, bytes.begin()),
        }
        let is_chunked = head.body == BodyKind::Chunked && !head.is_websocket;
        relay::RequestHead::Http1 { bytes, outgoing: if is_chunked { Outgoing::Chunked } else { Outgoing::Raw } }
    };
    let new_head = match cluster.version(Version::Http2) {
        Version::Http2 => relay::RequestHead::Http2(head.forwarded(&write)),
        Version::Http1 => in_http1(),
    };
    // An application that is spoken to as its clients speak may know WebSocket in HTTP/1.1 alone, as most do.
    let has_other = head.is_websocket && cluster.speaks_both();
    let otherwise = has_other.then(|| Box::new(in_http1()));
    Ok(relay::Request {
        started,
        deadline: timeout.map(|limit| started + limit),
        retry,
        target: Target { cluster, edge },
        head: new_head,
        // Of a tunnel nothing passes before it is there.
        body: if incoming.ended || head.is_websocket {
            Transfer::none()
        } else {
            Transfer::repeatable().with_length(head.content_length)
        },
        // The handshake is a GET in HTTP/1, and nothing has passed before it is over.
        is_idempotent: head.is_idempotent() || head.is_websocket,
        to_head: asked.to_head,
        is_grpc: asked.is_grpc,
        upstream_is_proxy: false,
        websocket: key.and_then(|key| websocket::accept(&key)).map(Box::new),
        otherwise,
    })
}

/// The head of an answer in the application's place.
pub(super) fn failed(answer: &Answer<'_>, length: usize) -> Fields {
    let facts = answer.failure.facts();
    let mut fields = Fields::new();
    fields.push(b":status", facts.status.to_string().as_bytes());
    fields.push(b"weft-error", facts.code.as_bytes());
    fields.push(b"content-type", b"text/plain");
    fields.push(b"content-length", length.to_string().as_bytes());
    fields
}
