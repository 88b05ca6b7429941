//! The machine of one connection: bytes in, bytes out, time as an argument. No socket.
//!
//! Invariants:
//! - what a stream's task does is queued in [`Output`] in order; a frame is queued only if the peer may receive it now
//!   (stream state, windows, frame size), so nothing queued ever has to be taken back;
//! - every byte of DATA received is taken off both windows at once and given back exactly once: when it is used, or
//!   when nobody is left to use it;
//! - a head block is always decoded, whatever becomes of its stream: the table must stay in step;
//! - a stream counts as open until both messages are complete or it is reset, whoever still holds its handle.

mod body;
#[cfg(any(test, feature = "fuzzing"))]
pub mod check;
mod control;
mod flood;
mod handle;
mod heads;
mod output;
mod receive;
mod send;
mod streams;
#[cfg(test)]
mod tests;
mod turn;

use std::collections::VecDeque;
use std::time::Instant;

use super::error::{ConnectionError, Flood, StreamError};
use super::settings::Settings;
use crate::http2::frame::{DEFAULT_MAX_FRAME_BYTES, DEFAULT_WINDOW, MAX_STREAM, setting};
use crate::http2::{ErrorCode, Fields, PREFACE, hpack};
pub(super) use body::Lent;
use flood::Floods;
use heads::Block;
use output::Output;
use receive::Reading;
use streams::{Half, Streams, interest};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Server,
    Client,
}

/// What the peer has told us of itself.
#[derive(Debug)]
struct Peer {
    /// Its first frame came.
    is_known: bool,
    max_frame: u32,
    initial_window: u32,
    max_streams: u32,
    /// It takes extended CONNECT (RFC 8441).
    takes_tunnels: bool,
}

/// How far a drain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Draining {
    No,
    /// The first GOAWAY is out, and a PING behind it, since then.
    Announced(Instant),
    /// The last stream is named: what comes above it is not looked at.
    Last(u32),
}

/// A request that nobody has taken yet.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) slot: u32,
    pub(super) head: Fields,
    pub(super) ended: bool,
    pub(super) is_too_large: bool,
}

/// Streams assumed of a server that has not told its limit.
const ASSUMED_STREAMS: u32 = 100;
/// What our PINGs carry, to know their answers.
const DRAIN_PING: [u8; 8] = *b"weftdrai";
const ALIVE_PING: [u8; 8] = *b"weftlive";
/// A stream may queue this much of the room for data before others had their turn.
const SHARE: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Machine {
    role: Role,
    settings: Settings,
    /// Time of the driver's last turn.
    now: Instant,
    reading: Reading,
    block: Option<Block>,
    decoder: hpack::Decoder,
    encoder: hpack::Encoder,
    peer: Peer,
    /// Windows of ours below the protocol's default hold only once the peer has acknowledged them.
    is_acknowledged: bool,
    streams: Streams,
    arrived: VecDeque<Arrived>,
    /// The highest stream the peer has begun.
    last_peer: u32,
    /// The stream we begin next.
    next: u32,
    send_window: i32,
    receive_window: i32,
    /// Used and not yet given back.
    due: u32,
    out: Output,
    /// The stream that had room to write last: the next ones come first then.
    wrote_last: u32,
    floods: Floods,
    draining: Draining,
    /// The peer's GOAWAY: streams above this one are not served.
    told_to_go: Option<(u32, ErrorCode)>,
    /// No further streams; over with the last one.
    is_closing: bool,
    /// Over; a reason other than a proper end.
    over: Option<Result<(), ConnectionError>>,
    idle_since: Option<Instant>,
    read_at: Instant,
    /// Since when the socket takes nothing of what is queued.
    blocked_since: Option<Instant>,
    /// It took nothing for too long.
    is_given_up: bool,
    pinged_at: Option<Instant>,
    /// Since when streams wait for windows and none was opened.
    starved_since: Option<Instant>,
}

impl Machine {
    pub(in crate::multiplex) fn server(settings: Settings, now: Instant) -> Self {
        let mut machine = Self::new(Role::Server, settings, now);
        machine.reading = Reading::Preface { left: PREFACE.len() as u8 };
        machine.greet();
        machine
    }

