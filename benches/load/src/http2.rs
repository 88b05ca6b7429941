//! HTTP/2 (RFC 9113) between well-meaning peers: just the frames that a load and an application need.
//!
//! Header blocks are what a client that repeats itself sends: the first of a connection puts its fields into the peer's
//! table, the others are one byte a field. Nothing reads the peer's blocks, but for the first byte of an answer's: 200
//! has an index of its own.

mod block;
mod client;
mod server;

pub(crate) use client::Client;
pub(crate) use server::Server;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// Flow control is the subject's business; ours never closes.
const WINDOW: u32 = 1 << 24;
/// Window given back at once.
const GIVE_BACK: u32 = 1 << 22;
/// Both sides' when nothing is said.
const DEFAULT_WINDOW: i64 = 65_535;

/// The message of a unary call: the five bytes before each message, and 100 of its own.
pub(crate) fn message() -> Vec<u8> {
    [&[0, 0, 0, 0, 100], &[b'm'; 100][..]].concat()
}

/// A frame at the beginning of some bytes.
#[derive(Debug, Clone, Copy)]
struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    fn read(input: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head, rest) = input.split_first_chunk::<9>()?;
        let [a, b, c, kind, flags, stream @ ..] = *head;
        let (payload, rest) = rest.split_at_checked(u32::from_be_bytes([0, a, b, c]) as usize)?;
        Some((Self { kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff, payload }, rest))
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn number(&self) -> u32 {
        self.payload.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes))
    }

    /// A setting of this frame.
    fn setting(&self, wanted: u16) -> Option<u32> {
        self.payload
            .as_chunks::<6>()
            .0
            .iter()
            .find_map(|&[a, b, value @ ..]| (u16::from_be_bytes([a, b]) == wanted).then(|| u32::from_be_bytes(value)))
    }
}

fn write(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

fn write_settings(settings: &[(u16, u32)], out: &mut Vec<u8>) {
    let mut payload = Vec::new();
    for (name, value) in settings {
        payload.extend_from_slice(&name.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    write(SETTINGS, 0, 0, &payload, out);
    write(WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes(), out);
}

/// What both sides do alike: windows, pings, and the acknowledgement of settings.
#[derive(Debug)]
struct Common {
    /// How much we may send on the connection.
    window: i64,
    /// How much has come since the peer was last told that it may send as much again.
    taken: u32,
    /// The peer has said how it wants things; with the size of its table for header fields.
    table: Option<u32>,
}

impl Common {
    fn new() -> Self {
        Self { window: DEFAULT_WINDOW, taken: 0, table: None }
    }

    fn hear(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) {
        match frame.kind {
            DATA => {
                self.taken += frame.payload.len() as u32;
                if self.taken >= GIVE_BACK {
                    write(WINDOW_UPDATE, 0, 0, &self.taken.to_be_bytes(), out);
                    self.taken = 0;
                }
            }
            SETTINGS if !frame.has(ACK) => {
                let table = frame.setting(HEADER_TABLE_SIZE).or(self.table).unwrap_or(4096);
                self.table = Some(table);
                write(SETTINGS, ACK, 0, &[], out);
            }
            PING if !frame.has(ACK) => write(PING, ACK, 0, frame.payload, out),
            WINDOW_UPDATE if frame.stream == 0 => self.window += i64::from(frame.number()),
            _ => {}
        }
    }
}
