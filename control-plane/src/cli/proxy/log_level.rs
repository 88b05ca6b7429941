//! `weft proxy log-level`: what a running proxy logs, shown or changed until it ends.

use clap::builder::PossibleValuesParser;
use weft_proto::weft::StatusRequest;

use super::admin::{PATIENCE, admin_of, fetch, put};
use crate::cli::target::{ClusterFlags, Target};
use crate::cli::{Context, Failure};
use crate::document::DEFAULT_NAMESPACE;
use crate::kubernetes::names;

#[derive(Debug, clap::Args)]
#[command(after_help = "What a proxy begins with is its setting WEFT_LOG, in a cluster the annotation \
                        weft.dev/proxy-log-level of its pod.")]
pub(super) struct LogLevel {
    /// The proxy's workload: NAME, or NAMESPACE/NAME.
    workload: String,
    /// From now on; without it the one in force is shown.
    #[arg(value_parser = PossibleValuesParser::new(["off", "error", "warn", "info", "debug", "trace"]))]
    level: Option<String>,
    /// Namespace of the workload.
    #[arg(short, long, value_name = "NAMESPACE", default_value = DEFAULT_NAMESPACE)]
    namespace: String,
    #[command(flatten)]
    cluster: ClusterFlags,
}

impl LogLevel {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let (namespace, name) = self.workload.split_once('/').unwrap_or((&self.namespace, &self.workload));
        let workload = format!("{namespace}/{name}");
        context.block_on(async {
            let Target::Local(mut client) = self.cluster.target(context).await? else {
                let (port, level) = (names::ADMIN_PORT, self.level.as_deref().unwrap_or("debug"));
                return Err(Failure::new(format!(
                    "a proxy in a cluster listens for this inside its pod alone; run `kubectl -n {namespace} port-forward \
                     pod/{name} {port}` and `curl -X PUT http://127.0.0.1:{port}/log-level/{level}`"
                )));
            };
            let status = client.status(StatusRequest {}).await?.into_inner();
            let address = admin_of(&workload, &status.proxies)?;
            let answer = match &self.level {
                None => fetch(address, "/log-level", PATIENCE).await,
                Some(level) => put(address, &format!("/log-level/{level}"), PATIENCE).await,
            };
            let answer = answer.map_err(|error| {
                Failure::new(format!("cannot ask the proxy of {workload} at {address}: {error}; run this where that address can be reached"))
            })?;
            Ok(context.output.line(String::from_utf8_lossy(&answer).trim())?)
        })
    }
}
