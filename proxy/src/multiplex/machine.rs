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
mod control;
mod flood;
mod heads;
mod output;
mod receive;
mod send;
mod streams;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::error::{ConnectionError, Flood, StreamError};
use super::settings::Settings;
use super::stream::Available;
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
    /// It has to be told that our encoder keeps no table.
    shrink: bool,
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
    pinged_at: Option<Instant>,
    /// Since when streams wait for windows and none was opened.
    starved_since: Option<Instant>,
}

impl Machine {
    pub(super) fn server(settings: Settings, now: Instant) -> Self {
        let mut machine = Self::new(Role::Server, settings, now);
        machine.reading = Reading::Preface { left: PREFACE.len() as u8 };
        machine.greet();
        machine
    }

    pub(super) fn client(settings: Settings, now: Instant) -> Self {
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
            peer: Peer {
                is_known: false,
                max_frame: DEFAULT_MAX_FRAME_BYTES,
                initial_window: DEFAULT_WINDOW,
                max_streams: ASSUMED_STREAMS,
                shrink: false,
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
            floods: Floods::new(settings.floods, now),
            draining: Draining::No,
            told_to_go: None,
            is_closing: false,
            over: None,
            idle_since: Some(now),
            read_at: now,
            blocked_since: None,
            pinged_at: None,
            starved_since: None,
        }
    }

    /// Our settings, and the connection's window, which only WINDOW_UPDATE can change.
    fn greet(&mut self) {
        let settings = &self.settings;
        let window = (setting::INITIAL_WINDOW_SIZE, settings.stream_window);
        let head = (setting::MAX_HEADER_LIST_SIZE, settings.head.bytes as u32);
        match self.role {
            Role::Server => {
                self.out.settings(&[(setting::MAX_CONCURRENT_STREAMS, settings.max_streams), window, head]);
            }
            Role::Client => self.out.settings(&[(setting::ENABLE_PUSH, 0), window, head]),
        }
        let more = settings.connection_window.saturating_sub(DEFAULT_WINDOW);
        if more > 0 {
            self.receive_window += more as i32;
            self.out.window_update(0, more);
        }
    }

    // --- for the driver ---

