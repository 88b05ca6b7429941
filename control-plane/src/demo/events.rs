//! What happened: ejections and returns, proxies that fall silent, told from changes between intervals.
//!
//! Proxies count ejections, and may or may not say which endpoint it was. Where they do not, a name is given only when
//! exactly one replica of the destination failed in this or the last interval, or fell silent; otherwise the event
//! stays without a name rather than guessing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::edges::{Edge, Replica, short};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// `source` stopped sending to a replica of `destination`, `times` times since the last look.
    Ejected { source: String, destination: String, replica: Option<String>, times: u64 },
    /// It sends there again.
    Returned { source: String, destination: String, replica: Option<String>, times: u64 },
    /// A proxy gives no metrics.
    Silent { proxy: String },
    /// It gives metrics again.
    Heard { proxy: String },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = |replica: &Option<String>, destination: &str, times: u64| match replica {
            Some(replica) => replica.clone(),
            None if times == 1 => format!("a replica of {}", short(destination)),
            None => format!("{times} replicas of {}", short(destination)),
        };
        match self {
            Self::Ejected { source, destination, replica, times } => {
                let repeated = if replica.is_some() && *times > 1 { format!(", {times} times") } else { String::new() };
                write!(f, "{} ejected by {}{repeated}", who(replica, destination, *times), short(source))
            }
            Self::Returned { source, destination, replica, times } => {
                write!(f, "{} back for {}", who(replica, destination, *times), short(source))
            }
            Self::Silent { proxy } => write!(f, "the proxy of {} is silent", short(proxy)),
            Self::Heard { proxy } => write!(f, "the proxy of {} answers again", short(proxy)),
        }
    }
}

/// What is known of an edge's ejected endpoints.
#[derive(Debug, Default)]
struct Out {
    count: u64,
    /// Those the proxy names.
    named: BTreeSet<String>,
    /// Those concluded, since all endpoints were last in.
    concluded: BTreeSet<String>,
    /// Whether an ejection since then had no name, which makes every return ambiguous.
    ambiguous: bool,
}

/// Turns intervals into events.
#[derive(Debug, Default)]
pub struct Observer {
    out: BTreeMap<(String, String), Out>,
    failing: BTreeSet<(String, String)>,
    silent: BTreeSet<String>,
}

impl Observer {
    /// What happened in the interval that brought these figures; `silent` are the workloads whose proxies gave none.
    pub fn observe(&mut self, edges: &[Edge], replicas: &[Replica], silent: &BTreeSet<String>) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        events.extend(silent.difference(&self.silent).map(|proxy| Event::Silent { proxy: proxy.clone() }));
        events.extend(self.silent.difference(silent).map(|proxy| Event::Heard { proxy: proxy.clone() }));
        self.silent.clone_from(silent);
        let failing: BTreeSet<(String, String)> = replicas
            .iter()
            .filter(|replica| replica.failures > 0.0 || silent.iter().any(|name| short(name) == replica.name))
            .map(|replica| (replica.destination.clone(), replica.name.clone()))
            .collect();
        for edge in edges {
            let suspects: BTreeSet<&str> = failing
                .union(&self.failing)
                .filter(|(destination, _)| *destination == edge.destination)
                .map(|(_, name)| name.as_str())
                .collect();
            let out = self.out.entry((edge.source.clone(), edge.destination.clone())).or_default();
            changes(out, edge, &suspects, &mut events);
            out.count = edge.ejected;
        }
        self.failing = failing;
        events
    }
}

fn changes(out: &mut Out, edge: &Edge, suspects: &BTreeSet<&str>, events: &mut Vec<Event>) {
    // Also an ejection that came and went between two looks is counted, and so is its return.
    let mut ejections = (edge.ejections.round() as u64).max(edge.ejected.saturating_sub(out.count));
    let mut returns = (out.count + ejections).saturating_sub(edge.ejected);
    for name in edge.out.difference(&out.named) {
        events.push(ejected(edge, Some(name.clone()), 1));
        ejections = ejections.saturating_sub(1);
    }
    if ejections > 0 {
        let name = only(suspects.iter().copied()).map(str::to_owned);
        out.ambiguous |= name.is_none();
        out.concluded.extend(name.clone());
        events.push(ejected(edge, name, ejections));
    }
    for name in out.named.difference(&edge.out) {
        events.push(returned(edge, Some(name.clone()), 1));
        returns = returns.saturating_sub(1);
    }
    if returns > 0 {
        let name = only(out.concluded.iter().cloned()).filter(|_| !out.ambiguous);
        events.push(returned(edge, name, returns));
    }
    if edge.ejected == 0 {
        out.concluded.clear();
        out.ambiguous = false;
    }
    out.named.clone_from(&edge.out);
}

fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next()?;
    items.next().is_none().then_some(first)
}

fn ejected(edge: &Edge, replica: Option<String>, times: u64) -> Event {
    Event::Ejected { source: edge.source.clone(), destination: edge.destination.clone(), replica, times }
}

fn returned(edge: &Edge, replica: Option<String>, times: u64) -> Event {
    Event::Returned { source: edge.source.clone(), destination: edge.destination.clone(), replica, times }
}

#[cfg(test)]
mod tests;
