//! Programs a test starts: each has a deadline, and none outlives the test.

use std::ffi::OsStr;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long anything may take that is quick on an idle machine. Only a failing test waits for it.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(10);
/// What a program printed last may arrive this long after its end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Real time: deadlines of tests are about it.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Instant {
    Instant::now()
}

/// Looks until there is something, and fails when `limit` has passed.
pub fn within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(now() < deadline, "not within {limit:?}: {what}");
        std::thread::park_timeout(LOOK);
    }
}

/// [`within`] [`PATIENCE`].
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, look)
}

/// A command that is killed when the thread that starts it ends, however it ends.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// What a program left.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    what: String,
}

impl Finished {
    /// What it printed, if it ended well; else the test fails.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.status.success(), "{self}");
        self.stdout
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nended with {}\n{}\n{}", self.what, self.status, self.stdout, self.stderr)
    }
}

/// Runs a program to its end.
#[track_caller]
pub fn run(command: Command) -> Finished {
    Running::start(command).finish(PATIENCE)
}

/// A program that runs; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    what: String,
    stdout: Captured,
    stderr: Captured,
}

impl Running {
    /// Starts a program and keeps what it prints.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        let what = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        let stdout = Captured::read(child.stdout.take().expect("it was piped"));
        let stderr = Captured::read(child.stderr.take().expect("it was piped"));
        Self { child, what, stdout, stderr }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|ended| ended.is_none())
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("a child not waited for can be signalled");
    }

    /// Waits until `text` stands in one of its outputs.
    #[track_caller]
    pub fn says(&self, text: &str) {
        until(&format!("`{text}` from {}", self.what), || {
            // In this order: what it said last counts, and is there once the outputs have ended.
            let ended = self.stdout.has_ended() && self.stderr.has_ended();
            let (stdout, stderr) = (self.stdout(), self.stderr());
            let said = stdout.contains(text) || stderr.contains(text);
            assert!(said || !ended, "it ended without `{text}`: {}\n{stdout}\n{stderr}", self.what);
            said.then_some(())
        });
    }

    /// Waits for its end.
    #[track_caller]
    pub fn finish(mut self, limit: Duration) -> Finished {
        let deadline = now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                break status;
            }
            assert!(
                now() < deadline,
                "still running after {limit:?}: {}\n{}\n{}",
                self.what,
                self.stdout(),
                self.stderr()
            );
            std::thread::park_timeout(LOOK);
        };
        // A process it left behind may hold the pipes open: that is no reason to wait.
        let deadline = now() + LAST_WORDS;
        while !(self.stdout.has_ended() && self.stderr.has_ended()) && now() < deadline {
            std::thread::park_timeout(LOOK);
        }
        Finished { status, stdout: self.stdout(), stderr: self.stderr(), what: std::mem::take(&mut self.what) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// An output as far as it has come.
#[derive(Debug)]
struct Captured {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Captured {
    fn read(mut source: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = std::thread::spawn(move || {
            let mut chunk = [0; 8 << 10];
            while let Ok(length @ 1..) = source.read(&mut chunk) {
                sink.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&chunk[..length]);
            }
        });
        Self { bytes, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    fn has_ended(&self) -> bool {
        self.reader.is_finished()
    }
}
