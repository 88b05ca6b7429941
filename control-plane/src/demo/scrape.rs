//! The proxies' metrics: fetched over an admin socket, and read strictly.
//!
//! The format is Prometheus text 0.0.4. A line that does not follow it is an error that names the line: a table that
//! quietly leaves out what it could not read would lie.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// A proxy on the same machine that takes longer is not answering.
const TIMEOUT: Duration = Duration::from_secs(2);
/// A proxy's series are capped far below this.
const LARGEST_PAGE: usize = 16 << 20;

/// Labels of a series, by name.
pub type Labels = BTreeMap<String, String>;

/// What one proxy counted at one moment: metric name to series to value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scrape {
    metrics: BTreeMap<String, BTreeMap<Labels, f64>>,
}

impl Scrape {
    /// The series of a metric.
    pub fn series(&self, metric: &str) -> impl Iterator<Item = (&Labels, f64)> {
        self.metrics.get(metric).into_iter().flatten().map(|(labels, value)| (labels, *value))
    }

    /// The value of one series.
    pub fn value(&self, metric: &str, labels: &Labels) -> Option<f64> {
        self.metrics.get(metric)?.get(labels).copied()
    }
}

/// Why a metrics page cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("metrics line {line}: {problem}")]
pub struct ParseError {
    pub line: usize,
    pub problem: Problem,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Problem {
    #[error("`{0}` is not a metric name")]
    MetricName(String),
    #[error("`{0}` is not a label name")]
    LabelName(String),
    #[error("label `{0}` occurs twice")]
    LabelTwice(String),
    #[error("label `{0}` needs a quoted value")]
    Unquoted(String),
    #[error("the value of label `{0}` does not end")]
    Unended(String),
    #[error("`\\{0}` is not an escape; \\\\, \\\" and \\n are")]
    Escape(char),
    #[error("`{0}` follows a label where a comma or a brace belongs")]
    AfterLabel(char),
    #[error("the labels do not end")]
    UnendedLabels,
    #[error("`{0}` is not a value")]
    Value(String),
    #[error("`{0}` is not a time stamp")]
    TimeStamp(String),
    #[error("`{0}` is too much on this line")]
    Rest(String),
    #[error("this series occurs twice")]
    SeriesTwice,
}

/// Why there is no scrape.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    #[error("cannot connect to {path}: {source}")]
    Connect { path: PathBuf, source: std::io::Error },
    #[error("cannot read metrics from {path}: {source}")]
    Exchange { path: PathBuf, source: hyper::Error },
    #[error("metrics of {path} broke off or exceed {LARGEST_PAGE} bytes: {source}")]
    Body { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{path} answered {status} for /metrics")]
    Status { path: PathBuf, status: StatusCode },
    #[error("{path} did not answer in {TIMEOUT:?}")]
    Timeout { path: PathBuf },
    #[error("metrics of {path} are not UTF-8 text")]
    Text { path: PathBuf },
    #[error("{path}: {source}")]
    Parse { path: PathBuf, source: ParseError },
}

/// Fetches and reads `/metrics` from an admin socket.
///
/// # Errors
/// When nothing, or something else than metrics, answers in time.
pub async fn scrape(socket: &Path) -> Result<Scrape, ScrapeError> {
    let path = || socket.to_path_buf();
    let page =
        tokio::time::timeout(TIMEOUT, fetch(socket)).await.map_err(|_| ScrapeError::Timeout { path: path() })??;
    let text = std::str::from_utf8(&page).map_err(|_| ScrapeError::Text { path: path() })?;
    parse(text).map_err(|source| ScrapeError::Parse { path: path(), source })
}

async fn fetch(socket: &Path) -> Result<Bytes, ScrapeError> {
    let path = || socket.to_path_buf();
    let stream = UnixStream::connect(socket).await.map_err(|source| ScrapeError::Connect { path: path(), source })?;
    let exchange = |source| ScrapeError::Exchange { path: path(), source };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(exchange)?;
    // Ends with the sender, at the end of this function.
    tokio::spawn(connection);
    let request = Request::get("/metrics")
        .header(http::header::HOST, "localhost")
        .body(Empty::<Bytes>::new())
        .expect("a constant request is well formed");
    let response = sender.send_request(request).await.map_err(exchange)?;
    let status = response.status();
    if status != StatusCode::OK {
        return Err(ScrapeError::Status { path: path(), status });
    }
    let body = Limited::new(response.into_body(), LARGEST_PAGE).collect().await;
    Ok(body.map_err(|source| ScrapeError::Body { path: path(), source })?.to_bytes())
}

/// Reads a metrics page.
///
/// # Errors
/// At the first line that does not follow the format.
pub fn parse(text: &str) -> Result<Scrape, ParseError> {
    let mut scrape = Scrape::default();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_matches([' ', '\t']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let failed = |problem| ParseError { line: index + 1, problem };
        let (name, labels, value) = sample(line).map_err(failed)?;
        match scrape.metrics.entry(name.to_owned()).or_default().entry(labels) {
            Entry::Vacant(place) => place.insert(value),
            Entry::Occupied(_) => return Err(failed(Problem::SeriesTwice)),
        };
    }
    Ok(scrape)
}

/// `name{label="value",...} value [time stamp]`
fn sample(line: &str) -> Result<(&str, Labels, f64), Problem> {
    let end = line.find([' ', '\t', '{']).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    if !is_name(name, ":") {
        return Err(Problem::MetricName(name.to_owned()));
    }
    let rest = rest.trim_start_matches([' ', '\t']);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => labels(inside)?,
        None => (Labels::new(), rest),
    };
    let mut words = rest.split_ascii_whitespace();
    let number = words.next().unwrap_or_default();
    let value = value(number).ok_or_else(|| Problem::Value(number.to_owned()))?;
    if let Some(stamp) = words.next() {
        stamp.parse::<i64>().map_err(|_| Problem::TimeStamp(stamp.to_owned()))?;
    }
    match words.next() {
        Some(word) => Err(Problem::Rest(word.to_owned())),
        None => Ok((name, labels, value)),
    }
}

