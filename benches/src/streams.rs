//! HTTP/2 from both ends, as much of it as a run needs: blocking sockets that allocate nothing once they run.
//!
//! Header blocks are those of who repeats himself: the first of a connection puts its fields into the peer's table, the
//! others refer to them. Nothing reads a block. Windows are the proxy's business: ours are opened wide once, and what is
//! under way at a time is far less than what it gives.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use weft_proxy::http2::frame::{self, HEADER_BYTES, flags, setting};
use weft_proxy::http2::{FrameHeader, Kind, PREFACE};

use crate::traffic::{PATIENCE, Shape};

/// Requests at once on each connection.
pub const STREAMS: u32 = 10;
/// Opened once; more than a run needs.
const WINDOW: u32 = 1 << 30;
/// A name of HPACK's static table, or letters.
type Name = Result<u8, &'static str>;

/// A header block as it is sent first, and afterwards.
#[derive(Debug)]
struct Block {
    first: Vec<u8>,
    later: Vec<u8>,
}

impl Block {
    /// `fixed`: fields that have a number of their own.
    fn new(fixed: &[u8], fields: &[(Name, String)]) -> Self {
        let (mut first, mut later) = (fixed.to_vec(), fixed.to_vec());
        for (place, (name, value)) in fields.iter().enumerate() {
            match name {
                Ok(number) => first.push(0x40 | number),
                Err(letters) => {
                    first.push(0x40);
                    text(letters, &mut first);
                }
            }
            text(value, &mut first);
            // The newest has the lowest number, after the 61 of the static table.
            later.push(0x80 | small(61 + fields.len() - place));
        }
        Self { first, later }
    }
}

/// Our own messages have no larger ones.
fn small(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

fn text(text: &str, out: &mut Vec<u8>) {
    match text.len() {
        length @ ..127 => out.push(small(length)),
        // Never as much as takes a third byte.
        length => out.extend_from_slice(&[127, small(length - 127)]),
    }
    out.extend_from_slice(text.as_bytes());
}

fn request(shape: Shape) -> Block {
    let (method, target) = if shape == Shape::Unary { (0x83, "/orders.Orders/Find") } else { (0x82, "/orders/4711") };
    let mut fields = vec![
        (Ok(4), target.to_owned()),
        (Ok(1), "orders.default".to_owned()),
        (Err("user-agent"), "Mozilla/5.0 (X11; Linux x86_64) bench/1.0".to_owned()),
        (Err("accept-language"), "en-GB,en;q=0.8,de;q=0.5".to_owned()),
        (Err("authorization"), format!("Bearer {}", "t".repeat(160))),
        (Err("cookie"), "session=0123456789abcdef0123456789abcdef; theme=dark".to_owned()),
        (Err("traceparent"), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
    ];
    if shape == Shape::Unary {
        fields.push((Err("content-type"), "application/grpc".to_owned()));
        fields.push((Err("te"), "trailers".to_owned()));
    }
    Block::new(&[method, 0x86], &fields)
}

fn answer(shape: Shape) -> Block {
    let content = if shape == Shape::Unary { "application/grpc" } else { "application/json; charset=utf-8" };
    let fields = [
        (Err("server"), "application/1.0".to_owned()),
        (Err("content-type"), content.to_owned()),
        (Err("cache-control"), "no-cache, no-store, must-revalidate".to_owned()),
        (Err("x-content-type-options"), "nosniff".to_owned()),
    ];
    Block::new(&[0x88], &fields)
}

/// A message of 100 bytes with the five before it, or 1 KiB.
fn body(shape: Shape) -> Vec<u8> {
    if shape == Shape::Unary { [&[0, 0, 0, 0, 100], &[b'm'; 100][..]].concat() } else { vec![b'a'; 1024] }
}

fn write(kind: Kind, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    FrameHeader { length, kind, flags, stream }.write(out);
    out.extend_from_slice(payload);
}

/// One end of a connection.
#[derive(Debug)]
struct End {
    socket: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    filled: usize,
    out: Vec<u8>,
    has_spoken: bool,
}

impl End {
    fn new(socket: TcpStream, settings: &[(u16, u32)]) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        let mut out = Vec::with_capacity(256 * 1024);
        frame::write_settings(settings, &mut out);
        frame::write_window_update(0, WINDOW, &mut out);
        Ok(Self { socket, buffer: vec![0; 128 * 1024], start: 0, filled: 0, out, has_spoken: false })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// The next frame's head and where its payload lies; waits for it, having written what is queued. `None`: the end.
    fn next(&mut self) -> io::Result<Option<FrameHeader>> {
        loop {
            let have = &self.buffer[self.start..self.filled];
            if let Some(head) = have.first_chunk::<HEADER_BYTES>() {
                let header = FrameHeader::parse(head);
                let length = HEADER_BYTES + header.length as usize;
                if have.len() >= length {
                    self.start += length;
                    if header.kind == Kind::Settings && !header.has(flags::ACK) {
                        frame::write_settings_ack(&mut self.out);
                    }
                    return Ok(Some(header));
                }
            }
            self.flush()?;
            self.buffer.copy_within(self.start..self.filled, 0);
            self.filled -= self.start;
            self.start = 0;
            match self.socket.read(&mut self.buffer[self.filled..])? {
                0 => return Ok(None),
                count => self.filled += count,
            }
        }
    }

    fn head(&mut self, block: &Block, flags: u8, stream: u32) {
        let block = if self.has_spoken { &block.later } else { &block.first };
        write(Kind::Headers, flags::END_HEADERS | flags, stream, block, &mut self.out);
        self.has_spoken = true;
    }
}

/// Answers every request on every connection, a thread each, until the process ends.
pub fn serve_application(listener: TcpListener, shape: Shape) {
    thread::spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            thread::spawn(move || serve(socket, shape));
        }
    });
}

