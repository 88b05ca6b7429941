//! What must hold for any bytes whatever, tried with random ones.
//!
//! The bytes are commands: frames of the peer, well formed or not, mixed with what streams and sockets do. Promises:
//! nothing panics; no window is lost or given twice; limits are kept; and how the bytes were cut makes no difference.

use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::super::receive::Reading;
use super::super::{Draining, Half, Machine, Role};
use crate::http2::frame::{FrameHeader, Kind};
use crate::http2::{ErrorCode, Fields, PREFACE, hpack};
use crate::multiplex::Settings;

/// Runs the commands twice, with what the peer sends whole and in pieces; says how many were well.
fn connection(bytes: &[u8]) -> u32 {
    let start = crate::clock::now();
    let whole = Run::new(bytes, usize::MAX, start).finish();
    let pieces = Run::new(bytes, 3, start).finish();
    assert_eq!(whole, pieces, "how bytes are cut makes a difference");
    whole.2
}

const STREAMS: u32 = 5;

struct Run<'b> {
    machine: Machine,
    commands: &'b [u8],
    /// Bytes handed over at once.
    piece: usize,
    /// Of the peer, not taken yet.
    pending: Vec<u8>,
    slots: Vec<u32>,
    now: Instant,
    said: Vec<u8>,
    /// Commands before the connection ended.
    steps: u32,
}

impl<'b> Run<'b> {
    fn new(bytes: &'b [u8], piece: usize, now: Instant) -> Self {
        let settings = Settings {
            max_streams: STREAMS,
            stream_window: 300,
            connection_window: 70_000,
            out_bytes: 500,
            ..Settings::default()
        };
        let (choice, commands) = bytes.split_first().map_or((0, bytes), |(choice, rest)| (*choice, rest));
        let machine = if choice & 1 == 0 { Machine::server(settings, now) } else { Machine::client(settings, now) };
        let mut run =
            Self { machine, commands, piece, pending: Vec::new(), slots: Vec::new(), now, said: Vec::new(), steps: 0 };
        if choice & 1 == 0 {
            run.hear(PREFACE);
        }
        if choice & 0x3e != 0 {
            run.frame(Kind::Settings, 0, 0, &[]);
            run.frame(Kind::Settings, 1, 0, &[]);
            // Streams 1 and 3: what the peer says has somewhere to go.
            for stream in [1, 3] {
                match run.machine.open(&head_of(0), false) {
                    Ok(slot) => run.slots.push(slot),
                    Err(_) => run.frame(Kind::Headers, 4, stream, &block_of(0)),
                }
            }
        }
        run
    }

    fn finish(mut self) -> (Vec<u8>, String, u32) {
        while let Some(command) = self.take() {
            self.command(command);
            self.check();
            self.steps += u32::from(self.machine.over.is_none());
        }
        self.write(usize::MAX);
        for slot in std::mem::take(&mut self.slots) {
            self.machine.release(slot);
        }
        while let Some(arrived) = self.machine.next_arrived() {
            self.machine.release(arrived.slot);
        }
        self.check();
        assert_eq!(self.machine.streams.writers(), 0);
        (self.said, format!("{:?}", self.machine.over), self.steps)
    }

    fn take(&mut self) -> Option<u8> {
        let (&byte, rest) = self.commands.split_first()?;
        self.commands = rest;
        Some(byte)
    }

    fn byte(&mut self) -> u8 {
        self.take().unwrap_or(0)
    }

