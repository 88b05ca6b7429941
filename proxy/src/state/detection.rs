//! What is remembered of a port whose protocol nobody declared: one byte all workers share, and the port's signals.
//!
//! It belongs to the listener's name and survives every snapshot in which the port stays undeclared; there are as many as
//! there are such listeners.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use metrics::{Counter, Histogram, Label};
use weft_core::detection::{Belief, Verdict};
use weft_core::model::Direction;
use weft_core::names::ServiceRef;

use crate::telemetry;

/// What decided about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecidedBy {
    /// The client's first bytes.
    Client,
    /// The server spoke before its client.
    Server,
    /// What was believed before; the bytes do not contradict it.
    Memory,
    /// The client's first bytes may become a request, and did not in time.
    Timeout,
    /// A side ended before either had said a word.
    End,
}

impl DecidedBy {
    const COUNT: usize = 5;

    fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Memory => "memory",
            Self::Timeout => "timeout",
            Self::End => "end",
        }
    }
}

/// The memory of one port.
#[derive(Debug, Default)]
pub struct Detection {
    belief: AtomicU8,
    /// Boxed, and made with the first connection: most ports of a mesh are never called from here.
    signals: OnceLock<Box<Signals>>,
}

/// Resolved handles.
#[derive(Debug)]
struct Signals {
    labels: Vec<Label>,
    /// By verdict, the last for none, and by what decided.
    verdicts: [[OnceLock<Counter>; DecidedBy::COUNT]; Verdict::ALL.len() + 1],
    duration: Histogram,
}

impl Detection {
    pub fn belief(&self) -> Belief {
        // Nothing else is read by its value.
        Belief::from_bits(self.belief.load(Ordering::Relaxed))
    }

    /// A connection turned out to be `now`. Says whether that is news to whoever asks what was seen here.
    pub fn saw(&self, now: Verdict) -> bool {
        let (before, after) = self.change(|belief| belief.after(now));
        before.seen() != after.seen()
    }

    /// The control plane says what others saw.
    pub fn told(&self, hint: Option<Verdict>) {
        self.change(|belief| belief.told(hint));
    }

    /// Writes only what is new: the byte is shared by all workers, and nearly always right.
    fn change(&self, rule: impl Fn(Belief) -> Belief) -> (Belief, Belief) {
        let mut bits = self.belief.load(Ordering::Relaxed);
        loop {
            let before = Belief::from_bits(bits);
            let after = rule(before);
            if after == before {
                return (before, after);
            }
            let order = Ordering::Relaxed;
            match self.belief.compare_exchange_weak(bits, after.to_bits(), order, order) {
                Ok(_) => return (before, after),
                Err(now) => bits = now,
            }
        }
    }

    /// Counts a verdict that took so long from the connection's begin; `None`: nothing was said.
    pub fn count(
        &self,
        direction: Direction,
        service: &ServiceRef,
        verdict: Option<Verdict>,
        by: DecidedBy,
        took: Duration,
    ) {
        let signals = self.signals.get_or_init(|| Box::new(Signals::new(direction, service)));
        let row = verdict.map_or(Verdict::ALL.len(), |verdict| verdict as usize);
        let counter = signals.verdicts[row][by as usize].get_or_init(|| {
            let mut labels = signals.labels.clone();
            labels.push(Label::from_static_parts("protocol", verdict.map_or("unknown", Verdict::name)));
            labels.push(Label::from_static_parts("by", by.label()));
            metrics::counter!("weft_detections_total", labels)
        });
        counter.increment(1);
        signals.duration.record(took.as_secs_f64());
    }
}

impl Signals {
    fn new(direction: Direction, service: &ServiceRef) -> Self {
        let labels = vec![
            Label::from_static_parts("direction", telemetry::direction_label(direction)),
            Label::new("destination", service.to_string()),
        ];
        let duration = metrics::histogram!("weft_detection_duration_seconds", labels.clone());
        Self { labels, verdicts: Default::default(), duration }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Gauges, Registry};

    #[test]
    fn only_what_changes_the_report_is_news() {
        let detection = Detection::default();
        detection.told(Some(Verdict::Http1));
        let news = [Verdict::Http1, Verdict::Http1, Verdict::Tls, Verdict::Tls, Verdict::Tls, Verdict::ServerFirst];
        assert_eq!(news.map(|now| detection.saw(now)), [true, false, false, false, true, true]);
        assert_eq!(detection.belief().seen(), Some(Verdict::ServerFirst));
    }

    #[test]
    fn verdicts_are_counted_by_what_decided_and_only_where_there_are_some() {
        let registry = Registry::default();
        let service = ServiceRef { namespace: "default".into(), name: "mail".into(), port: 25 };
        metrics::with_local_recorder(&registry, || {
            let (detection, _silent) = (Detection::default(), Detection::default());
            let took = Duration::from_millis(2);
            for (verdict, by) in [
                (Some(Verdict::ServerFirst), DecidedBy::Server),
                (Some(Verdict::ServerFirst), DecidedBy::Memory),
                (Some(Verdict::ServerFirst), DecidedBy::Memory),
                (None, DecidedBy::End),
            ] {
                detection.count(Direction::Inbound, &service, verdict, by, took);
            }
        });
        let text = registry.render(&Gauges::default());
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("weft_detections_total{")).collect();
        let labels = "direction=\"inbound\",destination=\"default/mail:25\"";
        let expected = [("server_first", "memory", 2), ("server_first", "server", 1), ("unknown", "end", 1)].map(
            |(protocol, by, count)| {
                format!("weft_detections_total{{{labels},protocol=\"{protocol}\",by=\"{by}\"}} {count}")
            },
        );
        assert_eq!(lines, expected);
        assert!(text.contains(&format!("weft_detection_duration_seconds_count{{{labels}}} 4")), "{text}");
    }
}
