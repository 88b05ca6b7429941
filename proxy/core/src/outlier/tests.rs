use std::sync::atomic::AtomicU32;

use fastrand::Rng;
use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1000;

fn policy() -> OutlierPolicy {
    OutlierPolicy::default()
}

fn rng() -> Rng {
    Rng::with_seed(7)
}

#[test]
fn the_share_is_computed_after_the_ejection() {
    // ready, ejected, percent, may one more go
    for (ready, ejected, percent, expected) in [
        (0, 0, 50, false),
        (1, 0, 100, false),
        (2, 0, 50, true),
        (2, 1, 50, false),
        (3, 0, 50, true),
        (3, 1, 50, false),
        (4, 1, 50, true),
        (5, 1, 50, true),
        (5, 2, 50, false),
        (10, 2, 30, true),
        (10, 3, 30, false),
        (3, 0, 10, true),
        (3, 1, 10, false),
        (3, 0, 0, false),
        (3, 2, 100, true),
    ] {
        let policy = OutlierPolicy { max_ejected_percent: percent, ..policy() };
        assert_eq!(may_eject(ready, ejected, &policy), expected, "{ejected} of {ready} out, {percent} %");
    }
}

#[test]
fn ejections_double_up_to_the_longest() {
    let mut rng = rng();
    for (before, nominal) in [(0, 1.0_f64), (1, 2.0), (2, 4.0), (5, 32.0), (6, 60.0), (40, 60.0), (255, 60.0)] {
        let mut sum = 0.0;
        for _ in 0..1000 {
            let time = ejection_time(&policy(), before, &mut rng).as_secs_f64();
            assert!((nominal * 0.5..=(nominal * 1.5).min(60.0)).contains(&time), "after {before}: {time} s");
            sum += time;
        }
        // At the longest the upper half is cut off: 60 * (0.75 + 1) / 2.
        let mean = if nominal < 60.0 { nominal } else { 52.5 };
        assert!((sum / 1000.0 - mean).abs() < mean * 0.05, "after {before}: mean {} s", sum / 1000.0);
    }
}

#[test]
fn absurd_policies_do_not_overflow() {
    let policy = OutlierPolicy { base_ejection: Duration::MAX, max_ejection: Duration::MAX, ..policy() };
    let standing = Standing::default();
    standing.eject(u64::from(u32::MAX), &policy, &mut rng()).unwrap();
    assert!(standing.claim_probe(u64::from(u32::MAX) + SECOND).is_none());
}

#[test]
fn one_probe_at_a_time_gets_through_once_the_time_is_over() {
    let standing = Standing::default();
    let duration = millis(standing.eject(0, &policy(), &mut rng()).unwrap());
    assert!(standing.claim_probe(duration - 1).is_none(), "too early");
    let probe = standing.claim_probe(duration).unwrap();
    assert!(standing.claim_probe(duration).is_none(), "two probes at a time");
    assert!(!standing.is_admitted());
    assert!(standing.readmit(&probe, duration));
    assert!(standing.is_admitted());
}

#[test]
fn a_failed_probe_ejects_at_once_for_longer() {
    let standing = Standing::default();
    let mut now = 0;
    standing.eject(now, &policy(), &mut rng()).unwrap();
    for round in 1..=5 {
        now += 90 * SECOND;
        let probe = standing.claim_probe(now).unwrap();
        let duration = standing.eject_again(&probe, now, &policy(), &mut rng()).unwrap();
        assert!(duration >= Duration::from_secs(1 << round) / 2, "round {round}: {duration:?}");
        assert!(standing.claim_probe(now + millis(duration) - 1).is_none(), "round {round}");
    }
}

#[test]
fn an_overtaken_probe_changes_nothing() {
    let standing = Standing::default();
    standing.eject(0, &policy(), &mut rng()).unwrap();
    let slow = standing.claim_probe(2 * SECOND).unwrap();
    let quick = standing.claim_probe(2 * SECOND + millis(PROBE_PATIENCE)).unwrap();
    assert!(!standing.readmit(&slow, 20 * SECOND));
    assert!(standing.eject_again(&slow, 20 * SECOND, &policy(), &mut rng()).is_none());
    standing.release(&slow);
    assert!(standing.readmit(&quick, 20 * SECOND));
}

#[test]
fn ejections_are_forgotten_after_a_quiet_time_only() {
    let again_after = |quiet: Duration| {
        let standing = Standing::default();
        let mut now = 0;
        standing.eject(now, &policy(), &mut rng()).unwrap();
        for _ in 0..4 {
            now += 60 * SECOND;
            let probe = standing.claim_probe(now).unwrap();
            standing.eject_again(&probe, now, &policy(), &mut rng()).unwrap();
        }
        now += 60 * SECOND;
        let probe = standing.claim_probe(now).unwrap();
        standing.readmit(&probe, now);
        standing.eject(now + millis(quiet), &policy(), &mut rng()).unwrap()
    };
    assert!(again_after(Duration::from_secs(59)) >= Duration::from_secs(16));
    assert!(again_after(Duration::from_mins(1)) <= Duration::from_millis(1500));
}

#[test]
fn of_many_workers_one_ejects_and_one_probes() {
    for seed in 0..200 {
        let standing = Standing::default();
        let (ejected, probes) = (AtomicU32::new(0), AtomicU32::new(0));
        let barrier = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (standing, ejected, probes, barrier) = (&standing, &ejected, &probes, &barrier);
                scope.spawn(move || {
                    let mut rng = Rng::with_seed(seed * 4 + worker);
                    barrier.wait();
                    if standing.eject(0, &policy(), &mut rng).is_some() {
                        ejected.fetch_add(1, Ordering::Relaxed);
                    }
                    barrier.wait();
                    if standing.claim_probe(2 * SECOND).is_some() {
                        probes.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!((ejected.into_inner(), probes.into_inner()), (1, 1), "seed {seed}");
    }
}

proptest! {
    #[test]
    fn a_state_survives_its_word(phase in 0..3_u64, ejections: u8, at_ms in 0..1_u64 << AT_BITS) {
        let word = phase << 62 | u64::from(ejections) << AT_BITS | at_ms;
        let state = State::unpack(word);
        prop_assert_eq!((state.ejections, state.at_ms), (ejections, at_ms));
        prop_assert_eq!(state.pack(), word);
    }

    #[test]
    fn the_limit_holds_for_every_size(ready in 0..200_usize, percent in 0..=100_u32) {
        let policy = OutlierPolicy { max_ejected_percent: percent, ..policy() };
        let mut ejected = 0;
        while may_eject(ready, ejected, &policy) {
            ejected += 1;
        }
        let share_holds = ejected * 100 <= ready * percent as usize;
        prop_assert!(share_holds || (ejected == 1 && ready >= 2), "{} of {}", ejected, ready);
        prop_assert!(ready < 2 || percent == 0 || ejected >= 1, "nobody of {} may go", ready);
    }
}
