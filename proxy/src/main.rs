//! `weft-proxy`: the proxy alone, for the sidecar image.

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use weft_proxy::config::Settings;

/// Weft's sidecar proxy
#[derive(Debug, Parser)]
#[command(version, about, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Option<Settings>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the kernel redirect a workload's traffic to the proxy
    Capture(weft_proxy::capture::CaptureArgs),
    /// Capture pods' traffic from the node, as a CNI plugin
    Cni(weft_proxy::cni::CniArgs),
    /// Run the proxy as a child, so that its program can be replaced while it runs
    Supervise(weft_proxy::supervise::SuperviseArgs),
}

fn main() -> ExitCode {
    if weft_proxy::cni::is_called() {
        return weft_proxy::cni::plugin();
    }
    if weft_proxy::supervise::is_called() {
        return weft_proxy::supervise::run();
    }
    let matches = Cli::command().get_matches();
    // Not by `Cli` itself: settings with groups of settings inside are never there for clap when they are optional.
    let outcome = match matches.subcommand() {
        Some(_) => Command::from_arg_matches(&matches).map(|command| match command {
            Command::Capture(args) => weft_proxy::capture::run(args).unwrap_or_else(|error| failed(&error)),
            Command::Cni(args) => weft_proxy::cni::run(args).unwrap_or_else(|error| failed(&error)),
            // Only to be listed: a supervisor was asked for above.
            Command::Supervise(_) => weft_proxy::supervise::run(),
        }),
        None => Settings::from_arg_matches(&matches).map(|settings| match weft_proxy::app::run(&settings) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        }),
    };
    outcome.unwrap_or_else(|error| error.exit())
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("weft-proxy: {error}");
    ExitCode::FAILURE
}
