//! Documents named on the command line: files, directories, standard input.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::failure::Failure;
use crate::document::Source;
use crate::watch::files;

/// Reads all sources; `-` is standard input, a directory is all documents below it.
pub(super) fn read_all(paths: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| Failure::new(format!("cannot read standard input: {error}; give it YAML text")))?;
            sources.push(Source { name: "<stdin>".to_owned(), text });
        } else if path.is_dir() {
            sources.extend(directory(path)?);
        } else {
            let text = files::text(path).map_err(|error| unreadable(path, &error.to_string()))?;
            sources.push(Source { name: path.display().to_string(), text });
        }
    }
    Ok(sources)
}

fn directory(path: &Path) -> Result<Vec<Source>, Failure> {
    let found = files::scan(path).map_err(|error| unreadable(path, &error.to_string()))?;
    if found.is_empty() {
        let what = format!("{} holds no *.yaml, *.yml or *.json file; name the directory that does", path.display());
        return Err(Failure::new(what));
    }
    found
        .into_iter()
        .map(|(path, text)| {
            let name = path.display().to_string();
            text.map(|text| Source { name, text }).map_err(|error| unreadable(&path, &error))
        })
        .collect()
}

fn unreadable(path: &Path, error: &str) -> Failure {
    Failure::new(format!(
        "cannot read {}: {error}; name a file, a directory, or `-` for standard input",
        path.display()
    ))
}

/// Who changes something from here, for the log of revisions.
pub(super) fn author() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name);
    format!("cli:{}", user.unwrap_or_else(|| nix::unistd::getuid().to_string()))
}
