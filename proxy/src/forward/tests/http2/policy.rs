//! Retries and the time of one try, where a side speaks HTTP/2.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use h2::Reason;
use weft_core::retry::RetryPolicy;

use super::peer::read_all;
use super::*;
use crate::forward::tests::policy::policy;

fn by(policy: Arc<RetryPolicy>, endpoints: &[SocketAddr]) -> RunningWorker {
    let mut change = speaking(UpstreamProtocol::Http2, outbound(Protocol::Http, endpoints, None));
    change.routes[0].virtual_hosts[0].routes[0].retry = Some(policy);
    RunningWorker::start(Direction::Outbound, destination(), change)
}

/// Answers its first `failing` requests with this head and nothing else, the others with what was sent.
fn failing(failing: usize, head: Response<()>) -> (Application2, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let application = Application2::start(move |request, mut respond| {
        let is_failing = counted.fetch_add(1, Relaxed) < failing;
        let head = head.clone();
        async move {
            let body = read_all(&mut request.into_body()).await.expect("a body");
            if is_failing {
                respond.send_response(head, true).expect("a client");
            } else {
                let mut stream = respond.send_response(Response::new(()), false).expect("a client");
                stream.send_data(body.into(), true).expect("a client");
            }
        }
    });
    (application, count)
}

#[test]
fn a_call_whose_status_is_named_is_made_again_with_its_message() {
    let unavailable = Response::builder().header("content-type", "application/grpc").header("grpc-status", "14");
    let (application, count) = failing(2, unavailable.body(()).expect("a head"));
    let worker = by(
        policy(|policy| {
            policy.on.grpc = 1 << 14;
            policy.retries = 2;
        }),
        &[application.address],
    );
    block_on(async {
        let call = Request::post("http://orders/").header("content-type", "application/grpc").body(()).expect("a call");
        let answer = Client2::connect(worker.address).await.exchange(call, b"a message").await;
        assert_eq!(answer.header("grpc-status"), None);
        assert_eq!(answer.body, b"a message");
    });
    assert_eq!(count.load(Relaxed), 3);
}

#[test]
fn a_class_of_answers_is_for_methods_that_can_be_repeated() {
    for (request, expected) in [(get(), 200), (post(), 503)] {
        let (application, _) = failing(1, Response::builder().status(503).body(()).expect("a head"));
        let worker = by(policy(|policy| policy.on.server_error = true), &[application.address]);
        block_on(async {
            let answer = Client2::connect(worker.address).await.exchange(request, b"").await;
            assert_eq!(answer.head.status, expected);
        });
        // As a client of HTTP/1, whose request is put into HTTP/2.
        let (application, _) = failing(1, Response::builder().status(503).body(()).expect("a head"));
        let worker = by(policy(|policy| policy.on.server_error = true), &[application.address]);
        let mut client = worker.connect();
        send(&mut client, if expected == 200 { GET } else { POST });
        let (head, _) = read_message(&mut BufReader::new(&client), false);
        assert!(head.starts_with(&format!("HTTP/1.1 {expected} ")), "{head}");
    }
}

#[test]
fn a_try_that_is_too_late_is_taken_back_and_answered_with_its_own_code() {
    let (told, tell) = std::sync::mpsc::channel();
    let application = Application2::start(move |request, mut respond| {
        let told = told.clone();
        async move {
            let _request = request;
            let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            told.send(reset.expect("a reset")).expect("a test");
        }
    });
    let late = |policy: &mut RetryPolicy| {
        policy.on.reset = true;
        policy.per_try_timeout = Some(Duration::from_millis(50));
    };
    let worker = by(policy(late), &[application.address]);
    // The second where twice is once, and no more where the application may have acted.
    for (request, body, tries) in [(get(), &b""[..], 2), (post(), b"abc", 1)] {
        block_on(async {
            let answer = Client2::connect(worker.address).await.exchange(request, body).await;
            assert_eq!(answer.head.status, 504);
            assert_eq!(answer.header("weft-error"), Some("per-try-timeout"));
        });
        for _ in 0..tries {
            assert_eq!(tell.recv_timeout(PATIENCE).expect("a try"), Reason::CANCEL);
        }
        assert!(tell.try_recv().is_err(), "more tries than {tries}");
    }
}

#[test]
fn a_stream_that_goes_on_asking_is_not_cut_off_by_the_time_of_one_try() {
    let application = Application2::echo();
    let worker = by(policy(|policy| policy.per_try_timeout = Some(Duration::from_millis(50))), &[application.address]);
    block_on(async {
        let mut client = Client2::connect(worker.address).await;
        let (answer, mut stream) = client.ask(post(), false).await;
        let mut body = answer.await.expect("an answer").into_body();
        // Three times as long as a try may take, in which nothing comes, an end least of all.
        let early = tokio::time::timeout(Duration::from_millis(150), body.data()).await;
        assert!(early.is_err(), "{early:?} came before the rest was asked for");
        super::peer::send_all(&mut stream, b"late", None).await.expect("taken");
        assert_eq!(read_all(&mut body).await.expect("a body"), b"late");
    });
}
