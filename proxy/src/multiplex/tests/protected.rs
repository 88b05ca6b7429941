//! The engine over TLS, which takes bytes before the socket does.

use weft_core::names::SpiffeId;

use super::*;
use crate::stream::ReadAhead;
use crate::tls::testing::TestRoot;
use crate::tls::{self, MeshProtocol};

/// Both ends of a connection between two proxies.
async fn protected() -> (Connection, Connection) {
    let root = TestRoot::new();
    let identity = |account| SpiffeId::workload("test.local", "default", account);
    let (shop, orders) = (root.credentials(&identity("shop")), root.credentials(&identity("orders")));
    let config = shop.client_config(&[identity("orders")], MeshProtocol::Http1.alpn());
    let (near, far) = sockets().await;
    let address = near.peer_addr().expect("connected");
    let (near, far) = (ReadAhead::new(near), ReadAhead::new(far));
    let (near, far) = tokio::join!(tls::connect(&config, address, near, PATIENCE), tls::accept(&orders, far, PATIENCE));
    let (near, far) = (near.expect("a handshake"), far.expect("a handshake").stream);
    (Connection::new(Socket::Client(Box::new(near))), Connection::new(Socket::Server(Box::new(far))))
}

#[test]
fn many_streams_go_through_tls() {
    on_one_thread(async {
        let (near, far) = protected().await;
        let (client, driver) = client(near, Settings::default());
        let driver = tokio::task::spawn_local(driver);
        let served = tokio::task::spawn_local(serve(Server::new(far, Settings::default()), echo));
        let asking: Vec<_> = (0..40)
            .map(|number| {
                let client = client.clone();
                let length = [1, 700, 20_000, 300_000][number % 4];
                tokio::task::spawn_local(async move { ask(&client, number, length).await })
            })
            .collect();
        for asked in asking {
            asked.await.expect("no panic");
        }
        drop(client);
        assert_eq!(driver.await.expect("no panic"), Ok(()));
        assert_eq!(served.await.expect("no panic"), Ok(()));
    });
}

#[test]
fn a_peer_that_takes_nothing_is_given_up_behind_tls_too() {
    on_one_thread(async {
        let settings = Settings { write_stall: Duration::from_millis(100), ..Settings::default() };
        let (near, _far) = protected().await;
        let (client, driver) = client(near, settings);
        let driver = tokio::task::spawn_local(driver);
        let mut large = request("/");
        large.push(b"x-large", &vec![b'x'; 60_000]);
        let mut streams = Vec::new();
        while !driver.is_finished() {
            streams.extend(client.open(&large, true));
            tokio::task::yield_now().await;
        }
        assert!(matches!(driver.await.expect("no panic"), Err(ConnectionError::Stalled(_))));
    });
}
