//! The command line's socket in the data directory.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;

use super::{AppError, Stop};
use crate::manage::Manage;

/// `sockaddr_un` holds 107 bytes and a zero.
pub(super) const LONGEST_PATH: usize = 107;

/// The socket of the command line; its file goes when the control plane does.
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Refuses a path that cannot be bound, before anything is made that would stay behind.
    pub(super) fn check(path: &Path) -> Result<(), AppError> {
        if path.as_os_str().len() > LONGEST_PATH {
            let source = std::io::ErrorKind::InvalidInput.into();
            return Err(AppError::Socket { path: path.to_owned(), source });
        }
        Ok(())
    }

    /// The directory's lock is held, so a socket that lies there is left from an earlier run.
    pub(super) fn bind(path: &Path) -> Result<Self, AppError> {
        let error = |source| AppError::Socket { path: path.to_owned(), source };
        match std::fs::remove_file(path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => return Err(error(source)),
            _ => {}
        }
        // Bound where only the owner can go, made private there, and moved: nobody else can connect at any moment. (A
        // umask would be the whole process's, and of files that are made meanwhile.)
        let nursery = path.with_file_name(".api");
        let _ = std::fs::remove_dir_all(&nursery);
        std::fs::DirBuilder::new().mode(0o700).create(&nursery).map_err(error)?;
        let newborn = nursery.join("s");
        let bound = UnixListener::bind(&newborn).and_then(|listener| {
            std::fs::set_permissions(&newborn, std::fs::Permissions::from_mode(0o600))?;
            std::fs::rename(&newborn, path)?;
            Ok(listener)
        });
        let _ = std::fs::remove_dir_all(&nursery);
        Ok(Self { listener: bound.map_err(error)?, path: path.to_owned() })
    }

    pub(super) async fn serve(self, management: Manage, mut stop: Stop) -> Result<(), String> {
        let result = tonic::transport::Server::builder()
            .add_service(management.into_server())
            .serve_with_incoming_shutdown(UnixListenerStream::new(self.listener), async move {
                // A sender that is gone stops as well.
                let _ = stop.wait_for(|stop| *stop).await;
            })
            .await
            .map_err(|error| error.to_string());
        // Without it a client would take the directory for one whose control plane hangs.
        let _ = std::fs::remove_file(&self.path);
        result
    }
}
