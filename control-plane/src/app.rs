//! A control plane, wired: files and API -> store -> compiler -> proxies. (In a cluster [`crate::kubernetes::run`] wires one;
//! [`Publisher`] and [`Proxies`] are the same in both.)
//!
//! The parts that face the proxies come in as [`Parts`]; everything else is made here, in the order in which it
//! depends on each other, and ends together when one part fails or `stop` comes.

mod configuration;
mod parts;
mod publisher;
mod socket;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

pub use parts::{Proxies, assemble};
pub use publisher::{Publish, Publisher};

use crate::compile::Compiler;
use crate::manage::{Facts, Manage};
use crate::store::{Lock, LockError, Snapshot, Store, StoreError};
use crate::verdicts::Verdicts;
use crate::watch::{Directory, WatchError, keep};
use socket::Socket;

/// The command line's socket in the data directory.
const SOCKET: &str = "api.sock";

/// Requests that are under way when the control plane is stopped get this long.
pub const GRACE: Duration = Duration::from_secs(5);

/// Where a control plane keeps its data and is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    pub data: PathBuf,
    /// Where proxies connect.
    pub listen: SocketAddr,
    /// A directory of documents to keep in the store.
    pub config_dir: Option<PathBuf>,
    /// Programs for running proxies, one for each architecture; without any, the one beside our own.
    pub proxy_programs: Vec<PathBuf>,
}

/// A future that ends with a server.
pub type Serving = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
/// A future that does not end.
pub type Upgrading = Pin<Box<dyn Future<Output = ()> + Send>>;
/// Ends when the control plane does.
pub type Stop = watch::Receiver<bool>;

/// What faces the proxies.
pub struct Parts {
    /// Puts resources in force, with the revision they come from.
    pub publish: Publish,
    /// What proxies report of undeclared ports.
    pub verdicts: Arc<Verdicts>,
    /// Identities and connected proxies.
    pub facts: Arc<dyn Facts>,
    /// Gives running proxies their programs, as documents say, until it is dropped.
    pub upgrade: Box<dyn FnOnce(watch::Receiver<Arc<Snapshot>>) -> Upgrading + Send>,
    /// Serves identities and ADS on a socket until the control plane stops.
    pub serve: Box<dyn FnOnce(TcpListener, Stop) -> Serving + Send>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// Why a control plane does not run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error("cannot listen for proxies on {address}: {source}; {}", listen_remedy(.source))]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("cannot listen for the command line on {}: {source}; {}", .path.display(), socket_remedy(.path))]
    Socket { path: PathBuf, source: std::io::Error },
    #[error("{0}")]
    Parts(String),
    #[error("{part} ended: {what}")]
    Ended { part: &'static str, what: String },
}

fn listen_remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "stop what uses the port, or choose another with --listen",
        std::io::ErrorKind::PermissionDenied => "choose a port above 1023 with --listen",
        _ => "choose an address of this machine with --listen",
    }
}

fn socket_remedy(path: &Path) -> &'static str {
    if path.as_os_str().len() > socket::LONGEST_PATH {
        "the path is longer than a socket's may be: choose a shorter directory with --data"
    } else {
        "check the permissions of the data directory"
    }
}

/// Runs a control plane until `stop`. `assemble` makes the parts that face the proxies once the data directory is
/// ours and holds the store; `ready` is told the address proxies connect to when everything serves.
pub async fn run(
    settings: Settings,
    assemble: impl FnOnce(&Settings) -> Result<Parts, String>,
    ready: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()>,
) -> Result<(), AppError> {
    Socket::check(&settings.data.join(SOCKET))?;
    let _lock = Lock::acquire(&settings.data)?;
    let listen = |source| AppError::Listen { address: settings.listen, source };
    let listener = TcpListener::bind(settings.listen).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let store = Arc::new(Store::open(&settings.data)?);
    let Parts { publish, verdicts, facts, upgrade, serve } = assemble(&settings).map_err(AppError::Parts)?;

    let (problems, current_problems) = watch::channel(Vec::new());
    let directory = settings.config_dir.as_deref().map(Directory::open).transpose()?;
    let directory = match directory {
        Some(directory) => Some(first_reading(directory, &store, &problems).await?),
        None => None,
    };
    // What is in force before the first proxy can ask is complete.
    let revisions = store.subscribe();
    let compiler = Compiler::new(&facts.trust_domain());
    let mut publisher = Publisher { publish, verdicts, compiler, findings: watch::Sender::default() };
    publisher.publish(&store.snapshot());

    let socket = Socket::bind(&settings.data.join(SOCKET))?;
    let (stopping, stop_seen) = watch::channel(false);
    let management = Manage {
        store: Arc::clone(&store),
        facts,
        problems: current_problems,
        started_at: weft_proxy::clock::unix_seconds(),
    };
    let mut proxies = tokio::spawn(serve(listener, stop_seen.clone()));
    let mut api = tokio::spawn(socket.serve(management, stop_seen));
    let upgrades = tokio::spawn(upgrade(store.subscribe()));
    let mut publisher = tokio::spawn(publisher.follow(revisions));
    let keeper = directory.map(|directory| tokio::spawn(keep(directory, Arc::clone(&store), problems)));
    tracing::info!(data = %settings.data.display(), listen = %address, revision = store.snapshot().revision, "control plane runs");
    ready(address);

    let ended = tokio::select! {
        () = stop => None,
        result = &mut proxies => Some(("the server for proxies", flatten(result))),
        result = &mut api => Some(("the server for the command line", flatten(result))),
        result = &mut publisher => Some(("the compiler", result.map_err(|error| error.to_string()))),
    };
    stopping.send_replace(true);
    if let Some(keeper) = keeper {
        keeper.abort();
    }
    publisher.abort();
    upgrades.abort();
    if let Some((part, result)) = ended {
        let what = result.err().unwrap_or_else(|| "without a reason".to_owned());
        return Err(AppError::Ended { part, what });
    }
    tracing::info!("control plane stops");
    let finish = async { (proxies.await, api.await) };
    if tokio::time::timeout(GRACE, finish).await.is_err() {
        tracing::warn!("requests were still under way after {} s", GRACE.as_secs());
    }
    Ok(())
}

fn flatten(result: Result<Result<(), String>, tokio::task::JoinError>) -> Result<(), String> {
    result.unwrap_or_else(|error| Err(error.to_string()))
}

async fn first_reading(
    mut directory: Directory,
    store: &Arc<Store>,
    problems: &watch::Sender<Vec<String>>,
) -> Result<Directory, AppError> {
    let (store, at) = (Arc::clone(store), weft_proxy::clock::unix_seconds());
    let read = tokio::task::spawn_blocking(move || {
        let found = directory.sync(&store, at);
        (directory, found)
    });
    let (directory, found) =
        read.await.map_err(|error| AppError::Ended { part: "the first reading", what: error.to_string() })?;
    for problem in &found {
        tracing::warn!("not applied: {problem}");
    }
    problems.send_replace(found);
    Ok(directory)
}
