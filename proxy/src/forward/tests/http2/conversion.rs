//! All four ways from a client's version to an application's.

use super::*;
use crate::forward::tests::http2::peer::{send_all, whole};

#[test]
fn a_client_and_an_application_of_http2_meet_through_one_proxy_and_through_two() {
    let application = Application2::start(|request, mut respond| async move {
        assert_eq!(request.method(), "GET");
        assert_eq!(request.uri(), "http://orders/path?query");
        let headers = request.headers();
        assert_eq!(headers["x-request-id"].len(), 36);
        assert_eq!(headers["cookie"], "a=b");
        let caller = headers.get("x-forwarded-client-cert").map(|value| value.to_str().expect("text").to_owned());
        let answer = Response::builder().header("x-caller", caller.unwrap_or_default()).header("weft-error", "forged");
        let mut stream = respond.send_response(answer.body(()).expect("a head"), false).expect("a client");
        stream.send_data(Bytes::from_static(b"ok"), true).expect("a client");
    });
    let plain = before(UpstreamProtocol::Http2, &[application.address]);
    let pair = pair_before(UpstreamProtocol::Http2, application.address);
    for (proxy, caller) in [(&plain, ""), (&pair.outer, "URI=spiffe://test.local/ns/default/sa/shop")] {
        block_on(async {
            let mut client = Client2::connect(proxy.address).await;
            let request = Request::get("http://orders/path?query")
                .header("cookie", "a=b")
                .header("x-forwarded-client-cert", "forged")
                .body(())
                .expect("a request");
            let answer = client.exchange(request, b"").await;
            assert_eq!(answer.head.status, 200);
            assert_eq!(answer.header("weft-error"), None, "only a proxy may say it");
            assert_eq!(answer.body, b"ok");
            assert_eq!(answer.header("x-caller"), Some(caller), "a client said who it is");
        });
    }
}

#[test]
fn an_application_of_http1_is_asked_in_http1() {
    let application = Application::start();
    let plain = before(UpstreamProtocol::Http1, &[application.address]);
    let pair = pair_before(UpstreamProtocol::Http1, application.address);
    for (proxy, caller) in
        [(&plain, ""), (&pair.outer, "x-forwarded-client-cert: URI=spiffe://test.local/ns/default/sa/shop\r\n")]
    {
        block_on(async {
            let mut client = Client2::connect(proxy.address).await;
            let (answer, _) = client.ask(get(), true).await;
            let mut upstream = application.accept();
            expect(&mut upstream, &format!("GET / HTTP/1.1\r\nhost: orders\r\nx-request-id: *ID*\r\n{caller}\r\n"));
            send(
                &mut upstream,
                "HTTP/1.1 201 Created\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-End: 2\r\nContent-Length: 2\r\n\r\nok",
            );
            let answer = whole(answer.await.expect("an answer")).await;
            assert_eq!(answer.head.status, 201);
            assert_eq!(answer.header("x-end"), Some("2"));
            assert_eq!(answer.header("x-hop"), None);
            assert_eq!(answer.header("content-length"), Some("2"));
            assert_eq!(answer.body, b"ok");

            let (answer, mut body) = client.ask(post(), false).await;
            send_all(&mut body, b"abc", None).await.expect("a proxy");
            let (head, sent) = read_message(&mut BufReader::new(&upstream), false);
            assert!(head.starts_with("POST / HTTP/1.1\r\nhost: orders\r\n") && head.contains(caller), "{head}");
            assert!(head.contains("\r\ntransfer-encoding: chunked\r\n"), "{head}");
            assert_eq!(sent, b"abc");
            send(&mut upstream, "HTTP/1.1 204 No Content\r\n\r\n");
            let answer = whole(answer.await.expect("an answer")).await;
            assert_eq!(answer.head.status, 204);
            assert_eq!(answer.body, b"");
        });
    }
}

