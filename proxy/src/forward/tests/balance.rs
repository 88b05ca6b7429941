//! What endpoints do to the choice among them, through the whole path.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use super::*;
use crate::state::Change;
use crate::testing::endpoint_set;

/// An application that answers everything with `status` and counts.
struct Answering {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

impl Answering {
    fn start(status: u16) -> Self {
        let application = Application::start();
        let this = Self { address: application.address, requests: Arc::default(), connections: Arc::default() };
        let (requests, connections) = (Arc::clone(&this.requests), Arc::clone(&this.connections));
        // Ends with the test's process: it waits for connections as long as they may come.
        thread::spawn(move || {
            loop {
                let mut stream = application.accept();
                connections.fetch_add(1, Relaxed);
                let requests = Arc::clone(&requests);
                thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
                    while reader.fill_buf().is_ok_and(|bytes| !bytes.is_empty()) {
                        read_message(&mut reader, false);
                        requests.fetch_add(1, Relaxed);
                        if write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").is_err() {
                            return;
                        }
                    }
                });
            }
        });
        this
    }
}

fn ask(client: &mut TcpStream) -> u16 {
    send(client, GET);
    let (head, _) = read_message(&mut BufReader::with_capacity(1, client), false);
    head[9..12].parse().expect("a status")
}

#[test]
fn five_failures_in_a_row_take_an_endpoint_out() {
    let servers = [Answering::start(500), Answering::start(503)];
    let mut change = outbound(Protocol::Http, &[servers[0].address, servers[1].address], None);
    change.clusters[0].outlier.base_ejection = Duration::from_mins(1);
    let worker = RunningWorker::start(Direction::Outbound, destination(), change);
    let ejected = || worker.store.load().clusters().next().expect("a cluster").endpoints().ejected();
    let mut client = worker.connect();
    for _ in 0..4 {
        assert!(ask(&mut client) >= 500);
        assert_eq!(ejected(), 0);
    }
    // Of nine, one of two has five.
    for _ in 4..9 {
        ask(&mut client);
    }
    worker.wait_until("one endpoint is out", |worker| {
        worker.store.load().clusters().next().is_some_and(|cluster| cluster.endpoints().ejected() == 1)
    });
    let count = || servers.each_ref().map(|server| server.requests.load(Relaxed));
    let before = count();
    let other = ask(&mut client);
    for _ in 0..20 {
        assert_eq!(ask(&mut client), other, "an ejected endpoint was asked");
    }
    let after = count();
    assert!(before[0] == after[0] || before[1] == after[1], "{before:?} {after:?}");
}

#[test]
fn a_change_of_endpoints_under_load_loses_nothing() {
    let servers = [Answering::start(200), Answering::start(200), Answering::start(200)];
    let [a, b, c] = [servers[0].address, servers[1].address, servers[2].address];
    let worker = proxy(Protocol::Http, &[a, b]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = worker.connect();
                    let mut count = 0;
                    while !done.load(Relaxed) {
                        assert_eq!(ask(&mut client), 200);
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        for turn in 0..200 {
            let endpoints: &[SocketAddr] = if turn % 2 == 0 { &[c, a] } else { &[a, b] };
            let set = endpoint_set("default/orders:80", endpoints);
            worker.store.apply(Change { endpoints: vec![set], ..Change::default() });
            thread::park_timeout(Duration::from_millis(1));
        }
        done.store(true, Relaxed);
        let total: usize = clients.into_iter().map(|client| client.join().expect("no request failed")).sum();
        let asked: usize = servers.iter().map(|server| server.requests.load(Relaxed)).sum();
        assert_eq!(total, asked);
    });
}

#[test]
fn an_endpoint_that_stays_keeps_its_connections() {
    let (kept, other) = (Answering::start(200), Answering::start(200));
    let worker = proxy(Protocol::Http, &[kept.address]);
    let mut client = worker.connect();
    assert_eq!(ask(&mut client), 200);
    // `orders-0` both times: an endpoint is its address and its workload.
    for endpoints in [&[kept.address, other.address][..], &[kept.address]] {
        let set = endpoint_set("default/orders:80", endpoints);
        worker.store.apply(Change { endpoints: vec![set], ..Change::default() });
    }
    assert_eq!(ask(&mut client), 200);
    assert_eq!(kept.connections.load(Relaxed), 1);
}
