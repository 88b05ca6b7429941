//! Connections over TLS as the pool sees them.

use std::sync::Arc;
use std::time::Duration;

use rustls::HandshakeKind;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use weft_core::names::SpiffeId;

use super::*;
use crate::tls::testing::TestRoot;
use crate::tls::{Credentials, MeshClient, MeshProtocol, accept, connect};

const LIMIT: Duration = Duration::from_secs(5);

struct Peers {
    server: Credentials,
    client: Arc<MeshClient>,
    listener: TcpListener,
}

impl Peers {
    async fn new() -> Self {
        let identity = |name| SpiffeId::workload("shop.local", "default", name);
        let root = TestRoot::new();
        let client = root.credentials(&identity("web")).client_config(&[identity("orders")], MeshProtocol::Tcp.alpn());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { server: root.credentials(&identity("orders")), client, listener }
    }

    /// Client and server.
    async fn open(&self) -> (Connection, tokio_rustls::server::TlsStream<ReadAhead>) {
        let address = self.listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), self.listener.accept());
        let connected = connect(&self.client, address, ReadAhead::new(near.unwrap()), LIMIT);
        let accepted = accept(&self.server, ReadAhead::new(far.unwrap().0), LIMIT);
        let (connected, accepted) = tokio::join!(connected, accepted);
        (Connection::new(Stream::Client(Box::new(connected.unwrap()))), accepted.unwrap().stream)
    }
}

fn below(connection: &Connection) -> (&ReadAhead, &rustls::ClientConnection) {
    let Stream::Client(stream) = &connection.stream else { panic!("not a client") };
    stream.get_ref()
}

fn is_resumed(connection: &Connection) -> bool {
    below(connection).1.handshake_kind() == Some(HandshakeKind::Resumed)
}

#[tokio::test]
async fn a_ticket_leaves_an_idle_connection_quiet_and_is_kept() {
    let peers = Peers::new().await;
    let (mut idle, _far) = peers.open().await;
    below(&idle).0.readable().await;
    assert!(idle.is_quiet(), "the ticket was taken for an answer");
    let (second, _far) = peers.open().await;
    assert!(is_resumed(&second), "the ticket was lost");
}

#[tokio::test]
async fn an_answer_nobody_asked_for_or_an_end_is_not_quiet() {
    let peers = Peers::new().await;
    for end in [false, true] {
        let (mut idle, mut far) = peers.open().await;
        if end {
            far.shutdown().await.unwrap();
        } else {
            far.write_all(&[7; 100]).await.unwrap();
            far.flush().await.unwrap();
        }
        // What was sent may come after the ticket.
        let mut seen = false;
        for _ in 0..100 {
            below(&idle).0.readable().await;
            seen = !idle.is_quiet();
            if seen {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert!(seen, "end: {end}");
    }
}

#[tokio::test]
async fn records_in_the_read_ahead_are_not_quiet_and_are_read() {
    let before = lent();
    let peers = Peers::new().await;
    let (mut idle, mut far) = peers.open().await;
    // Three records at once; the first fills the reader's buffer, the others wait below rustls.
    let bytes: Vec<u8> = (0..40 * 1024).map(|at| (at % 251) as u8).collect();
    far.write_all(&bytes).await.unwrap();
    far.flush().await.unwrap();
    let mut received = Vec::new();
    while received.len() < bytes.len() {
        idle.fill().await.unwrap();
        received.extend_from_slice(idle.data());
        let length = idle.data().len();
        idle.consume(length);
        idle.release();
        if received.len() == SMALL {
            assert!(lent() > before, "nothing was read ahead: this tests nothing");
            // Outside the pool nobody looks and goes on, so the byte that the look costs is no loss.
            assert!(!idle.is_quiet());
            received.push(bytes[SMALL]);
        }
    }
    assert_eq!(received, bytes);
    assert_eq!(lent(), before, "an empty connection holds a buffer");
}