#[test]
fn a_client_of_http1_is_answered_in_http1_by_an_application_of_http2() {
    let application = Application2::start(|request, mut respond| async move {
        assert_eq!(request.uri(), "http://a/x");
        assert!(request.headers().get("connection").is_none() && request.headers().get("x-hop").is_none());
        let with_length = request.headers().contains_key("x-length");
        let answer = Response::builder().status(StatusCode::CREATED);
        let answer = if with_length { answer.header("content-length", "2") } else { answer };
        let mut stream = respond.send_response(answer.body(()).expect("a head"), false).expect("a client");
        stream.send_data(Bytes::from_static(b"ok"), true).expect("a client");
    });
    let plain = before(UpstreamProtocol::Http2, &[application.address]);
    let pair = pair_before(UpstreamProtocol::Http2, application.address);
    for proxy in [&plain, &pair.outer] {
        let mut client = proxy.connect();
        send(&mut client, "GET /x HTTP/1.1\r\nHost: a\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-Length: 1\r\n\r\n");
        expect(&mut client, "HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok");
        // On the same connection.
        send(&mut client, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
        expect(&mut client, "HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
        send(&mut client, "GET /x HTTP/1.0\r\nHost: a\r\n\r\n");
        expect(&mut client, "HTTP/1.1 201 Created\r\nconnection: close\r\n\r\nok");
        expect_end(&mut client);
    }
    assert_eq!(application.connections(), 2, "one for each proxy beside it");
}

#[test]
fn who_speaks_as_its_client_does_is_asked_in_both() {
    let application = Application2::start(peer::ok);
    let proxy = before(UpstreamProtocol::AsDownstream, &[application.address]);
    block_on(async {
        let answer = Client2::connect(proxy.address).await.exchange(get(), b"").await;
        assert_eq!(answer.body, b"ok");
    });
    let application = Application::start();
    let proxy = before(UpstreamProtocol::AsDownstream, &[application.address]);
    let mut client = proxy.connect();
    send(&mut client, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET_SENT);
    send(&mut upstream, OK);
    expect(&mut client, OK);
}

#[test]
fn an_undeclared_port_takes_http2_too() {
    let application = Application2::start(peer::ok);
    let change = speaking(UpstreamProtocol::Http2, outbound(Protocol::Detect, &[application.address], None));
    let proxy = RunningWorker::start(Direction::Outbound, destination(), change);
    let inner =
        speaking(UpstreamProtocol::AsDownstream, inbound(Protocol::Detect, InboundTls::Strict, application.address));
    let pair = Pair::start(inner);
    for proxy in [&proxy, &pair.outer] {
        block_on(async {
            let mut client = Client2::connect(proxy.address).await;
            for _ in 0..3 {
                assert_eq!(client.exchange(get(), b"").await.body, b"ok");
            }
        });
    }
    assert_eq!(application.connections(), 2, "what was dialled to watch is used");
}

#[test]
fn answers_to_head_and_answers_without_a_body_have_none_whatever_their_length_says() {
    for (status, method) in [("200 OK", "HEAD"), ("304 Not Modified", "GET")] {
        let application = Application::start();
        let proxy = before(UpstreamProtocol::Http1, &[application.address]);
        block_on(async {
            let mut client = Client2::connect(proxy.address).await;
            let request = Request::builder().method(method).uri("http://orders/").body(()).expect("a request");
            let (answer, _) = client.ask(request, true).await;
            let mut upstream = application.accept();
            read_message(&mut BufReader::new(&upstream), true);
            send(&mut upstream, &format!("HTTP/1.1 {status}\r\nContent-Length: 10\r\n\r\n"));
            let answer = whole(answer.await.expect("an answer")).await;
            assert_eq!(answer.header("content-length"), Some("10"));
            assert_eq!(answer.body, b"");
        });
    }
    let application = Application2::start(|request, mut respond| async move {
        let status = if request.method() == "HEAD" { 200 } else { 304 };
        let answer = Response::builder().status(status).header("content-length", "10").body(()).expect("a head");
        respond.send_response(answer, true).expect("a client");
    });
    let proxy = before(UpstreamProtocol::Http2, &[application.address]);
    let mut client = proxy.connect();
    send(&mut client, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    expect(&mut client, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n");
    send(&mut client, GET);
    expect(&mut client, "HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\n\r\n");
}

#[test]
fn an_offer_to_leave_http1_for_anything_but_websocket_ends_before_an_application_that_has_left_it() {
    let application = Application2::start(|request, mut respond| async move {
        assert!(request.headers().get("upgrade").is_none());
        respond.send_response(Response::builder().status(400).body(()).expect("a head"), true).expect("a client");
    });
    let proxy = before(UpstreamProtocol::Http2, &[application.address]);
    let mut client = proxy.connect();
    send(&mut client, "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n");
    expect(&mut client, "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
}
