//! What a control plane in a cluster is told, and how it reaches the cluster.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use kube::{Client, Config};
use tokio::net::TcpListener;

use crate::ca::CaError;
use crate::kubernetes::access::{Access, AccessError};
use crate::kubernetes::authority;
use crate::kubernetes::inject::InjectOptions;
use crate::programs::ProgramError;

/// How long the API server may take to accept a connection: a server that vanished is noticed after this.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest silence of the API server within an answer. Watches end by themselves every minute.
const SILENCE: Duration = Duration::from_secs(75);

/// What a control plane in a cluster is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where proxies connect.
    pub listen: SocketAddr,
    /// Where the API server calls the webhooks.
    pub webhooks: SocketAddr,
    /// Probes, metrics and the command line.
    pub http: SocketAddr,
    /// How to reach the API server.
    pub access: Access,
    /// Where everything of ours is.
    pub system_namespace: String,
    /// Of a mesh that begins, and of none else.
    pub trust_domain: Option<String>,
    /// The proxies that are put beside pods.
    pub injection: InjectOptions,
    /// Programs for those that run already; without any, the one beside our own.
    pub proxy_programs: Vec<PathBuf>,
    /// Who this replica is among the others.
    pub pod_name: String,
    /// The token it shows to them.
    pub replica_token: PathBuf,
}

/// Why a control plane does not run in a cluster.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("no way to the API server: {0}")]
    Access(#[from] AccessError),
    #[error(transparent)]
    Authority(Box<authority::OpenError>),
    #[error(transparent)]
    Programs(#[from] ProgramError),
    #[error("cannot serve the webhooks: {0}")]
    Webhooks(Box<CaError>),
    #[error("cannot listen for {purpose} on {address}: {source}; choose another address with {flag}")]
    Listen { address: SocketAddr, purpose: &'static str, flag: &'static str, source: std::io::Error },
    #[error("{part} ended: {what}")]
    Ended { part: &'static str, what: String },
}

impl From<authority::OpenError> for RunError {
    fn from(error: authority::OpenError) -> Self {
        Self::Authority(Box::new(error))
    }
}

/// A client of the cluster's API server, for questions with a limit of their own: what an overloaded server refuses is
/// asked again within that.
pub async fn client(settings: &Settings) -> Result<Client, RunError> {
    connect(settings, for_long).await
}

/// The same for watches.
pub(super) async fn watching_client(settings: &Settings) -> Result<Client, RunError> {
    connect(settings, for_watches).await
}

async fn connect(settings: &Settings, adapt: fn(Config) -> Config) -> Result<Client, RunError> {
    let (config, _) = settings.access.configuration().await?;
    Ok(Client::try_from(adapt(config)).map_err(|error| settings.access.refused(&error))?)
}

fn for_long(mut config: Config) -> Config {
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    config.write_timeout = Some(SILENCE);
    config
}

pub(super) fn for_watches(config: Config) -> Config {
    let mut config = for_long(config);
    // The library would ask an overloaded server again for minutes without a word. A watch tries again by itself, and says
    // meanwhile that what it told last may be old.
    config.default_retry = false;
    config
}

pub(super) async fn listen(
    address: SocketAddr,
    purpose: &'static str,
    flag: &'static str,
) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, purpose, flag, source })
}
