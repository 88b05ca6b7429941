//! Wires the parts of a proxy and runs it to its end.
//!
//! Connections live on worker threads, each with a runtime of its own; certificates, configuration and the admin endpoint
//! live on the caller's thread, so that neither can stall the other.

mod first_configuration;
mod neighbours;
mod node;
mod operations;
mod report;
mod worker_thread;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use weft_core::model::Direction;

use crate::accept::{self, Listen};
use crate::admin::{Admin, AdminListener, Readiness};
use crate::capture;
use crate::config::{AdminAddress, Settings};
use crate::health::Health;
use crate::identity::{self, IdentityError};
use crate::state::Store;
use crate::telemetry::{self, Registry};
use crate::tls::CredentialStore;
use crate::xds::backoff::Backoff;
use crate::xds::client::{self, ConnectError, XdsOptions};
use worker_thread::{Bound, Threads};

/// One attempt to reach the control plane waits this long for our certificate: less than the attempt may take.
const CERTIFICATE_WAIT: Duration = Duration::from_secs(5);

/// Between two looks whether the pod is captured.
const CAPTURE_LOOK: Duration = Duration::from_secs(1);

/// Why a proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("cannot start a runtime: {0}")]
    Runtime(#[source] io::Error),
    #[error("cannot listen on {address}: {source}; is another proxy running here?")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot listen for admin requests on {address}: {source}")]
    Admin { address: AdminAddress, source: io::Error },
    #[error("cannot listen for probes on {address}: {source}; is another proxy running here?")]
    Health { address: SocketAddr, source: io::Error },
    #[error("cannot start a worker thread: {0}")]
    Thread(#[source] io::Error),
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] io::Error),
}

/// Runs a proxy until SIGTERM or SIGINT, then drains it.
///
/// # Errors
/// When it cannot start.
pub fn run(settings: &Settings) -> Result<(), AppError> {
    telemetry::start_log(settings.log, false);
    let descriptors = raise_descriptor_limit();
    let registry = Registry::default();
    registry.install();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Runtime)?;
    let result = runtime.block_on(control(settings, registry, descriptors));
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

async fn control(settings: &Settings, registry: Registry, descriptors: u64) -> Result<(), AppError> {
    let readiness = Readiness::default();
    let listening = readiness.task("listeners");
    let certified = readiness.task("certificate");
    let configured = readiness.task("configuration");
    let store = Arc::new(Store::new(settings.source()));
    let resumes = settings.tuning.tls_resumption;
    let credentials = if resumes { CredentialStore::new() } else { CredentialStore::without_resumption() };
    let credentials = Arc::new(credentials);
    let (stop, stopped) = watch::channel(false);

    let bound = bind(settings)?;
    let admin = Admin {
        readiness: readiness.clone(),
        registry,
        store: Arc::clone(&store),
        credentials: Arc::clone(&credentials),
        tuning: settings.tuning.clone(),
    };
    for address in &settings.admin {
        let listener =
            AdminListener::bind(address).map_err(|source| AppError::Admin { address: address.clone(), source })?;
        tokio::spawn(admin.clone().serve(listener));
    }
    serve_health(settings, admin.clone())?;
    let inbound_port = bound.iter().find(|bound| bound.direction == Direction::Inbound).and_then(Bound::port);
    if let Some(port) = inbound_port.filter(|_| settings.require_capture) {
        let captured = readiness.task("capture");
        tokio::spawn(async move {
            prove_capture(port).await;
            drop(captured);
        });
    }
    let threads = Threads::start(settings, bound, &store, &credentials, descriptors).map_err(AppError::Thread)?;
    drop(listening);
    tracing::info!(
        workload = %format!("{}/{}", settings.namespace, settings.workload), workers = settings.worker_count(),
        version = env!("CARGO_PKG_VERSION"), "proxy started"
    );

    let options = identity_options(settings);
    tokio::spawn(identity::run(
        options.clone(),
        Arc::clone(&credentials),
        fastrand::Rng::new(),
        ended(stopped.clone()),
    ));
    tokio::spawn({
        let credentials = Arc::clone(&credentials);
        async move {
            credentials.ready().await;
            drop(certified);
        }
    });
    let (connected, connection) = watch::channel(None);
    let reconnect = {
        let (options, credentials) = (options.clone(), Arc::clone(&credentials));
        move || {
            let (options, credentials) = (options.clone(), Arc::clone(&credentials));
            async move { identity::channel(&options, &credentials).await.ok() }
        }
    };
    let handlers = operations::Handlers { admin };
    tokio::spawn(operations::run(
        settings.workload.clone(),
        handlers,
        connection.clone(),
        reconnect.clone(),
        Backoff::new(fastrand::Rng::new()),
    ));
    tokio::spawn(report::run(settings.workload.clone(), Arc::clone(&store), connection, reconnect));
    let configuration = {
        let (store, credentials) = (Arc::clone(&store), Arc::clone(&credentials));
        let connected = Arc::new(connected);
        let is_in_pod = settings.is_in_pod();
        let connect = move || {
            let (options, credentials) = (options.clone(), Arc::clone(&credentials));
            let connected = Arc::clone(&connected);
            async move {
                // The stream of configuration has ended: what else goes over its connection ends with it.
                connected.send_if_modified(|channel| channel.take().is_some());
                // Told as what it is; the client's own limit would speak of a slow connection.
                let ready = tokio::time::timeout(CERTIFICATE_WAIT, credentials.ready()).await;
                ready.map_err(|_| IdentityError::NoCertificate)?;
                let channel = identity::channel(&options, &credentials).await.map_err(ConnectError::from)?;
                connected.send_replace(Some(channel.clone()));
                Ok(channel)
            }
        };
        let options = XdsOptions {
            node: node::node(settings),
            state_file: settings.state_dir.as_ref().map(|dir| dir.join("snapshot")),
            chance: fastrand::Rng::new(),
        };
        tokio::spawn(client::run(
            options,
            connect,
            {
                let store = Arc::clone(&store);
                move |change| store.apply(change)
            },
            move || {
                tokio::spawn(async move {
                    if is_in_pod {
                        first_configuration::filled(&store, first_configuration::PATIENCE).await;
                    }
                    drop(configured);
                });
            },
            stopped,
        ))
    };

    wait_for_signal().await?;
    if settings.is_in_pod() {
        neighbours::leave().await;
    }
    tracing::info!("draining");
    let _draining = readiness.task("nothing more: draining");
    threads.drain(Duration::from_secs(settings.drain_seconds)).await;
    let _ = stop.send(true);
    // The last good configuration is written before the end.
    let _ = tokio::time::timeout(Duration::from_secs(1), configuration).await;
    tracing::info!("stopped");
    Ok(())
}

