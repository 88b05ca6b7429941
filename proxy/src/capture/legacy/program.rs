//! The programs of `iptables-legacy`, and the lock under which they are used.

use std::env;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use super::super::CaptureError;
use super::line::Family;
use crate::clock;

/// Longest wait for whoever else changes our rules: each change is a matter of milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait of a program for the lock of all such programs, which kube-proxy holds for seconds in large clusters.
const PROGRAM_LOCK: &str = "--wait=30";
/// Longest time for a program, its own wait included.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at a lock or a program.
const PAUSE: Duration = Duration::from_millis(2);
/// The file by which those programs lock out each other.
const LOCK_FILE: &str = "/run/xtables.lock";
/// Where programs for administrators are, on the search path of nobody else.
const DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// The right to change our rules in this network namespace, whatever container one is in.
pub(super) struct Lock(File);

impl Lock {
    pub(super) fn take(action: &str) -> Result<Self, CaptureError> {
        let failed = |source| CaptureError::socket(action, source);
        // One file for all who see this namespace.
        let file = File::open("/proc/thread-self/ns/net").map_err(failed)?;
        let deadline = clock::now() + LOCK_TIMEOUT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) if clock::now() >= deadline => {
                    return Err(CaptureError::Locked { action: action.to_owned(), seconds: LOCK_TIMEOUT.as_secs() });
                }
                Err(TryLockError::WouldBlock) => thread::park_timeout(PAUSE),
            }
        }
    }
}

/// What the family's nat table has.
pub(super) fn save(family: Family, action: &str) -> Result<String, CaptureError> {
    let program = match family {
        Family::V4 => ["iptables-legacy-save", "iptables-save"],
        Family::V6 => ["ip6tables-legacy-save", "ip6tables-save"],
    };
    let program = find(program, action)?;
    run(Command::new(&program).args(["-t", "nat"]), &program, "", None, action)
}

/// Changes the family's nat table as the text says, all of it or nothing.
pub(super) fn restore(family: Family, text: &str, lock: &Lock, action: &str) -> Result<(), CaptureError> {
    let program = match family {
        Family::V4 => ["iptables-legacy-restore", "iptables-restore"],
        Family::V6 => ["ip6tables-legacy-restore", "ip6tables-restore"],
    };
    let program = find(program, action)?;
    let mut command = Command::new(&program);
    command.args(["--noflush", PROGRAM_LOCK]);
    if !can_lock(Path::new(LOCK_FILE)) {
        // A container with a read-only file system: nobody outside could see a lock there anyhow.
        command.env("XTABLES_LOCKFILE", "/dev/null");
    }
    let held = lock.0.try_clone().map_err(|source| CaptureError::socket(action, source))?;
    run(&mut command, &program, text, Some(held), action).map(drop)
}

fn can_lock(file: &Path) -> bool {
    // As the programs open it.
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(file).is_ok()
}

/// The first of two names that is a program for the legacy tables. The second one is that only where no newer version took
/// the name for `nf_tables`.
fn find([own, shared]: [&'static str; 2], action: &str) -> Result<PathBuf, CaptureError> {
    if let Some(program) = search(own) {
        return Ok(program);
    }
    let missing = || CaptureError::NoProgram { action: action.to_owned(), program: own };
    let program = search(shared).ok_or_else(missing)?;
    let version = run(Command::new(&program).arg("--version"), &program, "", None, action)?;
    if version.contains("nf_tables") { Err(missing()) } else { Ok(program) }
}

fn search(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(DIRECTORIES.map(PathBuf::from));
    directories
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// Runs a program to its end and gives what it printed; nothing where `output` takes that.
fn run(
    command: &mut Command,
    program: &Path,
    input: &str,
    output: Option<File>,
    action: &str,
) -> Result<String, CaptureError> {
    let failed = |problem: String| CaptureError::Program {
        action: action.to_owned(),
        program: program.display().to_string(),
        problem,
    };
    let output = output.map_or_else(Stdio::piped, Stdio::from);
    command.stdin(Stdio::piped()).stdout(output).stderr(Stdio::piped()).env("LC_ALL", "C");
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    // The command has copies of what the child was given; a lock among them must end with the child.
    command.stdout(Stdio::null());
    let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (status, printed, said) = thread::scope(|scope| {
        // A pipe holds less than the longest input.
        scope.spawn(move || {
            // It says itself why it reads no further.
            let _ = stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
        });
        let printed = scope.spawn(|| read(stdout));
        let said = scope.spawn(|| read(stderr));
        let status = wait(&mut child);
        (status, printed.join().unwrap_or_default(), said.join().unwrap_or_default())
    });
    match status {
        Ok(Some(status)) if status.success() => Ok(printed),
        Ok(Some(status)) => {
            let words: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            Err(failed(format!("{status}: {}", words.join("; "))))
        }
        Ok(None) => Err(failed(format!("it did not end within {} s", PROGRAM_TIMEOUT.as_secs()))),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn read(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    // What came before an error is all there is.
    let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for the end; kills a program that takes too long, and tells nothing then.
fn wait(child: &mut Child) -> std::io::Result<Option<ExitStatus>> {
    let deadline = clock::now() + PROGRAM_TIMEOUT;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if clock::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::park_timeout(PAUSE);
    }
}
