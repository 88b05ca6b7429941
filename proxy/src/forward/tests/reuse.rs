//! Upstream connections that idle, and what becomes of them.

use super::*;
use crate::testing::Mesh;

/// One exchange through both, after which the upstream connection idles.
fn idle() -> (RunningWorker, Application, TcpStream, TcpStream) {
    let (worker, application) = proxied();
    let mut client = worker.connect();
    send(&mut client, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET_SENT);
    send(&mut upstream, OK);
    expect(&mut client, OK);
    worker.wait_until("the connection idles", |worker| worker.pool.usable() == 1);
    (worker, application, client, upstream)
}

/// The worker has seen what the idle connections' peers did.
pub(super) fn wait_until_noticed(worker: &RunningWorker) {
    worker.wait_until("no idle connection can be used", |worker| worker.pool.usable() == 0);
}

#[test]
fn a_request_on_a_connection_known_to_be_closed_gets_a_new_one() {
    let (worker, application, mut client, upstream) = idle();
    drop(upstream);
    wait_until_noticed(&worker);
    send(&mut client, POST);
    let mut second = application.accept();
    expect(&mut second, POST_SENT);
    send(&mut second, OK);
    expect(&mut client, OK);
}

#[test]
fn a_get_that_meets_a_closing_connection_is_sent_again() {
    let (_worker, application, mut client, mut upstream) = idle();
    send(&mut client, GET);
    expect(&mut upstream, GET_SENT);
    drop(upstream);
    let mut second = application.accept();
    expect(&mut second, GET_SENT);
    send(&mut second, OK);
    expect(&mut client, OK);
}

#[test]
fn what_may_act_twice_is_not_sent_twice() {
    let table = [
        POST,
        "POST / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PATCH / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ];
    for request in table {
        let (_worker, application, mut client, mut upstream) = idle();
        send(&mut client, request);
        let mut first = [0; 1];
        upstream.read_exact(&mut first).expect("the request comes");
        drop(upstream);
        expect_failure(&mut client, 503, "upstream-closed");
        assert!(application.accept_within(std::time::Duration::ZERO).is_none(), "sent twice: {request:?}");
    }
}

#[test]
fn a_get_whose_answer_has_begun_is_not_sent_again() {
    let (_worker, application, mut client, mut upstream) = idle();
    send(&mut client, GET);
    expect(&mut upstream, GET_SENT);
    send(&mut upstream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no");
    expect(&mut client, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no");
    drop(upstream);
    expect_end(&mut client);
    assert!(application.accept_within(std::time::Duration::ZERO).is_none());
}

#[test]
fn an_upstream_that_says_close_is_not_used_again() {
    for answer in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ] {
        let (_worker, application, mut client, mut upstream) = idle();
        send(&mut client, GET);
        expect(&mut upstream, GET_SENT);
        send(&mut upstream, answer);
        expect(&mut client, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        expect_end(&mut upstream);
        send(&mut client, POST);
        expect(&mut application.accept(), POST_SENT);
    }
}

#[test]
fn a_connection_from_before_the_mesh_is_not_used_within_it() {
    let mesh = Mesh::new();
    let application = Application::start();
    let worker = mesh.outer(outbound(Protocol::Http, &[application.address], None));
    let mut client = worker.connect();
    send(&mut client, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET_SENT);
    send(&mut upstream, OK);
    expect(&mut client, OK);
    worker.store.apply(outbound(Protocol::Http, &[application.address], Some(mesh.orders.clone())));
    send(&mut client, GET);
    let mut second = application.accept();
    let mut first = [0; 1];
    second.read_exact(&mut first).expect("readable");
    assert_eq!(first, [22], "not a TLS handshake");
    worker.run(|worker| worker.pool.clear());
    expect_end(&mut upstream);
}

#[test]
fn an_ended_connection_is_noticed_however_many_were_looked_at() {
    let (worker, _application, _client, upstream) = idle();
    drop(upstream);
    wait_until_noticed(&worker);
    // More looks in one turn than the runtime gives a task.
    let quiet = worker.run(|worker| (0..1000).filter(|_| worker.pool.usable() > 0).count());
    assert_eq!(quiet, 0);
}

#[test]
fn a_connection_that_idles_owns_no_buffer() {
    let (worker, _application, client, upstream) = idle();
    assert_eq!(worker.run(|_| crate::stream::lent()), 0);
    drop((client, upstream));
}
