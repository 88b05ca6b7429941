//! What a connection costs in memory while it does nothing.

use super::*;
use crate::forward::http1::{self, Service};
use crate::forward::tcp::forward_connection;
use crate::stream::{Connection, Stream};
use crate::tls::MeshProtocol;

/// Bytes of the future of a connection with requests. Of it 1 KiB is the handshake with an upstream.
const HTTP_CEILING: usize = 4096;
/// Bytes of the future of a connection with plain bytes.
const TCP_CEILING: usize = 4096;

#[test]
fn the_future_of_a_connection_stays_small() {
    let (running, _application) = proxied();
    let client = running.connect();
    let sizes = running.run(move |worker| {
        let listener = worker.store.load().listeners().next().cloned().expect("a listener");
        let service = Service {
            worker,
            direction: Direction::Outbound,
            destination: destination(),
            source: None,
            client_certificate: None,
        };
        client.set_nonblocking(true).expect("a socket");
        let connection = || {
            let client = client.try_clone().expect("a socket");
            Connection::new(Stream::Plain(tokio::net::TcpStream::from_std(client).expect("a socket")))
        };
        let http = http1::serve(&service, connection(), std::sync::Arc::clone(&listener));
        let tcp = forward_connection(&service, connection(), &listener, MeshProtocol::Tcp);
        (size_of_val(&http), size_of_val(&tcp))
    });
    println!("http1 {} bytes, tcp {} bytes", sizes.0, sizes.1);
    assert!(sizes.0 <= HTTP_CEILING, "http1: {} bytes", sizes.0);
    assert!(sizes.1 <= TCP_CEILING, "tcp: {} bytes", sizes.1);
}
