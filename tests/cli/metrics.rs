//! What a proxy tells about itself: Prometheus accepts it, the counts are right, and nobody else can ask.

#![allow(clippy::unwrap_used, reason = "a test that cannot have what it needs has failed")]

use std::net::{SocketAddr, TcpStream};

use serde_json::Value;
use weft_tests::process::metrics::Metrics;
use weft_tests::process::pair::{CLUSTER, Pair};
use weft_tests::process::python::{self, PROMETHEUS};
use weft_tests::process::{command, fed, holds, run, until};

/// Reads a scrape with Prometheus' own parser and writes it as JSON: `[[family, type, sample, labels, value], ...]`.
const READER: &str = "
import json, sys
from prometheus_client.parser import text_string_to_metric_families
families = list(text_string_to_metric_families(sys.stdin.read()))
names = [family.name for family in families]
assert len(names) == len(set(names)), 'a family twice: ' + str(names)
json.dump([[f.name, f.type, s.name, s.labels, s.value] for f in families for s in f.samples], sys.stdout)
";

fn parsed(text: &str) -> Vec<Value> {
    let json = fed(command(python::interpreter(PROMETHEUS)).args(["-c", READER]), text).succeeded();
    serde_json::from_str::<Value>(&json).unwrap().as_array().unwrap().clone()
}

/// Label names of a sample.
fn labels(samples: &[Value], name: &str) -> Vec<String> {
    let sample = samples.iter().find(|sample| sample[2] == name).unwrap_or_else(|| panic!("there is no {name}"));
    let mut names: Vec<String> = sample[3].as_object().unwrap().keys().cloned().collect();
    names.sort();
    names
}

#[test]
fn prometheus_reads_every_signal_of_the_edges_and_finds_its_labels() {
    let place = tempfile::tempdir().unwrap();
    let pair = Pair::start(place.path());
    for path in ["/", "/missing", "/broken"] {
        pair.curl(path);
    }
    for proxy in [&pair.client, &pair.server] {
        let samples = parsed(&proxy.ask("/metrics").unwrap().body);
        for (name, kind, expected) in [
            ("weft_requests_total", "counter", &["code_class", "destination", "direction", "source"][..]),
            ("weft_request_duration_seconds_bucket", "histogram", &["destination", "direction", "le", "source"]),
            ("weft_request_duration_seconds_sum", "histogram", &["destination", "direction", "source"]),
            ("weft_request_duration_seconds_count", "histogram", &["destination", "direction", "source"]),
            ("weft_bytes_total", "counter", &["destination", "direction", "source", "way"]),
            ("weft_connections_total", "counter", &["destination", "direction", "source", "tls"]),
            ("weft_connections_active", "gauge", &["destination", "direction", "source", "tls"]),
            ("weft_requests_in_flight", "gauge", &["destination", "direction", "source"]),
            ("weft_ejections_total", "counter", &["destination", "direction", "source"]),
            ("weft_retries_total", "counter", &["destination", "direction", "source"]),
        ] {
            assert_eq!(labels(&samples, name), expected, "{name}");
            assert!(
                samples.iter().filter(|sample| sample[2] == name).all(|sample| sample[1] == kind),
                "{name}: {kind}"
            );
        }
    }
    let samples = parsed(&pair.client.ask("/metrics").unwrap().body);
    // One series for each endpoint.
    assert_eq!(labels(&samples, "weft_endpoints_ejected"), ["destination", "direction", "endpoint", "source"]);
    let type_of = |name: &str| pair.client.ask(name).unwrap().field("content-type").unwrap_or_default().to_owned();
    assert!(type_of("/metrics").starts_with("text/plain; version=0.0.4"));
    assert!(type_of("/config_dump").starts_with("application/json"));
}

