//! `weft proxy log-level`: what a running proxy logs, shown or changed until it ends. The control plane asks the proxy, on this
//! machine as in a cluster.

use clap::builder::PossibleValuesParser;
use serde_json::json;

use super::{asking, workload_of};
use crate::cli::output::Format;
use crate::cli::target::{ClusterFlags, Target};
use crate::cli::{Context, Failure, sources};
use crate::document::DEFAULT_NAMESPACE;

#[derive(Debug, clap::Args)]
#[command(after_help = "What a proxy begins with is its setting WEFT_LOG, in a cluster the annotation \
                        weft.dev/proxy-log-level of its pod. In a cluster reading needs role weft-reader in the control \
                        plane's namespace, and changing weft-operator.")]
pub(super) struct LogLevel {
    /// The proxy's workload, in a cluster its pod: NAME, or NAMESPACE/NAME.
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
        let workload = workload_of(&self.namespace, self.workload)?;
        let wanted = self.level.as_deref();
        context.block_on(async {
            let level = match self.cluster.target(context).await? {
                Target::Local(mut client) => asking::log_level(&mut client, &workload, wanted).await?,
                Target::Cluster(remote) => remote.log_level(&workload, wanted, &sources::author()).await?,
            };
            if context.output.format != Format::Table {
                context.output.value(&json!({ "workload": workload, "level": level }))?;
                return Ok(());
            }
            Ok(context.output.line(level)?)
        })
    }
}
