//! Programs of the proxy that running proxies can be given, one for each architecture, and who is given one when.
//!
//! A program is a file that was built with this control plane: its version is the control plane's own. (Running it to ask
//! would be running it, and one of another architecture cannot be run.) What it is for stands in its ELF header, and what
//! it is called everywhere is its SHA-256. The file is opened once: one that is replaced on disk is no news, and one that
//! is written to is found out by the proxy, which checks what it got before it runs it.
//!
//! | module | does |
//! |---|---|
//! | [`elf`] | what machine a program is for |
//! | [`download`] | the bytes on their way: in pieces, few at once, none for ever |
//! | [`rollout`] | who is asked to replace its program, and what ends that: pure |
//! | [`keeper`] | carries the rollout out |
//! | [`standing`] | what people are told of it |

pub mod download;
mod elf;
pub mod keeper;
pub mod rollout;
pub mod standing;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use weft_proto::names::LARGEST_PROGRAM_BYTES;

use elf::ElfError;

/// File name of the proxy's program, looked for beside our own.
const FILE_NAME: &str = "weft-proxy";
/// Read at once: a program is never whole in memory.
pub const PIECE_BYTES: usize = 64 << 10;

/// A program and where its bytes are.
#[derive(Debug)]
pub struct Program {
    pub facts: Facts,
    path: PathBuf,
    file: File,
}

/// What is known of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// As proxies name theirs: `x86_64`, `aarch64`.
    pub architecture: &'static str,
    pub version: String,
    /// SHA-256, in lower-case hexadecimal digits.
    pub digest: String,
    /// In bytes.
    pub size: u64,
}

/// All programs there are; cloning gives another handle.
#[derive(Debug, Clone, Default)]
pub struct Programs(Arc<Vec<Arc<Program>>>);

/// Why a file is no program that can be given away.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error("cannot read the proxy program {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is no proxy program: {source}; name the weft-proxy of this version with --proxy-program", .path.display())]
    Elf { path: PathBuf, source: ElfError },
    #[error(
        "the proxy program {} has {size} bytes, and proxies take at most {LARGEST_PROGRAM_BYTES}; take one without debug information",
        .path.display()
    )]
    TooLarge { path: PathBuf, size: u64 },
    #[error(
        "{} and {} are both for {architecture}; name one program for each architecture",
        .one.display(), .other.display()
    )]
    Twice { architecture: &'static str, one: PathBuf, other: PathBuf },
}

impl Programs {
    /// Opens each of these files and reads it once. Takes its time.
    ///
    /// # Errors
    /// For the first file that cannot be given away.
    pub fn open(paths: &[PathBuf]) -> Result<Self, ProgramError> {
        let mut all: Vec<Arc<Program>> = Vec::new();
        for path in paths {
            let program = Program::open(path)?;
            let architecture = program.facts.architecture;
            if let Some(one) = all.iter().find(|known| known.facts.architecture == architecture) {
                return Err(ProgramError::Twice { architecture, one: one.path.clone(), other: path.clone() });
            }
            all.push(Arc::new(program));
        }
        Ok(Self(Arc::new(all)))
    }

    /// The one for an architecture.
    pub fn for_architecture(&self, architecture: &str) -> Option<&Facts> {
        self.facts().find(|facts| facts.architecture == architecture)
    }

    pub fn facts(&self) -> impl Iterator<Item = &Facts> {
        self.0.iter().map(|program| &program.facts)
    }

    fn of_digest(&self, digest: &str) -> Option<Arc<Program>> {
        self.0.iter().find(|program| program.facts.digest == digest).cloned()
    }
}

/// The programs of a control plane that was told these, or else the one beside it, if there is one.
///
/// # Errors
/// When a program that was named cannot be given away. One that merely lies beside is then left alone, with a word in the log.
pub fn programs(named: &[PathBuf]) -> Result<Programs, ProgramError> {
    if !named.is_empty() {
        return Programs::open(named);
    }
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(FILE_NAME)).filter(|path| path.exists());
    let Some(path) = beside else { return Ok(Programs::default()) };
    Ok(Programs::open(&[path]).unwrap_or_else(|error| {
        tracing::info!(%error, "running proxies cannot be given another program");
        Programs::default()
    }))
}