    fn number(&mut self) -> u32 {
        u32::from_be_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    fn bytes(&mut self) -> Vec<u8> {
        let count = usize::from(self.byte()).min(self.commands.len());
        let (bytes, rest) = self.commands.split_at(count);
        self.commands = rest;
        bytes.to_vec()
    }

    /// Mostly one that was begun.
    fn stream(&mut self) -> u32 {
        let last = match self.machine.role {
            Role::Server => self.machine.last_peer,
            Role::Client => self.machine.next.saturating_sub(2),
        };
        match u32::from(self.byte()) {
            250.. => u32::from(self.byte() % 32),
            back => last.saturating_sub(2 * (back % 6)).max(last.min(1)),
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(self.piece) {
            self.pending.extend_from_slice(piece);
            let used = self.machine.receive(&self.pending, self.now);
            assert!(used <= self.pending.len());
            self.pending.drain(..used);
        }
    }

    fn frame(&mut self, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
        let mut bytes = Vec::new();
        FrameHeader { length: payload.len() as u32, kind, flags, stream }.write(&mut bytes);
        bytes.extend_from_slice(payload);
        self.hear(&bytes);
    }

    fn slot(&mut self) -> Option<u32> {
        let choice = usize::from(self.byte());
        self.slots.get(choice % self.slots.len().max(1)).copied()
    }

    fn command(&mut self, command: u8) {
        match command % 17 {
            0 | 1 => {
                let (begins, flags, block) = (self.byte() & 3 > 0, self.byte(), self.byte());
                let begins = begins && self.machine.role == Role::Server;
                let stream =
                    if begins { self.machine.last_peer + (self.machine.last_peer % 2) + 1 } else { self.stream() };
                let flags = if flags < 245 { flags & 1 | 4 } else { flags };
                self.frame(Kind::Headers, flags, stream, &block_of(block));
            }
            2 | 3 => {
                let (stream, flags, length) = (self.stream(), self.byte(), self.byte());
                self.frame(
                    Kind::Data,
                    if flags < 200 { flags & 1 } else { flags },
                    stream,
                    &vec![length / 3; usize::from(length)],
                );
            }
            4 => {
                let (stream, code) = (self.stream(), u32::from(self.byte()));
                self.frame(Kind::ResetStream, 0, stream, &code.to_be_bytes());
            }
            5 => {
                let (stream, increment) = (self.stream(), self.number());
                let increment = if increment % 50 == 0 { increment } else { increment % 500 + 1 };
                self.frame(Kind::WindowUpdate, 0, stream, &increment.to_be_bytes());
            }
            6 => {
                let (name, value) = (u16::from(self.byte() % 8), self.number());
                let value = if value % 20 == 0 || name != 4 { value % (1 << 24) } else { value % 2000 };
                let name = if matches!(name, 2 | 5) && value % 20 != 0 { 4 } else { name };
                self.frame(Kind::Settings, 0, 0, &[&name.to_be_bytes()[..], &value.to_be_bytes()].concat());
            }
            7 if self.byte() > 30 => self.frame(Kind::Ping, 0, 0, b"12345678"),
            8 if self.byte() > 5 => self.frame(Kind::Unknown(77), 0, 0, b"12345678"),
            7 => {
                let (kind, flags, stream, payload) = (self.byte(), self.byte(), self.stream(), self.bytes());
                self.frame(Kind::from(kind % 12), flags, stream, &payload);
            }
            8 => {
                let bytes = self.bytes();
                self.hear(&bytes);
            }
            9 => self.slots.extend(std::iter::from_fn(|| self.machine.next_arrived()).map(|arrived| arrived.slot)),
            10 => {
                let (head, ends) = (self.byte(), self.byte() & 1 == 1);
                if let Ok(slot) = self.machine.open(&head_of(head), ends) {
                    self.slots.push(slot);
                }
            }
            11 => {
                let (slot, head, ends) = (self.slot(), self.byte(), self.byte() & 1 == 1);
                if let Some(slot) = slot.filter(|slot| self.machine.awaits_head(*slot)) {
                    let _ = self.machine.send_head(slot, &head_of(head), ends);
                }
            }
            12 => {
                let (slot, length, ends) = (self.slot(), usize::from(self.byte()), self.byte() & 1 == 1);
                let cx = Context::from_waker(Waker::noop());
                if let Some(slot) = slot {
                    let room = self.machine.capacity(slot);
                    match self.machine.send_data(slot, &vec![0; length], ends) {
                        Ok(taken) => assert!(taken <= room.min(length)),
                        Err(error) => assert_eq!(self.machine.poll_capacity(slot, &cx), Poll::Ready(Err(error))),
                    }
                    let _ = self.machine.poll_capacity(slot, &cx);
                }
            }
            13 => {
                let (slot, used) = (self.slot(), usize::from(self.byte()));
                if let Some(slot) = slot {
                    let lent = self.machine.lend_data(slot);
                    self.machine.settle_data(slot, lent, used);
                }
            }
            14 => {
                let (slot, resets) = (self.slot(), self.byte() & 1 == 1);
                if let Some(slot) = slot {
                    if resets {
                        self.machine.reset(slot, ErrorCode::CANCEL);
                    } else {
                        self.slots.retain(|held| *held != slot);
                        self.machine.release(slot);
                    }
                }
            }
            15 => {
                let count = usize::from(self.byte());
                self.write(if count > 200 { usize::MAX } else { count });
            }
            _ => {
                let millis = u64::from(self.byte()) * 10;
                self.now += Duration::from_millis(millis);
                if self.byte() == 7 {
                    self.machine.drain(self.now);
                }
                self.machine.tick(self.now);
                self.machine.rest(!self.machine.output().is_empty());
            }
        }
    }

    fn write(&mut self, count: usize) {
        let count = self.machine.output().len().min(count);
        self.said.extend_from_slice(&self.machine.output()[..count]);
        self.machine.written(count);
        if self.machine.output().is_empty() {
            self.machine.flushed();
        }
    }

    fn check(&self) {
        let machine = &self.machine;
        if machine.over.is_some() {
            assert_eq!(machine.open_streams(), 0);
            return;
        }
        if machine.role == Role::Server {
            assert!(machine.open_streams() <= STREAMS as usize);
        }
        let under_way = match machine.reading {
            Reading::PadLength(header) => header.length,
            Reading::Data { left, .. } => left,
            _ => 0,
        };
        let held = machine.streams.held_bytes() as u32;
        let all = machine.receive_window + (machine.due + held + under_way) as i32;
        assert_eq!(all, machine.settings.connection_window as i32, "the connection's window was lost or given twice");
        assert!(machine.receive_window >= 0);
        assert!(!matches!(machine.draining, Draining::Last(last) if last > machine.last_peer));
    }
}

impl Machine {
    fn awaits_head(&self, slot: u32) -> bool {
        self.streams.get(slot).is_some_and(|stream| stream.send == Half::Head)
    }
}

fn head_of(choice: u8) -> Fields {
    let request: &[(&str, &str)] = &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
    let more: &[(&str, &str)] = match choice % 8 {
        0..=2 => &[],
        3 => &[("content-length", "7")],
        4 => &[(":status", "200")],
        5 => &[(":status", "100")],
        6 => &[(":status", "200"), ("content-length", "9")],
        _ => &[("x-trailer", "y")],
    };
    let first = if choice % 8 < 4 { request } else { &[] };
    let mut head = Fields::new();
    for (name, value) in first.iter().chain(more) {
        head.push(name.as_bytes(), value.as_bytes());
    }
    head
}

fn block_of(choice: u8) -> Vec<u8> {
    let mut out = Vec::new();
    hpack::encode(&head_of(choice), &mut out);
    if choice >= 240 {
        out.truncate(usize::from(choice - 240));
    }
    out
}

#[test]
fn whatever_a_peer_sends_windows_and_limits_hold() {
    let mut chance = fastrand::Rng::with_seed(11);
    let mut steps = 0;
    for round in 0..10_000 {
        let bytes: Vec<u8> = (0..chance.usize(1..400)).map(|_| chance.u8(..)).collect();
        let result = std::panic::catch_unwind(|| connection(&bytes));
        let Ok(well) = result else { panic!("round {round}: {bytes:?}") };
        steps += u64::from(well);
    }
    assert!(steps > 100_000, "connections end too soon to see much: {steps} commands");
}
