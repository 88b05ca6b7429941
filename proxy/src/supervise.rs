//! Upgrade in place: a small parent puts a new proxy in the place of a running one, without a refused or reset connection.
//!
//! `weft-proxy supervise SETTINGS` starts the proxy as its child, with a [socket](channel) as the child's standard input,
//! passes signals on, collects processes that end, and ends with the proxy's exit code. It has no runtime and reads no
//! settings, and so rarely has to change itself: it stays when the proxy's program is replaced.
//!
//! A handover, with what is said over the sockets ([`message`] has the bytes):
//!
//! | the proxy that runs | supervisor | the new one |
//! |---|---|---|
//! | `Replace` + program, or nobody: SIGHUP | starts the program, `Prepare` → | gets a certificate and its configuration |
//! | | | ← `Configured` |
//! | | ← `HandOver` | |
//! | `Listeners` + sockets → | keeps copies, `TakeOver` + sockets → | accepts on every one of them |
//! | | | ← `Serving` |
//! | | ← `Drain` | |
//! | finishes what is under way, and ends | | |
//!
//! - Nothing is lost on the way: every listening socket itself travels, with the connections the kernel has queued on it, and
//!   the old one closes its copies only when the new one accepts.
//! - Whatever goes wrong before `Serving` ends the new one; the old one is told by `Refused`, and has never stopped.
//! - One that ends within a minute after `Serving` is taken back: the supervisor starts the program from before on the
//!   copies it kept, and refuses the other one from then on.
//! - A program that does not know this protocol ends at once, as it does not know the flag `--supervised`, which has the
//!   protocol's version. Versions can be mixed: a kind of message that is not known is ignored.
//! - Supervisor and proxies trust each other: they are one user's, and nobody else can reach the sockets.

mod channel;
mod link;
mod machine;
mod message;
mod parent;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use tracing::level_filters::LevelFilter;

use crate::telemetry;

pub use channel::Inherited;
pub use link::{Order, ReplaceError, Supervisor, join};
pub use message::{Counts, FromProxy, ListenerName, PROTOCOL, Preparation, Why, kind};

/// What the supervisor is called by.
const NAME: &str = "supervise";

/// What `weft-proxy supervise` takes.
#[derive(Debug, Args)]
pub struct SuperviseArgs {
    /// Settings of the proxy, as `weft-proxy --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "SETTINGS")]
    settings: Vec<OsString>,
}

/// Whether this process was started as a supervisor. Asked before the command line is read: that alone would take more
/// memory than a supervisor has.
pub fn is_called() -> bool {
    std::env::args_os().nth(1).is_some_and(|argument| argument == NAME)
}

/// Runs the supervisor to its end.
pub fn run() -> ExitCode {
    let level = std::env::var("WEFT_LOG").ok().and_then(|level| level.parse().ok());
    telemetry::start_log(level.unwrap_or(LevelFilter::INFO), false);
    match parent::run(std::env::args_os().skip(2).collect()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("weft-proxy supervise: {error}");
            ExitCode::FAILURE
        }
    }
}
