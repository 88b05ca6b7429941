//! The sample shop: three plain HTTP/1.1 services without any mesh knowledge, `weft shop ROLE`.
//!
//! `frontend` calls `orders`, `orders` calls `inventory`, each once per request, by name and without retries: what
//! makes the shop survive a bad replica is the mesh alone. SIGTERM lets requests in flight finish.

use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use weft_proxy::clock;

use super::client::{Pool, Target};
use super::fault::{Failing, Slow};

/// A caller gives up on a silent service after this long.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests in flight at SIGTERM have this long to finish.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept: the usual cause, no descriptors left, does not go away by trying harder.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const BACKLOG: u32 = 1024;

/// `weft shop ROLE`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Which service of the shop to be
    #[arg(value_enum)]
    pub role: Role,
    /// Port to listen on, on all addresses of both families
    #[arg(long, env = "PORT", default_value_t = 8080)]
    pub port: u16,
    /// Where `frontend` finds orders
    #[arg(long, env = "WEFT_URL_ORDERS", default_value = "http://orders:80")]
    pub orders: Target,
    /// Where `orders` finds the inventory
    #[arg(long, env = "WEFT_URL_INVENTORY", default_value = "http://inventory:80")]
    pub inventory: Target,
    /// Delay of every answer, such as 200ms
    #[arg(long, env = "SLOW")]
    pub slow: Option<Slow>,
    /// Which answers are errors: 20%, or 5s/20s for everything during 5 of every 20 seconds
    #[arg(long, env = "FAIL")]
    pub fail: Option<Failing>,
    /// Name in the answers; the host's name by default
    #[arg(long, env = "WEFT_WORKLOAD")]
    pub name: Option<String>,
}

/// A service of the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// GET / calls orders
    Frontend,
    /// GET /orders calls the inventory
    Orders,
    /// GET /stock
    Inventory,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Frontend => "frontend",
            Self::Orders => "orders",
            Self::Inventory => "inventory",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Frontend => "/",
            Self::Orders => "/orders",
            Self::Inventory => "/stock",
        }
    }
}

/// Why a service of the shop cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ShopError {
    #[error("cannot listen on {address}: {source}; is another program using the port?")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("cannot wait for SIGTERM: {0}")]
    Signal(std::io::Error),
}

/// One replica of a service.
#[derive(Debug)]
pub struct Shop {
    role: Role,
    replica: String,
    next: Option<Pool>,
    slow: Option<Slow>,
    fail: Option<Failing>,
    started: Instant,
}

impl Shop {
    /// A replica as its arguments say, started at `now`.
    pub fn new(arguments: &Arguments, now: Instant) -> Self {
        let next = match arguments.role {
            Role::Frontend => Some(arguments.orders.with_path(Role::Orders.path())),
            Role::Orders => Some(arguments.inventory.with_path(Role::Inventory.path())),
            Role::Inventory => None,
        };
        Self {
            role: arguments.role,
            replica: arguments.name.clone().unwrap_or_else(host_name),
            next: next.map(Pool::new),
            slow: arguments.slow,
            fail: arguments.fail,
            started: now,
        }
    }

    async fn answer(&self, method: &Method, path: &str) -> (StatusCode, Value) {
        // Healthy by its own word even when it fails: only the traffic shows what such a replica is worth.
        if path == "/healthz" {
            return (StatusCode::OK, json!({"service": self.role.name(), "replica": self.replica, "healthy": true}));
        }
        if path != self.role.path() {
            return self.refuse(StatusCode::NOT_FOUND, &format!("there is only {} here", self.role.path()));
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            return self.refuse(StatusCode::METHOD_NOT_ALLOWED, &format!("{method} is not possible here; GET is"));
        }
        if let Some(Slow(delay)) = self.slow {
            tokio::time::sleep(delay).await;
        }
        let running = clock::now().saturating_duration_since(self.started);
        if self.fail.is_some_and(|rule| rule.fails(running, fastrand::f64())) {
            return self.refuse(StatusCode::INTERNAL_SERVER_ERROR, "this replica is told to fail");
        }
        self.serve().await
    }

