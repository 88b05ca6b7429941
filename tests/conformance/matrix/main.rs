//! Every protocol through one proxy in plaintext and through both with mutual TLS, between programs that were not written
//! for us: curl, Python's http.server, the `websockets` and `grpcio` libraries, plain sockets.
//!
//! Each cell is a line of a client's output; `cargo test -p weft-tests --test matrix -- --nocapture` shows them all.

mod abrupt;
mod peers;

use std::time::Duration;

use peers::{Peer, play};
use weft_tests::process::crossing::{Behind, Crossing, Way};
use weft_tests::process::nghttpd::Nghttpd;
use weft_tests::process::python::{GRPC, WEBSOCKETS};
use weft_tests::process::{command, need, run_within};

/// All cells of one client: 100 MiB of it through four sockets and two TLS connections.
const LIMIT: Duration = Duration::from_mins(3);

/// One server and one client of a protocol, both ways.
fn protocol(server: &str, client: &str, package: Option<(&str, &str)>, declared: &[Option<&'static str>], label: &str) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let peer = Peer::start(place.path(), server, package, &[]);
    let named = |number: usize| format!("peer{number}");
    let behind: Vec<Behind> = declared
        .iter()
        .enumerate()
        .map(|(number, protocol)| Behind::new(&named(number), peer.address(), *protocol))
        .collect();
    let mut wrong = Vec::new();
    for (number, behind) in behind.into_iter().enumerate() {
        let place = place.path().join(named(number));
        std::fs::create_dir(&place).expect("the place can be written to");
        let declared = behind.protocol.unwrap_or("undeclared");
        let crossing = Crossing::start(&place, &[behind]);
        for way in Way::BOTH {
            let label = format!("{label} {} {declared}", way.name());
            wrong.extend(play(client, package, &[&crossing.entrance(&named(number), way).to_string(), &label], LIMIT));
        }
        crossing.is_quiet();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn http1_bodies_arrive_whole_and_ends_are_told() {
    protocol("http_server.py", "http_client.py", None, &[Some("http"), None], "HTTP/1.1");
}

#[test]
fn websockets_carry_messages_of_every_size_and_close_with_their_codes() {
    protocol("websocket_server.py", "websocket_client.py", Some(WEBSOCKETS), &[Some("http"), None], "WebSocket");
}

#[test]
fn websockets_come_over_http2_to_servers_that_know_http1_alone() {
    let label = "WebSocket over HTTP/2";
    protocol("websocket_server.py", "websocket_http2_client.py", Some(WEBSOCKETS), &[Some("http1")], label);
}

#[test]
fn bytes_arrive_whole_and_each_way_ends_by_itself() {
    protocol("tcp_server.py", "tcp_client.py", None, &[Some("tcp"), None], "TCP");
}

#[test]
fn grpc_calls_of_every_kind_work_end_to_end() {
    protocol("grpc_server.py", "grpc_client.py", Some(GRPC), &[Some("grpc"), Some("http"), None], "gRPC");
}

#[test]
fn one_grpc_channel_is_balanced_call_by_call_and_outlives_its_servers_connections() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let start = |arguments: &[&str]| Peer::start(place.path(), "grpc_server.py", Some(GRPC), arguments);
    let replicas = ["one", "two", "three"].map(|name| start(&[name]));
    // Each connection of this one is over after 300 ms.
    let ageing = start(&["ageing", "300"]);
    let mut balanced = Behind::new("balanced", replicas[0].address(), Some("http"));
    balanced.replicas = replicas[1..].iter().map(Peer::address).collect();
    let crossing = Crossing::start(place.path(), &[balanced, Behind::new("ageing", ageing.address(), Some("http"))]);
    let entrance = |name: &str, way| crossing.entrance(name, way).to_string();
    let mut wrong =
        play("grpc_client.py", Some(GRPC), &[&entrance("balanced", Way::Plain), "gRPC plain", "balance"], LIMIT);
    for way in Way::BOTH {
        let label = format!("gRPC {}", way.name());
        wrong.extend(play("grpc_client.py", Some(GRPC), &[&entrance("ageing", way), &label, "goaway"], LIMIT));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn http2_bodies_arrive_whole_and_load_loses_nothing() {
    need(&["h2load"]);
    let place = tempfile::tempdir().expect("a temporary directory");
    let server = Nghttpd::start(place.path(), 1024);
    let crossing = Crossing::start(place.path(), &[Behind::new("web", server.address(), Some("http"))]);
    let mut wrong = Vec::new();
    for way in Way::BOTH {
        let entrance = crossing.entrance("web", way).to_string();
        wrong.extend(play("http2_client.py", None, &[&entrance, &format!("h2 {}", way.name())], LIMIT));
        let mut load = command("h2load");
        load.args(["-n", "10000", "-c", "10", "-m", "10", &format!("http://{entrance}/")]);
        let said = run_within(&mut load, LIMIT).succeeded();
        let whole = said.contains("10000 succeeded, 0 failed, 0 errored, 0 timeout") && said.contains("10000 2xx");
        if whole { println!("ok h2 {} 10,000 requests of h2load", way.name()) } else { wrong.push(said) }
    }
    crossing.is_quiet();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
