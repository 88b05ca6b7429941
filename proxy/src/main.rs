//! `weft-proxy`: the proxy alone, for the sidecar image.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use weft_proxy::config::Settings;

/// Weft's sidecar proxy
#[derive(Debug, Parser)]
#[command(version, about, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Here for the help and the errors: settings that hold further groups are always found absent by clap, so [`Alone`]
    /// reads them.
    #[command(flatten)]
    _settings: Option<Settings>,
}

/// The command line without a subcommand.
#[derive(Debug, Parser)]
#[command(version, about = "Weft's sidecar proxy")]
struct Alone {
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the kernel redirect a workload's traffic to the proxy
    Capture(weft_proxy::capture::CaptureArgs),
}

fn main() -> ExitCode {
    if let Some(Command::Capture(args)) = Cli::parse().command {
        return weft_proxy::capture::run(args).unwrap_or_else(|error| failed(&error));
    }
    match weft_proxy::app::run(&Alone::parse().settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("weft-proxy: {error}");
    ExitCode::FAILURE
}
