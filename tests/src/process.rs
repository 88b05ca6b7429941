//! Real programs as processes on loopback: control planes, proxies, applications and the command line.
//!
//! Each process writes to a file in its test's directory, is killed when its owner is dropped, and shows the end of
//! what it wrote when a test fails. Ports come from the kernel and stay reserved as long as their owner lives.

pub mod application;
pub mod crossing;
pub mod http;
pub mod http2;
pub mod metrics;
pub mod nghttpd;
pub mod pair;
pub mod plane;
pub mod python;
pub mod sidecar;

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::{Domain, Socket, Type};

/// Longest wait for what takes a moment on an idle machine; a busy one may take this much longer.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// Characters of a log shown when a test fails.
const SHOWN: usize = 6_000;
/// Where Debian keeps programs of the system, which an ordinary user's path leaves out.
const SYSTEM_PATH: &str = ":/usr/local/sbin:/usr/sbin:/sbin";

/// Tests measure real time; nothing here decides by it but deadlines.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Instant {
    Instant::now()
}

/// The time of day, as certificates and tokens have it.
#[allow(clippy::disallowed_methods)]
pub fn wall() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

/// Between two looks at a condition: no test waits for time to pass.
#[allow(clippy::disallowed_methods)]
fn pause() {
    thread::sleep(LOOK);
}

/// Waits until `check` gives a value; its last objection is the panic's message.
pub fn until<T>(what: &str, mut check: impl FnMut() -> Result<T, String>) -> T {
    let deadline = now() + PATIENCE;
    loop {
        match check() {
            Ok(value) => return value,
            Err(objection) if now() >= deadline => panic!("not within {PATIENCE:?}: {what}: {objection}"),
            Err(_) => pause(),
        }
    }
}

/// `Ok` when `holds`.
pub fn holds(holds: bool, objection: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(objection()) }
}

/// A program of this workspace, built by the same command as this test.
pub fn program(name: &str) -> PathBuf {
    Programs::ours().path(name)
}

/// Where programs of one version are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs(PathBuf);

impl Programs {
    /// Of this workspace, built by the same command as this test.
    pub fn ours() -> Self {
        let test = std::env::current_exe().expect("a running test has an executable");
        // target/PROFILE/deps/TEST-HASH, or target/PROFILE/PROGRAM
        let directory = test.parent().expect("an executable lies in a directory");
        let directory = if directory.ends_with("deps") { directory.parent().unwrap_or(directory) } else { directory };
        Self(directory.to_owned())
    }

    pub fn within(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        assert!(path.exists(), "{} is missing: run `cargo build --workspace --bins` first", path.display());
        path
    }
}

/// A command without settings of whoever runs the tests.
pub fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WEFT_") {
            command.env_remove(name);
        }
    }
    command.env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

/// A process that runs until it is told to end.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Characters of its log that are shown when a test fails.
    shown: usize,
}

impl Process {
    /// Starts a command; all it writes is added to `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(log).expect("a log can be opened");
        let second = file.try_clone().expect("a descriptor can be cloned");
        let child = command.stdout(file).stderr(second).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { name: name.to_owned(), child, log: log.to_owned(), shown: SHOWN }
    }

    /// Shows only the last `characters` of its log when a test fails, so that the reason stands near the end.
    #[must_use]
    pub fn showing(mut self, characters: usize) -> Self {
        self.shown = characters;
        self
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All it has written, and what ran under the same name before it.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.child.id().cast_signed());
        kill(id, signal).unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.name));
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let name = self.name.clone();
        until(&format!("{name} ends"), || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        })
    }

    /// Its exit status, when it has ended.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// SIGKILL: no chance to tidy up.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = self.log();
            let begin = log.char_indices().rev().nth(self.shown).map_or(0, |(at, _)| at);
            eprintln!("--- the end of {}'s output:\n{}\n---", self.name, &log[begin..]);
        }
    }
}

/// What a command wrote and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Its standard output, provided that it succeeded.
    #[track_caller]
    pub fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.stdout
    }

    /// Its standard error, provided that it ended with this code.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self.stderr
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Finished {
    fed(command, "")
}

/// Runs a command that may take as long as this.
pub fn run_within(command: &mut Command, limit: Duration) -> Finished {
    fed_within(command, "", limit)
}

/// Runs a command to its end with this on its standard input.
pub fn fed(command: &mut Command, input: &str) -> Finished {
    fed_within(command, input, PATIENCE)
}

/// Both.
pub fn fed_within(command: &mut Command, input: &str, limit: Duration) -> Finished {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("it was piped");
    // One that does not read its input is no failure of ours.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let stdout = collect(child.stdout.take().expect("it was piped"));
    let stderr = collect(child.stderr.take().expect("it was piped"));
    let deadline = now() + limit;
    let status = loop {
        match child.try_wait().expect("a child can be waited for") {
            Some(status) => break status,
            None if now() >= deadline => {
                let _ = child.kill();
                let _ = child.wait();
                let (said, error) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
                panic!("{command:?} did not end within {limit:?}: {said}{error}");
            }
            None => pause(),
        }
    };
    let text = |reader: thread::JoinHandle<String>| reader.join().expect("a reader does not panic");
    Finished { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

fn collect(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A port of 127.0.0.1 that nobody else is given while this lives.
///
/// It is bound and never listened on, with both options of sharing: a program that sets one of them, as servers do, can
/// listen on it, end, and listen again.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _reserved: Socket,
}

impl Port {
    pub fn reserve() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket can be had");
        socket.set_reuse_address(true).expect("a plain option");
        socket.set_reuse_port(true).expect("a plain option");
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a port is free");
        let address = socket.local_addr().ok().and_then(|address| address.as_socket());
        Self { number: address.expect("it is bound to an IPv4 address").port(), _reserved: socket }
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}

/// Fails where a program is missing that the test is nothing without: a test that is skipped checks nothing.
pub fn need(programs: &[&str]) {
    let directories = std::env::var("PATH").unwrap_or_default() + SYSTEM_PATH;
    let is_found = |name: &str| directories.split(':').any(|directory| Path::new(directory).join(name).exists());
    let missing: Vec<_> = programs.iter().filter(|name| !is_found(name)).collect();
    assert!(missing.is_empty(), "{missing:?} are not installed: `bash tests/run` installs what the tests need");
}

/// A program that may lie where only root looks.
pub fn system(program: &str) -> Command {
    let mut command = command(program);
    command.env("PATH", std::env::var("PATH").unwrap_or_default() + SYSTEM_PATH);
    command
}

/// Every file below a directory, with its content.
pub fn files_below(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_below(&path)),
            Ok(kind) if kind.is_file() => found.push((path.clone(), std::fs::read(&path).unwrap_or_default())),
            _ => {}
        }
    }
    found
}
