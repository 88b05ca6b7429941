//! What programs print: to a file each, and with their name before every line to the terminal.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;

/// Longest piece printed as one line; a longer line comes in pieces.
const MAX_LINE: usize = 16 << 10;
/// A log file that grows past this becomes `NAME.log.1`, in place of the one before.
const MAX_FILE: u64 = 16 << 20;

/// Makes a pipe for a program's output: our end and the program's.
pub(super) fn output_pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    Ok((pipe::Receiver::from_owned_fd(reader.into())?, writer.into()))
}

/// Copies lines until every writer is gone.
pub(super) async fn pump(output: pipe::Receiver, name: String, path: PathBuf, quiet: bool) {
    let mut reader = BufReader::with_capacity(MAX_LINE, output);
    let mut file = LogFile::open(path);
    let mut line = Vec::new();
    loop {
        let chunk = match reader.fill_buf().await {
            Ok([]) | Err(_) => break,
            Ok(chunk) => chunk,
        };
        let (taken, complete) = match chunk.iter().position(|&byte| byte == b'\n') {
            Some(end) => (end + 1, true),
            None => (chunk.len(), false),
        };
        line.extend_from_slice(&chunk[..taken]);
        reader.consume(taken);
        if complete || line.len() >= MAX_LINE {
            emit(&mut file, &name, &mut line, quiet);
        }
    }
    if !line.is_empty() {
        emit(&mut file, &name, &mut line, quiet);
    }
}

fn emit(file: &mut LogFile, name: &str, line: &mut Vec<u8>, quiet: bool) {
    if line.last() != Some(&b'\n') {
        line.push(b'\n');
    }
    file.write(line);
    if !quiet {
        let mut whole = format!("{name} | ").into_bytes();
        whole.append(line);
        // A closed terminal must not end the mesh.
        io::stdout().lock().write_all(&whole).ok();
    }
    line.clear();
}

/// A word of our own to who looks at the terminal. A closed one must not end the mesh, as `eprintln` would.
pub(super) fn tell(text: &str) {
    writeln!(io::stderr(), "weft: {text}").ok();
}

/// The last line in a log, for a message that says why something died.
pub(super) fn last_line(path: &Path) -> Option<String> {
    let text = std::fs::read(path).ok()?;
    let tail = String::from_utf8_lossy(&text[text.len().saturating_sub(MAX_LINE)..]).into_owned();
    tail.lines().rfind(|line| !line.trim().is_empty()).map(|line| line.trim().to_owned())
}

/// A log that is kept short. A disk that is full loses log lines, nothing else.
struct LogFile {
    path: PathBuf,
    file: Option<File>,
    length: u64,
}

impl LogFile {
    fn open(path: PathBuf) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(&path).ok();
        let length = file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |metadata| metadata.len());
        Self { path, file, length }
    }

    fn write(&mut self, line: &[u8]) {
        if self.length > MAX_FILE {
            let old = self.path.with_extension("log.1");
            std::fs::rename(&self.path, old).ok();
            *self = Self::open(std::mem::take(&mut self.path));
        }
        if let Some(file) = &mut self.file {
            file.write_all(line).ok();
            self.length += line.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_reach_the_file_and_a_line_without_end_does_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web-1.log");
        let (reader, writer) = output_pipe().unwrap();
        let mut writer = File::from(writer);
        let long = "x".repeat(3 * MAX_LINE);
        let task = tokio::spawn(pump(reader, "web-1".to_owned(), path.clone(), true));
        let text = format!("one\n{long}\nlast");
        tokio::task::spawn_blocking(move || writer.write_all(text.as_bytes()).unwrap()).await.unwrap();
        task.await.unwrap();
        let written = std::fs::read_to_string(&path).unwrap();
        assert!(written.starts_with("one\nxxx") && written.ends_with("\nlast\n"));
        assert_eq!(written.matches('x').count(), long.len());
        assert_eq!(last_line(&path).as_deref(), Some("last"));
    }

    #[test]
    fn a_log_is_turned_over_when_it_is_long() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web-1.log");
        let mut log = LogFile::open(path.clone());
        log.length = MAX_FILE + 1;
        log.write(b"new\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
        assert!(directory.path().join("web-1.log.1").exists());
    }
}
