//! What a control plane in a cluster is told, and how it reaches the cluster.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tokio::net::TcpListener;

use crate::ca::CaError;
use crate::kubernetes::authority;
use crate::kubernetes::inject::InjectOptions;

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
    /// How to reach the API server, where it is not by the pod's own account, `$KUBECONFIG` or `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
    /// Where everything of ours is.
    pub system_namespace: String,
    /// Of a mesh that begins, and of none else.
    pub trust_domain: Option<String>,
    /// The end of Services' names.
    pub cluster_domain: String,
    /// The proxies that are put beside pods.
    pub injection: InjectOptions,
    /// Who this replica is among the others.
    pub pod_name: String,
    pub pod_ip: Option<IpAddr>,
}

/// Why a control plane does not run in a cluster.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot use the kubeconfig {}: {source}; name another with --kubeconfig or --context", .path.as_ref().map_or("that is found".into(), |path| path.display().to_string()))]
    Kubeconfig { path: Option<PathBuf>, source: Box<KubeconfigError> },
    #[error("no API server is known: {0}; run in a pod with a service account, or name a file with --kubeconfig")]
    NoCluster(Box<InferConfigError>),
    #[error("cannot make a client of the API server: {0}")]
    Client(Box<kube::Error>),
    #[error(transparent)]
    Authority(Box<authority::OpenError>),
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

/// A client of the cluster's API server.
pub async fn client(settings: &Settings) -> Result<Client, RunError> {
    let mut config = config(settings).await?;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    config.write_timeout = Some(SILENCE);
    Client::try_from(config).map_err(|error| RunError::Client(Box::new(error)))
}

async fn config(settings: &Settings) -> Result<Config, RunError> {
    if settings.kubeconfig.is_none() && settings.context.is_none() {
        return Config::infer().await.map_err(|error| RunError::NoCluster(Box::new(error)));
    }
    let path = settings.kubeconfig.clone();
    let failed = |source| RunError::Kubeconfig { path: path.clone(), source: Box::new(source) };
    let options = KubeConfigOptions { context: settings.context.clone(), ..KubeConfigOptions::default() };
    let file = match &settings.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    Config::from_custom_kubeconfig(file.map_err(failed)?, &options).await.map_err(failed)
}

pub(super) async fn listen(
    address: SocketAddr,
    purpose: &'static str,
    flag: &'static str,
) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, purpose, flag, source })
}
