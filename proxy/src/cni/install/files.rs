//! Files in the node's directories: whole or not at all, whoever reads meanwhile.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cni::conflist::{self, Configured, Mending, Removal, SET_ASIDE};

/// Names of files that are not whole yet begin so: nobody looks at them.
const UNFINISHED: &str = ".weft-cni-";

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct FileError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { action, path, source }
}

/// A directory of the node.
#[derive(Debug)]
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Puts this program there.
    pub(super) fn copy_program(&self, name: &str, rights: u32) -> Result<(), FileError> {
        let program = Path::new("/proc/self/exe");
        let mut source = File::open(program).map_err(failed("read", program))?;
        self.put(name, rights, |file| io::copy(&mut source, file).map(drop))
    }

    /// Whether this program is there.
    pub(super) fn has_program(&self, name: &str) -> bool {
        let length = |path: &Path| fs::metadata(path).map(|facts| facts.len()).ok();
        length(&self.0.join(name)) == length(Path::new("/proc/self/exe"))
    }

    /// Puts this program there again where it is missing, or another one.
    pub(super) fn keep_program(&self, name: &str, rights: u32) -> Result<(), FileError> {
        if self.has_program(name) { Ok(()) } else { self.copy_program(name, rights) }
    }

    /// Makes a file say this, if it does not.
    pub(super) fn keep(&self, name: &str, text: &str, rights: u32) -> Result<(), FileError> {
        let path = self.0.join(name);
        match fs::read(&path) {
            Ok(found) if found == text.as_bytes() => Ok(()),
            Ok(_) => self.write(name, text, rights),
            Err(error) if error.kind() == ErrorKind::NotFound => self.write(name, text, rights),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    pub(super) fn delete(&self, name: &str) -> Result<(), FileError> {
        let path = self.0.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("delete", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Puts our entry into the network configuration that counts; gives its file, or nothing where there is none.
    pub(super) fn mend(&self, entry: &Value) -> Result<Option<PathBuf>, FileError> {
        let name = match conflist::mending(&self.configurations(conflist::is_looked_at)?, entry) {
            Mending::Nothing => return Ok(None),
            Mending::Done(name) => name,
            Mending::Write { file, keep } => {
                if let Some(kept) = keep {
                    self.write(&kept.name, &kept.text, self.rights(&file.name))?;
                }
                self.rewrite(&file)?;
                file.name
            }
            Mending::Replace { list, aside } => {
                self.rewrite(&list)?;
                // From this moment the list is the first that a runtime finds.
                self.rename(&aside, &format!("{aside}{SET_ASIDE}"))?;
                list.name
            }
        };
        Ok(Some(self.0.join(name)))
    }

    /// The file with our entry in it, if that is as it must be.
    pub(super) fn entered(&self, entry: &Value) -> Result<Option<PathBuf>, FileError> {
        Ok(match conflist::mending(&self.configurations(conflist::is_looked_at)?, entry) {
            Mending::Done(name) => Some(self.0.join(name)),
            _ => None,
        })
    }

    /// Takes our entry out of every network configuration.
    pub(super) fn take_out(&self) -> Result<(), FileError> {
        let all = self.configurations(|name| conflist::is_looked_at(name) || name.ends_with(SET_ASIDE))?;
        for removal in conflist::removals(&all) {
            match removal {
                Removal::Write(file) => self.rewrite(&file)?,
                Removal::PutBack { list, aside } => {
                    self.rename(&format!("{aside}{SET_ASIDE}"), &aside)?;
                    self.delete(&list)?;
                }
            }
        }
        for kept in all.iter().filter(|file| conflist::is_kept(&file.name)) {
            self.delete(&kept.name)?;
        }
        Ok(())
    }

    fn configurations(&self, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<Configured>, FileError> {
        let mut files = Vec::new();
        for found in fs::read_dir(&self.0).map_err(failed("list", &self.0))? {
            let found = found.map_err(failed("list", &self.0))?;
            let Ok(name) = found.file_name().into_string() else { continue };
            if !is_wanted(&name) {
                continue;
            }
            match fs::read(found.path()) {
                // What is no text is no configuration.
                Ok(bytes) => files.extend(String::from_utf8(bytes).ok().map(|text| Configured { name, text })),
                // Gone meanwhile, or a directory.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory) => {}
                Err(error) => return Err(failed("read", &found.path())(error)),
            }
        }
        Ok(files)
    }

    /// Keeps the rights that the file has.
    fn rewrite(&self, file: &Configured) -> Result<(), FileError> {
        self.write(&file.name, &file.text, self.rights(&file.name))
    }

    fn rights(&self, name: &str) -> u32 {
        fs::metadata(self.0.join(name)).map_or(super::RIGHTS_PUBLIC, |facts| facts.permissions().mode()) & 0o777
    }

    fn write(&self, name: &str, text: &str, rights: u32) -> Result<(), FileError> {
        self.put(name, rights, |file| file.write_all(text.as_bytes()))
    }

    /// Writes a file beside its place, and moves it there when it is whole and on the disk.
    fn put(&self, name: &str, rights: u32, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), FileError> {
        let (path, unfinished) = (self.0.join(name), self.0.join(format!("{UNFINISHED}{}", std::process::id())));
        let written = || -> io::Result<()> {
            let mut file = File::create(&unfinished)?;
            file.set_permissions(Permissions::from_mode(rights))?;
            write(&mut file)?;
            file.sync_all()?;
            drop(file);
            fs::rename(&unfinished, &path)
        };
        written().map_err(|error| {
            // What is left would stand there for ever under its own name.
            let _ = fs::remove_file(&unfinished);
            failed("write", &path)(error)
        })
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), FileError> {
        let path = self.0.join(from);
        fs::rename(&path, self.0.join(to)).map_err(failed("rename", &path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_configuration_is_mended_as_often_as_somebody_breaks_it_and_taken_out_whole() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::new(place.path().to_owned());
        let (entry, path) = (conflist::entry(&[]), place.path().join("10-a.conflist"));
        assert_eq!(directory.mend(&entry).unwrap(), None);
        let before = json!({"name": "a", "plugins": [{"type": "bridge"}]}).to_string();
        for _ in 0..2 {
            fs::write(&path, &before).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            for _ in 0..2 {
                assert_eq!(directory.mend(&entry).unwrap(), Some(path.clone()));
                assert!(fs::read_to_string(&path).unwrap().contains("weft-cni"));
            }
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        directory.take_out().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
        let names: Vec<_> = fs::read_dir(place.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(names, ["10-a.conflist"], "nothing else is left");
    }

    #[test]
    fn a_single_plugin_gives_way_to_a_list_and_comes_back() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::new(place.path().to_owned());
        let single = place.path().join("10-a.conf");
        fs::write(&single, r#"{"name": "a", "type": "bridge"}"#).unwrap();
        let list = directory.mend(&conflist::entry(&[])).unwrap().unwrap();
        assert_eq!(list, place.path().join("10-a.conflist"));
        assert!(!single.exists());
        directory.take_out().unwrap();
        assert!(single.exists() && !list.exists());
    }

    #[test]
    fn files_are_written_when_they_differ() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::new(place.path().to_owned());
        let path = place.path().join("token");
        for text in ["one", "two"] {
            directory.keep("token", text, 0o600).unwrap();
            let written = fs::metadata(&path).unwrap();
            assert_eq!(written.permissions().mode() & 0o777, 0o600);
            directory.keep("token", text, 0o600).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written.modified().unwrap());
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        directory.delete("token").unwrap();
        directory.delete("token").unwrap();
        assert!(!path.exists());
    }
}
