//! How results are written: aligned tables for people, JSON and YAML for programs.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use serde_json::Value;

/// The forms a result can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Table,
    Json,
    Yaml,
}

/// How a cell or message stands out on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Plain,
    Heading,
    Good,
    Warning,
    Bad,
}

/// The program's standard streams.
#[derive(Debug)]
pub struct Output {
    pub format: Format,
    colour_out: bool,
    colour_err: bool,
}

/// One cell of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, Style::Plain)
    }
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Heading => "\x1b[1m",
            Self::Good => "\x1b[32m",
            Self::Warning => "\x1b[33m",
            Self::Bad => "\x1b[31m",
        }
    }
}

impl Output {
    pub fn new(format: Format) -> Self {
        let allowed = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self {
            format,
            colour_out: allowed && io::stdout().is_terminal(),
            colour_err: allowed && io::stderr().is_terminal(),
        }
    }

    /// Writes text and a line's end.
    pub fn line(&self, text: impl AsRef<str>) -> io::Result<()> {
        writeln!(io::stdout().lock(), "{}", text.as_ref())
    }

    /// Writes rows below their headings, each column as wide as its widest cell.
    pub fn table(&self, headings: &[&str], rows: &[Vec<Cell>]) -> io::Result<()> {
        io::stdout().lock().write_all(table(headings, rows, self.colour_out).as_bytes())
    }

    /// The same as text.
    pub fn table_text(&self, headings: &[&str], rows: &[Vec<Cell>]) -> String {
        table(headings, rows, self.colour_out)
    }

    /// Writes documents for programs: a JSON list, or a stream of YAML documents.
    pub fn values(&self, values: &[Value]) -> io::Result<()> {
        if self.format == Format::Yaml {
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    self.line("---")?;
                }
                self.value(value)?;
            }
            return Ok(());
        }
        self.value(&Value::Array(values.to_vec()))
    }

    /// Writes one value for programs.
    pub fn value(&self, value: &Value) -> io::Result<()> {
        let text = if self.format == Format::Yaml {
            serde_yaml_ng::to_string(value).map_err(io::Error::other)?
        } else {
            serde_json::to_string_pretty(value).map_err(io::Error::other)? + "\n"
        };
        io::stdout().lock().write_all(text.as_bytes())
    }

    /// Remarks that are no part of the result.
    pub fn note(&self, text: &str) {
        self.remark("note", Style::Heading, text);
    }

    pub fn warning(&self, text: &str) {
        self.remark("warning", Style::Warning, text);
    }

    pub fn error(&self, text: &str) {
        self.remark("error", Style::Bad, text);
    }

    fn remark(&self, word: &str, style: Style, text: &str) {
        let mut stderr = io::stderr().lock();
        for line in text.lines() {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(stderr, "{} {line}", painted(&format!("{word}:"), style, self.colour_err));
        }
    }
}

/// Words of others, a proxy's above all, without what would move a terminal.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect::<String>().into()
    } else {
        text.into()
    }
}

fn painted(text: &str, style: Style, colour: bool) -> String {
    if colour && style != Style::Plain { format!("{}{text}\x1b[0m", style.code()) } else { text.to_owned() }
}

fn table(headings: &[&str], rows: &[Vec<Cell>], colour: bool) -> String {
    let heading = headings.iter().map(|text| Cell::styled(*text, Style::Heading)).collect();
    let rows: Vec<&Vec<Cell>> = std::iter::once(&heading).chain(rows).collect();
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count()).max();
    let widths: Vec<usize> = (0..headings.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            out.push_str(&painted(&printable(&cell.text), cell.style, colour));
            if column + 1 < row.len() {
                let gap = widths.get(column).copied().unwrap_or(0) - cell.text.chars().count() + 3;
                out.extend(std::iter::repeat_n(' ', gap));
            }
        }
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    }
    out
}

/// How long ago something was: `7s`, `3m`, `5h`, `9d`.
pub fn age(then: i64, now: i64) -> String {
    match (now - then).max(0) {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// A point in time as people and programs read it: RFC 3339.
pub fn timestamp(seconds: i64) -> String {
    time::OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_else(|| seconds.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_whatever_the_colour() {
        let rows = vec![
            vec!["a".into(), Cell::styled("ready", Style::Good), "x".into()],
            vec!["long-name".into(), "ok".into(), "".into()],
        ];
        let plain = "NAME        STATE   Z\na           ready   x\nlong-name   ok\n";
        assert_eq!(table(&["NAME", "STATE", "Z"], &rows, false), plain);
        let coloured = table(&["NAME", "STATE", "Z"], &rows, true);
        assert!(coloured.contains("\x1b[32mready\x1b[0m   x\n"), "{coloured:?}");
        let mut stripped = coloured;
        for code in ["\x1b[0m", "\x1b[1m", "\x1b[32m"] {
            stripped = stripped.replace(code, "");
        }
        assert_eq!(stripped, plain);
    }

    #[test]
    fn words_of_others_cannot_move_a_terminal() {
        let rows = [vec![Cell::styled("a\u{1b}[2Jb\nc", Style::Plain)]];
        assert_eq!(table(&["NAME"], &rows, false), "NAME\na [2Jb c\n");
    }

    #[test]
    fn ages_are_short() {
        for (seconds, expected) in
            [(-5, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (7_199, "119m"), (7_200, "2h"), (172_800, "2d")]
        {
            assert_eq!(age(1_000_000 - seconds, 1_000_000), expected);
        }
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
    }
}