    /// The healthy answer: this service's word with the next service's answer inside.
    async fn serve(&self) -> (StatusCode, Value) {
        let Some(next) = &self.next else {
            return (
                StatusCode::OK,
                json!({"service": self.role.name(), "replica": self.replica, "stock": {"apples": 7, "pears": 11}}),
            );
        };
        let called = next.target().authority();
        match tokio::time::timeout(CALL_TIMEOUT, next.get()).await {
            Err(_) => self.refuse(StatusCode::GATEWAY_TIMEOUT, &format!("{called} did not answer in {CALL_TIMEOUT:?}")),
            Ok(Err(problem)) => self.refuse(StatusCode::BAD_GATEWAY, &problem.to_string()),
            Ok(Ok(answer)) if !answer.status.is_success() => {
                self.refuse(StatusCode::BAD_GATEWAY, &format!("{called} answered {}", answer.status))
            }
            Ok(Ok(answer)) => match serde_json::from_slice::<Value>(&answer.body) {
                Ok(inner) => {
                    (StatusCode::OK, json!({"service": self.role.name(), "replica": self.replica, "from": inner}))
                }
                Err(problem) => self
                    .refuse(StatusCode::BAD_GATEWAY, &format!("{called} answered something else than JSON: {problem}")),
            },
        }
    }

    fn refuse(&self, status: StatusCode, error: &str) -> (StatusCode, Value) {
        (status, json!({"service": self.role.name(), "replica": self.replica, "error": error}))
    }

    async fn respond(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
        let (status, value) = self.answer(request.method(), request.uri().path()).await;
        let mut response = Response::new(Full::new(Bytes::from(format!("{value}\n"))));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }
}

/// Runs one replica until SIGTERM or SIGINT.
///
/// # Errors
/// When the port cannot be had.
pub async fn run(arguments: Arguments) -> Result<(), ShopError> {
    let listeners = listen(arguments.port)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ShopError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ShopError::Signal)?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    serve(Arc::new(Shop::new(&arguments, clock::now())), listeners, stop).await;
    Ok(())
}

/// Listeners on `0.0.0.0:port` and, where the host has IPv6, `[::]:port`. Port 0 takes a free one, the same for both.
///
/// # Errors
/// When the port is taken.
pub fn listen(port: u16) -> Result<Vec<TcpListener>, ShopError> {
    let failed = |address, source| ShopError::Listen { address, source };
    let any4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let first = bind(any4).map_err(|source| failed(any4, source))?;
    let port = first.local_addr().map_err(|source| failed(any4, source))?.port();
    let any6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    match bind(any6) {
        Ok(second) => Ok(vec![first, second]),
        Err(source) if source.kind() == std::io::ErrorKind::AddrInUse => Err(failed(any6, source)),
        // No IPv6 on this host.
        Err(_) => Ok(vec![first]),
    }
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.is_ipv6() {
        // Else this socket claims IPv4 as well and collides with the other one.
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `stop`, then lets requests in flight finish.
pub async fn serve(shop: Arc<Shop>, listeners: Vec<TcpListener>, stop: impl Future<Output = ()>) {
    let (stopping, stopped) = watch::channel(false);
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(accept(listener, shop.clone(), stopped.clone()));
    }
    stop.await;
    stopping.send_replace(true);
    while accepting.join_next().await.is_some() {}
}

async fn accept(listener: TcpListener, shop: Arc<Shop>, mut stopped: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop(&mut stopped) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, shop.clone(), stopped.clone()));
                }
                Err(problem) => {
                    tracing::warn!(%problem, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let drained = tokio::time::timeout(DRAIN_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(open = connections.len(), "closing connections that did not finish in {DRAIN_TIMEOUT:?}");
    }
}

async fn converse(stream: TcpStream, shop: Arc<Shop>, mut stopped: watch::Receiver<bool>) {
    // A failure costs latency, not correctness.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let shop = shop.clone();
        async move { shop.respond(request).await }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let finished = tokio::select! {
        finished = connection.as_mut() => finished,
        () = stop(&mut stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(problem) = finished {
        tracing::debug!(%problem, "connection ended early");
    }
}

/// Ends when the service stops, or is gone.
async fn stop(stopped: &mut watch::Receiver<bool>) {
    // The guard must not be held over the caller's next wait.
    drop(stopped.wait_for(|stop| *stop).await);
}

/// The kernel's name for this host; `HOSTNAME` may be inherited from outside the namespace.
fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "unnamed".to_owned())
}

#[cfg(test)]
mod tests;
