//! Ports that no service names: of our own workload, and of others.

use std::io::Read;

use weft_core::model::{EndpointSource, InboundTls, ListenerSpec, OutlierPolicy};

use super::*;
use crate::state::Change;
use crate::testing::{Mesh, endpoint_set, inbound, nobody, outbound};

/// A request of the client reaches the application, and its answer the client.
#[track_caller]
fn is_answered(client: &mut TcpStream, application: &Application) {
    send(client, GET);
    let mut upstream = application.accept();
    read_message(&mut BufReader::new(&upstream), false);
    send(&mut upstream, OK);
    expect(client, OK);
}

/// A request in plaintext reaches nobody.
#[track_caller]
fn is_refused(client: &mut TcpStream, application: &Application) {
    send(client, GET);
    // An alert of TLS may come, and no more.
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest);
    assert!(rest.len() < 16, "{rest:?}");
    assert!(application.accept_within(std::time::Duration::ZERO).is_none());
}

#[test]
fn callers_of_the_mesh_reach_a_port_that_no_service_names() {
    for protocol in [Protocol::Http, Protocol::Tcp] {
        let (application, mesh) = (Application::start(), Mesh::new());
        let inner = mesh.inner_at(application.address, Change::default());
        let outer = mesh.outer(outbound(protocol, &[inner.address], Some(mesh.orders.clone())));
        let mut client = outer.connect();
        is_answered(&mut client, &application);
    }
}

#[test]
fn plaintext_to_a_port_that_no_service_names_is_taken_where_the_mesh_takes_it_elsewhere() {
    let table = [
        (Change::default(), false),
        (inbound(Protocol::Http, InboundTls::Strict, nobody()), false),
        (inbound(Protocol::Http, InboundTls::Permissive, nobody()), true),
    ];
    for (change, is_taken) in table {
        let (application, mesh) = (Application::start(), Mesh::new());
        let worker = mesh.inner_at(application.address, change);
        let mut client = worker.connect();
        if is_taken {
            is_answered(&mut client, &application);
        } else {
            is_refused(&mut client, &application);
        }
    }
}

/// What a proxy is told of peers at some addresses, who must be `identity`.
fn peers(addresses: &[SocketAddr], identity: &weft_core::names::SpiffeId) -> Change {
    let mut change = outbound(Protocol::Detect, addresses, Some(identity.clone()));
    change.listeners.clear();
    change.routes.clear();
    let cluster = &mut change.clusters[0];
    cluster.endpoints = EndpointSource::AnyPort { endpoints: cluster.name.clone(), except: Box::default() };
    cluster.service.port = 0;
    change.endpoints = vec![endpoint_set("default/orders:80", addresses)];
    change
}

#[test]
fn a_peer_is_called_at_any_port_by_its_own_identity() {
    for (question, answer) in [(GET, OK), ("\x00 bytes", "whatever")] {
        let (application, mesh) = (Application::start(), Mesh::new());
        let inner = mesh.inner_at(application.address, Change::default());
        let outer = mesh.outer_at(inner.address, peers(&[inner.address], &mesh.orders));
        let mut client = outer.connect();
        send(&mut client, question);
        let mut upstream = application.accept();
        let mut arrived = vec![0; 3];
        upstream.read_exact(&mut arrived).expect("it comes");
        assert_eq!(arrived, &question.as_bytes()[..3]);
        send(&mut upstream, answer);
        let mut first = vec![0; 8];
        client.read_exact(&mut first).expect("an answer");
        assert_eq!(first, &answer.as_bytes()[..8]);
        drop(client);
    }
}

#[test]
fn a_peer_that_is_somebody_else_gets_nothing() {
    let (application, mesh) = (Application::start(), Mesh::new());
    let inner = mesh.inner_at(application.address, Change::default());
    let outer = mesh.outer_at(inner.address, peers(&[inner.address], &mesh.shop));
    let mut client = outer.connect();
    send(&mut client, GET);
    let mut answer = String::new();
    let _ = client.read_to_string(&mut answer);
    assert!(answer.contains("peer-identity"), "{answer}");
    assert!(application.accept_within(std::time::Duration::ZERO).is_none());
}

#[test]
fn a_declared_port_may_lead_to_the_address_that_was_called() {
    for protocol in [Protocol::Http, Protocol::Tcp, Protocol::Detect] {
        let (application, mesh) = (Application::start(), Mesh::new());
        let mut change = inbound(protocol, InboundTls::Strict, nobody());
        change.clusters[0].endpoints = EndpointSource::OriginalDestination;
        change.listeners[0].addresses = vec![application.address];
        let inner = mesh.inner_at(application.address, change);
        let outer = mesh.outer(outbound(protocol, &[inner.address], Some(mesh.orders.clone())));
        let mut client = outer.connect();
        is_answered(&mut client, &application);
    }
}

#[test]
fn a_connection_that_stands_still_leads_to_the_address_that_was_called_after_news() {
    let (application, mesh) = (Application::start(), Mesh::new());
    let described = |tls| {
        let mut change = inbound(Protocol::Http, tls, nobody());
        change.clusters[0].endpoints = EndpointSource::OriginalDestination;
        change.listeners[0].addresses = vec![application.address];
        change
    };
    let inner = mesh.inner_at(application.address, described(InboundTls::Strict));
    let outer = mesh.outer(outbound(Protocol::Http, &[inner.address], Some(mesh.orders.clone())));
    let mut client = outer.connect();
    is_answered(&mut client, &application);

    inner.store.apply(described(InboundTls::Permissive));
    // What the news made anew has connections of its own.
    is_answered(&mut client, &application);
}

#[test]
fn the_listener_of_all_other_ports_says_whether_they_take_plaintext() {
    for (tls, is_taken) in [(InboundTls::Permissive, true), (InboundTls::Strict, false)] {
        let (application, mesh) = (Application::start(), Mesh::new());
        let mut change = inbound(Protocol::Detect, tls, nobody());
        // Other policies of declared ports are no matter here.
        let other =
            inbound(Protocol::Http, if is_taken { InboundTls::Strict } else { InboundTls::Permissive }, nobody());
        change.listeners[0] = ListenerSpec {
            name: "inbound/any".into(),
            addresses: vec![([0, 0, 0, 0], 15006).into()],
            ..change.listeners[0].clone()
        };
        change.clusters[0].endpoints = EndpointSource::OriginalDestination;
        change.clusters[0].outlier = OutlierPolicy { consecutive_failures: 0, ..OutlierPolicy::default() };
        change.listeners.extend(other.listeners);
        let worker = mesh.inner_at(application.address, change);
        let mut client = worker.connect();
        if is_taken {
            is_answered(&mut client, &application);
        } else {
            is_refused(&mut client, &application);
        }
    }
}