#[test]
fn buckets_only_grow_and_end_with_the_count() {
    let place = tempfile::tempdir().unwrap();
    let pair = Pair::start(place.path());
    for _ in 0..10 {
        pair.curl("/");
    }
    let samples = parsed(&pair.client.ask("/metrics").unwrap().body);
    let edge = |sample: &&Value| sample[3]["destination"] == CLUSTER;
    let of = |name: &'static str| samples.iter().filter(edge).filter(move |sample| sample[2] == name);
    let mut last = (-1.0, -1.0);
    for sample in of("weft_request_duration_seconds_bucket") {
        let bound = match sample[3]["le"].as_str().unwrap() {
            "+Inf" => f64::INFINITY,
            bound => bound.parse().unwrap(),
        };
        let count = sample[4].as_f64().unwrap();
        assert!(bound > last.0 && count >= last.1, "{sample} after {last:?}");
        last = (bound, count);
    }
    assert_eq!(last, (f64::INFINITY, 10.0));
    assert_eq!(of("weft_request_duration_seconds_count").next().unwrap()[4], 10.0);
    let sum = of("weft_request_duration_seconds_sum").next().unwrap()[4].as_f64().unwrap();
    assert!(sum > 0.0 && sum < 60.0, "{sum} s for ten requests");
}

#[test]
fn counts_are_what_curl_did() {
    let place = tempfile::tempdir().unwrap();
    let pair = Pair::start(place.path());
    let mut bytes = 0;
    for (path, times, status) in [("/", 7, 200), ("/missing", 3, 404), ("/broken", 2, 500)] {
        for _ in 0..times {
            let (found, body) = pair.curl(path);
            assert_eq!(found, status);
            bytes += body.len();
        }
    }
    let count = |metrics: &Metrics, direction: &str, class: &str| {
        let labels =
            [("direction", direction), ("source", "default/client"), ("destination", CLUSTER), ("code_class", class)];
        metrics.sum("weft_requests_total", &labels)
    };
    for (proxy, direction) in [(&pair.client, "outbound"), (&pair.server, "inbound")] {
        let metrics = proxy.settled();
        for (class, expected) in [("2xx", 7), ("4xx", 3), ("5xx", 2), ("3xx", 0), ("failed", 0)] {
            assert_eq!(count(&metrics, direction, class), expected, "{direction} {class}");
        }
        let edge = [("direction", direction), ("destination", CLUSTER)];
        assert_eq!(metrics.sum("weft_request_duration_seconds_count", &edge), 12, "{direction}");
        assert_eq!(metrics.sum("weft_requests_in_flight", &edge), 0, "{direction}");
        let received = metrics.sum("weft_bytes_total", &[edge[0], edge[1], ("way", "received")]);
        assert!(received >= bytes as u64, "{direction}: {received} bytes, the bodies alone were {bytes}");
        assert!(metrics.sum("weft_bytes_total", &[edge[0], edge[1], ("way", "sent")]) > 0);
    }
    let mutual = [("direction", "outbound"), ("destination", CLUSTER), ("tls", "mutual")];
    assert!(pair.client.metrics().sum("weft_connections_total", &mutual) >= 1);
    assert!(!pair.client.metrics().has("weft_connections_total", &[("destination", CLUSTER), ("tls", "none")]));
    let endpoint = [("destination", CLUSTER), ("endpoint", "default/echo-1")];
    assert_eq!(pair.client.metrics().sum("weft_endpoint_requests_total", &endpoint), 12);
}

#[test]
fn what_is_under_way_shows_as_saturation() {
    let place = tempfile::tempdir().unwrap();
    let pair = Pair::start(place.path());
    let address = pair.outbound.address();
    let slow: Vec<_> =
        (0..3).map(|_| std::thread::spawn(move || weft_tests::process::http::curl(address, "/slow"))).collect();
    until("three requests are under way", || {
        holds(pair.application.waiting() == 3, || pair.application.waiting().to_string())
    });
    // The proxies share one connection; to the application each request has its own.
    for (proxy, direction, connections) in [(&pair.client, "outbound", 1), (&pair.server, "inbound", 3)] {
        let edge = [("direction", direction), ("destination", CLUSTER)];
        assert_eq!(proxy.metrics().sum("weft_requests_in_flight", &edge), 3, "{direction}");
        assert_eq!(proxy.metrics().sum("weft_connections_active", &edge), connections, "{direction}");
    }
    pair.application.release();
    assert!(slow.into_iter().all(|slow| slow.join().unwrap().0 == 200));
    for (proxy, direction) in [(&pair.client, "outbound"), (&pair.server, "inbound")] {
        let edge = [("direction", direction), ("destination", CLUSTER)];
        until("nothing is under way", || {
            let left = proxy.metrics().sum("weft_requests_in_flight", &edge);
            holds(left == 0, || left.to_string())
        });
    }
}

