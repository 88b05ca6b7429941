//! HTTPS for the API server, with certificates of our own root.
//!
//! The serving certificate is signed in memory when [`serve`] is called and renewed in the first handshake after half of
//! its life; the API server verifies it by the root that [`keep_bundle`] puts into the webhook configurations.
//! A replica whose [`serve`] has returned can answer: that is its readiness as far as webhooks go, and `GET /ready` on
//! this port says so over TLS. Whether the API server trusts it too is [`keep_bundle`]'s business, on the leader.
//!
//! `failurePolicy: Fail` makes every lost answer a pod that is refused. So a replica that is stopped goes on for
//! five seconds, while the cluster learns that it leaves, and asks connections to go elsewhere with their next answer;
//! and it keeps idle connections for longer than the API server does, so that it is not we who close one just as a request
//! comes.

mod bundle;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::response::IntoResponse;
use axum::routing::get;
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Limited;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower::ServiceExt;
use weft_proxy::clock;

pub use bundle::keep_bundle;

use super::names;
use crate::app::{Serving, Stop};
use crate::ca::{self, Authority, CaError, Connection};

/// Connections at a time; more wait in the kernel's backlog. An API server has as many as it has requests under way.
const MOST_CONNECTIONS: usize = 256;
/// Requests worked on at a time; more wait, at most as long as for an answer. It bounds the memory of reviews.
const MOST_REQUESTS: usize = 32;
/// Largest body: the API server takes objects of 3 MiB, and an update sends the old one as well.
const LARGEST_REVIEW: usize = 8 * 1024 * 1024;
/// Largest head of a request.
const LARGEST_HEAD: usize = 64 * 1024;
/// How long everything may take.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// From the handshake to the first request's head.
    first_head: Duration,
    /// For the next head on a connection that had one.
    idle: Duration,
    /// From a request's head to its answer.
    request: Duration,
    /// How long a stopped replica still takes connections.
    last_call: Duration,
    /// For answers under way after that.
    grace: Duration,
}

const LIMITS: Limits = Limits {
    first_head: Duration::from_secs(10),
    // Longer than the 90 s after which the API server's client closes.
    idle: Duration::from_mins(2),
    // The webhooks' own timeout, after which nobody waits.
    request: Duration::from_secs(5),
    last_call: Duration::from_secs(5),
    grace: Duration::from_secs(5),
};

/// The name by which the API server calls webhooks of a Service.
fn server_name(namespace: &str) -> String {
    format!("{}.{namespace}.svc", names::CONTROL_PLANE)
}

/// Serves `router` and `GET /ready` on `listener` until five seconds after `stop`. Must be called within a runtime.
pub fn serve(
    listener: TcpListener,
    authority: &Arc<Authority>,
    namespace: &str,
    router: Router,
    stop: Stop,
) -> Result<Serving, CaError> {
    serve_within(LIMITS, listener, authority, namespace, router, stop)
}

fn serve_within(
    limits: Limits,
    listener: TcpListener,
    authority: &Arc<Authority>,
    namespace: &str,
    router: Router,
    stop: Stop,
) -> Result<Serving, CaError> {
    let tls = ca::webhook_tls(authority, &server_name(namespace), clock::wall)?;
    let router = router
        .route("/ready", get(|| async { "ready\n" }))
        // There is one limit, and it holds for every way to read a body.
        .layer(DefaultBodyLimit::disable());
    let server = Server { router, requests: Arc::new(Semaphore::new(MOST_REQUESTS)), stop, limits };
    let (address, name) = (listener.local_addr().ok(), server_name(namespace));
    tracing::info!(?address, name, "webhooks are served");
    Ok(Box::pin(server.run(ca::incoming(listener, tls))))
}

#[derive(Clone)]
struct Server {
    router: Router,
    requests: Arc<Semaphore>,
    stop: Stop,
    limits: Limits,
}

impl Server {
    async fn run(self, mut connections: impl Stream<Item = io::Result<Connection>> + Unpin) -> Result<(), String> {
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let (ending, end) = watch::channel(false);
        let mut open = JoinSet::new();
        let (mut stop, limits) = (self.stop.clone(), self.limits);
        let mut last_call = std::pin::pin!(async move {
            // A sender that is gone stops as well.
            let _ = stop.wait_for(|stop| *stop).await;
            tokio::time::sleep(limits.last_call).await;
        });
        loop {
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
                (place, connections.next().await)
            };
            tokio::select! {
                () = &mut last_call => break,
                (place, connection) = next => match connection {
                    Some(Ok(connection)) => drop(open.spawn(self.clone().converse(connection, end.clone(), place))),
                    Some(Err(error)) => return Err(error.to_string()),
                    None => return Err("the listener is gone".to_owned()),
                },
                Some(_) = open.join_next(), if !open.is_empty() => {}
            }
        }
        drop(connections);
        ending.send_replace(true);
        let finish = async { while open.join_next().await.is_some() {} };
        if timeout(limits.grace, finish).await.is_err() {
            tracing::warn!("webhook requests were still under way after {:?}", limits.grace);
        }
        Ok(())
    }

    /// One connection to its end.
    async fn converse(self, connection: Connection, mut end: watch::Receiver<bool>, _place: OwnedSemaphorePermit) {
        let (heard, limits) = (Arc::new(Notify::new()), self.limits);
        let service = {
            let heard = Arc::clone(&heard);
            service_fn(move |request| {
                heard.notify_one();
                self.clone().answer(request)
            })
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.idle)
            .max_buf_size(LARGEST_HEAD)
            .serve_connection(TokioIo::new(connection), service);
        let mut connection = std::pin::pin!(connection);
        // What goes wrong on a connection concerns its client alone.
        tokio::select! {
            _ = &mut connection => return,
            first = timeout(limits.first_head, heard.notified()) => if first.is_err() { return },
        }
        tokio::select! {
            _ = &mut connection => return,
            _ = end.wait_for(|end| *end) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let Self { router, requests, stop, limits } = self;
        let request = request.map(|body| Body::new(Limited::new(body, LARGEST_REVIEW)));
        let work = async {
            let _place = requests.acquire().await.expect("the semaphore is never closed");
            let Ok(response) = router.oneshot(request).await;
            response
        };
        let mut response = timeout(limits.request, work).await.unwrap_or_else(|_| {
            tracing::warn!("a webhook request took longer than {:?}", limits.request);
            (StatusCode::GATEWAY_TIMEOUT, "it takes too long\n").into_response()
        });
        if *stop.borrow() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}
