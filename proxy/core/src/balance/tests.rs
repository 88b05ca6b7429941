use std::time::Duration;

use fastrand::Rng;
use proptest::prelude::*;

use super::*;
use crate::model::EndpointSpec;

#[allow(clippy::disallowed_methods)] // Any instant will do; time is virtual from here on.
pub(super) fn some_instant() -> Instant {
    Instant::now()
}

pub(super) fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, index as u8], 80))
}

pub(super) fn endpoint(index: usize, health: EndpointHealth) -> EndpointSpec {
    EndpointSpec { address: address(index), workload: format!("orders-{index}").into(), health, transport: None }
}

pub(super) fn spec(endpoints: impl IntoIterator<Item = EndpointSpec>) -> EndpointSetSpec {
    EndpointSetSpec { name: "default/orders:80".into(), endpoints: endpoints.into_iter().collect() }
}

pub(super) fn ready(count: usize) -> EndpointSetSpec {
    spec((0..count).map(|index| endpoint(index, EndpointHealth::Ready)))
}

fn build(spec: &EndpointSetSpec, now: Instant) -> EndpointSet {
    EndpointSet::build(spec, OutlierPolicy::default(), None, now)
}

fn rng() -> Rng {
    Rng::with_seed(11)
}

/// Takes an endpoint out regardless of the limit, as a change of the set around it can.
fn force_out(set: &EndpointSet, index: usize, now: Instant) {
    let endpoint = &set.endpoints[index];
    endpoint.standing().eject(endpoint.age_ms(now), &set.policy, &mut rng()).unwrap();
    set.shared.changes.fetch_add(1, Ordering::AcqRel);
}

fn report(set: &EndpointSet, index: usize, now: Instant, outcome: Outcome) -> Option<Ejection> {
    let mut request = set.endpoints[index].start(now);
    set.record(&mut request, now, outcome, &mut rng())
}

fn fail_times(set: &EndpointSet, index: usize, now: Instant, times: u32) -> Vec<Ejection> {
    (0..times).filter_map(|_| report(set, index, now, Outcome::Failure)).collect()
}

/// Picks without leaving anything in flight.
fn shares(set: &EndpointSet, now: Instant, picks: usize) -> Vec<f64> {
    let mut rng = rng();
    let mut counts = vec![0; set.endpoints.len()];
    for _ in 0..picks {
        let picked = set.pick(now, &mut rng, &[]).unwrap();
        let chosen = picked.in_flight.endpoint();
        counts[set.endpoints.iter().position(|endpoint| Arc::ptr_eq(endpoint, chosen)).unwrap()] += 1;
    }
    counts.into_iter().map(|count| f64::from(count) / picks as f64).collect()
}

#[test]
fn a_failed_pick_says_why() {
    use EndpointHealth::{Draining, Ready, Unhealthy};
    let now = some_instant();
    for (healths, tried, expected) in [
        (&[][..], &[][..], PickFailure::NoEndpoints),
        (&[Draining, Unhealthy], &[], PickFailure::NoneReady),
        (&[Ready], &[address(0)], PickFailure::AllTried),
        (&[Ready, Draining, Ready], &[address(2), address(0)], PickFailure::AllTried),
    ] {
        let set = build(&spec(healths.iter().enumerate().map(|(index, &health)| endpoint(index, health))), now);
        assert_eq!(set.pick(now, &mut rng(), tried).unwrap_err(), expected, "{healths:?}, tried {tried:?}");
    }
}

#[test]
fn equals_share_evenly_even_one_request_at_a_time() {
    let now = some_instant();
    for count in [2, 3, 10] {
        let set = build(&ready(count), now);
        for share in shares(&set, now, 20_000) {
            let fair = 1.0 / count as f64;
            assert!((share - fair).abs() < fair * 0.15, "{share} of {count}");
        }
    }
}

#[test]
fn requests_in_flight_make_an_endpoint_dear() {
    let now = some_instant();
    let set = build(&ready(2), now);
    let _held: Vec<_> = (0..9).map(|_| set.endpoints[0].start(now)).collect();
    assert!(shares(&set, now, 20_000)[0] < 0.001);
}

