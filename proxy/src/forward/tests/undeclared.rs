//! Ports of our own workload that no service names.

use std::io::Read;

use weft_core::model::InboundTls;

use super::*;
use crate::state::Change;
use crate::testing::{Mesh, inbound, nobody, outbound};

#[test]
fn callers_of_the_mesh_reach_a_port_that_no_service_names() {
    for protocol in [Protocol::Http, Protocol::Tcp] {
        let (application, mesh) = (Application::start(), Mesh::new());
        let inner = mesh.inner_at(application.address, Change::default());
        let outer = mesh.outer(outbound(protocol, &[inner.address], Some(mesh.orders.clone())));
        let mut client = outer.connect();
        send(&mut client, GET);
        let mut upstream = application.accept();
        read_message(&mut BufReader::new(&upstream), false);
        send(&mut upstream, OK);
        expect(&mut client, OK);
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
        send(&mut client, GET);
        if is_taken {
            let mut upstream = application.accept();
            expect(&mut upstream, GET);
            send(&mut upstream, OK);
            expect(&mut client, OK);
        } else {
            // An alert of TLS may come, and no more.
            let mut rest = Vec::new();
            let _ = client.read_to_end(&mut rest);
            assert!(rest.len() < 16, "{rest:?}");
            assert!(application.accept_within(std::time::Duration::ZERO).is_none());
        }
    }
}