fn serve(mut socket: TcpStream, shape: Shape) -> io::Result<()> {
    let mut preface = [0; PREFACE.len()];
    socket.read_exact(&mut preface)?;
    let mut end = End::new(socket, &[(setting::MAX_CONCURRENT_STREAMS, 1000)])?;
    let (block, body) = (answer(shape), body(shape));
    let is_call = shape == Shape::Unary;
    let mut trailers = vec![0x00];
    text("grpc-status", &mut trailers);
    text("0", &mut trailers);
    while let Some(header) = end.next()? {
        if matches!(header.kind, Kind::Headers | Kind::Data) && header.has(flags::END_STREAM) {
            end.head(&block, 0, header.stream);
            write(Kind::Data, if is_call { 0 } else { flags::END_STREAM }, header.stream, &body, &mut end.out);
            if is_call {
                let flags = flags::END_HEADERS | flags::END_STREAM;
                write(Kind::Headers, flags, header.stream, &trailers, &mut end.out);
            }
        }
    }
    Ok(())
}

/// Connections that ask in step: each sends as many requests as it has streams, then all answers are read.
#[derive(Debug)]
pub struct Clients {
    ends: Vec<End>,
    next: u32,
    block: Block,
    /// The message of a call.
    message: Option<Vec<u8>>,
    /// Bytes of a good answer.
    expected: usize,
}

impl Clients {
    pub fn connect(address: SocketAddr, shape: Shape, count: usize) -> io::Result<Self> {
        let end = || {
            let mut socket = TcpStream::connect(address)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.write_all(PREFACE)?;
            End::new(socket, &[(setting::ENABLE_PUSH, 0)])
        };
        Ok(Self {
            ends: (0..count).map(|_| end()).collect::<io::Result<_>>()?,
            next: 1,
            block: request(shape),
            message: (shape == Shape::Unary).then(|| body(shape)),
            expected: body(shape).len(),
        })
    }

    /// One request on each stream of each connection.
    ///
    /// # Errors
    /// When a connection fails, or what came are not the application's answers.
    pub fn round(&mut self) -> io::Result<()> {
        let first = self.next;
        self.next += 2 * STREAMS;
        for end in &mut self.ends {
            for stream in (first..self.next).step_by(2) {
                end.head(&self.block, if self.message.is_some() { 0 } else { flags::END_STREAM }, stream);
                if let Some(message) = &self.message {
                    write(Kind::Data, flags::END_STREAM, stream, message, &mut end.out);
                }
            }
            end.flush()?;
        }
        for end in &mut self.ends {
            let (mut left, mut received) = (STREAMS, 0);
            while left > 0 {
                let header = end.next()?.ok_or(io::ErrorKind::UnexpectedEof)?;
                match header.kind {
                    Kind::ResetStream | Kind::GoAway => return Err(io::Error::other(format!("{header:?}"))),
                    Kind::Data => received += header.length as usize,
                    _ => {}
                }
                left -= u32::from(matches!(header.kind, Kind::Headers | Kind::Data) && header.has(flags::END_STREAM));
            }
            if received != STREAMS as usize * self.expected {
                return Err(io::Error::other(format!("{received} bytes of answers instead of {STREAMS} good ones")));
            }
        }
        Ok(())
    }
}
