//! The data directory of a mesh: who holds it, what lies where, what a crashed run left.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::fabric::Mode;

const LOCK: &str = "up.lock";
/// Longest path of a unix socket (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("{path}: a mesh is running there already (process {pid}); stop it or choose another --data")]
    Busy { path: String, pid: String },
    #[error("{path}: {doing}: {source}")]
    Io { path: String, doing: &'static str, source: io::Error },
    #[error(
        "{path}: the proxies run as user {user} and cannot pass {closed} (mode {mode:o}); choose another --data or open that directory"
    )]
    Closed { path: String, user: u32, closed: String, mode: u32 },
    #[error(
        "{path}: too long for unix sockets below it (at most {MAX_SOCKET_PATH} bytes in all); choose a shorter --data"
    )]
    TooLong { path: String },
    #[error("no running mesh found below {0}; say where it is with --data")]
    NotRunning(String),
    #[error("several meshes run on this machine ({0}); say which with --data")]
    Several(String),
}

fn failed(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> DataError {
    let path = path.display().to_string();
    move |source| DataError::Io { path, doing, source }
}

/// A data directory this process holds.
#[derive(Debug)]
pub(super) struct DataDirectory {
    path: PathBuf,
    temporary: bool,
    /// Locked as long as it is open, so as long as this process lives.
    _lock: File,
}

impl DataDirectory {
    /// Takes `given`, or a fresh directory that goes away again. `longest_name`: of a workload, in bytes.
    pub(super) fn open(given: Option<&Path>, mode: &Mode, longest_name: usize) -> Result<Self, DataError> {
        let directory = match given {
            Some(path) => {
                make_directory(path, 0o755)?;
                let path = path.canonicalize().map_err(failed(path, "finding it"))?;
                let lock = lock(&path)?;
                Self { path, temporary: false, _lock: lock }
            }
            None => Self::temporary(&std::env::temp_dir())?,
        };
        directory.check(mode, longest_name)?;
        // What a run that crashed has left: sockets nobody answers, tokens of pods that are gone.
        let pods = directory.path.join("pods");
        match fs::remove_dir_all(&pods) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&pods, "clearing it")(error)),
            _ => {}
        }
        fs::remove_file(directory.control_socket()).ok();
        fs::remove_file(directory.api_socket()).ok();
        // Passable: each pod's own directory belongs to the user its proxy runs as.
        make_own_directory(&pods, 0o711)?;
        make_own_directory(&directory.path.join("logs"), 0o700)?;
        Ok(directory)
    }

    fn temporary(parent: &Path) -> Result<Self, DataError> {
        remove_stale(parent);
        let parent = parent.canonicalize().map_err(failed(parent, "finding it"))?;
        let path = parent.join(format!("{TEMPORARY_PREFIX}{:08x}", fastrand::u32(..)));
        // `create` refuses what exists, so nobody can have laid a trap under this name.
        DirBuilder::new().mode(0o700).create(&path).map_err(failed(&path, "making it"))?;
        make_own_directory(&path, 0o711)?;
        let lock = lock(&path)?;
        Ok(Self { path, temporary: true, _lock: lock })
    }

    fn check(&self, mode: &Mode, longest_name: usize) -> Result<(), DataError> {
        let shown = || self.path.display().to_string();
        if self.path.as_os_str().len() + "/pods//admin.sock".len() + longest_name > MAX_SOCKET_PATH {
            return Err(DataError::TooLong { path: shown() });
        }
        if *mode == Mode::Root {
            for closed in self.path.ancestors() {
                let mode = closed.metadata().map_err(failed(closed, "reading its mode"))?.mode();
                if mode & 0o001 == 0 {
                    let (user, closed) = (super::capture::PROXY_USER, closed.display().to_string());
                    return Err(DataError::Closed { path: shown(), user, closed, mode: mode & 0o7777 });
                }
            }
        }
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_temporary(&self) -> bool {
        self.temporary
    }

    /// The control plane's management socket.
    pub(super) fn api_socket(&self) -> PathBuf {
        self.path.join("api.sock")
    }

    /// The supervisor's own socket.
    pub(super) fn control_socket(&self) -> PathBuf {
        control_socket(&self.path)
    }

    pub(super) fn bundle(&self) -> PathBuf {
        self.path.join("bundle.pem")
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.path.join("logs").join(format!("{name}.log"))
    }

    /// Makes the private directory of a pod, for its proxy alone, afresh.
    pub(super) fn pod(&self, name: &str, proxy_owner: Option<u32>) -> Result<PodDirectory, DataError> {
        let path = self.path.join("pods").join(name);
        fs::remove_dir_all(&path).ok();
        make_own_directory(&path, 0o700)?;
        let directory = PodDirectory { path, proxy_owner };
        directory.give(&directory.path)?;
        Ok(directory)
    }

    /// The services the last run on this directory had written to the control plane.
    pub(super) fn recorded_services(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path.join("up.services")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub(super) fn record_services<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<(), DataError> {
        let path = self.path.join("up.services");
        let text: String = names.flat_map(|name| [name, "\n"]).collect();
        fs::write(&path, text).map_err(failed(&path, "writing it"))
    }
}

impl Drop for DataDirectory {
    fn drop(&mut self) {
        fs::remove_file(self.control_socket()).ok();
        if self.temporary {
            fs::remove_dir_all(&self.path).ok();
        }
    }
}

/// The directory of one pod.
#[derive(Debug)]
pub(super) struct PodDirectory {
    path: PathBuf,
    proxy_owner: Option<u32>,
}

impl PodDirectory {
    pub(super) fn admin_socket(&self) -> PathBuf {
        self.path.join("admin.sock")
    }

    pub(super) fn token(&self) -> PathBuf {
        self.path.join("token")
    }

    pub(super) fn hosts(&self) -> PathBuf {
        self.path.join("hosts")
    }

    pub(super) fn resolver(&self) -> PathBuf {
        self.path.join("resolv.conf")
    }

    pub(super) fn state(&self) -> Result<PathBuf, DataError> {
        let path = self.path.join("state");
        make_own_directory(&path, 0o700)?;
        self.give(&path)?;
        Ok(path)
    }

    /// Writes the proxy's join token, for its eyes only.
    pub(super) fn write_token(&self, token: &str) -> Result<(), DataError> {
        let path = self.token();
        let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        open.and_then(|mut file| file.write_all(token.as_bytes())).map_err(failed(&path, "writing it"))?;
        self.give(&path)
    }

    /// Writes a file others in the pod see in place of their own. In place, as it is mounted: a new file under the
    /// same name would not be the one they see.
    pub(super) fn write_mounted(path: &Path, text: &str) -> Result<(), DataError> {
        let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(path);
        open.and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.set_len(text.len() as u64)?;
            // Whatever the umask: every user in the pod reads it.
            file.set_permissions(fs::Permissions::from_mode(0o644))
        })
        .map_err(failed(path, "writing it"))
    }

    fn give(&self, path: &Path) -> Result<(), DataError> {
        self.proxy_owner
            .map_or(Ok(()), |id| chown(path, Some(id), Some(id)).map_err(failed(path, "giving it to the proxy")))
    }
}

