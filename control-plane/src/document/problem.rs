//! What is wrong with a document, and where.

use std::fmt;
use std::sync::Arc;

use super::Key;

/// Line and column of a character, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// Where something was read: `SOURCE`, or `SOURCE:LINE:COLUMN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub source: Arc<str>,
    pub position: Option<Position>,
}

/// One thing that is wrong: `PLACE: DOCUMENT: FIELD: WHAT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    /// Kind and name as far as they could be read; empty when nothing could.
    pub document: String,
    /// `spec.ports[0].port`; empty when the whole document is meant.
    pub field: String,
    /// What was found, and what is allowed or to be done. One line.
    pub what: String,
}

/// Everything that is wrong with a batch. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        match self.position {
            Some(Position { line, column }) => write!(f, ":{line}:{column}"),
            None => Ok(()),
        }
    }
}

impl Problem {
    /// A problem of a document that could be read.
    pub fn of(key: &Key, place: Place, field: &str, what: String) -> Self {
        Self { place, document: key.to_string(), field: field.to_owned(), what }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.document.is_empty() {
            write!(f, "{}: ", self.document)?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.what)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// The sentence for a word outside a closed set.
pub(super) fn not_one_of(what: &str, found: &str, allowed: &[&str]) -> String {
    let list = allowed.join(", ");
    match nearest(found, allowed) {
        Some(near) => format!("unknown {what} `{}`; did you mean `{near}`? (allowed: {list})", shortened(found)),
        None => format!("unknown {what} `{}`; allowed: {list}", shortened(found)),
    }
}

/// The allowed word a person most likely meant, if one is near.
fn nearest<'a>(found: &str, allowed: &[&'a str]) -> Option<&'a str> {
    // Longer words than any of ours are not typing errors, and comparing them costs their length squared.
    if found.len() > 64 {
        return None;
    }
    let lower = found.to_lowercase();
    allowed
        .iter()
        .map(|word| (strsim::damerau_levenshtein(&lower, &word.to_lowercase()), *word))
        .filter(|(distance, word)| *distance <= (word.len().max(lower.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// A found value as it is repeated in a message: on one line, not without end.
pub(super) fn shortened(text: &str) -> String {
    const LIMIT: usize = 60;
    let mut out: String = text.chars().take(LIMIT).flat_map(char::escape_debug).collect();
    if text.chars().nth(LIMIT).is_some() {
        out.push_str("...");
    }
    out
}
