//! Golden signals as text: a table that fits its width, or single lines.
//!
//! When the terminal is narrow, the least telling columns go first; then names are cut.

use std::fmt::Write as _;

use super::edges::{Edge, Mtls, Replica, shares, short};

pub use super::edges::{edges, replicas};
pub use super::scrape::{Scrape, parse, scrape};

/// Between columns.
const GAP: usize = 2;
/// Names are not cut below this.
const SHORTEST_NAME: usize = 6;
const BAR: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Paint {
    Plain,
    Heading,
    Good,
    Warning,
    Bad,
}

impl Paint {
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Heading => Some("1"),
            Self::Good => Some("32"),
            Self::Warning => Some("33"),
            Self::Bad => Some("31"),
        }
    }
}

#[derive(Debug, Clone)]
struct Cell {
    text: String,
    paint: Paint,
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, paint: Paint::Plain }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Name,
    Bar,
    Figure,
}

#[derive(Debug, Clone, Copy)]
struct Column {
    title: &'static str,
    kind: Kind,
    /// Columns with a higher number go first when space is short; 0 stays.
    spare: u8,
}

const fn column(title: &'static str, kind: Kind, spare: u8) -> Column {
    Column { title, kind, spare }
}

/// The table of edges, a heading and a line each, every line at most `width` wide.
pub fn render(edges: &[Edge], width: usize, colour: bool) -> String {
    let columns = [
        column("SOURCE", Kind::Name, 0),
        column("DESTINATION", Kind::Name, 0),
        column("REQ/S", Kind::Figure, 0),
        column("SUCCESS", Kind::Figure, 0),
        column("P50 ms", Kind::Figure, 2),
        column("P95 ms", Kind::Figure, 4),
        column("P99 ms", Kind::Figure, 1),
        column("mTLS", Kind::Figure, 3),
        column("EJECTED", Kind::Figure, 5),
    ];
    let row = |edge: &Edge| {
        let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|q| millis(edge.latency.millis(q)).into());
        vec![
            short(&edge.source).into(),
            short(&edge.destination).into(),
            rate(edge.rate()).into(),
            success(edge.success()),
            p50,
            p95,
            p99,
            mtls(edge.mtls),
            ejected(edge.ejected),
        ]
    };
    grid(&columns, edges.iter().map(row).collect(), width, colour)
}

/// A table of replicas for each destination that has several, with the share of requests each got.
pub fn render_replicas(all: &[Replica], width: usize, colour: bool) -> String {
    let columns = [
        column("REPLICA", Kind::Name, 0),
        column("", Kind::Bar, 2),
        column("SHARE", Kind::Figure, 0),
        column("REQ/S", Kind::Figure, 3),
        column("SUCCESS", Kind::Figure, 0),
        column("P50 ms", Kind::Figure, 1),
        column("P99 ms", Kind::Figure, 4),
    ];
    let mut text = String::new();
    for group in all.chunk_by(|a, b| a.destination == b.destination).filter(|group| group.len() > 1) {
        let row = |(replica, share): (&Replica, Option<f64>)| {
            vec![
                replica.name.as_str().into(),
                bar(share).into(),
                share.map_or_else(|| "-".to_owned(), |share| format!("{:.1}%", share * 100.0)).into(),
                rate(replica.rate()).into(),
                success(replica.success()),
                millis(replica.latency.millis(0.5)).into(),
                millis(replica.latency.millis(0.99)).into(),
            ]
        };
        let rows = group.iter().zip(shares(group)).map(row).collect();
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = writeln!(text, "{}", cut(&format!("{} is answered by", short(&group[0].destination)), width));
        text.push_str(&grid(&columns, rows, width, colour));
    }
    text
}

/// The totals of a run: as [`render`], with counts instead of rates.
pub fn render_totals(edges: &[Edge], width: usize, colour: bool) -> String {
    let columns = [
        column("SOURCE", Kind::Name, 0),
        column("DESTINATION", Kind::Name, 0),
        column("REQUESTS", Kind::Figure, 0),
        column("SUCCESS", Kind::Figure, 0),
        column("P50 ms", Kind::Figure, 3),
        column("P99 ms", Kind::Figure, 2),
        column("mTLS", Kind::Figure, 5),
        column("RETRIES", Kind::Figure, 1),
        column("EJECTIONS", Kind::Figure, 4),
    ];
    let row = |edge: &Edge| {
        vec![
            short(&edge.source).into(),
            short(&edge.destination).into(),
            format!("{:.0}", edge.requests).into(),
            success(edge.success()),
            millis(edge.latency.millis(0.5)).into(),
            millis(edge.latency.millis(0.99)).into(),
            mtls(edge.mtls),
            format!("{:.0}", edge.retries).into(),
            format!("{:.0}", edge.ejections).into(),
        ]
    };
    grid(&columns, edges.iter().map(row).collect(), width, colour)
}

