//! One request: its head read, its route found, and its new head staged.

use std::sync::Arc;
use std::time::Instant;

use weft_core::retry::RetryPolicy;

use crate::clock;
use crate::failure::{Failed, Failure};
use crate::forward::Service;
use crate::forward::exchange::Asked;
use crate::forward::pump::Pump;
use crate::forward::relay::{self, Transfer};
use crate::forward::request_id;
use crate::forward::routing::{Decision, Routing};
use crate::forward::tries::Target;
use crate::http1::{BodyKind, FieldStorage, Framing, HeadError, RequestHead, RequestWrite};
use crate::http2::websocket::{self, Accept};
use crate::http2::{request_from_http1, websocket_from_http1};
use crate::state::Version;
use crate::stream::{Connection, take_text};

/// A request on its way.
#[derive(Debug)]
pub(super) enum Request {
    /// To an upstream of the same protocol.
    Direct(Direct),
    /// To an upstream of HTTP/2. Boxed: it is larger, and rare.
    Converted(Box<Converted>),
}

/// A request that passes as it came.
#[derive(Debug)]
pub(super) struct Direct {
    pub(super) started: Instant,
    pub(super) asked: Asked,
    pub(super) target: Target,
    pub(super) is_idempotent: bool,
    /// Nothing but the head: it can be sent again.
    pub(super) is_bare: bool,
    pub(super) retry: Option<Arc<RetryPolicy>>,
    /// Head staged, body to come from the client.
    pub(super) pump: Pump,
}

/// A request that goes on as one of HTTP/2. An upgrade to WebSocket goes on as what it is there; any other offer to leave
/// HTTP/1 ends here: the upstream has left it already, and a server may always go on as if it had not been offered anything
/// (RFC 9110 section 7.8).
#[derive(Debug)]
pub(super) struct Converted {
    pub(super) request: relay::Request,
    pub(super) asked: Asked,
    /// The body to come from the client.
    pub(super) body: Framing,
}

impl Request {
    /// Takes a complete head from the client's buffer; `None` when more must be read. `is_last`: no other may follow.
    pub(super) fn read(
        service: &Service<'_>,
        connection: &mut Connection,
        routing: &mut Routing,
        is_last: bool,
    ) -> Result<Option<Self>, Failed> {
        let mut storage = FieldStorage::new();
        let head = match RequestHead::parse(connection.data(), &mut storage) {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(None),
            Err(error) => return Err(refused(service, error, connection.data())),
        };
        // Which may be lower than what can be read.
        service.within_limits(head.target.len(), head.field_count(), head.length)?;
        routing.refresh(service);
        let Decision { cluster, timeout, retry } = routing.route(service, &head)?;
        let edge = routing.edge(service, &cluster);
        let started = clock::now();
        let asked = Asked {
            to_head: head.is_head(),
            is_http11: head.is_http11,
            keep_alive: head.keep_alive,
            is_last,
            upgrade: head.upgrade().is_some(),
            // Known when an endpoint is.
            upstream_is_proxy: false,
            deadline: timeout.map(|limit| started + limit),
        };
        let version = cluster.version(Version::Http1);
        let target = Target { cluster, edge };
        let is_bare = head.body == BodyKind::Empty;
        let id = request_id::for_request(service);
        let write = RequestWrite {
            default_authority: routing.default_authority(),
            request_id: id.as_ref().map(|id| &id[..]),
            client_certificate: service.client_certificate(),
        };
        let request = match version {
            Version::Http1 => {
                let mut staged = take_text();
                head.write(&write, &mut staged);
                Self::Direct(Direct {
                    started,
                    asked,
                    target,
                    is_idempotent: head.is_idempotent(),
                    is_bare,
                    retry,
                    pump: Pump::new(staged, Framing::from(head.body), false),
                })
            }
            Version::Http2 => {
                let websocket = head.websocket_key().map(accept).transpose()?;
                let fields = match websocket {
                    Some(_) => websocket_from_http1(&head, &write),
                    None => request_from_http1(&head, &write),
                };
                Self::Converted(Box::new(Converted {
                    request: relay::Request {
                        started,
                        target,
                        deadline: asked.deadline,
                        retry,
                        head: relay::RequestHead::Http2(fields),
                        body: if is_bare { Transfer::none() } else { Transfer::repeatable() },
                        is_idempotent: head.is_idempotent(),
                        to_head: asked.to_head,
                        // There is no gRPC over HTTP/1: who speaks so is answered in HTTP's own terms.
                        is_grpc: false,
                        upstream_is_proxy: false,
                        websocket: websocket.map(Box::new),
                        otherwise: None,
                    },
                    asked,
                    body: Framing::from(head.body),
                }))
            }
        };
        let length = head.length;
        connection.consume(length);
        Ok(Some(request))
    }
}

/// What must be answered to the key of a WebSocket.
fn accept(key: &[u8]) -> Result<Accept, Failed> {
    let none = || Failure::BadRequest.with("Sec-WebSocket-Key is not sixteen bytes in base64, said once");
    websocket::accept(key).ok_or_else(none)
}

/// Why a head cannot be read, with the limit it met.
fn refused(service: &Service<'_>, error: HeadError, bytes: &[u8]) -> Failed {
    let limits = service.limits();
    let failed = Failed::from(error);
    match error {
        HeadError::TooManyFields => {
            let found = memchr::memchr_iter(b'\n', bytes).count().saturating_sub(2);
            failed.failure.with(format!("limit {}, found about {found}", limits.fields))
        }
        HeadError::TargetTooLong => failed.failure.with(format!("limit {} bytes, found more", limits.target_bytes)),
        _ => failed,
    }
}
