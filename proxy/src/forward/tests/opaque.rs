//! Bytes, and the question whether they are requests.

use std::thread;

use std::sync::Arc;

use super::*;
use crate::forward::tcp::{Carried, tunnel};
use crate::state::Change;
use crate::stream::{Connection, Stream};
use crate::testing::PATIENCE;
use crate::testing::nobody;
use crate::tls::CredentialStore;

#[test]
fn bytes_pass_with_half_close() {
    let application = Application::start();
    let worker = proxy(Protocol::Tcp, &[application.address]);
    let app = thread::spawn(move || {
        let mut stream = application.accept();
        let mut all = String::new();
        stream.read_to_string(&mut all).expect("read to the end");
        send(&mut stream, &all.to_uppercase());
    });
    let mut client = worker.connect();
    send(&mut client, "hello");
    client.shutdown(std::net::Shutdown::Write).expect("half-closed");
    let mut all = String::new();
    client.read_to_string(&mut all).expect("read to the end");
    assert_eq!(all, "HELLO");
    app.join().expect("the application");
}

/// Two ends of a connection, with little room in the kernel from the second to the first.
fn narrow() -> (TcpStream, TcpStream) {
    let application = Application::start();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a size");
    socket.connect(&application.address.into()).expect("connected");
    let far = application.accept();
    socket2::SockRef::from(&far).set_send_buffer_size(4096).expect("a size");
    (socket.into(), far)
}

fn connection(stream: TcpStream) -> Connection {
    stream.set_nonblocking(true).expect("a socket");
    Connection::new(Stream::Plain(tokio::net::TcpStream::from_std(stream).expect("a socket")))
}

#[test]
fn last_words_arrive_though_nobody_listens_to_the_client_any_more() {
    let words = "y".repeat(100_000);
    let (mut client, client_side) = narrow();
    let application = Application::start();
    let upstream_side = TcpStream::connect(application.address).expect("connected");
    let mut upstream = application.accept();
    // Said and closed before anything is carried. More than is carried before the client reads, less than the receiving
    // kernel holds: what the sending one still held would be destroyed by the reset.
    send(&mut upstream, &words);
    drop(upstream);
    let tunnel = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (mut client, mut upstream) = (connection(client_side), connection(upstream_side));
            tunnel(&mut client, &mut upstream, &mut Carried::default(), PATIENCE).await
        })
    });
    // The first byte is answered with a reset, the next cannot be written any more.
    for _ in 0..20 {
        send(&mut client, "z");
        thread::park_timeout(std::time::Duration::from_millis(2));
    }
    expect(&mut client, &words);
    expect_end(&mut client);
    drop(client);
    assert!(tunnel.join().expect("the tunnel").is_err());
}

#[test]
fn an_endless_answer_ends_with_its_client() {
    let application = Application::start();
    let worker = proxy(Protocol::Tcp, &[application.address]);
    let mut client = worker.connect();
    let mut upstream = application.accept();
    send(&mut upstream, "something the client leaves unread");
    send(&mut client, "z");
    expect(&mut upstream, "z");
    // Unread bytes make this a reset.
    drop(client);
    let (bytes, mut answered) = (vec![b'y'; 64 * 1024], 0);
    while let Ok(count) = upstream.write(&bytes) {
        answered += count;
        assert!(answered < 256 * 1024 * 1024, "the answer to a client that has gone is still read");
    }
}

#[test]
fn a_connection_is_tried_on_another_endpoint() {
    let application = Application::start();
    let worker = proxy(Protocol::Tcp, &[nobody(), application.address]);
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut client = worker.connect();
        let mut upstream = application.accept();
        send(&mut upstream, "hello");
        expect(&mut client, "hello");
        streams.push((client, upstream));
    }
}

#[test]
fn a_server_that_speaks_first_is_heard_on_an_undeclared_port() {
    let application = Application::start();
    let worker = proxy(Protocol::Detect, &[application.address]);
    let mut client = worker.connect();
    let mut upstream = application.accept();
    send(&mut upstream, "220 ready\r\n");
    expect(&mut client, "220 ready\r\n");
    // Not a request any more, whatever it looks like.
    send(&mut client, GET);
    expect(&mut upstream, GET);
}

#[test]
fn requests_are_recognised_on_an_undeclared_port() {
    let application = Application::start();
    let worker = proxy(Protocol::Detect, &[application.address]);
    let mut client = worker.connect();
    let mut upstream = application.accept();
    for _ in 0..2 {
        send(&mut client, GET);
        expect(&mut upstream, GET_SENT);
        send(&mut upstream, OK);
        expect(&mut client, OK);
    }
}

#[test]
fn what_is_no_request_passes_as_it_is_on_an_undeclared_port() {
    for text in ["PING\r\n", "GET key\r\n", "\x16\x03\x01", "PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n", "GET / HT"] {
        let application = Application::start();
        let worker = proxy(Protocol::Detect, &[application.address]);
        let mut client = worker.connect();
        let mut upstream = application.accept();
        send(&mut client, text);
        expect(&mut upstream, text);
        client.shutdown(std::net::Shutdown::Write).expect("half-closed");
        expect_end(&mut upstream);
        send(&mut upstream, "+PONG\r\n");
        expect(&mut client, "+PONG\r\n");
    }
}

#[test]
fn an_unreachable_server_of_undeclared_protocol_is_told_to_http_and_closed_to_others() {
    let worker = proxy(Protocol::Detect, &[nobody()]);
    let mut client = worker.connect();
    send(&mut client, GET);
    expect_failure(&mut client, 503, "connect");
    let mut client = worker.connect();
    send(&mut client, "PING\r\n");
    expect_end(&mut client);
    // Waits for a greeting that nobody will send.
    let mut client = worker.connect();
    expect_end(&mut client);
}

#[test]
fn a_connection_of_undeclared_protocol_counts_once() {
    let application = Application::start();
    let worker = proxy(Protocol::Detect, &[application.address]);
    let mut client = worker.connect();
    let mut upstream = application.accept();
    send(&mut client, GET);
    expect(&mut upstream, GET_SENT);
    assert_eq!(worker.run(|worker| worker.drain.open(Direction::Outbound)), 1);
}

#[test]
fn an_address_that_only_services_can_have_is_never_passed_on() {
    // Somebody is there all the same: as another mesh may be, or a network that was forgotten.
    for (networks, is_passed_on) in [("127.0.0.0/8", false), ("none", true), ("10.96.0.0/16", true)] {
        let outside = Application::start();
        let credentials = Arc::new(CredentialStore::new());
        let change = outbound(Protocol::Tcp, &[], None);
        assert_ne!(change, Change::default(), "other services are known");
        let worker =
            RunningWorker::start_tuned(Direction::Outbound, outside.address, change, credentials, move |worker| {
                worker.virtual_networks = networks.parse().expect("networks");
            });
        let mut client = worker.connect();
        if is_passed_on {
            let mut upstream = outside.accept();
            send(&mut client, "bytes");
            expect(&mut upstream, "bytes");
        } else {
            expect_end(&mut client);
            assert!(outside.accept_within(std::time::Duration::ZERO).is_none(), "{networks}");
        }
    }
}
