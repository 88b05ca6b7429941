//! The files of documents below a directory.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Larger files are not documents.
const MAX_BYTES: u64 = 16 << 20;
/// Deeper directories are not looked into.
const MAX_DEPTH: usize = 8;

/// All files named `*.yaml`, `*.yml` or `*.json` with their text, or why it cannot be had. Hidden files, which editors
/// leave about, are passed over; links to files are followed, links to directories are not.
pub fn scan(directory: &Path) -> io::Result<BTreeMap<PathBuf, Result<String, String>>> {
    let mut found = BTreeMap::new();
    descend(directory, 0, &mut found)?;
    Ok(found)
}

fn descend(directory: &Path, depth: usize, found: &mut BTreeMap<PathBuf, Result<String, String>>) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type()?.is_dir() {
            if depth < MAX_DEPTH {
                match descend(&path, depth + 1, found) {
                    // Gone since it was listed.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    other => other?,
                }
            }
        } else if is_document(&path) {
            match text(&path) {
                // Gone since it was listed, or a link to nothing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => drop(found.insert(path, Err(format!("cannot be read: {error}")))),
                Ok(text) => drop(found.insert(path, Ok(text))),
            }
        }
    }
    Ok(())
}

/// Whether a file is read by its name.
fn is_document(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    matches!(extension, "yaml" | "yml" | "json")
}

/// The text of a file of reasonable size.
pub fn text(path: &Path) -> io::Result<String> {
    let metadata = std::fs::metadata(path)?;
    if metadata.len() > MAX_BYTES {
        return Err(io::Error::other(format!("larger than {} MiB", MAX_BYTES >> 20)));
    }
    std::fs::read_to_string(path)
}
