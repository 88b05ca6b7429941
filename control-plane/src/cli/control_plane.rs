//! `weft control-plane`: runs one.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use weft_proto::names::CONTROL_PLANE_PORT;

use super::{Context, Failure};
use crate::app::{self, Settings};
use crate::kubernetes::access::Access;
use crate::kubernetes::inject::InjectOptions;
use crate::kubernetes::{names, run};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where proxies connect, for identities and configuration.
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), CONTROL_PLANE_PORT))]
    listen: SocketAddr,
    /// A directory of documents to keep in the store: files added, changed and removed take effect at once.
    #[arg(long, value_name = "DIR", conflicts_with = "kubernetes")]
    config_dir: Option<PathBuf>,
    /// Trust domain, the first part of all identities of the mesh; chosen at the first start
    /// [default: weft.local, or cluster.local with --kubernetes]
    #[arg(long, value_name = "DOMAIN")]
    trust_domain: Option<String>,
    /// A program that running proxies are given where the Mesh says `proxyUpgrade: live`; repeated, one for each architecture
    /// [default: weft-proxy beside this program]
    #[arg(long = "proxy-program", env = "WEFT_PROXY_PROGRAM", value_delimiter = ',', value_name = "FILE")]
    proxy_programs: Vec<PathBuf>,
    /// Log level: off, error, warn, info, debug, trace
    #[arg(long, env = "WEFT_LOG", default_value = "info", value_name = "LEVEL")]
    log: LevelFilter,
    #[command(flatten)]
    cluster: InCluster,
    #[command(flatten, next_help_heading = "Proxies beside pods")]
    injection: InjectOptions,
}

/// What a control plane in a cluster is told beside.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "In a cluster")]
struct InCluster {
    /// Run in a Kubernetes cluster: documents are its objects, identities its service accounts.
    #[arg(long, env = "WEFT_KUBERNETES")]
    kubernetes: bool,
    /// How to reach the API server [default: the pod's own account, $KUBECONFIG, or ~/.kube/config]
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", requires = "kubernetes")]
    context: Option<String>,
    /// Namespace of the control plane and all that belongs to it.
    #[arg(long, value_name = "NAMESPACE", default_value = names::SYSTEM_NAMESPACE)]
    system_namespace: String,
    /// Name of this replica among the others [default: the host's name]
    #[arg(long, value_name = "NAME", requires = "kubernetes")]
    pod_name: Option<String>,
    /// File with the token this replica shows to the others; without one it knows of its own proxies alone.
    #[arg(long, value_name = "FILE", default_value = names::REPLICA_TOKEN_FILE)]
    replica_token: PathBuf,
    /// Where the API server calls the webhooks.
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = everywhere(names::WEBHOOK_PORT))]
    webhook_listen: SocketAddr,
    /// Where probes, metrics and the command line ask.
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = everywhere(names::API_PORT))]
    api_listen: SocketAddr,
}

/// A port of all addresses of both families.
fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from(std::net::Ipv6Addr::UNSPECIFIED), port)
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        start_log(self.log);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(format!("cannot start threads: {error}")))?;
        let result = runtime.block_on(async {
            let stop = stopped().map_err(|error| Failure::new(format!("no signals: {error}")))?;
            if self.cluster.kubernetes {
                let settings = self.in_cluster();
                run::run(settings, stop).await.map_err(|error| Failure::new(error.to_string()))
            } else {
                let settings = Settings {
                    data: context.data.clone(),
                    listen: self.listen,
                    config_dir: self.config_dir,
                    proxy_programs: self.proxy_programs,
                };
                let assemble = |settings: &Settings| app::assemble(settings, self.trust_domain);
                app::run(settings, assemble, |_| {}, stop).await.map_err(|error| Failure::new(error.to_string()))
            }
        });
        // A blocked disk must not keep the program from ending.
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    }

    fn in_cluster(self) -> run::Settings {
        let InCluster { kubeconfig, context, system_namespace, pod_name, replica_token, .. } = self.cluster;
        let host = || nix::unistd::gethostname().map_or_else(|_| "weft".into(), |name| name.to_string_lossy().into());
        run::Settings {
            listen: self.listen,
            webhooks: self.cluster.webhook_listen,
            http: self.cluster.api_listen,
            access: Access { kubeconfig, context },
            system_namespace,
            trust_domain: self.trust_domain,
            injection: self.injection,
            proxy_programs: self.proxy_programs,
            pod_name: pod_name.unwrap_or_else(host),
            replica_token,
        }
    }
}

/// Completes when the program is told to end.
fn stopped() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// The log goes to standard error. Without a reader the program goes on.
fn start_log(level: LevelFilter) {
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let _ = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false)
        .with_span_events(FmtSpan::NONE)
        .try_init();
}
