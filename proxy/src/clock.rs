//! The one place that reads the clock; everything that decides takes `now` as an argument.

use std::time::{Instant, SystemTime};

/// Monotonic time.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Instant {
    Instant::now()
}

/// Calendar time, for certificates and what people read.
#[allow(clippy::disallowed_methods)]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Whole seconds since the Unix epoch.
pub fn unix_seconds() -> i64 {
    wall().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}
