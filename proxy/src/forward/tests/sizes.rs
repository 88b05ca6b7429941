//! What a connection costs in memory while it does nothing.

use std::rc::Rc;
use std::sync::Arc;

use super::*;
use crate::forward::tcp::forward_connection;
use crate::forward::{Service, http1, http2};
use crate::stream::{Connection, Stream};
use crate::tls::MeshProtocol;
use crate::{detect, inbound, outbound};

/// Bytes of the futures that live as long as a connection, in the order of [`sizes`]. An idle connection owns the first
/// or second, one of the others, its socket, TLS state if any, and no buffer. Raise one only with a reason.
const CEILINGS: [(&str, usize); 7] = [
    ("inbound connection", 224),
    // The mark that keeps what it uses from being given up is eight bytes.
    ("outbound connection", 200),
    // What answering one needs is in a slot, which is lent. Since when it rests and until when its listener lets it live
    // are sixteen bytes each.
    ("its requests", 512),
    // Its idle time is a setting, what it drops when a client has gone is counted, and either side may be one of many
    // inside another connection: eight bytes each, and eight more.
    ("its bytes", 1200),
    // What it carries is a box of its own, once its name is known.
    ("its TLS that is passed through", 640),
    ("a connection of HTTP/2", 1024),
    ("a request of HTTP/2", 2048),
];

fn sizes() -> [usize; 7] {
    let (running, _application) = proxied();
    let client = running.connect();
    client.set_nonblocking(true).expect("a socket");
    running.run(move |worker| {
        let socket = || {
            let client = client.try_clone().expect("a socket");
            tokio::net::TcpStream::from_std(client).expect("a socket")
        };
        let listener = worker.store.load().listeners().next().cloned().expect("a listener");
        let service = Service {
            worker,
            direction: Direction::Outbound,
            destination: destination(),
            source: None,
            client_certificate: None,
            http: None,
        };
        let connection = || Connection::new(Stream::Plain(socket()));
        [
            size_of_val(&inbound::serve(Rc::clone(worker), socket(), destination())),
            size_of_val(&outbound::serve(Rc::clone(worker), socket(), destination())),
            size_of_val(&http1::serve(&service, connection(), Arc::clone(&listener))),
            size_of_val(&forward_connection(&service, connection(), &listener, MeshProtocol::Tcp)),
            size_of_val(&detect::serve_tls(&service, connection(), Arc::clone(&listener))),
            size_of_val(&http2::serve(&service, connection(), Arc::clone(&listener))),
            http2::size_of_request(),
        ]
    })
}

#[test]
fn the_futures_of_a_connection_stay_small() {
    for ((name, ceiling), size) in CEILINGS.into_iter().zip(sizes()) {
        println!("{name}: {size} bytes");
        assert!(size <= ceiling, "{name}: {size} bytes, at most {ceiling} are allowed");
    }
}
