//! Requests of HTTP/1 whose upstream speaks HTTP/2.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::request::Converted;
use super::{End, reply};
use crate::clock;
use crate::failure::Failure;
use crate::forward::Service;
use crate::forward::exchange::Asked;
use crate::forward::relay::{self, AnswerHead, Broken, Client, Done, Http1, Http2, Outgoing};
use crate::forward::timer::Timer;
use crate::http1::{BodyKind, Connection as Keep, ResponseWrite};
use crate::http2::ResponseHead;
use crate::http2::websocket::Accept;
use crate::stream::Connection;

/// Answers one request and records its signals.
pub(super) async fn answer(service: &Service<'_>, connection: &mut Connection, converted: Box<Converted>) -> End {
    let Converted { mut request, asked, body } = *converted;
    let edge = Rc::clone(&request.target.edge);
    let in_flight = edge.in_flight();
    let mut client = Http1::new(
        Asking {
            connection,
            service,
            asked,
            websocket: None,
            is_kept: false,
            timer: Timer::default(),
            moved: (0, clock::now()),
        },
        body,
    );
    client.connection.websocket.clone_from(&request.websocket);
    let result = relay::forward::<_, Http2>(service, &mut client, &mut request).await;
    relay::measure(service, &request, &result);
    drop(in_flight);
    match result {
        Ok(Done { tunnel: Some(mut tunnel), .. }) => {
            // First the 101, then whatever comes.
            let written = tokio::time::timeout(service.linger(), client.write_staged()).await;
            if matches!(written, Ok(Ok(()))) {
                let client = client.connection.connection;
                relay::carry(service, &request.target.edge, client, &mut tunnel).await;
            }
            End::Close
        }
        Ok(done) if done.cut.is_some() => End::Close,
        Ok(_) if request.body.is_finished() && client.connection.is_kept => End::Reuse,
        Ok(_) => End::Linger,
        Err(Failure::ClientGone) => End::Close,
        Err(failure) => {
            let keep = asked.may_keep() && request.body.is_none();
            // An interim answer that is still on its way goes first.
            if client.write_staged().await.is_err() {
                return End::Close;
            }
            reply(
                service,
                client.connection.connection,
                &service.detailed(service.seen(failure), request.started),
                keep,
                asked.to_head,
            )
            .await;
            if keep { End::Reuse } else { End::Linger }
        }
    }
}

/// A client's connection and what its request asks of the answer.
struct Asking<'a> {
    connection: &'a mut Connection,
    service: &'a Service<'a>,
    asked: Asked,
    /// It asked for a WebSocket, which is answered so.
    websocket: Option<Box<Accept>>,
    /// The client was told that its connection stays open.
    is_kept: bool,
    timer: Timer,
    /// What had moved, and when it was found to be less.
    moved: (u64, Instant),
}

impl AsMut<Connection> for Asking<'_> {
    fn as_mut(&mut self) -> &mut Connection {
        self.connection
    }
}

impl Client for Http1<Asking<'_>> {
    fn answer(&mut self, head: &AnswerHead, request_is_finished: bool) {
        let Asking { service, asked, .. } = &self.connection;
        // Interim answers were invented after HTTP/1.0.
        if head.is_interim() && !asked.is_http11 {
            return;
        }
        let Ok(accepted) = ResponseHead::read(&head.fields, head.ended, asked.to_head) else { return };
        if let Some(accept) = self.connection.websocket.clone().filter(|_| head.is_tunnel) {
            accepted.write_switched(&accept, true, self.stage());
            return;
        }
        let is_chunked = accepted.body == BodyKind::Chunked && asked.is_http11;
        let ends_with_connection = accepted.body == BodyKind::Chunked && !asked.is_http11;
        // Asked now, not when the request came: the drain may have begun since.
        let is_draining = service.worker.drain.is_draining(service.direction);
        let is_kept = asked.may_keep() && request_is_finished && !ends_with_connection && !is_draining;
        let connection = match (head.is_interim() || is_kept, asked.is_http11) {
            (true, true) => Keep::Persistent,
            (true, false) => Keep::KeepAlive,
            (false, _) => Keep::Close,
        };
        let write = ResponseWrite { connection, unchunk: !asked.is_http11, keep_error: true };
        accepted.write_http1(&write, self.stage());
        self.send_as(if is_chunked { Outgoing::Chunked } else { Outgoing::Raw });
        self.connection.is_kept = is_kept;
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        if !self.has_ended() {
            return Poll::Pending;
        }
        let is_last = !self.connection.asked.keep_alive;
        let connection = self.connection.as_mut();
        while !connection.is_full() {
            match connection.poll_fill(cx) {
                // It said that this is its last request: it may end its side and still read.
                Poll::Ready(Ok(0)) if is_last => break,
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Broken::Lost),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }

    fn poll_idle(&mut self, moved: u64, cx: &mut Context<'_>) -> Poll<()> {
        let Asking { service, timer, moved: (before, since), .. } = &mut self.connection;
        if moved != *before {
            (*before, *since) = (moved, clock::now());
        }
        timer.poll(*since + service.stream_idle(), cx)
    }
}
