//! The other direction: a server that lies. What one client is answered must never become the next one's answer.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::answers::answers;
use crate::exchange;
use weft_tests::process::crossing::{Behind, Crossing, Way};

/// What the client of the lie gets.
#[derive(Debug, Clone, Copy)]
enum Gets {
    /// A proxy's refusal in the server's place.
    Refusal,
    /// An answer of this status with this body.
    Answer(u16, &'static str),
    /// An answer that is cut off: a client can tell.
    CutOff,
}

/// A name, a request, what the server says, why it is dangerous, and what the client gets.
type Lie = (&'static str, &'static str, &'static str, &'static str, Gets);

const GET: &str = "GET /attack HTTP/1.1\r\nHost: h\r\n\r\n";
const HEAD: &str = "HEAD /attack HTTP/1.1\r\nHost: h\r\n\r\n";
const UPGRADE: &str = "GET /attack HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";

const LIES: &[Lie] = &[
    (
        "an answer behind the answer",
        GET,
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
        "the second one would be the next client's",
        Gets::Answer(200, "ok"),
    ),
    (
        "an answer behind chunks",
        GET,
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
        "the second one would be the next client's",
        Gets::Answer(200, "ok"),
    ),
    (
        "an answer behind 204",
        GET,
        "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
        "204 has no body: what follows would be the next client's",
        Gets::Answer(204, ""),
    ),
    (
        "204 with a length",
        GET,
        "HTTP/1.1 204 No Content\r\ncontent-length: 6\r\n\r\npoison",
        "204 has no body whatever it says",
        Gets::Answer(204, ""),
    ),
    (
        "304 with a body",
        GET,
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 6\r\n\r\npoison",
        "304 has no body whatever it says",
        Gets::Answer(304, ""),
    ),
    (
        "HEAD with a body",
        HEAD,
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
        "the answer to HEAD has no body: what follows would be the next client's",
        Gets::Answer(200, ""),
    ),
    (
        "length and coding",
        GET,
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\npoison",
        "two framings end in two places",
        Gets::Refusal,
    ),
    (
        "length twice",
        GET,
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 8\r\n\r\nokpoison",
        "two lengths end in two places",
        Gets::Refusal,
    ),
    ("length signed", GET, "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok", "number parsers differ", Gets::Refusal),
    (
        "an unknown coding",
        GET,
        "HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "who knows it finds another end",
        Gets::Refusal,
    ),
    (
        "coding in HTTP/1.0",
        GET,
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.0 has no chunks",
        Gets::Refusal,
    ),
    ("LF instead of CRLF", GET, "HTTP/1.1 200 OK\ncontent-length: 2\n\nok", "clients differ on lines", Gets::Refusal),
    (
        "folded",
        GET,
        "HTTP/1.1 200 OK\r\nx: y\r\n content-length: 0\r\ncontent-length: 2\r\n\r\nok",
        "who unfolds sees other fields",
        Gets::Refusal,
    ),
    (
        "a space before the colon",
        GET,
        "HTTP/1.1 200 OK\r\ncontent-length : 6\r\ncontent-length: 2\r\n\r\nok",
        "who trims sees two lengths",
        Gets::Refusal,
    ),
    (
        "CR in a value",
        GET,
        "HTTP/1.1 200 OK\r\nx: y\rset-cookie: a=b\r\ncontent-length: 2\r\n\r\nok",
        "response splitting",
        Gets::Refusal,
    ),
    (
        "NUL in a value",
        GET,
        "HTTP/1.1 200 OK\r\nx: y\0\r\ncontent-length: 2\r\n\r\nok",
        "a string's end to somebody",
        Gets::Refusal,
    ),
    (
        "version 2.0",
        GET,
        "HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "an unknown version has unknown framing",
        Gets::Refusal,
    ),
    ("status of two digits", GET, "HTTP/1.1 20 OK\r\ncontent-length: 2\r\n\r\nok", "no status at all", Gets::Refusal),
    ("not HTTP", GET, "SSH-2.0-OpenSSH_9.2\r\n\r\n", "another protocol's words are no answer", Gets::Refusal),
    (
        "101 nobody asked for",
        GET,
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\npoison",
        "a tunnel the client does not know of",
        Gets::Refusal,
    ),
    (
        "100 without end",
        GET,
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
        "interim answers without end are a wait without end",
        Gets::Refusal,
    ),
    (
        "103 before the answer",
        GET,
        "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "an interim answer is not the answer",
        Gets::Answer(200, "ok"),
    ),
    (
        "100 with a length",
        GET,
        "HTTP/1.1 100 Continue\r\ncontent-length: 38\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "an interim answer has no body: a client that believes the length would swallow the answer",
        Gets::Answer(200, "ok"),
    ),
    (
        "an upgrade refused, with more behind",
        UPGRADE,
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
        "no tunnel where none was agreed",
        Gets::Answer(200, "ok"),
    ),
    (
        "chunk size signed",
        GET,
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n+2\r\nok\r\n0\r\n\r\n",
        "size parsers differ",
        Gets::CutOff,
    ),
    (
        "a chunk longer than its size",
        GET,
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokpoison\r\n0\r\n\r\n",
        "what is not counted is nobody's",
        Gets::CutOff,
    ),
    (
        "shorter than its length",
        GET,
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok",
        "the missing rest must not be taken from the next answer",
        Gets::CutOff,
    ),
    (
        "chunks without an end",
        GET,
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
        "a client must be able to tell",
        Gets::CutOff,
    ),
    ("nothing at all", GET, "", "an end is no answer", Gets::Refusal),
    ("half a head", GET, "HTTP/1.1 200 OK\r\ncontent-le", "an end is no answer", Gets::Refusal),
    ("a head without end", GET, "HTTP/1.1 200 OK\r\nx: ", "limits hold for servers too", Gets::Refusal),
];

/// A server that says what it is told to requests for `/attack`, and `honest PATH` to others.
#[derive(Debug)]
struct Liar {
    address: SocketAddr,
    lie: Arc<Mutex<Vec<u8>>>,
}

impl Liar {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let lie: Arc<Mutex<Vec<u8>>> = Arc::default();
        let shared = Arc::clone(&lie);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || drop(serve(stream, &shared)));
            }
        });
        Self { address, lie }
    }
}

