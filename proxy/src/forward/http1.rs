//! HTTP/1.x, request by request: read, route, pick, connect, exchange.

mod client;
mod converted;
mod request;
mod slot;
mod upstream;

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::routing::Routing;
use super::timer::Timer;
use super::{Service, http2, tcp};
use crate::clock;
use crate::failure::{Answer, Failed, Failure};
use crate::state::Listener;
use crate::stream::{Connection, give_text, take_text};
use crate::telemetry::CodeClass;
use client::{Client, Next};
use request::{Direct, Request};

/// How a request ended for its client's connection.
#[derive(Debug)]
enum End {
    /// Another request may follow.
    Reuse,
    Close,
    /// The answer is written but the request's body was not read to its end.
    Linger,
}

/// Serves requests on `connection` until it ends. A client may begin with the preface of HTTP/2, and gets that.
///
/// Not an `async fn`: that would hold its arguments twice.
pub fn serve(service: &Service<'_>, mut connection: Connection, listener: Arc<Listener>) -> impl Future<Output = ()> {
    let mut routing = Routing::new(service, listener);
    let mut client = Client::new(service, service.worker.drain.enter(service.direction));
    async move {
        loop {
            let end = match client.next(service, &mut connection, &mut routing).await {
                Ok(Next::Request(Request::Direct(request))) => {
                    let answered = slot::run(service, connection, request, client.take_timer()).await;
                    connection = answered.client;
                    client.return_timer(answered.timer);
                    client.rests(answered.at);
                    answered.end
                }
                // Boxed, as what follows: larger than waiting for what is next, which most connections do.
                Ok(Next::Request(Request::Converted(request))) => {
                    let end = Box::pin(converted::answer(service, &mut connection, request)).await;
                    client.rests(clock::now());
                    end
                }
                Ok(Next::Http2) => {
                    drop(client);
                    return Box::pin(http2::serve(service, connection, routing.into_listener())).await;
                }
                Ok(Next::Over) => return,
                Err(failed) => {
                    let edge = routing.refusing(service);
                    edge.refused(CodeClass::of(failed.failure.facts().status));
                    service.tell(&edge, &failed);
                    Box::pin(reply(service, &mut connection, &failed, false, false)).await;
                    End::Linger
                }
            };
            match end {
                End::Reuse => connection.release(),
                End::Close => return,
                End::Linger => return Box::pin(client.linger(service, &mut connection)).await,
            }
        }
    }
}

/// Answers one request and records its signals; says when that was done.
async fn answer(
    service: &Service<'_>,
    client: &mut Connection,
    mut request: Direct,
    timer: &mut Timer,
) -> (End, Instant) {
    let edge = Rc::clone(&request.target.edge);
    let started = request.started;
    let in_flight = edge.in_flight();
    let result = upstream::forward(service, client, &mut request, timer).await;
    let end = match result {
        Ok(done) => {
            let class = CodeClass::of(done.status);
            if let Some(failure) = done.broken {
                service.tell(&edge, &service.detailed(failure, started));
            }
            edge.bytes(request.pump.sent, done.received);
            match done.tunnel {
                Some(mut upstream) => {
                    edge.request(class, done.at - started);
                    drop(in_flight);
                    let mut carried = tcp::Carried::default();
                    let idle = service.worker.timeouts.tcp_idle;
                    let _ = tcp::tunnel(client, &mut upstream.connection, &mut carried, idle).await;
                    edge.bytes(carried.to_upstream, carried.to_client);
                    return (End::Close, done.at);
                }
                None => edge.request(class, done.at - started),
            }
            (done.end, done.at)
        }
        Err(Failure::ClientGone) => {
            service.tell(&edge, &Failure::ClientGone.into());
            let now = clock::now();
            edge.request(CodeClass::Failed, now - started);
            (End::Close, now)
        }
        Err(failure) => {
            let failure = service.seen(failure);
            let keep = request.asked.may_keep() && request.is_bare;
            let failed = service.detailed(failure, started);
            service.tell(&edge, &failed);
            edge.request(CodeClass::of(failure.facts().status), clock::now() - started);
            reply(service, client, &failed, keep, request.asked.to_head).await;
            (if keep { End::Reuse } else { End::Linger }, clock::now())
        }
    };
    drop(in_flight);
    end
}

/// Answers in the application's place. A client that is gone is no news; one that does not take the answer is not waited
/// for.
async fn reply(service: &Service<'_>, client: &mut Connection, failed: &Failed, keep_alive: bool, to_head: bool) {
    let mut out = take_text();
    let answer = Answer { failure: failed.failure, detail: &failed.detail, hop: service.hop() };
    answer.write_http1(keep_alive, to_head, &mut out);
    let _ = tokio::time::timeout(service.linger(), client.write_all(&out)).await;
    give_text(out);
}
