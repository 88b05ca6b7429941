//! How the watches are: for readiness, metrics and people.
//!
//! A watch is synced from its first complete list on until it fails, and again from its next complete list. What it said
//! stays in force meanwhile.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use weft_proxy::telemetry::Gauges;

/// All watches of a control plane, by resource.
#[derive(Debug, Default)]
pub struct Health {
    watches: Mutex<BTreeMap<String, Watched>>,
    is_published: AtomicBool,
}

/// One watch.
#[derive(Debug, Clone, Default)]
struct Watched {
    synced: bool,
    errors: u64,
    /// When it last said anything.
    heard: Option<Instant>,
    /// Since when it is lost, and why.
    lost: Option<(Instant, String)>,
}

/// How one watch is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchStatus {
    /// `PLURAL` or `PLURAL.GROUP`
    pub resource: String,
    /// What is known of the resource is the API server's state.
    pub synced: bool,
    pub errors: u64,
    /// Since it last said anything; `None`: it never did.
    pub last_event_age: Option<Duration>,
    /// For how long it has been lost, and why.
    pub lost: Option<(Duration, String)>,
}

impl Health {
    /// A watch begins to exist.
    pub fn begins(&self, resource: &str) {
        self.watches().entry(resource.to_owned()).or_default();
    }

    /// There is nothing to watch any more.
    pub fn ends(&self, resource: &str) {
        self.watches().remove(resource);
    }

    /// It said something.
    pub fn heard(&self, resource: &str, now: Instant) {
        if let Some(watch) = self.watches().get_mut(resource) {
            watch.heard = Some(now);
        }
    }

    /// It said everything there is. Returns how long it had been lost.
    pub fn synced(&self, resource: &str, now: Instant) -> Option<Duration> {
        let mut watches = self.watches();
        let watch = watches.get_mut(resource)?;
        watch.synced = true;
        watch.lost.take().map(|(since, _)| now.saturating_duration_since(since))
    }

    /// It failed. Returns whether that is news.
    pub fn failed(&self, resource: &str, reason: String, now: Instant) -> bool {
        let mut watches = self.watches();
        let Some(watch) = watches.get_mut(resource) else { return false };
        watch.synced = false;
        watch.errors += 1;
        let is_news = watch.lost.is_none();
        let since = watch.lost.take().map_or(now, |(since, _)| since);
        watch.lost = Some((since, reason));
        is_news
    }

    /// Documents of a complete world have been published.
    pub(in crate::kubernetes) fn published(&self) {
        self.is_published.store(true, Ordering::Release);
    }

    /// Whether all watches have ever been synced at once, so that proxies can be served. A watch that is lost later does
    /// not change that: what it said is the best there is.
    pub fn is_ready(&self) -> bool {
        self.is_published.load(Ordering::Acquire)
    }

    /// All watches, by resource.
    pub fn watches_at(&self, now: Instant) -> Vec<WatchStatus> {
        let since = |then: Instant| now.saturating_duration_since(then);
        let status = |(resource, watch): (&String, &Watched)| WatchStatus {
            resource: resource.clone(),
            synced: watch.synced,
            errors: watch.errors,
            last_event_age: watch.heard.map(since),
            lost: watch.lost.clone().map(|(then, reason)| (since(then), reason)),
        };
        self.watches().iter().map(status).collect()
    }

    /// The same as metrics.
    pub fn gauges(&self, now: Instant, gauges: &mut Gauges) {
        for watch in self.watches_at(now) {
            let labels = [("resource", watch.resource)];
            gauges.add("gauge", "weft_kubernetes_watch_synced", &labels, f64::from(u8::from(watch.synced)));
            gauges.add("counter", "weft_kubernetes_watch_errors_total", &labels, watch.errors as f64);
            let lost = watch.lost.map(|(since, _)| since).unwrap_or_default();
            gauges.add("gauge", "weft_kubernetes_watch_lost_seconds", &labels, lost.as_secs_f64());
            if let Some(age) = watch.last_event_age {
                gauges.add("gauge", "weft_kubernetes_watch_last_event_age_seconds", &labels, age.as_secs_f64());
            }
        }
    }

