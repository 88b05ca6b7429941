//! Files that must be whole and, some of them, private.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::CaError;

/// Only for the owner.
pub(super) const PRIVATE: u32 = 0o600;
/// For everybody to read.
pub(super) const PUBLIC: u32 = 0o644;

/// Makes a directory only its owner can enter; an existing one must not be writable by others, who could otherwise
/// replace what is in it.
pub(super) fn private_directory(path: &Path) -> Result<(), CaError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let mode = fs::metadata(path).map_err(failed("look at", path))?.mode() & 0o7777;
            if mode & 0o022 == 0 { Ok(()) } else { Err(CaError::Exposed { path: path.into(), mode }) }
        }
        Err(error) => Err(failed("create directory", path)(error)),
    }
}

/// Reads a file that only its owner may read; `None` when there is none.
pub(super) fn read_private(path: &Path) -> Result<Option<String>, CaError> {
    let Some(mut file) = existing(path)? else { return Ok(None) };
    // Of the open file, so that it cannot be exchanged between the look and the read.
    let mode = file.metadata().map_err(failed("look at", path))?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(CaError::Exposed { path: path.into(), mode });
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed("read", path))?;
    Ok(Some(text))
}

/// Reads a file anybody may read; `None` when there is none.
pub(super) fn read_public(path: &Path) -> Result<Option<String>, CaError> {
    let Some(mut file) = existing(path)? else { return Ok(None) };
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed("read", path))?;
    Ok(Some(text))
}

fn existing(path: &Path) -> Result<Option<File>, CaError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("open", path)(error)),
    }
}

/// Writes a file so that after a crash there is the old one or the new one, with `mode` from its first moment.
pub(super) fn write(path: &Path, text: &str, mode: u32) -> Result<(), CaError> {
    let draft = draft_of(path);
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed("remove", &draft)(error)),
        _ => {}
    }
    // `create_new` does not follow a link somebody laid there.
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft).map_err(failed("create", &draft))?;
    // The umask may have taken away what others shall read; it never adds.
    file.set_permissions(Permissions::from_mode(mode)).map_err(failed("set the mode of", &draft))?;
    file.write_all(text.as_bytes()).map_err(failed("write", &draft))?;
    file.sync_all().map_err(failed("write", &draft))?;
    fs::rename(&draft, path).map_err(failed("put in place", path))?;
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("write", directory))
}

fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CaError {
    let path = path.to_owned();
    move |source| CaError::File { action, path, source }
}
