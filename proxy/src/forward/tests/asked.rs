//! Destinations that are asked for: the first connection waits for the answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::*;
use crate::state::{Demand, Kind, Limits, Look, Store, Unasked};
use crate::testing::PATIENCE;
use crate::tls::CredentialStore;

/// A worker that asks, connected to a control plane or not, and where its asks arrive. It waits as long as these tests do.
fn asking(is_connected: bool, networks: &'static str) -> (RunningWorker, mpsc::Receiver<SocketAddr>, Application) {
    asking_for(2 * PATIENCE, is_connected, networks)
}

/// The same with a worker that waits so long for an answer.
fn asking_for(
    limit: Duration,
    is_connected: bool,
    networks: &'static str,
) -> (RunningWorker, mpsc::Receiver<SocketAddr>, Application) {
    let outside = Application::start();
    let (demand, asks) = Demand::new(Limits::default());
    demand.connected(is_connected);
    let store = Arc::new(Store::on_demand("default/tester".to_owned(), demand));
    let credentials = Arc::new(CredentialStore::new());
    let worker =
        RunningWorker::start_knowing(store, Direction::Outbound, outside.address, credentials, move |worker| {
            worker.virtual_networks = networks.parse().expect("networks");
            worker.timeouts.destination = limit;
        });
    (worker, asks, outside)
}

fn next(asks: &mut mpsc::Receiver<SocketAddr>) -> SocketAddr {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let asked = runtime.block_on(async { tokio::time::timeout(PATIENCE, asks.recv()).await });
    asked.expect("somebody asks").expect("the worker lives")
}

fn open_at(worker: &RunningWorker, address: SocketAddr) -> usize {
    let demand = worker.store.demand().expect("it asks");
    let summaries = demand.summaries(|address| worker.store.usage(address));
    summaries.iter().find(|asked| asked.address == address).map_or(0, |asked| asked.open)
}

#[test]
fn connections_to_an_unknown_address_wait_for_one_answer() {
    let (worker, mut asks, outside) = asking(true, "none");
    let address = outside.address;
    let mut clients = [worker.connect(), worker.connect()];
    assert_eq!(next(&mut asks), address);
    worker.wait_until("both have come", |worker| worker.drain.open(Direction::Outbound) == 2);
    assert!(asks.try_recv().is_err(), "asked once");
    assert!(outside.accept_within(Duration::ZERO).is_none(), "nothing is passed on before the answer");
    let service = Application::start();
    let mut change = outbound(Protocol::Tcp, &[service.address], None);
    change.listeners[0].addresses = vec![address];
    worker.store.apply(change);
    worker.store.demand().expect("it asks").answer(address, Some(Kind::Service));
    for client in &mut clients {
        send(client, "to the service");
    }
    // Whose comes first is not said.
    let mut upstreams = [service.accept(), service.accept()];
    for upstream in &mut upstreams {
        expect(upstream, "to the service");
    }
    assert!(outside.accept_within(Duration::ZERO).is_none());
    assert_eq!(open_at(&worker, address), 2, "both hold it");
    drop((clients, upstreams));
    let deadline = crate::clock::now() + PATIENCE;
    while open_at(&worker, address) > 0 {
        assert!(crate::clock::now() < deadline, "it is still held");
        std::thread::yield_now();
    }
}

#[test]
fn nobody_is_passed_on_and_remembered() {
    let (worker, mut asks, outside) = asking(true, "none");
    let mut client = worker.connect();
    assert_eq!(next(&mut asks), outside.address);
    worker.store.demand().expect("it asks").answer(outside.address, Some(Kind::Nobody));
    send(&mut client, "bytes");
    expect(&mut outside.accept(), "bytes");
    let mut second = worker.connect();
    send(&mut second, "more");
    expect(&mut outside.accept(), "more");
    assert!(asks.try_recv().is_err());
    assert_eq!(open_at(&worker, outside.address), 2);
}

#[test]
fn nobody_in_a_network_of_services_is_refused() {
    let (worker, mut asks, outside) = asking(true, "127.0.0.0/8");
    let mut client = worker.connect();
    assert_eq!(next(&mut asks), outside.address);
    worker.store.demand().expect("it asks").answer(outside.address, Some(Kind::Nobody));
    expect_end(&mut client);
}

#[test]
fn without_a_control_plane_nothing_is_asked_and_nobody_waits() {
    let (worker, mut asks, outside) = asking(false, "none");
    let mut client = worker.connect();
    send(&mut client, "bytes");
    expect(&mut outside.accept(), "bytes");
    assert!(asks.try_recv().is_err());
    let (worker, _asks, _outside) = asking(false, "127.0.0.0/8");
    expect_end(&mut worker.connect());
}

#[test]
fn who_waits_goes_on_when_the_control_plane_goes_away() {
    let (worker, mut asks, outside) = asking(true, "none");
    let mut client = worker.connect();
    next(&mut asks);
    worker.store.demand().expect("it asks").connected(false);
    send(&mut client, "bytes");
    expect(&mut outside.accept(), "bytes");
}

#[test]
fn an_answer_that_does_not_come_is_waited_for_as_long_as_is_set_and_once() {
    let limit = Duration::from_millis(500);
    let (worker, mut asks, outside) = asking_for(limit, true, "none");
    let begun = crate::clock::now();
    let mut client = worker.connect();
    let asked = next(&mut asks);
    send(&mut client, "bytes");
    expect(&mut outside.accept(), "bytes");
    assert!(crate::clock::now() - begun >= limit, "it was not waited for at all");

    let demand = worker.store.demand().expect("it asks");
    assert!(matches!(demand.look(asked, crate::clock::now()), Look::Unasked(Unasked::Late)), "nobody waits again");
    send(&mut worker.connect(), "at once");
    expect(&mut outside.accept(), "at once");
    assert!(asks.try_recv().is_err(), "it is asked for already");

    demand.connected(false);
    demand.connected(true);
    assert!(matches!(demand.look(asked, crate::clock::now()), Look::Wait(_)), "another stream may answer");
    demand.late(asked);
    demand.answer(asked, Some(Kind::Nobody));
    assert!(matches!(demand.look(asked, crate::clock::now()), Look::Answered(Kind::Nobody, _)));
}
