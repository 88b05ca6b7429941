//! Many connections of HTTP/1 inside one: each is served as if it had come alone.
//!
//! Between two of our proxies requests of HTTP/1 travel as they are, byte for byte, but not each over a connection of its
//! own: what many of them say in one moment is one TLS record, one write, one read. Each stream of the outer connection
//! (HTTP/2's frames and windows, see [`crate::multiplex`]) is one such connection, kept and used again by the caller's
//! pool like any other.

use std::future::poll_fn;
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::http2::Client;
use super::{Service, http1};
use crate::http2::Fields;
use crate::multiplex::{Pipe, Settings};
use crate::state::Listener;
use crate::stream::{Connection, Stream};

/// Serves the connections inside `connection` until it ends.
pub async fn serve(service: &Service<'_>, connection: Connection, listener: Arc<Listener>) {
    let mut client = Client::new(service, connection, Settings::mesh());
    let mut inside = FuturesUnordered::new();
    let accepted = accepted();
    while let Some(mut incoming) = poll_fn(|cx| client.poll_next(&mut inside, cx)).await {
        if incoming.stream.send_head(&accepted, false).is_ok() {
            let inner = Connection::new(Stream::Inside(Box::new(Pipe::new(incoming.stream))));
            inside.push(http1::serve(service, inner, Arc::clone(&listener)));
        }
    }
    // Whose connection is gone will find out, and say so in its signals.
    while inside.next().await.is_some() {}
}

/// The head before the bytes of an inner connection: frames of data may not come without one.
fn accepted() -> Fields {
    let mut head = Fields::new();
    head.push(b":status", b"200");
    head
}
