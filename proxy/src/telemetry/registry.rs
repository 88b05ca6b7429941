//! The recorder behind the `metrics` facade: plain atomics, and Prometheus text.
//!
//! Histograms have fixed buckets and no samples, so nothing grows between scrapes and recording never allocates.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// Upper bounds in seconds: 100 microseconds to 10 seconds in steps of about 2.
const BUCKETS: [f64; 18] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.175, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Most series one proxy holds; what comes beyond is counted in one overflow counter, and works without effect.
pub const MAX_SERIES: usize = 20_000;

#[derive(Debug)]
struct Buckets {
    /// One more than the bounds: the last has no bound.
    counts: [AtomicU64; BUCKETS.len() + 1],
    /// Nanoseconds, so that it can be added to without a lock.
    sum: AtomicU64,
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        let at = BUCKETS.partition_point(|&bound| bound < value);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add((value * 1e9) as u64, Ordering::Relaxed);
    }
}

/// What a series holds.
#[derive(Debug, Clone)]
enum Series {
    Counter(Arc<AtomicU64>),
    /// Bits of an `f64`, as the facade keeps them.
    Gauge(Arc<AtomicU64>),
    Histogram(Arc<Buckets>),
}

/// Name, then the labels as they are printed.
type Families = BTreeMap<String, BTreeMap<String, Series>>;

#[derive(Debug, Default)]
struct Tables {
    families: Families,
    help: BTreeMap<String, String>,
    count: usize,
    overflow: u64,
}

/// All series of this process.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Mutex<Tables>>);

impl Registry {
    /// Makes this the recorder of the process. A second one in the same process is ignored.
    pub fn install(&self) -> bool {
        metrics::set_global_recorder(self.clone()).is_ok()
    }

    fn series(&self, key: &Key, make: impl FnOnce() -> Series) -> Option<Series> {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let labels = print_labels(key.labels().map(|label| (label.key(), label.value())));
        if let Some(series) = tables.families.get(key.name()).and_then(|family| family.get(&labels)) {
            return Some(series.clone());
        }
        if tables.count == MAX_SERIES {
            tables.overflow += 1;
            return None;
        }
        tables.count += 1;
        let series = make();
        tables.families.entry(key.name().to_owned()).or_default().insert(labels, series.clone());
        Some(series)
    }

    /// The Prometheus text format, version 0.0.4. `more` is appended: series read from live state.
    pub fn render(&self, more: &Gauges) -> String {
        let mut out = String::with_capacity(16 * 1024);
        let tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, family) in &tables.families {
            let kind = match family.values().next() {
                Some(Series::Counter(_)) => "counter",
                Some(Series::Gauge(_)) => "gauge",
                Some(Series::Histogram(_)) => "histogram",
                None => continue,
            };
            if let Some(help) = tables.help.get(name) {
                let _ = writeln!(out, "# HELP {name} {help}");
            }
            let _ = writeln!(out, "# TYPE {name} {kind}");
            for (labels, series) in family {
                write_series(name, labels, series, &mut out);
            }
        }
        let _ = writeln!(
            out,
            "# TYPE weft_metrics_overflow_total counter\nweft_metrics_overflow_total {}",
            tables.overflow
        );
        drop(tables);
        more.render(&mut out);
        out
    }
}

fn write_series(name: &str, labels: &str, series: &Series, out: &mut String) {
    let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    let _ = match series {
        Series::Counter(value) => writeln!(out, "{name}{braced} {}", value.load(Ordering::Relaxed)),
        Series::Gauge(bits) => writeln!(out, "{name}{braced} {}", f64::from_bits(bits.load(Ordering::Relaxed))),
        Series::Histogram(buckets) => {
            let separator = if labels.is_empty() { "" } else { "," };
            let mut total = 0;
            for (index, count) in buckets.counts.iter().enumerate() {
                total += count.load(Ordering::Relaxed);
                let bound = BUCKETS.get(index).map_or_else(|| "+Inf".to_owned(), ToString::to_string);
                let _ = writeln!(out, "{name}_bucket{{{labels}{separator}le=\"{bound}\"}} {total}");
            }
            let sum = buckets.sum.load(Ordering::Relaxed) as f64 / 1e9;
            writeln!(out, "{name}_sum{braced} {sum}\n{name}_count{braced} {total}")
        }
    };
}

