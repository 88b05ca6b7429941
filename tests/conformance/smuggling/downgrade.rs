//! Clients of HTTP/2 in front of servers of HTTP/1.1: what one frame said is a line of text at the last proxy, where it
//! could say something else (RFC 9113 section 10.3; `h2.CL`, `h2.TE`, request splitting).
//!
//! Each case is either refused, or read by every server as the one request it is; and an honest request on the same
//! connections is read as it was sent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;

use super::case::{Case, Seen, Tag};
use super::http2::{HOST, METHOD, PATH, Pair, REFUSED, SCHEME, is_refused};
use super::recorder::Recorder;
use super::servers::Server;
use super::{Verdicts, document_name, judge_all, of_case, recorded, table, tag};
use weft_tests::process::crossing::{Behind, Crossing, Way};
use weft_tests::process::http2::{DATA, END_HEADERS, END_STREAM, End, HEADERS, Raw, block, frame};

/// What comes in frames.
#[derive(Debug, Clone, Default)]
struct Frames {
    fields: Vec<(String, String)>,
    data: Vec<&'static str>,
    trailers: &'static [Pair],
}

/// A request that is served: name, why it is dangerous, its frames, what servers read, and what must be and must not be
/// in what they are sent.
type Served = (
    &'static str,
    &'static str,
    &'static [Pair],
    &'static [&'static str],
    &'static [Pair],
    &'static [Seen],
    &'static [&'static str],
    &'static [&'static str],
);

const GET: Pair = (":method", "GET");
const POSTED: &[Seen] = &[("POST", "/attack", "body")];
const POSTED_NOTHING: &[Seen] = &[("POST", "/attack", "")];
const GOT: &[Seen] = &[("GET", "/attack", "")];
const INNER: &str = "0\r\n\r\nGET /canary HTTP/1.1\r\nHost: h\r\n\r\n";
const POSTED_INNER: &[Seen] = &[("POST", "/attack", INNER)];

