//! `weft-proxy`: the proxy alone, for the sidecar image.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Weft's sidecar proxy
#[derive(Debug, Parser)]
#[command(version, about, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Option<weft_proxy::config::Settings>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the kernel redirect a workload's traffic to the proxy
    Capture(weft_proxy::capture::CaptureArgs),
}

/// Exit code for bad configuration, as in `sysexits.h`.
const EX_USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match (cli.command, cli.settings) {
        (Some(Command::Capture(args)), _) => match weft_proxy::capture::run(args) {
            Ok(code) => code,
            Err(error) => failed(&error),
        },
        (None, Some(settings)) => match weft_proxy::app::run(&settings) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        },
        (None, None) => {
            eprintln!("weft-proxy: no settings; see --help");
            ExitCode::from(EX_USAGE)
        }
    }
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("weft-proxy: {error}");
    ExitCode::FAILURE
}
