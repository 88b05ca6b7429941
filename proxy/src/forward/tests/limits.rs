//! Limits, what a client is told about them, and what is counted.

use std::sync::{Arc, LazyLock};

use weft_core::model::InboundTls;

use super::*;
use crate::telemetry::{Gauges, Registry};
use crate::testing::{Mesh, Pair, inbound};
use crate::tls::CredentialStore;
use crate::worker::Worker;

/// The signals of all workers that start after it was first asked for.
static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    let registry = Registry::default();
    assert!(registry.install(), "another test has a recorder for the whole process");
    registry
});

fn tuned(tune: impl FnOnce(&mut Worker) + Send + 'static) -> (RunningWorker, Application) {
    let application = Application::start();
    let change = outbound(Protocol::Http, &[application.address], None);
    let credentials = Arc::new(CredentialStore::new());
    (RunningWorker::start_tuned(Direction::Outbound, destination(), change, credentials, tune), application)
}

/// `GET /` with so many fields.
fn fields(count: usize) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1))
}

#[test]
fn a_refusal_names_the_limit_the_value_and_the_proxy() {
    let (worker, _application) = tuned(|worker| {
        worker.limits.fields = 10;
        worker.limits.target_bytes = 300;
        worker.limits.head_bytes = 2000;
        worker.workload = "shop/web".to_owned();
    });
    let table = [
        (fields(11), 431, "too-many-fields", "limit 10, found 11"),
        (fields(300), 431, "too-many-fields", "limit 10, found about 300"),
        (
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(300)),
            414,
            "target-too-long",
            "limit 300 bytes, found 301",
        ),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(40_000)), 414, "target-too-long", "limit 300 bytes"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(1969)), 431, "head-too-large", "found 2001"),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(3000)),
            431,
            "head-too-large",
            "limit 2000 bytes, found",
        ),
    ];
    for (request, status, code, told) in table {
        let mut client = worker.connect();
        send(&mut client, &request);
        let (head, body) = read_message(&mut BufReader::new(&client), false);
        let body = String::from_utf8(body).expect("text");
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}{body}");
        assert!(head.contains(&format!("weft-error: {code}\r\n")), "{head}{body}");
        assert!(body.contains(told) && body.contains("the outbound proxy of shop/web"), "{body}");
    }
}

#[test]
fn what_is_within_the_limits_passes_the_whole_mesh() {
    let application = Application::start();
    let pair = Pair::start(inbound(Protocol::Http, InboundTls::Strict, application.address));
    let mut client = pair.outer.connect();
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024 - 32));
    assert_eq!(long.len(), 64 * 1024);
    let mut upstream = None;
    for request in [fields(200), long] {
        send(&mut client, &request);
        let upstream = upstream.get_or_insert_with(|| application.accept());
        let (head, _) = read_message(&mut BufReader::new(&*upstream), false);
        assert!(head.len() > request.len() && head.contains("x-forwarded-client-cert"), "{}", head.len());
        send(upstream, OK);
        expect(&mut client, OK);
    }
    send(&mut client, &fields(201));
    expect_failure(&mut client, 431, "too-many-fields");
}

