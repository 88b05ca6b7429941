//! Request smuggling against real servers: whatever a client sends, the proxies either refuse it, or send on what every
//! server behind them reads as the same requests.
//!
//! `cargo test -p weft-tests --test smuggling -- --nocapture` prints the table of cases by servers.

mod answers;
mod case;
mod cases;
mod downgrade;
mod hostile_server;
mod http2;
mod recorder;
mod servers;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use answers::{Answer, answers};
use case::{Case, Tag, Then};
use recorder::Recorder;
use servers::{Body, Line, Server};
use weft_tests::process::crossing::{Behind, Crossing, Way};

/// Nothing here takes long but on a busy machine; the head's time limit of the proxy is longer.
const LIMIT: Duration = Duration::from_secs(8);

/// Where the tags of a case lie: one for each way.
fn tag(number: usize, way: Way) -> Tag {
    Tag(number * 2 + usize::from(way == Way::Pair))
}

/// Sends bytes and reads to the end of the connection.
fn exchange(address: SocketAddr, bytes: &[u8], half_close: bool) -> Result<Vec<u8>, String> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).map_err(|error| format!("cannot connect: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(LIMIT)).map_err(|error| error.to_string())?;
    // A proxy that refuses early need not take the rest.
    let _ = stream.write_all(bytes);
    if half_close {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut received = Vec::new();
    match stream.read_to_end(&mut received) {
        Ok(_) => Ok(received),
        // A reset behind a whole answer is an end as well.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(received),
        Err(error) => Err(format!("{error} after {:?}", String::from_utf8_lossy(&received))),
    }
}

/// Plays one case through one entrance: what is wrong with what its client got.
fn play(case: &Case, tag: Tag, entrance: SocketAddr) -> Result<(), String> {
    let mut bytes = tag.bytes(&case.bytes);
    if case.then != Then::Breaks {
        bytes.extend(format!("GET {} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", tag.follow()).bytes());
    }
    let received = exchange(entrance, &bytes, case.then == Then::Breaks)?;
    let mut expected: Vec<(String, String)> =
        case.seen.iter().map(|(method, target, _)| ((*method).to_owned(), tag.text(target))).collect();
    if case.then == Then::Keeps {
        expected.push(("GET".to_owned(), tag.follow()));
    }
    let methods: Vec<&str> = expected.iter().map(|(method, _)| method.as_str()).collect();
    let got =
        answers(&received, &methods).map_err(|error| format!("{error} in {:?}", String::from_utf8_lossy(&received)))?;
    for (number, (method, target)) in expected.iter().enumerate() {
        let answer = got.get(number).ok_or_else(|| format!("no answer to {method} {target}: {got:?}"))?;
        if answer.weft_error.is_some() {
            return Err(format!("{method} {target} was refused: {answer:?}"));
        }
        if !answer.is_about(method, target) {
            return Err(format!("{method} {target} was answered with {answer:?}"));
        }
    }
    let rest = &got[expected.len()..];
    match (case.then, rest) {
        (Then::Keeps | Then::Closes | Then::Breaks, []) => Ok(()),
        (Then::Refuses(status), [answer]) if answer.is_refusal(status) => Ok(()),
        (Then::Breaks, [answer]) if answer.is_refusal(400) => Ok(()),
        (then, rest) => Err(format!("{then:?} was expected, not {rest:?}")),
    }
}

/// An honest client on a connection of its own gets its own answer, whatever went before it on the proxies' connections.
fn honest(tag: Tag, entrance: SocketAddr) -> Result<(), String> {
    let request = format!("GET {} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", tag.victim());
    let received = exchange(entrance, request.as_bytes(), false)?;
    match answers(&received, &["GET"])?.as_slice() {
        [Answer { status: 200, text, .. }] if text.contains(&tag.victim()) => Ok(()),
        other => Err(format!("an honest client got {other:?}")),
    }
}

/// What a server saw of one case is what we say stands there.
fn judge(case: &Case, tag: Tag, lines: &[&Line]) -> Result<(), String> {
    // What a server answered with 4xx of its own, or to nobody, it has not taken for a request.
    let is_complete = |line: &Line| !matches!(line.status, 0 | 400 | 408 | 413 | 499);
    let complete: Vec<&&Line> = lines.iter().filter(|line| is_complete(line)).collect();
    let is_own = |line: &Line, text: &str| line.target.starts_with(text);
    if let (Then::Refuses(_), []) = (case.then, case.seen)
        && let Some(line) = lines.iter().find(|line| !is_own(line, &tag.victim()))
    {
        return Err(format!("refused, and yet it saw {line:?}"));
    }
    let mut expected: Vec<(&str, String, &str)> =
        case.seen.iter().map(|(method, target, body)| (*method, tag.text(target), *body)).collect();
    if case.then == Then::Keeps {
        expected.push(("GET", tag.follow(), ""));
    }
    expected.push(("GET", tag.victim(), ""));
    let seen: Vec<_> = complete.iter().map(|line| (line.method.as_str(), line.target.clone())).collect();
    let wanted: Vec<_> = expected.iter().map(|(method, target, _)| (*method, target.clone())).collect();
    if seen != wanted {
        return Err(format!("it saw {complete:?}, not {wanted:?}"));
    }
    for (line, (_, _, body)) in complete.iter().zip(&expected) {
        let body = tag.text(body);
        let same = match &line.body {
            Body::Bytes(bytes) => *bytes == body.as_bytes(),
            Body::Length(length) => *length == body.len(),
        };
        if !same {
            return Err(format!("it saw {line:?}, not the body {body:?}"));
        }
    }
    Ok(())
}

/// Which case a server's line belongs to.
fn owner(line: &Line) -> Option<Tag> {
    let digits = line.target.get(2..7)?;
    let known = matches!(line.target.get(..2), Some("/a" | "/c" | "/f" | "/v"));
    known.then(|| digits.parse().ok()).flatten().map(Tag)
}

/// What the recorder kept, as lines like the others', and what it found wrong.
fn recorded(recorder: &Recorder) -> (Vec<Line>, Vec<String>, String) {
    let (mut lines, mut wrong, mut text) = (Vec::new(), Vec::new(), String::new());
    for connection in recorder.all() {
        let bytes = String::from_utf8_lossy(&connection.bytes).into_owned();
        if let Some(violation) = connection.violation {
            wrong.push(format!("we sent a server what breaks the rules: {violation}: {bytes:?}"));
        }
        for (method, target, body) in connection.requests {
            lines.push(Line { status: 200, method, target, body: Body::Bytes(body) });
        }
        text += &bytes;
    }
    (lines, wrong, text)
}

/// Heads and bodies of one case as the recorder got them.
fn of_case(text: &str, tag: Tag) -> String {
    let mut own = String::new();
    for name in [tag.attack(), tag.canary()] {
        for (at, _) in text.match_indices(&name) {
            let begin = text[..at].rfind("\r\n").map_or(0, |line| line + 2);
            // Until the next request of another name: its own fields, body and trailers stand there.
            let end = text[at..].find(&tag.follow()).or_else(|| text[at..].find(&tag.victim()));
            let _ = write!(own, "{}", &text[begin..at + end.unwrap_or_else(|| text[at..].len().min(4096))]);
        }
    }
    own
}

type Verdicts = BTreeMap<(usize, Way), Result<(), String>>;

/// All cases through both ways in front of one server.
fn all_cases(cases: &[(&str, Case)], crossing: &Crossing, server: &str) -> Verdicts {
    let mut verdicts = Verdicts::new();
    for way in Way::BOTH {
        let entrance = crossing.entrance(server, way);
        for (number, (_, case)) in cases.iter().enumerate() {
            let tag = tag(number, way);
            let verdict = play(case, tag, entrance).and_then(|()| honest(tag, entrance));
            verdicts.insert((number, way), verdict);
        }
    }
    verdicts
}

fn judge_all(cases: &[(&str, Case)], lines: &[Line], verdicts: &mut Verdicts) -> Vec<String> {
    let mut by_tag: BTreeMap<usize, Vec<&Line>> = BTreeMap::new();
    let mut strays = Vec::new();
    for line in lines {
        match owner(line) {
            Some(tag) => by_tag.entry(tag.0).or_default().push(line),
            None if line.target == "/ready" => {}
            None => strays.push(format!("a request nobody sent: {line:?}")),
        }
    }
    for ((number, way), verdict) in verdicts {
        let tag = tag(*number, *way);
        let own = by_tag.get(&tag.0).map_or(&[][..], Vec::as_slice);
        if verdict.is_ok() {
            *verdict = judge(&cases[*number].1, tag, own);
        }
    }
    strays
}

fn table(cases: &[(&str, Case)], results: &[(&str, Verdicts)]) -> String {
    let mut text = format!("{:<11} {:<44} {:<28}", "family", "case", "verdict");
    for (server, _) in results {
        let _ = write!(text, " {server:>12}");
    }
    text += "  (plain/pair)\n";
    for (number, (family, case)) in cases.iter().enumerate() {
        let served = if case.seen.is_empty() { String::new() } else { format!("serves {}, ", case.seen.len()) };
        let _ = write!(text, "{family:<11} {:<44} {:<28}", case.name, format!("{served}{:?}", case.then));
        for (_, verdicts) in results {
            let sign = |way| if verdicts[&(number, way)].is_ok() { "ok" } else { "WRONG" };
            let _ = write!(text, " {:>12}", format!("{}/{}", sign(Way::Plain), sign(Way::Pair)));
        }
        text.push('\n');
    }
    text
}

#[test]
fn no_request_is_smuggled_past_the_proxies_to_any_server() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let cases = cases::all();
    let recorder = Recorder::start();
    let servers = Server::all(place.path());
    let mut behind: Vec<Behind> =
        servers.iter().map(|server| Behind::new(&document_name(server.name), server.address(), Some("http"))).collect();
    behind.push(Behind::new("recorder", recorder.address, Some("http")));
    let crossing = Crossing::start(place.path(), &behind);

    let names: Vec<&str> = servers.iter().map(|server| server.name).chain(["recorder"]).collect();
    let mut results: Vec<(&str, Verdicts)> = thread::scope(|scope| {
        let played: Vec<_> = names
            .iter()
            .map(|name| (*name, scope.spawn(|| all_cases(&cases, &crossing, &document_name(name)))))
            .collect();
        played.into_iter().map(|(name, thread)| (name, thread.join().expect("a player does not panic"))).collect()
    });
    crossing.is_quiet();

    let mut wrong = Vec::new();
    for (server, (name, verdicts)) in servers.into_iter().zip(&mut results) {
        let strays = judge_all(&cases, &server.end(), verdicts);
        wrong.extend(strays.into_iter().map(|stray| format!("{name}: {stray}")));
    }
    let (lines, violations, text) = recorded(&recorder);
    let verdicts = &mut results.last_mut().expect("the recorder is the last one").1;
    wrong.extend(violations);
    wrong.extend(judge_all(&cases, &lines, verdicts));
    for ((number, way), verdict) in verdicts.iter_mut() {
        let own = of_case(&text, tag(*number, *way));
        for never in cases[*number].1.never {
            if verdict.is_ok() && own.contains(never) {
                *verdict = Err(format!("`{never}` reached the server: {own:?}"));
            }
        }
    }
    println!("{}", table(&cases, &results));
    wrong.extend(objections(&cases, &results));
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// What is wrong, case by case.
fn objections(cases: &[(&str, Case)], results: &[(&str, Verdicts)]) -> Vec<String> {
    let all = results.iter().flat_map(|(name, verdicts)| verdicts.iter().map(move |verdict| (name, verdict)));
    let wrong = all.filter_map(|(name, ((number, way), verdict))| {
        let (error, (family, case)) = (verdict.as_ref().err()?, &cases[*number]);
        Some(format!("{name}, {}: {family}: {} ({}): {error}", way.name(), case.name, case.why))
    });
    wrong.collect()
}

fn document_name(server: &str) -> String {
    server.to_ascii_lowercase().replace('.', "-")
}
