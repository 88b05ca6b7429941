//! When to renew and how long to pause; pure.

use std::time::{Duration, SystemTime};

/// First pause after a failure: a control plane that restarts is back within it or a few of it.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause of a proxy that has a certificate: what a returned control plane waits for its last proxy, and what it
/// bears of them meanwhile.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Longest pause of a proxy without one, beside which nothing of the mesh works yet.
const LONGEST_FIRST_PAUSE: Duration = Duration::from_secs(5);

/// When to renew a certificate obtained `now`: at half of what is left of its life, give or take 5 % of it, so that
/// proxies started together do not renew together.
pub fn renewal_at(now: SystemTime, expires_at: SystemTime, chance: &mut fastrand::Rng) -> SystemTime {
    let life = expires_at.duration_since(now).unwrap_or_default();
    now + life.mul_f64(0.45 + 0.1 * chance.f64())
}

/// The pause after a failure that `failures` others preceded: doubles from 100 ms to 30 s, or to 5 s for a proxy that has
/// no certificate at all, and a random half of it is waited on top of the other half.
pub fn backoff(failures: u32, has_certificate: bool, chance: &mut fastrand::Rng) -> Duration {
    let longest = if has_certificate { LONGEST_PAUSE } else { LONGEST_FIRST_PAUSE };
    let full = SHORTEST_PAUSE.saturating_mul(2_u32.saturating_pow(failures)).min(longest);
    full.mul_f64(0.5 + 0.5 * chance.f64())
}

/// Whether less than a quarter of a certificate's life is left: time to wake somebody.
pub fn is_nearly_over(now: SystemTime, valid_from: SystemTime, expires_at: SystemTime) -> bool {
    let life = expires_at.duration_since(valid_from).unwrap_or_default();
    let left = expires_at.duration_since(now).unwrap_or_default();
    left < life / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: SystemTime = SystemTime::UNIX_EPOCH;

    fn at(seconds: u64) -> SystemTime {
        EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn renewal_falls_within_five_percent_of_half_life_and_spreads() {
        let mut chance = fastrand::Rng::with_seed(7);
        let times: Vec<u64> = (0..1000)
            .map(|_| renewal_at(at(1000), at(2000), &mut chance).duration_since(EPOCH).unwrap().as_secs())
            .collect();
        let (least, most) = (*times.iter().min().unwrap(), *times.iter().max().unwrap());
        assert!(least >= 1450 && most <= 1550, "{least}..{most}");
        assert!(least < 1460 && most > 1540, "{least}..{most}: no spread");
    }

    #[test]
    fn an_expired_certificate_is_renewed_at_once() {
        assert_eq!(renewal_at(at(50), at(40), &mut fastrand::Rng::with_seed(1)), at(50));
    }

    #[test]
    fn pauses_grow_from_100_ms_to_30_s_or_5_s_without_a_certificate_and_never_overflow() {
        let mut chance = fastrand::Rng::with_seed(3);
        for (failures, full) in [(0, 100), (1, 200), (5, 3200), (9, 30_000), (31, 30_000), (u32::MAX, 30_000)] {
            for (has_certificate, full) in [(true, full), (false, full.min(5_000))] {
                for _ in 0..100 {
                    let pause = backoff(failures, has_certificate, &mut chance).as_millis();
                    assert!((full / 2..=full).contains(&pause), "{failures} failures, {has_certificate}: {pause} ms");
                }
            }
        }
    }

    #[test]
    fn the_last_quarter_of_a_life_is_nearly_over() {
        for (now, nearly_over) in [(0, false), (74, false), (75, false), (76, true), (100, true), (200, true)] {
            assert_eq!(is_nearly_over(at(now), at(0), at(100)), nearly_over, "at {now} of 100");
        }
    }
}
