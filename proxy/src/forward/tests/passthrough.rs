//! TLS that is not ours: by its name to where a route says, not a byte changed.

use std::sync::Arc;
use std::time::Duration;

use weft_core::model::{InboundTls, ServerNameSpec, WeightedCluster};

use super::*;
use crate::state::Change;
use crate::testing::{Mesh, PATIENCE, endpoint_set, inbound};
use crate::tls::CredentialStore;
use crate::tls::testing::client_hello;

/// A port whose connections go by name: names, cluster, and where that is.
fn by_name(entries: &[(&[&str], &str, SocketAddr)]) -> Change {
    let mut change = outbound(Protocol::Tls, &[], None);
    let cluster = change.clusters.pop().expect("one");
    change.routes.clear();
    change.endpoints.clear();
    change.listeners[0].routes = None;
    change.listeners[0].cluster = None;
    for (names, name, address) in entries {
        let mut cluster = cluster.clone();
        cluster.name = (*name).into();
        cluster.endpoints = weft_core::model::EndpointSource::Discovered(cluster.name.clone());
        change.clusters.push(cluster);
        change.endpoints.push(endpoint_set(name, &[*address]));
        change.listeners[0].server_names.push(ServerNameSpec {
            names: names.iter().map(ToString::to_string).collect(),
            clusters: vec![WeightedCluster { cluster: (*name).into(), weight: 1 }],
        });
    }
    change
}

fn start(change: Change) -> RunningWorker {
    RunningWorker::start(Direction::Outbound, destination(), change)
}

/// Writes these bytes, and sees them arrive; then the answer, and both ends.
#[track_caller]
fn passes(mut client: TcpStream, bytes: &[u8], application: &Application) {
    client.write_all(bytes).expect("written");
    client.shutdown(std::net::Shutdown::Write).expect("half-closed");
    let mut arrived = Vec::new();
    let mut stream = application.accept();
    stream.read_to_end(&mut arrived).expect("read to the end");
    assert_eq!(arrived, bytes, "not as it was sent");
    send(&mut stream, "an answer");
    drop(stream);
    expect(&mut client, "an answer");
    expect_end(&mut client);
}

const ALERT: &[u8] = &[21, 3, 3, 0, 2, 2, 112];

#[test]
fn tls_goes_to_the_cluster_of_its_name_as_it_is() {
    let (exact, below, others) = (Application::start(), Application::start(), Application::start());
    let worker = start(by_name(&[
        (&["*.example"], "below", below.address),
        (&["a.example"], "exact", exact.address),
        (&[], "others", others.address),
    ]));
    for (name, application) in
        [("a.example", &exact), ("b.example", &below), ("A.B.Example", &below), ("a.test", &others)]
    {
        let mut bytes = client_hello(name, &["h2"]);
        bytes.extend([23, 3, 3, 0, 4, 1, 2, 3, 4]);
        passes(worker.connect(), &bytes, application);
    }
    // What asks for no name, and what is no TLS, goes where all others go.
    passes(worker.connect(), &client_hello("192.0.2.1", &[]), &others);
    passes(worker.connect(), b"GET / HTTP/1.0\r\n\r\n", &others);
}

#[test]
fn a_hello_may_come_byte_by_byte() {
    let application = Application::start();
    let worker = start(by_name(&[(&["a.example"], "a", application.address)]));
    let mut client = worker.connect();
    let bytes = client_hello("a.example", &[]);
    let (last, first) = bytes.split_last().expect("bytes");
    for byte in first {
        client.write_all(&[*byte]).expect("written");
    }
    assert!(application.accept_within(Duration::ZERO).is_none(), "nobody is called before it is known whom");
    client.write_all(&[*last]).expect("written");
    let mut arrived = vec![0; bytes.len()];
    application.accept().read_exact(&mut arrived).expect("it comes whole");
    assert_eq!(arrived, bytes);
}

#[test]
fn a_name_nobody_takes_is_refused_by_an_alert() {
    let application = Application::start();
    let worker = start(by_name(&[(&["a.example"], "a", application.address)]));
    for name in ["b.example", "x.a.example", "192.0.2.1"] {
        let mut client = worker.connect();
        client.write_all(&client_hello(name, &[])).expect("written");
        let mut alert = vec![0; ALERT.len()];
        client.read_exact(&mut alert).expect("an alert");
        assert_eq!(alert, ALERT, "{name}");
        expect_end(&mut client);
    }
    assert!(application.accept_within(Duration::ZERO).is_none());
}

