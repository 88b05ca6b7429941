//! Upstream connections: shared, opened when they are needed, and left without losing a request.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use h2::Reason;
use tokio::sync::Barrier;

use super::peer::{ok, send_all, whole};
use super::*;

/// An application that answers when so many requests have come to it.
fn together(count: usize, builder: h2::server::Builder) -> Application2 {
    let barrier = Arc::new(Barrier::new(count));
    Application2::with(builder, move |request, respond| {
        let barrier = Arc::clone(&barrier);
        async move {
            barrier.wait().await;
            ok(request, respond).await;
        }
    })
}

/// So many requests at once on one connection, each answered well.
async fn ask_together(client: &mut Client2, count: usize) {
    let mut answers = Vec::new();
    for _ in 0..count {
        answers.push(client.ask(get(), true).await.0);
    }
    for answer in answers {
        assert_eq!(whole(answer.await.expect("an answer")).await.body, b"ok");
    }
}

#[test]
fn requests_of_all_clients_share_one_connection() {
    let application = together(40, h2::server::Builder::new());
    let pair = pair_before(UpstreamProtocol::Http2, application.address);
    block_on(async {
        let mut first = Client2::connect(pair.outer.address).await;
        let mut second = Client2::connect(pair.outer.address).await;
        tokio::join!(ask_together(&mut first, 20), ask_together(&mut second, 20));
    });
    assert_eq!(application.connections(), 1, "all of them waited for the one that was being opened");
    assert_eq!(pair.inner.run(|worker| worker.drain.open(Direction::Inbound)), 1);
}

#[test]
fn a_further_connection_is_opened_when_all_are_full() {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(4);
    let application = together(20, builder);
    let proxy = before(UpstreamProtocol::Http2, &[application.address]);
    block_on(async {
        let mut client = Client2::connect(proxy.address).await;
        ask_together(&mut client, 20).await;
    });
    assert_eq!(application.connections(), 5);
}

#[test]
fn requests_of_one_client_are_balanced_one_by_one() {
    let seen = Arc::new(Mutex::new(HashSet::new()));
    let applications: Vec<_> = (0..3)
        .map(|number| {
            let seen = Arc::clone(&seen);
            Application2::start(move |request, respond| {
                seen.lock().expect("never poisoned").insert(number);
                ok(request, respond)
            })
        })
        .collect();
    let addresses: Vec<_> = applications.iter().map(|application| application.address).collect();
    let proxy = before(UpstreamProtocol::Http2, &addresses);
    block_on(async {
        let mut client = Client2::connect(proxy.address).await;
        for _ in 0..30 {
            assert_eq!(client.exchange(get(), b"").await.body, b"ok");
        }
    });
    assert_eq!(seen.lock().expect("never poisoned").len(), 3);
}

/// An application that says goodbye after every `count`th request of a connection, gracefully.
fn restless(count: usize) -> Application2 {
    Application2::serving(move |socket| async move {
        let mut connection = h2::server::handshake(socket).await?;
        let mut served = 0;
        while let Some(request) = connection.accept().await {
            let (request, respond) = request?;
            served += 1;
            if served == count {
                connection.graceful_shutdown();
            }
            tokio::spawn(peer::echo(request, respond));
        }
        Ok(())
    })
}

#[test]
fn goodbyes_in_the_middle_of_traffic_lose_no_request() {
    let application = restless(7);
    for proxy in [
        &before(UpstreamProtocol::Http2, &[application.address]),
        &pair_before(UpstreamProtocol::Http2, application.address).outer,
    ] {
        block_on(async {
            let mut clients = Vec::new();
            for _ in 0..4 {
                let mut client = Client2::connect(proxy.address).await;
                clients.push(tokio::spawn(async move {
                    for turn in 0..50 {
                        let body = format!("turn {turn}");
                        let answer = client.exchange(post(), body.as_bytes()).await;
                        assert_eq!((answer.head.status.as_u16(), &answer.body[..]), (200, body.as_bytes()));
                    }
                }));
            }
            for client in clients {
                client.await.expect("every request is answered");
            }
        });
    }
    assert!(application.connections() > 20);
}

/// An application whose every connection refuses its first `count` streams, and serves the others.
fn reluctant(count: usize) -> (Application2, Arc<AtomicUsize>) {
    let refused = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&refused);
    let application = Application2::start(move |request, mut respond| {
        let is_refused = seen.fetch_add(1, Relaxed) < count;
        async move {
            if is_refused {
                respond.send_reset(Reason::REFUSED_STREAM);
            } else {
                peer::echo(request, respond).await;
            }
        }
    });
    (application, refused)
}

