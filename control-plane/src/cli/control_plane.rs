//! `weft control-plane`: runs one.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::fmt::format::FmtSpan;
use weft_proto::names::CONTROL_PLANE_PORT;
use weft_proto::weft::ProxyStatus;

use super::{Context, Failure};
use crate::app::{self, Parts, Settings};
use crate::manage::{Facts, Token};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where proxies connect, for identities and configuration.
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), CONTROL_PLANE_PORT))]
    listen: SocketAddr,
    /// A directory of documents to keep in the store: files added, changed and removed take effect at once.
    #[arg(long, value_name = "DIR")]
    config_dir: Option<PathBuf>,
    /// Trust domain: the first part of all identities of the mesh.
    #[arg(long, value_name = "DOMAIN", default_value = "weft.local")]
    trust_domain: String,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        start_log();
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
            let assemble = |_: &Settings| Ok(alone(trust_domain));
            app::run(settings, assemble, |_| {}, stop).await.map_err(|error| Failure::new(error.to_string()))
        });
        // A blocked disk must not keep the program from ending.
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    }
}

/// The log goes to standard error. Without a reader the program goes on.
fn start_log() {
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let _ = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false)
        .with_span_events(FmtSpan::NONE)
        .try_init();
}

/// Parts without proxies: the documents are kept and checked, and nobody is served.
///
/// The seam for the certificate authority and the ADS server: `publish` becomes `World::publish`, `facts` the
/// authority's and the sessions', `serve` the TLS listener of both services.
fn alone(trust_domain: String) -> Parts {
    struct Alone {
        trust_domain: String,
    }
    impl Facts for Alone {
        fn trust_domain(&self) -> String {
            self.trust_domain.clone()
        }
        fn root_expires_at(&self) -> i64 {
            0
        }
        fn proxies(&self) -> Vec<ProxyStatus> {
            Vec::new()
        }
        fn create_token(&self, _: &str, _: &str, _: Duration) -> Result<Token, String> {
            Err("this control plane has no certificate authority".to_owned())
        }
    }
    Parts {
        publish: Box::new(|revision, compiled| {
            tracing::debug!(revision, shared = compiled.shared.len(), workloads = compiled.scoped.len(), "compiled");
        }),
        facts: Arc::new(Alone { trust_domain }),
        serve: Box::new(|listener, mut stop| {
            Box::pin(async move {
                // The port is held, so that two control planes do not take it in turns.
                let _listener = listener;
                let _ = stop.wait_for(|stop| *stop).await;
                Ok(())
            })
        }),
    }
}