/// Waits until the pod is seen to be captured.
async fn prove_capture(inbound_port: u16) {
    let mut told = false;
    loop {
        match tokio::task::spawn_blocking(move || capture::prove(inbound_port)).await {
            Ok(Ok(())) => return,
            Ok(Err(reason)) if !told => {
                tracing::error!(
                    %reason,
                    "this pod is not captured, so it does not become ready: look whether the node's CNI plugin was there \
                     when the pod began (DaemonSet weft-cni), and delete the pod"
                );
                told = true;
            }
            // The runtime is ending, or nothing has changed.
            _ => {}
        }
        tokio::time::sleep(CAPTURE_LOOK).await;
    }
}

/// Answers probes where the settings say.
fn serve_health(settings: &Settings, admin: Admin) -> Result<(), AppError> {
    let health = Health::new(admin, settings.app_probes.clone().unwrap_or_default(), settings.socket_mark);
    for &address in &settings.health {
        let failed = |source| AppError::Health { address, source };
        match accept::bind(address, 1) {
            Ok(sockets) => {
                for socket in sockets {
                    let listener = tokio::net::TcpListener::from_std(socket).map_err(failed)?;
                    tokio::spawn(health.clone().serve(listener));
                }
            }
            Err(error) if address.is_ipv6() && is_no_ipv6(&error) => {
                tracing::info!(%address, "no IPv6 here: not listening");
            }
            Err(source) => return Err(failed(source)),
        }
    }
    Ok(())
}

/// Binds every address once per worker.
fn bind(settings: &Settings) -> Result<Vec<Bound>, AppError> {
    let workers = settings.worker_count();
    let directions = [(Direction::Outbound, &settings.outbound), (Direction::Inbound, &settings.inbound)];
    let mut bound = Vec::new();
    for (direction, addresses) in directions {
        for &Listen { address, fixed } in addresses {
            match accept::bind(address, workers) {
                Ok(sockets) => bound.push(Bound { direction, fixed, sockets }),
                Err(error) if address.is_ipv6() && is_no_ipv6(&error) => {
                    tracing::info!(%address, "no IPv6 here: not listening");
                }
                Err(source) => return Err(AppError::Listen { address, source }),
            }
        }
    }
    Ok(bound)
}

fn is_no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(nix::libc::EAFNOSUPPORT | nix::libc::EADDRNOTAVAIL))
}

fn identity_options(settings: &Settings) -> identity::Options {
    identity::Options {
        control_plane: settings.control_plane.clone(),
        bundle: settings.bundle(),
        token_file: settings.join_token_file.clone(),
        namespace: settings.namespace.clone(),
        service_account: settings.service_account.clone(),
        socket_mark: settings.socket_mark,
    }
}

async fn ended(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

async fn wait_for_signal() -> Result<(), AppError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(AppError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AppError::Signals)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// A proxy needs two descriptors per connection: take all that are allowed.
fn raise_descriptor_limit() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1024 };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}
