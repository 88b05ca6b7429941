//! What every pod of a mesh shares.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use super::data::DataDirectory;
use super::fabric::Mode;
use super::file::MeshFile;
use super::network::Fabric;
use super::plane::{KnownService, Plane};
use super::spawner::Spawner;
use super::taken::Taken;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) mesh: MeshFile,
    pub(super) mode: Mode,
    pub(super) quiet: bool,
    pub(super) executable: PathBuf,
    /// Arguments that make the executable a proxy.
    pub(super) sidecar: Vec<String>,
    pub(super) control_plane: SocketAddr,
    pub(super) plane: Plane,
    pub(super) fabric: Option<Fabric>,
    pub(super) taken: Taken,
    /// All services of the mesh, from `mesh.yaml` or applied later.
    pub(super) known: watch::Sender<Arc<Vec<KnownService>>>,
    pub(super) spawner: Spawner,
    pub(super) data: DataDirectory,
}

impl Shared {
    /// Who owns what proxies read and write; `None`: this user.
    pub(super) fn proxy_owner(&self) -> Option<u32> {
        (self.mode == Mode::Root).then_some(super::capture::PROXY_USER)
    }

    /// A word to who looks at the terminal.
    pub(super) fn say(&self, text: &str) {
        if !self.quiet {
            super::logs::tell(text);
        }
    }
}
