use super::*;

const FRONTEND: &str = "default/frontend";
const ORDERS: &str = "default/orders:80";

/// An interval on frontend -> orders in which these replicas failed.
struct Interval {
    ejected: u64,
    ejections: f64,
    out: &'static [&'static str],
    failed: &'static [&'static str],
}

fn told(intervals: &[Interval]) -> Vec<Vec<String>> {
    let mut observer = Observer::default();
    let observe = |interval: &Interval| {
        let edge = Edge {
            source: FRONTEND.into(),
            destination: ORDERS.into(),
            ejected: interval.ejected,
            ejections: interval.ejections,
            out: interval.out.iter().map(|name| (*name).to_owned()).collect(),
            ..Edge::default()
        };
        let replicas: Vec<Replica> = ["orders-1", "orders-2", "orders-3"]
            .into_iter()
            .map(|name| Replica {
                destination: ORDERS.into(),
                name: name.into(),
                failures: f64::from(interval.failed.contains(&name)),
                ..Replica::default()
            })
            .collect();
        observer.observe(&[edge], &replicas, &BTreeSet::new()).iter().map(ToString::to_string).collect()
    };
    intervals.iter().map(observe).collect()
}

fn interval(ejected: u64, ejections: f64, failed: &'static [&'static str]) -> Interval {
    Interval { ejected, ejections, out: &[], failed }
}

#[test]
fn the_one_failing_replica_is_the_one_ejected_and_returned() {
    let story = told(&[
        interval(0, 0.0, &["orders-3"]),
        interval(1, 1.0, &[]),
        interval(1, 0.0, &[]),
        interval(0, 0.0, &[]),
        interval(0, 0.0, &[]),
    ]);
    let none: [&str; 0] = [];
    assert_eq!(story[0], none);
    assert_eq!(story[1], ["orders-3 ejected by frontend"]);
    assert_eq!(story[2], none);
    assert_eq!(story[3], ["orders-3 back for frontend"]);
    assert_eq!(story[4], none);
}

#[test]
fn with_several_failing_replicas_nobody_is_blamed() {
    let story = told(&[interval(1, 1.0, &["orders-2", "orders-3"]), interval(0, 0.0, &[])]);
    assert_eq!(story[0], ["a replica of orders:80 ejected by frontend"]);
    assert_eq!(story[1], ["a replica of orders:80 back for frontend"]);
}

#[test]
fn a_return_is_not_named_while_an_unnamed_replica_is_out_too() {
    let story = told(&[
        interval(1, 1.0, &["orders-3"]),
        interval(1, 0.0, &[]),
        interval(2, 1.0, &[]),
        interval(1, 0.0, &[]),
        interval(0, 0.0, &[]),
    ]);
    assert_eq!(story[2], ["a replica of orders:80 ejected by frontend"]);
    assert_eq!(story[3], ["a replica of orders:80 back for frontend"]);
}

#[test]
fn an_ejection_between_two_looks_is_told_with_its_return() {
    let story = told(&[interval(0, 2.0, &["orders-3"])]);
    assert_eq!(story[0], ["orders-3 ejected by frontend, 2 times", "orders-3 back for frontend"]);
}

#[test]
fn a_gauge_without_a_counter_is_enough() {
    assert_eq!(told(&[interval(2, 0.0, &[])])[0], ["2 replicas of orders:80 ejected by frontend"]);
}

#[test]
fn names_given_by_the_proxy_are_used_as_they_are() {
    let story = told(&[
        Interval { ejected: 1, ejections: 1.0, out: &["orders-2"], failed: &["orders-3"] },
        Interval { ejected: 1, ejections: 1.0, out: &["orders-1"], failed: &[] },
        Interval { ejected: 0, ejections: 0.0, out: &[], failed: &[] },
    ]);
    assert_eq!(story[0], ["orders-2 ejected by frontend"]);
    assert_eq!(story[1], ["orders-1 ejected by frontend", "orders-2 back for frontend"]);
    assert_eq!(story[2], ["orders-1 back for frontend"]);
}

#[test]
fn a_silent_proxy_is_told_once_and_explains_an_ejection() {
    let mut observer = Observer::default();
    let replica = Replica { destination: ORDERS.into(), name: "orders-1".into(), ..Replica::default() };
    let silent = BTreeSet::from(["default/orders-1".to_owned()]);
    let mut edge = Edge { source: FRONTEND.into(), destination: ORDERS.into(), ..Edge::default() };
    let mut observe = |edge: &Edge, silent| {
        let events = observer.observe(std::slice::from_ref(edge), std::slice::from_ref(&replica), silent);
        events.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(observe(&edge, &silent), ["the proxy of orders-1 is silent"]);
    edge.ejected = 1;
    assert_eq!(observe(&edge, &silent), ["orders-1 ejected by frontend"]);
    assert_eq!(observe(&edge, &BTreeSet::new()), ["the proxy of orders-1 answers again"]);
}
