//! Ports nobody declared: what one proxy found out, the next ones know from the start.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use serde_json::{Value, json};
use weft_tests::process::application::Application;
use weft_tests::process::crossing::{Behind, Crossing, Way};
use weft_tests::process::http;
use weft_tests::process::sidecar::{Settings, Sidecar};
use weft_tests::process::{PATIENCE, Port, holds, until};

const GREETING: &[u8] = b"220 mail.example ESMTP Postfix\r\n";
const BYE: &[u8] = b"221 2.0.0 Bye\r\n";

/// A server that speaks first.
fn mail() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                stream.write_all(GREETING)?;
                stream.read_exact(&mut [0; 6])?;
                stream.write_all(BYE)
            });
        }
    });
    address
}

/// A conversation whose client waits for the greeting.
fn send_mail(entrance: SocketAddr) {
    let mut stream = TcpStream::connect_timeout(&entrance, PATIENCE).expect("the proxy takes connections");
    stream.set_read_timeout(Some(PATIENCE)).expect("a plain option");
    let mut greeting = vec![0; GREETING.len()];
    stream.read_exact(&mut greeting).expect("the greeting comes although the client is silent");
    assert_eq!(greeting, GREETING);
    stream.write_all(b"QUIT\r\n").expect("the server listens");
    let mut bye = Vec::new();
    stream.read_to_end(&mut bye).expect("the answer comes and the end");
    assert_eq!(bye, BYE);
}

/// What a proxy believes of the port of a listener.
fn believed(sidecar: &Sidecar, listener: &str) -> Value {
    let dump = sidecar.dump();
    let listeners = dump["listeners"].as_array().expect("listeners are a list");
    let found = listeners.iter().find(|found| found["name"] == listener);
    found.unwrap_or_else(|| panic!("no {listener} in {dump}"))["detected"].clone()
}

/// Waits until the control plane knows this of undeclared ports.
fn known(crossing: &Crossing, expected: &Value) {
    until("the control plane knows what the ports speak", || {
        let detected = crossing.plane.status()["detected"].clone();
        holds(detected == *expected, || detected.to_string())
    });
}

fn document(crossing: &Crossing) -> String {
    crossing.plane.weft(&["get", "service", "mail", "-o", "yaml"]).succeeded()
}

#[test]
fn a_new_proxy_knows_what_others_found_out() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let shop = Application::start("shop");
    let servers = [
        Behind::new("mail", mail(), None),
        Behind::new("shop", shop.address(), None),
        Behind::new("declared", mail(), Some("tcp")),
    ];
    let mut crossing = Crossing::start(place.path(), &servers);
    let before = document(&crossing);
    assert_eq!(crossing.plane.status()["detected"], json!({}));
    assert_eq!(believed(&crossing.client, "outbound/default/mail:80"), json!({"protocol": null, "seen_here": false}));
    for way in Way::BOTH {
        send_mail(crossing.entrance("mail", way));
        send_mail(crossing.entrance("declared", way));
        assert_eq!(http::get(crossing.entrance("shop", way), "/").expect("the shop answers").status, 200);
    }
    // The services outside the mesh have no proxy that could be believed, the declared one needs none.
    let expected = json!({"default/mail:80": "server_first", "default/shop:80": "http1"});
    known(&crossing, &expected);
    assert_eq!(document(&crossing), before, "the user's document is the user's");

    // A proxy that has never seen them.
    crossing.plane.apply(
        "apiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {name: client-2}\n\
         spec: {addresses: [127.0.0.1], serviceAccount: client}\n",
    );
    let entrances = [Port::reserve(), Port::reserve()];
    let settings = Settings::new(&crossing.plane, "client-2", "client");
    let settings = settings.outbound(&entrances[0], "127.96.2.1:80".parse().expect("an address"));
    let settings = settings.outbound(&entrances[1], "127.96.2.2:80".parse().expect("an address"));
    let second = settings.start(&crossing.plane);
    second.ready();
    let heard = |protocol: &str| json!({"protocol": protocol, "seen_here": false});
    assert_eq!(believed(&second, "outbound/default/mail:80"), heard("server_first"));
    assert_eq!(believed(&second, "outbound/default/shop:80"), heard("http1"));
    assert_eq!(believed(&second, "outbound/default/declared:80"), Value::Null);
    send_mail(entrances[0].address());
    assert_eq!(http::get(entrances[1].address(), "/").expect("the shop answers").status, 200);
    let metrics = second.metrics();
    for (destination, protocol) in [("default/mail:80", "server_first"), ("default/shop:80", "http1")] {
        let by_memory =
            [("direction", "outbound"), ("destination", destination), ("protocol", protocol), ("by", "memory")];
        assert_eq!(metrics.sum("weft_detections_total", &by_memory), 1, "{destination}");
        assert_eq!(metrics.sum("weft_detections_total", &[("destination", destination)]), 1, "{destination}");
        let took = metrics.sum("weft_detection_duration_seconds_count", &[("destination", destination)]);
        assert_eq!(took, 1, "{destination}");
    }
    assert_eq!(believed(&second, "outbound/default/mail:80")["seen_here"], true);

    // It keeps nothing on disk: the proxies tell it again.
    crossing.plane.kill();
    crossing.plane.start_again();
    known(&crossing, &expected);
}
