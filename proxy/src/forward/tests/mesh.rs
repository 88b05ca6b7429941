//! Two proxies and who they are.

use weft_core::model::InboundTls;

use super::*;
use crate::testing::{Pair, inbound};

#[test]
fn plaintext_is_refused_on_a_strict_port_and_taken_on_a_permissive_one() {
    let application = Application::start();
    let start = |tls| {
        RunningWorker::start(Direction::Inbound, destination(), inbound(Protocol::Http, tls, application.address))
    };
    let worker = start(InboundTls::Strict);
    let mut client = worker.connect();
    send(&mut client, GET);
    expect_end(&mut client);
    assert!(application.accept_within(std::time::Duration::ZERO).is_none());

    let worker = start(InboundTls::Permissive);
    let mut client = worker.connect();
    send(&mut client, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET);
    send(&mut upstream, OK);
    expect(&mut client, OK);
}

#[test]
fn two_proxies_speak_mutual_tls_and_the_application_learns_who_calls() {
    let application = Application::start();
    let pair = Pair::start(inbound(Protocol::Http, InboundTls::Strict, application.address));
    let mut client = pair.outer.connect();
    send(&mut client, "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Client-Cert: URI=spiffe://forged\r\n\r\n");
    let mut upstream = application.accept();
    expect(
        &mut upstream,
        "GET / HTTP/1.1\r\nHost: a\r\nx-request-id: *ID*\r\n\
         x-forwarded-client-cert: URI=spiffe://test.local/ns/default/sa/shop\r\n\r\n",
    );
    send(&mut upstream, OK);
    expect(&mut client, OK);

    let impostor = pair.mesh.outer(outbound(Protocol::Http, &[pair.inner.address], Some(pair.mesh.shop.clone())));
    let mut client = impostor.connect();
    send(&mut client, GET);
    expect_failure(&mut client, 503, "peer-identity");
}

#[test]
fn a_cut_answer_stays_cut_through_two_proxies() {
    let application = Application::start();
    let pair = Pair::start(inbound(Protocol::Http, InboundTls::Strict, application.address));
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let mut client = pair.outer.connect();
        send(&mut client, GET);
        let mut upstream = application.accept();
        read_message(&mut BufReader::new(&upstream), false);
        send(&mut upstream, answer);
        expect(&mut client, answer);
        drop(upstream);
        expect_end(&mut client);
    }
}

#[test]
fn a_new_certificate_of_the_server_costs_its_earlier_sessions_and_no_connection() {
    let application = Application::start();
    let pair = Pair::start(inbound(Protocol::Tcp, InboundTls::Strict, application.address));
    let meet = || {
        let mut client = pair.outer.connect();
        send(&mut client, "hello");
        let mut upstream = application.accept();
        expect(&mut upstream, "hello");
        send(&mut upstream, "welcome");
        expect(&mut client, "welcome");
        drop((client, upstream));
    };
    // The second shows a ticket, and gets another.
    meet();
    meet();
    let credentials = pair.mesh.renewed(&pair.mesh.orders);
    pair.inner.run(|worker| {
        worker.credentials.publish(credentials);
    });
    meet();
    meet();
    assert!(application.accept_within(std::time::Duration::ZERO).is_none(), "a refused connection was forwarded");
}