/// `a="b",c="d"` with the escapes of the text format.
fn print_labels<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (key, value) in labels {
        if !out.is_empty() {
            out.push(',');
        }
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(out, "{key}=\"{value}\"");
    }
    out
}

/// Series that are read from live state when somebody looks.
#[derive(Debug, Default)]
pub struct Gauges {
    rows: BTreeMap<(&'static str, &'static str), Vec<String>>,
}

impl Gauges {
    /// Adds one row; `kind` is `gauge` or `counter`.
    pub fn add(&mut self, kind: &'static str, name: &'static str, labels: &[(&'static str, String)], value: f64) {
        let labels = print_labels(labels.iter().map(|(key, value)| (*key, value.as_str())));
        self.rows.entry((name, kind)).or_default().push(format!("{name}{{{labels}}} {value}"));
    }

    fn render(&self, out: &mut String) {
        for ((name, kind), rows) in &self.rows {
            let _ = writeln!(out, "# TYPE {name} {kind}");
            for row in rows {
                let _ = writeln!(out, "{row}");
            }
        }
    }
}

impl Recorder for Registry {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, text: SharedString) {
        self.describe(&key, &text);
    }

    fn describe_gauge(&self, key: KeyName, _: Option<Unit>, text: SharedString) {
        self.describe(&key, &text);
    }

    fn describe_histogram(&self, key: KeyName, _: Option<Unit>, text: SharedString) {
        self.describe(&key, &text);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match self.series(key, || Series::Counter(Arc::default())) {
            Some(Series::Counter(value)) => Counter::from_arc(value),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match self.series(key, || Series::Gauge(Arc::default())) {
            Some(Series::Gauge(value)) => Gauge::from_arc(value),
            _ => Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let make = || Series::Histogram(Arc::new(Buckets { counts: Default::default(), sum: AtomicU64::new(0) }));
        match self.series(key, make) {
            Some(Series::Histogram(value)) => Histogram::from_arc(value),
            _ => Histogram::noop(),
        }
    }
}

impl Registry {
    fn describe(&self, key: &KeyName, text: &SharedString) {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tables.help.insert(key.as_str().to_owned(), text.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_shows_what_was_recorded() {
        let registry = Registry::default();
        metrics::with_local_recorder(&registry, || {
            metrics::counter!("weft_a_total", "to" => "x\"y").increment(3);
            metrics::gauge!("weft_b").increment(2.5);
            let histogram = metrics::histogram!("weft_c_seconds", "k" => "v");
            histogram.record(0.001);
            histogram.record(0.0011);
            histogram.record(99.0);
        });
        let mut more = Gauges::default();
        more.add("gauge", "weft_d", &[("e", "f".to_owned())], 1.0);
        let text = registry.render(&more);
        for line in [
            "# TYPE weft_a_total counter",
            "weft_a_total{to=\"x\\\"y\"} 3",
            "weft_b 2.5",
            "weft_c_seconds_bucket{k=\"v\",le=\"0.001\"} 1",
            "weft_c_seconds_bucket{k=\"v\",le=\"0.0025\"} 2",
            "weft_c_seconds_bucket{k=\"v\",le=\"+Inf\"} 3",
            "weft_c_seconds_count{k=\"v\"} 3",
            "weft_d{e=\"f\"} 1",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn series_have_a_cap_and_the_overflow_is_counted() {
        let registry = Registry::default();
        metrics::with_local_recorder(&registry, || {
            for index in 0..=MAX_SERIES {
                metrics::counter!("weft_a_total", "i" => index.to_string()).increment(1);
            }
        });
        assert!(registry.render(&Gauges::default()).contains("weft_metrics_overflow_total 1"));
    }
}
