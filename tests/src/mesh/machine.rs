//! What this machine has and allows, and who runs on it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::unistd::geteuid;

/// The program under test: `weft`, built into the directory of the test programs.
pub fn weft() -> PathBuf {
    static WEFT: OnceLock<PathBuf> = OnceLock::new();
    WEFT.get_or_init(|| {
        let test = std::env::current_exe().expect("a test program knows where it is");
        let directory = test.parent().and_then(Path::parent).expect("it is in target/PROFILE/deps");
        let weft = directory.join("weft");
        if !weft.exists() {
            let mut cargo = Command::new(option_env!("CARGO").unwrap_or("cargo"));
            cargo.args(["build", "--quiet", "--package", "weft-control-plane"]);
            if directory.ends_with("release") {
                cargo.arg("--release");
            }
            let built = cargo.status().expect("cargo can be started");
            assert!(built.success() && weft.exists(), "{} is missing; build it first", weft.display());
        }
        weft
    })
    .clone()
}

/// A Python of this machine.
pub fn python() -> String {
    std::env::var("WEFT_TEST_PYTHON").unwrap_or_else(|_| "/usr/bin/python3".to_owned())
}

/// Whether a test that needs network namespaces, and root to look into them, can run here. Where it cannot, it says
/// so; where every test must run (`CI=true`), it fails.
pub fn has_namespaces() -> bool {
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    REASON.get_or_init(lacking).as_deref().is_none_or(skipped)
}

/// Whether the kernel has IPv6; as [`has_namespaces`].
pub fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists() || skipped("this kernel has no IPv6")
}

/// Whether users without privileges can make namespaces; as [`has_namespaces`].
pub fn has_user_namespaces() -> bool {
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    let attempt = || {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "unshare", "--user", "--net", "true"]);
        said(setpriv).err().map(|reason| format!("user namespaces: {reason}"))
    };
    has_namespaces() && REASON.get_or_init(attempt).as_deref().is_none_or(skipped)
}

/// Tells why a test does not run; `false`, so that it can stand for what is missing.
fn skipped(reason: &str) -> bool {
    // Past the capture of test output: a test that did not run must not look like one that did.
    writeln!(std::io::stderr(), "skipped: {reason}").ok();
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "every test must run here: {reason}");
    false
}

/// What is missing. Asked of the machine, not of the program under test.
fn lacking() -> Option<String> {
    if !geteuid().is_root() {
        return Some("looking into pods needs root".to_owned());
    }
    let attempt =
        "ip link add weft0 type bridge && ip link add weft1 type veth peer name weft2 && nft add table inet weft";
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--pid", "--mount", "--uts", "--fork", "sh", "-c", attempt]);
    said(unshare).err().map(|reason| format!("namespaces: {reason}"))
}

/// Runs a command that is quick; its complaint when it fails.
fn said(mut command: Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(complaint) }
}

/// A process as `/proc` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub name: String,
    pub parent: u32,
    pub group: u32,
}

/// All processes.
pub fn processes() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").expect("/proc can be read");
    entries.flatten().filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// The process of that number; `None` when it is gone or only waits to be reaped.
pub fn process(pid: u32) -> Option<Process> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // `PID (NAME) STATE PARENT GROUP ...`; a name may hold anything, so it ends at the last parenthesis (proc_pid_stat(5)).
    let (head, tail) = text.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let mut words = tail.split_whitespace();
    let state = words.next()?;
    let (parent, group) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (!matches!(state, "Z" | "X")).then_some(Process { pid, name, parent, group })
}

/// Everything below a process.
pub fn descendants(root: u32) -> Vec<Process> {
    let all = processes();
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for process in all.iter().filter(|process| process.parent == parent) {
            parents.push(process.pid);
            found.push(process.clone());
        }
    }
    found
}

/// A variable a process was started with.
pub fn variable(pid: u32, name: &str) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let entries = environment.split(|&byte| byte == 0);
    entries.filter_map(|entry| std::str::from_utf8(entry).ok()).find_map(|entry| {
        let (key, value) = entry.split_once('=')?;
        (key == name).then(|| value.to_owned())
    })
}

/// The namespaces a process is in, as `net:[4026531840]`.
pub fn namespaces(pid: u32) -> Vec<String> {
    let links = ["net", "mnt", "pid", "uts", "user"].map(|kind| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")));
    links.into_iter().flatten().map(|link| link.display().to_string()).collect()
}
