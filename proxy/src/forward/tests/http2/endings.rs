//! Ends that are no proper end, and how each side is told of the other's.

use std::sync::Arc;

use h2::Reason;

use super::peer::{read_all, send_some, try_whole, whole};
use super::*;

/// The reason a body ended for.
async fn reset_of(answer: Response<h2::RecvStream>) -> Option<Reason> {
    try_whole(answer).await.expect_err("no whole answer").reason()
}

/// Waits until the peer of this stream resets it.
async fn reset_seen(mut stream: h2::SendStream<Bytes>) -> Reason {
    std::future::poll_fn(|cx| stream.poll_reset(cx)).await.expect("a reset")
}

#[test]
fn a_client_that_gives_up_is_given_up_upstream() {
    for after_head in [false, true] {
        let (told, tell) = std::sync::mpsc::channel();
        let application = Application2::start(move |request, mut respond| {
            let told = told.clone();
            async move {
                let _request = request;
                if !after_head {
                    // It has come.
                    told.send(Reason::NO_ERROR).expect("a test");
                }
                let reason = if after_head {
                    reset_seen(respond.send_response(Response::new(()), false).expect("a client")).await
                } else {
                    std::future::poll_fn(|cx| respond.poll_reset(cx)).await.expect("a reset")
                };
                told.send(reason).expect("a test");
            }
        });
        let pair = pair_before(UpstreamProtocol::Http2, application.address);
        block_on(async {
            let mut client = Client2::connect(pair.outer.address).await;
            let (answer, mut stream) = client.ask(post(), false).await;
            if after_head {
                let _body = answer.await.expect("an answer");
                stream.send_reset(Reason::CANCEL);
            } else {
                send_some(&mut stream, b"abc").await.expect("taken");
                assert_eq!(tell.recv_timeout(PATIENCE).expect("a request"), Reason::NO_ERROR);
                stream.send_reset(Reason::CANCEL);
            }
            assert_eq!(tell.recv_timeout(PATIENCE).expect("a reset"), Reason::CANCEL);
        });
    }
}

#[test]
fn a_client_that_gives_up_closes_its_connection_to_an_application_of_http1() {
    let application = Application::start();
    let pair = pair_before(UpstreamProtocol::Http1, application.address);
    block_on(async {
        let mut client = Client2::connect(pair.outer.address).await;
        let (answer, mut stream) = client.ask(get(), true).await;
        let mut upstream = application.accept();
        read_message(&mut BufReader::new(&upstream), false);
        stream.send_reset(Reason::CANCEL);
        drop(answer);
        expect_end(&mut upstream);
        // The client's connection is as good as before.
        let (answer, _) = client.ask(get(), true).await;
        let mut upstream = application.accept();
        read_message(&mut BufReader::new(&upstream), false);
        send(&mut upstream, OK);
        assert_eq!(whole(answer.await.expect("an answer")).await.body, b"ok");
    });
}

#[test]
fn an_upstream_that_gives_up_after_its_head_is_told_with_its_own_code() {
    let go_on = Arc::new(tokio::sync::Notify::new());
    let told = Arc::clone(&go_on);
    let application = Application2::start(move |_, mut respond| {
        let told = Arc::clone(&told);
        async move {
            let mut stream = respond.send_response(Response::new(()), false).expect("a client");
            send_some(&mut stream, b"abc").await.expect("taken");
            told.notified().await;
            stream.send_reset(Reason::ENHANCE_YOUR_CALM);
        }
    });
    let pair = pair_before(UpstreamProtocol::Http2, application.address);
    block_on(async {
        let mut client = Client2::connect(pair.outer.address).await;
        let (answer, _) = client.ask(get(), true).await;
        let answer = answer.await.expect("an answer");
        go_on.notify_one();
        assert_eq!(reset_of(answer).await, Some(Reason::ENHANCE_YOUR_CALM));
    });
    let mut client = pair.outer.connect();
    send(&mut client, GET);
    let mut answer = "HTTP/1.1 200 OK\r\n".to_owned();
    expect(&mut client, &answer);
    go_on.notify_one();
    client.read_to_string(&mut answer).expect("an end");
    assert!(!answer.ends_with("0\r\n\r\n"), "a cut answer looks whole: {answer}");
}

