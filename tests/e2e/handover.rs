//! A running proxy's program is replaced, and nobody who talks through it notices.

#![allow(clippy::unwrap_used, reason = "a test that cannot have what it needs has failed")]

use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use weft_tests::process::http::{self, Connection};
use weft_tests::process::pair::Pair;
use weft_tests::process::sidecar::Sidecar;
use weft_tests::process::{holds, program, until};

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

#[test]
fn five_replacements_in_a_row_cost_no_request() {
    let place = tempfile::tempdir().unwrap();
    let installed = Installed::new(place.path());
    let pair =
        Pair::start_with(place.path(), &[], |settings| settings.set("WEFT_WORKERS", &2).supervised(&installed.0));
    assert_eq!(http::get(pair.outbound.address(), "/").unwrap().status, 200);
    let load = Load::start(pair.outbound.address());
    for number in 1..=5 {
        installed.upgrade(number);
        for proxy in [&pair.client, &pair.server] {
            let before = load.answered();
            proxy.process.signal(Signal::SIGHUP);
            replaced(proxy, number as u64);
            until("requests go on", || holds(load.answered() > before + 20, || "none".to_owned()));
        }
    }
    let answered = load.answered();
    assert_eq!(load.stop(), Vec::<String>::new(), "after {answered} answers");
    println!("{answered} answers");
}
