//! Which ends of a try call for another one, as a policy says.
//!
//! Pure: whoever sends the requests asks here what an end means, and has to know himself whether the request can be
//! sent again. An end that leaves open whether the application has acted calls for another try only where acting twice is
//! the same as acting once: a policy made for reads must not order the same thing twice.

use std::time::Duration;

/// Most tries after the first that a policy may ask for. 10: each multiplies the load of a service that fails.
pub const MOST_RETRIES: u32 = 10;

/// When a request is tried again, and how long one try may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    pub on: Conditions,
    /// Tries after the first, at most [`MOST_RETRIES`].
    pub retries: u32,
    /// From the choice of an endpoint (for a request with a body, from when all of it was passed on) to the head of its
    /// answer.
    pub per_try_timeout: Option<Duration>,
    pub back_off: BackOff,
}

/// What calls for another try.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Conditions {
    /// The endpoint was not reached.
    pub connect_failure: bool,
    /// The endpoint said that it did not look at the request.
    pub refused: bool,
    /// The endpoint gave no answer: it went away, gave the request up, or took too long.
    pub reset: bool,
    /// As [`Self::reset`], but only before any of the request was sent.
    pub reset_before_request: bool,
    /// Answers 500 to 599, and no answer.
    pub server_error: bool,
    /// Answers 502, 503 and 504, and no answer.
    pub gateway_error: bool,
    /// Answer 409.
    pub conflict: bool,
    /// Answers that an operator has named.
    pub statuses: Vec<u16>,
    /// Statuses of gRPC that stand in the answer's head, a bit each.
    pub grpc: u32,
}

/// Waits between tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff {
    /// Limit of the first wait; it doubles with each further one.
    pub base: Duration,
    pub longest: Duration,
}

impl Default for BackOff {
    /// 25 ms and ten times that, as in the field.
    fn default() -> Self {
        Self { base: Duration::from_millis(25), longest: Duration::from_millis(250) }
    }
}

impl BackOff {
    /// The wait before the next try, when `done` tries after the first were made: any time below a limit that doubles.
    /// Drawn anew for each request, so that those that failed together do not come back together.
    pub fn wait(&self, done: u32, chance: &mut fastrand::Rng) -> Duration {
        let limit = self.base.saturating_mul(2_u32.saturating_pow(done)).min(self.longest);
        limit.mul_f64(chance.f64())
    }
}

/// How a try ended without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// Before anything of the request was sent.
    NotReached,
    /// The endpoint said that it did not look at the request.
    Refused,
    /// The application may have seen it.
    NoAnswer,
}

/// Whether an end calls for another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    No,
    /// Where doing it twice is the same as doing it once.
    IfIdempotent,
    Yes,
}

impl Conditions {
    /// The policy's word on a try without an answer. `nothing_sent`: not one byte of the request was written.
    pub fn of_loss(&self, lost: Lost, nothing_sent: bool) -> Verdict {
        let any = self.reset || self.server_error || self.gateway_error || nothing_sent && self.reset_before_request;
        match lost {
            Lost::NotReached if any || self.connect_failure => Verdict::Yes,
            Lost::Refused if any || self.refused => Verdict::Yes,
            Lost::NoAnswer if any && nothing_sent => Verdict::Yes,
            Lost::NoAnswer if any => Verdict::IfIdempotent,
            _ => Verdict::No,
        }
    }

    /// The policy's word on an answer. `grpc`: the status that stands in its head, where it answers a call.
    pub fn of_answer(&self, status: u16, grpc: Option<u8>) -> Verdict {
        // Named one by one: whoever names them knows what his application means by them.
        let is_named = self.statuses.contains(&status)
            || self.conflict && status == 409
            || grpc.is_some_and(|code| code < 32 && self.grpc & 1 << code != 0);
        let is_of_class =
            self.server_error && (500..600).contains(&status) || self.gateway_error && matches!(status, 502..=504);
        match (is_named, is_of_class) {
            (true, _) => Verdict::Yes,
            (false, true) => Verdict::IfIdempotent,
            (false, false) => Verdict::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut Conditions)) -> Conditions {
        let mut conditions = Conditions::default();
        change(&mut conditions);
        conditions
    }

