//! `weft control-plane`: runs one.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use weft_proto::names::CONTROL_PLANE_PORT;

use super::{Context, Failure};
use crate::app::{self, Settings};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where proxies connect, for identities and configuration.
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), CONTROL_PLANE_PORT))]
    listen: SocketAddr,
    /// A directory of documents to keep in the store: files added, changed and removed take effect at once.
    #[arg(long, value_name = "DIR")]
    config_dir: Option<PathBuf>,
    /// Trust domain, the first part of all identities of the mesh; chosen at the first start [default: weft.local]
    #[arg(long, value_name = "DOMAIN")]
    trust_domain: Option<String>,
    /// Log level: off, error, warn, info, debug, trace
    #[arg(long, env = "WEFT_LOG", default_value = "info", value_name = "LEVEL")]
    log: LevelFilter,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        start_log(self.log);
        let settings = Settings { data: context.data.clone(), listen: self.listen, config_dir: self.config_dir };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(format!("cannot start threads: {error}")))?;
        let trust_domain = self.trust_domain;
        let result = runtime.block_on(async {
            let mut terminate =
                signal(SignalKind::terminate()).map_err(|error| Failure::new(format!("no signals: {error}")))?;
            let mut interrupt =
                signal(SignalKind::interrupt()).map_err(|error| Failure::new(format!("no signals: {error}")))?;
            let stop = async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            let assemble = |settings: &Settings| app::assemble(settings, trust_domain);
            app::run(settings, assemble, |_| {}, stop).await.map_err(|error| Failure::new(error.to_string()))
        });
        // A blocked disk must not keep the program from ending.
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    }
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