    /// A turn begins. Looks after what waits for time.
    pub(super) fn tick(&mut self, now: Instant) {
        self.now = now;
        if let Some(since) = self.blocked_since
            && now.saturating_duration_since(since) >= self.write_patience()
        {
            return self.lose(ConnectionError::Stalled(millis(self.write_patience())));
        }
        if self.over.is_some() {
            return;
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

    /// How long the socket may take nothing: less when all that is left is to say goodbye.
    fn write_patience(&self) -> Duration {
        if self.over.is_some() { self.settings.linger } else { self.settings.write_stall }
    }

    /// Since when streams are open; silence before that is nobody's fault.
    fn busy_since(&self) -> Instant {
        self.streams.live_at(0).and_then(|(_, slot)| self.streams.get(slot)).map_or(self.now, |slot| slot.born)
    }

    /// When [`tick`](Self::tick) has something to do, if nothing else happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let mut deadline: Option<Instant> = None;
        let mut add = |at: Instant| deadline = Some(deadline.map_or(at, |earlier| earlier.min(at)));
        if let Some(since) = self.blocked_since {
            add(since + self.write_patience());
        }
        if self.over.is_some() {
            return deadline;
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
    pub(super) fn output(&self) -> &[u8] {
        self.out.pending()
    }

    /// So many bytes of [`output`](Self::output) were taken.
    pub(super) fn written(&mut self, count: usize) {
        self.blocked_since = None;
        self.out.advance(count);
    }

    /// Everything was written: whoever waits for room goes on.
    pub(super) fn flushed(&mut self) {
        self.wake_writers();
    }

    /// The driver waits: what nobody needs now is given back.
    pub(super) fn rest(&mut self) {
        self.note_starving();
        if !self.out.is_empty() {
            self.blocked_since.get_or_insert(self.now);
        }
        if self.streams.open() == 0 {
            self.pinged_at = None;
            self.out.release();
            self.streams.shrink();
            if self.arrived.is_empty() && self.arrived.capacity() > 4 {
                self.arrived = VecDeque::new();
            }
            self.idle_since.get_or_insert(self.now);
        } else {
            self.idle_since = None;
        }
    }

    /// Reading stops while this much is queued: a peer that does not read must not make us queue more.
    pub(super) fn is_clogged(&self) -> bool {
        self.out.len() >= 2 * self.settings.out_bytes as usize
    }

    /// The driver has something to do: to write, or to end.
    pub(super) fn wants_turn(&self) -> bool {
        !self.out.is_empty() || self.is_finished()
    }

    /// Over, or over as soon as what is queued is written.
    pub(super) fn is_finished(&self) -> bool {
        self.over.is_some() || (self.streams.open() == 0 && self.arrived.is_empty() && self.ends_when_idle())
    }

    fn ends_when_idle(&self) -> bool {
        self.is_closing
            || matches!(self.draining, Draining::Last(_))
            || (self.role == Role::Client && self.told_to_go.is_some())
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// Nothing more to write, now or later.
    pub(super) fn is_written_and_finished(&self) -> bool {
        self.out.is_empty() && self.is_finished()
    }

    pub(super) fn has_arrived(&self) -> bool {
        !self.arrived.is_empty()
    }

    pub(super) fn linger(&self) -> Duration {
        self.settings.linger
    }

    /// How the connection ended.
    pub(super) fn outcome(&self) -> Result<(), ConnectionError> {
        match (self.over, self.told_to_go) {
            (Some(outcome), _) => outcome,
            (None, Some((_, code))) if code != ErrorCode::NO_ERROR => Err(ConnectionError::GoneAway(code)),
            _ => Ok(()),
        }
    }

    pub(super) fn next_arrived(&mut self) -> Option<Arrived> {
        self.arrived.pop_front()
    }

    /// The socket ended: cleanly if nothing was under way. `in_frame`: the begin of a frame was left over.
    pub(super) fn ended(&mut self, in_frame: bool) {
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

    /// The connection is gone, and every stream with it. What was received whole can still be used.
    pub(super) fn lose(&mut self, error: ConnectionError) {
        if self.over.is_none() {
            self.over = Some(Err(error));
        }
        self.out.abandon();
        self.fail_streams(0, StreamError::ConnectionLost);
        for arrived in std::mem::take(&mut self.arrived) {
            self.release(arrived.slot);
        }
    }

    /// Fails all open streams above `last`.
    fn fail_streams(&mut self, last: u32, error: StreamError) {
        while let Some((id, slot)) = self.streams.live_at(self.streams.open().wrapping_sub(1)) {
            if id <= last {
                return;
            }
            self.fail(slot, error, false);
        }
    }

    // --- connection errors ---

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
        match self.floods.spend(kind, self.now) {
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

    // --- draining ---

    /// Begins to end the connection without losing a request.
    pub(super) fn drain(&mut self, now: Instant) {
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
    pub(super) fn close(&mut self) {
        self.is_closing = true;
    }

    // --- streams, as their ends see them ---

    pub(super) fn open_streams(&self) -> usize {
        self.streams.open()
    }

    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.idle_since.filter(|_| self.streams.open() == 0)
    }

    pub(super) fn is_alive(&self) -> bool {
        self.over.is_none() && !self.is_closing && self.told_to_go.is_none()
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

    /// RST_STREAM for what the peer did: it must not be able to make us send them without end.
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
    pub(super) fn release(&mut self, slot: u32) {
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
    pub(super) fn reset(&mut self, slot: u32, code: ErrorCode) {
        let Some(stream) = self.streams.get(slot).filter(|stream| !stream.is_closed) else { return };
        self.out.reset(stream.id, code);
        self.fail(slot, StreamError::Cancelled(code), true);
    }

    pub(super) fn poll_reset(&mut self, slot: u32, cx: &Context<'_>) -> Poll<StreamError> {
        match self.stream_error(slot) {
            Some(error) => Poll::Ready(error),
            None => {
                self.streams.wait(slot, interest::RESET, cx);
                Poll::Pending
            }
        }
    }

    pub(super) fn stream_error(&self, slot: u32) -> Option<StreamError> {
        self.streams.get(slot).and_then(|stream| stream.error)
    }

    pub(super) fn is_complete(&self, slot: u32) -> bool {
        self.streams.get(slot).is_some_and(|stream| stream.send == Half::Ended && stream.receive == Half::Ended)
    }

    pub(super) fn poll_head(&mut self, slot: u32, cx: &Context<'_>) -> Poll<Result<(Fields, bool), StreamError>> {
        let Some(stream) = self.streams.get_mut(slot) else { return Poll::Ready(Err(StreamError::ConnectionLost)) };
        if let Some(head) = stream.heads.pop_front() {
            return Poll::Ready(Ok(head));
        }
        if let Some(error) = stream.error {
            return Poll::Ready(Err(error));
        }
        self.streams.wait(slot, interest::READ, cx);
        Poll::Pending
    }

    pub(super) fn poll_data(&mut self, slot: u32, cx: &Context<'_>) -> Poll<Result<Available, StreamError>> {
        let Some(stream) = self.streams.get_mut(slot) else { return Poll::Ready(Err(StreamError::ConnectionLost)) };
        if !stream.body.is_empty() {
            return Poll::Ready(Ok(Available::Data));
        }
        if stream.receive == Half::Ended {
            return Poll::Ready(Ok(Available::End));
        }
        if let Some(error) = stream.error {
            return Poll::Ready(Err(error));
        }
        self.streams.wait(slot, interest::READ, cx);
        Poll::Pending
    }

    pub(super) fn received(&self, slot: u32) -> usize {
        self.streams.get(slot).map_or(0, |stream| stream.body.len())
    }

    pub(super) fn ends_after_data(&self, slot: u32) -> bool {
        self.streams.get(slot).is_some_and(|stream| stream.receive == Half::Ended && stream.trailers.is_none())
    }

    pub(super) fn take_trailers(&mut self, slot: u32) -> Option<Fields> {
        self.streams.get_mut(slot)?.trailers.take()
    }

    pub(super) fn lend_data(&mut self, slot: u32) -> Lent {
        self.streams.get_mut(slot).map(|stream| stream.body.lend()).unwrap_or_default()
    }

    /// Takes back what was lent; what was used of it goes back to the peer as window.
    pub(super) fn settle_data(&mut self, slot: u32, lent: Lent, used: usize) {
        let Some(stream) = self.streams.get_mut(slot) else { return };
        let used = stream.body.settle(lent, used);
        if stream.error.is_none() && stream.receive == Half::Body {
            stream.due += used as u32;
        }
        self.open_window(slot);
        self.give_back(used);
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

fn millis(duration: Duration) -> u32 {
    duration.as_millis().min(u128::from(u32::MAX)) as u32
}
