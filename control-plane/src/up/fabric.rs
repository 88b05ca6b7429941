//! The mesh's own network: one anonymous namespace with a bridge, entered before the first thread starts.
//!
//! Nothing has a name on the host: the namespace lives as long as a process is in it, and takes its bridge and its
//! veths along. Root enters a network namespace; everybody else a user namespace first, where the kernel allows it.
//! Whether all of it works is tried in a child, so that a refusal half way leaves this process where it was.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid};

use super::capture::{self, Exempt};
use super::network;

/// What the machine allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Network namespaces, made by root; proxies run as a user of their own.
    Root,
    /// Network namespaces inside a user namespace, whose only user is this one.
    User { uid: u32, gid: u32 },
    /// No namespaces: programs share the loopback interface and nothing is intercepted.
    Loopback { reason: String },
}

impl Mode {
    /// Whether every workload has a network of its own.
    pub fn has_namespaces(&self) -> bool {
        !matches!(self, Self::Loopback { .. })
    }

    /// Whose traffic the redirect leaves alone.
    pub(super) fn exempt(&self) -> Option<Exempt> {
        match self {
            Self::Root => Some(Exempt::User(capture::PROXY_USER)),
            Self::User { .. } => Some(Exempt::Mark(capture::PROXY_MARK)),
            Self::Loopback { .. } => None,
        }
    }
}

/// Enters the mesh's own network namespace and says how; never fails, as the last resort needs nothing.
///
/// Must be called while the process has one thread: threads made later inherit the namespace, earlier ones would not.
/// `executable` must hand `pod ...` to [`super::pod::main`].
pub fn enter_fabric(executable: &Path) -> Mode {
    let mut reasons = Vec::new();
    if Uid::effective().is_root() {
        match attempt(executable, "root", || unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from)) {
            Ok(()) => return Mode::Root,
            Err(reason) => reasons.push(format!("as root: {reason}")),
        }
    }
    let (uid, gid) = (Uid::effective(), Gid::effective());
    match attempt(executable, "user", || enter_user_namespace(uid, gid)) {
        Ok(()) => Mode::User { uid: uid.as_raw(), gid: gid.as_raw() },
        Err(reason) => {
            reasons.push(format!("in a user namespace: {reason}"));
            Mode::Loopback { reason: reasons.join("; ") }
        }
    }
}

fn attempt(executable: &Path, how: &str, enter: impl FnOnce() -> io::Result<()>) -> Result<(), String> {
    let trial = Command::new(executable)
        .args(["pod", "probe", how])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("starting {}: {error}", executable.display()))?;
    if !trial.status.success() {
        let said = String::from_utf8_lossy(&trial.stderr);
        let last = said.lines().rfind(|line| !line.trim().is_empty());
        return Err(last.map_or_else(|| trial.status.to_string(), str::to_owned));
    }
    enter().map_err(|error| format!("entering a network namespace: {error}"))
}

/// Everything a mesh will need, done once in a process that then ends: `pod probe root|user`.
pub(super) fn probe(how: &str) -> Result<(), String> {
    let step = |doing: &str, error: &dyn std::fmt::Display| format!("{doing}: {error}");
    if how == "root" {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|e| step("making a network namespace", &e))?;
    } else {
        enter_user_namespace(Uid::effective(), Gid::effective())
            .map_err(|e| step("making a user and a network namespace", &e))?;
    }
    network::block_on(network::try_bridge()).map_err(|e| step("making a bridge and a veth", &e))?;
    unshare(pod_namespaces()).map_err(|e| step("making a pod's namespaces", &e))?;
    let exempt = if how == "root" { Exempt::User(capture::PROXY_USER) } else { Exempt::Mark(capture::PROXY_MARK) };
    capture::install(exempt).map_err(|e| step("installing the traffic redirect", &e))
}

/// The namespaces of one pod.
pub(super) fn pod_namespaces() -> CloneFlags {
    CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS
}

/// Enters a user namespace in which this user is 0, and a network namespace that belongs to it.
fn enter_user_namespace(uid: Uid, gid: Gid) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
    map_identity(0, uid.as_raw(), 0, gid.as_raw())
}

/// Maps the one user and group of a fresh user namespace: `inside` is what processes see, `outside` what it is.
pub(super) fn map_identity(uid_inside: u32, uid_outside: u32, gid_inside: u32, gid_outside: u32) -> io::Result<()> {
    // Groups may only be mapped without privilege once setgroups(2) is off (user_namespaces(7)); inside a namespace
    // where it is off already the file cannot be written again.
    if std::fs::read_to_string("/proc/self/setgroups")?.trim() != "deny" {
        std::fs::write("/proc/self/setgroups", "deny")?;
    }
    std::fs::write("/proc/self/uid_map", format!("{uid_inside} {uid_outside} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{gid_inside} {gid_outside} 1"))
}
