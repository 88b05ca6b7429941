//! What a run came to: totals, shares, and in plain words what the mesh did about replicas that stood out.
//!
//! Every sentence is drawn from the figures; which replica is slow or failing is concluded, not known.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::edges::{Edge, Replica, shares, short};
use super::events::Event;
use super::table::{millis, percent, render_replicas, render_totals};

/// A replica is slow when its median is this many times that of the others ...
const SLOW_FACTOR: f64 = 3.0;
/// ... and this much more, in milliseconds: nobody misses less.
const SLOW_MILLIS: f64 = 5.0;
/// A replica is failing when more than this fraction of its answers are failures.
const FAILING: f64 = 0.01;
/// A replica was spared when it got less than this part of an even share.
const SPARED: f64 = 0.8;

/// The sum of all intervals of a run.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    elapsed: Duration,
    edges: BTreeMap<(String, String), Edge>,
    replicas: BTreeMap<(String, String), Replica>,
    /// Ejections of replicas whose name is known, by destination and name.
    ejections: BTreeMap<(String, String), u64>,
}

impl Summary {
    /// Takes in an interval.
    pub fn add(&mut self, elapsed: Duration, edges: &[Edge], replicas: &[Replica], events: &[Event]) {
        self.elapsed += elapsed;
        for edge in edges {
            self.edges
                .entry((edge.source.clone(), edge.destination.clone()))
                .and_modify(|total| total.extend(edge))
                .or_insert_with(|| edge.clone());
        }
        for replica in replicas {
            self.replicas
                .entry((replica.destination.clone(), replica.name.clone()))
                .and_modify(|total| total.extend(replica))
                .or_insert_with(|| replica.clone());
        }
        for event in events {
            if let Event::Ejected { destination, replica: Some(replica), times, .. } = event {
                *self.ejections.entry((destination.clone(), replica.clone())).or_default() += times;
            }
        }
    }

    /// The totals per edge.
    pub fn edges(&self) -> Vec<Edge> {
        self.edges.values().cloned().collect()
    }

    /// The totals per replica.
    pub fn replicas(&self) -> Vec<Replica> {
        self.replicas.values().cloned().collect()
    }

    /// The summary as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        let replicas = self.replicas();
        let shares = shares(&replicas);
        serde_json::json!({
            "summary": true,
            "seconds": self.elapsed.as_secs_f64(),
            "edges": self.edges.values().map(Edge::to_json).collect::<Vec<_>>(),
            "replicas": replicas.iter().zip(shares).map(|(replica, share)| replica.to_json(share)).collect::<Vec<_>>(),
            "verdicts": self.verdicts(),
        })
    }

    /// The summary as text.
    pub fn render(&self, width: usize, colour: bool) -> String {
        if self.edges.is_empty() {
            return "No traffic was seen.\n".to_owned();
        }
        let mut text = format!("In {:.0} seconds:\n\n", self.elapsed.as_secs_f64());
        text.push_str(&render_totals(&self.edges(), width, colour));
        let replicas = render_replicas(&self.replicas(), width, colour);
        if !replicas.is_empty() {
            text.push('\n');
            text.push_str(&replicas);
        }
        text.push('\n');
        for verdict in self.verdicts() {
            let _ = writeln!(text, "{verdict}");
        }
        text
    }

    /// A sentence or two for each replica that was slow or failing.
    pub fn verdicts(&self) -> Vec<String> {
        let all = self.replicas();
        let mut verdicts = Vec::new();
        for group in all.chunk_by(|a, b| a.destination == b.destination).filter(|group| group.len() > 1) {
            for (replica, share) in group.iter().zip(shares(group)) {
                let even = 1.0 / group.len() as f64;
                let share = share.unwrap_or_default();
                verdicts.extend(self.failing(replica, share, even));
                verdicts.extend(slow(replica, group, share, even));
            }
        }
        if verdicts.is_empty() && !self.edges.is_empty() {
            verdicts.push("No replica was markedly slower than its peers or failed.".to_owned());
        }
        verdicts
    }

    fn failing(&self, replica: &Replica, share: f64, even: f64) -> Option<String> {
        if replica.answered <= 0.0 || replica.failures / replica.answered <= FAILING {
            return None;
        }
        let mut text =
            format!("{} failed {:.0} of its {:.0} requests", replica.name, replica.failures, replica.answered);
        let towards: Vec<&Edge> = self.edges.values().filter(|edge| edge.destination == replica.destination).collect();
        let sum = |of: fn(&Edge) -> f64| towards.iter().map(|edge| of(edge)).sum::<f64>();
        let ejections = sum(|edge| edge.ejections);
        let named = self.ejections.get(&(replica.destination.clone(), replica.name.clone())).copied().unwrap_or(0);
        if named > 0 {
            let _ = write!(text, "; it was ejected {}", times(named as f64));
        } else if ejections > 0.0 {
            let _ = write!(text, "; replicas of {} were ejected {}", short(&replica.destination), times(ejections));
        } else {
            text.push_str("; it was never ejected");
        }
        let _ = write!(text, " and got {} of the requests ({} would be even). ", share_of(share), share_of(even));
        let (requests, seen) = (sum(|edge| edge.requests), sum(|edge| edge.failures));
        let made: f64 = self
            .replicas
            .values()
            .filter(|other| other.destination == replica.destination)
            .map(|other| other.failures)
            .sum();
        let _ = write!(
            text,
            "Callers saw {seen:.0} of {made:.0} failures in {requests:.0} requests (success {}); {:.0} requests were retried.",
            percent(if requests > 0.0 { 1.0 - seen / requests } else { 1.0 }),
            sum(|edge| edge.retries),
        );
        Some(text)
    }
}

fn slow(replica: &Replica, group: &[Replica], share: f64, even: f64) -> Option<String> {
    let own = replica.latency.millis(0.5)?;
    let mut others: Vec<f64> =
        group.iter().filter(|other| other.name != replica.name).filter_map(|other| other.latency.millis(0.5)).collect();
    others.sort_by(f64::total_cmp);
    let typical = *others.get(others.len().checked_sub(1)? / 2)?;
    if own < typical * SLOW_FACTOR || own - typical < SLOW_MILLIS {
        return None;
    }
    let verdict = if share < even * SPARED {
        format!("balancing gave it {} of the requests where {} would be even", share_of(share), share_of(even))
    } else {
        format!(
            "balancing did not spare it: it got {} of the requests, and {} would be even",
            share_of(share),
            share_of(even)
        )
    };
    Some(format!(
        "{} was slow (median {} ms; its peers {} ms): {verdict}.",
        replica.name,
        millis(Some(own)),
        millis(Some(typical))
    ))
}

fn share_of(fraction: f64) -> String {
    format!("{:.1}%", fraction * 100.0)
}

fn times(count: f64) -> String {
    if count.round() <= 1.0 { "once".to_owned() } else { format!("{count:.0} times") }
}

#[cfg(test)]
mod tests;