#[test]
fn an_upstream_that_gives_up_before_its_head_is_answered_for() {
    let application = Application2::start(|_, mut respond| async move {
        respond.send_reset(Reason::INTERNAL_ERROR);
    });
    let pair = pair_before(UpstreamProtocol::Http2, application.address);
    block_on(async {
        let answer = Client2::connect(pair.outer.address).await.exchange(post(), b"abc").await;
        assert_eq!(answer.head.status, 503);
        assert_eq!(answer.header("weft-error"), Some("upstream-reset"));
    });
    let mut client = pair.outer.connect();
    send(&mut client, POST);
    expect_failure(&mut client, 503, "upstream-reset");
}

#[test]
fn a_connection_that_breaks_before_the_answer_is_answered_for() {
    let application = Application::start();
    let pair = pair_before(UpstreamProtocol::Http1, application.address);
    block_on(async {
        let mut client = Client2::connect(pair.outer.address).await;
        let (answer, _) = client.ask(Request::post("http://orders/").body(()).expect("a request"), true).await;
        let upstream = application.accept();
        read_message(&mut BufReader::new(&upstream), false);
        drop(upstream);
        let answer = whole(answer.await.expect("an answer")).await;
        assert_eq!((answer.head.status.as_u16(), answer.header("weft-error")), (503, Some("upstream-closed")));
        assert!(String::from_utf8_lossy(&answer.body).starts_with("weft: "), "{answer:?}");
    });
}

#[test]
fn a_cut_answer_of_http1_is_a_reset_and_not_an_end() {
    let application = Application::start();
    let pair = pair_before(UpstreamProtocol::Http1, application.address);
    for cut in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\n",
    ] {
        block_on(async {
            let mut client = Client2::connect(pair.outer.address).await;
            let (answer, _) = client.ask(get(), true).await;
            let mut upstream = application.accept();
            read_message(&mut BufReader::new(&upstream), false);
            send(&mut upstream, cut);
            drop(upstream);
            if let Ok(answer) = answer.await {
                assert_eq!(answer.status(), 200);
                assert_eq!(reset_of(answer).await, Some(Reason::INTERNAL_ERROR), "{cut}");
            }
        });
    }
}

#[test]
fn an_answer_that_ends_with_its_connection_is_whole() {
    let application = Application::start();
    let pair = pair_before(UpstreamProtocol::Http1, application.address);
    block_on(async {
        let mut client = Client2::connect(pair.outer.address).await;
        let (answer, _) = client.ask(get(), true).await;
        let mut upstream = application.accept();
        read_message(&mut BufReader::new(&upstream), false);
        send(&mut upstream, "HTTP/1.0 200 OK\r\n\r\nabc");
        drop(upstream);
        assert_eq!(whole(answer.await.expect("an answer")).await.body, b"abc");
    });
}

