//! One control plane per data directory: an advisory lock on `DIR/lock`, released by the kernel however the holder ends.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// Held while a control plane runs on a directory.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// Why a data directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error(
        "the data directory {} is in use by the control plane with pid {pid}; stop that one, or choose another directory with --data", .directory.display()
    )]
    Held { directory: PathBuf, pid: String },
    #[error("cannot {doing} {}: {source}; choose a directory you may write to with --data", .path.display())]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
}

impl Lock {
    /// Makes the directory if it is missing and locks it.
    pub fn acquire(directory: &Path) -> Result<Self, LockError> {
        let io = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| LockError::Io { doing, path, source }
        };
        std::fs::create_dir_all(directory).map_err(io("create the data directory", directory))?;
        let path = directory.join("lock");
        // Not truncated on opening: until the lock is ours, the content is the holder's.
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(io("open", &path))?;
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                // Without it the message is poorer, not wrong.
                let _ = file.read_to_string(&mut pid);
                let pid = if pid.trim().is_empty() { "unknown".into() } else { pid.trim().to_owned() };
                return Err(LockError::Held { directory: directory.to_owned(), pid });
            }
            Err((_, error)) => return Err(io("lock", &path)(error.into())),
        };
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(io("write", &path))?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_control_plane_is_refused_with_the_pid_of_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let first = Lock::acquire(directory.path()).unwrap();
        let refusal = Lock::acquire(directory.path()).unwrap_err().to_string();
        assert!(refusal.contains(&format!("with pid {};", std::process::id())), "{refusal}");
        assert!(!refusal.contains('\n'));
        drop(first);
        Lock::acquire(directory.path()).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let refusal = Lock::acquire(&file.join("data")).unwrap_err().to_string();
        assert!(refusal.contains("file/data") && refusal.contains("--data"), "{refusal}");
    }
}
