//! One request: its head read, its route found, and its new head staged.

use std::time::Instant;

use crate::clock;
use crate::failure::Failed;
use crate::forward::Service;
use crate::forward::exchange::Asked;
use crate::forward::pump::Pump;
use crate::forward::request_id;
use crate::forward::routing::Routing;
use crate::forward::tries::Target;
use crate::http1::{BodyKind, FieldStorage, Framing, RequestHead, RequestWrite};
use crate::stream::{Connection, take_text};

/// A request on its way.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) started: Instant,
    pub(super) asked: Asked,
    pub(super) target: Target,
    pub(super) is_idempotent: bool,
    /// Nothing but the head: it can be sent again.
    pub(super) is_bare: bool,
    /// Head staged, body to come from the client.
    pub(super) pump: Pump,
}

impl Request {
    /// Takes a complete head from the client's buffer; `None` when more must be read.
    pub(super) fn read(
        service: &Service<'_>,
        connection: &mut Connection,
        routing: &mut Routing,
    ) -> Result<Option<Self>, Failed> {
        let mut storage = FieldStorage::new();
        let head = match RequestHead::parse(connection.data(), &mut storage) {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        routing.refresh(service);
        let (cluster, timeout) = routing.route(head.authority, head.path())?;
        let edge = routing.edge(service, &cluster);
        let started = clock::now();
        let request = Self {
            started,
            asked: Asked {
                to_head: head.is_head(),
                is_http11: head.is_http11,
                keep_alive: head.keep_alive,
                upgrade: head.upgrade().is_some(),
                upstream_is_proxy: cluster.is_meshed(),
                deadline: timeout.map(|limit| started + limit),
            },
            target: Target { cluster, edge },
            is_idempotent: head.is_idempotent(),
            is_bare: head.body == BodyKind::Empty,
            pump: Pump::new(staged(service, routing, &head), Framing::from(head.body), false),
        };
        let length = head.length;
        connection.consume(length);
        Ok(Some(request))
    }
}

/// The head as it goes to the upstream.
fn staged(service: &Service<'_>, routing: &Routing, head: &RequestHead<'_, '_>) -> Vec<u8> {
    let mut out = take_text();
    let id = request_id::for_request(service);
    let write = RequestWrite {
        default_authority: routing.default_authority(),
        request_id: id.as_ref().map(|id| &id[..]),
        client_certificate: service.client_certificate,
    };
    head.write(&write, &mut out);
    out
}
