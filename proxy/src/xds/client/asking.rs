//! Which destinations the session asks for: those that connections asked for, within bounds.
//!
//! An address is asked for by two names: who has this port of it, and who has the address at all. Both stay asked for as long
//! as somebody may call again. With one answer too many the one goes that was used longest ago and has no connection;
//! where all have one, the bound is that of connections. What nobody used for [`UNUSED`] goes too, but never while the
//! control plane is away: nobody could ask again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::clock;
use crate::state::{AskedSummary, Demand, Kind, Store, names};
use crate::xds::session::{Answer, Output, Session};

/// An address that nobody called for so long is given up.
const UNUSED: Duration = Duration::from_hours(1);
/// Shortest time between two looks for such: connections that stay open make the next look due at once.
const LOOK: Duration = Duration::from_mins(5);
/// Addresses taken from the queue at once: one request names them all.
const BATCH: usize = 256;

/// Where the asks of connections arrive.
#[derive(Debug)]
pub struct Asks {
    /// One that [asks](Store::on_demand).
    pub store: Arc<Store>,
    pub asks: mpsc::Receiver<SocketAddr>,
}

/// What is asked for.
#[derive(Debug)]
pub(super) struct Asking {
    store: Arc<Store>,
    /// By address, with the ports of each.
    asked: BTreeMap<IpAddr, BTreeSet<u16>>,
    awaited: BTreeSet<SocketAddr>,
    /// When unused ones are looked for; `None` while nothing is asked for.
    next_look: Option<Instant>,
}