#[test]
fn a_refused_request_is_sent_again_with_its_body() {
    let (application, asked) = reluctant(1);
    let proxy = before(UpstreamProtocol::Http2, &[application.address]);
    block_on(async {
        let answer = Client2::connect(proxy.address).await.exchange(post(), b"abc").await;
        assert_eq!((answer.head.status.as_u16(), &answer.body[..]), (200, &b"abc"[..]));
    });
    assert_eq!(asked.load(Relaxed), 2);
    let (application, _) = reluctant(1);
    let proxy = before(UpstreamProtocol::Http2, &[application.address]);
    let mut client = proxy.connect();
    send(&mut client, POST);
    let (head, body) = read_message(&mut BufReader::new(&client), false);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(body, b"abc");
}

#[test]
fn an_endpoint_that_refuses_everything_is_told_and_not_asked_for_ever() {
    let (application, asked) = reluctant(usize::MAX);
    let proxy = before(UpstreamProtocol::Http2, &[application.address]);
    block_on(async {
        let answer = Client2::connect(proxy.address).await.exchange(post(), b"abc").await;
        assert_eq!((answer.head.status.as_u16(), answer.header("weft-error")), (503, Some("upstream-refused")));
    });
    assert!(asked.load(Relaxed) <= 4, "{asked:?}");
}

#[test]
fn a_body_that_was_too_long_to_keep_is_not_sent_twice() {
    let asked = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&asked);
    let application = Application2::start(move |request, mut respond| {
        seen.fetch_add(1, Relaxed);
        async move {
            let mut body = request.into_body();
            let mut length = 0;
            while length < 20_000 {
                let data = body.data().await.expect("data").expect("data");
                let _ = body.flow_control().release_capacity(data.len());
                length += data.len();
            }
            respond.send_reset(Reason::REFUSED_STREAM);
        }
    });
    let proxy = before(UpstreamProtocol::Http2, &[application.address]);
    block_on(async {
        let mut client = Client2::connect(proxy.address).await;
        let (answer, mut stream) = client.ask(post(), false).await;
        let _ = send_all(&mut stream, &pattern(20_000), None).await;
        let answer = answer.await.expect("an answer");
        assert_eq!(
            (answer.status().as_u16(), answer.headers()["weft-error"].as_bytes()),
            (503, &b"upstream-refused"[..])
        );
    });
    assert_eq!(asked.load(Relaxed), 1);
}

#[test]
fn a_connection_that_died_while_idle_fails_no_request() {
    let sockets = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&sockets);
    let application = Application2::serving(move |socket| {
        let kept = Arc::clone(&kept);
        async move {
            let socket = socket.into_std().expect("a socket");
            kept.lock().expect("never poisoned").push(socket.try_clone().expect("a socket"));
            let socket = tokio::net::TcpStream::from_std(socket).expect("a socket");
            let mut connection = h2::server::handshake(socket).await?;
            while let Some(request) = connection.accept().await {
                let (request, respond) = request?;
                tokio::spawn(ok(request, respond));
            }
            Ok(())
        }
    });
    let proxy = before(UpstreamProtocol::Http2, &[application.address]);
    block_on(async {
        let mut client = Client2::connect(proxy.address).await;
        for round in 1..=5 {
            assert_eq!(client.exchange(get(), b"").await.body, b"ok");
            assert_eq!(application.connections(), round);
            for socket in sockets.lock().expect("never poisoned").drain(..) {
                socket.shutdown(std::net::Shutdown::Both).expect("a socket");
            }
        }
    });
}

#[test]
fn a_connection_nobody_uses_is_closed_after_a_while() {
    let application = Application2::start(ok);
    let proxy = before(UpstreamProtocol::Http2, &[application.address]);
    block_on(async {
        let mut client = Client2::connect(proxy.address).await;
        assert_eq!(client.exchange(get(), b"").await.body, b"ok");
    });
    proxy.wait_until("its stream is over", |worker| worker.pool.streams() == 0);
    assert_eq!(proxy.run(|worker| worker.pool.shared_after(std::time::Duration::from_secs(54))), 1);
    assert_eq!(proxy.run(|worker| worker.pool.shared_after(std::time::Duration::from_secs(56))), 0);
}

#[test]
fn an_endpoint_that_cannot_be_reached_is_told_to_all_who_wait() {
    let proxy = before(UpstreamProtocol::Http2, &[crate::testing::nobody()]);
    block_on(async {
        let mut client = Client2::connect(proxy.address).await;
        let mut answers = Vec::new();
        for _ in 0..10 {
            answers.push(client.ask(get(), true).await.0);
        }
        for answer in answers {
            let answer = answer.await.expect("an answer");
            assert_eq!((answer.status().as_u16(), answer.headers()["weft-error"].as_bytes()), (503, &b"connect"[..]));
        }
    });
}

