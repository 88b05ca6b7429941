//! h2spec against what our proxies speak to clients: the downstream HTTP/2, in front of an application that speaks it too.
//!
//! Failures are either none, or stand in [`ACCEPTED`] with the reason. One that is listed and passes fails the test too.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use weft_tests::process::crossing::{Behind, Crossing, Way};
use weft_tests::process::{Port, Process, command, http2, run, run_within, until};

/// Section, case, and why it may fail.
type Accepted = (&'static str, &'static str, &'static str);

const ACCEPTED: &[Accepted] = &[(
    "http2/3.5",
    "Sends invalid connection preface",
    "the same port takes HTTP/1.1: what is not the preface is a malformed request of that, and is answered with 400",
)];

/// About 150 cases, each of which may wait two seconds for what does not come.
const LIMIT: Duration = Duration::from_mins(3);

/// The program, built from the module that pins its version; `Err` says what this machine lacks.
fn h2spec() -> Result<PathBuf, String> {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/h2spec");
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools");
    let program = target.join("h2spec");
    if program.exists() {
        return Ok(program);
    }
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/local/go/bin";
    if !path.split(':').any(|directory| Path::new(directory).join("go").exists()) {
        return Err("go is not installed".to_owned());
    }
    let mut go = command("go");
    go.env("PATH", path).current_dir(module).args(["build", "-mod=readonly", "-o"]).arg(&program);
    let built = run_within(go.arg("github.com/summerwind/h2spec/cmd/h2spec"), Duration::from_mins(5));
    if built.code == Some(0) { Ok(program) } else { Err(format!("h2spec cannot be built: {}", built.stderr)) }
}

/// Cases that failed in a report, with what was expected; and how many there were.
fn failures(report: &str) -> (Vec<(String, String, String)>, usize) {
    let attribute = |tag: &str, name: &str| {
        let begin = tag.find(&format!(" {name}=\"")).map(|at| at + name.len() + 3)?;
        let end = tag[begin..].find('"')?;
        Some(
            tag[begin..begin + end]
                .replace("&#39;", "'")
                .replace("&#34;", "\"")
                .replace("&lt;", "<")
                .replace("&gt;", ">")
                .replace("&amp;", "&"),
        )
    };
    let cases: Vec<&str> = report.split("<testcase").skip(1).collect();
    let failed = cases.iter().filter(|case| case.contains("<failure") || case.contains("<error"));
    let failed = failed.map(|case| {
        let said = case.split_once('>').map_or("", |(_, rest)| rest).replace("&#xA;", " ");
        (attribute(case, "package").unwrap_or_default(), attribute(case, "classname").unwrap_or_default(), said)
    });
    (failed.collect(), cases.len())
}

fn passes(program: &Path, place: &Path, entrance: SocketAddr, label: &str) -> Vec<String> {
    let report = place.join(format!("{}.xml", label.replace(' ', "-")));
    let mut spec = command(program);
    let (host, port) = (entrance.ip().to_string(), entrance.port().to_string());
    spec.args(["-h", &host, "-p", &port, "-o", "2", "-j"]).arg(&report);
    let finished = run_within(&mut spec, LIMIT);
    let text = std::fs::read_to_string(&report).unwrap_or_default();
    let (failed, number) = failures(&text);
    let mut wrong = Vec::new();
    if number < 100 {
        wrong.push(format!("{label}: only {number} cases ran: {}{}", finished.stdout, finished.stderr));
    }
    for (section, case, said) in &failed {
        match ACCEPTED.iter().find(|(known, name, _)| known == section && name == case) {
            Some((_, _, reason)) => println!("{label}: accepted: {section}: {case}: {reason}"),
            None => wrong.push(format!("{label}: {section}: {case}: {said}")),
        }
    }
    for (section, name, _) in ACCEPTED {
        if !failed.iter().any(|(found, case, _)| found == section && case == name) {
            wrong.push(format!("{label}: {section}: {name} passes: take it off the list"));
        }
    }
    println!("{label}: {number} cases, {} failed", failed.len());
    wrong
}

#[test]
fn what_clients_are_spoken_to_is_http2_by_the_book() {
    let program = match h2spec() {
        Ok(program) => program,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let place = tempfile::tempdir().expect("a temporary directory");
    if run(command("sh").args(["-c", "command -v nghttpd"])).code != Some(0) {
        return println!("skipped: nghttpd is not installed: nothing that speaks HTTP/2 can stand behind");
    }
    let application = Port::reserve();
    std::fs::write(place.path().join("index.html"), "x".repeat(100)).expect("the place can be written to");
    let mut server = command("nghttpd");
    server.args(["--no-tls", "--echo-upload", "--htdocs"]).arg(place.path()).arg(application.number().to_string());
    let _server = Process::start("nghttpd", &mut server, &place.path().join("nghttpd.log"));
    until("the application listens", || {
        TcpStream::connect(application.address()).map(drop).map_err(|error| error.to_string())
    });
    let behind = [Behind::new("http2", application.address(), Some("http"))];
    let crossing = Crossing::start(place.path(), &behind);
    let mut wrong = Vec::new();
    for way in Way::BOTH {
        let entrance = crossing.entrance("http2", way);
        if !http2::is_spoken(entrance) {
            return println!("skipped: this proxy does not take HTTP/2 yet");
        }
        wrong.extend(passes(&program, place.path(), entrance, &format!("h2spec {}", way.name())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
