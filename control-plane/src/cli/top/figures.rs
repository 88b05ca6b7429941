//! Golden signals of an interval, from what the proxies counted at its ends.
//!
//! Every request counts once. Callers that were asked count their calls themselves, so that calls that never arrived are seen;
//! those of others are counted by the proxy they arrived at: callers without a proxy, and, where only one namespace is asked,
//! those of other namespaces. Each proxy has an interval of its own, as they are not asked in one instant.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::demo::edges::{Distribution, ends, increase, is_failure};
use crate::demo::scrape::{Labels, Scrape};

/// What one proxy had counted, and when.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) scrape: Scrape,
}

/// By workload, `NAMESPACE/NAME`.
pub(super) type Samples = BTreeMap<String, Sample>;

/// What is summed up in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum View {
    /// A port of a service, whoever calls it.
    Services,
    /// A workload, by what its own proxy took in.
    Workloads,
    /// A caller's service account and a port of a service.
    Edges,
}

/// By what rows are sorted, the largest first; names the other way around.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Order {
    Rate,
    /// The worst first.
    Success,
    P50,
    P99,
    Connections,
    Name,
}

/// One row.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Row {
    pub(super) name: String,
    /// Requests in a second.
    pub(super) rate: f64,
    /// Of these, those that ended in 5xx or without an answer.
    pub(super) failures: f64,
    pub(super) latency: Distribution,
    /// Open at the interval's end.
    pub(super) connections: f64,
    /// Bytes in a second, both ways.
    pub(super) bytes: f64,
    /// Requests in a second that a workload sent; in no other view.
    pub(super) sent: f64,
}

impl Row {
    /// The fraction of requests that did not fail; none without requests.
    pub(super) fn success(&self) -> Option<f64> {
        (self.rate > 0.0).then(|| (1.0 - self.failures / self.rate).clamp(0.0, 1.0))
    }

    pub(super) fn to_json(&self, view: View) -> Value {
        let mut row = json!({
            "name": self.name, "requestsPerSecond": self.rate, "success": self.success(),
            "p50Ms": self.latency.millis(0.5), "p99Ms": self.latency.millis(0.99),
            "connections": self.connections, "bytesPerSecond": self.bytes,
        });
        if view == View::Workloads {
            row["sentRequestsPerSecond"] = json!(self.sent);
        }
        row
    }

    fn is_quiet(&self) -> bool {
        self.rate <= 0.0 && self.connections <= 0.0 && self.bytes <= 0.0 && self.sent <= 0.0
    }
}

/// The rows of an interval, sorted. `namespace`: the only one whose proxies were asked.
pub(super) fn rows(before: &Samples, after: &Samples, view: View, order: Order, namespace: Option<&str>) -> Vec<Row> {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for (workload, now) in after {
        // One that has just come has no interval yet.
        let Some(then) = before.get(workload) else { continue };
        let seconds = now.at.saturating_duration_since(then.at).max(Duration::from_millis(1)).as_secs_f64();
        if view == View::Workloads {
            rows.entry(workload.clone()).or_default();
        }
        let mut each = |metric: &str, add: &dyn Fn(&mut Row, &Labels, f64, f64)| {
            for (labels, value) in now.scrape.series(metric) {
                let more = increase(then.scrape.value(metric, labels), value);
                if let Some(name) = row_of(workload, labels, view, namespace) {
                    add(rows.entry(name).or_default(), labels, value, more);
                }
            }
        };
        each("weft_requests_total", &|row, labels, _, more| {
            if view == View::Workloads && ends(labels, "outbound").is_some() {
                row.sent += more / seconds;
                return;
            }
            row.rate += more / seconds;
            if is_failure(labels) {
                row.failures += more / seconds;
            }
        });
        let taken_in = |labels: &Labels| view != View::Workloads || ends(labels, "inbound").is_some();
        each("weft_request_duration_seconds_bucket", &|row, labels, _, more| {
            if taken_in(labels) {
                row.latency.add(labels, more);
            }
        });
        each("weft_connections_active", &|row, labels, value, _| {
            if taken_in(labels) {
                row.connections += value.max(0.0);
            }
        });
        each("weft_bytes_total", &|row, labels, _, more| {
            if taken_in(labels) {
                row.bytes += more / seconds;
            }
        });
    }
    let named = rows.into_iter().map(|(name, row)| Row { name, ..row });
    let mut rows: Vec<Row> = named.filter(|row| view == View::Workloads || !row.is_quiet()).collect();
    sort(&mut rows, order);
    rows
}

/// Where a series counts; nowhere when it is counted elsewhere already, or is of no interest.
fn row_of(workload: &str, labels: &Labels, view: View, namespace: Option<&str>) -> Option<String> {
    if view == View::Workloads {
        return ["inbound", "outbound"].iter().any(|way| ends(labels, way).is_some()).then(|| workload.to_owned());
    }
    let (source, destination) = match ends(labels, "outbound") {
        Some(ends) => ends,
        // What a caller that was asked sent, it has counted itself.
        None => ends(labels, "inbound").filter(|(source, _)| !was_asked(source, namespace))?,
    };
    let is_of = |name: &str| namespace.is_none_or(|namespace| name.split('/').next() == Some(namespace));
    match view {
        View::Edges => (is_of(source) || is_of(destination)).then(|| format!("{source} -> {destination}")),
        _ => is_of(destination).then(|| destination.to_owned()),
    }
}

/// Whether the proxies of this caller were asked: `unknown` has none.
fn was_asked(source: &str, namespace: Option<&str>) -> bool {
    match source.split_once('/') {
        Some((of, _)) => namespace.is_none_or(|namespace| of == namespace),
        None => false,
    }
}

