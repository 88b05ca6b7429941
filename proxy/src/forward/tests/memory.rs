//! What is remembered of undeclared ports, and that a wrong memory harms no connection.

use std::time::Duration;

use weft_core::detection::Verdict::{self, ClientFirst, Http1, Http2, ServerFirst, Tls};
use weft_core::model::InboundTls;

use super::*;
use crate::testing::{Mesh, inbound};

const PREFACE_AND_SETTINGS: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const SETTINGS: &str = "\0\0\0\x04\0\0\0\0\0";
/// As long as the proxy holds back what may become a request line, where it does.
const HELD_BACK: Duration = Duration::from_millis(100);

/// A worker that was told what its port speaks, and the application behind it.
fn told(hint: Option<Verdict>) -> (RunningWorker, Application) {
    let application = Application::start();
    let mut change = outbound(Protocol::Detect, &[application.address], None);
    change.listeners[0].detected = hint;
    (RunningWorker::start(Direction::Outbound, destination(), change), application)
}

/// What a worker believes of its port.
fn believed(worker: &RunningWorker) -> Option<Verdict> {
    let snapshot = worker.store.load();
    let listener = snapshot.listener(Direction::Outbound, destination())?;
    listener.detection.as_ref()?.belief().verdict()
}

/// Waits until a worker believes this of its port, where that must come; looks once where nothing must.
#[track_caller]
fn wait_for(worker: &RunningWorker, expected: Option<Verdict>) {
    let deadline = crate::clock::now() + crate::testing::PATIENCE;
    while expected.is_some() && believed(worker).is_none() && crate::clock::now() < deadline {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    assert_eq!(believed(worker), expected);
}

/// A client whose first words are there when its connection is taken: its worker makes it.
fn prompt_client(worker: &RunningWorker, words: &'static str) -> TcpStream {
    let address = worker.address;
    worker.run(move |_| {
        let mut stream = TcpStream::connect(address).expect("the worker listens");
        stream.set_read_timeout(Some(crate::testing::PATIENCE)).expect("a timeout");
        send(&mut stream, words);
        stream
    })
}

#[test]
fn what_is_seen_on_a_port_is_remembered() {
    let cases: [(&str, &str, Option<Verdict>); 7] = [
        (GET, "", Some(Http1)),
        (PREFACE_AND_SETTINGS, "", Some(Http2)),
        ("*1\r\n$4\r\nPING\r\n", "", Some(ClientFirst)),
        ("\x16\x03\x01", "", Some(Tls)),
        ("", "220 ready\r\n", Some(ServerFirst)),
        // Proves nothing: a slow client, or a server that is tired of waiting.
        ("GET / HT", "", None),
        ("", "HTTP/1.1 408 Request Timeout\r\n\r\n", None),
    ];
    for (client_says, server_says, expected) in cases {
        let (worker, application) = told(None);
        let mut client = worker.connect();
        send(&mut client, client_says);
        let mut upstream = application.accept();
        send(&mut upstream, server_says);
        if !server_says.is_empty() {
            expect(&mut client, server_says);
        } else if expected.is_none() {
            expect(&mut upstream, client_says);
        }
        wait_for(&worker, expected);
    }
}

#[test]
fn where_requests_are_expected_a_kept_connection_carries_the_next_clients_first() {
    let (worker, application) = told(Some(Http1));
    let mut client = prompt_client(&worker, GET);
    let mut upstream = application.accept();
    for _ in 0..3 {
        expect(&mut upstream, GET_SENT);
        send(&mut upstream, OK);
        expect(&mut client, OK);
        client = prompt_client(&worker, GET);
    }
    expect(&mut upstream, GET_SENT);
    assert!(application.accept_within(Duration::ZERO).is_none(), "dialled before the request was read");
}

#[test]
fn a_server_that_speaks_first_is_heard_and_believed_where_requests_were_expected() {
    let (worker, application) = told(Some(Http1));
    let mut client = worker.connect();
    let mut upstream = application.accept();
    send(&mut upstream, "220 ready\r\n");
    expect(&mut client, "220 ready\r\n");
    assert_eq!(believed(&worker), Some(ServerFirst));
    send(&mut client, "QUIT\r\n");
    expect(&mut upstream, "QUIT\r\n");
}

#[test]
fn a_half_closed_client_still_hears_its_server_where_requests_were_expected() {
    let (worker, application) = told(Some(Http1));
    let mut client = worker.connect();
    client.shutdown(std::net::Shutdown::Write).expect("half-closed");
    let mut upstream = application.accept();
    expect_end(&mut upstream);
    send(&mut upstream, "220 ready\r\n");
    expect(&mut client, "220 ready\r\n");
}

#[test]
fn bytes_pass_where_requests_were_expected_and_three_in_a_row_correct_the_memory() {
    let (worker, application) = told(Some(Http1));
    for expected in [Http1, Http1, ClientFirst] {
        let mut client = worker.connect();
        send(&mut client, "PING\r\n");
        let mut upstream = application.accept();
        expect(&mut upstream, "PING\r\n");
        send(&mut upstream, "+PONG\r\n");
        expect(&mut client, "+PONG\r\n");
        assert_eq!(believed(&worker), Some(expected));
    }
}

#[test]
fn requests_are_recognised_where_bytes_were_expected() {
    for hint in [ServerFirst, ClientFirst, Tls] {
        let (worker, application) = told(Some(hint));
        let mut client = worker.connect();
        send(&mut client, GET);
        let mut upstream = application.accept();
        expect(&mut upstream, GET_SENT);
        send(&mut upstream, OK);
        expect(&mut client, OK);
    }
}

#[test]
fn nothing_is_held_back_where_bytes_are_expected() {
    let (worker, application) = told(Some(ClientFirst));
    // The fastest of some: a busy machine adds to all of them, a wait of ours would too.
    let fastest = (0..20).map(|_| {
        let mut client = worker.connect();
        let mut upstream = application.accept();
        let begin = crate::clock::now();
        send(&mut client, "GE");
        expect(&mut upstream, "GE");
        crate::clock::now() - begin
    });
    assert!(fastest.min().is_some_and(|fastest| fastest < HELD_BACK));
    assert_eq!(believed(&worker), Some(ClientFirst));
}

#[test]
fn a_server_of_http2_may_speak_before_its_client() {
    for hint in [None, Some(Http1), Some(Http2)] {
        // What the server says is held for a while; on a busy machine the client may be later than that.
        let is_recognised = (0..20).any(|_| {
            let (worker, application) = told(hint);
            let mut client = worker.connect();
            let mut upstream = application.accept();
            send(&mut upstream, SETTINGS);
            for _ in 0..50 {
                if worker.run(|_| crate::stream::buffered()) > 0 {
                    break;
                }
                std::thread::park_timeout(Duration::from_millis(1));
            }
            send(&mut client, PREFACE_AND_SETTINGS);
            let mut length = [0; 3];
            client.read_exact(&mut length).expect("settings come");
            // Ours are not empty: HTTP/2 is served and not carried.
            length != [0; 3] && believed(&worker).is_some_and(Verdict::is_http)
        });
        assert!(is_recognised, "{hint:?}");
    }
}

#[test]
fn a_server_of_http2_with_a_silent_client_is_still_heard() {
    let (worker, application) = told(None);
    let mut client = worker.connect();
    let mut upstream = application.accept();
    send(&mut upstream, SETTINGS);
    expect(&mut client, SETTINGS);
}

#[test]
fn the_memory_outlives_changes_and_ends_with_a_declaration() {
    let (worker, application) = told(None);
    let mut client = worker.connect();
    let mut upstream = application.accept();
    send(&mut upstream, "220 ready\r\n");
    expect(&mut client, "220 ready\r\n");
    let change = |protocol, hint| {
        let mut change = outbound(protocol, &[application.address], None);
        change.listeners[0].detected = hint;
        worker.store.apply(change);
    };
    change(Protocol::Detect, Some(Http1));
    assert_eq!(believed(&worker), Some(ServerFirst), "what was seen here counts more than what is heard");
    change(Protocol::Http, Some(Http1));
    assert_eq!(believed(&worker), None);
    change(Protocol::Detect, Some(Tls));
    assert_eq!(believed(&worker), Some(Tls));
}

#[test]
fn a_declaration_wins_over_a_caller_that_has_not_heard_of_it() {
    let application = Application::start();
    let mesh = Mesh::new();
    let inner = mesh.inner(inbound(Protocol::Http, InboundTls::Strict, application.address));
    let outer = mesh.outer(outbound(Protocol::Detect, &[inner.address], Some(mesh.orders.clone())));
    let mut client = outer.connect();
    send(&mut client, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let mut upstream = application.accept();
    upstream.read_exact(&mut [0]).expect("the request comes");
    send(&mut upstream, OK);
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("the answer comes and the end");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn what_an_inbound_port_turns_out_to_speak_is_told_on() {
    let application = Application::start();
    let mesh = Mesh::new();
    let inner = mesh.inner(inbound(Protocol::Detect, InboundTls::Strict, application.address));
    let outer = mesh.outer(outbound(Protocol::Detect, &[inner.address], Some(mesh.orders.clone())));
    let mut client = outer.connect();
    let mut upstream = application.accept();
    send(&mut upstream, "220 ready\r\n");
    expect(&mut client, "220 ready\r\n");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let told = |worker: &RunningWorker| {
        runtime.block_on(async { tokio::time::timeout(Duration::ZERO, worker.store.seen.notified()).await.is_ok() })
    };
    assert!(told(&inner), "nobody was told");
    assert!(!told(&outer), "what a caller saw of others is not its to tell");
}