#[test]
fn an_answer_before_the_end_of_its_request_is_whole_and_the_rest_is_refused() {
    let application = Application2::start(|_, mut respond| async move {
        let answer = Response::builder().status(413).body(()).expect("a head");
        let mut stream = respond.send_response(answer, false).expect("a client");
        stream.send_data(Bytes::from_static(b"no"), true).expect("a client");
    });
    let pair = pair_before(UpstreamProtocol::Http2, application.address);
    block_on(async {
        let mut client = Client2::connect(pair.outer.address).await;
        let (answer, mut stream) = client.ask(post(), false).await;
        // It may be answered before this is taken.
        let _ = send_some(&mut stream, b"abc").await;
        let answer = whole(answer.await.expect("an answer")).await;
        assert_eq!((answer.head.status.as_u16(), &answer.body[..]), (413, &b"no"[..]));
        assert_eq!(reset_seen(stream).await, Reason::NO_ERROR);
        assert_eq!(client.exchange(get(), b"").await.head.status, 413);
    });
    let mut client = pair.outer.connect();
    send(&mut client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc");
    let (head, body) = read_message(&mut BufReader::new(&client), false);
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    assert_eq!(body, b"no");

    let application = Application::start();
    let pair = pair_before(UpstreamProtocol::Http1, application.address);
    block_on(async {
        let mut client = Client2::connect(pair.outer.address).await;
        let (answer, mut stream) = client.ask(post(), false).await;
        send_some(&mut stream, b"abc").await.expect("taken");
        let mut upstream = application.accept();
        let mut byte = [0];
        upstream.read_exact(&mut byte).expect("a request");
        send(&mut upstream, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno");
        let answer = whole(answer.await.expect("an answer")).await;
        assert_eq!((answer.head.status.as_u16(), &answer.body[..]), (413, &b"no"[..]));
        assert_eq!(reset_seen(stream).await, Reason::NO_ERROR);
    });
}

#[test]
fn a_client_of_http1_that_hangs_up_takes_its_request_back() {
    let (told, tell) = std::sync::mpsc::channel();
    let application = Application2::start(move |_, mut respond| {
        let told = told.clone();
        async move {
            told.send(None).expect("a test");
            let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await.expect("a reset");
            told.send(Some(reason)).expect("a test");
        }
    });
    let proxy = before(UpstreamProtocol::Http2, &[application.address]);
    let mut client = proxy.connect();
    send(&mut client, GET);
    assert_eq!(tell.recv_timeout(PATIENCE).expect("a request"), None);
    drop(client);
    assert_eq!(tell.recv_timeout(PATIENCE).expect("a reset"), Some(Reason::CANCEL));
}

#[test]
fn a_client_that_is_gone_leaves_nothing_behind() {
    let application = Application2::start(|request, mut respond| async move {
        let _ = request;
        let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
    });
    let pair = pair_before(UpstreamProtocol::Http2, application.address);
    block_on(async {
        let mut client = Client2::connect(pair.outer.address).await;
        for _ in 0..20 {
            let (answer, _stream) = client.ask(post(), false).await;
            drop(answer);
        }
        let (_answer, mut stream) = client.ask(post(), false).await;
        send_some(&mut stream, b"abc").await.expect("taken");
        client.ended.abort();
    });
    for (proxy, direction) in [(&pair.outer, Direction::Outbound), (&pair.inner, Direction::Inbound)] {
        proxy.wait_until("every stream is over", move |worker| worker.pool.streams() == 0);
        if direction == Direction::Outbound {
            proxy.wait_until("the connection is over", move |worker| worker.drain.open(direction) == 0);
        }
    }
}

#[test]
fn what_is_no_request_is_reset_and_never_forwarded() {
    let application = Application2::start(peer::ok);
    let proxy = before(UpstreamProtocol::Http2, &[application.address]);
    block_on(async {
        let mut client = Client2::connect(proxy.address).await;
        // Longer, and shorter, than it says.
        for (length, body) in [("2", "abc"), ("4", "abc")] {
            let request = Request::post("http://orders/").header("content-length", length).body(()).expect("a request");
            let (answer, mut stream) = client.ask(request, false).await;
            let _ = send_some(&mut stream, body.as_bytes()).await;
            let _ = stream.send_data(Bytes::new(), true);
            match answer.await {
                Err(error) => assert_eq!(error.reason(), Some(Reason::PROTOCOL_ERROR), "{length}"),
                // It may have been answered before its end came.
                Ok(answer) => drop(read_all(&mut answer.into_body()).await),
            }
        }
        let connect = Request::connect("http://orders/").body(()).expect("a request");
        let (answer, _stream) = client.ask(connect, false).await;
        assert_eq!(answer.await.expect("an answer").status(), 405);
        assert_eq!(client.exchange(get(), b"").await.body, b"ok");
    });
}

/// An application whose connection breaks: after the head of a request, or after that of its answer.
fn breaking(after_head: bool) -> Application2 {
    Application2::serving(move |socket| async move {
        let mut connection = h2::server::handshake(socket).await?;
        let Some(request) = connection.accept().await else { return Ok(()) };
        let (_request, mut respond) = request?;
        if after_head {
            let mut stream = respond.send_response(Response::new(()), false)?;
            stream.send_data(Bytes::from_static(b"abc"), false)?;
            // Written out, and then dropped.
            let _ = tokio::time::timeout(std::time::Duration::from_millis(50), connection.accept()).await;
        }
        Ok(())
    })
}

#[test]
fn a_connection_of_http2_that_breaks_is_told_before_the_head_and_after_it() {
    let application = breaking(false);
    for proxy in [
        &before(UpstreamProtocol::Http2, &[application.address]),
        &pair_before(UpstreamProtocol::Http2, application.address).outer,
    ] {
        block_on(async {
            let mut client = Client2::connect(proxy.address).await;
            let (answer, _) = client.ask(post(), true).await;
            let answer = answer.await.expect("an answer");
            assert_eq!(answer.status(), 503);
            assert_eq!(answer.headers()["weft-error"], "upstream-closed");
        });
    }
    let application = breaking(true);
    for proxy in [
        &before(UpstreamProtocol::Http2, &[application.address]),
        &pair_before(UpstreamProtocol::Http2, application.address).outer,
    ] {
        block_on(async {
            let mut client = Client2::connect(proxy.address).await;
            let (answer, _) = client.ask(post(), true).await;
            let answer = answer.await.expect("an answer");
            assert_eq!(answer.status(), 200);
            assert_eq!(reset_of(answer).await, Some(Reason::INTERNAL_ERROR));
        });
        let mut client = proxy.connect();
        send(&mut client, GET);
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an end");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && !answer.ends_with("0\r\n\r\n"), "{answer}");
    }
}

#[test]
fn a_request_over_a_limit_is_told_which() {
    let application = Application2::start(peer::ok);
    let change = speaking(UpstreamProtocol::Http2, outbound(Protocol::Http, &[application.address], None));
    let proxy = RunningWorker::start_tuned(
        Direction::Outbound,
        destination(),
        change,
        Arc::new(crate::tls::CredentialStore::new()),
        |worker| {
            worker.limits.target_bytes = 100;
            worker.limits.fields = 20;
            worker.limits.head_bytes = 2000;
        },
    );
    let request = |target: usize, fields: usize, bytes: usize| {
        let mut request = Request::get(format!("http://orders/{}", "x".repeat(target)));
        for index in 0..fields {
            request = request.header(format!("x-{index}"), "y".repeat(bytes));
        }
        request.body(()).expect("a request")
    };
    block_on(async {
        let mut client = Client2::connect(proxy.address).await;
        for (request, status, code, detail) in [
            (request(200, 0, 0), 414, "target-too-long", "limit 100 bytes, found 201"),
            (request(1, 30, 1), 431, "too-many-fields", "limit 20, found "),
            (request(1, 3, 1000), 431, "head-too-large", "limit 2000 bytes, found 3"),
            (request(1, 3, 40_000), 431, "head-too-large", "found more"),
        ] {
            let answer = client.exchange(request, b"").await;
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            assert_eq!((answer.head.status.as_u16(), answer.header("weft-error")), (status, Some(code)), "{body}");
            assert!(body.contains(detail), "{body}");
        }
        assert_eq!(client.exchange(request(1, 1, 1), b"").await.body, b"ok");
    });
}
