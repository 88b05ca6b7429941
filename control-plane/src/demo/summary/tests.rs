use super::super::scrape::Labels;
use super::*;

const ORDERS: &str = "default/orders:80";

fn replica(name: &str, requests: f64, failures: f64, seconds: &str) -> Replica {
    let mut replica = Replica {
        destination: ORDERS.into(),
        name: name.into(),
        elapsed: Duration::from_secs(1),
        requests,
        answered: requests,
        failures,
        ..Replica::default()
    };
    for (bound, count) in [("0", 0.0), (seconds, requests), ("+Inf", requests)] {
        replica.latency.add(&Labels::from([("le".to_owned(), bound.to_owned())]), count);
    }
    replica
}

fn edge(requests: f64, failures: f64, retries: f64, ejections: f64) -> Edge {
    Edge {
        source: "default/frontend".into(),
        destination: ORDERS.into(),
        elapsed: Duration::from_secs(1),
        requests,
        failures,
        retries,
        ejections,
        ..Edge::default()
    }
}

fn ejected(replica: Option<&str>, times: u64) -> Event {
    Event::Ejected {
        source: "default/frontend".into(),
        destination: ORDERS.into(),
        replica: replica.map(str::to_owned),
        times,
    }
}

fn verdicts(edge: Edge, replicas: &[Replica], events: &[Event]) -> Vec<String> {
    let mut summary = Summary::default();
    summary.add(Duration::from_secs(1), &[edge], replicas, events);
    summary.verdicts()
}

#[test]
fn a_slow_replica_that_was_spared_is_named_with_its_share() {
    let replicas = [
        replica("orders-1", 480.0, 0.0, "0.002"),
        replica("orders-2", 40.0, 0.0, "0.3"),
        replica("orders-3", 480.0, 0.0, "0.002"),
    ];
    assert_eq!(
        verdicts(edge(1000.0, 0.0, 0.0, 0.0), &replicas, &[]),
        ["orders-2 was slow (median 150 ms; its peers 1.0 ms): \
          balancing gave it 4.0% of the requests where 33.3% would be even."]
    );
}

#[test]
fn a_slow_replica_that_was_not_spared_is_said_so() {
    let replicas = [replica("orders-1", 50.0, 0.0, "0.002"), replica("orders-2", 50.0, 0.0, "0.3")];
    assert_eq!(
        verdicts(edge(100.0, 0.0, 0.0, 0.0), &replicas, &[]),
        ["orders-2 was slow (median 150 ms; its peers 1.0 ms): \
          balancing did not spare it: it got 50.0% of the requests, and 50.0% would be even."]
    );
}

#[test]
fn a_failing_replica_is_told_with_ejections_and_what_callers_saw() {
    let replicas = [replica("orders-1", 700.0, 0.0, "0.002"), replica("orders-3", 300.0, 30.0, "0.002")];
    assert_eq!(
        verdicts(edge(970.0, 2.0, 28.0, 5.0), &replicas, &[ejected(Some("orders-3"), 4), ejected(None, 1)]),
        [
            "orders-3 failed 30 of its 300 requests; it was ejected 4 times and got 30.0% of the requests (50.0% would be \
          even). Callers saw 2 of 30 failures in 970 requests (success 99.79%); 28 requests were retried."
        ]
    );
}

#[test]
fn a_failing_replica_nobody_ejected_is_said_so() {
    let replicas = [replica("orders-1", 50.0, 0.0, "0.002"), replica("orders-3", 50.0, 30.0, "0.002")];
    let verdicts = verdicts(edge(100.0, 30.0, 0.0, 0.0), &replicas, &[]);
    assert!(verdicts[0].contains("it was never ejected"), "{verdicts:?}");
    assert!(verdicts[0].contains("Callers saw 30 of 30 failures"), "{verdicts:?}");
}

#[test]
fn an_ejection_without_a_name_is_the_services() {
    let replicas = [replica("orders-1", 50.0, 0.0, "0.002"), replica("orders-3", 50.0, 30.0, "0.002")];
    let verdicts = verdicts(edge(100.0, 30.0, 0.0, 1.0), &replicas, &[ejected(None, 1)]);
    assert!(verdicts[0].contains("replicas of orders:80 were ejected once"), "{verdicts:?}");
}

#[test]
fn replicas_that_are_alike_get_one_sentence() {
    let replicas = [replica("orders-1", 50.0, 0.0, "0.002"), replica("orders-2", 50.0, 0.0, "0.004")];
    assert_eq!(
        verdicts(edge(100.0, 0.0, 0.0, 0.0), &replicas, &[]),
        ["No replica was markedly slower than its peers or failed."]
    );
}

#[test]
fn intervals_are_summed_into_the_text() {
    let mut summary = Summary::default();
    for _ in 0..2 {
        let replicas = [replica("orders-1", 50.0, 0.0, "0.002"), replica("orders-2", 50.0, 0.0, "0.002")];
        summary.add(Duration::from_secs(3), &[edge(100.0, 1.0, 0.0, 0.0)], &replicas, &[]);
    }
    let expected = "In 6 seconds:

SOURCE    DESTINATION  REQUESTS  SUCCESS  P50 ms  P99 ms  mTLS  RETRIES  EJECTIONS
frontend  orders:80         200   99.00%       -       -     -        0          0

orders:80 is answered by
REPLICA                         SHARE  REQ/S  SUCCESS  P50 ms  P99 ms
orders-1  ██████████░░░░░░░░░░  50.0%   50.0     100%     1.0     2.0
orders-2  ██████████░░░░░░░░░░  50.0%   50.0     100%     1.0     2.0

No replica was markedly slower than its peers or failed.
";
    assert_eq!(summary.render(120, false), expected);
    assert_eq!(summary.to_json()["edges"][0]["requests"], 200.0);
}

#[test]
fn a_run_without_traffic_says_so() {
    assert_eq!(Summary::default().render(80, false), "No traffic was seen.\n");
    assert!(Summary::default().verdicts().is_empty());
}
