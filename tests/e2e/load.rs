//! Many requests: none is lost, all are counted, and bad replicas get few of them.

use weft_tests::mesh::command::until;
use weft_tests::mesh::machine::has_namespaces;
use weft_tests::mesh::metrics::Metrics;
use weft_tests::mesh::{Figures, Mesh};

const EDGE: (&str, &str) = ("source", "default/caller");
const DESTINATION: (&str, &str) = ("destination", "default/orders:80");

fn requests(figures: &Metrics, direction: &str, more: &[(&str, &str)]) -> u64 {
    figures.sum("weft_requests_total", &[&[("direction", direction), EDGE, DESTINATION], more].concat())
}

#[test]
fn ten_thousand_requests_succeed_and_both_sides_count_each_once() {
    if !has_namespaces() {
        return;
    }
    let mesh = Mesh::start(
        r#"
services:
  caller: {command: [sleep, infinity]}
  orders: {command: ["<weft>", shop, inventory], port: 80, targetPort: 8080, protocol: http, replicas: 2}
"#,
    );
    let rate = ["--requests", "10000", "--rate", "1000000", "--timeout", "30s"];
    let load = mesh.load("caller-1", &[&["http://orders/stock", "--fail-on-error"], &rate[..]].concat()).finish();
    assert_eq!((load.requests, load.failures), (10_000, 0), "{load:?}");

    let caller = mesh.settled("caller-1");
    assert_eq!(requests(&caller, "outbound", &[]), 10_000);
    assert_eq!(requests(&caller, "outbound", &[("code_class", "2xx")]), 10_000);
    let replicas = ["orders-1", "orders-2"].map(|replica| mesh.settled(replica));
    let inbound: Vec<u64> = replicas.iter().map(|figures| requests(figures, "inbound", &[])).collect();
    let succeeded: u64 = replicas.iter().map(|figures| requests(figures, "inbound", &[("code_class", "2xx")])).sum();
    assert_eq!(inbound.iter().sum::<u64>(), 10_000);
    assert_eq!(succeeded, 10_000);
    // How evenly they share it is the machine's doing: whoever gets less of the processors is slower.
    assert!(inbound.iter().all(|&share| share > 0), "both replicas work: {inbound:?}");
    for (figures, direction) in [(&caller, "outbound"), (&replicas[0], "inbound"), (&replicas[1], "inbound")] {
        let side = [("direction", direction), EDGE, DESTINATION];
        let durations = figures.sum("weft_request_duration_seconds_count", &side);
        assert_eq!(durations, requests(figures, direction, &[]), "every request is timed");
        let connections = |tls| figures.sum("weft_connections_total", &[&side[..], &[("tls", tls)]].concat());
        assert!(connections("mutual") >= 1 && connections("none") == 0, "{direction}");
        assert_eq!(figures.sum("weft_retries_total", &side), 0);
    }
}

#[test]
fn a_slow_replica_gets_little_and_a_failing_one_is_left_out() {
    if !has_namespaces() {
        return;
    }
    let mesh = Mesh::start(
        r#"
services:
  caller: {command: [sleep, infinity]}
  orders:
    command: ["<weft>", shop, inventory]
    port: 80
    targetPort: 8080
    protocol: http
    replicas: 3
    replicaEnv: [{}, {SLOW: 200ms}, {FAIL: 100%}]
"#,
    );
    let replicas = ["orders-1", "orders-2", "orders-3"];
    // Until the failing one has been put out three times: from then on it is out for many seconds.
    let warm = mesh.load("caller-1", &["http://orders/stock", "--rate", "100"]);
    until("the failing replica is ejected again and again", || {
        (mesh.scrape("caller-1").sum("weft_ejections_total", &[EDGE, DESTINATION]) >= 3).then_some(())
    });
    drop(warm);

    // A machine that stalls makes the good replica slow as well, and it is remembered for seconds: one window in
    // three must do.
    let mut windows = Vec::new();
    while windows.len() < 3 && !windows.last().is_some_and(Window::is_good) {
        windows.push(window(&mesh, &replicas));
    }
    assert!(windows.last().is_some_and(Window::is_good), "{windows:?}");
}

/// Requests to three replicas, and who answered them.
#[derive(Debug)]
struct Window {
    load: Figures,
    good: u64,
    slow: u64,
    failing: u64,
}

impl Window {
    fn is_good(&self) -> bool {
        let percent = |count: u64| count * 100 / self.load.requests;
        percent(self.slow) < 15
            && percent(self.failing) < 5
            && percent(self.load.failures) < 1
            && percent(self.good) > 80
    }
}

fn window(mesh: &Mesh, replicas: &[&str; 3]) -> Window {
    let before = replicas.map(|replica| requests(&mesh.scrape(replica), "inbound", &[]));
    let load = mesh.load("caller-1", &["http://orders/stock", "--rate", "150", "--requests", "1200"]).finish();
    let after = replicas.map(|replica| requests(&mesh.settled(replica), "inbound", &[]));
    let [good, slow, failing] = std::array::from_fn(|index| after[index] - before[index]);
    Window { load, good, slow, failing }
}