#[test]
fn the_cost_table() {
    let fresh = |ms: f32| Estimate { rtt: ms * 1e6, freshness: 1.0, failures: 0.0 };
    let unknown = Estimate { rtt: 0.0, freshness: 0.0, failures: 0.0 };
    let failing = |estimate, failures| Estimate { failures, ..estimate };
    // First, second, expected ratio of their costs.
    for (first, second, ratio) in [
        ((fresh(10.0), 0), (fresh(10.0), 0), 1.0),
        ((fresh(100.0), 0), (fresh(10.0), 0), 9.8),
        ((fresh(10.0), 3), (fresh(10.0), 1), 2.0),
        ((unknown, 0), (unknown, 0), 1.0),
        ((unknown, 0), (fresh(300.0), 0), 1.0),
        ((unknown, 0), (fresh(1.0), 0), 1.0),
        ((unknown, 5), (fresh(1.0), 2), 2.0),
        ((Estimate { freshness: 0.1, ..fresh(100.0) }, 0), (fresh(10.0), 0), 2.6),
        ((failing(fresh(10.0), 0.01), 0), (fresh(10.0), 0), 1.2),
        ((failing(fresh(10.0), 1.0), 0), (fresh(10.0), 0), 21.0),
        ((failing(unknown, 1.0), 0), (fresh(300.0), 0), 21.0),
        ((failing(fresh(10.0), 1.0), 0), (fresh(10.0), 1000), 21.0),
        ((failing(fresh(10.0), 0.01), 4), (fresh(10.0), 9), 0.61),
        // Noise far below a network's latency decides little.
        ((fresh(0.05), 0), (fresh(0.1), 0), 0.86),
    ] {
        let [one, other] = costs([first, second]);
        assert!((one / other / ratio - 1.0).abs() < 0.05, "{first:?} against {second:?}: {}", one / other);
    }
}

#[test]
fn the_odds_are_sane_at_the_extremes() {
    for (first, second, expected) in
        [(1.0, 1.0, 0.5), (1.0, f32::MAX, 1.0), (f32::MAX, 1.0, 0.0), (2.0, 1.0, 1.0 / 17.0), (1e30, 1e30, 0.5)]
    {
        assert!((odds(first, second) - expected).abs() < 1e-6, "{first} against {second}");
    }
}

#[test]
fn an_idle_endpoint_once_slow_is_tried_again() {
    let start = some_instant();
    let set = build(&ready(2), start);
    let measure = |index: usize, latency: u64, now| {
        set.endpoints[index].measure(Duration::from_millis(latency), Outcome::Success, now);
    };
    measure(0, 1000, start);
    measure(1, 1, start);
    assert!(shares(&set, start, 20_000)[0] < 0.001);
    let later = start + Duration::from_secs(90);
    measure(1, 1, later);
    assert!(shares(&set, later, 20_000)[0] > 0.2);
}

#[test]
fn consecutive_failures_eject_and_a_success_between_starts_the_count_over() {
    let now = some_instant();
    let set = build(&ready(3), now);
    assert_eq!(fail_times(&set, 0, now, 4), []);
    report(&set, 0, now, Outcome::Success);
    assert_eq!(fail_times(&set, 0, now, 4), []);
    report(&set, 0, now, Outcome::Abandoned);
    let ejections = fail_times(&set, 0, now, 1);
    assert!(matches!(ejections[..], [Ejection { again: false, .. }]), "{ejections:?}");
    assert!(set.endpoints[0].is_ejected());
    assert_eq!(set.ejected(), 1);
    assert!(shares(&set, now, 1000)[0] <= 0.0);
}

#[test]
fn no_limit_of_failures_means_no_ejection() {
    let now = some_instant();
    let policy = OutlierPolicy { consecutive_failures: 0, ..OutlierPolicy::default() };
    let set = EndpointSet::build(&ready(3), policy, None, now);
    assert_eq!(fail_times(&set, 0, now, 100), []);
}

#[test]
fn the_only_endpoint_is_never_ejected() {
    let now = some_instant();
    let set = build(&ready(1), now);
    assert_eq!(fail_times(&set, 0, now, 100), []);
    // One ready beside one that is not is an only one, too.
    let set = build(&spec([endpoint(0, EndpointHealth::Ready), endpoint(1, EndpointHealth::Draining)]), now);
    assert_eq!(fail_times(&set, 0, now, 100), []);
}

