//! What a supervisor and the first process of a pod say to each other: one JSON object a line.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::capture::Exempt;
use super::network::PodAddress;

/// Longest line either side takes; environments travel in them.
pub(super) const MAX_LINE: usize = 4 << 20;

/// The supervisor tells the pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    SetUp(SetUp),
    Start {
        part: Part,
        program: Program,
        /// Report once this port on 127.0.0.1 takes connections.
        listens: Option<u16>,
    },
    /// SIGTERM, and SIGKILL after the grace.
    Stop {
        part: Part,
        grace_ms: u64,
    },
    /// End, whatever still runs.
    Exit,
}

/// The pod tells the supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    /// The namespaces exist.
    Up,
    /// Network, names and redirect are in place.
    Ready,
    /// Set-up failed; the pod ends.
    Failed {
        what: String,
    },
    /// `pid` as the pod sees it.
    Started {
        part: Part,
        pid: i32,
    },
    Listening,
    Exited {
        part: Part,
        how: String,
    },
}

/// The two things that run in a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Part {
    Proxy,
    Application,
}

/// What a pod with namespaces needs before anything starts in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SetUp {
    pub(super) hostname: String,
    pub(super) address: PodAddress,
    pub(super) exempt: Exempt,
    /// Files to see in place of others: (what, where).
    pub(super) mounts: Vec<(PathBuf, PathBuf)>,
}

/// How a program is started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Program {
    /// Empty first element: this very executable.
    pub(super) command: Vec<String>,
    /// Added to the pod's own environment.
    pub(super) env: BTreeMap<String, String>,
    pub(super) launch: Launch,
    /// Its output goes here instead of to the supervisor.
    pub(super) log: Option<PathBuf>,
    /// A signal goes to its whole process group: a shell does not pass signals on.
    pub(super) signal_group: bool,
}

/// What becomes of the process before the program takes it over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Launch {
    pub(super) directory: PathBuf,
    pub(super) run_as: RunAs,
    /// Die with the parent: where no process namespace sees to it.
    pub(super) die_with_parent: bool,
}

/// Which user a program runs as.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RunAs {
    Same,
    /// That user and group, no further groups.
    Ids {
        uid: u32,
        gid: u32,
    },
    /// That account with its groups.
    Account(String),
    /// The user outside, seen as itself again: programs that give up root when they find themselves root would fail
    /// in a namespace that has no other user.
    Nested {
        uid: u32,
        gid: u32,
    },
}
