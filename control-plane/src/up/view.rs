//! What a mesh shows of its workloads.

use std::net::IpAddr;
use std::path::PathBuf;

/// A workload as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadView {
    pub service: String,
    pub name: String,
    /// Its addresses in the mesh; 127.0.0.1 where there are no namespaces.
    pub addresses: Vec<IpAddr>,
    /// The admin endpoint of its proxy.
    pub admin_socket: PathBuf,
    /// What its application prints.
    pub log: PathBuf,
    /// The application's process, as this machine counts; `None` while it does not run.
    pub pid: Option<u32>,
    /// How often the application has been started.
    pub starts: u64,
    pub phase: Phase,
}

/// How far a workload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    Starting,
    /// Takes work.
    Ready,
    /// Ended unasked; it is started again, with growing pauses.
    Restarting {
        reason: String,
    },
    Stopping,
    Gone,
    /// Never came up.
    Failed {
        reason: String,
    },
}

/// The machine's number for a process the pod knows as `inner`.
pub(super) fn host_pid(outermost: Option<u32>, inner: i32, namespaces: bool) -> Option<u32> {
    let inner = u32::try_from(inner).ok()?;
    if !namespaces {
        return Some(inner);
    }
    let init = children(outermost?).into_iter().next()?;
    children(init).into_iter().find(|&child| inner_pid(child) == Some(inner))
}

fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// The last number of `NSpid:` is the one in the innermost namespace (`proc_pid_status(5)`).
fn inner_pid(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().last()?.parse().ok()
}