#[test]
fn an_answer_with_as_many_fields_as_allowed_passes_the_whole_mesh() {
    let application = Application::start();
    let pair = Pair::start(inbound(Protocol::Http, InboundTls::Strict, application.address));
    let mut client = pair.outer.connect();
    send(&mut client, "GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let mut upstream = application.accept();
    read_message(&mut BufReader::new(&upstream), false);
    send(&mut upstream, &format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{}\r\n", "X: y\r\n".repeat(199)));
    let (head, _) = read_message(&mut BufReader::new(&client), false);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
}

#[test]
fn over_the_limit_of_buffered_bytes_what_is_new_is_refused() {
    let (worker, application) = tuned(|worker| worker.limits.buffered_bytes = crate::stream::SMALL);
    let mut client = worker.connect();
    send(&mut client, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET_SENT);
    send(&mut upstream, OK);
    expect(&mut client, OK);
    // Half a head is held, another request comes: together they are over.
    let mut slow = worker.connect();
    send(&mut slow, "GET / HT");
    worker.wait_until("half a head is held", |_| crate::stream::buffered() > 0);
    send(&mut client, GET);
    expect_failure(&mut client, 503, "over-limit");
    // And with two of them, a new connection is not taken.
    let mut slower = worker.connect();
    send(&mut slower, "GET / HT");
    worker.wait_until("two halves are held", |_| crate::stream::buffered() > crate::stream::SMALL);
    expect_end(&mut worker.connect());
    // What is held goes on.
    send(&mut slow, "TP/1.1\r\nHost: a\r\n");
    drop(slower);
    worker.wait_until("one is gone", |_| crate::stream::buffered() <= crate::stream::SMALL);
    send(&mut slow, "\r\n");
    expect(&mut upstream, GET_SENT);
}

#[test]
fn a_handshake_counts_as_a_connection() {
    let application = Application::start();
    let inner = Mesh::new().inner(inbound(Protocol::Http, InboundTls::Strict, application.address));
    let silent = inner.connect();
    inner.wait_until("the handshake counts", |worker| worker.drain.open(Direction::Inbound) == 1);
    drop(silent);
    inner.wait_until("its end does too", |worker| worker.drain.open(Direction::Inbound) == 0);
}

#[test]
fn refusals_before_routing_are_counted_for_their_service() {
    LazyLock::force(&REGISTRY);
    let application = Application::start();
    let mut change = outbound(Protocol::Http, &[application.address], None);
    change.clusters[0].service.name = "counted".into();
    change.routes[0].virtual_hosts[0].domains = vec!["known".to_owned()];
    let credentials = Arc::new(CredentialStore::new());
    let worker = RunningWorker::start_tuned(Direction::Outbound, destination(), change, credentials, |worker| {
        worker.timeouts.head = std::time::Duration::from_millis(50);
    });
    let table = [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, "bad-request"),
        ("GET / HTTP/1.1\r\nHost: unknown\r\n\r\n".to_owned(), 404, "no-route"),
        ("CONNECT known:80 HTTP/1.1\r\nHost: known\r\n\r\n".to_owned(), 405, "connect-not-allowed"),
        ("GET / HTTP/1.1\r\n".to_owned(), 408, "client-timeout"),
        (format!("GET /{} HTTP/1.1\r\nHost: known\r\n\r\n", "x".repeat(9000)), 414, "target-too-long"),
        (fields(201), 431, "too-many-fields"),
    ];
    let count = table.len();
    for (request, status, code) in table {
        let mut client = worker.connect();
        send(&mut client, &request);
        expect_failure(&mut client, status, code);
        let labels = format!(
            "{{direction=\"outbound\",source=\"default/tester\",destination=\"default/counted:80\",code=\"{code}\"}}"
        );
        let text = REGISTRY.render(&Gauges::default());
        assert!(text.contains(&format!("weft_failures_total{labels} 1\n")), "{code}: {text}");
    }
    let requests =
        "weft_requests_total{direction=\"outbound\",source=\"default/tester\",destination=\"default/counted:80\"";
    let text = REGISTRY.render(&Gauges::default());
    assert!(text.contains(&format!("{requests},code_class=\"4xx\"}} {count}\n")), "{text}");
}

/// A head in the smallest pieces costs no more than its length: parsed with every byte, this would take minutes.
#[test]
fn a_long_head_that_comes_byte_by_byte_passes() {
    let (worker, application) = proxied();
    let mut client = worker.connect();
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let empty_lines = "\r\n".repeat(500);
    for byte in empty_lines.bytes().chain(head.bytes()) {
        client.write_all(&[byte]).expect("written");
    }
    let mut upstream = application.accept();
    let (seen, _) = read_message(&mut BufReader::new(&upstream), false);
    assert!(seen.starts_with(head.trim_end()), "{}", seen.len());
    send(&mut upstream, OK);
    expect(&mut client, OK);
}
