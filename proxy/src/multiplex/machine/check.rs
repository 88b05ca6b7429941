//! What must hold for a machine whatever its peer sends and its streams' tasks do: called by the fuzz target, and by a
//! test on the corpus it found.
//!
//! The input is a program: the first byte chooses the role and the settings, then each byte is a step with its
//! arguments behind it. Some steps are the peer's (frames well made or raw), some our tasks', some the socket's and the
//! clock's.

mod listener;
#[cfg(test)]
mod tests;

use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::{ConnectionError, Half, Machine, Reading, Role};
use crate::http2::frame::{DEFAULT_MAX_FRAME_BYTES, DEFAULT_WINDOW, FrameHeader, HEADER_BYTES, Kind, flags};
use crate::http2::{ErrorCode, Fields, PREFACE, hpack};
use crate::multiplex::Settings;
use listener::Listener;

/// What one read of the socket gives at most.
const READ: usize = 65 * 1024;
/// Steps of one program.
const STEPS: usize = 4000;

/// Plays a program against one machine.
pub fn machine(bytes: &[u8]) {
    let mut input = Input(bytes);
    let choice = input.byte();
    let start = crate::clock::now();
    let settings = settings(choice);
    let role = if choice & 1 == 0 { Role::Server } else { Role::Client };
    let machine = match role {
        Role::Server => Machine::server(settings, start),
        Role::Client => Machine::client(settings, start),
    };
    let mut run = Run {
        machine,
        now: start,
        unread: Vec::new(),
        held: Vec::new(),
        listener: Listener::new(role == Role::Client),
        has_ended: false,
    };
    // Most programs begin as a peer must; some are about how it does not.
    if choice & 2 == 0 {
        let preface: &[u8] = if role == Role::Server { PREFACE } else { &[] };
        run.unread.extend_from_slice(preface);
        run.unread.extend_from_slice(&frame(Kind::Settings, 0, 0, &[]));
    }
    for _ in 0..STEPS {
        if input.0.is_empty() {
            break;
        }
        run.step(&mut input);
        run.check();
    }
    run.end();
}

fn settings(choice: u8) -> Settings {
    let usual = if choice & 0x80 == 0 { Settings::default() } else { Settings::mesh() };
    let (stream_window, connection_window) = match (choice >> 2) & 3 {
        0 => (usual.stream_window, usual.connection_window),
        1 => (100, 0),
        2 => (70_000, 65_535),
        _ => (1, 1 << 20),
    };
    let max_streams = if choice & 0x10 == 0 { usual.max_streams } else { 2 };
    let out_bytes = if choice & 0x20 == 0 { usual.out_bytes } else { 500 };
    Settings { max_streams, stream_window, connection_window, out_bytes, ..usual }
}

/// Bytes not used yet; nothing but zeros behind them.
struct Input<'b>(&'b [u8]);

impl<'b> Input<'b> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn number(&mut self) -> u32 {
        u32::from_be_bytes(std::array::from_fn(|_| self.byte()))
    }

    fn take(&mut self, count: usize) -> &'b [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    FrameHeader { length: payload.len() as u32, kind, flags, stream }.write(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

fn fields(pairs: &[(&str, &str)]) -> Fields {
    let mut all = Fields::new();
    for (name, value) in pairs {
        all.push(name.as_bytes(), value.as_bytes());
    }
    all
}

/// Heads that are well made, and some that are not.
fn head(choice: u8) -> Fields {
    const REQUEST: [(&str, &str); 4] = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
    match choice % 8 {
        0 => fields(&REQUEST),
        1 => fields(&[REQUEST[1], REQUEST[2], REQUEST[3], (":method", "HEAD")]),
        2 => fields(&[&REQUEST[..], &[("content-length", "10")]].concat()),
        3 => fields(&[(":status", "200")]),
        4 => fields(&[(":status", "103")]),
        5 => fields(&[(":status", "204"), ("content-length", "5")]),
        6 => fields(&[("x-sum", "1")]),
        _ => fields(&[REQUEST[0], REQUEST[3]]),
    }
}

struct Run {
    machine: Machine,
    now: Instant,
    /// Sent by the peer and not taken by the machine.
    unread: Vec<u8>,
    /// Slots that a task of ours holds.
    held: Vec<u32>,
    listener: Listener,
    /// The socket has ended.
    has_ended: bool,
}

impl Run {
    fn step(&mut self, input: &mut Input<'_>) {
        let step = input.byte();
        match step % 24 {
            0..=9 => self.peer(step % 24, input),
            10..=19 => self.task(step % 24, input),
            20 => self.read(),
            21 => self.write(usize::from(input.byte()) * 64),
            22 => self.write(usize::MAX),
            _ => self.time(Duration::from_millis(u64::from(input.byte()).pow(2))),
        }
    }