    pub(in crate::multiplex) fn client(settings: Settings, now: Instant) -> Self {
        let mut machine = Self::new(Role::Client, settings, now);
        machine.out.raw(PREFACE);
        machine.greet();
        machine
    }

    fn new(role: Role, settings: Settings, now: Instant) -> Self {
        Self {
            role,
            settings,
            now,
            reading: Reading::Header,
            block: None,
            decoder: hpack::Decoder::new(hpack::DEFAULT_TABLE_BYTES),
            encoder: hpack::Encoder::new(),
            peer: Peer {
                is_known: false,
                max_frame: DEFAULT_MAX_FRAME_BYTES,
                initial_window: DEFAULT_WINDOW,
                max_streams: ASSUMED_STREAMS,
                takes_tunnels: false,
            },
            is_acknowledged: false,
            streams: Streams::default(),
            arrived: VecDeque::new(),
            last_peer: 0,
            next: 1,
            send_window: DEFAULT_WINDOW as i32,
            receive_window: DEFAULT_WINDOW as i32,
            due: 0,
            out: Output::default(),
            wrote_last: 0,
            floods: Floods::new(&settings.floods, now),
            draining: Draining::No,
            told_to_go: None,
            is_closing: false,
            over: None,
            idle_since: Some(now),
            read_at: now,
            blocked_since: None,
            is_given_up: false,
            pinged_at: None,
            starved_since: None,
        }
    }

    /// Our settings, and the connection's window, which only `WINDOW_UPDATE` can change.
    fn greet(&mut self) {
        let settings = &self.settings;
        let window = (setting::INITIAL_WINDOW_SIZE, settings.stream_window);
        let head = (setting::MAX_HEADER_LIST_SIZE, settings.head.bytes as u32);
        match self.role {
            Role::Server => {
                let streams = (setting::MAX_CONCURRENT_STREAMS, settings.max_streams);
                self.out.settings(&[streams, window, head, (setting::ENABLE_CONNECT_PROTOCOL, 1)]);
            }
            Role::Client => self.out.settings(&[(setting::ENABLE_PUSH, 0), window, head]),
        }
        let more = settings.connection_window.saturating_sub(DEFAULT_WINDOW);
        if more > 0 {
            self.receive_window += more as i32;
            self.out.window_update(0, more);
        }
    }

    /// The connection is gone, and every stream with it. What was received whole can still be used.
    pub(in crate::multiplex) fn lose(&mut self, error: ConnectionError) {
        if self.over.is_none() {
            self.over = Some(Err(error));
        }
        self.out.abandon();
        self.fail_streams(0, StreamError::ConnectionLost);
        for arrived in std::mem::take(&mut self.arrived) {
            self.release(arrived.slot);
        }
    }

    /// Fails all open streams above `last`; what still comes for them is ignored.
    fn fail_streams(&mut self, last: u32, error: StreamError) {
        while let Some((id, slot)) = self.streams.live_at(self.streams.open().wrapping_sub(1)) {
            if id <= last {
                return;
            }
            self.fail(slot, error, true);
        }
    }

    /// The peer broke a rule that ends the connection.
    fn broken(&mut self, code: ErrorCode, rule: &'static str) {
        self.end_with(ConnectionError::Broken { code, rule }, rule);
    }

    fn flood(&mut self, kind: Flood) {
        metrics::counter!("weft_http2_floods_total", "kind" => kind.label()).increment(1);
        self.end_with(ConnectionError::Flooded(kind), kind.label());
    }

    fn end_with(&mut self, error: ConnectionError, debug: &'static str) {
        if self.over.is_some() {
            return;
        }
        self.lose(error);
        let last = match self.draining {
            Draining::Last(last) => last,
            _ => self.last_peer,
        };
        self.out.go_away(last, error.code(), debug);
    }

    /// Takes a token of `kind`; false when the budget is used up and the connection with it.
    fn spend(&mut self, kind: Flood) -> bool {
        match self.floods.spend(kind, &self.settings.floods, self.now) {
            Ok(()) => true,
            Err(kind) => {
                self.flood(kind);
                false
            }
        }
    }

    /// Answers are owed beyond their bound: the peer asks and does not read.
    fn check_owed(&mut self) {
        if self.out.owed() > self.settings.floods.owed_bytes as usize {
            self.flood(Flood::Unread);
        }
    }