impl Program {
    fn open(path: &Path) -> Result<Self, ProgramError> {
        let failed = |source| ProgramError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut head = [0; elf::HEAD_BYTES];
        let found = head.len().min(usize::try_from(size).unwrap_or(usize::MAX));
        file.read_exact_at(&mut head[..found], 0).map_err(failed)?;
        let architecture =
            elf::architecture(&head[..found]).map_err(|source| ProgramError::Elf { path: path.to_owned(), source })?;
        if size > LARGEST_PROGRAM_BYTES {
            return Err(ProgramError::TooLarge { path: path.to_owned(), size });
        }
        let digest = digest(&file, size).map_err(failed)?;
        let facts = Facts { architecture, version: env!("CARGO_PKG_VERSION").to_owned(), digest, size };
        Ok(Self { facts, path: path.to_owned(), file })
    }

    /// The piece at `offset`; empty at the end.
    fn piece(&self, offset: u64) -> io::Result<Vec<u8>> {
        piece(&self.file, offset, self.facts.size)
    }
}

/// A file that got shorter since it was measured is an error, one that grew is read as far as it was measured.
fn piece(file: &File, offset: u64, size: u64) -> io::Result<Vec<u8>> {
    let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; left.min(PIECE_BYTES)];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

fn digest(file: &File, size: u64) -> io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut offset = 0;
    while offset < size {
        let bytes = piece(file, offset, size)?;
        context.update(&bytes);
        offset += bytes.len() as u64;
    }
    Ok(weft_proto::names::hexadecimal(context.finish().as_ref()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A file that says it is a program for this machine, with these bytes after that.
    pub(crate) fn file(directory: &Path, name: &str, machine: u16, rest: &[u8]) -> PathBuf {
        let path = directory.join(name);
        let mut bytes = elf::tests::header(machine);
        bytes.extend(rest);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn a_program_is_known_by_its_digest_its_size_and_its_architecture() {
        let directory = tempfile::tempdir().unwrap();
        let rest = vec![7; PIECE_BYTES * 2 + 1];
        let path = file(directory.path(), "one", 62, &rest);
        let programs = Programs::open(&[path.clone(), file(directory.path(), "other", 183, b"")]).unwrap();
        let facts = programs.for_architecture("x86_64").unwrap();
        let whole = std::fs::read(&path).unwrap();
        let expected = weft_proto::names::hexadecimal(aws_lc_rs::digest::digest(&SHA256, &whole).as_ref());
        assert_eq!((facts.digest.as_str(), facts.size), (expected.as_str(), whole.len() as u64));
        assert_eq!(facts.version, env!("CARGO_PKG_VERSION"));
        assert!(programs.for_architecture("aarch64").is_some() && programs.for_architecture("riscv64").is_none());
    }

    #[test]
    fn a_file_that_cannot_be_given_away_is_told_of_with_its_name_and_a_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let text = directory.path().join("text");
        std::fs::write(&text, "#!/bin/sh\n").unwrap();
        let large = file(directory.path(), "large", 62, b"");
        File::options().write(true).open(&large).unwrap().set_len(LARGEST_PROGRAM_BYTES + 1).unwrap();
        let twice = [file(directory.path(), "one", 62, b"1"), file(directory.path(), "two", 62, b"2")];
        let cases: [(&[PathBuf], &str); 5] = [
            (&[directory.path().join("absent")], "absent: No such file"),
            (&[text], "text is no proxy program: it is no ELF file"),
            (&[file(directory.path(), "other", 8, b"")], "for a machine that proxies are not built for (8)"),
            (&[large], "take one without debug information"),
            (&twice, "are both for x86_64; name one program for each architecture"),
        ];
        for (paths, expected) in cases {
            let error = Programs::open(paths).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_replaced_is_still_the_one_that_was_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), "one", 62, b"first");
        let programs = Programs::open(std::slice::from_ref(&path)).unwrap();
        let before = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file(directory.path(), "one", 62, b"second");
        let program = programs.of_digest(&programs.for_architecture("x86_64").unwrap().digest).unwrap();
        assert_eq!(program.piece(0).unwrap(), before);
        assert_eq!(program.piece(before.len() as u64).unwrap(), b"");
    }
}