/// One line for each edge and each destination with several replicas, for logs.
pub fn lines(edges: &[Edge], replicas: &[Replica]) -> Vec<String> {
    let line = |edge: &Edge| {
        format!(
            "{} -> {}  {}/s  success {}  p50 {} p95 {} p99 {} ms  mTLS {}  ejected {}",
            short(&edge.source),
            short(&edge.destination),
            rate(edge.rate()),
            success(edge.success()).text,
            millis(edge.latency.millis(0.5)),
            millis(edge.latency.millis(0.95)),
            millis(edge.latency.millis(0.99)),
            edge.mtls.as_str(),
            edge.ejected,
        )
    };
    let mut lines: Vec<String> = edges.iter().map(line).collect();
    for group in replicas.chunk_by(|a, b| a.destination == b.destination).filter(|group| group.len() > 1) {
        let mut line = format!("{} is answered by", short(&group[0].destination));
        for (replica, share) in group.iter().zip(shares(group)) {
            let share = share.map_or_else(|| "-".to_owned(), |share| format!("{:.1}%", share * 100.0));
            let _ = write!(line, "  {} {share}", replica.name);
        }
        lines.push(line);
    }
    lines
}

/// Cuts a text to at most `width` characters, with an ellipsis where something is missing.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        short.push('…');
    }
    short
}

fn grid(columns: &[Column], rows: Vec<Vec<Cell>>, width: usize, colour: bool) -> String {
    let heading = columns.iter().map(|column| Cell { text: column.title.to_owned(), paint: Paint::Heading }).collect();
    let rows: Vec<Vec<Cell>> = std::iter::once(heading).chain(rows).collect();
    let mut widths: Vec<usize> = (0..columns.len())
        .map(|index| rows.iter().map(|row| row[index].text.chars().count()).max().unwrap_or_default())
        .collect();
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    fit(columns, &mut widths, &mut shown, width);
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        let mut used = 0;
        for &index in &shown {
            // Only when not even the shortest names fit.
            let room = widths[index].min(width.saturating_sub(used));
            place(&mut line, &row[index], columns[index].kind, room, colour);
            used += room;
            if Some(&index) != shown.last() {
                let gap = GAP.min(width.saturating_sub(used));
                line.extend(std::iter::repeat_n(' ', gap));
                used += gap;
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Drops columns, then shortens names, until a line fits.
fn fit(columns: &[Column], widths: &mut [usize], shown: &mut Vec<usize>, width: usize) {
    let total = |widths: &[usize], shown: &[usize]| {
        shown.iter().map(|&index| widths[index] + GAP).sum::<usize>().saturating_sub(GAP)
    };
    while total(widths, shown) > width {
        let most_spare = shown.iter().enumerate().max_by_key(|(_, index)| columns[**index].spare);
        match most_spare {
            Some((position, &index)) if columns[index].spare > 0 => {
                shown.remove(position);
            }
            _ => break,
        }
    }
    while total(widths, shown) > width {
        let longest =
            shown.iter().copied().filter(|&index| columns[index].kind == Kind::Name).max_by_key(|&i| widths[i]);
        match longest {
            Some(index) if widths[index] > SHORTEST_NAME => widths[index] -= 1,
            _ => break,
        }
    }
}

fn place(line: &mut String, cell: &Cell, kind: Kind, width: usize, colour: bool) {
    let text = cut(&cell.text, width);
    let padding = width.saturating_sub(text.chars().count());
    if kind == Kind::Figure {
        line.extend(std::iter::repeat_n(' ', padding));
    }
    match cell.paint.code().filter(|_| colour && !text.is_empty()) {
        Some(code) => {
            let _ = write!(line, "\x1b[{code}m{text}\x1b[0m");
        }
        None => line.push_str(&text),
    }
    if kind != Kind::Figure {
        line.extend(std::iter::repeat_n(' ', padding));
    }
}

fn rate(rate: f64) -> String {
    if rate >= 1000.0 { format!("{rate:.0}") } else { format!("{rate:.1}") }
}

pub(super) fn millis(millis: Option<f64>) -> String {
    match millis {
        None => "-".to_owned(),
        Some(millis) if millis >= 100.0 => format!("{millis:.0}"),
        Some(millis) => format!("{millis:.1}"),
    }
}

/// Rounded down: 100% means that nothing failed.
pub(super) fn percent(fraction: f64) -> String {
    if fraction >= 1.0 { "100%".to_owned() } else { format!("{:.2}%", (fraction * 10_000.0).floor() / 100.0) }
}

fn success(fraction: Option<f64>) -> Cell {
    let Some(fraction) = fraction else { return "-".into() };
    let paint = match fraction {
        _ if fraction >= 0.999 => Paint::Good,
        _ if fraction >= 0.95 => Paint::Warning,
        _ => Paint::Bad,
    };
    Cell { text: percent(fraction), paint }
}

fn mtls(mtls: Mtls) -> Cell {
    let paint = match mtls {
        Mtls::Unknown => Paint::Plain,
        Mtls::Yes => Paint::Good,
        Mtls::Partly => Paint::Warning,
        Mtls::No => Paint::Bad,
    };
    Cell { text: mtls.as_str().to_owned(), paint }
}

fn ejected(count: u64) -> Cell {
    Cell { text: count.to_string(), paint: if count > 0 { Paint::Warning } else { Paint::Plain } }
}

fn bar(share: Option<f64>) -> String {
    let filled = (share.unwrap_or_default() * BAR as f64).round().clamp(0.0, BAR as f64) as usize;
    "█".repeat(filled) + &"░".repeat(BAR - filled)
}

#[cfg(test)]
mod tests;
