//! The command line: what all verbs share, and the list of them. Each verb is a module of its own below.

mod apply;
mod capture;
mod check;
mod client;
mod cni;
mod control_plane;
mod delete;
mod demo;
mod explain_code;
mod failure;
mod get;
mod inject;
mod install;
mod load;
mod objects;
pub mod output;
mod pod;
mod pods;
mod proxy;
mod remote;
mod scale;
mod shop;
mod sources;
mod status;
mod support_bundle;
mod target;
#[cfg(test)]
mod tests;
mod token;
mod top;
mod uninstall;
mod up;
mod upgrade;
mod upgrades;

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use client::{Client, connect};
pub use failure::Failure;
pub use output::{Format, Output};

/// Makes the enumeration of verbs and hands each to its module: a new verb is a line in the list below.
macro_rules! verbs {
    ($($(#[$attribute:meta])* $name:ident($module:ident),)+) => {
        #[derive(Debug, Subcommand)]
        #[allow(clippy::large_enum_variant, reason = "one of it lives, once")]
        enum Command {
            $($(#[$attribute])* $name($module::Args),)+
        }

        impl Command {
            fn run(self, context: &Context) -> Result<ExitCode, Failure> {
                match self {
                    $(Self::$name(args) => args.run(context).into_exit(),)+
                }
            }
        }
    };
}

/// What verbs end with.
trait IntoExit {
    fn into_exit(self) -> Result<ExitCode, Failure>;
}

impl IntoExit for Result<(), Failure> {
    fn into_exit(self) -> Result<ExitCode, Failure> {
        self.map(|()| ExitCode::SUCCESS)
    }
}

/// Of verbs that have told their failure themselves.
impl IntoExit for ExitCode {
    fn into_exit(self) -> Result<ExitCode, Failure> {
        Ok(self)
    }
}

verbs! {
    /// Watch a sample shop on a mesh of its own: load, faults, and what the mesh does about them.
    Demo(demo),
    /// Run a whole mesh on this machine: control plane, proxies and your programs.
    Up(up),
    /// Change how many replicas of a service run in a mesh started with `weft up`.
    Scale(scale),
    /// Run a control plane: documents, identities and configuration for proxies.
    ControlPlane(control_plane),
    /// Store documents: all of them, or none when anything is wrong.
    Apply(apply),
    /// Show documents.
    Get(get),
    /// Delete documents: all of them, or none when one is missing.
    Delete(delete),
    /// Show the control plane and the proxies connected to it.
    Status(status),
    /// Show live who is called how much, how well and how fast.
    Top(top),
    /// Gather what helps to find out what is wrong with a mesh, in one file.
    SupportBundle(support_bundle),
    /// Put the mesh into a Kubernetes cluster, or show what that would do.
    Install(install),
    /// Bring an installation in a cluster to this program's version, or to other settings.
    Upgrade(upgrade),
    /// Take the mesh out of a cluster.
    Uninstall(uninstall),
    /// Find out what will go wrong in a cluster, before it does.
    Check(check),
    /// Run a proxy beside a workload, or look into a running one.
    Proxy(proxy),
    /// Make the kernel redirect a workload's traffic to its proxy.
    Capture(capture),
    /// Put a proxy beside each pod of Kubernetes manifests, as the cluster's webhook does.
    Inject(inject),
    /// Capture pods' traffic from a node, as a CNI plugin; the proxy's own program does the same and is smaller.
    #[command(hide = true)]
    Cni(cni),
    /// Make join tokens for proxies.
    Token(token),
    /// Explain an error code of `weft-error`, metrics and logs: cause, how to confirm, fix.
    ExplainCode(explain_code),
    #[command(hide = true)]
    Pod(pod),
    /// The demo's sample application.
    #[command(hide = true)]
    Shop(shop),
    /// Constant-rate HTTP load with honest latencies.
    #[command(hide = true)]
    Load(load),
}

/// A service mesh: small proxies beside your workloads, and the control plane that steers them.
#[derive(Debug, Parser)]
#[command(name = "weft", version, propagate_version = true, after_help = EXIT_CODES)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed (the reason is on standard error), 2 wrong usage.
Colour is used on terminals only, and never when NO_COLOR is set.";

/// What every verb takes.
#[derive(Debug, clap::Args)]
struct Global {
    /// Directory of the control plane's data, where its socket is
    /// [default: ~/.local/state/weft, or /var/lib/weft for root].
    #[arg(long, env = "WEFT_DATA", value_name = "DIR", global = true, hide_env_values = true)]
    data: Option<PathBuf>,
    /// How results are written.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Format::Table, global = true)]
    output: Format,
}

/// What a verb works with.
#[derive(Debug)]
pub struct Context {
    pub data: PathBuf,
    /// The directory as the user gave it; verbs that make one of their own want to know.
    pub given_data: Option<PathBuf>,
    pub output: Output,
}

impl Context {
    /// Runs a future to its end on a small runtime.
    pub fn block_on<T>(&self, future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(format!("cannot start: {error}")))?;
        runtime.block_on(future)
    }
}

/// Parses the arguments and runs the verb.
pub fn main() -> ExitCode {
    if weft_proxy::cni::is_called() {
        return weft_proxy::cni::plugin();
    }
    let Arguments { global, command } = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A reader that closed the pipe has seen what it wanted of the help.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let output = Output::new(global.output);
    let context = Context { data: global.data.clone().unwrap_or_else(default_data), given_data: global.data, output };
    match command.run(&context) {
        Ok(code) => code,
        Err(failure) => failure.report(&context.output),
    }
}

/// `$XDG_STATE_HOME/weft`, or `~/.local/state/weft`; `/var/lib/weft` for root.
fn default_data() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    data_directory(nix::unistd::geteuid().is_root(), variable("XDG_STATE_HOME"), variable("HOME"))
}

fn data_directory(is_root: bool, state_home: Option<PathBuf>, home: Option<PathBuf>) -> PathBuf {
    if is_root {
        return PathBuf::from("/var/lib/weft");
    }
    // The XDG specification ignores relative paths.
    let state = state_home.filter(|path| path.is_absolute()).or_else(|| home.map(|home| home.join(".local/state")));
    state.unwrap_or_else(|| PathBuf::from("/var/tmp")).join("weft")
}
