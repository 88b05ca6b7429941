//! HTTP/2 on one side or both, against peers that are not ours.

mod bodies;
mod calls;
mod connections;
mod conversion;
mod crowd;
mod drain;
mod endings;
mod listener;
mod peer;
mod policy;
mod websocket;

use std::thread;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use weft_core::model::{InboundTls, UpstreamProtocol};

use super::*;
use crate::state::Change;
use crate::testing::{PATIENCE, Pair, inbound};
use peer::Application2;

pub(super) use peer::{Client2, block_on};

/// Tells what the applications of a change speak.
fn speaking(protocol: UpstreamProtocol, mut change: Change) -> Change {
    for cluster in &mut change.clusters {
        cluster.protocol = protocol;
    }
    change
}

/// One proxy before an application that speaks so.
fn before(protocol: UpstreamProtocol, endpoints: &[SocketAddr]) -> RunningWorker {
    let change = speaking(protocol, outbound(Protocol::Http, endpoints, None));
    RunningWorker::start(Direction::Outbound, destination(), change)
}

/// Two proxies before an application that speaks so.
fn pair_before(protocol: UpstreamProtocol, application: SocketAddr) -> Pair {
    Pair::start(speaking(protocol, inbound(Protocol::Http, InboundTls::Strict, application)))
}

fn get() -> Request<()> {
    Request::get("http://orders/").body(()).expect("a request")
}

fn post() -> Request<()> {
    Request::post("http://orders/").body(()).expect("a request")
}

/// A body whose every byte tells where it belongs.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}
