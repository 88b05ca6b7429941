//! Every protocol through one proxy in plaintext and through both with mutual TLS, between programs that were not written
//! for us: curl, Python's http.server, the `websockets` and `grpcio` libraries, plain sockets.
//!
//! Each cell is a line of a client's output; `cargo test -p weft-tests --test matrix -- --nocapture` shows them all.

mod peers;

use std::time::Duration;

use peers::{Peer, play};
use weft_tests::process::crossing::{Behind, Crossing, Way};
use weft_tests::process::python::{GRPC, WEBSOCKETS};

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
fn bytes_arrive_whole_and_each_way_ends_by_itself() {
    protocol("tcp_server.py", "tcp_client.py", None, &[Some("tcp"), None], "TCP");
}

#[test]
fn grpc_calls_of_every_kind_work_end_to_end() {
    // Carried as bytes where nobody declared the port and HTTP/2 is not known, and call by call where it is.
    protocol("grpc_server.py", "grpc_client.py", Some(GRPC), &[None], "gRPC");
}