#[test]
fn what_is_no_tls_is_closed_where_only_names_are_taken() {
    let application = Application::start();
    let worker = start(by_name(&[(&["a.example"], "a", application.address)]));
    let mut twice = client_hello("a.example", &[]);
    twice[5] = 2;
    for bytes in [b"GET / HTTP/1.1\r\n".as_slice(), &twice, b"\x16\x03\x01\xff\xff"] {
        let mut client = worker.connect();
        client.write_all(bytes).expect("written");
        expect_end(&mut client);
    }
    assert!(application.accept_within(Duration::ZERO).is_none());
}

#[test]
fn half_a_hello_does_not_hold_a_connection() {
    let application = Application::start();
    let change = by_name(&[(&["a.example"], "a", application.address)]);
    let worker = RunningWorker::start_tuned(Direction::Outbound, destination(), change, Arc::default(), |worker| {
        worker.timeouts.handshake = Duration::from_millis(100);
    });
    for bytes in [&client_hello("a.example", &[])[..100], b""] {
        let mut client = worker.connect();
        client.write_all(bytes).expect("written");
        expect_end(&mut client);
        // Its end does as well.
        let mut client = worker.connect();
        client.write_all(bytes).expect("written");
        client.shutdown(std::net::Shutdown::Write).expect("half-closed");
        expect_end(&mut client);
    }
    assert!(application.accept_within(Duration::ZERO).is_none());
}

#[test]
fn a_name_whose_cluster_is_not_known_is_closed() {
    let mut change = by_name(&[(&["a.example"], "a", ([127, 0, 0, 1], 1).into())]);
    change.clusters.clear();
    let worker = start(change);
    let mut client = worker.connect();
    client.write_all(&client_hello("a.example", &[])).expect("written");
    expect_end(&mut client);
}

#[test]
fn passed_through_tls_crosses_the_mesh_inside_ours() {
    let application = Application::start();
    let mesh = Mesh::new();
    let inner = mesh.inner(inbound(Protocol::Tls, InboundTls::Strict, application.address));
    let mut change = by_name(&[(&["a.example"], "a", inner.address)]);
    let identities = vec![mesh.orders.clone()];
    change.clusters[0].tls = Some(weft_core::model::UpstreamTls { identities, exceptions: Box::default() });
    let outer = mesh.outer(change);
    passes(outer.connect(), &client_hello("a.example", &["h2"]), &application);
}

#[test]
fn a_permissive_port_passes_the_applications_own_tls_through() {
    let mesh = Mesh::new();
    for protocol in [Protocol::Tcp, Protocol::Tls, Protocol::Detect] {
        let application = Application::start();
        let inner = mesh.inner(inbound(protocol, InboundTls::Permissive, application.address));
        passes(inner.connect(), &client_hello("a.example", &["h2", "http/1.1"]), &application);
        passes(inner.connect(), &client_hello("a.example", &[]), &application);
        // Looks like TLS for two bytes: somebody's own protocol.
        passes(inner.connect(), b"\x16\x03hello", &application);
        passes(inner.connect(), b"\x16", &application);
        // And the mesh comes in as ever.
        let plain = if protocol == Protocol::Tls { Protocol::Tcp } else { protocol };
        let outer = mesh.outer(outbound(plain, &[inner.address], Some(mesh.orders.clone())));
        passes(outer.connect(), b"\x00 bytes", &application);
        passes(outer.connect(), &client_hello("a.example", &["h2"]), &application);
    }
}

#[test]
fn a_permissive_port_of_requests_takes_no_tls_but_the_meshs() {
    let application = Application::start();
    let mesh = Mesh::new();
    let inner = mesh.inner(inbound(Protocol::Http, InboundTls::Permissive, application.address));
    let mut client = inner.connect();
    client.write_all(&client_hello("a.example", &["h2"])).expect("written");
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer);
    assert!(matches!(answer.first(), Some(21 | 22)), "TLS answers, the application does not: {answer:?}");
    assert!(application.accept_within(Duration::ZERO).is_none());
}

#[test]
fn a_permissive_port_waits_for_a_hello_that_comes_in_pieces() {
    let application = Application::start();
    let credentials = Arc::new(CredentialStore::new());
    let change = inbound(Protocol::Tcp, InboundTls::Permissive, application.address);
    let worker = RunningWorker::start_with(Direction::Inbound, destination(), change, credentials);
    let hello = client_hello("a.example", &["h2"]);
    let mut client = worker.connect();
    for piece in hello.chunks(100) {
        client.write_all(piece).expect("written");
    }
    let mut arrived = vec![0; hello.len()];
    application.accept_within(PATIENCE).expect("a connection").read_exact(&mut arrived).expect("it comes whole");
    assert_eq!(arrived, hello);
}
