//! Raw frames in and out, and two machines that talk through a pipe.

mod floods;
mod hostile;
mod rest;
mod rules;
mod simulation;
mod windows;

use std::task::{Context, Waker};
use std::time::Instant;

use super::Machine;
use crate::http2::frame::{FrameHeader, HEADER_BYTES, Kind, flags};
use crate::http2::{ErrorCode, Fields, PREFACE, hpack};
use crate::multiplex::Settings;

/// A frame as it lies on the wire.
fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    FrameHeader { length: payload.len() as u32, kind, flags, stream }.write(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

fn data(stream: u32, payload: &[u8], end: bool) -> Vec<u8> {
    frame(Kind::Data, if end { flags::END_STREAM } else { 0 }, stream, payload)
}

fn headers(stream: u32, fields: &[(&str, &str)], end: bool) -> Vec<u8> {
    let flags = flags::END_HEADERS | if end { flags::END_STREAM } else { 0 };
    frame(Kind::Headers, flags, stream, &block(fields))
}

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    hpack::encode(&fields_of(fields), &mut out);
    out
}

fn fields_of(fields: &[(&str, &str)]) -> Fields {
    let mut all = Fields::new();
    for (name, value) in fields {
        all.push(name.as_bytes(), value.as_bytes());
    }
    all
}

const REQUEST: [(&str, &str); 4] = [(":method", "POST"), (":scheme", "http"), (":authority", "orders"), (":path", "/")];
const OK: [(&str, &str); 1] = [(":status", "200")];

fn request(stream: u32, end: bool) -> Vec<u8> {
    headers(stream, &REQUEST, end)
}

fn request_with(stream: u32, more: (&str, &str), end: bool) -> Vec<u8> {
    let mut fields = REQUEST.to_vec();
    fields.push(more);
    headers(stream, &fields, end)
}

fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        values.iter().flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(Kind::Settings, 0, 0, &payload)
}

fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(Kind::WindowUpdate, 0, stream, &increment.to_be_bytes())
}

fn reset(stream: u32, code: ErrorCode) -> Vec<u8> {
    frame(Kind::ResetStream, 0, stream, &code.0.to_be_bytes())
}

fn ping() -> Vec<u8> {
    frame(Kind::Ping, 0, 0, b"12345678")
}

/// What a machine has to say, frame by frame.
fn take_frames(machine: &mut Machine) -> Vec<(FrameHeader, Vec<u8>)> {
    let mut frames = Vec::new();
    let mut rest = machine.output();
    while let Some((header, after)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let header = FrameHeader::parse(header);
        let (payload, after) = after.split_at(header.length as usize);
        frames.push((header, payload.to_vec()));
        rest = after;
    }
    assert!(rest.is_empty());
    let count = machine.output().len();
    machine.written(count);
    machine.flushed();
    frames
}

/// A server that has greeted and was greeted.
fn server_with(settings_of_ours: Settings, now: Instant) -> Machine {
    let mut machine = Machine::server(settings_of_ours, now);
    give(&mut machine, &[PREFACE, &settings(&[])[..], &frame(Kind::Settings, flags::ACK, 0, &[])].concat(), now);
    let greeting: Vec<_> = take_frames(&mut machine).iter().map(|(header, _)| header.kind).collect();
    assert_eq!(greeting[0], Kind::Settings);
    machine
}

fn server() -> Machine {
    server_with(Settings::default(), crate::clock::now())
}

/// A client that has greeted and was greeted.
fn client() -> Machine {
    let now = crate::clock::now();
    let mut machine = Machine::client(Settings::default(), now);
    let greeting = machine.output().len();
    machine.written(greeting);
    give(&mut machine, &[settings(&[]), frame(Kind::Settings, flags::ACK, 0, &[])].concat(), now);
    take_frames(&mut machine);
    machine
}

/// Hands bytes over, one by one and then again all at once where that is left over.
fn give(machine: &mut Machine, bytes: &[u8], now: Instant) {
    let mut pending: Vec<u8> = Vec::new();
    for byte in bytes {
        pending.push(*byte);
        let used = machine.receive(&pending, now);
        pending.drain(..used);
    }
    assert!(machine.over.is_some() || pending.is_empty(), "{} bytes are left over", pending.len());
}

fn take_requests(machine: &mut Machine) -> Vec<u32> {
    std::iter::from_fn(|| machine.next_arrived()).map(|arrived| arrived.slot).collect()
}

fn idle() -> Context<'static> {
    Context::from_waker(Waker::noop())
}