    /// The peer sends, by steps the machine reads.
    fn peer(&mut self, step: u8, input: &mut Input<'_>) {
        let (flags, stream) = (input.byte(), u32::from(input.byte()));
        let sent = match step {
            0 => frame(Kind::Headers, flags | flags::END_HEADERS, stream, &encoded(input.byte())),
            1 => frame(Kind::Data, flags, stream, &vec![flags & 7; usize::from(input.byte()) * 100]),
            2 => frame(Kind::WindowUpdate, 0, stream, &input.number().to_be_bytes()),
            3 => frame(Kind::ResetStream, 0, stream, &[0, 0, 0, flags]),
            4 => {
                let (name, value) = (stream as u16 % 8, input.number());
                frame(Kind::Settings, flags & 1, 0, &[&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            }
            5 => frame(Kind::Ping, flags, stream & 0xf0, &input.number().to_be_bytes().repeat(2)),
            6 => frame(Kind::GoAway, 0, 0, &[0, 0, 0, stream as u8, 0, 0, 0, flags & 1]),
            7 => {
                let block = encoded(input.byte());
                let at = usize::from(input.byte()) % (block.len() + 1);
                let mut both = frame(Kind::Headers, flags & flags::END_STREAM, stream, &block[..at]);
                both.extend(frame(Kind::Continuation, flags & flags::END_HEADERS, stream, &block[at..]));
                both
            }
            // A frame of any kind, as it comes.
            8 => {
                let kind = Kind::from(input.byte());
                let length = usize::from(input.byte());
                frame(kind, flags, stream, input.take(length))
            }
            _ => {
                let length = usize::from(flags);
                input.take(length).to_vec()
            }
        };
        self.unread.extend(sent);
        if flags & 0x40 == 0 {
            self.read();
        }
    }

    /// As the wire does it: nothing is read while too much is queued, or somebody has arrived.
    fn read(&mut self) {
        while !self.unread.is_empty() && !self.machine.is_clogged() && !self.machine.has_arrived() {
            let before = self.machine.out.len();
            let given = self.unread.len().min(READ);
            let used = self.machine.receive(&self.unread[..given], self.now);
            assert!(used <= given);
            // Window that was dropped goes back in batches; of everything else the peer is counted.
            let floods = &self.machine.settings.floods;
            let most = floods.owed_bytes as usize + 2 * (HEADER_BYTES + 8) + given / 2 + 300;
            assert!(self.machine.out.len() <= before + most, "{given} bytes made {}", self.machine.out.len() - before);
            self.unread.drain(..used);
            if used == 0 && given > 0 {
                // The rest of a frame is awaited, and it is not longer than a frame may be.
                assert!(given < DEFAULT_MAX_FRAME_BYTES as usize);
                break;
            }
            self.check();
        }
        if self.has_ended && !self.machine.is_clogged() && !self.machine.has_arrived() {
            self.machine.ended(!self.unread.is_empty());
        }
    }

    /// A task of ours, or the driver on behalf of all.
    fn task(&mut self, step: u8, input: &mut Input<'_>) {
        let choice = input.byte();
        match (step, self.machine.role) {
            (10, Role::Server) => {
                self.held.extend(self.machine.next_arrived().map(|arrived| arrived.slot));
                return self.read();
            }
            (10, Role::Client) => {
                // Our own requests are well made: what arrived was checked by then.
                self.held.extend(self.machine.open(&head(choice % 3), choice & 0x80 != 0));
                return;
            }
            (11, _) if choice > 250 => return self.machine.drain(self.now),
            (11, _) if choice > 245 => return self.machine.close(),
            (11, _) if choice > 240 => return self.has_ended = true,
            (11, _) => return self.machine.rest(choice & 1 != 0),
            _ => {}
        }
        if self.held.is_empty() {
            return;
        }
        let at = usize::from(choice) % self.held.len();
        let slot = self.held[at];
        let cx = Context::from_waker(Waker::noop());
        match step {
            12 => {
                // A second answer is a fault of ours, which no peer can bring about.
                if self.machine.streams.get(slot).is_some_and(|stream| stream.send == Half::Head) {
                    let kind = 3 + input.byte() % 2;
                    let _ = self.machine.send_head(slot, &head(kind), kind == 3 && choice & 0x80 != 0);
                }
            }
            13 => self.send(slot, input),
            14 => drop(self.machine.send_trailers(slot, &head(6))),
            15 => drop(self.machine.poll_capacity(slot, &cx)),
            16 => self.hear(slot, usize::from(input.byte()) * 100),
            17 => drop((self.machine.poll_head(slot, &cx), self.machine.poll_reset(slot, &cx))),
            18 => self.machine.reset(slot, ErrorCode(u32::from(input.byte()))),
            _ => {
                self.held.swap_remove(at);
                self.machine.release(slot);
            }
        }
    }

    /// Data goes out within both windows and the room there is.
    fn send(&mut self, slot: u32, input: &mut Input<'_>) {
        let data = vec![1; usize::from(input.byte()) * 100];
        let (room, connection) = (self.machine.capacity(slot), self.machine.send_window);
        let stream = self.machine.streams.get(slot).map_or(0, |stream| stream.send_window);
        if let Ok(sent) = self.machine.send_data(slot, &data, input.byte() & 1 != 0) {
            assert!(sent <= room && sent <= data.len(), "{sent} bytes where there was room for {room}");
            assert!(sent == 0 || sent as i32 <= stream.min(connection), "{sent} bytes beyond a window");
            assert_eq!(self.machine.send_window, connection - sent as i32);
        }
    }

    fn hear(&mut self, slot: u32, most: usize) {
        let cx = Context::from_waker(Waker::noop());
        if matches!(self.machine.poll_data(slot, &cx), Poll::Ready(Ok(_))) {
            let lent = self.machine.lend_data(slot);
            let used = lent.data().len().min(most);
            self.machine.settle_data(slot, lent, used);
            let _ = self.machine.take_trailers(slot);
        }
    }

    fn write(&mut self, most: usize) {
        let count = self.machine.output().len().min(most);
        // The end of a connection drops what was queued, whatever of it was written already.
        if !self.machine.is_over() {
            self.listener.hear(&self.machine.output()[..count]);
        }
        self.machine.written(count);
        if self.machine.output().is_empty() {
            self.machine.flushed();
            self.read();
        }
    }

    fn time(&mut self, passes: Duration) {
        self.now += passes;
        self.machine.tick(self.now);
        if !self.machine.is_over() {
            let deadline = self.machine.deadline();
            assert!(deadline.is_none_or(|deadline| deadline > self.now), "time that has come was not looked after");
        }
    }

    /// What holds between any two steps.
    fn check(&self) {
        let machine = &self.machine;
        let owed = machine.settings.floods.owed_bytes as usize + HEADER_BYTES + 8;
        assert!(machine.out.owed() <= owed, "{} bytes of answers are owed", machine.out.owed());
        assert!(machine.out.queued_data() <= machine.settings.out_bytes as usize);
        assert!(machine.send_window >= 0, "more was sent than the connection's window");
        let slots = || machine.streams.live().filter_map(|(_, slot)| machine.streams.get(slot));
        if machine.role == Role::Server {
            assert!(machine.streams.open() <= machine.settings.max_streams as usize);
        }
        assert!(slots().all(|stream| stream.heads.len() <= 16));
        let writers = self.held.iter().filter(|slot| machine.streams.is_writer(**slot)).count();
        assert_eq!(machine.streams.writers(), writers);
        if machine.is_over() {
            assert_eq!(machine.streams.open(), 0, "nobody's stream outlives the connection");
            return;
        }
        self.check_windows();
    }

    /// Every byte of DATA is in one place: in a window, in a body, or on its way.
    fn check_windows(&self) {
        let machine = &self.machine;
        let (of, coming) = match machine.reading {
            Reading::PadLength(header) => (header.stream, header.length as i32),
            Reading::Data { stream, left, .. } => (stream, left as i32),
            _ => (0, 0),
        };
        assert!(machine.receive_window >= 0, "more came than the connection's window");
        let whole = machine.settings.connection_window.max(DEFAULT_WINDOW) as i32;
        let found = machine.receive_window + machine.due as i32 + machine.streams.held_bytes() as i32 + coming;
        assert_eq!(found, whole, "the connection's window");
        let whole = machine.settings.stream_window as i32;
        for (id, slot) in machine.streams.live() {
            let Some(stream) = machine.streams.get(slot).filter(|stream| stream.receive == Half::Body) else {
                continue;
            };
            let coming = if of == id { coming } else { 0 };
            let found = stream.receive_window + stream.due as i32 + stream.body.len() as i32 + coming;
            assert_eq!(found, whole, "the window of stream {id}");
        }
    }

    /// All handles go: nothing is left, and the end is one.
    fn end(mut self) {
        self.unread.clear();
        self.write(usize::MAX);
        for slot in std::mem::take(&mut self.held) {
            self.machine.release(slot);
        }
        while let Some(arrived) = self.machine.next_arrived() {
            self.machine.release(arrived.slot);
        }
        self.write(usize::MAX);
        self.check();
        assert_eq!(self.machine.streams.open(), 0);
        assert_eq!(self.machine.streams.held_bytes(), 0);
        self.machine.lose(ConnectionError::Lost(std::io::ErrorKind::ConnectionReset));
        assert!(self.machine.is_finished());
    }
}

fn encoded(choice: u8) -> Vec<u8> {
    let mut block = Vec::new();
    hpack::encode(&head(choice), &mut block);
    block
}
