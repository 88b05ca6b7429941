//! Waits and limits of the request path: each with a name, a default and its reason.

use std::time::Duration;

use crate::http1::{MAX_FIELDS, MAX_HEAD_BYTES};

/// "Never" for a wait that is switched off: far enough, and no sum with it overflows.
pub const NEVER: Duration = Duration::from_hours(24 * 365);

/// Waits of the request path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// TLS handshake: a peer that says nothing must not hold a connection. 5 s.
    pub handshake: Duration,
    /// From the first byte of a head to its last (`request_headers_timeout`). 15 s: generous to slow links, short for who
    /// only holds places.
    pub head: Duration,
    /// A request under way with no byte moved either way (`stream_idle_timeout`). 5 min, as in the field: long polls and
    /// slow reports live, what hangs does not hold its place for ever.
    pub stream_idle: Duration,
    /// A client connection with no request under way (`idle_timeout`). 1 h, as in the field: the client decides.
    pub client_idle: Duration,
    /// A tunnel with nothing to carry in either direction. 1 h, as in the field.
    pub tcp_idle: Duration,
    /// Reading the rest of a body after its answer is written, before the connection is closed
    /// (`delayed_close_timeout`). 1 s.
    pub linger: Duration,
    /// From a connection to an address that nothing is known of to the control plane's answer who has it. 3 s: the answers
    /// take milliseconds, and who waits too short for a slow one goes in plaintext. Who calls outside the mesh is held up
    /// once, not by each connection ([`crate::state::Demand::late`]).
    pub destination: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            head: Duration::from_secs(15),
            stream_idle: Duration::from_mins(5),
            client_idle: Duration::from_hours(1),
            tcp_idle: Duration::from_hours(1),
            linger: Duration::from_secs(1),
            destination: Duration::from_secs(3),
        }
    }
}

/// Longest request target unless somebody says otherwise; servers of the field take 8 KiB too.
pub const DEFAULT_TARGET_BYTES: usize = 8 * 1024;
/// Bytes one worker may hold in buffers unless somebody says otherwise.
pub const DEFAULT_BUFFERED_BYTES: usize = 256 * 1024 * 1024;
/// Header fields a proxy of ours may have added before a request comes to us.
pub const ADDED_FIELDS: usize = 4;
/// Bytes a proxy of ours may have added to a head before it comes to us.
pub const ADDED_BYTES: usize = 1024;

/// Limits of one worker.
///
/// A connection holds at most two buffers ([`crate::stream::LARGE`]) and two texts of about their size at a time, and only
/// while something is in them; so the sum over all connections is what needs a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's head; a head is held whole.
    pub head_bytes: usize,
    /// Fields of a request's head.
    pub fields: usize,
    /// Bytes of a request's target.
    pub target_bytes: usize,
    /// Bytes in buffers of this worker's connections. Above it new connections and requests are refused.
    pub buffered_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: MAX_HEAD_BYTES,
            fields: MAX_FIELDS,
            target_bytes: DEFAULT_TARGET_BYTES,
            buffered_bytes: DEFAULT_BUFFERED_BYTES,
        }
    }
}

/// A proxy needs two descriptors per connection: takes all that are allowed, and says how many.
pub fn raise_descriptor_limit() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1024 };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}

impl Limits {
    /// The limits for what a proxy of ours passes on: it has added to heads that were within them.
    #[must_use]
    pub fn behind_proxy(self) -> Self {
        Self {
            head_bytes: self.head_bytes.saturating_add(ADDED_BYTES),
            fields: self.fields.saturating_add(ADDED_FIELDS),
            ..self
        }
    }
}
