//! Draining: goodbye is said twice, streams finish, and one direction leaves the other alone.

use std::sync::Arc;
use std::time::Duration;

use h2::Reason;
use tokio::sync::Notify;

use super::peer::{ok, whole};
use super::*;

fn drain(worker: &RunningWorker, direction: Direction) {
    worker.run(move |worker| worker.drain.begin(direction));
}

/// An application that answers when it is told to.
fn patient() -> (Application2, Arc<Notify>) {
    let go_on = Arc::new(Notify::new());
    let told = Arc::clone(&go_on);
    let application = Application2::start(move |request, respond| {
        let told = Arc::clone(&told);
        async move {
            told.notified().await;
            ok(request, respond).await;
        }
    });
    (application, go_on)
}

#[test]
fn an_idle_connection_ends_and_streams_under_way_finish() {
    let (application, go_on) = patient();
    let proxy = before(UpstreamProtocol::Http2, &[application.address]);
    block_on(async {
        let mut idle = Client2::connect(proxy.address).await;
        go_on.notify_one();
        assert_eq!(idle.exchange(get(), b"").await.body, b"ok");
        let mut active = Client2::connect(proxy.address).await;
        let (answer, _) = active.ask(get(), true).await;
        proxy.wait_until("the request is under way", |worker| worker.pool.streams() == 1);
        drain(&proxy, Direction::Outbound);
        idle.ended.await.expect("an end").expect("a clean end");
        proxy.wait_until("one is left", |worker| worker.drain.open(Direction::Outbound) == 1);
        go_on.notify_one();
        assert_eq!(whole(answer.await.expect("an answer")).await.body, b"ok");
        active.ended.await.expect("an end").expect("a clean end");
    });
    proxy.wait_until("no connection is open", |worker| worker.drain.open(Direction::Outbound) == 0);
}

#[test]
fn what_was_asked_before_the_client_could_know_is_answered() {
    let application = Application2::start(ok);
    let proxy = before(UpstreamProtocol::Http2, &[application.address]);
    // Draining before the first request: its client has not heard of it.
    drain(&proxy, Direction::Outbound);
    block_on(async {
        for _ in 0..20 {
            let mut client = Client2::connect(proxy.address).await;
            assert_eq!(client.exchange(get(), b"").await.body, b"ok");
            client.ended.await.expect("an end").expect("a clean end");
        }
    });
}

#[test]
fn a_draining_inbound_never_ends_outbound_streams() {
    let (application, go_on) = patient();
    let proxy = before(UpstreamProtocol::Http2, &[application.address]);
    block_on(async {
        let mut client = Client2::connect(proxy.address).await;
        let (answer, _) = client.ask(get(), true).await;
        proxy.wait_until("the request is under way", |worker| worker.pool.streams() == 1);
        drain(&proxy, Direction::Inbound);
        go_on.notify_one();
        assert_eq!(whole(answer.await.expect("an answer")).await.body, b"ok");
        go_on.notify_one();
        assert_eq!(client.exchange(get(), b"").await.body, b"ok");
        assert!(!client.ended.is_finished());
    });
}

#[test]
fn a_draining_proxy_of_the_callee_loses_none_of_its_callers_requests() {
    let application = Application2::start(peer::echo_whole);
    let pair = pair_before(UpstreamProtocol::Http2, application.address);
    block_on(async {
        let mut client = Client2::connect(pair.outer.address).await;
        assert_eq!(client.exchange(post(), b"abc").await.body, b"abc");
        drain(&pair.inner, Direction::Inbound);
        for _ in 0..20 {
            assert_eq!(client.exchange(post(), b"abc").await.body, b"abc");
        }
    });
}

#[test]
fn a_connection_without_requests_is_ended_after_a_while() {
    let application = Application2::start(ok);
    let change = speaking(UpstreamProtocol::Http2, outbound(Protocol::Http, &[application.address], None));
    let proxy = RunningWorker::start_tuned(
        Direction::Outbound,
        destination(),
        change,
        Arc::new(crate::tls::CredentialStore::new()),
        |worker| worker.timeouts.client_idle = Duration::from_secs(1),
    );
    block_on(async {
        let mut client = Client2::connect(proxy.address).await;
        assert_eq!(client.exchange(get(), b"").await.body, b"ok");
        client.ended.await.expect("an end").expect("a clean end");
    });
    proxy.wait_until("no connection is open", |worker| worker.drain.open(Direction::Outbound) == 0);
}

#[test]
fn an_answer_that_takes_longer_than_its_route_allows_is_a_504_or_a_reset() {
    let (application, _go_on) = patient();
    let limited = |address| {
        let mut change = speaking(UpstreamProtocol::Http2, outbound(Protocol::Http, &[address], None));
        change.routes[0].virtual_hosts[0].routes[0].timeout = Some(Duration::from_millis(50));
        RunningWorker::start(Direction::Outbound, destination(), change)
    };
    let proxy = limited(application.address);
    block_on(async {
        let answer = Client2::connect(proxy.address).await.exchange(get(), b"").await;
        assert_eq!((answer.head.status.as_u16(), answer.header("weft-error")), (504, Some("request-timeout")));
    });
    let application = Application2::start(|_, mut respond| async move {
        let _stream = respond.send_response(Response::new(()), false).expect("a client");
        std::future::pending::<()>().await;
    });
    let proxy = limited(application.address);
    block_on(async {
        let mut client = Client2::connect(proxy.address).await;
        let (answer, _) = client.ask(get(), true).await;
        let answer = peer::try_whole(answer.await.expect("a head")).await;
        assert_eq!(answer.expect_err("no whole answer").reason(), Some(Reason::CANCEL));
    });
}

#[test]
fn a_request_that_stands_still_is_ended_and_one_that_moves_is_not() {
    let start = |application| {
        let change = speaking(UpstreamProtocol::Http2, outbound(Protocol::Http, &[application], None));
        RunningWorker::start_tuned(
            Direction::Outbound,
            destination(),
            change,
            Arc::new(crate::tls::CredentialStore::new()),
            |worker| worker.timeouts.stream_idle = Duration::from_millis(250),
        )
    };
    let (application, _go_on) = patient();
    let proxy = start(application.address);
    block_on(async {
        let answer = Client2::connect(proxy.address).await.exchange(get(), b"").await;
        assert_eq!((answer.head.status.as_u16(), answer.header("weft-error")), (504, Some("stream-idle")));
    });
    let mut client = proxy.connect();
    send(&mut client, GET);
    expect_failure(&mut client, 504, "stream-idle");
    // Twice the limit in all, but never without a byte for so long: time itself is what is tried here.
    let application = Application2::start(|_, mut respond| async move {
        let mut stream = respond.send_response(Response::new(()), false).expect("a client");
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        for _ in 0..10 {
            pace.tick().await;
            stream.send_data(Bytes::from_static(b"x"), false).expect("a client");
        }
        let _ = stream.send_data(Bytes::new(), true);
    });
    let proxy = start(application.address);
    block_on(async {
        let answer = Client2::connect(proxy.address).await.exchange(get(), b"").await;
        assert_eq!(answer.body, b"xxxxxxxxxx");
    });
    let mut client = proxy.connect();
    send(&mut client, GET);
    let (_, body) = read_message(&mut BufReader::new(&client), false);
    assert_eq!(body, b"xxxxxxxxxx");
}
