//! Bodies of every size at which something changes, echoed by the application.

use std::io;
use std::thread;

use weft_core::model::InboundTls;

use super::*;
use crate::stream::{LARGE, SMALL};
use crate::testing::{Pair, inbound};

const MIB: usize = 1024 * 1024;
const SIZES: [usize; 10] = [0, 1, SMALL - 1, SMALL, SMALL + 1, LARGE - 1, LARGE, LARGE + 1, MIB, 20 * MIB];

fn body(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i % 251) as u8).collect()
}

/// How the bodies of a test are framed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Frames {
    Length,
    /// Chunks of so many bytes.
    Chunks(usize),
}

impl Frames {
    fn write(self, to: &mut impl Write, start: &str, body: &[u8]) -> io::Result<()> {
        match self {
            Self::Length => {
                write!(to, "{start}Content-Length: {}\r\n\r\n", body.len())?;
                to.write_all(body)
            }
            Self::Chunks(size) => {
                write!(to, "{start}Transfer-Encoding: chunked\r\n\r\n")?;
                for chunk in body.chunks(size) {
                    write!(to, "{:X};x\r\n", chunk.len())?;
                    to.write_all(chunk)?;
                    to.write_all(b"\r\n")?;
                }
                to.write_all(b"0\r\n\r\n")
            }
        }
    }
}

/// An application that answers each request with its body, framed as the request was.
fn echo(application: Application, frames: Frames) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut stream = application.accept();
        let mut reader = BufReader::with_capacity(LARGE, stream.try_clone().expect("a stream"));
        while !reader.fill_buf().expect("readable").is_empty() {
            let (_, body) = read_message(&mut reader, false);
            frames.write(&mut stream, "HTTP/1.1 200 OK\r\n", &body).expect("written");
        }
    })
}

/// Sends each size on one connection and compares what comes back.
fn bodies_come_back(worker: &RunningWorker, frames: Frames) {
    let mut client = worker.connect();
    let mut reader = BufReader::with_capacity(LARGE, client.try_clone().expect("a stream"));
    for size in SIZES {
        let body = body(size);
        let ((head, echoed), written) = thread::scope(|scope| {
            let writer = scope.spawn(|| frames.write(&mut client, "POST / HTTP/1.1\r\nHost: a\r\n", &body));
            let message = read_message(&mut reader, false);
            (message, writer.join().expect("no panic"))
        });
        assert!(echoed == body, "{size} bytes, {frames:?}: got {} after {head}, {written:?}", echoed.len());
        written.expect("written");
    }
}

const ALL: [Frames; 4] = [Frames::Length, Frames::Chunks(SMALL + 1), Frames::Chunks(1000), Frames::Chunks(MIB)];

#[test]
fn bodies_of_every_size_pass_both_ways() {
    for frames in ALL {
        let (worker, application) = proxied();
        let echo = echo(application, frames);
        bodies_come_back(&worker, frames);
        drop(worker);
        echo.join().expect("the application");
    }
}

#[test]
fn bodies_of_every_size_pass_both_ways_between_two_proxies() {
    for frames in ALL {
        let application = Application::start();
        let pair = Pair::start(inbound(Protocol::Http, InboundTls::Strict, application.address));
        let echo = echo(application, frames);
        bodies_come_back(&pair.outer, frames);
        drop(pair);
        echo.join().expect("the application");
    }
}

#[test]
fn messages_that_come_byte_by_byte_pass() {
    const REQUEST: &str =
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\nA: b\r\n\r\n";
    const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789";
    let (worker, application) = proxied();
    let app = thread::spawn(move || {
        let mut stream = application.accept();
        for _ in 0..2 {
            let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
            let mut text = String::new();
            while !text.ends_with("A: b\r\n\r\n") {
                assert_ne!(reader.read_line(&mut text).expect("text"), 0, "{text}");
            }
            let (_, body) = text.split_once("\r\n\r\n").expect("a body");
            // The chunks are cut anew: only their content is the client's.
            let data: String = body.split("\r\n").filter(|line| line.len() == 1 && !"015".contains(line)).collect();
            assert!(data == "hello!" || body.starts_with("5\r\nhello\r\n1\r\n!\r\n0"), "{body}");
            for byte in ANSWER.as_bytes() {
                stream.write_all(&[*byte]).expect("written");
            }
        }
    });
    let mut client = worker.connect();
    for _ in 0..2 {
        for byte in REQUEST.as_bytes() {
            client.write_all(&[*byte]).expect("written");
        }
        expect(&mut client, ANSWER);
    }
    app.join().expect("the application");
}
