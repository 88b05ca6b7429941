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

    /// The sum of all series of that name with all these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let chosen = self.series.iter().filter(|series| {
            series.name == name
                && labels.iter().all(|(key, value)| series.labels.get(*key).is_some_and(|found| found == value))
        });
        chosen.map(|series| series.value).sum()
    }

    /// The value of one label in all series of that name.
    pub fn values(&self, name: &str, label: &str) -> Vec<String> {
        let named = self.series.iter().filter(|series| series.name == name);
        named.filter_map(|series| series.labels.get(label).cloned()).collect()
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let series = self.series.iter().map(|series| {
            let before = earlier.series.iter().find(|old| old.name == series.name && old.labels == series.labels);
            Series { value: series.value - before.map_or(0.0, |old| old.value), ..series.clone() }
        });
        Self { series: series.collect() }
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
    fn series_are_summed_by_their_labels_and_compared_with_earlier_ones() {
        let earlier = Metrics::parse("# TYPE a counter\na{to=\"x:80\",code=\"2xx\"} 3\nb 1.5\n");
        let later =
            Metrics::parse("a{to=\"x:80\",code=\"2xx\"} 10\na{to=\"x:80\",code=\"5xx\"} 2\na{to=\"y\"} 1\nb 2\n");
        assert_eq!(later.sum("a", &[("to", "x:80")]), 12.0);
        assert_eq!(later.sum("a", &[]), 13.0);
        assert_eq!(later.sum("b", &[]), 2.0);
        let since = later.since(&earlier);
        assert_eq!(since.sum("a", &[("code", "2xx")]), 7.0);
        assert_eq!(since.sum("a", &[("to", "x:80")]), 9.0);
        assert_eq!(later.values("a", "code"), ["2xx", "5xx"]);
    }
}
