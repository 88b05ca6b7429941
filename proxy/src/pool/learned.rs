//! How long idle connections to an endpoint may be kept, from what the endpoint says and does.
//!
//! Whoever closes first loses no request: a request that meets a closing connection cannot always be sent again. So a
//! connection is dropped before its endpoint would close it. Endpoints say when that is (`Keep-Alive: timeout=5`), or
//! show it: a connection found closed while idle was closed at an age between the last look and this one. Endpoints close
//! for other reasons too (they restart), so a close counts for a minute only, until a later one at about the same age
//! confirms it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Endpoints something is remembered of; beyond that the default holds for the others.
const MOST: usize = 4096;

/// How long idle connections are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleTimes {
    /// With nothing learned. 55 s: servers of the field close after 60 s or more.
    pub longest: Duration,
    /// Before the moment the endpoint is expected to close. 3 s: a request may be long on its way. At most half of the time
    /// goes for it, so that an endpoint that closes after 2 s still gets connections used twice.
    pub margin: Duration,
    /// Never shorter. 50 ms: under load a connection is taken again sooner.
    pub shortest: Duration,
    /// How long one close counts. 60 s.
    pub doubted: Duration,
    /// How long it counts once confirmed. 30 min: a server's settings change rarely.
    pub believed: Duration,
    /// How often idle connections are looked at, while there are any. 1 s: a close is dated by the looks around it.
    pub look: Duration,
}

impl Default for IdleTimes {
    fn default() -> Self {
        Self {
            longest: Duration::from_secs(55),
            margin: Duration::from_secs(3),
            shortest: Duration::from_millis(50),
            doubted: Duration::from_mins(1),
            believed: Duration::from_mins(30),
            look: Duration::from_secs(1),
        }
    }
}

impl IdleTimes {
    /// How long to keep what its endpoint closes at `age`.
    fn before(&self, age: Duration) -> Duration {
        age.saturating_sub(self.margin.min(age / 2)).max(self.shortest).min(self.longest)
    }
}

/// What is known of endpoints.
#[derive(Debug, Default)]
pub(super) struct Learned {
    times: IdleTimes,
    by_address: HashMap<SocketAddr, Seen>,
}

/// Closes of one endpoint.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Idle age at which connections were still open when last looked at before they were found closed.
    age: Duration,
    at: Instant,
    is_confirmed: bool,
}

impl Learned {
    pub(super) fn new(times: IdleTimes) -> Self {
        Self { times, by_address: HashMap::new() }
    }

    pub(super) fn times(&self) -> &IdleTimes {
        &self.times
    }

    /// How long a connection to `endpoint` is kept from now on; `said` is the timeout of its last answer.
    pub(super) fn keep(&self, endpoint: SocketAddr, said: Option<Duration>, now: Instant) -> Duration {
        let mut keep = said.map_or(self.times.longest, |said| self.times.before(said));
        if !self.by_address.is_empty()
            && let Some(seen) = self.by_address.get(&endpoint).filter(|seen| seen.counts(&self.times, now))
        {
            keep = keep.min(self.times.before(seen.age));
        }
        keep
    }

    /// A connection was found closed that was still open at the idle age `age`.
    pub(super) fn closed(&mut self, endpoint: SocketAddr, age: Duration, now: Instant) {
        let new = Seen { age, at: now, is_confirmed: false };
        if let Some(seen) = self.by_address.get_mut(&endpoint) {
            let (less, more) = (seen.age.min(age), seen.age.max(age));
            let is_like = more.saturating_sub(less) <= (more / 4).max(self.times.look);
            // Many connections closed at one time are one event, however alike their ages.
            let is_later = now.saturating_duration_since(seen.at) >= self.times.look * 2;
            if is_like {
                *seen = Seen { age: less, at: now, is_confirmed: seen.is_confirmed || is_later };
            } else if age < seen.age || !seen.counts(&self.times, now) {
                *seen = new;
            }
            return;
        }
        if self.by_address.len() >= MOST {
            let times = self.times;
            self.by_address.retain(|_, seen| seen.counts(&times, now));
        }
        if self.by_address.len() < MOST {
            self.by_address.insert(endpoint, new);
        }
    }
}

impl Seen {
    fn counts(&self, times: &IdleTimes, now: Instant) -> bool {
        let limit = if self.is_confirmed { times.believed } else { times.doubted };
        now.saturating_duration_since(self.at) < limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn endpoint() -> SocketAddr {
        ([10, 0, 0, 1], 80).into()
    }

    #[test]
    fn connections_are_dropped_before_their_endpoint_says_it_closes_them() {
        let (now, learned) = (crate::clock::now(), Learned::default());
        let table =
            [(None, 55_000), (Some(60), 55_000), (Some(10), 7_000), (Some(5), 2_500), (Some(1), 500), (Some(0), 50)];
        for (said, kept) in table {
            assert_eq!(learned.keep(endpoint(), said.map(S), now), Duration::from_millis(kept), "{said:?}");
        }
    }

    #[test]
    fn one_close_is_doubted_and_a_second_of_its_kind_believed() {
        let now = crate::clock::now();
        let mut learned = Learned::default();
        learned.closed(endpoint(), S(10), now);
        assert_eq!(learned.keep(endpoint(), None, now), S(7));
        assert_eq!(learned.keep(([10, 0, 0, 2], 80).into(), None, now), S(55));
        assert_eq!(learned.keep(endpoint(), None, now + S(61)), S(55), "believed too long");
        learned.closed(endpoint(), S(10), now + S(71));
        assert_eq!(learned.keep(endpoint(), None, now + S(1000)), S(7), "not believed");
        assert_eq!(learned.keep(endpoint(), None, now + S(3000)), S(55), "never forgotten");
    }

    #[test]
    fn a_restart_is_soon_forgotten() {
        let now = crate::clock::now();
        let mut learned = Learned::default();
        for age in [30, 30, 4, 4, 17] {
            learned.closed(endpoint(), S(age), now);
        }
        assert_eq!(learned.keep(endpoint(), None, now), Duration::from_secs(2), "the shortest counts");
        assert_eq!(learned.keep(endpoint(), None, now + S(61)), S(55));
    }

    #[test]
    fn memory_is_bounded() {
        let now = crate::clock::now();
        let mut learned = Learned::default();
        for index in 0..2 * MOST as u32 {
            learned.closed((std::net::Ipv4Addr::from(index), 80).into(), S(10), now);
        }
        assert_eq!(learned.by_address.len(), MOST);
        learned.closed(endpoint(), S(10), now + S(3600));
        assert_eq!(learned.by_address.len(), 1);
    }
}