impl Drop for PodDirectory {
    /// A join token and a socket nobody answers are of no use when the pod is gone.
    fn drop(&mut self) {
        fs::remove_dir_all(&self.path).ok();
    }
}

/// The data directory a command means: the one given, or that of the only mesh running for this user.
pub fn locate(given: Option<&Path>) -> Result<PathBuf, DataError> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let parent = std::env::temp_dir();
    let running: Vec<PathBuf> = temporaries(&parent).filter(|path| is_locked(path)).collect();
    match &running[..] {
        [one] => Ok(one.clone()),
        [] => Err(DataError::NotRunning(parent.display().to_string())),
        several => {
            let names: Vec<String> = several.iter().map(|path| path.display().to_string()).collect();
            Err(DataError::Several(names.join(", ")))
        }
    }
}

pub(super) fn control_socket(data: &Path) -> PathBuf {
    data.join("up.sock")
}

fn make_directory(path: &Path, mode: u32) -> Result<(), DataError> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(failed(path, "making it"))
}

/// A directory with that mode, whatever the umask.
fn make_own_directory(path: &Path, mode: u32) -> Result<(), DataError> {
    make_directory(path, mode)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed(path, "setting its mode"))
}

/// Whose a directory is says its owner: in a user namespace the same user goes by another number.
const TEMPORARY_PREFIX: &str = "weft-up-";

/// Directories of temporary meshes of this user, running or not.
fn temporaries(parent: &Path) -> impl Iterator<Item = PathBuf> {
    let own = nix::unistd::Uid::effective().as_raw();
    fs::read_dir(parent).into_iter().flatten().flatten().filter_map(move |entry| {
        let named = entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY_PREFIX));
        let ours = entry.metadata().is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == own);
        (named && ours).then(|| entry.path())
    })
}

