//! `weft up`: a whole mesh on this machine: control plane, a proxy per workload, and the user's unmodified programs.
//!
//! | module | does |
//! |---|---|
//! | [`file`] | `mesh.yaml`, read and checked; `value` its numbers and texts |
//! | `check` | what this machine lacks for a mesh file, found before anything starts |
//! | `fabric` | the mesh's own network namespace, entered before the first thread |
//! | `network` | bridge, veths, addresses |
//! | [`pod`] | the processes of a pod: `enter`, `init` (process 1), `launch` (what stands between fork and program) |
//! | `capture` | the traffic redirect in a pod |
//! | `protocol`, `channel` | what supervisor and pod say to each other |
//! | `supervise` | the task that owns a workload |
//! | `place`, `taken` | addresses, ports and environments of workloads |
//! | `plane` | the control plane's process and its management API |
//! | `workloads` | all of them together, and how their number changes |
//! | `mesh` | start and stop |
//! | `control` | the socket `weft scale` talks to |
//! | `data`, `logs`, `spawner`, `shared`, `view` | directory, output, process starts, common state, what is shown |
//! | `command` | the verbs `up` and `scale` |
//!
//! Nothing outlives the supervisor, however it ends: every process asks the kernel to die with its parent, and the
//! namespaces have no name, so they and all that is in them go with their last process.

pub mod file;
pub mod pod;

mod capture;
mod channel;
mod check;
mod command;
mod control;
mod data;
mod fabric;
mod init;
mod launch;
mod logs;
mod mesh;
mod network;
mod place;
mod plane;
mod protocol;
mod shared;
mod spawner;
mod supervise;
mod taken;
mod value;
mod view;
mod workloads;

use std::path::PathBuf;

pub use command::{ScaleArguments, UpArguments, main, mode, parse_duration, run, scale_main};
pub use control::{ControlError, request_scale};
pub use data::{DataError, locate};
pub use fabric::{Mode, enter_fabric};
pub use file::{MeshFile, MeshFileError};
pub use mesh::{Mesh, start};
pub use plane::PlaneError;
pub use view::{Phase, WorkloadView};

/// How a mesh is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// What [`enter_fabric`] found.
    pub mode: Mode,
    /// Kept and used again; `None`: a fresh directory that is removed at the end.
    pub data: Option<PathBuf>,
    /// Print nothing: neither what programs print nor what happens to them. Logs are written all the same.
    pub quiet: bool,
    /// An executable that hands `pod ...` to [`pod::main`] and knows the two below; usually this one.
    pub executable: PathBuf,
    /// Arguments that make it a proxy.
    pub sidecar: Vec<String>,
    /// Arguments that make it a control plane; `--data DIR --listen ADDRESS` follow.
    pub control_plane: Vec<String>,
}

impl Options {
    /// The defaults.
    ///
    /// # Errors
    /// When the system does not say which executable this is.
    pub fn new(mode: Mode) -> std::io::Result<Self> {
        Ok(Self {
            mode,
            data: None,
            quiet: false,
            executable: std::env::current_exe()?,
            sidecar: vec!["proxy".to_owned()],
            control_plane: vec!["control-plane".to_owned()],
        })
    }
}

/// Why a mesh cannot be started or changed.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    #[error(transparent)]
    File(#[from] MeshFileError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Plane(#[from] PlaneError),
    #[error("{doing}: {reason}")]
    Machine { doing: &'static str, reason: String },
    #[error("the control plane does not start ({how}); the last line of {log}: {line}")]
    ControlPlane { how: String, log: String, line: String },
    #[error("{name} does not start: {reason}")]
    Workload { name: String, reason: String },
    #[error("scaling: found service `{found}`, allowed: {allowed}")]
    NoSuchService { found: String, allowed: String },
    #[error("scaling {service}: found {found} replicas, allowed: 0..={most}{why}")]
    TooMany { service: String, found: u32, most: u32, why: &'static str },
}
