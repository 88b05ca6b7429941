//! Wires the parts of a proxy and runs it to its end.
//!
//! Connections live on worker threads, each with a runtime of its own; certificates, configuration and the admin endpoint
//! live on the caller's thread, so that neither can stall the other.

mod first_configuration;
mod listeners;
mod neighbours;
mod node;
mod operations;
mod report;
mod succession;
mod upgrade;
mod worker_thread;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tonic::transport::Channel;

use crate::admin::{Admin, AdminListener, Readiness, Task};
use crate::capture;
use crate::config::{AdminAddress, Destinations, Settings, Upgrade};
use crate::health::Health;
use crate::identity::{self, IdentityError};
use crate::limits::raise_descriptor_limit;
use crate::state::{Demand, Limits, Store};
use crate::telemetry::{self, Registry};
use crate::tls::CredentialStore;
use crate::xds::backoff::Backoff;
use crate::xds::client::{self, Asks, ConnectError, XdsOptions};
use listeners::Listeners;
use succession::{End, Succession};
use upgrade::Upgrades;
use worker_thread::{Pace, Threads};

/// What is missing until connections are accepted.
const LISTENERS: &str = "listeners";

/// One attempt to reach the control plane waits this long for our certificate: less than the attempt may take.
const CERTIFICATE_WAIT: Duration = Duration::from_secs(5);

