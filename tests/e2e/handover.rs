//! A running proxy's program is replaced, and nobody who talks through it notices.

#![allow(clippy::unwrap_used, reason = "a test that cannot have what it needs has failed")]

use std::cell::Cell;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weft_tests::process::http::{self, Connection};
use weft_tests::process::pair::Pair;
use weft_tests::process::sidecar::Sidecar;
use weft_tests::process::{PATIENCE, Port, command, holds, program, run, until};

/// The proxy's program where a package would have put it.
struct Installed(PathBuf);

impl Installed {
    fn new(place: &Path) -> Self {
        let path = place.join("weft-proxy");
        std::fs::copy(program("weft-proxy"), &path).unwrap();
        Self(path)
    }

    /// Another version: the same program with other bytes behind it, put in place as a package manager does.
    fn upgrade(&self, number: usize) {
        let new = self.0.with_extension("new");
        std::fs::copy(&self.0, &new).unwrap();
        writeln!(OpenOptions::new().append(true).open(&new).unwrap(), "version {number}").unwrap();
        std::fs::rename(&new, &self.0).unwrap();
    }

    /// Other bytes altogether.
    fn write(&self, bytes: &[u8]) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, bytes).unwrap();
        std::fs::set_permissions(&new, std::fs::metadata(&self.0).unwrap().permissions()).unwrap();
        std::fs::rename(&new, &self.0).unwrap();
    }
}

/// How many handovers the proxy that serves knows of.
fn handovers(proxy: &Sidecar, result: &str) -> u64 {
    proxy.metrics().sum("weft_handovers_total", &[("result", result)])
}

fn replaced(proxy: &Sidecar, number: u64) {
    until("the new program serves", || {
        let found = handovers(proxy, "completed");
        holds(found == number, || format!("{found} handovers, not {number}"))
    });
}

/// Clients that ask without a pause until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<thread::JoinHandle<Result<(), String>>>,
}

impl Load {
    fn start(address: SocketAddr) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = [true, true, false, false].map(|keeps| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            thread::spawn(move || client(address, keeps, &stop, &answered))
        });
        Self { stop, answered, clients: clients.into() }
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        self.clients.into_iter().filter_map(|client| client.join().unwrap().err()).collect()
    }
}

/// Asks on one connection for as long as the proxy keeps it, or on a new one each time.
fn client(address: SocketAddr, keeps: bool, stop: &AtomicBool, answered: &AtomicUsize) -> Result<(), String> {
    let mut kept = None;
    while !stop.load(Ordering::SeqCst) {
        let failed = |what: &str, error: std::io::Error| format!("{what} (kept: {keeps}): {error}");
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => Connection::open(address).map_err(|error| failed("connecting", error))?,
        };
        let answer = connection.get("/").map_err(|error| failed("asking", error))?;
        if answer.status != 200 {
            return Err(format!("{answer:?}"));
        }
        answered.fetch_add(1, Ordering::SeqCst);
        let says_close = answer.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        kept = Some(connection).filter(|_| keeps && !says_close);
    }
    Ok(())
}

/// The proxies under a supervisor.
fn proxies(supervisor: &Sidecar) -> Vec<i32> {
    let id = supervisor.process.id();
    let text = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    text.split_whitespace().map(|id| id.parse().unwrap()).collect()
}

/// Stops a process, and waits until every thread of it has stopped: one that still ran might accept a connection.
fn freeze(process: Pid) {
    kill(process, Signal::SIGSTOP).unwrap();
    until("all its threads have stopped", || {
        let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
        // One that has ended meanwhile accepts nothing either.
        let states = threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("status")).ok());
        let running = states.filter(|status| !status.contains("State:\tT")).count();
        holds(running == 0, || format!("{running} have not"))
    });
}

/// Kilobytes of a process's own memory.
fn own_memory(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A server that sends back what it gets, for one connection.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut copy = connection.try_clone().unwrap();
        std::io::copy(&mut copy, &mut connection)
    });
    address
}

/// A line there and back.
fn round(stream: &mut TcpStream, number: usize) {
    let line = format!("line {number}\n");
    stream.write_all(line.as_bytes()).unwrap();
    let mut found = vec![0; line.len()];
    stream.read_exact(&mut found).unwrap();
    assert_eq!(found, line.as_bytes());
}