#[test]
fn the_dump_shows_identities_and_what_is_in_force() {
    let place = tempfile::tempdir().unwrap();
    let pair = Pair::start(place.path());
    let dump = pair.client.dump();
    assert_eq!(dump["certificate"]["identity"], "spiffe://weft.local/ns/default/sa/client");
    let left = dump["certificate"]["expires_in_seconds"].as_u64().unwrap();
    assert!((23 * 3600..=24 * 3600).contains(&left), "{left} s");
    let cluster = &dump["clusters"].as_array().unwrap().iter().find(|cluster| cluster["name"] == CLUSTER).unwrap();
    assert_eq!(cluster["identities"], serde_json::json!(["spiffe://weft.local/ns/default/sa/echo"]));
    assert_eq!(cluster["endpoints"][0]["address"], pair.inbound.address().to_string());
    assert_eq!(cluster["endpoints"][0]["workload"], "default/echo-1");
    let listener =
        &dump["listeners"].as_array().unwrap().iter().find(|l| l["name"] == format!("outbound/{CLUSTER}")).unwrap();
    assert_eq!((&listener["protocol"], &listener["routes"]["known"]), (&"http".into(), &true.into()));
    assert!(pair.server.dump()["listeners"].to_string().contains("\"tls\":\"strict\""), "{}", pair.server.dump());
}

/// Addresses of this machine that are not loopback.
fn outer_addresses() -> Vec<String> {
    let text = run(command("ip").args(["-brief", "-4", "address", "show", "scope", "global"])).succeeded();
    let address = |line: &str| Some(line.split_whitespace().nth(2)?.split('/').next()?.to_owned());
    text.lines().filter_map(address).collect()
}

#[test]
fn the_admin_endpoint_listens_on_loopback_alone() {
    let place = tempfile::tempdir().unwrap();
    let pair = Pair::start(place.path());
    let port = pair.client.admin().port();
    // What the kernel says: the process's sockets in state LISTEN (0A), by local address.
    let mine = std::fs::read_dir(format!("/proc/{}/fd", pair.client.process.id())).unwrap();
    let mine: Vec<String> =
        mine.flatten().filter_map(|fd| Some(std::fs::read_link(fd.path()).ok()?.to_str()?.to_owned())).collect();
    let of_family = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let table = of_family("/proc/net/tcp") + &of_family("/proc/net/tcp6");
    let listening: Vec<&str> = table
        .lines()
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let inode = format!("socket:[{}]", columns.get(9)?);
            (columns[3] == "0A" && mine.contains(&inode)).then(|| columns[1])
        })
        .collect();
    assert!(listening.contains(&format!("0100007F:{port:04X}").as_str()), "{listening:?}");
    assert!(listening.iter().all(|address| address.starts_with("0100007F:")), "{listening:?}");
    for address in outer_addresses() {
        let address: SocketAddr = format!("{address}:{port}").parse().unwrap();
        assert!(TcpStream::connect(address).is_err(), "{address} answers");
    }
}

#[test]
fn unknown_paths_and_hostile_requests_do_not_hurt_the_admin_endpoint() {
    let place = tempfile::tempdir().unwrap();
    let pair = Pair::start(place.path());
    let answer = pair.client.ask("/nothing").unwrap();
    assert_eq!((answer.status, answer.body.trim()), (404, "try /ready, /live, /metrics, /config_dump, /log-level"));
    for request in ["GARBAGE\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\0\0\0\0", "GET /metrics"] {
        let mut stream = TcpStream::connect(pair.client.admin()).unwrap();
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    }
    assert_eq!(pair.client.ask("/live").unwrap().status, 200);
}