#[test]
fn at_the_limit_nobody_else_is_ejected_until_one_returns() {
    let now = some_instant();
    let set = build(&ready(3), now);
    assert_eq!(fail_times(&set, 0, now, 5).len(), 1);
    assert_eq!(fail_times(&set, 1, now, 50), []);
    let later = now + Duration::from_secs(2);
    return_to_use(&set, 0, later);
    assert_eq!(fail_times(&set, 1, later, 5).len(), 1);
}

/// Draws until the probe of an endpoint comes and lets it succeed.
fn return_to_use(set: &EndpointSet, index: usize, now: Instant) {
    let mut rng = rng();
    for _ in 0..1000 {
        let mut picked = set.pick(now, &mut rng, &[]).unwrap();
        if picked.in_flight.is_probe() && Arc::ptr_eq(picked.in_flight.endpoint(), &set.endpoints[index]) {
            set.record(&mut picked.in_flight, now, Outcome::Success, &mut rng);
            return;
        }
    }
    panic!("endpoint {index} never got a probe");
}

#[test]
fn a_return_is_guarded_by_one_probe_and_then_fair() {
    let start = some_instant();
    let set = build(&ready(3), start);
    fail_times(&set, 0, start, 5);
    let now = start + Duration::from_secs(2);
    let mut rng = rng();
    let mut held = Vec::new();
    for _ in 0..500 {
        held.push(set.pick(now, &mut rng, &[]).unwrap().in_flight);
    }
    assert_eq!(held.iter().filter(|request| request.is_probe()).count(), 1);
    assert_eq!(set.endpoints[0].in_flight(), 1, "only the probe may reach a returning endpoint");
    let mut probe = held.swap_remove(held.iter().position(InFlight::is_probe).unwrap());
    set.record(&mut probe, now + Duration::from_millis(5), Outcome::Success, &mut rng);
    drop((held, probe));
    assert!(!set.endpoints[0].is_ejected());
    let share = shares(&set, now + Duration::from_millis(5), 20_000)[0];
    assert!(share > 0.25, "old failures still count after the return: {share}");
}

#[test]
fn a_failed_probe_ejects_again() {
    let start = some_instant();
    let set = build(&ready(2), start);
    fail_times(&set, 0, start, 5);
    let now = start + Duration::from_secs(2);
    let mut rng = rng();
    let picks = std::iter::repeat_with(|| set.pick(now, &mut rng, &[]).unwrap().in_flight);
    let mut probe = picks.take(1000).find(InFlight::is_probe).unwrap();
    let ejection = set.record(&mut probe, now, Outcome::Failure, &mut rng).unwrap();
    assert!(ejection.again && ejection.duration >= Duration::from_secs(1), "{ejection:?}");
    assert!(shares(&set, now, 1000)[0] <= 0.0);
}

#[test]
fn late_failures_of_an_ejected_endpoint_change_nothing() {
    let start = some_instant();
    let set = build(&ready(4), start);
    let mut late: Vec<_> = (0..20).map(|_| set.endpoints[0].start(start)).collect();
    let first = fail_times(&set, 0, start, 5);
    for request in &mut late {
        assert_eq!(set.record(request, start, Outcome::Failure, &mut rng()), None);
    }
    return_to_use(&set, 0, start + first[0].duration + Duration::from_millis(1));
}

#[test]
fn an_outcome_is_told_once() {
    let now = some_instant();
    let set = build(&ready(2), now);
    let mut request = set.endpoints[0].start(now);
    for _ in 0..10 {
        assert_eq!(set.record(&mut request, now, Outcome::Failure, &mut rng()), None);
    }
    assert!(!set.endpoints[0].is_ejected());
}

#[test]
fn with_fewer_than_half_left_ejection_is_ignored_and_said_so() {
    let now = some_instant();
    let set = build(&ready(4), now);
    force_out(&set, 0, now);
    force_out(&set, 1, now);
    let picked = set.pick(now, &mut rng(), &[]).unwrap();
    assert!(!picked.panic, "half is enough");
    drop(picked);
    assert!(shares(&set, now, 1000)[..2].iter().sum::<f64>() <= 0.0);
    force_out(&set, 2, now);
    assert!(set.pick(now, &mut rng(), &[]).unwrap().panic);
    for share in shares(&set, now, 20_000) {
        assert!(share > 0.2, "{share}");
    }
    return_to_use(&set, 0, now + Duration::from_secs(2));
    assert!(!set.pick(now, &mut rng(), &[]).unwrap().panic, "the verdict outlived its reason");
}

