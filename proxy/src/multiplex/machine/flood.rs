//! Budgets of frames that cost a peer nothing and us something.
//!
//! Each kind has a bucket of tokens. It is looked after only when it is empty: then it gets what time and useful frames
//! have earned since it was last looked after, up to its size. So a frame costs one subtraction, and a peer is never
//! held to account for less than its budget.

use std::time::Instant;

use super::super::error::Flood;
use super::super::settings::{Budget, FloodBudgets};

/// Tokens are counted in thousandths, so that milliseconds earn whole ones.
const TOKEN: u64 = 1000;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: u64,
    /// Milliseconds since the connection began, and useful frames by then.
    filled_at: u64,
    useful_then: u64,
}

/// The budgets of one connection.
#[derive(Debug)]
pub(super) struct Floods {
    born: Instant,
    buckets: [Bucket; 6],
    /// Frames that carried a part of a message, in either direction.
    useful: u64,
    /// Streams that came to their proper end: what makes up for reset ones.
    completed: u64,
}

impl Floods {
    pub(super) fn new(budgets: &FloodBudgets, now: Instant) -> Self {
        let full = |budget: Budget| Bucket { tokens: u64::from(budget.size) * TOKEN, filled_at: 0, useful_then: 0 };
        let buckets = [
            full(budgets.rapid_reset),
            full(budgets.ping),
            full(budgets.settings),
            full(budgets.priority),
            full(budgets.empty_data),
            full(budgets.window_update),
        ];
        Self { born: now, buckets, useful: 0, completed: 0 }
    }

    pub(super) fn useful(&mut self) {
        self.useful += 1;
    }

    pub(super) fn completed(&mut self) {
        self.completed += 1;
    }

    /// Takes one token of `budgets`; `Err` when they are used up.
    pub(super) fn spend(&mut self, kind: Flood, budgets: &FloodBudgets, now: Instant) -> Result<(), Flood> {
        let (index, budget, earned) = match kind {
            Flood::RapidReset => (0, budgets.rapid_reset, self.completed),
            Flood::Ping => (1, budgets.ping, self.useful),
            Flood::Settings => (2, budgets.settings, self.useful),
            Flood::Priority => (3, budgets.priority, self.useful),
            Flood::EmptyData => (4, budgets.empty_data, self.useful),
            Flood::WindowUpdate => (5, budgets.window_update, self.useful),
            // Bounded by number or by time where they arise.
            Flood::Continuation | Flood::ZeroWindow | Flood::Unread => return Err(kind),
        };
        let bucket = &mut self.buckets[index];
        if bucket.tokens < TOKEN {
            let millis = now.saturating_duration_since(self.born).as_millis() as u64;
            let time = (millis - bucket.filled_at.min(millis)).saturating_mul(u64::from(budget.per_second));
            let useful = (earned - bucket.useful_then).saturating_mul(u64::from(budget.per_useful) * TOKEN);
            bucket.tokens =
                bucket.tokens.saturating_add(time).saturating_add(useful).min(u64::from(budget.size) * TOKEN);
            bucket.filled_at = millis;
            bucket.useful_then = earned;
        }
        bucket.tokens = bucket.tokens.checked_sub(TOKEN).ok_or(kind)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_budget_is_its_size_at_once_and_its_rate_for_ever() {
        let start = crate::clock::now();
        let budgets = FloodBudgets::default();
        let mut floods = Floods::new(&budgets, start);
        let size = budgets.ping.size;
        for index in 0..size {
            assert_eq!(floods.spend(Flood::Ping, &budgets, start), Ok(()), "{index}");
        }
        assert_eq!(floods.spend(Flood::Ping, &budgets, start), Err(Flood::Ping));
        let later = start + Duration::from_secs(1);
        for index in 0..budgets.ping.per_second {
            assert_eq!(floods.spend(Flood::Ping, &budgets, later), Ok(()), "{index}");
        }
        assert_eq!(floods.spend(Flood::Ping, &budgets, later), Err(Flood::Ping));
        floods.useful();
        assert_eq!(floods.spend(Flood::Ping, &budgets, later), Ok(()));
        assert_eq!(floods.spend(Flood::Ping, &budgets, later), Err(Flood::Ping));
        assert_eq!(floods.spend(Flood::Settings, &budgets, later), Ok(()), "kinds are counted apart");
    }
}
