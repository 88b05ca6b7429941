//! Bodies of every size, both ways at once, with what comes before and behind them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::peer::{echo, echo_whole, read_all, send_all, send_some, try_whole, whole};
use super::*;
use crate::stream::{SMALL, lent};

/// Nothing, one byte, around a buffer and a frame, around the default window, and many windows.
const SIZES: [usize; 9] = [0, 1, SMALL - 1, SMALL, SMALL + 1, 65_535, 65_536, 262_145, 1 << 20];

/// An application of HTTP/1 that answers with what it was sent: with a length, or in chunks when it came so.
fn echo1() -> SocketAddr {
    let application = Application::start();
    let address = application.address;
    // Ends with the test's process.
    thread::spawn(move || {
        while let Some(mut stream) = application.accept_within(PATIENCE) {
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
                while reader.fill_buf().is_ok_and(|bytes| !bytes.is_empty()) {
                    let (head, body) = read_message(&mut reader, false);
                    let answer = if head.contains("chunked") {
                        let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                        for piece in body.chunks(10_000) {
                            answer.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                            answer.extend_from_slice(piece);
                            answer.extend_from_slice(b"\r\n");
                        }
                        answer.extend_from_slice(b"0\r\n\r\n");
                        answer
                    } else {
                        let mut answer =
                            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
                        answer.extend_from_slice(&body);
                        answer
                    };
                    if stream.write_all(&answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn echoes_to_http2(proxy: &RunningWorker) {
    block_on(async {
        let mut client = Client2::connect(proxy.address).await;
        for size in SIZES {
            let body = pattern(size);
            for with_length in [false, true] {
                let mut request = post();
                if with_length {
                    request.headers_mut().insert("content-length", size.into());
                }
                let (answer, mut stream) = client.ask(request, size == 0).await;
                // Both ways at once: the echo cannot hold it all.
                let sending = async {
                    if size > 0 {
                        send_all(&mut stream, &body, None).await.expect("the body is taken");
                    }
                };
                let receiving = async { whole(answer.await.expect("an answer")).await };
                let ((), answer) = tokio::join!(sending, receiving);
                assert_eq!(answer.head.status, 200);
                assert!(answer.body == body, "{size} bytes came back as {}", answer.body.len());
            }
        }
    });
}

fn echoes_to_http1(proxy: &RunningWorker) {
    let mut client = proxy.connect();
    let mut reader = BufReader::new(client.try_clone().expect("a socket"));
    for size in SIZES {
        let body = pattern(size);
        for with_length in [false, true] {
            let mut request = b"POST / HTTP/1.1\r\nHost: a\r\n".to_vec();
            if with_length {
                request.extend_from_slice(format!("Content-Length: {size}\r\n\r\n").as_bytes());
                request.extend_from_slice(&body);
            } else {
                request.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                for piece in body.chunks(7_000) {
                    request.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                    request.extend_from_slice(piece);
                    request.extend_from_slice(b"\r\n");
                }
                request.extend_from_slice(b"0\r\n\r\n");
            }
            let sending = client.try_clone().expect("a socket");
            let sender = thread::spawn(move || {
                let mut sending = sending;
                sending.write_all(&request)
            });
            let (head, back) = read_message(&mut reader, false);
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert!(back == body, "{size} bytes came back as {}", back.len());
            sender.join().expect("a sender").expect("the body is taken");
        }
    }
    drop(client.write_all(b""));
}

#[test]
fn bodies_of_every_size_pass_from_http2_to_http2() {
    let application = Application2::echo();
    echoes_to_http2(&before(UpstreamProtocol::Http2, &[application.address]));
    echoes_to_http2(&pair_before(UpstreamProtocol::Http2, application.address).outer);
}

#[test]
fn bodies_of_every_size_pass_from_http2_to_http1() {
    let application = echo1();
    echoes_to_http2(&before(UpstreamProtocol::Http1, &[application]));
    echoes_to_http2(&pair_before(UpstreamProtocol::Http1, application).outer);
}

#[test]
fn bodies_of_every_size_pass_from_http1_to_http2() {
    // An answer that begins before its request has ended costs a client of HTTP/1 its connection.
    let application = Application2::start(echo_whole);
    echoes_to_http1(&before(UpstreamProtocol::Http2, &[application.address]));
    echoes_to_http1(&pair_before(UpstreamProtocol::Http2, application.address).outer);
}

#[test]
fn both_ways_stay_open_as_long_as_both_sides_want() {
    let application = Application2::echo();
    let pair = pair_before(UpstreamProtocol::Http2, application.address);
    block_on(async {
        let mut client = Client2::connect(pair.outer.address).await;
        let (answer, mut stream) = client.ask(post(), false).await;
        let mut answer = answer.await.expect("an answer before the request's end").into_body();
        for turn in 0..50 {
            let word = format!("turn {turn}");
            send_some(&mut stream, word.as_bytes()).await.expect("taken");
            let mut back = Vec::new();
            while back.len() < word.len() {
                let data = answer.data().await.expect("data").expect("data");
                let _ = answer.flow_control().release_capacity(data.len());
                back.extend_from_slice(&data);
            }
            assert_eq!(back, word.as_bytes());
        }
        send_all(&mut stream, b"", None).await.expect("taken");
        assert_eq!(read_all(&mut answer).await.expect("an end"), b"");
    });
}

#[test]
fn trailers_pass_both_ways_whatever_the_versions() {
    let trailers = || {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "17".parse().expect("a value"));
        trailers
    };
    // From HTTP/2 to HTTP/2.
    let application = Application2::echo();
    let pair = pair_before(UpstreamProtocol::Http2, application.address);
    block_on(async {
        let mut client = Client2::connect(pair.outer.address).await;
        let (answer, mut stream) = client.ask(post(), false).await;
        send_all(&mut stream, b"abc", Some(trailers())).await.expect("taken");
        let answer = whole(answer.await.expect("an answer")).await;
        assert_eq!((answer.trailer("x-sum"), &answer.body[..]), (Some("17"), &b"abc"[..]));
    });
    // From HTTP/1 to HTTP/2, and what may be no trailer is dropped.
    let mut client = pair.outer.connect();
    send(
        &mut client,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n0\r\nX-Sum: 18\r\nContent-Length: 9\r\n\r\n",
    );
    expect(&mut client, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 18\r\n\r\n");
    // From HTTP/2 to HTTP/1.
    let application = Application::start();
    let pair = pair_before(UpstreamProtocol::Http1, application.address);
    block_on(async {
        let mut client = Client2::connect(pair.outer.address).await;
        let (answer, mut stream) = client.ask(post(), false).await;
        send_all(&mut stream, b"abc", Some(trailers())).await.expect("taken");
        let mut upstream = application.accept();
        let mut bytes = vec![0; 1000];
        let mut sent = String::new();
        while !sent.ends_with("x-sum: 17\r\n\r\n") {
            let count = upstream.read(&mut bytes).expect("a request");
            sent.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        assert!(sent.contains("\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 17\r\n\r\n"), "{sent}");
        send(
            &mut upstream,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 18\r\nHost: b\r\n\r\n",
        );
        let answer = whole(answer.await.expect("an answer")).await;
        assert_eq!((answer.trailer("x-sum"), &answer.body[..]), (Some("18"), &b"abc"[..]));
        assert_eq!(answer.trailer("host"), None);
    });
}

#[test]
fn interim_answers_come_before_the_answer() {
    let application = Application2::start(|_, mut respond| async move {
        let hints = Response::builder().status(103).header("link", "<a>").body(()).expect("a head");
        respond.send_informational(hints).expect("a client");
        respond.send_response(Response::new(()), true).expect("a client");
    });
    let pair = pair_before(UpstreamProtocol::Http2, application.address);
    block_on(async {
        let mut client = Client2::connect(pair.outer.address).await;
        let (mut answer, _) = client.ask(get(), true).await;
        let hints = std::future::poll_fn(|cx| answer.poll_informational(cx)).await.expect("hints").expect("hints");
        assert_eq!((hints.status().as_u16(), &hints.headers()["link"]), (103, &"<a>".parse().expect("a value")));
        assert_eq!(answer.await.expect("an answer").status(), 200);
    });
    let mut client = pair.outer.connect();
    send(&mut client, GET);
    expect(&mut client, "HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    // Interim answers were invented after HTTP/1.0.
    send(&mut client, "GET / HTTP/1.0\r\n\r\n");
    expect(&mut client, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
}

#[test]
fn a_client_that_waits_for_100_is_told_to_go_on() {
    let application = Application2::start(|request, mut respond| async move {
        assert_eq!(request.headers()["expect"], "100-continue");
        let go_on = Response::builder().status(100).body(()).expect("a head");
        respond.send_informational(go_on).expect("a client");
        echo_whole(request, respond).await;
    });
    let proxy = before(UpstreamProtocol::Http2, &[application.address]);
    let mut client = proxy.connect();
    send(&mut client, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    expect(&mut client, "HTTP/1.1 100 Continue\r\n\r\n");
    send(&mut client, "abc");
    expect(&mut client, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");

    let application = Application::start();
    let proxy = before(UpstreamProtocol::Http1, &[application.address]);
    block_on(async {
        let mut client = Client2::connect(proxy.address).await;
        let request = Request::post("http://orders/").header("expect", "100-continue").body(()).expect("a request");
        let (mut answer, mut stream) = client.ask(request, false).await;
        let mut upstream = application.accept();
        let mut head = String::new();
        let mut reader = BufReader::new(upstream.try_clone().expect("a socket"));
        while !head.ends_with("\r\n\r\n") {
            reader.read_line(&mut head).expect("a head");
        }
        assert!(head.contains("\r\nexpect: 100-continue\r\n"), "{head}");
        send(&mut upstream, "HTTP/1.1 100 Continue\r\n\r\n");
        let go_on = std::future::poll_fn(|cx| answer.poll_informational(cx)).await.expect("a word").expect("a word");
        assert_eq!(go_on.status(), 100);
        send_all(&mut stream, b"abc", None).await.expect("taken");
        let mut body = Vec::new();
        read_chunks(&mut reader, &mut body);
        assert_eq!(body, b"abc");
        send(&mut upstream, OK);
        assert_eq!(whole(answer.await.expect("an answer")).await.body, b"ok");
    });
}

/// What an application could send before it was stopped, with nobody reading at the other end.
fn stopped_after(proxies: &[&RunningWorker], application: &Application2, sent: &Arc<AtomicUsize>) -> usize {
    let outer = proxies[0];
    let before = sent.load(Relaxed);
    let stopped = block_on(async {
        // The stream's own window is what stops it: the others go on.
        let mut builder = h2::client::Builder::new();
        builder.initial_connection_window_size(16 << 20);
        let mut client = Client2::with(outer.address, &builder).await;
        let (answer, _stream) = client.ask(get(), true).await;
        let mut body = answer.await.expect("an answer").into_body();
        let mut seen = usize::MAX;
        // It has come to rest when nothing more is taken while other requests go all the way and back: what is on its way
        // is before them.
        while seen != sent.load(Relaxed) {
            seen = sent.load(Relaxed);
            for _ in 0..EXCHANGES {
                assert_eq!(client.exchange(post(), b"turn").await.body, b"turn");
            }
        }
        for proxy in proxies {
            let lent = proxy.run(|_| lent());
            assert!(lent <= 64, "{lent} buffers are held for a client that does not read");
        }
        // Nothing is lost.
        assert_eq!(read_all(&mut body).await.expect("a whole answer").len(), TOTAL);
        seen - before
    });
    assert!(application.connections() > 0);
    stopped
}

const TOTAL: usize = 16 << 20;
/// With nothing taken from the application during so many, its body has come to rest.
const EXCHANGES: usize = 100;

#[test]
fn a_reader_that_is_slow_stops_its_sender_and_costs_bounded_memory() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let application = Application2::start(move |request, mut respond| {
        let count = Arc::clone(&count);
        async move {
            if request.method() == "POST" {
                return echo(request, respond).await;
            }
            let mut stream = respond.send_response(Response::new(()), false).expect("a client");
            let piece = pattern(SMALL);
            for _ in 0..TOTAL / SMALL {
                if send_some(&mut stream, &piece).await.is_err() {
                    return;
                }
                count.fetch_add(piece.len(), Relaxed);
            }
            let _ = stream.send_data(Bytes::new(), true);
        }
    });
    let pair = pair_before(UpstreamProtocol::Http2, application.address);
    let stopped = stopped_after(&[&pair.outer, &pair.inner], &application, &sent);
    // Two windows of a stream and what is queued between them, and sockets.
    assert!(stopped < 8 << 20, "{stopped} bytes were taken from the application");
}

#[test]
fn a_stream_that_nobody_reads_does_not_stop_the_others() {
    let application = Application2::start(|request, mut respond| async move {
        if request.method() == "POST" {
            return echo(request, respond).await;
        }
        let mut stream = respond.send_response(Response::new(()), false).expect("a client");
        let _ = send_all(&mut stream, &pattern(4 << 20), None).await;
    });
    let pair = pair_before(UpstreamProtocol::Http2, application.address);
    block_on(async {
        let mut builder = h2::client::Builder::new();
        builder.initial_connection_window_size(16 << 20);
        let mut client = Client2::with(pair.outer.address, &builder).await;
        let (answer, _stream) = client.ask(get(), true).await;
        let unread = answer.await.expect("an answer");
        for _ in 0..20 {
            let answer = client.exchange(post(), &pattern(1000)).await;
            assert_eq!(answer.body.len(), 1000);
        }
        assert_eq!(try_whole(unread).await.expect("the rest").body.len(), 4 << 20);
    });
}

#[test]
fn a_body_is_whole_with_its_last_byte_before_its_sender_says_so() {
    let application = Application::start();
    let proxy = before(UpstreamProtocol::Http1, &[application.address]);
    block_on(async {
        let mut client = Client2::connect(proxy.address).await;
        let mut upstream = None;
        for _ in 0..3 {
            let request = Request::post("http://orders/").header("content-length", "3").body(()).expect("a request");
            let (answer, mut stream) = client.ask(request, false).await;
            send_some(&mut stream, b"abc").await.expect("taken");
            let upstream = upstream.get_or_insert_with(|| application.accept());
            let (_, body) = read_message(&mut BufReader::new(&*upstream), false);
            assert_eq!(body, b"abc");
            send(upstream, OK);
            assert_eq!(whole(answer.await.expect("an answer")).await.body, b"ok");
            stream.send_data(Bytes::new(), true).expect("the end is taken, and nothing was reset");
            proxy.wait_until("the stream is over", |worker| worker.pool.usable() == 1);
        }
    });
}