#[test]
fn losing_the_healthy_one_to_draining_panics_instead_of_failing() {
    let now = some_instant();
    let set = build(&ready(2), now);
    fail_times(&set, 0, now, 5);
    assert!(set.set_health(address(1), EndpointHealth::Draining));
    let picked = set.pick(now, &mut rng(), &[]).unwrap();
    assert!(picked.panic);
    assert_eq!(picked.in_flight.endpoint().address(), address(0));
}

#[test]
fn live_state_survives_a_new_set_and_health_changes_in_place() {
    let now = some_instant();
    let first = build(&ready(3), now);
    let _request = first.endpoints[2].start(now);
    fail_times(&first, 0, now, 5);
    let changed = spec([
        endpoint(2, EndpointHealth::Ready),
        endpoint(0, EndpointHealth::Ready),
        endpoint(3, EndpointHealth::Ready),
        endpoint(1, EndpointHealth::Draining),
        endpoint(3, EndpointHealth::Ready),
        // The address moved to another workload: a stranger.
        EndpointSpec { workload: "carts-2".into(), ..endpoint(2, EndpointHealth::Ready) },
    ]);
    let second = EndpointSet::build(&changed, OutlierPolicy::default(), Some(&first), now);
    let seen: Vec<_> = second
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.address(), endpoint.in_flight(), endpoint.is_ejected(), endpoint.health()))
        .collect();
    assert_eq!(
        seen,
        [
            (address(2), 1, false, EndpointHealth::Ready),
            (address(0), 0, true, EndpointHealth::Ready),
            (address(3), 0, false, EndpointHealth::Ready),
            (address(1), 0, false, EndpointHealth::Draining),
            (address(2), 0, false, EndpointHealth::Ready),
        ]
    );
    assert_eq!(first.endpoints[1].health(), EndpointHealth::Draining);
}

#[test]
fn an_endpoint_that_is_reached_in_another_way_is_another_one() {
    let now = some_instant();
    let first = build(&ready(1), now);
    let _request = first.endpoints[0].start(now);
    let transport = TransportLabels::new([("a".into(), "b".into())]);
    let changed = spec([EndpointSpec { transport, ..endpoint(0, EndpointHealth::Ready) }]);
    let second = EndpointSet::build(&changed, OutlierPolicy::default(), Some(&first), now);
    let third = EndpointSet::build(&changed, OutlierPolicy::default(), Some(&second), now);
    assert!(!Arc::ptr_eq(&first.endpoints[0], &second.endpoints[0]));
    assert!(Arc::ptr_eq(&second.endpoints[0], &third.endpoints[0]));
}

#[test]
fn a_removed_endpoint_is_no_longer_ejected() {
    let now = some_instant();
    let first = build(&ready(3), now);
    let second = EndpointSet::build(&ready(2), OutlierPolicy::default(), Some(&first), now);
    for _ in 0..10 {
        assert_eq!(second.record(&mut first.endpoints[2].start(now), now, Outcome::Failure, &mut rng()), None);
    }
    assert!(!first.endpoints[2].is_ejected());
}

#[test]
fn many_workers_never_eject_more_than_the_limit() {
    let now = some_instant();
    for seed in 0..30 {
        let set = build(&ready(10), now);
        let barrier = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (set, barrier) = (&set, &barrier);
                scope.spawn(move || {
                    let mut rng = Rng::with_seed(seed * 4 + worker);
                    barrier.wait();
                    for _ in 0..2000 {
                        let Picked { mut in_flight, panic } = set.pick(now, &mut rng, &[]).unwrap();
                        set.record(&mut in_flight, now, Outcome::Failure, &mut rng);
                        assert!(set.ejected() <= 5 && !panic, "seed {seed}");
                    }
                });
            }
        });
        assert_eq!(set.ejected(), 5, "seed {seed}");
        assert!(set.endpoints.iter().all(|endpoint| endpoint.in_flight() == 0), "seed {seed}");
    }
}

