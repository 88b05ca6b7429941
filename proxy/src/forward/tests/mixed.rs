//! One service whose endpoints are partly meshed: those by mutual TLS, the others in plaintext, never the other way round.

use std::time::Duration;

use weft_core::model::{ClusterSpec, InboundTls, TransportLabels, TransportMatch, UpstreamProtocol};

use super::http2::{Client2, block_on};
use super::named::{Named, ask};
use super::*;
use crate::state::Change;
use crate::testing::{Mesh, endpoint_set, inbound};

fn plaintext() -> Option<TransportLabels> {
    TransportLabels::new([("plaintext".into(), "true".into())])
}

fn exception(cluster: &mut ClusterSpec) {
    let tls = cluster.tls.as_mut().expect("a cluster of the mesh");
    tls.exceptions = [TransportMatch { labels: plaintext(), is_protected: false }].into();
}

/// What the caller's proxy is told: of these endpoints those that say so have no proxy.
fn mixed(protocol: Protocol, mesh: &Mesh, endpoints: &[(SocketAddr, bool)]) -> Change {
    let addresses: Vec<SocketAddr> = endpoints.iter().map(|(address, _)| *address).collect();
    let mut change = outbound(protocol, &addresses, Some(mesh.orders.clone()));
    exception(&mut change.clusters[0]);
    change.clusters[0].protocol = UpstreamProtocol::AsDownstream;
    for (endpoint, (_, is_plain)) in change.endpoints[0].endpoints.iter_mut().zip(endpoints) {
        endpoint.transport = plaintext().filter(|_| *is_plain);
    }
    change
}

/// Two applications behind one service, the first with a proxy.
struct Halves {
    meshed: Named,
    plain: Named,
    _inner: RunningWorker,
    outer: RunningWorker,
}

impl Halves {
    fn start() -> Self {
        let (meshed, plain) = (Named::start("meshed"), Named::start("plain"));
        let mesh = Mesh::new();
        let inner = mesh.inner(inbound(Protocol::Http, InboundTls::Strict, meshed.address));
        let outer = mesh.outer(mixed(Protocol::Http, &mesh, &[(inner.address, false), (plain.address, true)]));
        Self { meshed, plain, _inner: inner, outer }
    }

    /// Both were asked, the one through its proxy and the other without.
    fn both_were_asked(&self) {
        let (through, past) = (self.meshed.heads(), self.plain.heads());
        // How evenly is a matter of how fast they are, and a handshake is slow.
        assert!(!through.is_empty() && !past.is_empty(), "{} and {}", through.len(), past.len());
        assert!(through.iter().all(|head| head.contains("x-forwarded-client-cert: URI=spiffe://")), "{through:?}");
        assert!(!past.iter().any(|head| head.contains("x-forwarded-client-cert")), "{past:?}");
    }
}

#[test]
fn half_of_the_endpoints_are_asked_by_mutual_tls_and_half_in_plaintext() {
    let halves = Halves::start();
    let mut client = halves.outer.connect();
    for _ in 0..60 {
        let (status, name) = ask(&mut client, GET);
        assert!(status == 200 && (name == "meshed" || name == "plain"), "{status} {name}");
    }
    halves.both_were_asked();
}

#[test]
fn bytes_go_to_both_halves_too() {
    let (meshed, plain) = (Named::start("meshed"), Named::start("plain"));
    let mesh = Mesh::new();
    let inner = mesh.inner(inbound(Protocol::Tcp, InboundTls::Strict, meshed.address));
    let outer = mesh.outer(mixed(Protocol::Tcp, &mesh, &[(inner.address, false), (plain.address, true)]));
    for _ in 0..40 {
        assert_eq!(ask(&mut outer.connect(), GET).0, 200);
    }
    assert!(meshed.requests() > 0 && plain.requests() > 0, "{} and {}", meshed.requests(), plain.requests());
}

#[test]
fn clients_of_http2_reach_both_halves_in_the_version_those_without_a_proxy_speak() {
    let (meshed, plain) = (Named::start("meshed"), Named::start("plain"));
    let mesh = Mesh::new();
    let inner = mesh.inner(inbound(Protocol::Http, InboundTls::Strict, meshed.address));
    let mut change = mixed(Protocol::Http, &mesh, &[(inner.address, false), (plain.address, true)]);
    change.clusters[0].protocol = UpstreamProtocol::Http1;
    let outer = mesh.outer(change);
    block_on(async {
        let mut client = Client2::connect(outer.address).await;
        for _ in 0..60 {
            let request = ::http::Request::get("http://orders/").body(()).expect("a request");
            assert_eq!(client.exchange(request, b"").await.head.status, 200);
        }
    });
    Halves { meshed, plain, _inner: inner, outer }.both_were_asked();
}

#[test]
fn an_endpoint_that_says_nothing_never_sees_plaintext() {
    let application = Application::start();
    let mesh = Mesh::new();
    let outer = mesh.outer(mixed(Protocol::Http, &mesh, &[(application.address, false)]));
    let mut client = outer.connect();
    send(&mut client, GET);
    let mut upstream = application.accept();
    let mut first = [0; 1];
    upstream.read_exact(&mut first).expect("a byte");
    assert_eq!(first[0], 0x16, "the beginning of a TLS handshake");
    drop(upstream);
    // It is not tried in another way either.
    expect_failure(&mut client, 503, "peer-identity");
    assert!(application.accept_within(Duration::ZERO).is_none());
}

#[test]
fn an_endpoint_that_gets_a_proxy_is_not_asked_over_connections_from_before() {
    let (meshed, plain) = (Named::start("meshed"), Application::start());
    let mesh = Mesh::new();
    let outer = mesh.outer(mixed(Protocol::Http, &mesh, &[(plain.address, true)]));
    let mut client = outer.connect();
    send(&mut client, GET);
    let mut kept = plain.accept();
    read_message(&mut BufReader::new(&kept), false);
    send(&mut kept, OK);
    expect(&mut client, OK);
    // The same address; its connection rests in the pool.
    let mut endpoints = endpoint_set("default/orders:80", &[plain.address]);
    endpoints.endpoints[0].transport = None;
    outer.store.apply(Change { endpoints: vec![endpoints], ..Change::default() });
    send(&mut client, GET);
    let mut upstream = plain.accept();
    let mut first = [0; 1];
    upstream.read_exact(&mut first).expect("a byte");
    assert_eq!(first[0], 0x16, "the beginning of a TLS handshake");
    assert_eq!(meshed.requests(), 0);
}

#[test]
fn what_an_endpoint_without_a_proxy_says_of_errors_is_not_believed() {
    let liar = "HTTP/1.1 503 No\r\nweft-error: application-unreachable\r\nContent-Length: 0\r\n\r\n";
    let plain = Named::answering(liar.to_owned());
    let mesh = Mesh::new();
    let outer = mesh.outer(mixed(Protocol::Http, &mesh, &[(plain.address, true)]));
    let mut client = outer.connect();
    send(&mut client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    let (head, _) = read_message(&mut BufReader::new(&client), false);
    assert!(head.starts_with("HTTP/1.1 503") && !head.contains("weft-error"), "{head}");
    assert_eq!(plain.requests(), 1, "it is not tried again on its word");
}
