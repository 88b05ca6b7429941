//! How connections and streams end.

use std::cell::RefCell;

use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;

use super::super::{Keepalive, NotOpened};
use super::*;
use crate::http2::ErrorCode;

/// Answers nothing before it is told to, and holds the requests that came.
#[derive(Default, Clone)]
struct Held(Rc<RefCell<Vec<Incoming>>>);

impl Held {
    fn hold(&self) -> impl Fn(Incoming) -> std::future::Ready<()> + use<> {
        let held = Rc::clone(&self.0);
        move |incoming| {
            held.borrow_mut().push(incoming);
            std::future::ready(())
        }
    }

    async fn wait_for(&self, count: usize) {
        while self.0.borrow().len() < count {
            tokio::task::yield_now().await;
        }
    }

    fn take(&self) -> Incoming {
        self.0.borrow_mut().remove(0)
    }
}

#[test]
fn a_drain_loses_no_request_and_then_ends_the_connection() {
    on_one_thread(async {
        let (client, driver, mut server) = pair(Settings::default()).await;
        let (drain, mut told) = oneshot::channel::<()>();
        let mut is_told = false;
        let held = Held::default();
        let hold = held.hold();
        let served = tokio::task::spawn_local(async move {
            loop {
                tokio::select! {
                    biased;
                    incoming = poll_fn(|cx| server.poll_accept(cx)) => match incoming {
                        None => return Ok(()),
                        Some(Ok(incoming)) => hold(incoming).await,
                        Some(Err(error)) => return Err(error),
                    },
                    _ = &mut told, if !is_told => {
                        is_told = true;
                        server.drain();
                    }
                }
            }
        });
        let mut before = client.open(&request("/before"), true).expect("room");
        held.wait_for(1).await;
        drain.send(()).expect("it runs");
        // Under way when the first GOAWAY is: it has to be served.
        let mut between = client.open(&request("/between"), true).expect("not told yet");
        held.wait_for(2).await;
        while client.can_open() {
            tokio::task::yield_now().await;
        }
        assert_eq!(client.open(&request("/after"), true).expect_err("told"), NotOpened::GoingAway);
        for stream in [&mut before, &mut between] {
            let mut incoming = held.take();
            incoming.stream.send_head(&response("204"), true).expect("well");
            let (answer, ended) = head(stream).await.expect("an answer");
            assert_eq!((answer.get(b":status"), ended), (Some(&b"204"[..]), true));
        }
        assert_eq!(served.await.expect("no panic"), Ok(()));
        assert_eq!(driver.await.expect("no panic"), Ok(()));
    });
}

#[test]
fn an_idle_connection_that_is_drained_ends_at_once() {
    on_one_thread(async {
        let (client, driver, mut server) = pair(Settings::default()).await;
        ask_nothing(&client, &mut server).await;
        server.drain();
        assert!(poll_fn(|cx| server.poll_accept(cx)).await.is_none());
        assert_eq!(driver.await.expect("no panic"), Ok(()));
        assert!(!client.is_alive());
    });
}

/// Makes sure that both ends know of each other.
async fn ask_nothing(client: &Client, server: &mut Server) {
    let mut stream = client.open(&request("/"), true).expect("room");
    let mut incoming = poll_fn(|cx| server.poll_accept(cx)).await.expect("open").expect("well");
    assert!(incoming.ended && !incoming.is_too_large);
    incoming.stream.send_head(&response("204"), true).expect("well");
    tokio::select! {
        biased;
        answer = head(&mut stream) => assert!(answer.expect("an answer").1),
        _ = poll_fn(|cx| server.poll_accept(cx)) => panic!("nothing else was asked"),
    }
}

#[test]
fn a_dropped_stream_is_cancelled_at_the_other_end() {
    on_one_thread(async {
        let (client, _driver, server) = pair(Settings::default()).await;
        let held = Held::default();
        tokio::task::spawn_local(serve(server, held.hold()));
        let stream = client.open(&request("/"), false).expect("room");
        held.wait_for(1).await;
        drop(stream);
        let mut incoming = held.take();
        let error = poll_fn(|cx| incoming.stream.poll_reset(cx)).await;
        assert_eq!(error, StreamError::Reset(ErrorCode::CANCEL));
        assert_eq!(incoming.stream.send_head(&response("200"), false), Err(error));

        let mut stream = client.open(&request("/"), true).expect("room");
        held.wait_for(1).await;
        held.take().stream.reset(ErrorCode::REFUSED_STREAM);
        let error = head(&mut stream).await.expect_err("refused");
        assert!(error.is_unprocessed(), "{error:?}");
        assert_eq!(client.open_streams(), 0);
    });
}

