//! Many clients that do everything at once, with applications that come and go.

use super::peer::{read_all, send_some};
use super::*;

/// What one client does: whole exchanges of any size, requests taken back at any time, answers dropped half-read.
async fn client(address: SocketAddr, seed: u64) -> usize {
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut client = Client2::connect(address).await;
    let mut whole = 0;
    for turn in 0..60 {
        let size = [0, 1, 100, 5000, 70_000, 300_000][chance.usize(..6)];
        let body = pattern(size);
        let (answer, mut stream) = client.ask(post(), size == 0).await;
        match chance.u8(..10) {
            0 => stream.send_reset(h2::Reason::CANCEL),
            1 => {
                let _ = send_some(&mut stream, &body[..size / 2]).await;
                stream.send_reset(h2::Reason::CANCEL);
            }
            2 => drop((answer, stream)),
            3 => {
                // The head, and then no more.
                let sending = send_some(&mut stream, &body[..size / 2]);
                let (_, answer) = tokio::join!(sending, answer);
                assert_eq!(answer.expect("a head").status(), 200, "seed {seed}, turn {turn}");
            }
            _ => {
                let sending = async {
                    if size > 0 {
                        send_some(&mut stream, &body).await.expect("taken");
                        stream.send_data(Bytes::new(), true).expect("taken");
                    }
                };
                let receiving = async {
                    let answer = answer.await.expect("an answer");
                    assert_eq!(answer.status(), 200, "seed {seed}, turn {turn}: {answer:?}");
                    read_all(&mut answer.into_body()).await.expect("a whole answer")
                };
                let ((), back) = tokio::join!(sending, receiving);
                assert!(back == body, "seed {seed}, turn {turn}: {size} bytes came back as {}", back.len());
                whole += 1;
            }
        }
    }
    whole
}

#[test]
fn a_crowd_is_served_and_leaves_nothing_behind() {
    let application = Application2::echo();
    let pair = pair_before(UpstreamProtocol::Http2, application.address);
    let plain = before(UpstreamProtocol::Http2, &[application.address]);
    for proxy in [&plain, &pair.outer] {
        let address = proxy.address;
        block_on(async {
            let clients: Vec<_> = (0..8).map(|seed| tokio::spawn(client(address, seed))).collect();
            let mut whole = 0;
            for client in clients {
                whole += client.await.expect("a client that is content");
            }
            assert!(whole > 200, "{whole}");
        });
    }
    for proxy in [&plain, &pair.outer, &pair.inner] {
        proxy.wait_until("every stream is over", |worker| worker.pool.streams() == 0);
    }
    for proxy in [&plain, &pair.outer] {
        proxy.wait_until("every client is gone", |worker| worker.drain.open(Direction::Outbound) == 0);
        proxy.wait_until("every buffer is back", |_| crate::stream::lent() == 0);
    }
}
