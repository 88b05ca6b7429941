//! gRPC: what the proxy says itself, and what it learns from how calls end.

use std::time::Duration;

use super::peer::{send_all, whole};
use super::*;

fn call() -> Request<()> {
    Request::post("http://orders/package.Service/Method")
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers")
        .body(())
        .expect("a request")
}

fn trailers(status: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().expect("a value"));
    trailers
}

#[test]
fn a_call_passes_with_its_trailers() {
    let application = Application2::start(|request, mut respond| async move {
        assert_eq!(request.headers()["te"], "trailers");
        let mut body = request.into_body();
        let message = peer::read_all(&mut body).await.expect("a message");
        let head = Response::builder().header("content-type", "application/grpc").body(()).expect("a head");
        let mut stream = respond.send_response(head, false).expect("a client");
        send_all(&mut stream, &message, Some(trailers("0"))).await.expect("taken");
    });
    let pair = pair_before(UpstreamProtocol::Http2, application.address);
    block_on(async {
        let mut client = Client2::connect(pair.outer.address).await;
        for _ in 0..3 {
            let answer = client.exchange(call(), b"\0\0\0\0\x03abc").await;
            assert_eq!((answer.trailer("grpc-status"), &answer.body[..]), (Some("0"), &b"\0\0\0\0\x03abc"[..]));
        }
    });
}

#[test]
fn a_failure_of_the_proxy_is_told_as_calls_are_told() {
    let nobody = crate::testing::nobody();
    let plain = before(UpstreamProtocol::Http2, &[nobody]);
    let empty = before(UpstreamProtocol::Http2, &[]);
    let pair = pair_before(UpstreamProtocol::Http2, nobody);
    for (proxy, code) in [(&plain, "connect"), (&empty, "no-endpoints"), (&pair.outer, "application-unreachable")] {
        block_on(async {
            let mut client = Client2::connect(proxy.address).await;
            let (answer, mut stream) = client.ask(call(), false).await;
            let _ = send_all(&mut stream, b"\0\0\0\0\0", None).await;
            let answer = answer.await.expect("an answer");
            assert_eq!(answer.status(), 200);
            assert!(answer.body().is_end_stream(), "more than trailers");
            let header = |name| answer.headers().get(name).map(|value| value.to_str().expect("text"));
            assert_eq!(header("content-type"), Some("application/grpc"));
            assert_eq!(header("grpc-status"), Some("14"), "{answer:?}");
            assert_eq!(header("weft-error"), Some(code));
            assert!(header("grpc-message").is_some_and(|message| message.starts_with("weft: ")), "{answer:?}");
        });
    }
}

/// Endpoints that answer every call so; how many of them are out after some calls.
fn ejected_after_calls(answer: fn() -> (Response<()>, Option<HeaderMap>)) -> usize {
    let start = || {
        Application2::start(move |_, mut respond| async move {
            let (head, trailers) = answer();
            let mut stream = respond.send_response(head, trailers.is_none()).expect("a client");
            if let Some(trailers) = trailers {
                let _ = stream.send_trailers(trailers);
            }
        })
    };
    let applications = [start(), start()];
    let mut change = speaking(
        UpstreamProtocol::Http2,
        outbound(Protocol::Http, &[applications[0].address, applications[1].address], None),
    );
    change.clusters[0].outlier.base_ejection = Duration::from_mins(1);
    let proxy = RunningWorker::start(Direction::Outbound, destination(), change);
    block_on(async {
        let mut client = Client2::connect(proxy.address).await;
        for _ in 0..12 {
            let (answer, _) = client.ask(call(), true).await;
            whole(answer.await.expect("an answer")).await;
        }
    });
    // In the worker's thread: behind what it does about the last answer.
    proxy.run(|worker| worker.store.load().clusters().next().expect("a cluster").endpoints().ejected())
}

#[test]
fn endpoints_are_judged_by_how_calls_end_and_not_by_the_status_of_http() {
    assert_eq!(ejected_after_calls(|| (Response::new(()), Some(trailers("0")))), 0);
    assert_eq!(ejected_after_calls(|| (Response::new(()), Some(trailers("5")))), 0, "NOT_FOUND is an answer");
    assert_eq!(ejected_after_calls(|| (Response::new(()), Some(trailers("14")))), 1);
    assert_eq!(ejected_after_calls(|| (Response::new(()), Some(trailers("2")))), 1);
    // In the one head there is.
    assert_eq!(
        ejected_after_calls(|| (Response::builder().header("grpc-status", "14").body(()).expect("a head"), None)),
        1
    );
}
