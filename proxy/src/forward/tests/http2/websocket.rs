//! WebSocket from either version of HTTP to either.

use std::net::Shutdown;

use h2::ext::Protocol as ConnectProtocol;
use h2::{SendStream, server};

use super::peer::{echo, read_all, send_all, send_some, whole};
use super::*;
use crate::http2::websocket;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const OFFER: &str = "GET /chat HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-protocol: chat\r\nupgrade: websocket\r\n\
     sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nconnection: upgrade\r\n\r\n";

fn connect(protocol: &'static str) -> Request<()> {
    Request::connect("http://orders/chat")
        .extension(ConnectProtocol::from_static(protocol))
        .header("sec-websocket-version", "13")
        .body(())
        .expect("a request")
}

/// A client that was told that it may ask for tunnels.
async fn client(address: SocketAddr) -> Client2 {
    let mut client = Client2::connect(address).await;
    client.until(|send| send.is_extended_connect_protocol_enabled()).await;
    client
}

/// An application of HTTP/2 that says back what it is told, in tunnels.
fn echoing() -> Application2 {
    let mut builder = server::Builder::new();
    builder.enable_connect_protocol();
    Application2::with(builder, |request, mut respond| async move {
        let protocol = request.extensions().get::<ConnectProtocol>().expect("an extended CONNECT");
        assert_eq!((protocol.as_str(), request.uri().path()), ("websocket", "/chat"));
        assert_eq!(request.headers()["sec-websocket-version"], "13");
        assert!(request.headers().get("sec-websocket-key").is_none() && request.headers().get("upgrade").is_none());
        let head = Response::builder().header("sec-websocket-protocol", "chat").body(()).expect("a head");
        let mut stream = respond.send_response(head, false).expect("a client");
        let mut body = request.into_body();
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
            send_some(&mut stream, &data).await.expect("taken");
        }
        stream.send_data(Bytes::new(), true).expect("a client");
    })
}

/// Says something into a tunnel and hears it back.
async fn echoes(stream: &mut SendStream<Bytes>, body: &mut h2::RecvStream, bytes: &[u8]) {
    send_some(stream, bytes).await.expect("taken");
    let mut heard = Vec::new();
    while heard.len() < bytes.len() {
        let data = body.data().await.expect("more").expect("no reset");
        let _ = body.flow_control().release_capacity(data.len());
        heard.extend_from_slice(&data);
    }
    assert_eq!(heard, bytes);
}

/// Reads the upgrade an application gets; gives the answer to its key.
fn upgrade(upstream: &mut TcpStream) -> String {
    // Byte by byte: what follows the head is not to be read.
    let (head, _) = read_message(&mut BufReader::with_capacity(1, upstream), true);
    assert!(head.starts_with("GET /chat HTTP/1.1\r\nhost: orders\r\n"), "{head}");
    for part in ["sec-websocket-version: 13\r\n", "upgrade: websocket\r\n", "connection: upgrade\r\n"] {
        assert!(head.contains(part), "{head} lacks {part}");
    }
    assert!(!head.contains("transfer-encoding") && !head.contains("content-length"), "{head}");
    let key = head.split("sec-websocket-key: ").nth(1).and_then(|rest| rest.split("\r\n").next()).expect("a key");
    String::from_utf8(websocket::accept(key.as_bytes()).expect("a key").to_vec()).expect("text")
}

