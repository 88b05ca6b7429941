//! A plain HTTP/1.1 server with bounds: how many connect, and how long a client may take with its head.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::app::Stop;

/// The kubelet, a few scrapers and the API server keep a handful.
const MOST_CONNECTIONS: usize = 256;
/// A client that does not finish its head, or says nothing for so long, is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Before the next try when the kernel has no descriptor for a connection.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop`; what is under way then is cut off, as all of it can be asked again.
pub async fn serve(listener: TcpListener, router: Router, mut stop: Stop) -> Result<(), String> {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            // A sender that is gone stops as well.
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            // Those that ended make room.
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                // One more is closed at once: better than making the kubelet wait behind it.
                if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                    let router = router.clone();
                    connections.spawn(async move {
                        connection(socket, router).await;
                        drop(place);
                    });
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the HTTP endpoint cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(socket: TcpStream, router: Router) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move { Ok::<_, Infallible>(answer(router, request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(socket), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the HTTP endpoint ended early");
    }
}

async fn answer(router: Router, request: Request<Incoming>) -> axum::response::Response {
    let response: Result<_, Infallible> = router.oneshot(request.map(axum::body::Body::new)).await;
    response.unwrap_or_else(|never| match never {})
}
