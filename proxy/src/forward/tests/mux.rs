//! Requests of HTTP/1 between two proxies: many connections inside one.

use weft_core::model::InboundTls;

use super::*;
use crate::testing::{Pair, inbound};

const CALL: &str = "POST / HTTP/1.1\r\nHost: a\r\nx-request-id: ID\r\nContent-Length: 3\r\n\r\nabc";

fn pair() -> (Pair, Application) {
    let application = Application::start();
    (Pair::start(inbound(Protocol::Http, InboundTls::Strict, application.address)), application)
}

/// Reads one request and answers it.
fn answer(upstream: &mut TcpStream) -> (String, Vec<u8>) {
    let asked = read_message(&mut BufReader::new(&*upstream), false);
    send(upstream, OK);
    asked
}

#[test]
fn requests_under_way_at_once_share_one_connection_between_the_proxies() {
    let (pair, application) = pair();
    let mut calls: Vec<_> = (0..20)
        .map(|_| {
            let mut client = pair.outer.connect();
            send(&mut client, CALL);
            let upstream = application.accept();
            (client, upstream)
        })
        .collect();
    assert_eq!(pair.outer.run(|worker| worker.pool.shared()), 1);
    for (client, upstream) in &mut calls {
        let (head, body) = answer(upstream);
        assert!(head.starts_with("POST / HTTP/1.1\r\nHost: a\r\nx-request-id: ID\r\n"), "{head}");
        assert_eq!(body, b"abc");
        expect(client, OK);
    }
    // Again over what is there: nothing is opened.
    for (client, _) in &mut calls {
        send(client, CALL);
    }
    for (_, upstream) in &mut calls {
        answer(upstream);
    }
    for (client, _) in &mut calls {
        expect(client, OK);
    }
    assert_eq!(pair.outer.run(|worker| worker.pool.shared()), 1);
    assert_eq!(pair.outer.run(|worker| worker.pool.streams()), 20);
}

#[test]
fn readers_that_stop_do_not_stop_the_others() {
    const LONG: usize = 8 * 1024 * 1024;
    let (pair, application) = pair();
    let mut stopped = Vec::new();
    for _ in 0..6 {
        let mut client = pair.outer.connect();
        send(&mut client, CALL);
        let mut upstream = application.accept();
        read_message(&mut BufReader::new(&upstream), false);
        let writer = std::thread::spawn(move || {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n");
            upstream.write_all(head.as_bytes()).and_then(|()| upstream.write_all(&vec![7; LONG]))
        });
        // It has begun, and is not read on.
        expect(&mut client, "HTTP/1.1 200 OK\r\n");
        stopped.push((client, writer));
    }
    let mut client = pair.outer.connect();
    for _ in 0..50 {
        send(&mut client, CALL);
        let mut upstream = application.accept();
        answer(&mut upstream);
        expect(&mut client, OK);
        // So that each time another one is opened behind the inner proxy.
        drop(upstream);
        pair.inner.wait_until("the application's end was seen", |worker| worker.pool.usable() == 0);
    }
    for (client, writer) in stopped {
        let mut reader = BufReader::new(client);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).expect("a line");
        }
        let mut body = vec![0; LONG];
        reader.read_exact(&mut body).expect("a whole body");
        assert!(body.iter().all(|&byte| byte == 7));
        writer.join().expect("a writer").expect("all written");
    }
}

#[test]
fn a_draining_proxy_loses_no_request_that_cannot_be_repeated() {
    let (pair, application) = pair();
    let mut client = pair.outer.connect();
    send(&mut client, CALL);
    let mut upstream = application.accept();
    answer(&mut upstream);
    expect(&mut client, OK);
    pair.inner.run(|worker| worker.drain.begin(Direction::Inbound));
    // Whether the caller's proxy has heard of it already or not.
    for _ in 0..3 {
        send(&mut client, CALL);
        let mut upstream = application
            .accept_within(std::time::Duration::ZERO)
            .unwrap_or_else(|| upstream.try_clone().expect("a socket"));
        answer(&mut upstream);
        expect(&mut client, OK);
    }
}

#[test]
fn connections_of_an_earlier_certificate_take_nothing_new() {
    let (pair, application) = pair();
    let mut first = pair.outer.connect();
    send(&mut first, CALL);
    let mut upstream = application.accept();
    let credentials = pair.mesh.renewed(&pair.mesh.shop);
    pair.outer.run(|worker| {
        worker.credentials.publish(credentials);
    });
    let mut second = pair.outer.connect();
    send(&mut second, CALL);
    let mut other = application.accept();
    answer(&mut other);
    expect(&mut second, OK);
    assert_eq!(pair.outer.run(|worker| worker.pool.shared()), 1, "the earlier one is out of the pool");
    // What was under way comes to its end.
    answer(&mut upstream);
    expect(&mut first, OK);
}