#[test]
fn a_client_of_http2_and_an_application_of_http1_exchange_bytes() {
    for protocol in [UpstreamProtocol::Http1] {
        let application = Application::start();
        let plain = before(protocol, &[application.address]);
        let pair = pair_before(protocol, application.address);
        for proxy in [&plain, &pair.outer] {
            block_on(async {
                let mut client = client(proxy.address).await;
                let (answer, mut stream) = client.ask(connect("websocket"), false).await;
                let mut upstream = application.accept();
                let accept = upgrade(&mut upstream);
                // Too early: nothing of it passes before the tunnel is there.
                send_some(&mut stream, b"early").await.expect("taken");
                // A whole exchange on the same connection has every part take its turn meanwhile.
                let (answer_to_other, _) = client.ask(get(), true).await;
                let mut other = application.accept();
                read_message(&mut BufReader::new(&other), false);
                send(&mut other, OK);
                assert_eq!(whole(answer_to_other.await.expect("an answer")).await.body, b"ok");
                upstream.set_nonblocking(true).expect("a socket");
                assert!(upstream.read(&mut [0; 1]).is_err(), "bytes came before the tunnel");
                upstream.set_nonblocking(false).expect("a socket");
                send(
                    &mut upstream,
                    &format!(
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: {accept}\r\n\r\nhello"
                    ),
                );
                let answer = answer.await.expect("an answer");
                assert_eq!(answer.status(), 200);
                assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
                for gone in ["sec-websocket-accept", "upgrade", "connection"] {
                    assert!(answer.headers().get(gone).is_none(), "{gone}");
                }
                expect(&mut upstream, "early");
                // Ends pass one way at a time.
                send_all(&mut stream, b"0\r\n\r\nGET", None).await.expect("taken");
                expect(&mut upstream, "0\r\n\r\nGET");
                expect_end(&mut upstream);
                send(&mut upstream, ", last words");
                upstream.shutdown(Shutdown::Write).expect("a socket");
                assert_eq!(read_all(&mut answer.into_body()).await.expect("an end"), b"hello, last words");
                // The client's connection goes on.
                let (answer, _) = client.ask(get(), true).await;
                read_message(&mut BufReader::new(&other), false);
                send(&mut other, OK);
                assert_eq!(whole(answer.await.expect("an answer")).await.body, b"ok");
            });
        }
    }
}

#[test]
fn a_client_and_an_application_of_http2_exchange_bytes() {
    let application = echoing();
    for protocol in [UpstreamProtocol::Http2, UpstreamProtocol::AsDownstream] {
        let plain = before(protocol, &[application.address]);
        let pair = pair_before(protocol, application.address);
        for proxy in [&plain, &pair.outer] {
            block_on(async {
                let mut client = client(proxy.address).await;
                let (answer, mut stream) = client.ask(connect("websocket"), false).await;
                let answer = answer.await.expect("an answer");
                assert_eq!(
                    (answer.status().as_u16(), &answer.headers()["sec-websocket-protocol"]),
                    (200, &"chat".parse().expect("a value"))
                );
                let mut body = answer.into_body();
                for bytes in [b"one".to_vec(), pattern(300_000)] {
                    echoes(&mut stream, &mut body, &bytes).await;
                }
                stream.send_data(Bytes::new(), true).expect("taken");
                assert_eq!(read_all(&mut body).await.expect("an end"), b"");
            });
        }
    }
}

#[test]
fn a_client_of_http1_and_an_application_of_http2_exchange_bytes() {
    let application = echoing();
    let plain = before(UpstreamProtocol::Http2, &[application.address]);
    let pair = pair_before(UpstreamProtocol::Http2, application.address);
    for proxy in [&plain, &pair.outer] {
        let mut client = proxy.connect();
        // What comes early is the first of the tunnel.
        send(&mut client, &format!("{OFFER}early"));
        expect(&mut client, ACCEPTED);
        expect(&mut client, "early");
        for text in ["one", "GET / HTTP/1.1\r\n\r\n"] {
            send(&mut client, text);
            expect(&mut client, text);
        }
        client.shutdown(Shutdown::Write).expect("a socket");
        expect_end(&mut client);
    }
}

#[test]
fn an_application_that_cannot_be_asked_so_is_not_blamed() {
    // It speaks HTTP/2 alone, and has not said that it takes tunnels.
    let application = Application2::start(echo);
    let mut change = speaking(UpstreamProtocol::Http2, outbound(Protocol::Http, &[application.address], None));
    change.clusters[0].outlier.consecutive_failures = 1;
    change.clusters[0].outlier.max_ejected_percent = 100;
    let worker = RunningWorker::start(Direction::Outbound, destination(), change);
    let mut client1 = worker.connect();
    send(&mut client1, OFFER);
    expect_failure(&mut client1, 502, "protocol-mismatch");
    block_on(async {
        let mut client = client(worker.address).await;
        let (answer, _stream) = client.ask(connect("websocket"), false).await;
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.status(), 502);
        assert_eq!(answer.headers()["weft-error"], "protocol-mismatch");
    });
    assert_eq!(worker.store.load().clusters().next().expect("a cluster").endpoints().ejected(), 0);
}

