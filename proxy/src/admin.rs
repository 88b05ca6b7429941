//! The admin endpoint: `/ready`, `/live`, `/metrics`, `/config_dump`, `/log-level`. Loopback only unless told otherwise.
//!
//! The first three show nothing of the configuration, and are answered by [`health`](crate::health) too.

mod dump;
mod readiness;

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use crate::config::{AdminAddress, Tuning};
use crate::state::Store;
use crate::telemetry::{self, Gauges, Registry};
use crate::tls::CredentialStore;

pub use readiness::{Readiness, Task};

/// The level of the log: read it, or PUT one below it.
const LOG_LEVEL: &str = "/log-level";
/// A client that does not finish its head is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// What the endpoint shows.
#[derive(Debug, Clone)]
pub struct Admin {
    pub readiness: Readiness,
    pub registry: Registry,
    pub store: Arc<Store>,
    pub credentials: Arc<CredentialStore>,
    /// Waits and limits as they are in force.
    pub tuning: Tuning,
}

/// Listeners with their routes and clusters with their endpoints, as `/config_dump` shows them: for whoever holds a
/// configuration without running a proxy on it.
pub fn configuration(store: &Store) -> serde_json::Value {
    serde_json::json!({
        "listeners": dump::listeners(store),
        "clusters": dump::clusters(store),
        "peers": dump::peers(store),
    })
}

/// A bound admin listener.
#[derive(Debug)]
pub enum AdminListener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl AdminListener {
    /// One that another proxy bound.
    ///
    /// # Errors
    /// What the runtime says.
    pub fn inherited(address: &AdminAddress, socket: OwnedFd) -> io::Result<Self> {
        match address {
            AdminAddress::Tcp(_) => {
                let socket = std::net::TcpListener::from(socket);
                socket.set_nonblocking(true)?;
                Ok(Self::Tcp(TcpListener::from_std(socket)?))
            }
            AdminAddress::Unix(_) => {
                let socket = std::os::unix::net::UnixListener::from(socket);
                socket.set_nonblocking(true)?;
                Ok(Self::Unix(UnixListener::from_std(socket)?))
            }
        }
    }

    /// Binds an address. A socket file left by a process that died is replaced; one somebody answers on is not.
    ///
    /// # Errors
    /// What the kernel says; `AddrInUse` for a socket in use.
    pub fn bind(address: &AdminAddress) -> io::Result<Self> {
        match address {
            AdminAddress::Tcp(address) => {
                let socket = std::net::TcpListener::bind(address)?;
                socket.set_nonblocking(true)?;
                Ok(Self::Tcp(TcpListener::from_std(socket)?))
            }
            AdminAddress::Unix(path) => {
                if std::os::unix::net::UnixStream::connect(path).is_ok() {
                    return Err(io::ErrorKind::AddrInUse.into());
                }
                match std::fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                let listener = UnixListener::bind(path)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
                Ok(Self::Unix(listener))
            }
        }
    }
}

impl AsFd for AdminListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

impl Admin {
    /// Serves until dropped.
    pub async fn serve(self, listener: AdminListener) {
        loop {
            let accepted = match &listener {
                AdminListener::Tcp(listener) => listener.accept().await.map(|(socket, _)| self.spawn(socket)),
                AdminListener::Unix(listener) => listener.accept().await.map(|(socket, _)| self.spawn(socket)),
            };
            if let Err(error) = accepted {
                tracing::warn!(%error, "admin endpoint cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    fn spawn(&self, socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let admin = self.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let response = admin.answer(request.method(), request.uri().path());
            async move { Ok::<_, Infallible>(response) }
        });
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(socket), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "admin connection ended early");
            }
        });
    }

    fn answer(&self, method: &http::Method, path: &str) -> Response<Full<Bytes>> {
        if let (&http::Method::PUT, Some(level)) = (method, path.strip_prefix(LOG_LEVEL)) {
            return set_log_level(level.trim_start_matches('/'));
        }
        if method != http::Method::GET && method != http::Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET, and PUT of /log-level/LEVEL\n".to_owned());
        }
        match path {
            LOG_LEVEL => match telemetry::log_level() {
                Some(level) => text(StatusCode::OK, format!("{level}\n")),
                None => no_log(),
            },
            "/config_dump" => typed(StatusCode::OK, "application/json", self.config_dump()),
            _ => self.harmless(path).unwrap_or_else(|| {
                text(StatusCode::NOT_FOUND, "try /ready, /live, /metrics, /config_dump, /log-level\n".to_owned())
            }),
        }
    }

    /// What anybody may see.
    pub(crate) fn harmless(&self, path: &str) -> Option<Response<Full<Bytes>>> {
        Some(match path {
            "/live" => text(StatusCode::OK, "live\n".to_owned()),
            "/ready" => match self.readiness.missing() {
                missing if missing.is_empty() => text(StatusCode::OK, "ready\n".to_owned()),
                missing => text(StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", missing.join(", "))),
            },
            "/metrics" => typed(StatusCode::OK, "text/plain; version=0.0.4", self.registry.render(&self.gauges())),
            _ => return None,
        })
    }

    fn gauges(&self) -> Gauges {
        let mut gauges = Gauges::default();
        dump::gauges(&self.store, &mut gauges);
        gauges.add("gauge", "weft_buffered_bytes", &[], crate::stream::buffered_in_all() as f64);
        gauges
    }

    /// What is in force, as `/config_dump` shows it.
    pub(crate) fn configuration(&self) -> serde_json::Value {
        dump::config(&self.store, self.credentials.current().as_deref(), &self.tuning)
    }

    fn config_dump(&self) -> String {
        serde_json::to_string_pretty(&self.configuration()).unwrap_or_default()
    }
}

fn set_log_level(level: &str) -> Response<Full<Bytes>> {
    let Some(level) = telemetry::level_of_name(level) else {
        return text(StatusCode::BAD_REQUEST, format!("{}\n", telemetry::LEVELS));
    };
    if !telemetry::set_log_level(level) {
        return no_log();
    }
    tracing::info!(%level, "the log level was changed");
    text(StatusCode::OK, format!("{level}\n"))
}

fn no_log() -> Response<Full<Bytes>> {
    text(StatusCode::CONFLICT, "no log was started here\n".to_owned())
}

/// An answer in words.
pub(crate) fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    typed(status, "text/plain", body)
}

fn typed(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}