fn sort(rows: &mut [Row], order: Order) {
    let descending = |value: fn(&Row) -> f64| move |a: &Row, b: &Row| value(b).total_cmp(&value(a));
    let by_name = |a: &Row, b: &Row| a.name.cmp(&b.name);
    match order {
        Order::Name => rows.sort_by(by_name),
        Order::Rate => rows.sort_by(descending(|row| row.rate)),
        Order::Success => rows.sort_by(descending(|row| 1.0 - row.success().unwrap_or(1.0))),
        Order::P50 => rows.sort_by(descending(|row| row.latency.quantile(0.5).unwrap_or(0.0))),
        Order::P99 => rows.sort_by(descending(|row| row.latency.quantile(0.99).unwrap_or(0.0))),
        Order::Connections => rows.sort_by(descending(|row| row.connections)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::scrape::parse;

    /// The web calls orders, whose own proxy counts the same calls, and one of somebody without a proxy; one call never
    /// arrives.
    fn samples(at: Instant, times: u32) -> Samples {
        let of = |direction: &str, source: &str, destination: &str, class: &str, count: u32| {
            let edge = format!("direction=\"{direction}\",source=\"{source}\",destination=\"{destination}\"");
            let count = count * times;
            format!(
                "weft_requests_total{{{edge},code_class=\"{class}\"}} {count}\n\
                 weft_connections_active{{{edge},tls=\"{class}\"}} 2\n\
                 weft_bytes_total{{{edge},way=\"{class}\"}} {}\n\
                 weft_request_duration_seconds_bucket{{{edge},le=\"0.1\"}} {count}\n\
                 weft_request_duration_seconds_bucket{{{edge},le=\"+Inf\"}} {count}\n",
                count * 10
            )
        };
        let requests = |direction: &str, source: &str, class: &str, count: u32| {
            let edge = format!("direction=\"{direction}\",source=\"{source}\",destination=\"shop/orders:80\"");
            format!("weft_requests_total{{{edge},code_class=\"{class}\"}} {}\n", count * times)
        };
        let web =
            of("outbound", "front/web", "shop/orders:80", "2xx", 20) + &requests("outbound", "front/web", "failed", 20);
        let orders = of("inbound", "front/web", "shop/orders:80", "2xx", 20)
            + &of("inbound", "unknown", "shop/orders:80", "5xx", 10);
        let sample = |page: &str| Sample { at, scrape: parse(page).unwrap() };
        Samples::from([("front/web-1".into(), sample(&web)), ("shop/orders-1".into(), sample(&orders))])
    }

    fn shown(view: View, namespace: Option<&str>, keep: &str) -> Vec<(String, f64, Option<f64>, f64)> {
        let start = weft_proxy::clock::now();
        let (mut before, mut after) = (samples(start, 1), samples(start + Duration::from_secs(2), 2));
        before.retain(|workload, _| workload.starts_with(keep));
        after.retain(|workload, _| workload.starts_with(keep));
        rows(&before, &after, view, Order::Rate, namespace)
            .into_iter()
            .map(|row| (row.name.clone(), row.rate, row.success(), row.connections))
            .collect()
    }

    #[test]
    fn every_request_counts_once_whoever_was_asked() {
        let all = vec![("shop/orders:80".to_owned(), 25.0, Some(0.4), 4.0)];
        assert_eq!(shown(View::Services, None, ""), all);
        // Only the callee's namespace: what never arrived is not known, the rest is.
        let own = vec![("shop/orders:80".to_owned(), 15.0, Some(1.0 - 5.0 / 15.0), 4.0)];
        assert_eq!(shown(View::Services, Some("shop"), "shop"), own);
        assert_eq!(shown(View::Services, Some("front"), "front"), []);
        let edges = [
            ("front/web -> shop/orders:80".to_owned(), 20.0, Some(0.5), 2.0),
            ("unknown -> shop/orders:80".to_owned(), 5.0, Some(0.0), 2.0),
        ];
        assert_eq!(shown(View::Edges, None, ""), edges);
        assert_eq!(shown(View::Edges, Some("front"), "front"), edges[..1]);
        let workloads = [
            ("shop/orders-1".to_owned(), 15.0, Some(1.0 - 5.0 / 15.0), 4.0),
            ("front/web-1".to_owned(), 0.0, None, 0.0),
        ];
        assert_eq!(shown(View::Workloads, None, ""), workloads);
    }

    #[test]
    fn a_proxy_that_began_again_or_has_just_come_adds_nothing_wrong() {
        let start = weft_proxy::clock::now();
        let (before, after) = (samples(start, 5), samples(start + Duration::from_secs(1), 1));
        let row = &rows(&before, &after, View::Services, Order::Rate, None)[0];
        assert!((row.rate - 50.0).abs() < 1e-9, "what it counts since it began is new: {row:?}");
        assert_eq!(rows(&Samples::new(), &after, View::Services, Order::Rate, None), []);
        let same = &rows(&after, &samples(start + Duration::from_secs(3), 1), View::Services, Order::Rate, None)[0];
        assert!(same.rate == 0.0 && same.success().is_none() && same.connections > 0.0, "{same:?}");
    }

    #[test]
    fn rows_are_sorted_as_asked() {
        let row = |name: &str, rate: f64, failures: f64, connections: f64| Row {
            name: name.into(),
            rate,
            failures,
            connections,
            ..Row::default()
        };
        let all = [row("c", 1.0, 1.0, 2.0), row("a", 3.0, 0.0, 1.0), row("b", 2.0, 0.5, 3.0)];
        for (order, expected) in
            [(Order::Name, "abc"), (Order::Rate, "abc"), (Order::Success, "cba"), (Order::Connections, "bca")]
        {
            let mut rows = all.to_vec();
            sort(&mut rows, order);
            assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<String>(), expected, "{order:?}");
        }
    }
}
