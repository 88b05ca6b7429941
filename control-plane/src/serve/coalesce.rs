//! When a change goes out: the first at once, those right behind it in bundles.

use std::time::{Duration, Instant};

/// Changes this close together go out together. A rollout changes endpoints every few milliseconds; one endpoint alone
/// must not wait for company.
const QUIET: Duration = Duration::from_millis(10);

/// No change waits longer than this, however many follow it.
const CAP: Duration = Duration::from_millis(200);

/// Times of one stream's changes.
#[derive(Debug, Default)]
pub struct Coalesce {
    released: Option<Instant>,
    /// First and last change since then.
    waiting: Option<(Instant, Instant)>,
}

impl Coalesce {
    pub fn change(&mut self, now: Instant) {
        let first = self.waiting.map_or(now, |(first, _)| first);
        self.waiting = Some((first, now));
    }

    /// When the waiting changes are to go out.
    pub fn due(&self) -> Option<Instant> {
        let (first, last) = self.waiting?;
        let alone = self.released.is_none_or(|released| released + QUIET <= first);
        Some(if alone { first } else { (last + QUIET).min(first + CAP) })
    }

    pub fn release(&mut self, now: Instant) {
        self.waiting = None;
        self.released = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_lone_change_goes_out_at_once() {
        let start = weft_proxy::clock::now();
        let mut coalesce = Coalesce::default();
        assert_eq!(coalesce.due(), None);
        for at in [0, 10, 5000] {
            let now = start + ms(at);
            coalesce.change(now);
            assert_eq!(coalesce.due(), Some(now));
            coalesce.release(now);
        }
    }

    #[test]
    fn changes_behind_the_first_wait_until_it_is_quiet() {
        let start = weft_proxy::clock::now();
        let mut coalesce = Coalesce::default();
        coalesce.change(start);
        coalesce.release(start);
        coalesce.change(start + ms(3));
        assert_eq!(coalesce.due(), Some(start + ms(13)));
        coalesce.change(start + ms(9));
        assert_eq!(coalesce.due(), Some(start + ms(19)));
    }

    #[test]
    fn no_change_waits_beyond_the_cap() {
        let start = weft_proxy::clock::now();
        let mut coalesce = Coalesce::default();
        coalesce.change(start);
        coalesce.release(start);
        for at in 1..500 {
            coalesce.change(start + ms(at));
        }
        assert_eq!(coalesce.due(), Some(start + ms(201)));
    }
}