    #[test]
    fn what_may_have_acted_is_asked_again_only_where_twice_is_once() {
        use Lost::{NoAnswer, NotReached, Refused};
        use Verdict::{IfIdempotent, No, Yes};
        let none = Conditions::default();
        let connect = with(|on| on.connect_failure = true);
        let refused = with(|on| on.refused = true);
        let reset = with(|on| on.reset = true);
        let early = with(|on| on.reset_before_request = true);
        let class = with(|on| on.server_error = true);
        let gateway = with(|on| on.gateway_error = true);
        let table: &[(&Conditions, Lost, bool, Verdict)] = &[
            (&none, NotReached, true, No),
            (&none, NoAnswer, false, No),
            (&connect, NotReached, true, Yes),
            (&connect, Refused, false, No),
            (&connect, NoAnswer, false, No),
            (&refused, Refused, false, Yes),
            (&refused, NotReached, true, No),
            (&reset, NotReached, true, Yes),
            (&reset, Refused, false, Yes),
            (&reset, NoAnswer, false, IfIdempotent),
            (&reset, NoAnswer, true, Yes),
            (&early, NoAnswer, true, Yes),
            (&early, NoAnswer, false, No),
            (&class, NoAnswer, false, IfIdempotent),
            (&class, NotReached, true, Yes),
            (&gateway, NoAnswer, false, IfIdempotent),
        ];
        for (index, (on, lost, nothing_sent, expected)) in table.iter().enumerate() {
            assert_eq!(on.of_loss(*lost, *nothing_sent), *expected, "row {index}");
        }
    }

    #[test]
    fn answers_that_are_named_count_for_every_method_and_classes_for_those_that_can_be_repeated() {
        use Verdict::{IfIdempotent, No, Yes};
        let class = with(|on| on.server_error = true);
        let gateway = with(|on| on.gateway_error = true);
        let conflict = with(|on| on.conflict = true);
        let named = with(|on| on.statuses = vec![418, 503]);
        let unavailable = with(|on| on.grpc = 1 << 14);
        let table: &[(&Conditions, u16, Option<u8>, Verdict)] = &[
            (&class, 500, None, IfIdempotent),
            (&class, 599, None, IfIdempotent),
            (&class, 499, None, No),
            (&gateway, 500, None, No),
            (&gateway, 502, None, IfIdempotent),
            (&gateway, 504, None, IfIdempotent),
            (&gateway, 505, None, No),
            (&conflict, 409, None, Yes),
            (&conflict, 404, None, No),
            (&named, 418, None, Yes),
            (&named, 503, None, Yes),
            (&named, 500, None, No),
            (&unavailable, 200, Some(14), Yes),
            (&unavailable, 200, Some(13), No),
            (&unavailable, 200, Some(255), No),
            (&unavailable, 503, None, No),
        ];
        for (index, (on, status, grpc, expected)) in table.iter().enumerate() {
            assert_eq!(on.of_answer(*status, *grpc), *expected, "row {index}");
        }
    }

    #[test]
    fn waits_double_up_to_the_longest_and_spread() {
        let back_off = BackOff::default();
        for seed in 0..200 {
            let mut chance = fastrand::Rng::with_seed(seed);
            for (done, limit) in [(0, 25), (1, 50), (2, 100), (3, 200), (4, 250), (u32::MAX, 250)] {
                let wait = back_off.wait(done, &mut chance);
                assert!(wait <= Duration::from_millis(limit), "seed {seed}: {wait:?} after {done}");
            }
        }
        let mut chance = fastrand::Rng::with_seed(1);
        let waits: Vec<_> = (0..100).map(|_| back_off.wait(4, &mut chance).as_millis()).collect();
        assert!(waits.iter().any(|wait| *wait < 50) && waits.iter().any(|wait| *wait > 200), "{waits:?}");
    }
}