    /// What is in force though the API server may know better by now, in words.
    pub fn stale(&self, now: Instant) -> Vec<String> {
        let sentence = |watch: WatchStatus| {
            let (since, reason) = watch.lost?;
            let WatchStatus { resource, .. } = watch;
            let seconds = since.as_secs();
            Some(format!(
                "the watch of {resource} has been lost for {seconds} s, and what it said last is in force: {reason}"
            ))
        };
        self.watches_at(now).into_iter().filter_map(sentence).collect()
    }

    /// What is missing until proxies can be served, in words.
    pub fn missing(&self, now: Instant) -> Vec<String> {
        if self.is_ready() {
            return Vec::new();
        }
        let reason = |watch: WatchStatus| match watch.lost {
            Some((_, reason)) => format!("{} ({reason})", watch.resource),
            None => watch.resource,
        };
        let waiting: Vec<String> = self.watches_at(now).into_iter().filter(|watch| !watch.synced).map(reason).collect();
        if waiting.is_empty() { vec!["the first documents".to_owned()] } else { waiting }
    }

    fn watches(&self) -> MutexGuard<'_, BTreeMap<String, Watched>> {
        // A panic between two fields of a record leaves nothing worse than an old figure.
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use weft_proxy::telemetry::Registry;

    use super::*;

    fn pods(health: &Health, now: Instant) -> WatchStatus {
        health.watches_at(now).into_iter().find(|watch| watch.resource == "pods").unwrap()
    }

    #[test]
    fn a_lost_watch_says_since_when_and_why_until_it_is_complete_again() {
        let (health, start) = (Health::default(), weft_proxy::clock::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        health.begins("pods");
        assert!(!pods(&health, at(0)).synced);
        health.heard("pods", at(1));
        assert_eq!(health.synced("pods", at(1)), None);
        assert!(pods(&health, at(1)).synced);
        assert!(health.failed("pods", "refused".into(), at(2)));
        assert!(!health.failed("pods", "timed out".into(), at(5)), "it was lost before");
        let told = "the watch of pods has been lost for 8 s, and what it said last is in force: timed out";
        assert_eq!(health.stale(at(10)), [told]);
        let lost = pods(&health, at(10));
        assert_eq!((lost.synced, lost.errors), (false, 2));
        assert_eq!(lost.lost, Some((Duration::from_secs(8), "timed out".into())));
        assert_eq!(lost.last_event_age, Some(Duration::from_secs(9)));
        assert_eq!(health.synced("pods", at(12)), Some(Duration::from_secs(10)));
        assert_eq!(pods(&health, at(12)).lost, None);
        assert_eq!(health.stale(at(12)), [""; 0]);
    }

    #[test]
    fn metrics_have_a_line_for_each_watch() {
        let (health, now) = (Health::default(), weft_proxy::clock::now());
        for resource in ["pods", "services"] {
            health.begins(resource);
        }
        health.heard("pods", now);
        health.synced("pods", now);
        health.failed("services", "gone".into(), now);
        let mut gauges = Gauges::default();
        health.gauges(now + Duration::from_millis(1500), &mut gauges);
        let text = Registry::default().render(&gauges);
        for line in [
            "weft_kubernetes_watch_synced{resource=\"pods\"} 1",
            "weft_kubernetes_watch_synced{resource=\"services\"} 0",
            "weft_kubernetes_watch_errors_total{resource=\"services\"} 1",
            "weft_kubernetes_watch_lost_seconds{resource=\"services\"} 1.5",
            "weft_kubernetes_watch_lost_seconds{resource=\"pods\"} 0",
            "weft_kubernetes_watch_last_event_age_seconds{resource=\"pods\"} 1.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(!text.contains("age_seconds{resource=\"services\"}"), "it never said anything: {text}");
    }

    #[test]
    fn what_is_missing_is_named_until_the_first_publication() {
        let (health, now) = (Health::default(), weft_proxy::clock::now());
        for resource in ["pods", "services"] {
            health.begins(resource);
        }
        health.synced("services", now);
        health.failed("pods", "forbidden".into(), now);
        assert_eq!(health.missing(now), ["pods (forbidden)"]);
        health.synced("pods", now);
        assert_eq!(health.missing(now), ["the first documents"]);
        health.published();
        health.failed("pods", "gone".into(), now);
        assert_eq!(health.missing(now), [] as [&str; 0], "a lost watch does not make it unready");
    }
}
