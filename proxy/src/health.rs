//! The health endpoint: what the kubelet and a scraper ask of a pod from outside of the mesh.
//!
//! `/ready`, `/live`, `/metrics`, and the application's probes under `/app-probe/CONTAINER/PROBE`; nothing here shows
//! configuration, as everybody who can reach the pod can ask. Capture leaves its port alone, so that it works under
//! strict mutual TLS. One request a connection; connections are bounded in all and for each client, so that a crowd of
//! one client keeps no place from the kubelet.

mod application;
mod crowd;
mod grpc;
mod http;
mod tls;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use ::http::{Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use crate::admin::{Admin, text};

pub use application::{AppProbes, ParseProbesError};

use application::{Application, Outcome};
use crowd::Crowd;

/// A client that does not finish its head is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections at once: a kubelet has one for each probe, a scraper one.
const CONNECTIONS: usize = 256;
/// Connections of one client at once: more than the probes of a large pod.
const CONNECTIONS_OF_CLIENT: usize = 32;
/// Pause after the kernel would not give a connection.
const PAUSE: Duration = Duration::from_millis(50);
/// Where the application's probes are.
const PROBES: &str = "/app-probe/";

/// What the endpoint answers from.
#[derive(Debug, Clone)]
pub struct Health {
    admin: Admin,
    application: Application,
}

impl Health {
    /// `mark` is set on the probes' connections, where capture tells the proxy's by it.
    pub fn new(admin: Admin, probes: AppProbes, mark: Option<u32>) -> Self {
        metrics::describe_counter!("weft_app_probes_total", "Probes of the application made for the kubelet");
        metrics::describe_counter!("weft_health_refused_total", "Connections to the health endpoint beyond its limits");
        Self { admin, application: Application::new(probes, mark) }
    }

    /// Serves until dropped.
    pub async fn serve(self, listener: TcpListener) {
        let crowd = Crowd::new(CONNECTIONS, CONNECTIONS_OF_CLIENT);
        loop {
            let (socket, client) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "health endpoint cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Some(place) = crowd.enter(client.ip().to_canonical()) else {
                metrics::counter!("weft_health_refused_total").increment(1);
                continue;
            };
            let health = self.clone();
            tokio::spawn(async move {
                let _place = place;
                health.connection(socket).await;
            });
        }
    }

    async fn connection(self, socket: TcpStream) {
        // Where the kubelet reached the pod: the address it would have probed.
        let Ok(reached) = socket.local_addr() else { return };
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let health = self.clone();
            async move { Ok::<_, Infallible>(health.answer(&request, reached).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .keep_alive(false)
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(socket), service);
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to the health endpoint ended early");
        }
    }

    async fn answer<B>(&self, request: &Request<B>, reached: SocketAddr) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
        }
        let path = request.uri().path();
        if let Some(name) = path.strip_prefix(PROBES) {
            let asked_by = request.headers().get(header::USER_AGENT);
            return match self.application.probe(name, reached.ip().to_canonical(), asked_by).await {
                Some(outcome) => shown(&outcome),
                None => text(StatusCode::NOT_FOUND, format!("the pod has no probe {name}\n")),
            };
        }
        self.admin
            .harmless(path)
            .unwrap_or_else(|| text(StatusCode::NOT_FOUND, "try /ready, /live, /metrics\n".to_owned()))
    }
}

/// A failed probe has the application's own status, which the kubelet puts into its event.
fn shown(outcome: &Outcome) -> Response<Full<Bytes>> {
    match outcome {
        Outcome::Passed => text(StatusCode::OK, "ok\n".to_owned()),
        Outcome::Failed { status, reason } => text(*status, format!("{reason}\n")),
    }
}

#[cfg(test)]
mod tests;
