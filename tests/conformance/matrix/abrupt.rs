//! HTTP/2 that ends in the middle of something, on either side: the other side is told, and nobody else notices.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use socket2::SockRef;
use weft_tests::process::crossing::{Behind, Crossing, Way};
use weft_tests::process::http2::{
    DATA, END_HEADERS, END_STREAM, End, GOAWAY, HEADERS, PREFACE, RST_STREAM, Raw, SETTINGS, block, frame,
};
use weft_tests::process::nghttpd::Nghttpd;
use weft_tests::process::{PATIENCE, holds, until};

/// Larger than all windows and buffers on the way.
const LARGE: usize = 8 << 20;

fn request(method: &str, ends: u8) -> Vec<u8> {
    let fields = [(":method", method), (":scheme", "http"), (":path", "/"), (":authority", "h")];
    frame(HEADERS, END_HEADERS | ends, 1, &block(&fields))
}

/// One request after what opens a connection.
fn ask(entrance: SocketAddr) -> std::io::Result<(Raw, End)> {
    let mut raw = Raw::open(entrance)?;
    raw.send(&[request("POST", 0), frame(DATA, END_STREAM, 1, b"body")].concat())?;
    let end = raw.end_of(1)?;
    Ok((raw, end))
}

/// Served as if nothing had been.
fn is_well(entrance: SocketAddr) -> Result<(), String> {
    let (mut raw, end) = ask(entrance).map_err(|error| error.to_string())?;
    let is_whole = end == End::Answered(200) && raw.is_whole(1).map_err(|error| error.to_string())?;
    holds(is_whole, || format!("{end:?}"))
}

/// Ends a connection: by its end, or by a reset.
fn end(stream: &TcpStream, resets: bool) {
    if resets {
        SockRef::from(stream).set_linger(Some(Duration::ZERO)).expect("a plain option");
    }
}

#[test]
fn a_client_of_http2_may_go_away_at_any_stage() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let server = Nghttpd::start(place.path(), LARGE);
    let crossing = Crossing::start(place.path(), &[Behind::new("web", server.address(), Some("http"))]);
    let greeting = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let after = |more: &[u8]| [&greeting[..], more].concat();
    let (post, get) = (request("POST", 0), request("GET", END_STREAM));
    let body = frame(DATA, 0, 1, &[b'x'; 10_000]);
    let stages: [(&str, Vec<u8>, usize); 10] = [
        ("before the preface", Vec::new(), 0),
        ("in the preface", PREFACE[..10].to_vec(), 0),
        ("behind the settings", after(&[]), 1),
        ("in the head", after(&post[..20]), 1),
        ("behind half a header block", after(&frame(HEADERS, 0, 1, &block(&[(":method", "POST")]))), 1),
        ("behind the head", after(&post), 1),
        ("in the body", after(&[&post[..], &body[..5_000]].concat()), 1),
        ("between frames of the body", after(&[&post[..], &body].concat()), 1),
        ("behind the request", after(&get), 0),
        // Windows let no more than 65,535 bytes of it through.
        ("during the answer", after(&get), 60_000),
    ];
    for way in Way::BOTH {
        let entrance = crossing.entrance("web", way);
        for (name, sent, reads) in &stages {
            for resets in [false, true] {
                let mut stream = TcpStream::connect_timeout(&entrance, PATIENCE).expect("the proxy takes connections");
                stream.set_read_timeout(Some(PATIENCE)).expect("a plain option");
                stream.write_all(sent).expect("the proxy reads");
                // What had to be read to get there.
                let mut rest = vec![0; *reads];
                stream.read_exact(&mut rest).expect("the proxy answers");
                end(&stream, resets);
                drop(stream);
                until(&format!("others are served after the end {name}"), || is_well(entrance));
                println!("ok h2 {} client {} {name}", way.name(), if resets { "reset" } else { "close" });
            }
        }
    }
    crossing.is_quiet();
}

/// What a server of HTTP/2 does with a request.
#[derive(Debug, Clone)]
struct Conduct {
    name: &'static str,
    /// It says even before the request.
    greets: bool,
    waits: bool,
    answer: Vec<u8>,
    resets: bool,
}

fn misconducts() -> Vec<Conduct> {
    let head = frame(HEADERS, END_HEADERS, 1, &[0x88]);
    let with = |more: &[u8]| [&head[..], more].concat();
    let body = frame(DATA, END_STREAM, 1, b"whole");
    let go_away = frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 2]);
    let all = [
        ("before its settings", false, false, Vec::new()),
        ("behind its settings", true, false, Vec::new()),
        ("behind the request", true, true, Vec::new()),
        ("in the answer's head", true, true, head[..5].to_vec()),
        ("behind the answer's head", true, true, head.clone()),
        ("in the answer's body", true, true, with(&body[..11])),
        ("between frames of the answer", true, true, with(&frame(DATA, 0, 1, b"half"))),
        ("with a reset of the stream", true, true, with(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 2]))),
        ("with a goodbye instead of an answer", true, true, go_away.clone()),
        ("with a goodbye in the answer", true, true, with(&go_away)),
    ];
    let both = all.into_iter().flat_map(|(name, greets, waits, answer)| {
        [false, true].map(|resets| Conduct { name, greets, waits, answer: answer.clone(), resets })
    });
    both.collect()
}

fn serve(mut stream: TcpStream, conduct: &Conduct) -> std::io::Result<()> {
    if conduct.greets {
        stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    }
    if conduct.waits {
        stream.read_exact(&mut [0; 24])?;
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head)?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            stream.read_exact(&mut payload)?;
            // The whole request is there, so that its sender waits for nothing but the answer.
            if matches!(head[3], DATA | HEADERS) && head[4] & END_STREAM != 0 {
                break;
            }
        }
        stream.write_all(&conduct.answer)?;
    }
    end(&stream, conduct.resets);
    Ok(())
}

#[test]
fn a_server_of_http2_may_go_away_at_any_stage() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let answer = [frame(HEADERS, END_HEADERS, 1, &[0x88]), frame(DATA, END_STREAM, 1, b"whole")].concat();
    let well = Conduct { name: "in order", greets: true, waits: true, answer, resets: false };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let conduct = Arc::new(Mutex::new(well.clone()));
    let present = Arc::clone(&conduct);
    let behave = |as_now: &Conduct| conduct.lock().unwrap_or_else(PoisonError::into_inner).clone_from(as_now);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let conduct = present.lock().unwrap_or_else(PoisonError::into_inner).clone();
            thread::spawn(move || serve(stream, &conduct));
        }
    });
    let crossing = Crossing::start(place.path(), &[Behind::new("web", address, Some("http2"))]);
    let mut wrong = Vec::new();
    for way in Way::BOTH {
        let entrance = crossing.entrance("web", way);
        for conduct in misconducts() {
            behave(&conduct);
            let got = ask(entrance).and_then(|(mut raw, end)| Ok((end, end == End::Answered(200) && raw.is_whole(1)?)));
            let label =
                format!("h2 {} server {} {}", way.name(), if conduct.resets { "reset" } else { "close" }, conduct.name);
            match got {
                // A refusal, or an answer that its reader can tell is cut off.
                Ok((_, false)) => println!("ok {label} {got:?}"),
                _ => wrong.push(format!("WRONG {label}: {got:?}")),
            }
            behave(&well);
            until(&format!("others are served after {label}"), || is_well(entrance));
        }
    }
    crossing.is_quiet();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
