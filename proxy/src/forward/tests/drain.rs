//! Draining ends what has nothing under way, in one direction.

use weft_core::model::InboundTls;

use super::*;
use crate::testing::inbound;

fn beside(application: &Application, protocol: Protocol) -> RunningWorker {
    RunningWorker::start(
        Direction::Inbound,
        destination(),
        inbound(protocol, InboundTls::Permissive, application.address),
    )
}

fn drain(worker: &RunningWorker, direction: Direction) {
    worker.run(move |worker| worker.drain.begin(direction));
}

#[test]
fn an_idle_connection_ends_and_an_active_one_finishes() {
    let application = Application::start();
    let worker = beside(&application, Protocol::Http);
    let (mut idle, mut active) = (worker.connect(), worker.connect());
    send(&mut idle, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET);
    send(&mut upstream, OK);
    expect(&mut idle, OK);
    send(&mut active, GET);
    expect(&mut upstream, GET);
    drain(&worker, Direction::Inbound);
    expect_end(&mut idle);
    send(&mut upstream, OK);
    expect(&mut active, OK_CLOSE);
    expect_end(&mut active);
    worker.wait_until("no connection is open", |worker| worker.drain.open(Direction::Inbound) == 0);
}

#[test]
fn an_answer_that_has_begun_is_finished() {
    let application = Application::start();
    let worker = beside(&application, Protocol::Http);
    let mut client = worker.connect();
    send(&mut client, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET);
    send(&mut upstream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no");
    expect(&mut client, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no");
    drain(&worker, Direction::Inbound);
    send(&mut upstream, "k");
    expect(&mut client, "k");
    expect_end(&mut client);
}

#[test]
fn a_connection_made_during_the_drain_gets_one_answer() {
    for protocol in [Protocol::Http, Protocol::Detect] {
        let application = Application::start();
        let worker = proxy(protocol, &[application.address]);
        drain(&worker, Direction::Outbound);
        let mut client = worker.connect();
        worker.wait_until("the connection is taken", |worker| worker.drain.open(Direction::Outbound) == 1);
        send(&mut client, GET);
        let mut upstream = application.accept();
        expect(&mut upstream, GET_SENT);
        send(&mut upstream, OK);
        expect(&mut client, OK_CLOSE);
        expect_end(&mut client);
        // One that asks for nothing is not waited for.
        let mut silent = worker.connect();
        expect_end(&mut silent);
    }
}

#[test]
fn a_silent_connection_of_undeclared_protocol_ends() {
    let application = Application::start();
    let worker = beside(&application, Protocol::Detect);
    let mut client = worker.connect();
    let mut upstream = application.accept();
    drain(&worker, Direction::Inbound);
    expect_end(&mut client);
    expect_end(&mut upstream);
}

#[test]
fn draining_inbound_leaves_outbound_alone() {
    let (worker, application) = proxied();
    let mut client = worker.connect();
    for _ in 0..2 {
        send(&mut client, GET);
        let mut upstream = application.accept();
        expect(&mut upstream, GET_SENT);
        send(&mut upstream, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        expect(&mut client, "HTTP/1.1 204 No Content\r\n\r\n");
        drain(&worker, Direction::Inbound);
    }
    drain(&worker, Direction::Outbound);
    expect_end(&mut client);
}

#[test]
fn established_connections_survive_any_change_of_configuration() {
    for protocol in [Protocol::Http, Protocol::Tcp] {
        let application = Application::start();
        let worker = proxy(protocol, &[application.address]);
        let mut client = worker.connect();
        let (request, sent) = if protocol == Protocol::Http { (GET, GET_SENT) } else { (GET, GET) };
        send(&mut client, request);
        let mut upstream = application.accept();
        expect(&mut upstream, sent);
        let told = outbound(protocol, &[application.address], None);
        worker.store.apply(crate::state::Change {
            removed_listeners: told.listeners.iter().map(|listener| listener.name.clone()).collect(),
            removed_routes: told.routes.iter().map(|table| table.name.clone()).collect(),
            removed_clusters: told.clusters.iter().map(|cluster| cluster.name.clone()).collect(),
            ..crate::state::Change::default()
        });
        assert!(worker.store.load().listeners().next().is_none(), "nothing was removed");
        // The request under way, and those that follow on its connection.
        for _ in 0..2 {
            send(&mut upstream, OK);
            expect(&mut client, OK);
            send(&mut client, request);
            expect(&mut upstream, sent);
        }
    }
}

#[test]
fn a_replaced_proxy_says_goodbye_with_an_answer_and_never_by_closing() {
    let application = Application::start();
    let worker = beside(&application, Protocol::Http);
    let (mut kept, mut untouched) = (worker.connect(), worker.connect());
    send(&mut kept, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET);
    send(&mut upstream, OK);
    expect(&mut kept, OK);
    worker.wait_until("both are there", |worker| worker.drain.open(Direction::Inbound) == 2);
    worker.run(|worker| worker.drain.begin_gently());
    // A close would have crossed these requests.
    for client in [&mut kept, &mut untouched] {
        send(client, GET);
        expect(&mut upstream, GET);
        send(&mut upstream, OK);
        expect(client, OK_CLOSE);
        expect_end(client);
    }
    // What stays idle is closed in the end.
    let mut idle = worker.connect();
    worker.wait_until("it is there", |worker| worker.drain.open(Direction::Inbound) == 1);
    drain(&worker, Direction::Inbound);
    expect_end(&mut idle);
}