#[test]
fn of_several_workers_at_the_limit_one_ejects() {
    let now = some_instant();
    let policy = OutlierPolicy { consecutive_failures: 1, max_ejected_percent: 1, ..OutlierPolicy::default() };
    // Counting two thousand takes long enough for the others to count meanwhile, if they could.
    let spec = ready(2000);
    for round in 0..20 {
        let set = EndpointSet::build(&spec, policy, None, now);
        (0..19).for_each(|index| force_out(&set, index, now));
        let barrier = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (set, barrier) = (&set, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    for attempt in 0..5 {
                        report(set, 100 + worker * 10 + attempt, now, Outcome::Failure);
                    }
                });
            }
        });
        assert_eq!(set.ejected(), 20, "round {round}");
    }
}

#[derive(Debug, Clone)]
struct Situation {
    health: EndpointHealth,
    out: bool,
    tried: bool,
}

fn situation() -> impl Strategy<Value = Situation> {
    let health = prop_oneof![
        3 => Just(EndpointHealth::Ready),
        1 => Just(EndpointHealth::Draining),
        1 => Just(EndpointHealth::Unhealthy),
    ];
    (health, any::<bool>(), prop::bool::weighted(0.3)).prop_map(|(health, out, tried)| Situation { health, out, tried })
}

proptest! {
    /// The one sentence a pick must obey: some usable endpoint if there is one, never another.
    #[test]
    fn a_pick_takes_a_usable_endpoint_whenever_there_is_one(
        situations in prop::collection::vec(situation(), 0..12),
        seed: u64,
    ) {
        let now = some_instant();
        let set = build(&spec(situations.iter().enumerate().map(|(index, s)| endpoint(index, s.health))), now);
        for index in (0..situations.len()).filter(|&index| situations[index].out) {
            force_out(&set, index, now);
        }
        let tried: Vec<_> = (0..situations.len()).filter(|&index| situations[index].tried).map(address).collect();
        let ready = || situations.iter().filter(|s| s.health == EndpointHealth::Ready);
        let panic = ready().filter(|s| !s.out).count() * 2 < ready().count();
        let usable: Vec<_> = (0..situations.len())
            .filter(|&index| {
                let s = &situations[index];
                s.health == EndpointHealth::Ready && !s.tried && (panic || !s.out)
            })
            .map(address)
            .collect();
        let mut rng = Rng::with_seed(seed);
        for _ in 0..20 {
            match set.pick(now, &mut rng, &tried) {
                Ok(picked) => {
                    let chosen = picked.in_flight.endpoint().address();
                    prop_assert!(usable.contains(&chosen), "{} is not among {:?}", chosen, usable);
                    prop_assert_eq!(picked.panic, panic);
                }
                Err(failure) => {
                    prop_assert!(usable.is_empty(), "{} although {:?} are usable", failure, usable);
                    let expected = match (situations.len(), ready().count()) {
                        (0, _) => PickFailure::NoEndpoints,
                        (_, 0) => PickFailure::NoneReady,
                        _ => PickFailure::AllTried,
                    };
                    prop_assert_eq!(failure, expected);
                }
            }
        }
    }

    /// Whatever happens to the requests, the share holds at every moment.
    #[test]
    fn ejection_never_exceeds_its_share(
        count in 1..12_usize,
        percent in 0..=100_u32,
        events in prop::collection::vec((any::<usize>(), 0..10_u8, 0..400_u64), 0..300),
        seed: u64,
    ) {
        let mut now = some_instant();
        let policy = OutlierPolicy {
            consecutive_failures: 2,
            max_ejected_percent: percent,
            max_ejection: Duration::from_secs(3),
            ..OutlierPolicy::default()
        };
        let set = EndpointSet::build(&ready(count), policy, None, now);
        let mut rng = Rng::with_seed(seed);
        for (which, outcome, wait) in events {
            now += Duration::from_millis(wait);
            // Half through picks, so that probes happen; half at will, so that the failing ones are hit.
            let mut request = if which % 2 == 0 {
                set.pick(now, &mut rng, &[]).unwrap().in_flight
            } else {
                set.endpoints[which / 2 % count].start(now)
            };
            let outcome = if outcome < 8 { Outcome::Failure } else { Outcome::Success };
            set.record(&mut request, now, outcome, &mut rng);
            let ejected = set.ejected();
            prop_assert!(
                ejected * 100 <= count * percent as usize || (ejected == 1 && count >= 2 && percent > 0),
                "{} of {} at {} %", ejected, count, percent
            );
        }
    }
}