impl Asking {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store, asked: BTreeMap::new(), awaited: BTreeSet::new(), next_look: None }
    }

    /// Takes up what an earlier life used.
    pub(super) fn restore(&mut self, session: &mut Session, asked: &[SocketAddr]) {
        let now = clock::now();
        if let Some(demand) = self.store.demand() {
            for address in asked {
                demand.restore(*address, now);
            }
        }
        self.ask(session, asked, now);
    }

    /// A stream is open, or is no more.
    pub(super) fn connected(&self, is_connected: bool) {
        if let Some(demand) = self.store.demand() {
            demand.connected(is_connected);
        }
    }

    /// Asks for these too.
    pub(super) fn ask(&mut self, session: &mut Session, batch: &[SocketAddr], now: Instant) -> Output {
        let mut wanted = Vec::new();
        for address in batch {
            self.asked.entry(address.ip()).or_default().insert(address.port());
            self.awaited.insert(*address);
            wanted.extend(names(*address).map(Arc::from));
        }
        if !self.asked.is_empty() {
            self.next_look.get_or_insert(now + UNUSED);
        }
        session.ask(wanted)
    }

    /// After something was said and put in force: tells those who wait. What comes out makes room for the new.
    pub(super) fn told(&mut self, session: &mut Session, told: &[Arc<str>]) -> Option<Output> {
        let mut touched = self.awaited.clone();
        for name in told {
            if let Ok(address) = name.parse::<SocketAddr>() {
                touched.insert(address);
            } else if let Ok(ip) = name.parse::<IpAddr>() {
                let ports = self.asked.get(&ip).into_iter().flatten();
                touched.extend(ports.map(|port| SocketAddr::new(ip, *port)));
            }
        }
        if touched.is_empty() {
            return None;
        }
        let store = Arc::clone(&self.store);
        let demand = store.demand()?;
        for address in touched {
            let answer = answer(session, address);
            if !demand.answer(address, answer) || answer.is_some() {
                self.awaited.remove(&address);
            } else {
                self.awaited.insert(address);
            }
        }
        let surplus = self.surplus(demand);
        measure(demand);
        (!surplus.is_empty()).then(|| self.give_up(session, &surplus))
    }

    /// Gives up what nobody used for long.
    pub(super) fn give_up_unused(&mut self, session: &mut Session, now: Instant) -> Output {
        let store = Arc::clone(&self.store);
        let Some(demand) = store.demand() else { return Output::default() };
        let (mut unused, mut next) = (Vec::new(), None);
        for AskedSummary { address, open, last, .. } in demand.summaries(|address| store.usage(address)) {
            if open == 0 && last + UNUSED <= now {
                unused.push(address);
            } else {
                let due = (last + UNUSED).max(now + LOOK);
                next = Some(next.map_or(due, |next: Instant| next.min(due)));
            }
        }
        self.next_look = next;
        self.give_up(session, &unused)
    }

    /// Addresses that somebody has.
    pub(super) fn used(&self) -> Vec<SocketAddr> {
        let Some(demand) = self.store.demand() else { return Vec::new() };
        let all = demand.summaries(|_| None);
        let is_used = |asked: &AskedSummary| matches!(asked.answer, Some(Kind::Service | Kind::Peer));
        let mut used: Vec<_> = all.into_iter().filter(is_used).map(|asked| asked.address).collect();
        used.sort_unstable();
        used
    }

    /// The ones too many of each sort, those used longest ago.
    fn surplus(&self, demand: &Demand) -> Vec<SocketAddr> {
        let limits = demand.limits();
        let [services, peers, nobodies] = demand.counts();
        let mut surplus = Vec::new();
        let sorts = [(nobodies, limits.nobodies, true), (services + peers, limits.somebodies, false)];
        for (count, limit, is_nobody) in sorts {
            if count <= limit {
                continue;
            }
            let mut idle: Vec<AskedSummary> = demand.summaries(|address| self.store.usage(address));
            idle.retain(|asked| {
                asked.open == 0 && asked.answer.is_some_and(|kind| (kind == Kind::Nobody) == is_nobody)
            });
            idle.sort_unstable_by_key(|asked| (asked.last, asked.address));
            surplus.extend(idle.iter().take(count - limit).map(|asked| asked.address));
        }
        surplus
    }

    fn give_up(&mut self, session: &mut Session, addresses: &[SocketAddr]) -> Output {
        let mut unwanted = Vec::new();
        for address in addresses {
            let [of_port, of_address] = names(*address);
            unwanted.push(of_port);
            self.awaited.remove(address);
            if let Some(ports) = self.asked.get_mut(&address.ip()) {
                ports.remove(&address.port());
                if ports.is_empty() {
                    self.asked.remove(&address.ip());
                    unwanted.push(of_address);
                }
            }
            // First here: who comes from now on asks anew, and is asked for again after this.
            if let Some(demand) = self.store.demand() {
                demand.forget(*address);
            }
        }
        if self.asked.is_empty() {
            self.next_look = None;
        }
        if let Some(demand) = self.store.demand() {
            measure(demand);
        }
        session.give_up(unwanted.iter().map(String::as_str))
    }
}

/// The next addresses that connections ask for; never returns where there are none.
pub(super) async fn next(asks: &mut Option<mpsc::Receiver<SocketAddr>>) -> Vec<SocketAddr> {
    let mut batch = Vec::new();
    if let Some(asks) = asks
        && asks.recv_many(&mut batch, BATCH).await > 0
    {
        return batch;
    }
    std::future::pending().await
}

/// Waits until it is time to look for unused ones.
pub(super) async fn look_is_due(asking: Option<&Asking>) {
    match asking.and_then(|asking| asking.next_look) {
        Some(at) => tokio::time::sleep(at.saturating_duration_since(clock::now())).await,
        None => std::future::pending().await,
    }
}

/// Who is behind an address, once both names are answered as far as they matter.
fn answer(session: &Session, address: SocketAddr) -> Option<Kind> {
    let [of_port, of_address] = names(address);
    match (session.answer(&of_port), session.answer(&of_address)) {
        (Answer::Service, _) => Some(Kind::Service),
        (Answer::Awaited, _) | (_, Answer::Awaited) => None,
        (_, Answer::Peer) => Some(Kind::Peer),
        (Answer::Peer | Answer::Nobody, _) => Some(Kind::Nobody),
    }
}

fn measure(demand: &Demand) {
    for (kind, count) in Kind::ALL.into_iter().zip(demand.counts()) {
        metrics::gauge!("weft_destinations", "kind" => kind.label()).set(count as f64);
    }
}

#[cfg(test)]
mod tests;
