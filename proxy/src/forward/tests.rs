//! Raw bytes through a real worker over loopback.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;

use weft_core::model::{Direction, InboundTls, Protocol};

use crate::testing::{PATIENCE, RunningWorker, application, destination, inbound, outbound};

/// An application that reads `expected` on one connection, then writes `answer`, and gives the connection back.
fn answering(expected: &'static str, answer: &'static str) -> (SocketAddr, thread::JoinHandle<TcpStream>) {
    let (listener, address) = application();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        expect(&mut stream, expected);
        stream.write_all(answer.as_bytes()).expect("written");
        stream
    });
    (address, thread)
}

/// Reads exactly `expected`; `*ID*` in it stands for a request id.
fn expect(stream: &mut TcpStream, expected: &str) {
    let length = expected.replace("*ID*", &"x".repeat(36)).len();
    let mut bytes = vec![0; length];
    let read = stream.read_exact(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(read.is_ok(), "{read:?}, got {text:?}, expected {expected:?}");
    match expected.split_once("*ID*") {
        None => assert_eq!(text, expected),
        Some((before, after)) => {
            assert_eq!(&text[..before.len()], before);
            assert_eq!(&text[before.len() + 36..], after);
        }
    }
}

#[test]
fn a_request_and_its_answer_pass_with_keep_alive_on_both_sides() {
    const REQUEST: &str = "GET /a HTTP/1.1\r\nHost: orders\r\nX-One: 1\r\nx-request-id: *ID*\r\n\r\n";
    const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Two: 2\r\n\r\nhello";
    let (address, app) = answering(REQUEST, ANSWER);
    let worker = RunningWorker::start(Direction::Outbound, destination(), outbound(Protocol::Http, &[address], None));
    let mut client = worker.connect();
    client.write_all(b"GET /a HTTP/1.1\r\nHost: orders\r\nX-One: 1\r\n\r\n").expect("written");
    expect(&mut client, ANSWER);
    let mut upstream = app.join().expect("the application");
    client.write_all(b"GET /a HTTP/1.1\r\nHost: orders\r\nX-One: 1\r\n\r\n").expect("written");
    expect(&mut upstream, REQUEST);
    upstream.write_all(ANSWER.as_bytes()).expect("written");
    expect(&mut client, ANSWER);
}

#[test]
fn a_chunked_body_is_framed_anew_in_both_directions() {
    let (address, app) = answering(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nx-request-id: *ID*\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\nz\r\n0\r\nX-Sum: 1\r\n\r\n",
    );
    let worker = RunningWorker::start(Direction::Outbound, destination(), outbound(Protocol::Http, &[address], None));
    let mut client = worker.connect();
    client
        .write_all(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n003\r\nabc\r\n2;q\r\nde\r\n0\r\n\r\n",
        )
        .expect("written");
    expect(&mut client, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nz\r\n0\r\nX-Sum: 1\r\n\r\n");
    drop(app.join());
}

#[test]
fn a_refused_endpoint_is_answered_with_the_reason() {
    let (listener, address) = application();
    drop(listener);
    let worker = RunningWorker::start(Direction::Outbound, destination(), outbound(Protocol::Http, &[address], None));
    let mut client = worker.connect();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("written");
    expect(&mut client, "HTTP/1.1 503 Service Unavailable\r\nweft-error: connect\r\n");
}

#[test]
fn nothing_sent_is_tried_once_on_another_endpoint() {
    let (listener, dead) = application();
    drop(listener);
    let (alive, app) =
        answering("GET / HTTP/1.1\r\nHost: a\r\nx-request-id: *ID*\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n");
    let worker =
        RunningWorker::start(Direction::Outbound, destination(), outbound(Protocol::Http, &[dead, alive], None));
    let mut client = worker.connect();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("written");
    expect(&mut client, "HTTP/1.1 204 No Content\r\n\r\n");
    drop(app.join());
}

#[test]
fn bytes_pass_with_half_close() {
    let (listener, address) = application();
    let app = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut all = String::new();
        stream.read_to_string(&mut all).expect("read to the end");
        stream.write_all(all.to_uppercase().as_bytes()).expect("written");
    });
    let worker = RunningWorker::start(Direction::Outbound, destination(), outbound(Protocol::Tcp, &[address], None));
    let mut client = worker.connect();
    client.write_all(b"hello").expect("written");
    client.shutdown(std::net::Shutdown::Write).expect("half-closed");
    let mut all = String::new();
    client.read_to_string(&mut all).expect("read to the end");
    assert_eq!(all, "HELLO");
    app.join().expect("the application");
}

