//! What the driver asks: what time has brought, what there is to write, and whether it is over.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::super::error::{ConnectionError, Flood};
use super::receive::Reading;
use super::{ALIVE_PING, Arrived, Draining, Machine, Role};
use crate::http2::ErrorCode;

/// How long a connection keeps what its streams needed: between two requests that follow each other nothing is
/// allocated, and an idle connection costs little.
const TRIM_AFTER: Duration = Duration::from_secs(5);

impl Machine {
    /// A turn begins. Looks after what waits for time.
    pub(in crate::multiplex) fn tick(&mut self, now: Instant) {
        self.now = now;
        if let Some(since) = self.blocked_since
            && now.saturating_duration_since(since) >= self.write_patience()
        {
            self.lose(ConnectionError::Stalled(millis(self.write_patience())));
            self.is_given_up = true;
            self.blocked_since = None;
            return;
        }
        if self.over.is_some() {
            return;
        }
        if let Some(since) = self.trimmed_after()
            && now >= since
        {
            self.streams.trim();
            self.arrived = VecDeque::new();
        }
        if let Draining::Announced(since) = self.draining
            && now.saturating_duration_since(since) >= self.settings.drain_wait
        {
            self.name_last();
        }
        if let Some(keepalive) = self.settings.keepalive
            && self.streams.open() > 0
        {
            let silent = |since: Instant| now.saturating_duration_since(since);
            match self.pinged_at {
                Some(at) if silent(at) >= keepalive.answer => {
                    self.lose(ConnectionError::Silent(millis(silent(self.read_at))));
                    return;
                }
                None if silent(self.read_at.max(self.busy_since())) >= keepalive.after => {
                    self.pinged_at = Some(now);
                    self.out.ping(ALIVE_PING);
                }
                _ => {}
            }
        }
        if let Some(since) = self.starved_since
            && now.saturating_duration_since(since) >= self.settings.window_stall
        {
            self.flood(Flood::ZeroWindow);
        }
    }

    /// When a connection that stays idle gives back what streams have needed. Whoever still reads a body whose stream is
    /// over holds it back: then it is tried again later. A time that has passed would keep the driver running for ever.
    fn trimmed_after(&self) -> Option<Instant> {
        let since = self.idle_since().filter(|_| self.streams.has_slots() && self.arrived.is_empty())?;
        let since = if self.streams.are_held() { self.now } else { since };
        Some(since + TRIM_AFTER)
    }

    /// How long the socket may take nothing: less when all that is left is to say goodbye.
    fn write_patience(&self) -> Duration {
        if self.over.is_some() { self.settings.linger } else { self.settings.write_stall }
    }

    /// Since when streams are open; silence before that is nobody's fault.
    fn busy_since(&self) -> Instant {
        self.streams.live_at(0).and_then(|(_, slot)| self.streams.get(slot)).map_or(self.now, |slot| slot.born)
    }

    /// When [`tick`](Self::tick) has something to do, if nothing else happens.
    pub(in crate::multiplex) fn deadline(&self) -> Option<Instant> {
        let mut deadline: Option<Instant> = None;
        let mut add = |at: Instant| deadline = Some(deadline.map_or(at, |earlier| earlier.min(at)));
        if let Some(since) = self.blocked_since {
            add(since + self.write_patience());
        }
        if self.over.is_some() {
            return deadline;
        }
        if let Some(at) = self.trimmed_after() {
            add(at);
        }
        if let Draining::Announced(since) = self.draining {
            add(since + self.settings.drain_wait);
        }
        if let Some(keepalive) = self.settings.keepalive
            && self.streams.open() > 0
        {
            add(match self.pinged_at {
                Some(at) => at + keepalive.answer,
                None => self.read_at.max(self.busy_since()) + keepalive.after,
            });
        }
        if let Some(since) = self.starved_since {
            add(since + self.settings.window_stall);
        }
        deadline
    }

    /// Frames to be written.
    pub(in crate::multiplex) fn output(&self) -> &[u8] {
        self.out.pending()
    }

    /// So many bytes of [`output`](Self::output) were taken.
    pub(in crate::multiplex) fn written(&mut self, count: usize) {
        self.blocked_since = None;
        self.out.advance(count);
    }

    /// Everything was written: whoever waits for room goes on.
    pub(in crate::multiplex) fn flushed(&mut self) {
        self.wake_writers();
    }

    /// The driver waits: what nobody needs now is given back. `is_blocked`: the socket has not taken everything.
    pub(in crate::multiplex) fn rest(&mut self, is_blocked: bool) {
        self.note_starving();
        if is_blocked && !self.is_given_up {
            self.blocked_since.get_or_insert(self.now);
        }
        if self.streams.open() == 0 {
            self.pinged_at = None;
            self.out.release();
            self.idle_since.get_or_insert(self.now);
        } else {
            self.idle_since = None;
        }
    }

    /// Reading stops while this much is queued: a peer that does not read must not make us queue more.
    pub(in crate::multiplex) fn is_clogged(&self) -> bool {
        self.out.len() >= 2 * self.settings.out_bytes as usize
    }

    /// The driver has something to do: to write, or to end.
    pub(in crate::multiplex) fn wants_turn(&self) -> bool {
        !self.out.is_empty() || self.is_finished()
    }

    /// Over, or over as soon as what is queued is written.
    pub(in crate::multiplex) fn is_finished(&self) -> bool {
        self.over.is_some() || (self.streams.open() == 0 && self.arrived.is_empty() && self.ends_when_idle())
    }

    fn ends_when_idle(&self) -> bool {
        self.is_closing
            || matches!(self.draining, Draining::Last(_))
            || (self.role == Role::Client && self.told_to_go.is_some())
    }

    pub(in crate::multiplex) fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// Nothing more to write, now or later. `is_blocked`: the socket has not taken everything.
    pub(in crate::multiplex) fn is_written_and_finished(&self, is_blocked: bool) -> bool {
        self.out.is_empty() && self.is_finished() && (!is_blocked || self.is_given_up)
    }

    pub(in crate::multiplex) fn has_arrived(&self) -> bool {
        !self.arrived.is_empty()
    }

    pub(in crate::multiplex) fn linger(&self) -> Duration {
        self.settings.linger
    }

    /// How the connection ended.
    pub(in crate::multiplex) fn outcome(&self) -> Result<(), ConnectionError> {
        match (self.over, self.told_to_go) {
            (Some(outcome), _) => outcome,
            (None, Some((_, code))) if code != ErrorCode::NO_ERROR => Err(ConnectionError::GoneAway(code)),
            _ => Ok(()),
        }
    }

    pub(in crate::multiplex) fn next_arrived(&mut self) -> Option<Arrived> {
        loop {
            let arrived = self.arrived.pop_front()?;
            if self.stream_error(arrived.slot).is_none() {
                return Some(arrived);
            }
            // Given up before anybody has looked at it.
            self.release(arrived.slot);
        }
    }

    /// The socket ended: cleanly if nothing was under way. `in_frame`: the begin of a frame was left over.
    pub(in crate::multiplex) fn ended(&mut self, in_frame: bool) {
        let is_clean = !in_frame
            && self.streams.open() == 0
            && self.block.is_none()
            && matches!(self.reading, Reading::Header | Reading::Preface { .. });
        if is_clean && self.over.is_none() {
            self.over = Some(Ok(()));
            self.out.abandon();
        } else {
            self.lose(ConnectionError::Lost(std::io::ErrorKind::UnexpectedEof));
        }
    }
}

fn millis(duration: Duration) -> u32 {
    duration.as_millis().min(u128::from(u32::MAX)) as u32
}
