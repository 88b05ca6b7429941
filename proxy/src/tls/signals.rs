//! Signals of handshakes.

use metrics::{Counter, counter};
use rustls::{CommonState, HandshakeKind};

use super::failure::TlsError;

const HANDSHAKES: &str = "weft_tls_handshakes_total";
const FAILURES: &str = "weft_tls_handshake_failures_total";

/// Handshakes in one direction that went well; handles resolved ahead.
pub(super) struct Handshakes {
    direction: &'static str,
    full: Counter,
    resumed: Counter,
}

impl Handshakes {
    pub(super) fn new(direction: &'static str) -> Self {
        let counter = |kind| counter!(HANDSHAKES, "direction" => direction, "kind" => kind);
        Self { direction, full: counter("full"), resumed: counter("resumed") }
    }

    pub(super) fn succeeded(&self, state: &CommonState) {
        let counter = if is_resumed(state) { &self.resumed } else { &self.full };
        counter.increment(1);
    }

    pub(super) fn failed(&self, error: &TlsError) {
        counter!(FAILURES, "direction" => self.direction, "reason" => error.reason()).increment(1);
    }
}

impl std::fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handshakes({})", self.direction)
    }
}

fn is_resumed(state: &CommonState) -> bool {
    state.handshake_kind() == Some(HandshakeKind::Resumed)
}
