use super::super::scrape::parse;
use super::*;

fn snapshot(pages: &[(&str, &str)]) -> Snapshot {
    pages.iter().map(|(proxy, page)| ((*proxy).to_owned(), parse(page).unwrap())).collect()
}

/// Outbound labels of an edge to orders.
fn out(source: &str, more: &str) -> String {
    format!("{{direction=\"outbound\",source=\"default/{source}\",destination=\"default/orders:80\"{more}}}")
}

fn requests(source: &str, ok: u32, failed: u32, lost: u32) -> String {
    let class =
        |class, count| format!("weft_requests_total{} {count}\n", out(source, &format!(",code_class=\"{class}\"")));
    class("2xx", ok) + &class("5xx", failed) + &class("failed", lost)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn an_edge_is_the_increase_of_its_source_proxies() {
    let before = snapshot(&[("frontend-1", &requests("frontend", 100, 5, 5)), ("frontend-2", "")]);
    let after =
        snapshot(&[("frontend-1", &requests("frontend", 190, 6, 9)), ("frontend-2", &requests("frontend", 105, 0, 0))]);
    let edges = edges(&before, &after, 2 * SECOND);
    assert_eq!(edges.len(), 1);
    assert_eq!((edges[0].source.as_str(), edges[0].destination.as_str()), ("default/frontend", "default/orders:80"));
    assert_eq!((edges[0].requests, edges[0].failures, edges[0].rate()), (200.0, 5.0, 100.0));
    assert_eq!(edges[0].success(), Some(0.975));
}

#[test]
fn client_errors_are_the_clients_and_count_as_success() {
    let page = format!("weft_requests_total{} 10\n", out("frontend", ",code_class=\"4xx\""));
    assert_eq!(edges(&Snapshot::new(), &snapshot(&[("a", &page)]), SECOND)[0].success(), Some(1.0));
}

#[test]
fn a_restarted_proxy_counts_from_zero_again() {
    let before = snapshot(&[("frontend-1", &requests("frontend", 100, 0, 0))]);
    let after = snapshot(&[("frontend-1", &requests("frontend", 30, 0, 0))]);
    let edges = edges(&before, &after, SECOND);
    assert_eq!((edges.len(), edges[0].requests), (1, 30.0));
}

#[test]
fn an_idle_edge_stays_listed_without_figures() {
    let same = snapshot(&[("frontend-1", &requests("frontend", 100, 0, 0))]);
    let edge = &edges(&same, &same, SECOND)[0];
    assert_eq!((edge.rate(), edge.success(), edge.latency.millis(0.5)), (0.0, None, None));
    assert_eq!(edge.mtls, Mtls::Unknown);
}

#[test]
fn latencies_of_several_proxies_make_one_distribution() {
    let page = |fast: u32, all: u32| {
        let bucket = |le, count| {
            format!("weft_request_duration_seconds_bucket{} {count}\n", out("frontend", &format!(",le=\"{le}\"")))
        };
        bucket("0.001", 0) + &bucket("0.002", fast) + &bucket("0.1", all) + &bucket("+Inf", all)
    };
    let edges =
        edges(&Snapshot::new(), &snapshot(&[("frontend-1", &page(50, 50)), ("frontend-2", &page(0, 50))]), SECOND);
    assert!((edges[0].latency.millis(0.25).unwrap() - 1.5).abs() < 1e-9);
    assert!((edges[0].latency.millis(0.75).unwrap() - 51.0).abs() < 1e-9);
}

#[test]
fn mtls_is_told_from_all_connections_so_far() {
    let connections = |mutual, none| {
        format!(
            "weft_connections_total{} {mutual}\nweft_connections_total{} {none}\n",
            out("frontend", ",tls=\"mutual\""),
            out("frontend", ",tls=\"none\"")
        )
    };
    let table = [(0, 0, Mtls::Unknown), (3, 0, Mtls::Yes), (0, 3, Mtls::No), (1, 3, Mtls::Partly)];
    for (mutual, none, verdict) in table {
        let now = snapshot(&[("frontend-1", &connections(mutual, none))]);
        assert_eq!(edges(&now, &now, SECOND)[0].mtls, verdict, "{mutual} mutual, {none} plain");
    }
}

#[test]
fn ejected_endpoints_are_those_of_one_proxy_and_ejections_those_of_all() {
    let page = |ejected: u32, ejections: u32| {
        format!(
            "weft_endpoints_ejected{labels} {ejected}\nweft_ejections_total{labels} {ejections}\n\
             weft_retries_total{labels} 3\n",
            labels = out("frontend", "")
        )
    };
    let edges = edges(&Snapshot::new(), &snapshot(&[("frontend-1", &page(1, 4)), ("frontend-2", &page(2, 5))]), SECOND);
    assert_eq!((edges[0].ejected, edges[0].ejections, edges[0].retries), (2, 9.0, 6.0));
    assert!(edges[0].out.is_empty());
}

#[test]
fn ejected_endpoints_with_names_are_summed_and_named() {
    let gauge = |endpoint, value| {
        format!("weft_endpoints_ejected{} {value}\n", out("frontend", &format!(",endpoint=\"default/{endpoint}\"")))
    };
    let page = gauge("orders-1", 0) + &gauge("orders-2", 1) + &gauge("orders-3", 1);
    let edge = &edges(&Snapshot::new(), &snapshot(&[("frontend-1", &page)]), SECOND)[0];
    assert_eq!(edge.ejected, 2);
    assert_eq!(edge.out.iter().collect::<Vec<_>>(), ["orders-2", "orders-3"]);
}

fn inbound(ok: u32, failed: u32) -> String {
    let class = |class, count| {
        format!(
            "weft_requests_total{{direction=\"inbound\",source=\"default/frontend\",\
             destination=\"default/orders:80\",code_class=\"{class}\"}} {count}\n"
        )
    };
    class("2xx", ok) + &class("5xx", failed)
}

#[test]
fn replicas_are_what_the_proxies_beside_them_counted() {
    let now = snapshot(&[("default/orders-1", &inbound(75, 0)), ("default/orders-2", &inbound(20, 5))]);
    let found = replicas(&Snapshot::new(), &now, SECOND, &edges(&Snapshot::new(), &now, SECOND));
    let names: Vec<&str> = found.iter().map(|replica| replica.name.as_str()).collect();
    assert_eq!(names, ["orders-1", "orders-2"]);
    assert_eq!((found[1].requests, found[1].success()), (25.0, Some(0.8)));
    assert_eq!(shares(&found), [Some(0.75), Some(0.25)]);
}

#[test]
fn what_callers_sent_counts_before_what_was_answered() {
    let sent = |endpoint, count| {
        format!(
            "weft_endpoint_requests_total{} {count}\n",
            out("frontend", &format!(",endpoint=\"default/{endpoint}\""))
        )
    };
    let frontend = sent("orders-1", 60) + &sent("orders-2", 40);
    // orders-2 cannot be reached; its own proxy saw nothing.
    let now = snapshot(&[("default/frontend-1", &frontend), ("default/orders-1", &inbound(60, 0))]);
    let found = replicas(&Snapshot::new(), &now, SECOND, &edges(&Snapshot::new(), &now, SECOND));
    assert_eq!((found[1].name.as_str(), found[1].requests, found[1].answered), ("orders-2", 40.0, 0.0));
    assert_eq!(found[1].success(), None);
    assert_eq!(shares(&found), [Some(0.6), Some(0.4)]);
}

#[test]
fn intervals_add_up() {
    let first = snapshot(&[("frontend-1", &requests("frontend", 10, 0, 0))]);
    let second = snapshot(&[("frontend-1", &requests("frontend", 30, 5, 0))]);
    let mut total = edges(&Snapshot::new(), &first, SECOND).remove(0);
    total.extend(&edges(&first, &second, 2 * SECOND)[0]);
    assert_eq!((total.requests, total.failures, total.elapsed), (35.0, 5.0, 3 * SECOND));
}

#[test]
fn series_without_ends_and_values_that_are_no_counts_are_left_out() {
    let page = format!(
        "weft_requests_total 5\nweft_requests_total{{direction=\"outbound\",source=\"a\"}} 5\nweft_requests_total{} NaN\n\
         weft_retries_total{} +Inf\nweft_ejections_total{} -4\n",
        out("frontend", ",code_class=\"2xx\""),
        out("frontend", ""),
        out("frontend", "")
    );
    let edges = edges(&Snapshot::new(), &snapshot(&[("a", &page)]), SECOND);
    assert_eq!(edges.len(), 1);
    assert_eq!((edges[0].requests, edges[0].retries, edges[0].ejections), (0.0, 0.0, 0.0));
}
