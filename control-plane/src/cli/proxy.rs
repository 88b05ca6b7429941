//! `weft proxy`: runs a proxy, or looks into a running one.

pub(super) mod admin;
pub(super) mod asking;
mod config;
mod log_level;
mod tables;

use weft_proxy::config::Settings;

use super::{Context, Failure};

#[derive(Debug, clap::Args)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Option<Settings>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show the configuration a proxy runs with: listeners, routes, clusters, endpoints.
    Config(config::Config),
    /// Show what a proxy logs, or change it.
    LogLevel(log_level::LogLevel),
}

/// A workload as it was named: NAME in a namespace, or NAMESPACE/NAME.
fn workload_of(namespace: &str, named: String) -> Result<String, Failure> {
    match named.split_once('/') {
        None => Ok(format!("{namespace}/{named}")),
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => Ok(named),
        Some(_) => Err(Failure::usage("a workload is NAME or NAMESPACE/NAME; name a pod without its kind")),
    }
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        match (self.command, self.settings) {
            (Some(Command::Config(config)), _) => config.run(context),
            (Some(Command::LogLevel(level)), _) => level.run(context),
            (None, Some(settings)) => weft_proxy::app::run(&settings).map_err(|error| Failure::new(error.to_string())),
            (None, None) => {
                Err(Failure::usage("`weft proxy` wants settings, or what to show; see `weft proxy --help`"))
            }
        }
    }
}
