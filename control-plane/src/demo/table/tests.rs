use std::time::Duration;

use super::super::edges::Distribution;
use super::super::scrape::Labels;
use super::*;

fn latency(buckets: &[(&str, f64)]) -> Distribution {
    let mut distribution = Distribution::default();
    for (bound, count) in buckets {
        distribution.add(&Labels::from([("le".to_owned(), (*bound).to_owned())]), *count);
    }
    distribution
}

fn two_edges() -> Vec<Edge> {
    vec![
        Edge {
            source: "default/frontend".into(),
            destination: "default/orders:80".into(),
            elapsed: Duration::from_secs(2),
            requests: 200.0,
            failures: 1.0,
            latency: latency(&[("0.001", 0.0), ("0.002", 100.0), ("0.1", 200.0), ("+Inf", 200.0)]),
            mtls: Mtls::Yes,
            ejected: 1,
            ejections: 2.0,
            retries: 7.0,
            ..Edge::default()
        },
        Edge { source: "shop/orders".into(), destination: "shop/database:5432".into(), ..Edge::default() },
    ]
}

fn three_replicas() -> Vec<Replica> {
    let replica = |name: &str, requests: f64, failures| Replica {
        destination: "default/orders:80".into(),
        name: name.into(),
        elapsed: Duration::from_secs(2),
        requests,
        answered: requests,
        failures,
        latency: latency(&[("0.001", requests), ("+Inf", requests)]),
    };
    vec![replica("orders-1", 120.0, 0.0), replica("orders-2", 8.0, 0.0), replica("orders-3", 72.0, 9.0)]
}

/// Golden texts begin on a line of their own.
fn golden(text: &str) -> String {
    text.trim_start_matches('\n').to_owned()
}

#[test]
fn a_wide_table_shows_every_column() {
    assert_eq!(
        render(&two_edges(), 120, false),
        golden(
            "
SOURCE       DESTINATION         REQ/S  SUCCESS  P50 ms  P95 ms  P99 ms  mTLS  EJECTED
frontend     orders:80           100.0   99.50%     2.0    90.2    98.0   yes        1
shop/orders  shop/database:5432    0.0        -       -       -       -     -        0
"
        )
    );
}

#[test]
fn a_narrow_table_drops_the_least_telling_columns() {
    assert_eq!(
        render(&two_edges(), 64, false),
        golden(
            "
SOURCE       DESTINATION         REQ/S  SUCCESS  P50 ms  P99 ms
frontend     orders:80           100.0   99.50%     2.0    98.0
shop/orders  shop/database:5432    0.0        -       -       -
"
        )
    );
}

#[test]
fn a_very_narrow_table_cuts_names() {
    assert_eq!(
        render(&two_edges(), 36, false),
        golden(
            "
SOURCE     DESTINAT…  REQ/S  SUCCESS
frontend   orders:80  100.0   99.50%
shop/ord…  shop/dat…    0.0        -
"
        )
    );
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for width in 0..140 {
        let text = render(&two_edges(), width, false)
            + &render_replicas(&three_replicas(), width, false)
            + &render_totals(&two_edges(), width, false);
        for line in text.lines() {
            assert!(line.chars().count() <= width, "{width}: {line:?}");
        }
    }
}

#[test]
fn colour_changes_nothing_but_colour() {
    let coloured = render(&two_edges(), 120, true);
    assert!(coloured.contains("\x1b[33m99.50%\x1b[0m"), "{coloured}");
    assert!(coloured.contains("\x1b[32myes\x1b[0m"), "{coloured}");
    let mut plain = coloured;
    for code in ["0", "1", "31", "32", "33"] {
        plain = plain.replace(&format!("\x1b[{code}m"), "");
    }
    assert_eq!(plain, render(&two_edges(), 120, false));
}

#[test]
fn the_share_of_every_replica_is_shown() {
    assert_eq!(
        render_replicas(&three_replicas(), 100, false),
        golden(
            "
orders:80 is answered by
REPLICA                         SHARE  REQ/S  SUCCESS  P50 ms  P99 ms
orders-1  ████████████░░░░░░░░  60.0%   60.0     100%     0.5     1.0
orders-2  █░░░░░░░░░░░░░░░░░░░   4.0%    4.0     100%     0.5     1.0
orders-3  ███████░░░░░░░░░░░░░  36.0%   36.0   87.50%     0.5     1.0
"
        )
    );
}

#[test]
fn a_destination_with_one_replica_needs_no_table_of_replicas() {
    assert_eq!(render_replicas(&three_replicas()[..1], 100, false), "");
}

#[test]
fn totals_count_instead_of_rating() {
    assert_eq!(
        render_totals(&two_edges(), 120, false),
        golden(
            "
SOURCE       DESTINATION         REQUESTS  SUCCESS  P50 ms  P99 ms  mTLS  RETRIES  EJECTIONS
frontend     orders:80                200   99.50%     2.0    98.0   yes        7          2
shop/orders  shop/database:5432         0        -       -       -     -        0          0
"
        )
    );
}

#[test]
fn lines_say_the_same_without_a_table() {
    assert_eq!(
        lines(&two_edges(), &three_replicas()),
        [
            "frontend -> orders:80  100.0/s  success 99.50%  p50 2.0 p95 90.2 p99 98.0 ms  mTLS yes  ejected 1",
            "shop/orders -> shop/database:5432  0.0/s  success -  p50 - p95 - p99 - ms  mTLS -  ejected 0",
            "orders:80 is answered by  orders-1 60.0%  orders-2 4.0%  orders-3 36.0%",
        ]
    );
}

#[test]
fn a_single_failure_in_a_million_is_not_100_percent() {
    assert_eq!(percent(1.0), "100%");
    assert_eq!(percent(0.999_999), "99.99%");
    assert_eq!(percent(0.0), "0.00%");
}

#[test]
fn texts_are_cut_by_characters() {
    for (width, text) in [(0, ""), (1, "…"), (3, "né…"), (4, "néon"), (9, "néon")] {
        assert_eq!(cut("néon", width), text);
    }
}
