//! The client's side of a connection.

use std::io;
use std::time::Instant;

use super::block::{Block, Name, is_ok};
use super::{
    Common, DATA, ENABLE_PUSH, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, PREFACE,
    RST_STREAM, WINDOW, message, write, write_settings,
};
use crate::http1;
use crate::measure::{Done, now};

/// A request under way.
#[derive(Debug)]
struct Asked {
    stream: u32,
    since: Instant,
    is_ok: bool,
    received: usize,
}

#[derive(Debug)]
pub(crate) struct Client {
    common: Common,
    block: Block,
    has_asked: bool,
    /// The message of a unary call, or nothing.
    body: Vec<u8>,
    /// Bytes of a good answer's body.
    expected: usize,
    streams: usize,
    next: u32,
    asked: Vec<Asked>,
}

impl Client {
    /// Requests for 1 KiB, or unary calls; says so to the peer.
    pub(crate) fn new(host: &str, is_grpc: bool, streams: usize, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(PREFACE);
        write_settings(&[(ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, WINDOW)], out);
        let (block, body, expected) =
            if is_grpc { (call(host), message(), message().len()) } else { (get(host), Vec::new(), 1024) };
        Self {
            common: Common::new(),
            block,
            has_asked: false,
            body,
            expected,
            streams,
            next: 1,
            asked: Vec::with_capacity(streams),
        }
    }

    /// A further request can be sent now.
    pub(crate) fn is_ready(&self) -> bool {
        self.common.table.is_some() && self.asked.len() < self.streams && self.common.window >= self.body.len() as i64
    }

    pub(crate) fn under_way(&self) -> usize {
        self.asked.len()
    }

    /// Sends a request, which counts as made at `since`.
    pub(crate) fn ask(&mut self, since: Instant, out: &mut Vec<u8>) {
        let block = self.block.encoded(self.common.table.unwrap_or(0), self.has_asked);
        let end = if self.body.is_empty() { END_STREAM } else { 0 };
        write(HEADERS, END_HEADERS | end, self.next, block, out);
        if !self.body.is_empty() {
            write(DATA, END_STREAM, self.next, &self.body, out);
            self.common.window -= self.body.len() as i64;
        }
        self.asked.push(Asked { stream: self.next, since, is_ok: false, received: 0 });
        self.has_asked = true;
        self.next += 2;
    }

    /// Takes what came; how much of it was whole frames.
    ///
    /// # Errors
    /// When the peer ends the connection.
    pub(crate) fn hear(&mut self, input: &[u8], out: &mut Vec<u8>, done: &mut Done) -> io::Result<usize> {
        let (mut rest, time) = (input, now());
        while let Some((frame, after)) = Frame::read(rest) {
            rest = after;
            self.common.hear(&frame, out);
            if frame.kind == GOAWAY {
                let code = frame.payload.get(4..8).unwrap_or_default();
                return Err(io::Error::other(format!("the peer said GOAWAY with code {code:?}")));
            }
            self.take(&frame, time, done);
        }
        Ok(input.len() - rest.len())
    }

    fn take(&mut self, frame: &Frame<'_>, time: Instant, done: &mut Done) {
        let Some(place) = self.asked.iter().position(|asked| asked.stream == frame.stream) else { return };
        let asked = &mut self.asked[place];
        match frame.kind {
            // The first is the answer's head; a later one holds trailers.
            HEADERS if !asked.is_ok => asked.is_ok = is_ok(frame.payload),
            DATA => asked.received += frame.payload.len(),
            RST_STREAM => asked.is_ok = false,
            _ => {}
        }
        if frame.kind == RST_STREAM || (matches!(frame.kind, HEADERS | DATA) && frame.has(END_STREAM)) {
            let asked = self.asked.swap_remove(place);
            if asked.is_ok && asked.received == self.expected {
                done.succeed(time - asked.since);
            } else if frame.kind == RST_STREAM {
                done.fail(1, &format!("a stream was reset with code {}", frame.number()));
            } else {
                let status = if asked.is_ok { "200" } else { "another status" };
                done.fail(1, &format!("{status} with {} bytes of body instead of {}", asked.received, self.expected));
            }
        }
    }
}

fn get(host: &str) -> Block {
    let target = http1::target(1024);
    let mut fields = vec![(Name::Static(4), target.as_str()), (Name::Static(1), host)];
    fields.extend(http1::FIELDS.map(|(name, value)| (Name::Letters(name), value)));
    Block::new(&[0x82, 0x86], &fields)
}

/// As gRPC's own clients send them.
fn call(host: &str) -> Block {
    let authorization = http1::FIELDS[4];
    let fields = [
        (Name::Static(4), "/laboratory.Orders/Find"),
        (Name::Static(1), host),
        (Name::Letters("content-type"), "application/grpc"),
        (Name::Letters("te"), "trailers"),
        (Name::Letters("user-agent"), "grpc-laboratory/1.0"),
        (Name::Letters("grpc-accept-encoding"), "identity, deflate, gzip"),
        (Name::Letters("grpc-timeout"), "10S"),
        (Name::Letters(authorization.0), authorization.1),
        (Name::Letters("traceparent"), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ];
    Block::new(&[0x83, 0x86], &fields)
}
