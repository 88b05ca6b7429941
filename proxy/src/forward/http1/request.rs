//! One request: its head read, its route found, and its new head staged.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_core::model::Direction;

use super::Routing;
use crate::clock;
use crate::failure::{Failed, Failure};
use crate::forward::Service;
use crate::forward::exchange::Asked;
use crate::forward::pump::Pump;
use crate::http1::{BodyKind, FieldStorage, Framing, RequestHead, RequestWrite};
use crate::state::Cluster;
use crate::stream::{Connection, take_text};
use crate::telemetry::Edge;

/// A request on its way.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) started: Instant,
    pub(super) asked: Asked,
    pub(super) cluster: Arc<Cluster>,
    pub(super) edge: Rc<Edge>,
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
        let (cluster, timeout) = route(routing, &head)?;
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
            cluster,
            edge,
            is_idempotent: head.is_idempotent(),
            is_bare: head.body == BodyKind::Empty,
            pump: Pump::new(staged(service, routing, &head), Framing::from(head.body), false),
        };
        let length = head.length;
        connection.consume(length);
        Ok(Some(request))
    }
}

fn route(routing: &Routing, head: &RequestHead<'_, '_>) -> Result<(Arc<Cluster>, Option<Duration>), Failure> {
    let routes = routing.listener.routes.as_ref().ok_or(Failure::NoRoute)?;
    let route = routes.matches(head.authority, head.path()).ok_or(Failure::NoRoute)?;
    let cluster = route.target().ok_or(Failure::NoCluster)?;
    Ok((Arc::clone(cluster), route.timeout()))
}

/// The head as it goes to the upstream.
fn staged(service: &Service<'_>, routing: &Routing, head: &RequestHead<'_, '_>) -> Vec<u8> {
    let mut out = take_text();
    let id;
    let request_id = match service.direction {
        // The first proxy names the request; those behind it keep the name.
        Direction::Outbound => {
            id = service.worker.chance(request_id);
            Some(&id[..])
        }
        Direction::Inbound => None,
    };
    let write = RequestWrite {
        default_authority: routing.listener.authority.as_bytes(),
        request_id,
        client_certificate: service.client_certificate,
    };
    head.write(&write, &mut out);
    out
}

/// A random UUID (RFC 9562 version 4) as text.
fn request_id(chance: &mut fastrand::Rng) -> [u8; 36] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bits = chance.u128(..) & !(0xf << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let mut text = [b'-'; 36];
    let mut shift = 128;
    for (at, byte) in text.iter_mut().enumerate() {
        if !matches!(at, 8 | 13 | 18 | 23) {
            shift -= 4;
            *byte = HEX[(bits >> shift & 0xf) as usize];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_a_version_4_uuid() {
        let mut chance = fastrand::Rng::with_seed(7);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            let id = String::from_utf8(request_id(&mut chance).to_vec()).expect("text");
            let groups: Vec<_> = id.split('-').map(str::len).collect();
            assert_eq!(groups, [8, 4, 4, 4, 12]);
            assert_eq!(&id[14..15], "4");
            assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"));
            assert!(seen.insert(id));
        }
    }
}
