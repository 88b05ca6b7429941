//! h2spec against what our proxies speak to clients: the downstream HTTP/2, in front of applications of
//! HTTP/2 and of HTTP/1.
//!
//! Failures are either none, or stand in [`ACCEPTED`] with the reason. One that is listed and passes fails the test too.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use weft_tests::process::crossing::{Behind, Crossing, Way};
use weft_tests::process::nghttpd::Nghttpd;
use weft_tests::process::{Port, Process, command, run_within, until};

/// Section, case, and why it may fail.
type Accepted = (&'static str, &'static str, &'static str);

const ACCEPTED: &[Accepted] = &[(
    "http2/3.5",
    "Sends invalid connection preface",
    "the same port takes HTTP/1.1: what is not the preface is a malformed request of that, and is answered with 400",
)];

/// About 150 cases, each of which may wait two seconds for what does not come.
const LIMIT: Duration = Duration::from_mins(3);

/// The program, built from the module that pins its version.
fn h2spec() -> PathBuf {
    /// Two tests must not build it at once.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/h2spec");
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools");
    let program = target.join("h2spec");
    if program.exists() {
        return program;
    }
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/local/go/bin";
    let has_go = path.split(':').any(|directory| Path::new(directory).join("go").exists());
    assert!(has_go, "go is not installed, and h2spec is built with it: see https://go.dev/dl");
    let mut go = command("go");
    go.env("PATH", path).current_dir(module).args(["build", "-mod=readonly", "-o"]).arg(&program);
    let built = run_within(go.arg("github.com/summerwind/h2spec/cmd/h2spec"), Duration::from_mins(5));
    assert_eq!(built.code, Some(0), "h2spec cannot be built: {}", built.stderr);
    program
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

/// Both ways to one application, which speaks this.
fn by_the_book(application: SocketAddr, declared: &'static str) {
    let program = h2spec();
    let place = tempfile::tempdir().expect("a temporary directory");
    let crossing = Crossing::start(place.path(), &[Behind::new("application", application, Some(declared))]);
    let mut wrong = Vec::new();
    for way in Way::BOTH {
        let entrance = crossing.entrance("application", way);
        wrong.extend(passes(&program, place.path(), entrance, &format!("h2spec {} {declared}", way.name())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_clients_are_spoken_to_is_http2_by_the_book() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let application = Nghttpd::start(place.path(), 100);
    by_the_book(application.address(), "http");
}

#[test]
fn it_is_by_the_book_as_well_where_the_application_speaks_http1() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let port = Port::reserve();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/peers/http_server.py");
    let mut server = command("python3");
    let log = place.path().join("application.log");
    let _application = Process::start("http.server", server.arg(script).arg(port.number().to_string()), &log);
    until("the application listens", || {
        TcpStream::connect(port.address()).map(drop).map_err(|error| error.to_string())
    });
    by_the_book(port.address(), "http1");
}
