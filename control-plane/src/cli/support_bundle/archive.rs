//! The file: a tar of texts in gzip, with an index of what is in it and of what could not be had.
//!
//! Everything goes through [`redact`](super::redact) on its way in. The file is its owner's alone.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde_json::{Value, json};
use tar::{Builder, Header};

use super::redact;

/// What could not be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Missing {
    pub(super) part: String,
    pub(super) reason: String,
}

/// What was or was not had: a name within the bundle, and its text or the reason.
pub(super) type Part = (String, Result<Content, String>);

/// A part's content.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    Text(String),
    Object(Value),
}

/// A bundle while it is made.
pub(super) struct Archive<W: Write> {
    tar: Builder<GzEncoder<W>>,
    /// Directory that everything is in.
    root: String,
    /// Seconds since the Unix epoch.
    at: u64,
    pub(super) parts: Vec<String>,
    pub(super) missing: Vec<Missing>,
}

impl Archive<File> {
    /// Makes the file; one that exists stays as it is.
    pub(super) fn create(path: &Path, root: &str, at: u64) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self::new(file, root, at))
    }
}

impl<W: Write> Archive<W> {
    pub(super) fn new(to: W, root: &str, at: u64) -> Self {
        let tar = Builder::new(GzEncoder::new(to, Compression::default()));
        Self { tar, root: root.to_owned(), at, parts: Vec::new(), missing: Vec::new() }
    }

    /// Puts a part in, or notes that it is missing.
    pub(super) fn part(&mut self, (name, content): Part) -> io::Result<()> {
        let text = match content {
            Ok(Content::Text(text)) => redact::text(&text),
            Ok(Content::Object(value)) => pretty(&redact::object(value)),
            Err(reason) => {
                self.missing.push(Missing { part: name, reason: redact::text(&reason) });
                return Ok(());
            }
        };
        self.append(&name, &text)?;
        self.parts.push(name);
        Ok(())
    }

    /// Puts the index in, and ends the file.
    pub(super) fn finish(mut self, facts: &Value) -> io::Result<W> {
        let index = json!({ "about": facts, "parts": self.parts, "missing": self.missing });
        self.append("index.json", &pretty(&index))?;
        let mut to = self.tar.into_inner()?.finish()?;
        to.flush()?;
        Ok(to)
    }

    fn append(&mut self, name: &str, text: &str) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.at);
        self.tar.append_data(&mut header, format!("{}/{name}", self.root), text.as_bytes())
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_goes_in_comes_out_redacted_with_an_index_of_what_is_missing() {
        let mut archive = Archive::new(Vec::new(), "weft", 5);
        archive.part(("a.txt".into(), Ok(Content::Text("Bearer abcdefghij".into())))).unwrap();
        archive.part(("b/c.json".into(), Ok(Content::Object(json!({"token": "x", "y": 1}))))).unwrap();
        archive.part(("d.txt".into(), Err("you may not".into()))).unwrap();
        let bytes = archive.finish(&json!({"program": "1"})).unwrap();
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(&bytes[..]));
        let mut found = Vec::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            found.push((entry.path().unwrap().display().to_string(), text));
        }
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["weft/a.txt", "weft/b/c.json", "weft/index.json"]);
        assert_eq!(found[0].1, "Bearer (redacted)");
        assert_eq!(serde_json::from_str::<Value>(&found[1].1).unwrap(), json!({"token": "(redacted)", "y": 1}));
        let index: Value = serde_json::from_str(&found[2].1).unwrap();
        assert_eq!(index["missing"], json!([{"part": "d.txt", "reason": "you may not"}]));
        assert_eq!(index["parts"], json!(["a.txt", "b/c.json"]));
    }

    #[test]
    fn a_file_that_exists_is_not_overwritten() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("b.tar.gz");
        Archive::create(&path, "r", 0).unwrap().finish(&Value::Null).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let refusal = Archive::create(&path, "r", 0).map(|_| ()).unwrap_err();
        assert_eq!(refusal.kind(), io::ErrorKind::AlreadyExists);
    }
}
