use super::*;

#[allow(clippy::disallowed_methods)] // Any instant will do; time is virtual from here on.
fn endpoint() -> (Arc<Endpoint>, Instant) {
    let now = Instant::now();
    let address = "192.0.2.1:80".parse().unwrap();
    let spec = EndpointSpec { address, workload: "orders-1".into(), health: EndpointHealth::Ready, transport: None };
    (Arc::new(Endpoint::new(&spec, now)), now)
}

#[test]
fn requests_count_as_in_flight_until_dropped() {
    let (endpoint, now) = endpoint();
    let first = endpoint.start(now);
    let second = endpoint.start(now);
    assert_eq!(endpoint.in_flight(), 2);
    drop(first);
    assert_eq!(endpoint.in_flight(), 1);
    drop(second);
    assert_eq!(endpoint.in_flight(), 0);
}

#[test]
fn a_dropped_probe_lets_another_try() {
    let (endpoint, now) = endpoint();
    let policy = crate::model::OutlierPolicy::default();
    let mut rng = fastrand::Rng::with_seed(1);
    endpoint.standing().eject(0, &policy, &mut rng).unwrap();
    let probe = endpoint.standing().claim_probe(5_000).unwrap();
    let request = endpoint.start_as(now, Reason::Probe(probe));
    assert!(request.is_probe());
    assert!(endpoint.standing().claim_probe(5_000).is_none());
    drop(request);
    assert!(endpoint.standing().claim_probe(5_000).is_some());
}

#[test]
fn only_a_success_counts_as_a_measurement_of_a_newborn() {
    let (endpoint, now) = endpoint();
    for outcome in [Outcome::Failure, Outcome::Abandoned] {
        endpoint.measure(Duration::from_micros(100), outcome, now);
        assert_eq!(endpoint.latency(), None, "{outcome:?}");
    }
    endpoint.measure(Duration::from_millis(8), Outcome::Success, now);
    let latency = endpoint.latency().unwrap();
    assert!(latency.abs_diff(Duration::from_millis(8)) < Duration::from_micros(1), "{latency:?}");
}

#[test]
fn health_changes_in_place() {
    let (endpoint, _) = endpoint();
    for health in [EndpointHealth::Draining, EndpointHealth::Unhealthy, EndpointHealth::Ready] {
        assert!(endpoint.set_health(health), "{health:?} was no news");
        assert!(!endpoint.set_health(health));
        assert_eq!(endpoint.health(), health);
    }
}

#[test]
fn a_clock_before_birth_is_birth() {
    let (endpoint, now) = endpoint();
    let earlier = now.checked_sub(Duration::from_secs(1)).unwrap();
    assert_eq!(endpoint.age_ms(earlier), 0);
}
