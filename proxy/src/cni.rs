//! Capture from the node, for pods that may not capture themselves: a chained CNI plugin, and its installer.
//!
//! The container runtime calls the plugin for each pod's network, after the plugins that made it. For an injected pod
//! without a capturing init container it installs the rules that container would have; every other pod passes
//! unlooked at. What is known of a pod comes with the runtime's call (its annotations), or from the API server.
//!
//! - `plugin` speaks the runtime's protocol; `pod` judges; `api` asks the API server, by what `access` holds.
//! - `install` runs on each node: it puts the program and the entry in the network configuration (`conflist`) there,
//!   keeps both as they must be, keeps the token fresh, and takes the node's taint off once pods are safe.
//!
//! Invariants: a pod that is not ours is never held up by us, as far as one can know that it is not; one that is ours never
//! starts without its rules: the call fails, and the runtime calls again.
//!
//! It lives in this program, and not in `weft`, because the nodes have the proxy's image anyhow.

mod access;
mod api;
mod conflist;
mod install;
mod plugin;
mod pod;

use std::env;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use clap::{Args, Subcommand};

pub use install::{InstallArgs, InstallError};

/// A node's network configuration is a few kilobytes.
const LONGEST_INPUT: u64 = 4 << 20;

/// Captures pods' traffic from the node, as a CNI plugin; without a verb, does what the container runtime asks for.
#[derive(Debug, Args)]
pub struct CniArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Put the plugin on this node and keep it there, until SIGTERM
    Install(Box<InstallArgs>),
    /// Tell whether pods that start on this node are captured; exits with 1 if not
    Check(Box<InstallArgs>),
}

/// Whether this process was started by a container runtime: without arguments, everything said by variables.
pub fn is_called() -> bool {
    env::args_os().len() <= 1 && env::var_os("CNI_COMMAND").is_some()
}

/// Does what the command line asks for.
///
/// # Errors
/// [`InstallError`], when the plugin cannot be put on the node, or is asked for and not there.
pub fn run(args: CniArgs) -> Result<ExitCode, InstallError> {
    match args.verb {
        Some(Verb::Install(args)) => install::run(*args).map(|()| ExitCode::SUCCESS),
        Some(Verb::Check(args)) => install::check(*args).map(|()| ExitCode::SUCCESS),
        None => Ok(plugin()),
    }
}

/// Does what the container runtime asks for, and answers as the CNI specification says.
pub fn plugin() -> ExitCode {
    let mut input = String::new();
    // What cannot be read is an input that is cut short: the plugin says so.
    let _ = io::stdin().lock().take(LONGEST_INPUT).read_to_string(&mut input);
    let answer = plugin::answer(&|name| env::var(name).ok(), &input);
    let written = io::stdout().lock().write_all(answer.text.as_bytes());
    if answer.is_good && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