/// Removes the temporary directories of meshes that were killed. A directory without a lock file is one that is just
/// being made: the file appears under its name already locked.
fn remove_stale(parent: &Path) {
    for path in temporaries(parent) {
        if path.join(LOCK).exists() && !is_locked(&path) {
            fs::remove_dir_all(&path).ok();
        }
    }
}

fn is_locked(path: &Path) -> bool {
    File::open(path.join(LOCK)).is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
}

/// Locks a directory and writes who holds it.
fn lock(directory: &Path) -> Result<File, DataError> {
    let path = directory.join(LOCK);
    if !path.exists() {
        // Locked before it has its name; see `remove_stale`.
        let unnamed = directory.join(format!("{LOCK}.{}", std::process::id()));
        let file = File::create(&unnamed).map_err(failed(&unnamed, "making it"))?;
        file.lock().map_err(failed(&unnamed, "locking it"))?;
        write_holder(&file, &path)?;
        let linked = fs::hard_link(&unnamed, &path);
        fs::remove_file(&unnamed).ok();
        match linked {
            Ok(()) => return Ok(file),
            // Somebody else was first; see below who.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(&path, "making it")(error)),
        }
    }
    let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed(&path, "opening it"))?;
    match file.try_lock() {
        Ok(()) => {
            write_holder(&file, &path)?;
            Ok(file)
        }
        Err(fs::TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).ok();
            Err(DataError::Busy { path: directory.display().to_string(), pid: pid.trim().to_owned() })
        }
        Err(fs::TryLockError::Error(error)) => Err(failed(&path, "locking it")(error)),
    }
}

fn write_holder(mut file: &File, path: &Path) -> Result<(), DataError> {
    let text = format!("{}\n", std::process::id());
    let written = file.set_len(0).and_then(|()| file.write_all(text.as_bytes()));
    written.map_err(failed(path, "writing it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback() -> Mode {
        Mode::Loopback { reason: String::new() }
    }

    #[test]
    fn a_second_holder_is_told_who_has_the_directory() {
        let parent = tempfile::tempdir().unwrap();
        let held = DataDirectory::open(Some(parent.path()), &loopback(), 8).unwrap();
        let error = DataDirectory::open(Some(parent.path()), &loopback(), 8).unwrap_err().to_string();
        assert!(error.contains(&format!("(process {})", std::process::id())) && !error.contains('\n'), "{error}");
        drop(held);
        DataDirectory::open(Some(parent.path()), &loopback(), 8).unwrap();
    }

    #[test]
    fn what_a_crashed_run_left_is_cleared() {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir_all(parent.path().join("pods/web-1")).unwrap();
        fs::write(parent.path().join("pods/web-1/token"), "old").unwrap();
        fs::write(parent.path().join("api.sock"), "").unwrap();
        fs::write(parent.path().join(LOCK), "4194304\n").unwrap();
        let data = DataDirectory::open(Some(parent.path()), &loopback(), 8).unwrap();
        assert_eq!(fs::read_dir(parent.path().join("pods")).unwrap().count(), 0);
        assert!(!data.api_socket().exists());
        assert_eq!(fs::read_to_string(parent.path().join(LOCK)).unwrap(), format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_temporary_directory_goes_away_and_takes_stale_ones_along() {
        let parent = tempfile::tempdir().unwrap();
        let stale = parent.path().join(format!("{TEMPORARY_PREFIX}dead"));
        let young = parent.path().join(format!("{TEMPORARY_PREFIX}young"));
        fs::create_dir(&stale).unwrap();
        fs::write(stale.join(LOCK), "4194304\n").unwrap();
        fs::create_dir(&young).unwrap();
        let first = DataDirectory::temporary(parent.path()).unwrap();
        let second = DataDirectory::temporary(parent.path()).unwrap();
        assert!(!stale.exists() && young.exists() && first.path().exists() && second.path().exists());
        let path = first.path().to_owned();
        drop(first);
        assert!(!path.exists() && second.path().exists());
    }

    #[test]
    fn a_mounted_file_is_rewritten_in_place() {
        let parent = tempfile::tempdir().unwrap();
        let data = DataDirectory::open(Some(parent.path()), &loopback(), 8).unwrap();
        let pod = data.pod("web-1", None).unwrap();
        PodDirectory::write_mounted(&pod.hosts(), "a long first version\n").unwrap();
        let before = pod.hosts().metadata().unwrap().ino();
        PodDirectory::write_mounted(&pod.hosts(), "short\n").unwrap();
        assert_eq!(fs::read_to_string(pod.hosts()).unwrap(), "short\n");
        assert_eq!(pod.hosts().metadata().unwrap().ino(), before);
    }
}