const SERVED: &[Served] = &[
    (
        "a length",
        "one framing, not two",
        &[METHOD, SCHEME, PATH, HOST, ("content-length", "4")],
        &["body"],
        &[],
        POSTED,
        &["content-length: 4\r\n"],
        &["transfer-encoding"],
    ),
    (
        "no length",
        "only the stream's end tells: it has to be told in chunks",
        &[METHOD, SCHEME, PATH, HOST],
        &["body"],
        &[],
        POSTED,
        &["transfer-encoding: chunked\r\n"],
        &["content-length"],
    ),
    (
        "a request in the body, no length",
        "chunks that end themselves",
        &[METHOD, SCHEME, PATH, HOST],
        &[INNER],
        &[],
        POSTED_INNER,
        &[],
        &[],
    ),
    (
        "a request in the body, a length",
        "h2.CL",
        &[METHOD, SCHEME, PATH, HOST, ("content-length", "38")],
        &[INNER],
        &[],
        POSTED_INNER,
        &["content-length: 38\r\n"],
        &["transfer-encoding"],
    ),
    (
        "a request in the body, frame by frame",
        "each frame is written by itself",
        &[METHOD, SCHEME, PATH, HOST],
        &["0\r\n", "\r\nGET /canary", "", " HTTP/1.1\r\nHost: h\r\n", "\r\n"],
        &[],
        POSTED_INNER,
        &[],
        &[],
    ),
    (
        "an empty frame at the end",
        "the end comes by itself",
        &[METHOD, SCHEME, PATH, HOST, ("content-length", "4")],
        &["body", ""],
        &[],
        POSTED,
        &[],
        &[],
    ),
    (
        "no body, no length",
        "a server may wait for one",
        &[METHOD, SCHEME, PATH, HOST],
        &[],
        &[],
        POSTED_NOTHING,
        &["content-length: 0\r\n"],
        &["transfer-encoding"],
    ),
    (
        "no body and its length",
        "said once",
        &[METHOD, SCHEME, PATH, HOST, ("content-length", "0")],
        &[],
        &[],
        POSTED_NOTHING,
        &[],
        &["transfer-encoding"],
    ),
    (
        "length 0 and an empty frame",
        "said once",
        &[METHOD, SCHEME, PATH, HOST, ("content-length", "0")],
        &[""],
        &[],
        POSTED_NOTHING,
        &[],
        &["transfer-encoding"],
    ),
    ("GET", "no framing", &[GET, SCHEME, PATH, HOST], &[], &[], GOT, &[], &["transfer-encoding", "content-length"]),
    (
        "GET with a body and a length",
        "who ignores the body reads it as a request",
        &[GET, SCHEME, PATH, HOST, ("content-length", "38")],
        &[INNER],
        &[],
        &[("GET", "/attack", INNER)],
        &[],
        &[],
    ),
    (
        "GET with a body without a length",
        "who ignores the body reads it as a request",
        &[GET, SCHEME, PATH, HOST],
        &[INNER],
        &[],
        &[("GET", "/attack", INNER)],
        &[],
        &[],
    ),
    (
        "HEAD",
        "no body comes back",
        &[(":method", "HEAD"), SCHEME, PATH, HOST],
        &[],
        &[],
        &[("HEAD", "/attack", "")],
        &[],
        &[],
    ),
    (
        "a cookie in crumbs",
        "HTTP/1 has one cookie: who reads the first alone misses the others",
        &[GET, SCHEME, PATH, HOST, ("cookie", "a=b"), ("x", "y"), ("cookie", "c=d"), ("cookie", "e=f")],
        &[],
        &[],
        GOT,
        &["cookie: a=b; c=d; e=f\r\n"],
        &[],
    ),
    (
        "an empty crumb",
        "a blank at the end of a value is lost",
        &[GET, SCHEME, PATH, HOST, ("cookie", ""), ("cookie", "a=b"), ("cookie", "")],
        &[],
        &[],
        GOT,
        &["cookie: a=b\r\n"],
        &[],
    ),
    (
        "te: trailers",
        "between neighbours",
        &[GET, SCHEME, PATH, HOST, ("te", "trailers")],
        &[],
        &[],
        GOT,
        &[],
        &["\r\nte:"],
    ),
    (
        "host beside the authority",
        "two Host fields",
        &[GET, SCHEME, PATH, HOST, ("host", "h")],
        &[],
        &[],
        GOT,
        &["host: h\r\n"],
        &[],
    ),
    (
        "host instead of the authority",
        "no Host field",
        &[GET, SCHEME, PATH, ("host", "h")],
        &[],
        &[],
        GOT,
        &["host: h\r\n"],
        &[],
    ),
    (
        "a port in the authority",
        "the host as it was said",
        &[GET, SCHEME, PATH, (":authority", "h:8080")],
        &[],
        &[],
        GOT,
        &["host: h:8080\r\n"],
        &[],
    ),
    (
        "trailers",
        "behind the last chunk",
        &[METHOD, SCHEME, PATH, HOST],
        &["body"],
        &[("x-sum", "1")],
        POSTED,
        &["0\r\nx-sum: 1\r\n\r\n"],
        &[],
    ),
    (
        "a length behind the body",
        "it would be the next message's",
        &[METHOD, SCHEME, PATH, HOST],
        &["body"],
        &[("content-length", "99"), ("x-sum", "1")],
        POSTED,
        &["0\r\nx-sum: 1\r\n\r\n"],
        &["content-length"],
    ),
    (
        "trailers behind a length",
        "HTTP/1 has no place for them",
        &[METHOD, SCHEME, PATH, HOST, ("content-length", "4")],
        &["body"],
        &[("x-sum", "1")],
        POSTED,
        &[],
        &["x-sum"],
    ),
    (
        "expect: 100-continue",
        "the body comes without being asked for",
        &[METHOD, SCHEME, PATH, HOST, ("expect", "100-continue"), ("content-length", "4")],
        &["body"],
        &[],
        POSTED,
        &[],
        &[],
    ),
    (
        "a length with an underscore",
        "who takes it for a hyphen sees two",
        &[METHOD, SCHEME, PATH, HOST, ("content_length", "0"), ("content-length", "38")],
        &[INNER],
        &[],
        POSTED_INNER,
        &[],
        &[],
    ),
    (
        "a coding with an underscore",
        "who takes it for a hyphen sees two framings",
        &[METHOD, SCHEME, PATH, HOST, ("transfer_encoding", "chunked"), ("content-length", "38")],
        &[INNER],
        &[],
        POSTED_INNER,
        &[],
        &[],
    ),
    (
        "settings of an upgrade",
        "of HTTP/1's own upgrade: nobody asked for it",
        &[GET, SCHEME, PATH, HOST, ("http2-settings", "AAMAAABk")],
        &[],
        &[],
        GOT,
        &[],
        &["http2-settings"],
    ),
    (
        "line ends in the path, encoded",
        "they stay what they are",
        &[GET, SCHEME, (":path", "/attack?u=http://evil/%0d%0aGET%20/canary"), HOST],
        &[],
        &[],
        &[("GET", "/attack?u=http://evil/%0d%0aGET%20/canary", "")],
        &[],
        &[],
    ),
    (
        "dots and slashes in the path",
        "they stay what they are",
        &[GET, SCHEME, (":path", "/attack//x/../%2e%2e/y"), HOST],
        &[],
        &[],
        &[("GET", "/attack//x/../%2e%2e/y", "")],
        &[],
        &[],
    ),
    (
        "a colon and a URL in a value",
        "a value ends where its line ends",
        &[GET, SCHEME, PATH, HOST, ("x", "host: evil, http://evil/")],
        &[],
        &[],
        GOT,
        &["x: host: evil, http://evil/\r\n"],
        &[],
    ),
];

