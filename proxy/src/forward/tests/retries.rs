//! Second tries on other endpoints.

use std::thread;

use super::*;
use crate::testing::{Mesh, inbound, nobody};
use weft_core::model::InboundTls;

#[test]
fn a_refused_endpoint_is_answered_with_the_reason() {
    let worker = proxy(Protocol::Http, &[nobody()]);
    let mut client = worker.connect();
    send(&mut client, GET);
    expect_failure(&mut client, 503, "connect");
    // Nothing was wrong with the client's side: it stays.
    send(&mut client, POST);
    expect_failure(&mut client, 503, "connect");
    expect_end(&mut client);
}

#[test]
fn nothing_sent_is_tried_on_another_endpoint() {
    let application = Application::start();
    let worker = proxy(Protocol::Http, &[nobody(), application.address]);
    let mut client = worker.connect();
    send(&mut client, POST);
    let mut upstream = application.accept();
    for _ in 0..4 {
        expect(&mut upstream, POST_SENT);
        send(&mut upstream, OK);
        expect(&mut client, OK);
        send(&mut client, POST);
    }
}

#[test]
fn what_nobody_has_seen_finds_the_one_endpoint_of_five_that_is_left() {
    // Chance is the same in each proxy of a test: the one is at every place.
    for place in 0..5 {
        let application = Application::start();
        let mut endpoints = vec![nobody(), nobody(), nobody(), nobody()];
        endpoints.insert(place, application.address);
        let worker = proxy(Protocol::Http, &endpoints);
        let mut client = worker.connect();
        send(&mut client, POST);
        let mut upstream = application.accept();
        expect(&mut upstream, POST_SENT);
        send(&mut upstream, OK);
        expect(&mut client, OK);
    }
}

#[test]
fn no_endpoints_is_told_apart() {
    let worker = proxy(Protocol::Http, &[]);
    let mut client = worker.connect();
    send(&mut client, GET);
    expect_failure(&mut client, 503, "no-endpoints");
}

#[test]
fn an_application_that_is_down_is_passed_over_for_one_that_is_up() {
    let mesh = Mesh::new();
    let application = Application::start();
    let down = mesh.inner(inbound(Protocol::Http, InboundTls::Strict, nobody()));
    let up = mesh.inner(inbound(Protocol::Http, InboundTls::Strict, application.address));
    let worker = mesh.outer(outbound(Protocol::Http, &[down.address, up.address], Some(mesh.orders.clone())));
    let app = thread::spawn(move || {
        let mut stream = application.accept();
        let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
        for _ in 0..20 {
            let (head, _) = read_message(&mut reader, false);
            assert!(head.starts_with("POST "), "{head}");
            send(&mut stream, OK);
        }
    });
    let mut client = worker.connect();
    for _ in 0..20 {
        // Nothing but a head: it can be sent again, whatever its method.
        send(&mut client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        expect(&mut client, OK);
    }
    app.join().expect("the application");
}

#[test]
fn an_application_that_is_down_everywhere_is_named() {
    let mesh = Mesh::new();
    let down = mesh.inner(inbound(Protocol::Http, InboundTls::Strict, nobody()));
    let worker = mesh.outer(outbound(Protocol::Http, &[down.address], Some(mesh.orders.clone())));
    let mut client = worker.connect();
    send(&mut client, GET);
    expect_failure(&mut client, 503, "application-unreachable");
}

#[test]
fn only_a_proxy_of_ours_may_say_that_nothing_was_sent() {
    let (first, second) = (Application::start(), Application::start());
    let worker = proxy(Protocol::Http, &[first.address, second.address]);
    let mut client = worker.connect();
    send(&mut client, GET);
    let limit = std::time::Duration::from_millis(200);
    let (mut upstream, other) = loop {
        match (first.accept_within(limit), second.accept_within(limit)) {
            (Some(upstream), None) => break (upstream, &second),
            (None, Some(upstream)) => break (upstream, &first),
            (None, None) => {}
            (Some(_), Some(_)) => panic!("both were asked"),
        }
    };
    expect(&mut upstream, GET_SENT);
    send(&mut upstream, "HTTP/1.1 503 No\r\nweft-error: application-unreachable\r\nContent-Length: 0\r\n\r\n");
    // Neither believed nor passed on.
    expect(&mut client, "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n");
    assert!(other.accept_within(std::time::Duration::ZERO).is_none());
}