fn serve(mut stream: TcpStream, lie: &Mutex<Vec<u8>>) -> std::io::Result<()> {
    let mut read = Vec::new();
    loop {
        let mut more = [0; 4096];
        let count = stream.read(&mut more)?;
        if count == 0 {
            return Ok(());
        }
        read.extend_from_slice(&more[..count]);
        while let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..end]).into_owned();
            read.drain(..end + 4);
            let target = head.split(' ').nth(1).unwrap_or_default();
            if target != "/attack" {
                let text = format!("honest {target}");
                stream
                    .write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()).as_bytes())?;
                continue;
            }
            let lie = lie.lock().unwrap_or_else(PoisonError::into_inner).clone();
            stream.write_all(&lie)?;
            if lie.ends_with(b"x: ") {
                // One that never ends, as far as anybody takes it.
                while stream.write_all(&[b'y'; 8192]).is_ok() {}
            }
            // Whole answers leave the connection open, so that what is left behind them could do its harm.
            if !lie.ends_with(b"poison") && !lie.ends_with(b"ok") || lie.ends_with(b"9\r\n\r\nok") {
                return Ok(());
            }
        }
    }
}

fn tell(name: &str, request: &str, gets: Gets, entrance: SocketAddr) -> Result<(), String> {
    // What the client asks next on the same connection must be answered for itself or not at all.
    let next = "GET /next HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let received = exchange(entrance, format!("{request}{next}").as_bytes(), false)?;
    let method = request.split(' ').next().unwrap_or_default();
    let got = answers(&received, &[method, "GET"]);
    let text = String::from_utf8_lossy(&received);
    match (gets, got) {
        (Gets::CutOff, Err(_)) => Ok(()),
        // Nothing of the answer had gone out yet: then a refusal is better still.
        (Gets::Refusal | Gets::CutOff, Ok(got)) if got.first().is_some_and(|answer| answer.weft_error.is_some()) => {
            check_next(name, &got[1..], &text)
        }
        (Gets::Answer(status, body), Ok(got)) => match got.first() {
            Some(answer) if answer.status == status && answer.text.ends_with(&format!("\n\n{body}")) => {
                check_next(name, &got[1..], &text)
            }
            _ => Err(format!("got {text:?}")),
        },
        (_, got) => Err(format!("got {got:?} of {text:?}")),
    }
}

fn check_next(name: &str, rest: &[crate::answers::Answer], text: &str) -> Result<(), String> {
    match rest {
        [] => Ok(()),
        [next] if next.text.contains("honest /next") => Ok(()),
        _ => Err(format!("{name}: the next request was answered with {rest:?} in {text:?}")),
    }
}

#[test]
fn no_answer_of_a_lying_server_becomes_another_clients() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let liar = Liar::start();
    let crossing = Crossing::start(place.path(), &[Behind::new("liar", liar.address, Some("http"))]);
    let mut wrong = Vec::new();
    for way in Way::BOTH {
        let entrance = crossing.entrance("liar", way);
        for (name, request, lie, why, gets) in LIES {
            *liar.lie.lock().unwrap_or_else(PoisonError::into_inner) = lie.as_bytes().to_vec();
            let told = tell(name, request, *gets, entrance);
            // Others ask on connections of their own, and use the proxies' connections to the server again.
            let honest = (0..3).try_for_each(|number| {
                let asked = format!("GET /honest{number} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
                let received = exchange(entrance, asked.as_bytes(), false)?;
                let text = String::from_utf8_lossy(&received).into_owned();
                // Bad answers may have the only endpoint ejected for a moment: no answer is better than a wrong one.
                let is_own = text.ends_with(&format!("honest /honest{number}")) || text.contains("weft-error");
                if is_own { Ok(()) } else { Err(format!("an honest client got {text:?}")) }
            });
            let verdict = told.and(honest);
            println!("{:<5} {name:<40} {gets:?}: {}", way.name(), if verdict.is_ok() { "ok" } else { "WRONG" });
            if let Err(error) = verdict {
                wrong.push(format!("{}: {name} ({why}): {error}", way.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