/// Trailers that make a request malformed.
const BAD_TRAILERS: &[(&str, &[Pair])] = &[
    ("a pseudo-field in trailers", &[(":path", "/canary")]),
    ("transfer-encoding in trailers", &[("transfer-encoding", "chunked")]),
    ("connection in trailers", &[("connection", "close")]),
    ("CRLF in a trailer", &[("x", "y\r\n\r\nGET /canary HTTP/1.1\r\nhost: h")]),
    ("a capital in a trailer's name", &[("X", "y")]),
    ("a space in a trailer's name", &[("x y", "z")]),
];

/// A case as the judge reads it, its frames, and what must be written to servers.
type Request = (&'static str, Case, Frames, &'static [&'static str]);

fn owned(fields: &[Pair]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn requests() -> Vec<Request> {
    let mut all = Vec::new();
    for (name, fields, body, why) in REFUSED {
        // A head with a length may have gone on before its body turns out to be of another.
        let may_begin = !body.is_empty() && fields.iter().any(|(name, _)| *name == "content-length");
        let case =
            if may_begin { Case::breaks(name, why, "") } else { Case::refused(400, name, why, "") }.never(&["evil"]);
        let data = if body.is_empty() { Vec::new() } else { vec![*body] };
        all.push(("refused", case, Frames { fields: owned(fields), data, trailers: &[] }, &[][..]));
    }
    for (name, trailers) in BAD_TRAILERS {
        let case = Case::breaks(name, "written behind the last chunk, it is read as something else", "");
        let fields = owned(&[METHOD, SCHEME, PATH, HOST]);
        all.push(("trailers", case, Frames { fields, data: vec!["body"], trailers }, &[][..]));
    }
    for (name, why, fields, data, trailers, seen, written, never) in SERVED {
        let case = Case::serves(seen, name, why, "").never(never);
        all.push(("served", case, Frames { fields: owned(fields), data: data.to_vec(), trailers }, *written));
    }
    all
}

/// The frames of one request, all in one write.
fn bytes(frames: &Frames, tag: Tag, stream: u32) -> Vec<u8> {
    let fields: Vec<_> = frames.fields.iter().map(|(name, value)| (name.clone(), tag.text(value))).collect();
    let parts = 1 + frames.data.len() + usize::from(!frames.trailers.is_empty());
    let ends = |part: usize| if part + 1 == parts { END_STREAM } else { 0 };
    let mut bytes = frame(HEADERS, END_HEADERS | ends(0), stream, &block(&fields));
    for (number, data) in frames.data.iter().enumerate() {
        bytes.extend(frame(DATA, ends(number + 1), stream, tag.text(data).as_bytes()));
    }
    if !frames.trailers.is_empty() {
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(frames.trailers)));
    }
    bytes
}

/// A request that nobody could object to.
fn honest(path: String) -> Frames {
    let mut fields = owned(&[GET, SCHEME, HOST]);
    fields.push((":path".to_owned(), path));
    Frames { fields, ..Frames::default() }
}

fn ask(raw: &mut Raw, frames: &Frames, tag: Tag, stream: u32) -> std::io::Result<End> {
    raw.send(&bytes(frames, tag, stream))?;
    raw.end_of(stream)
}

/// Plays one case through one entrance: what is wrong with what its client got.
fn play((_, case, frames, _): &Request, tag: Tag, entrance: SocketAddr) -> Result<(), String> {
    let mut raw = Raw::open(entrance).map_err(|error| error.to_string())?;
    let end = ask(&mut raw, frames, tag, 1);
    if case.seen.is_empty() {
        if !is_refused(&end) {
            return Err(format!("it was not refused: {end:?}"));
        }
    } else {
        let follow = end.and_then(|end| Ok((end, ask(&mut raw, &honest(tag.follow()), tag, 3)?)));
        if !matches!(follow, Ok((End::Answered(200), End::Answered(200)))) {
            return Err(format!("it and its follower got {follow:?}"));
        }
    }
    let victim = Raw::open(entrance).and_then(|mut raw| ask(&mut raw, &honest(tag.victim()), tag, 1));
    if matches!(victim, Ok(End::Answered(200))) { Ok(()) } else { Err(format!("an honest client got {victim:?}")) }
}

fn all_requests(requests: &[Request], crossing: &Crossing, server: &str) -> Verdicts {
    let played = Way::BOTH.into_iter().flat_map(|way| {
        let entrance = crossing.entrance(server, way);
        let verdict = move |(number, request)| ((number, way), play(request, tag(number, way), entrance));
        requests.iter().enumerate().map(verdict)
    });
    played.collect()
}

/// What the recorder was sent of each case has what it must have, and nothing that it must not.
fn check_written(requests: &[Request], text: &str, verdicts: &mut Verdicts) {
    for ((number, way), verdict) in verdicts.iter_mut().filter(|(_, verdict)| verdict.is_ok()) {
        let (_, case, _, written) = &requests[*number];
        let own = of_case(text, tag(*number, *way));
        if let Some(never) = case.never.iter().find(|never| own.contains(**never)) {
            *verdict = Err(format!("`{never}` reached the server: {own:?}"));
        } else if let Some(missing) = written.iter().find(|must| !own.contains(**must)) {
            *verdict = Err(format!("`{missing}` did not reach the server: {own:?}"));
        }
    }
}

#[test]
fn what_http2_says_is_said_to_servers_of_http1_as_the_same_request_or_not_at_all() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let requests = requests();
    let recorder = Recorder::start();
    let servers = Server::all(place.path());
    let names: Vec<&str> = servers.iter().map(|server| server.name).chain(["recorder"]).collect();
    let addresses = servers.iter().map(Server::address).chain([recorder.address]);
    let behind: Vec<Behind> =
        names.iter().zip(addresses).map(|(name, at)| Behind::new(&document_name(name), at, Some("http1"))).collect();
    let crossing = Crossing::start(place.path(), &behind);
    let mut results: BTreeMap<&str, Verdicts> = thread::scope(|scope| {
        let played: Vec<_> = names
            .iter()
            .map(|name| (*name, scope.spawn(|| all_requests(&requests, &crossing, &document_name(name)))))
            .collect();
        played.into_iter().map(|(name, thread)| (name, thread.join().expect("a player does not panic"))).collect()
    });
    crossing.is_quiet();

    let cases: Vec<(&str, Case)> = requests.iter().map(|(family, case, ..)| (*family, case.clone())).collect();
    let mut wrong = Vec::new();
    for server in servers {
        let name = server.name;
        let strays = judge_all(&cases, &server.end(), results.get_mut(name).expect("it was played"));
        wrong.extend(strays.into_iter().map(|stray| format!("{name}: {stray}")));
    }
    let (lines, violations, text) = recorded(&recorder);
    wrong.extend(violations);
    let verdicts = results.get_mut("recorder").expect("it was played");
    wrong.extend(judge_all(&cases, &lines, verdicts));
    check_written(&requests, &text, verdicts);
    let results: Vec<(&str, Verdicts)> = results.into_iter().collect();
    println!("{}", table(&cases, &results));
    wrong.extend(super::objections(&cases, &results));
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
