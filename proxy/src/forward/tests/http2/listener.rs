//! What a listener says of its clients' connections of HTTP/2.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use weft_core::model::HttpOptions;

use super::*;

fn listening(options: HttpOptions, application: SocketAddr) -> RunningWorker {
    let mut change = speaking(UpstreamProtocol::Http2, outbound(Protocol::Http, &[application], None));
    change.listeners[0].http = Some(Arc::new(options));
    RunningWorker::start(Direction::Outbound, destination(), change)
}

#[test]
fn a_client_is_told_how_many_streams_its_listener_allows() {
    let application = Application2::echo();
    let worker = listening(HttpOptions { streams: Some(7), ..HttpOptions::default() }, application.address);
    block_on(async {
        let mut client = Client2::connect(worker.address).await;
        assert_eq!(client.exchange(post(), b"abc").await.body, b"abc");
        assert_eq!(client.send.current_max_send_streams(), 7);
    });
}

#[test]
fn a_connection_that_had_its_requests_or_its_time_is_left_without_losing_one() {
    let application = Application2::echo();
    let counted = HttpOptions { connection_requests: Some(2), ..HttpOptions::default() };
    let aged = HttpOptions { connection_age: Some(Duration::from_secs(1)), ..HttpOptions::default() };
    for options in [counted, aged] {
        let worker = listening(options, application.address);
        block_on(async {
            let mut client = Client2::connect(worker.address).await;
            let (first, mut open) = client.ask(post(), false).await;
            assert_eq!(client.exchange(post(), b"abc").await.body, b"abc");
            // It goes away under the first request, which comes to its end.
            client.until(|send| matches!(send.clone().ready().now_or_never(), Some(Err(_)))).await;
            peer::send_all(&mut open, b"late", None).await.expect("taken");
            assert_eq!(peer::whole(first.await.expect("an answer")).await.body, b"late");
            assert!(client.ended.await.expect("no panic").is_ok());
        });
    }
}
