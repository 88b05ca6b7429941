//! A mesh that is replaced part by part, by this version, while it is used.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use nix::sys::signal::Signal;
use weft_tests::process::application::Application;
use weft_tests::process::http;
use weft_tests::process::pair;
use weft_tests::process::plane::Plane;
use weft_tests::process::sidecar::{Settings, Sidecar};
use weft_tests::process::{Port, Programs, holds, until};

use crate::earlier::{self, Earlier};

/// Requests without a pause, each on a connection of its own.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    asking: JoinHandle<Result<(), String>>,
}

impl Load {
    fn on(address: SocketAddr) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stops, counts) = (Arc::clone(&stop), Arc::clone(&answered));
        let asking = thread::spawn(move || {
            while !stops.load(Ordering::SeqCst) {
                match http::get(address, "/") {
                    Ok(answer) if answer.status == 200 => _ = counts.fetch_add(1, Ordering::SeqCst),
                    other => return Err(format!("after {} answers: {other:?}", counts.load(Ordering::SeqCst))),
                }
            }
            Ok(())
        });
        Self { stop, answered, asking }
    }

    /// Waits for so many more answers.
    #[track_caller]
    fn goes_on(&self) {
        let begin = self.answered.load(Ordering::SeqCst);
        until("requests are answered", || {
            let more = self.answered.load(Ordering::SeqCst) - begin;
            holds(more >= 50 || self.asking.is_finished(), || format!("{more} more"))
        });
        assert!(!self.asking.is_finished(), "a request failed");
    }

    /// Ends it; how many were answered, provided that all were.
    #[track_caller]
    fn succeeded(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.asking.join().unwrap().unwrap();
        self.answered.load(Ordering::SeqCst)
    }
}

fn is_current(plane: &Plane, proxy: &Sidecar) {
    until(&format!("{} is up to date", proxy.workload()), || {
        let found = plane.proxy(&proxy.workload()).ok_or("it is not connected")?;
        let current = found["appliedRevision"] == plane.revision() && found["pending"] == 0 && found["nack"] == "";
        holds(current, || found.to_string())
    });
}

/// Two replicas of `echo` and a client of each version.
fn documents(targets: u16, inbound: &[Port; 2]) -> String {
    let client = |name: &str| {
        format!(
            "apiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}}}\n\
             spec: {{addresses: [127.0.0.1], serviceAccount: client}}\n"
        )
    };
    [
        pair::service(targets),
        pair::workload("echo-1", targets, inbound[0].address()),
        pair::workload("echo-2", targets, inbound[1].address()),
        client("client-1"),
        client("client-2"),
    ]
    .join("---\n")
}

#[track_caller]
fn upgrade(Earlier { version, programs }: &Earlier) {
    let place = tempfile::tempdir().unwrap();
    let ours = Programs::ours();
    let mut plane = Plane::start_as(place.path(), &[], programs);
    let application = Application::start("echo");
    let inbound = [Port::reserve(), Port::reserve()];
    plane.apply(&documents(application.port(), &inbound));
    let replica = |name: &str, at: &Port| {
        Settings::new(&plane, name, "echo").inbound(at, application.address()).of(programs).start(&plane)
    };
    let mut replicas = [replica("echo-1", &inbound[0]), replica("echo-2", &inbound[1])];
    let entrances = [Port::reserve(), Port::reserve()];
    let client = |name: &str, at: &Port, programs: &Programs| {
        Settings::new(&plane, name, "client").outbound(at, pair::virtual_address()).of(programs).start(&plane)
    };
    let mut first = client("client-1", &entrances[0], programs);
    for proxy in replicas.iter().chain([&first]) {
        proxy.ready();
        is_current(&plane, proxy);
    }
    let load = Load::on(entrances[0].address());
    load.goes_on();

    // First the control plane, on the data of the one before it.
    let revision = plane.revision();
    plane.stop();
    load.goes_on();
    plane.start_again_as(&ours);
    assert_eq!(plane.revision(), revision, "{version}: what was stored is there");
    for proxy in replicas.iter().chain([&first]) {
        is_current(&plane, proxy);
    }
    load.goes_on();

    // Then the proxies, each ended in order as with its pod.
    for proxy in &mut replicas {
        proxy.process.signal(Signal::SIGTERM);
        assert_eq!(proxy.process.ended().code(), Some(0));
        load.goes_on();
        proxy.start_again_as(&ours);
        proxy.ready();
        is_current(&plane, proxy);
        load.goes_on();
    }
    let second = Settings::with_token("client-2", "client", plane.token("client"));
    let second = second.outbound(&entrances[1], pair::virtual_address()).of(&ours).start(&plane);
    second.ready();
    let further = Load::on(entrances[1].address());
    further.goes_on();
    // Whoever calls through a proxy ends before it.
    let answered = load.succeeded();
    first.process.signal(Signal::SIGTERM);
    assert_eq!(first.process.ended().code(), Some(0));
    further.goes_on();
    let answered = answered + further.succeeded();
    println!("ok {version} to this: {answered} requests, 0 failed");
}

#[test]
fn a_mesh_is_upgraded_part_by_part_under_load_and_no_request_fails() {
    earlier::all().iter().for_each(upgrade);
}
