//! Network namespaces of a test's own: each lives as long as the thread that made it and what that thread opened.

use std::env;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, geteuid, gettid};

/// Set in the copy of the test that runs inside a user namespace.
const INSIDE: &str = "WEFT_TEST_INSIDE_USER_NAMESPACE";

/// Runs the body where it may make network namespaces: here if this is root, else once more inside a user namespace.
///
/// Where neither is allowed the test is skipped aloud, but not on a build machine (`CI=true`): there it fails.
pub(super) fn with_rights(test: &str, body: impl FnOnce()) {
    with_rights_as(&format!("capture::tests::{test}"), body);
}

/// [`with_rights`] for a test of this whole name.
pub(super) fn with_rights_as(name: &str, body: impl FnOnce()) {
    if geteuid().is_root() {
        return body();
    }
    if in_user_namespace() {
        return skip("a user namespace without its root");
    }
    let possible = Command::new("unshare").args(["-Urn", "true"]).stderr(Stdio::null()).status();
    if !possible.is_ok_and(|status| status.success()) {
        return skip("neither root nor user namespaces");
    }
    let status = Command::new("unshare")
        .arg("-Urn")
        .arg(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .status();
    assert!(status.unwrap().success(), "{name} failed inside a user namespace");
}

/// Whether this is the copy inside a user namespace, where root has less rights.
pub(super) fn in_user_namespace() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Says why nothing was tested.
pub(super) fn skip(reason: &str) {
    assert_ne!(env::var("CI").as_deref(), Ok("true"), "a build machine must run this test, but it has {reason}");
    println!("skipped: {reason}");
}

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace, and the thread that works in it.
pub(super) struct Namespace {
    thread: Pid,
    jobs: mpsc::Sender<Job>,
}

impl Namespace {
    /// A namespace with nothing but a loopback interface, which is up.
    pub(super) fn new() -> Self {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (ready, made) = mpsc::channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ready.send(gettid()).unwrap();
            for job in todo {
                job();
            }
        });
        let namespace = Self { thread: made.recv().unwrap(), jobs };
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs a closure inside; sockets that it makes stay inside wherever they are used. A panic in it is the caller's.
    pub(super) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, outcome) = mpsc::channel();
        let job = std::panic::AssertUnwindSafe(job);
        self.jobs
            .send(Box::new(move || {
                let _ = done.send(std::panic::catch_unwind(job));
            }))
            .unwrap();
        outcome.recv().unwrap().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs `ip` commands inside, one a line.
    pub(super) fn ip(&self, commands: &str) {
        let output = self.program("ip", &["-batch", "-"], commands);
        assert!(output.is_some(), "the program `ip` (iproute2) is needed");
    }

    /// Runs a program inside with this input and gives its output; nothing if there is no such program.
    pub(super) fn program(&self, name: &str, arguments: &[&str], input: &str) -> Option<String> {
        let (name, input) = (name.to_owned(), input.to_owned());
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        self.run(move || {
            let child = Command::new(&name)
                .args(&arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            let mut child = child.ok()?;
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{name} {arguments:?}: {errors}{input}");
            Some(String::from_utf8(output.stdout).unwrap())
        })
    }
}

/// A workload's namespace and the rest of the world, joined by a cable: the world has 10.9.0.2 and `fd09::2`, is the
/// workload's way to everywhere, and has the addresses 192.0.2.1 and `2001:db8::1` too. The workload has 10.9.0.1 and `fd09::1`.
pub(super) fn workload_and_world() -> (Namespace, Namespace) {
    let (workload, world) = (Namespace::new(), Namespace::new());
    workload.ip(&format!("link add cable type veth peer name cable netns {}", world.thread));
    workload.ip("addr add 10.9.0.1/24 dev cable
         addr add fd09::1/64 dev cable nodad
         link set cable up");
    world.ip("addr add 10.9.0.2/24 dev cable
         addr add fd09::2/64 dev cable nodad
         addr add 192.0.2.1/32 dev lo
         addr add 2001:db8::1/128 dev lo nodad
         link set cable up");
    workload.ip("route add default via 10.9.0.2
         route add ::/0 via fd09::2");
    (workload, world)
}
