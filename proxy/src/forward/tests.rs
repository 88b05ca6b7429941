//! Raw bytes through a real worker over loopback.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use weft_core::model::{Direction, Protocol};

use crate::testing::{Application, RunningWorker, destination, outbound};

mod asked;
mod backpressure;
mod balance;
mod bodies;
mod drain;
mod endings;
mod framing;
mod hostile;
mod http2;
mod keep_alive;
mod limits;
mod listener;
mod memory;
mod mesh;
mod mixed;
mod mux;
mod named;
mod opaque;
mod passthrough;
mod policy;
mod retries;
mod reuse;
mod routing;
mod sizes;
mod timeouts;
mod undeclared;
mod upgrade;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const GET_SENT: &str = "GET / HTTP/1.1\r\nHost: a\r\nx-request-id: *ID*\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
const POST_SENT: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nx-request-id: *ID*\r\n\r\nabc";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const OK_CLOSE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: close\r\n\r\nok";

/// An outbound worker and the one application behind it.
fn proxied() -> (RunningWorker, Application) {
    let application = Application::start();
    (proxy(Protocol::Http, &[application.address]), application)
}

fn proxy(protocol: Protocol, endpoints: &[SocketAddr]) -> RunningWorker {
    RunningWorker::start(Direction::Outbound, destination(), outbound(protocol, endpoints, None))
}

fn send(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).unwrap_or_else(|error| panic!("writing {text:?}: {error}"));
}

/// Reads exactly `expected`; `*ID*` in it stands for a request id.
#[track_caller]
fn expect(stream: &mut TcpStream, expected: &str) {
    let length = expected.replace("*ID*", &"x".repeat(36)).len();
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match stream.read(&mut bytes[filled..]) {
            Ok(count @ 1..) => filled += count,
            end => panic!("{end:?} after {filled} bytes: {:?}, expected {expected:?}", shown(&bytes[..filled])),
        }
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    match expected.split_once("*ID*") {
        None => assert_eq!(text, expected),
        Some((before, after)) => {
            assert_eq!(&text[..before.len()], before);
            assert_eq!(&text[before.len() + 36..], after);
        }
    }
}

/// The beginning of bytes, as text.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(1000)]).into_owned()
}

/// Reads the answer of the proxy itself: it has this status and code.
#[track_caller]
fn expect_failure(stream: &mut TcpStream, status: u16, code: &str) {
    let (head, _) = read_message(&mut BufReader::new(stream), false);
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    assert!(head.contains(&format!("weft-error: {code}\r\n")), "{head}");
}

/// The stream ends, with nothing more to read.
#[track_caller]
fn expect_end(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let end = stream.read_to_end(&mut rest);
    assert!(rest.is_empty(), "{:?}", shown(&rest));
    if let Err(error) = end {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
}

/// Reads one message: its head, and its body with the framing taken off. An answer without framing ends with the stream.
fn read_message(reader: &mut impl BufRead, is_bodiless: bool) -> (String, Vec<u8>) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).expect("text"), 0, "ended after {head:?}");
    }
    let lower = head.to_ascii_lowercase();
    let length = lower
        .split("content-length: ")
        .nth(1)
        .map(|rest| rest.split("\r\n").next().expect("a line").parse::<usize>().expect("a length"));
    let mut body = Vec::new();
    if is_bodiless {
    } else if let Some(length) = length {
        body.resize(length, 0);
        reader.read_exact(&mut body).expect("a whole body");
    } else if lower.contains("transfer-encoding: chunked\r\n") {
        read_chunks(reader, &mut body);
    } else if lower.starts_with("http") {
        reader.read_to_end(&mut body).expect("an end");
    }
    (head, body)
}

fn read_chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) {
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a chunk line");
        let size = usize::from_str_radix(line.trim_end(), 16).expect("a size");
        let start = body.len();
        body.resize(start + size, 0);
        reader.read_exact(&mut body[start..]).expect("a whole chunk");
        let mut end = [0; 2];
        reader.read_exact(&mut end).expect("an end");
        assert_eq!(&end, b"\r\n");
        if size == 0 {
            return;
        }
    }
}