#[test]
fn a_complete_answer_survives_what_comes_after_it() {
    on_one_thread(async {
        let (client, driver, server) = pair(Settings::default()).await;
        let held = Held::default();
        let served = tokio::task::spawn_local(serve(server, held.hold()));
        let mut stream = client.open(&request("/"), false).expect("room");
        held.wait_for(1).await;
        let mut incoming = held.take();
        incoming.stream.send_head(&response("200"), false).expect("well");
        assert_eq!(incoming.stream.send_data(b"enough", true), Ok(6));
        // The request was not read to its end: RST_STREAM with NO_ERROR follows the answer.
        drop(incoming);
        let error = poll_fn(|cx| stream.poll_reset(cx)).await;
        assert_eq!(error, StreamError::Reset(ErrorCode::NO_ERROR));
        assert!(!head(&mut stream).await.expect("an answer").1);
        assert_eq!(read_all(&mut stream).await.expect("whole"), b"enough");
        served.abort();
        assert!(driver.await.is_ok());
    });
}

#[test]
fn when_the_connection_is_lost_every_stream_learns_of_it() {
    on_one_thread(async {
        let (client, driver, server) = pair(Settings::default()).await;
        let held = Held::default();
        let served = tokio::task::spawn_local(serve(server, held.hold()));
        let mut streams: Vec<_> = (0..3).map(|_| client.open(&request("/"), false).expect("room")).collect();
        held.wait_for(3).await;
        driver.abort();
        for stream in &mut streams {
            assert_eq!(head(stream).await.expect_err("lost"), StreamError::ConnectionLost);
            assert!(!StreamError::ConnectionLost.is_unprocessed());
        }
        assert!(matches!(served.await.expect("no panic"), Err(ConnectionError::Lost(_))));
        for mut incoming in held.0.take() {
            assert_eq!(poll_fn(|cx| incoming.stream.poll_reset(cx)).await, StreamError::ConnectionLost);
        }
        assert!(!client.is_alive());
    });
}

#[test]
fn an_end_in_the_middle_of_a_frame_is_no_clean_end() {
    on_one_thread(async {
        let (mut near, far) = sockets().await;
        let mut server = Server::new(plain(far), Settings::default());
        near.write_all(crate::http2::PREFACE).await.expect("open");
        near.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 8, 6, 0]).await.expect("open");
        near.shutdown().await.expect("open");
        let end = poll_fn(|cx| server.poll_accept(cx)).await;
        assert!(matches!(end, Some(Err(ConnectionError::Lost(_)))), "{end:?}");
    });
}

#[test]
fn a_silent_peer_is_given_up_and_a_live_one_is_not() {
    on_one_thread(async {
        let keepalive = Keepalive { after: Duration::from_millis(40), answer: Duration::from_millis(40) };
        let settings = Settings { keepalive: Some(keepalive), ..Settings::default() };
        let (near, _far) = sockets().await;
        let (silent, driver) = client(plain(near), settings);
        let driver = tokio::task::spawn_local(driver);
        let mut stream = silent.open(&request("/"), true).expect("room");

        let (live, live_driver, server) = pair(settings).await;
        let held = Held::default();
        tokio::task::spawn_local(serve(server, held.hold()));
        let mut live_stream = live.open(&request("/"), true).expect("room");

        assert_eq!(head(&mut stream).await.expect_err("given up"), StreamError::ConnectionLost);
        assert!(matches!(driver.await.expect("no panic"), Err(ConnectionError::Silent(80..))));
        // The live one answers a few more pings.
        let patience = tokio::time::timeout(Duration::from_millis(200), head(&mut live_stream)).await;
        assert!(patience.is_err(), "{patience:?}");
        held.take().stream.send_head(&response("204"), true).expect("well");
        head(&mut live_stream).await.expect("an answer");
        assert!(!live_driver.is_finished());
    });
}

#[test]
fn a_peer_that_takes_nothing_is_given_up() {
    on_one_thread(async {
        let settings = Settings { write_stall: Duration::from_millis(100), ..Settings::default() };
        let (near, _far) = sockets().await;
        let (client, driver) = client(plain(near), settings);
        let driver = tokio::task::spawn_local(driver);
        // Nobody reads: it ends up in the sockets' buffers and in ours.
        let mut large = request("/");
        large.push(b"x-large", &vec![b'x'; 60_000]);
        let mut streams = Vec::new();
        while !driver.is_finished() {
            streams.extend(client.open(&large, true));
            tokio::task::yield_now().await;
        }
        assert!(matches!(driver.await.expect("no panic"), Err(ConnectionError::Stalled(_))));
        assert_eq!(client.open(&large, true).expect_err("gone"), NotOpened::GoingAway);
    });
}

#[test]
fn the_last_handle_ends_the_connection_when_its_streams_have_ended() {
    on_one_thread(async {
        let (client, driver, server) = pair(Settings::default()).await;
        tokio::task::spawn_local(serve(server, echo));
        let mut stream = client.open(&request("/"), false).expect("room");
        drop(client);
        send_all(&mut stream, b"still here", true).await.expect("well");
        head(&mut stream).await.expect("an answer");
        assert_eq!(read_all(&mut stream).await.expect("whole"), b"still here");
        assert!(stream.is_complete());
        assert_eq!(driver.await.expect("no panic"), Ok(()));
    });
}
