//! Golden signals: names, handles resolved ahead, and the text a scraper reads.
//!
//! The `metrics` facade is the seam; [`Registry`] is the recorder behind it. Handles are resolved with an edge's first
//! signal, never per request.

mod edge;
mod registry;

use std::sync::OnceLock;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

pub(crate) use edge::direction_label;
pub use edge::{Active, CodeClass, Edge, EdgeLabels, Handles, Underway};
pub use registry::{Gauges, MAX_SERIES, Registry};

/// What a level is called, for those who called it otherwise.
pub const LEVELS: &str = "a level is off, error, warn, info, debug or trace";

/// What lets the level be changed, once a log was started.
static LEVEL: OnceLock<reload::Handle<LevelFilter, tracing_subscriber::Registry>> = OnceLock::new();

/// Log output to standard error; `level` is a `tracing` level name or `off`.
pub fn start_log(level: LevelFilter, json: bool) {
    use std::io::IsTerminal;
    let (filter, handle) = reload::Layer::new(level);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    let subscriber = tracing_subscriber::registry().with(filter);
    let started = if json { subscriber.with(lines.json()).try_init() } else { subscriber.with(lines).try_init() };
    if started.is_err() || LEVEL.set(handle).is_err() {
        tracing::debug!("a log was started before");
    }
}

/// The level of that name, in lower case.
pub fn level_of_name(name: &str) -> Option<LevelFilter> {
    // Its own reader also takes numbers, which nobody would understand.
    name.parse().ok().filter(|_| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase()))
}

/// The level in force; `None` where no log was started here.
pub fn log_level() -> Option<LevelFilter> {
    LEVEL.get()?.with_current(|level| *level).ok()
}

/// Changes the level of the log from now on; whether there is one.
pub fn set_log_level(level: LevelFilter) -> bool {
    LEVEL.get().is_some_and(|handle| handle.reload(level).is_ok())
}
