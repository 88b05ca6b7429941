//! Golden signals: names, handles resolved ahead, and the text a scraper reads.
//!
//! The `metrics` facade is the seam; [`Registry`] is the recorder behind it. Handles are resolved with an edge's first
//! signal, never per request.

mod edge;
mod registry;

pub(crate) use edge::direction_label;
pub use edge::{Active, CodeClass, Edge, EdgeLabels, Handles, Underway};
pub use registry::{Gauges, MAX_SERIES, Registry};

/// Log output to standard error; `level` is a `tracing` level name or `off`.
pub fn start_log(level: tracing::level_filters::LevelFilter, json: bool) {
    use std::io::IsTerminal;
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    let started = if json { subscriber.json().try_init() } else { subscriber.try_init() };
    if started.is_err() {
        tracing::debug!("a log was started before");
    }
}