/// Reads labels up to the closing brace; a comma may follow the last one.
fn labels(mut rest: &str) -> Result<(Labels, &str), Problem> {
    let mut labels = Labels::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        let (name, after) = rest.split_once('=').ok_or(Problem::UnendedLabels)?;
        let name = name.trim_end_matches([' ', '\t']);
        if !is_name(name, "") {
            return Err(Problem::LabelName(name.to_owned()));
        }
        let quoted = after
            .trim_start_matches([' ', '\t'])
            .strip_prefix('"')
            .ok_or_else(|| Problem::Unquoted(name.to_owned()))?;
        let (value, after) = unquote(name, quoted)?;
        if labels.insert(name.to_owned(), value).is_some() {
            return Err(Problem::LabelTwice(name.to_owned()));
        }
        rest = after.trim_start_matches([' ', '\t']);
        match rest.chars().next() {
            Some(',') => rest = &rest[1..],
            Some('}') => {}
            Some(other) => return Err(Problem::AfterLabel(other)),
            None => return Err(Problem::UnendedLabels),
        }
    }
}

/// Reads a label value after its opening quote; returns what follows the closing one.
fn unquote<'a>(name: &str, quoted: &'a str) -> Result<(String, &'a str), Problem> {
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &quoted[at + 1..])),
            '\\' => match chars.next() {
                Some((_, '\\')) => value.push('\\'),
                Some((_, '"')) => value.push('"'),
                Some((_, 'n')) => value.push('\n'),
                Some((_, other)) => return Err(Problem::Escape(other)),
                None => break,
            },
            other => value.push(other),
        }
    }
    Err(Problem::Unended(name.to_owned()))
}

fn is_name(text: &str, also: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || also.contains(c))
}

fn value(text: &str) -> Option<f64> {
    match text {
        "+Inf" | "Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        // Rust also reads `infinity` and `nan`, which the format does not know.
        _ if text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
            && !text.ends_with(['y', 'f', 'n']) =>
        {
            text.parse().ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