#[test]
fn a_server_that_speaks_first_is_heard_on_an_undeclared_port() {
    let (address, app) = {
        let (listener, address) = application();
        let app = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.write_all(b"220 ready\r\n").expect("written");
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).expect("read");
            assert_eq!(&bytes, b"QUIT");
        });
        (address, app)
    };
    let worker = RunningWorker::start(Direction::Outbound, destination(), outbound(Protocol::Detect, &[address], None));
    let mut client = worker.connect();
    expect(&mut client, "220 ready\r\n");
    client.write_all(b"QUIT").expect("written");
    app.join().expect("the application");
}

#[test]
fn requests_are_recognised_on_an_undeclared_port() {
    let (address, app) = answering(
        "GET / HTTP/1.1\r\nHost: a\r\nx-request-id: *ID*\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    );
    let worker = RunningWorker::start(Direction::Outbound, destination(), outbound(Protocol::Detect, &[address], None));
    let mut client = worker.connect();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("written");
    expect(&mut client, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    drop(app.join());
}

#[test]
fn plaintext_is_refused_on_a_strict_port_and_taken_on_a_permissive_one() {
    let (address, app) = answering("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let strict = inbound(Protocol::Http, InboundTls::Strict, address);
    let worker = RunningWorker::start(Direction::Inbound, destination(), strict);
    let mut client = worker.connect();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("written");
    let mut all = Vec::new();
    let _ = client.read_to_end(&mut all);
    assert!(all.is_empty(), "{:?}", String::from_utf8_lossy(&all));

    let permissive = inbound(Protocol::Http, InboundTls::Permissive, address);
    let worker = RunningWorker::start(Direction::Inbound, destination(), permissive);
    let mut client = worker.connect();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("written");
    expect(&mut client, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    drop(app.join());
}

#[test]
fn two_proxies_speak_mutual_tls_and_the_application_learns_who_calls() {
    use weft_core::names::SpiffeId;
    let root = crate::tls::testing::TestRoot::new();
    let (shop, orders) =
        (SpiffeId::workload("test.local", "default", "shop"), SpiffeId::workload("test.local", "default", "orders"));
    let store = |id: &SpiffeId| {
        let store = std::sync::Arc::new(crate::tls::CredentialStore::new());
        store.publish(root.credentials(id));
        store
    };
    let (application, app) = answering(
        "GET / HTTP/1.1\r\nHost: a\r\nx-request-id: *ID*\r\nx-forwarded-client-cert: URI=spiffe://test.local/ns/default/sa/shop\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let inner = RunningWorker::start_with(
        Direction::Inbound,
        destination(),
        inbound(Protocol::Http, InboundTls::Strict, application),
        store(&orders),
    );
    let outer = RunningWorker::start_with(
        Direction::Outbound,
        destination(),
        outbound(Protocol::Http, &[inner.address], Some(orders)),
        store(&shop),
    );
    let mut client = outer.connect();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("written");
    expect(&mut client, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    drop(app.join());

    let impostor = RunningWorker::start_with(
        Direction::Outbound,
        destination(),
        outbound(Protocol::Http, &[inner.address], Some(shop.clone())),
        store(&shop),
    );
    let mut client = impostor.connect();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("written");
    expect(&mut client, "HTTP/1.1 503 Service Unavailable\r\nweft-error: peer-identity\r\n");
}