#[test]
fn an_application_that_knows_websocket_in_http1_alone_is_asked_in_http1() {
    let application = Application2::serving(|mut socket| async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut first = [0; 3];
        socket.peek(&mut first).await.expect("bytes");
        if &first == b"PRI" {
            // HTTP/2 without tunnels.
            let mut connection = server::handshake(socket).await?;
            while let Some(request) = connection.accept().await {
                let (request, respond) = request?;
                tokio::spawn(echo(request, respond));
            }
            return Ok(());
        }
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.expect("a head"));
        }
        let head = String::from_utf8(head).expect("text");
        let key = head.split("sec-websocket-key: ").nth(1).and_then(|rest| rest.split("\r\n").next()).expect("a key");
        let accept = websocket::accept(key.as_bytes()).expect("a key");
        let accept = String::from_utf8_lossy(&accept);
        let answer = format!(
            "HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        socket.write_all(answer.as_bytes()).await.expect("a client");
        let (mut read, mut write) = socket.split();
        tokio::io::copy(&mut read, &mut write).await.expect("bytes");
        Ok(())
    });
    let worker = before(UpstreamProtocol::AsDownstream, &[application.address]);
    block_on(async {
        let mut client = client(worker.address).await;
        assert_eq!(client.exchange(post(), b"abc").await.body, b"abc");
        let (answer, mut stream) = client.ask(connect("websocket"), false).await;
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.status(), 200);
        echoes(&mut stream, &mut answer.into_body(), b"bytes").await;
    });
}

#[test]
fn only_an_application_that_really_switched_makes_a_tunnel() {
    const OTHER: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let table = [
        ("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno", 403, None),
        (OK, 502, Some("protocol-mismatch")),
        (OTHER, 502, Some("upstream-protocol")),
    ];
    for (said, status, code) in table {
        let application = Application::start();
        let worker = before(UpstreamProtocol::Http1, &[application.address]);
        block_on(async {
            let mut client = client(worker.address).await;
            let (answer, _stream) = client.ask(connect("websocket"), false).await;
            let mut upstream = application.accept();
            upgrade(&mut upstream);
            send(&mut upstream, said);
            let answer = answer.await.expect("an answer");
            assert_eq!(answer.status(), status);
            assert_eq!(answer.headers().get("weft-error").map(|value| value.to_str().expect("text")), code);
        });
    }
    // And the other way: an application of HTTP/2 that says no.
    let mut builder = server::Builder::new();
    builder.enable_connect_protocol();
    let application = Application2::with(builder, |_, mut respond| async move {
        let head = Response::builder().status(403).body(()).expect("a head");
        respond.send_response(head, true).expect("a client");
    });
    let worker = before(UpstreamProtocol::Http2, &[application.address]);
    let mut client = worker.connect();
    send(&mut client, OFFER);
    let (head, _) = read_message(&mut BufReader::new(&client), false);
    assert!(head.starts_with("HTTP/1.1 403 ") && !head.contains("upgrade"), "{head}");
}

#[test]
fn what_is_no_handshake_is_refused_and_what_is_no_websocket_is_not_offered() {
    let application = echoing();
    let worker = before(UpstreamProtocol::Http2, &[application.address]);
    for broken in [OFFER.replace(KEY, "short"), OFFER.replace("Sec-WebSocket-Key", "X")] {
        let mut client = worker.connect();
        send(&mut client, &broken);
        expect_failure(&mut client, 400, "bad-request");
    }
    block_on(async {
        let mut client = client(worker.address).await;
        let (answer, _stream) = client.ask(connect("connect-udp"), false).await;
        let answer = answer.await.expect("an answer");
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["weft-error"]),
            (405, &"connect-not-allowed".parse().expect("a value"))
        );
    });
    // Any other offer may be ignored, and is.
    let application = Application2::echo();
    let worker = before(UpstreamProtocol::Http2, &[application.address]);
    let mut client = worker.connect();
    send(&mut client, &OFFER.replace("WebSocket\r\n", "other\r\n"));
    let (head, _) = read_message(&mut BufReader::new(&client), false);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}