#[test]
fn another_endpoint_is_asked_when_one_cannot_be_reached() {
    let application = Application2::start(peer::echo_whole);
    let proxy = before(UpstreamProtocol::Http2, &[crate::testing::nobody(), application.address]);
    block_on(async {
        let mut client = Client2::connect(proxy.address).await;
        for _ in 0..10 {
            assert_eq!(client.exchange(post(), b"abc").await.body, b"abc");
        }
    });
}

#[test]
fn requests_taken_back_do_not_pile_up_before_a_silent_endpoint() {
    // Accepts and says nothing: it is the handshake of the mesh that waits.
    let silent = Application::start();
    let mesh = crate::testing::Mesh::new();
    let proxy = mesh.outer(outbound(Protocol::Http, &[silent.address], Some(mesh.orders.clone())));
    block_on(async {
        let mut client = Client2::connect(proxy.address).await;
        let (answer, mut stream) = client.ask(post(), false).await;
        let _socket = silent.accept();
        stream.send_reset(Reason::CANCEL);
        drop(answer);
        proxy.wait_until("nothing is under way", |worker| {
            let snapshot = worker.store.load();
            snapshot.clusters().all(|cluster| cluster.endpoints().endpoints().iter().all(|one| one.in_flight() == 0))
        });
    });
}

#[test]
fn a_get_that_meets_a_closing_connection_of_http1_is_sent_again() {
    let application = Application::start();
    let proxy = before(UpstreamProtocol::Http1, &[application.address]);
    block_on(async {
        let mut client = Client2::connect(proxy.address).await;
        let (answer, _) = client.ask(get(), true).await;
        let mut upstream = application.accept();
        read_message(&mut BufReader::new(&upstream), false);
        send(&mut upstream, OK);
        assert_eq!(whole(answer.await.expect("an answer")).await.body, b"ok");
        // Read, and closed without an answer: nothing says that it was not acted on, but a GET may be repeated.
        let (answer, _) = client.ask(get(), true).await;
        read_message(&mut BufReader::new(&upstream), false);
        drop(upstream);
        let mut upstream = application.accept();
        read_message(&mut BufReader::new(&upstream), false);
        send(&mut upstream, OK);
        assert_eq!(whole(answer.await.expect("an answer")).await.body, b"ok");
        // A POST may not.
        let (answer, _) = client.ask(post(), true).await;
        read_message(&mut BufReader::new(&upstream), false);
        drop(upstream);
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.headers()["weft-error"], "upstream-closed");
    });
}

#[test]
fn connections_of_http1_are_used_again_by_clients_of_http2() {
    let application = Application::start();
    let pair = pair_before(UpstreamProtocol::Http1, application.address);
    block_on(async {
        let mut client = Client2::connect(pair.outer.address).await;
        let mut upstream = None;
        for _ in 0..5 {
            let (answer, mut stream) = client.ask(post(), false).await;
            send_all(&mut stream, b"abc", None).await.expect("taken");
            let upstream = upstream.get_or_insert_with(|| application.accept());
            let (_, body) = read_message(&mut BufReader::new(&*upstream), false);
            assert_eq!(body, b"abc");
            send(upstream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
            assert_eq!(whole(answer.await.expect("an answer")).await.body, b"ok");
            // The answer's end and the return to the pool are one turn of the worker.
            pair.inner.wait_until("the connection is back", |worker| worker.pool.usable() == 1);
        }
    });
    assert!(application.accept_within(std::time::Duration::ZERO).is_none());
}

#[test]
fn a_permissive_port_takes_http2_in_plaintext_and_a_strict_one_does_not() {
    let application = Application2::start(ok);
    let start = |tls| {
        let change = speaking(UpstreamProtocol::Http2, inbound(Protocol::Http, tls, application.address));
        RunningWorker::start(Direction::Inbound, destination(), change)
    };
    let permissive = start(InboundTls::Permissive);
    block_on(async {
        assert_eq!(Client2::connect(permissive.address).await.exchange(get(), b"").await.body, b"ok");
    });
    let strict = start(InboundTls::Strict);
    block_on(async {
        let client = Client2::connect(strict.address).await;
        // Refused before a word of HTTP/2 was said.
        let ended = client.ended.await.expect("an end");
        assert!(ended.is_err_and(|error| error.is_io()));
    });
}
