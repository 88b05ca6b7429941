//! Requests, their client, and a stand-in application: blocking sockets that allocate nothing once they run.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;

/// Longest wait for anything before a run fails.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A kind of exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// GET, answered with 1 KiB.
    Get,
    /// POST of 10 KiB, answered with 1 KiB.
    Post,
    /// POST of 10 KiB in chunks, answered with 1 KiB in chunks.
    Chunked,
    /// HTTP/2: GET, answered with 1 KiB; ten streams on each connection.
    Http2,
    /// gRPC: unary calls with 100 bytes each way; ten streams on each connection.
    Unary,
}

impl Shape {
    /// Those of HTTP/1.
    pub const HTTP1: [Self; 3] = [Self::Get, Self::Post, Self::Chunked];
    pub const ALL: [Self; 5] = [Self::Get, Self::Post, Self::Chunked, Self::Http2, Self::Unary];

    /// Those that [`crate::streams`] sends.
    pub fn has_streams(self) -> bool {
        matches!(self, Self::Http2 | Self::Unary)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET, 1 KiB answer",
            Self::Post => "POST 10 KiB",
            Self::Chunked => "chunked 10 KiB, chunked answer",
            Self::Http2 => "HTTP/2 GET, 1 KiB answer",
            Self::Unary => "gRPC unary, 100 bytes each way",
        }
    }

    /// About 600 bytes of head, as a service behind a login gets them. In the form of HTTP/1.
    pub fn request(self) -> Vec<u8> {
        let (method, framing, body) = match self {
            Self::Get | Self::Http2 => ("GET", String::new(), Vec::new()),
            Self::Unary => ("POST", "content-length: 105\r\n".to_owned(), vec![b'm'; 105]),
            Self::Post => ("POST", format!("content-length: {}\r\n", 10 * 1024), vec![b'p'; 10 * 1024]),
            Self::Chunked => ("POST", "transfer-encoding: chunked\r\n".to_owned(), chunked(10, 1024)),
        };
        let head = format!(
            "{method} /orders/4711/items?page=2 HTTP/1.1\r\n\
             host: orders.default\r\n\
             user-agent: Mozilla/5.0 (X11; Linux x86_64) bench/1.0\r\n\
             accept: application/json, text/plain, */*\r\n\
             accept-encoding: gzip, deflate, br\r\n\
             accept-language: en-GB,en;q=0.8,de;q=0.5\r\n\
             authorization: Bearer {token}\r\n\
             cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
             traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\
             {framing}\r\n",
            token = "t".repeat(160)
        );
        [head.into_bytes(), body].concat()
    }

    pub fn answer(self) -> Vec<u8> {
        let (framing, body) = match self {
            Self::Get | Self::Post | Self::Http2 | Self::Unary => ("content-length: 1024".to_owned(), vec![b'a'; 1024]),
            Self::Chunked => ("transfer-encoding: chunked".to_owned(), chunked(2, 512)),
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\n\
             server: application/1.0\r\n\
             date: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
             content-type: application/json; charset=utf-8\r\n\
             {framing}\r\n\
             cache-control: no-cache, no-store, must-revalidate\r\n\
             etag: \"5f2-60c0a1b2c3d4e\"\r\n\
             vary: accept-encoding\r\n\
             x-content-type-options: nosniff\r\n\
             \r\n"
        );
        [head.into_bytes(), body].concat()
    }
}

fn chunked(count: usize, size: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..count {
        body.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        body.extend_from_slice(&vec![b'c'; size]);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    body
}

/// Reads one message from a well-meaning peer into `buffer` and returns its length; 0 when the peer has closed.
fn read_message(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    loop {
        if is_complete(&buffer[..length]) {
            return Ok(length);
        }
        match stream.read(&mut buffer[length..])? {
            0 if length == 0 => return Ok(0),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => length += count,
        }
    }
}

/// Our own messages only: one framing field in lower case, and chunks of letters.
fn is_complete(bytes: &[u8]) -> bool {
    const LENGTH: &[u8] = b"\r\ncontent-length: ";
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return false };
    let (head, body) = (&bytes[..end], &bytes[end + 4..]);
    if memchr::memmem::find(head, b"\r\ntransfer-encoding: chunked").is_some() {
        return body.ends_with(b"0\r\n\r\n");
    }
    let digits = memchr::memmem::find(head, LENGTH).map_or(&b""[..], |at| &head[at + LENGTH.len()..]);
    let length = digits.iter().take_while(|b| b.is_ascii_digit()).fold(0, |n, b| n * 10 + usize::from(b - b'0'));
    body.len() == length
}

/// Answers every request on every connection, a thread each, until the process ends.
///
/// The first answers wait until `connections` requests have come: afterwards the proxy has as many connections as it
/// will ever need, however the machine schedules the rest of the run.
pub fn serve_application(listener: TcpListener, shape: Shape, connections: usize) {
    let gathered = Arc::new(Barrier::new(connections));
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.set_nodelay(true);
            let answer = shape.answer();
            let mut first = Some(Arc::clone(&gathered));
            thread::spawn(move || {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(1..) = read_message(&mut stream, &mut buffer) {
                    first.take().map(|gathered| gathered.wait());
                    if stream.write_all(&answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// Connections that ask in step: all send, then all read.
#[derive(Debug)]
pub struct Clients {
    streams: Vec<TcpStream>,
    request: Vec<u8>,
    answer_length: usize,
    buffer: Vec<u8>,
}

impl Clients {
    pub fn connect(address: SocketAddr, shape: Shape, count: usize) -> io::Result<Self> {
        let streams = (0..count)
            .map(|_| {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Ok(stream)
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { streams, request: shape.request(), answer_length: shape.answer().len(), buffer: vec![0; 64 * 1024] })
    }

    /// One request on each connection.
    ///
    /// # Errors
    /// When a connection fails, or what came is not the application's answer.
    pub fn round(&mut self) -> io::Result<()> {
        for stream in &mut self.streams {
            stream.write_all(&self.request)?;
        }
        for stream in &mut self.streams {
            let length = read_message(stream, &mut self.buffer)?;
            if length != self.answer_length || !self.buffer.starts_with(b"HTTP/1.1 200 ") {
                let text = String::from_utf8_lossy(&self.buffer[..length.min(300)]);
                return Err(io::Error::other(format!("not the application's answer: {text}")));
            }
        }
        Ok(())
    }
}
