//! What a connection allows its peer, each default with its reason.

use std::time::Duration;

use crate::http2::HeadLimits;

#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Streams the peer may have open. 256: above what browsers and gRPC channels use at once (100), and 256 windows
    /// are what one connection can make us hold at worst.
    pub max_streams: u32,
    /// What a peer may send on a stream before we have used it. 256 KiB: 1 Gbit/s at 2 ms, far more than a mesh hop's
    /// delay asks for.
    pub stream_window: u32,
    /// The same for all streams together. 1 MiB: larger than a stream's, so that one slow reader stops only itself.
    pub connection_window: u32,
    /// Largest head. As for HTTP/1.
    pub head: HeadLimits,
    /// Data queued and not yet taken by the socket, over all streams. 256 KiB: what a socket's own buffer takes at
    /// once, so that it never runs dry between two turns.
    pub out_bytes: u32,
    /// Whether we ask a silent peer for a sign of life.
    pub keepalive: Option<Keepalive>,
    /// How long after the first GOAWAY of a drain streams are still taken when the peer does not answer our PING.
    pub drain_wait: Duration,
    /// How long after the last frame we wait for the peer to close: closing at once would destroy what it has not read.
    pub linger: Duration,
    /// How long the peer may take nothing of what is queued. 30 s: TCP itself tries for longer, but buffers are ours.
    pub write_stall: Duration,
    /// How long streams may wait for windows without the peer opening any. 5 minutes: the idle time of a stream.
    pub window_stall: Duration,
    pub floods: FloodBudgets,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_streams: 256,
            stream_window: 256 * 1024,
            connection_window: 1024 * 1024,
            head: HeadLimits::default(),
            out_bytes: 256 * 1024,
            keepalive: None,
            drain_wait: Duration::from_secs(1),
            linger: Duration::from_secs(1),
            write_stall: Duration::from_secs(30),
            window_stall: Duration::from_mins(5),
            floods: FloodBudgets::default(),
        }
    }
}

/// A silent connection with open streams is asked, and given up when it does not answer.
#[derive(Debug, Clone, Copy)]
pub struct Keepalive {
    /// Nothing was read for this long: PING.
    pub after: Duration,
    /// Still nothing: the connection is lost.
    pub answer: Duration,
}

impl Default for Keepalive {
    /// 10 s and 3 s: a dead path is noticed within 13 s, while TCP may take minutes.
    fn default() -> Self {
        Self { after: Duration::from_secs(10), answer: Duration::from_secs(3) }
    }
}

/// Frames that cost the peer nothing: `size` at once, `per_second` for ever, and `per_useful` for each frame that carries
/// a message, in either direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    pub size: u32,
    pub per_second: u32,
    pub per_useful: u32,
}

/// What a peer may send of each cheap frame. Reasons beside the numbers in [`FloodBudgets::default`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloodBudgets {
    pub rapid_reset: Budget,
    pub ping: Budget,
    pub settings: Budget,
    pub priority: Budget,
    pub empty_data: Budget,
    pub window_update: Budget,
    /// CONTINUATION frames of one header block.
    pub continuations: u32,
    /// Bytes of answers (SETTINGS and PING acknowledged, streams reset) queued while the peer does not read.
    pub owed_bytes: u32,
    /// A reset stream that lived this long is not rapid: so many at once are bounded by the limit of streams.
    pub rapid: Duration,
}

impl Default for FloodBudgets {
    fn default() -> Self {
        Self {
            // Two full sets of streams given up at once, then 100 a second: a client whose deadline strikes gives up
            // what it has open. A request that comes to its end makes up for one that does not.
            rapid_reset: Budget { size: 512, per_second: 100, per_useful: 1 },
            // gRPC asks for the delay of a path with one PING for each turn of data.
            ping: Budget { size: 100, per_second: 10, per_useful: 1 },
            // Sent once, and again when an operator turns a knob.
            settings: Budget { size: 32, per_second: 2, per_useful: 0 },
            // Browsers sent a tree of them at first, and a few for each request.
            priority: Budget { size: 500, per_second: 50, per_useful: 10 },
            // Some senders write an empty frame to flush.
            empty_data: Budget { size: 100, per_second: 10, per_useful: 1 },
            // One for the stream and one for the connection for each frame of data, twice that for good measure.
            window_update: Budget { size: 1000, per_second: 100, per_useful: 4 },
            // The largest head fits in 4 frames of the least size a peer may choose to fill.
            continuations: 16,
            // 1,900 answers to PING.
            owed_bytes: 32 * 1024,
            rapid: Duration::from_millis(100),
        }
    }
}