#[test]
fn five_replacements_in_a_row_cost_no_request_and_no_stream() {
    let place = tempfile::tempdir().unwrap();
    let installed = Installed::new(place.path());
    let (stream, original, is_first) = (Port::reserve(), echo(), Cell::new(true));
    let mut pair = Pair::start_with(place.path(), &[], |settings| {
        let settings = settings.set("WEFT_WORKERS", &2).supervised(&installed.0);
        if is_first.replace(false) { settings.outbound(&stream, original) } else { settings }
    });
    let supervisors = [pair.client.process.id(), pair.server.process.id()];
    let mut stream = TcpStream::connect(stream.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    round(&mut stream, 0);
    let load = Load::start(pair.outbound.address());
    for number in 1..=5 {
        installed.upgrade(number);
        for proxy in [&pair.client, &pair.server] {
            let before = load.answered();
            proxy.process.signal(Signal::SIGHUP);
            replaced(proxy, number as u64);
            until("requests go on", || holds(load.answered() > before + 20, || "none".to_owned()));
        }
        round(&mut stream, number);
    }
    let answered = load.answered();
    assert_eq!(load.stop(), Vec::<String>::new(), "after {answered} answers");
    for (proxy, id) in [&mut pair.client, &mut pair.server].into_iter().zip(supervisors) {
        assert!(proxy.process.has_ended().is_none() && proxy.process.id() == id);
        let memory = own_memory(id);
        println!("{answered} answers; the supervisor has {memory} kB of its own");
        assert!(memory < 2048, "{memory} kB");
    }
    // The first of them still carries the stream; without it all but the newest go.
    assert!(proxies(&pair.server).len() >= 2);
    round(&mut stream, 6);
    drop(stream);
    for proxy in [&pair.client, &pair.server] {
        until("the old ones are gone", || {
            let left = proxies(proxy);
            holds(left.len() == 1, || format!("{left:?}"))
        });
    }
}

/// The client's proxy is supervised and ready; both run with this program.
fn start(place: &Path, installed: &Installed, limit: usize) -> Pair {
    Pair::start_with(place, &[], |settings| {
        settings.set("WEFT_HANDOVER_READY_SECONDS", &limit).supervised(&installed.0)
    })
}

#[test]
fn a_program_that_cannot_take_over_changes_nothing() {
    let place = tempfile::tempdir().unwrap();
    let installed = Installed::new(place.path());
    let mut pair = start(place.path(), &installed, 2);
    let before = proxies(&pair.client);
    let load = Load::start(pair.outbound.address());
    let refused = |number: u64, what: &str| {
        pair.client.process.signal(Signal::SIGHUP);
        until(what, || {
            let found = handovers(&pair.client, "refused");
            holds(found == number, || format!("{found} refused, not {number}\n{}", pair.client.log()))
        });
        assert_eq!(proxies(&pair.client), before, "{what}");
    };
    let whole = std::fs::read(&installed.0).unwrap();
    installed.write(b"no program at all");
    refused(1, "no program");
    installed.write(&whole[..100_000]);
    refused(2, "a part of a program");
    installed.write(&std::fs::read("/bin/true").unwrap());
    refused(3, "a program that ends at once");
    // Of those that know no handovers, some would take a part of the connections before they fail.
    installed.write(&std::fs::read("/bin/cat").unwrap());
    refused(4, "a program that does not know what it is told");
    installed.write(&whole);
    pair.plane.kill();
    pair.client.process.signal(Signal::SIGHUP);
    until("one that gets no certificate", || holds(handovers(&pair.client, "refused") == 5, || pair.client.log()));
    until("it is gone", || holds(proxies(&pair.client) == before, || format!("{:?}", proxies(&pair.client))));
    assert_eq!(load.stop(), Vec::<String>::new());
    assert_eq!(handovers(&pair.client, "completed"), 0);
    assert!(pair.client.process.has_ended().is_none());
}

#[test]
fn a_program_that_dies_after_it_took_over_gives_way_to_the_one_before() {
    let place = tempfile::tempdir().unwrap();
    let installed = Installed::new(place.path());
    let pair = start(place.path(), &installed, 60);
    installed.upgrade(1);
    pair.client.process.signal(Signal::SIGHUP);
    replaced(&pair.client, 1);
    let newest = Pid::from_raw(*proxies(&pair.client).last().unwrap());
    // What comes from now on has reached the kernel and nobody else.
    freeze(newest);
    let mut waiting: Vec<_> = (0..20).map(|_| Connection::open(pair.outbound.address()).unwrap()).collect();
    for connection in &mut waiting {
        connection.ask("/").unwrap();
    }
    kill(newest, Signal::SIGKILL).unwrap();
    for connection in &mut waiting {
        assert_eq!(connection.answer().unwrap().status, 200);
    }
    until("it is told", || {
        let found = handovers(&pair.client, "rolled_back");
        holds(found == 1, || found.to_string())
    });
    assert_eq!(http::get(pair.outbound.address(), "/").unwrap().status, 200);
    // The same program is not tried again, another one is.
    pair.client.process.signal(Signal::SIGHUP);
    until("it is refused", || holds(handovers(&pair.client, "refused") == 1, || pair.client.log()));
    installed.upgrade(2);
    pair.client.process.signal(Signal::SIGHUP);
    replaced(&pair.client, 2);
    assert_eq!(http::get(pair.outbound.address(), "/").unwrap().status, 200);
}

#[test]
fn told_to_end_during_a_handover_all_end() {
    let place = tempfile::tempdir().unwrap();
    let installed = Installed::new(place.path());
    let mut pair = start(place.path(), &installed, 600);
    // One drains with a request under way, one serves, and one gets ready for ever.
    let mut slow = Connection::open(pair.outbound.address()).unwrap();
    slow.ask("/slow").unwrap();
    until("the slow request is under way", || holds(pair.application.waiting() == 1, || "no".to_owned()));
    pair.client.process.signal(Signal::SIGHUP);
    replaced(&pair.client, 1);
    pair.plane.kill();
    pair.client.process.signal(Signal::SIGHUP);
    until("three run", || holds(proxies(&pair.client).len() == 3, || format!("{:?}", proxies(&pair.client))));
    pair.client.process.signal(Signal::SIGTERM);
    until("one is left", || holds(proxies(&pair.client).len() == 1, || format!("{:?}", proxies(&pair.client))));
    assert!(Connection::open(pair.outbound.address()).is_err(), "somebody still listens");
    assert!(pair.client.process.has_ended().is_none(), "it has not waited");
    pair.application.release();
    assert_eq!(slow.answer().unwrap().status, 200);
    assert_eq!(pair.client.process.ended().code(), Some(0), "{}", pair.client.log());
}

#[test]
fn the_proxys_exit_code_is_the_supervisors() {
    let supervise = |arguments: &[&str]| run(command(program("weft-proxy")).arg("supervise").args(arguments));
    let unsupervised = run(command(program("weft-proxy")).arg("--no-such-setting"));
    let finished = supervise(&["--no-such-setting"]);
    assert_eq!((finished.code, unsupervised.code), (Some(2), Some(2)));
    assert!(finished.stderr.contains("--no-such-setting"), "{finished:?}");
    assert!(supervise(&["--help"]).succeeded().contains("--workload"));
    let place = tempfile::tempdir().unwrap();
    let installed = Installed::new(place.path());
    let mut pair = start(place.path(), &installed, 60);
    let proxy = Pid::from_raw(proxies(&pair.client)[0]);
    kill(proxy, Signal::SIGKILL).unwrap();
    assert_eq!(pair.client.process.ended().code(), Some(128 + 9));
    assert_eq!(pair.server.process.has_ended(), None);
    // Without its supervisor nobody would look after it.
    let proxy = Pid::from_raw(proxies(&pair.server)[0]);
    pair.server.process.kill();
    until("the orphan ends", || holds(kill(proxy, None).is_err() || is_over(proxy), || "it runs".to_owned()));
}

/// Ended, and not collected by whoever it was left to.
fn is_over(process: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && line.contains('Z'))
}