    /// Begins to end the connection without losing a request.
    pub(in crate::multiplex) fn drain(&mut self, now: Instant) {
        self.now = now;
        if self.role == Role::Client {
            self.is_closing = true;
        } else if self.draining == Draining::No && self.over.is_none() {
            self.draining = Draining::Announced(now);
            self.out.go_away(MAX_STREAM, ErrorCode::NO_ERROR, "");
            self.out.ping(DRAIN_PING);
        }
    }

    /// The second step: what has not come by now was sent after the peer read the first.
    fn name_last(&mut self) {
        self.draining = Draining::Last(self.last_peer);
        self.out.go_away(self.last_peer, ErrorCode::NO_ERROR, "");
    }

    /// No further streams of ours.
    pub(in crate::multiplex) fn close(&mut self) {
        self.is_closing = true;
    }

    /// A stream is over by an error. `was_reset`: by us, so that late frames are expected. Heads stay, and a message that
    /// was received whole: an answer that began is another failure than one that did not.
    fn fail(&mut self, slot: u32, error: StreamError, was_reset: bool) {
        let Some(stream) = self.streams.get_mut(slot) else { return };
        stream.error.get_or_insert(error);
        stream.due = 0;
        if stream.receive != Half::Ended {
            let dropped = stream.body.clear();
            self.give_back(dropped);
        }
        self.streams.close(slot, was_reset);
        self.streams.event(slot, interest::ANY);
    }

    /// The peer broke a rule on one stream.
    fn break_stream(&mut self, slot: u32, code: ErrorCode) {
        if let Some(id) = self.streams.get(slot).map(|stream| stream.id) {
            self.reset_for_fault(id, code);
            self.fail(slot, StreamError::Malformed(code), true);
        }
    }

    /// `RST_STREAM` for what the peer did: it must not be able to make us send them without end.
    fn reset_for_fault(&mut self, id: u32, code: ErrorCode) {
        if self.spend(Flood::RapidReset) {
            self.out.reset(id, code);
            self.check_owed();
        }
    }

    /// Closes a stream whose messages are both complete.
    fn close_if_complete(&mut self, slot: u32) {
        if self.streams.get(slot).is_some_and(|stream| !stream.is_closed && stream.is_over()) {
            self.streams.close(slot, false);
            self.floods.completed();
        }
    }

    /// Nobody holds the stream any more: resets it if it is not complete, and recycles its slot.
    pub(in crate::multiplex) fn release(&mut self, slot: u32) {
        let Some(stream) = self.streams.get_mut(slot) else { return };
        if !stream.is_closed {
            let code = if stream.send == Half::Ended && self.role == Role::Server {
                ErrorCode::NO_ERROR
            } else {
                ErrorCode::CANCEL
            };
            self.reset(slot, code);
        }
        if let Some(stream) = self.streams.get_mut(slot) {
            let dropped = stream.body.clear();
            self.give_back(dropped);
        }
        self.streams.recycle(slot);
    }

    /// Ends a stream at our wish.
    pub(in crate::multiplex) fn reset(&mut self, slot: u32, code: ErrorCode) {
        let Some(stream) = self.streams.get(slot).filter(|stream| !stream.is_closed) else { return };
        self.out.reset(stream.id, code);
        self.fail(slot, StreamError::Cancelled(code), true);
    }

    /// Opens a stream's window by what was used, in batches.
    fn open_window(&mut self, slot: u32) {
        if let Some(stream) = self.streams.get_mut(slot)
            && stream.due >= (self.settings.stream_window / 2).max(1)
        {
            let due = std::mem::take(&mut stream.due);
            stream.receive_window += due as i32;
            self.out.window_update(stream.id, due);
        }
    }

    /// Opens the connection's window by what was used, or dropped, in batches.
    fn give_back(&mut self, count: usize) {
        self.due += count as u32;
        let window = self.settings.connection_window.max(DEFAULT_WINDOW);
        if self.due >= window / 2 && self.over.is_none() {
            let due = std::mem::take(&mut self.due);
            self.receive_window += due as i32;
            self.out.window_update(0, due);
        }
    }
}
