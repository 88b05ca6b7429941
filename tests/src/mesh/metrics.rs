//! The figures of a proxy, as Prometheus would read them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// An answer of an admin endpoint comes at once.
const ANSWER: Duration = Duration::from_secs(10);

/// One scrape.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    series: Vec<Series>,
}

#[derive(Debug, Clone)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads the text format; what it does not know it skips.
    pub fn parse(text: &str) -> Self {
        Self { series: text.lines().filter_map(Series::parse).collect() }
    }

    /// The sum of all series of that name with all these labels. What tests look at are whole numbers.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let chosen = self.series.iter().filter(|series| {
            series.name == name
                && labels.iter().all(|(key, value)| series.labels.get(*key).is_some_and(|found| found == value))
        });
        chosen.map(|series| series.value).sum::<f64>().round() as u64
    }
}

impl Series {
    /// `name{key="value",...} 1`. No value here holds a quote.
    fn parse(line: &str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let (head, value) = line.rsplit_once(' ')?;
        let (name, labels) = match head.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
            None => (head, ""),
        };
        let label = |text: &str| {
            let (key, value) = text.split_once("=\"")?;
            Some((key.to_owned(), value.to_owned()))
        };
        let labels = labels
            .strip_suffix('"')
            .map_or_else(BTreeMap::new, |labels| labels.split("\",").filter_map(label).collect());
        Some(Self { name: name.to_owned(), labels, value: value.parse().ok()? })
    }
}

/// Asks an admin socket; status and body.
///
/// # Errors
/// When nobody answers.
pub fn get(socket: &Path, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER))?;
    // HTTP/1.0: the body ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nhost: proxy\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let malformed = || std::io::Error::other(format!("not an answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(malformed)?;
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_by_their_labels() {
        let text =
            "# TYPE a counter\na{to=\"x:80\",code=\"2xx\"} 10\na{to=\"x:80\",code=\"5xx\"} 2\na{to=\"y\"} 1\nb 2\n";
        let metrics = Metrics::parse(text);
        assert_eq!(metrics.sum("a", &[("to", "x:80")]), 12);
        assert_eq!(metrics.sum("a", &[("to", "x:80"), ("code", "5xx")]), 2);
        assert_eq!(metrics.sum("a", &[]), 13);
        assert_eq!(metrics.sum("b", &[]), 2);
        assert_eq!(metrics.sum("c", &[]), 0);
    }
}