/// From being replaced to leaving the control plane: whoever asked for it over that connection gets an answer first.
const PARTING: Duration = Duration::from_secs(1);

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
    #[error("cannot join the supervisor: {0}; `--supervised` is for `weft-proxy supervise` alone")]
    Supervisor(#[source] io::Error),
    #[error("cannot copy a listener for the next proxy: {0}")]
    Copy(#[source] io::Error),
}

/// Runs a proxy until SIGTERM or SIGINT, or until another one has taken over, then drains it.
///
/// # Errors
/// When it cannot start.
pub fn run(settings: &Settings) -> Result<(), AppError> {
    telemetry::start_log(settings.log, false);
    if settings.supervised.is_some() {
        succession::settle();
    }
    let descriptors = raise_descriptor_limit();
    let registry = Registry::default();
    registry.install();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Runtime)?;
    let result = runtime.block_on(control(settings, registry, descriptors));
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

async fn control(settings: &Settings, registry: Registry, descriptors: u64) -> Result<(), AppError> {
    let mut succession = Succession::join(settings.supervised)?;
    let outcome = serve(settings, registry, descriptors, &mut succession).await;
    if let Err(error) = &outcome {
        succession.failed(error).await;
    }
    outcome
}

async fn serve(
    settings: &Settings,
    registry: Registry,
    descriptors: u64,
    succession: &mut Succession,
) -> Result<(), AppError> {
    let Ok(is_successor) = succession.begin().await else { return Ok(()) };
    let supervisor = succession.supervisor();
    let readiness = Readiness::default();
    let listening = readiness.task(LISTENERS);
    let certified = readiness.task("certificate");
    let configured = readiness.task("configuration");
    let (store, asks) = open_store(settings);
    let resumes = settings.tuning.tls_resumption;
    let credentials = if resumes { CredentialStore::new() } else { CredentialStore::without_resumption() };
    let credentials = Arc::new(credentials);
    let (stop, stopped) = watch::channel(false);

    let (writes_state, may_write_state) = watch::channel(!is_successor);
    // Before anything else: what cannot listen need not begin.
    let own_listeners = if is_successor { None } else { Some(Listeners::open(settings, Vec::new())?) };
    let admin = Admin {
        readiness: readiness.clone(),
        registry,
        store: Arc::clone(&store),
        credentials: Arc::clone(&credentials),
        tuning: settings.tuning.clone(),
    };
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
    let report =
        tokio::spawn(report::run(settings.workload.clone(), Arc::clone(&store), connection.clone(), reconnect.clone()));
    let xds = XdsOptions {
        node: node::node(settings),
        state_file: settings.state_dir.as_ref().map(|dir| dir.join("snapshot")),
        writes_state: may_write_state,
        asks,
        chance: fastrand::Rng::new(),
    };
    let configuration = follow(settings, xds, &store, &credentials, connected, configured, stopped);

    let listeners = if let Some(listeners) = own_listeners {
        listeners
    } else {
        let Ok(inherited) = succession.take_over(readiness.all_but(LISTENERS)).await else { return Ok(()) };
        Listeners::open(settings, inherited)?
    };
    let copies = if supervisor.is_some() { listeners.copies().map_err(AppError::Copy)? } else { Vec::new() };
    if let Some(port) = listeners.inbound_port().filter(|_| settings.require_capture) {
        let captured = readiness.task("capture");
        tokio::spawn(async move {
            prove_capture(port).await;
            drop(captured);
        });
    }
    let Listeners { bound, admin: admin_listeners, health } = listeners;
    let threads = Threads::start(settings, bound, &store, &credentials, descriptors).map_err(AppError::Thread)?;
    let answering = answer(settings, &admin, admin_listeners, health);
    drop(listening);
    writes_state.send_replace(true);
    tracing::info!(
        workload = %format!("{}/{}", settings.namespace, settings.workload), workers = settings.worker_count(),
        version = env!("CARGO_PKG_VERSION"), "proxy started"
    );
    succession.serving().await;
    // Only now: whoever asks of this workload means the proxy that serves.
    let upgrades = supervisor.filter(|_| settings.upgrade == Upgrade::Live).and_then(Upgrades::new);
    tokio::spawn(operations::run(
        settings.workload.clone(),
        operations::Handlers { admin, upgrades },
        connection,
        reconnect,
        Backoff::new(fastrand::Rng::new()),
    ));

    let running = Running { readiness, threads, answering, report, writes_state, stop };
    match succession.end(copies).await {
        End::Left => running.leave(settings).await,
        End::Replaced => running.replaced(settings, succession).await,
    }
    // The last good configuration is written before the end.
    let _ = tokio::time::timeout(Duration::from_secs(1), configuration).await;
    tracing::info!("stopped");
    Ok(())
}

/// Follows the control plane's configuration. `connected` tells of each connection it comes over, and `configured` is done with
/// the first that is complete.
fn follow(
    settings: &Settings,
    xds: XdsOptions,
    store: &Arc<Store>,
    credentials: &Arc<CredentialStore>,
    connected: watch::Sender<Option<Channel>>,
    configured: Task,
    stopped: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let (options, credentials) = (identity_options(settings), Arc::clone(credentials));
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
    let (store, applied) = (Arc::clone(store), Arc::clone(store));
    let complete = move || {
        tokio::spawn(async move {
            if is_in_pod {
                first_configuration::filled(&store, first_configuration::PATIENCE).await;
            }
            drop(configured);
        });
    };
    tokio::spawn(client::run(xds, connect, move |change| applied.apply(change), complete, stopped))
}

/// What is known, and where connections ask for what is not.
fn open_store(settings: &Settings) -> (Arc<Store>, Option<Asks>) {
    match settings.destinations {
        Destinations::All => (Arc::new(Store::new(settings.source())), None),
        Destinations::Used => {
            let (demand, asks) = Demand::new(Limits::default());
            let store = Arc::new(Store::on_demand(settings.source(), demand));
            (Arc::clone(&store), Some(Asks { store, asks }))
        }
    }
}

/// What a proxy that serves has to end.
struct Running {
    readiness: Readiness,
    threads: Threads,
    /// Whoever answers probes and people.
    answering: Vec<AbortHandle>,
    report: JoinHandle<()>,
    writes_state: watch::Sender<bool>,
    stop: watch::Sender<bool>,
}

impl Running {
    /// Nobody takes the connections that come from now on.
    async fn leave(mut self, settings: &Settings) {
        if settings.is_in_pod() {
            neighbours::leave().await;
        }
        tracing::info!("draining");
        let _draining = self.readiness.task("nothing more: draining");
        self.threads.stop(Pace::Leaving);
        self.threads.ended(Duration::from_secs(settings.drain_seconds)).await;
        let _ = self.stop.send(true);
    }

    /// Another proxy takes them, and is the one that the pod, the control plane and the file of the last good configuration
    /// know from now on.
    async fn replaced(mut self, settings: &Settings, succession: &mut Succession) {
        tracing::info!("another proxy has taken over: finishing what is under way");
        self.answering.iter().for_each(AbortHandle::abort);
        self.writes_state.send_replace(false);
        self.report.abort();
        self.threads.stop(Pace::Replaced);
        let stop = self.stop;
        tokio::spawn(async move {
            tokio::time::sleep(PARTING).await;
            let _ = stop.send(true);
        });
        let is_told = tokio::select! {
            () = self.threads.ended(Duration::from_secs(settings.handover_drain_seconds)) => false,
            _ = succession.told_to_leave() => true,
        };
        if is_told {
            tracing::info!("draining");
            self.threads.stop(Pace::Leaving);
            self.threads.ended(Duration::from_secs(settings.drain_seconds)).await;
        }
    }
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

/// Answers probes and people; what stops doing so when it is told to.
fn answer(
    settings: &Settings,
    admin: &Admin,
    admin_listeners: Vec<(AdminAddress, AdminListener)>,
    health_listeners: Vec<(SocketAddr, tokio::net::TcpListener)>,
) -> Vec<AbortHandle> {
    let health = Health::new(admin.clone(), settings.app_probes.clone().unwrap_or_default(), settings.socket_mark);
    let admins = admin_listeners.into_iter().map(|(_, listener)| tokio::spawn(admin.clone().serve(listener)));
    let healths = health_listeners.into_iter().map(|(_, listener)| tokio::spawn(health.clone().serve(listener)));
    admins.chain(healths).map(|task| task.abort_handle()).collect()
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
