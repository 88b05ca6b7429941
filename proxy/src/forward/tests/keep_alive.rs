//! Upstream connections are closed by us before their endpoint closes them, from what it says and does.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::*;
use crate::pool::{IdleTimes, Pool};
use crate::tls::CredentialStore;

/// A worker that looks at its idle connections often enough for an endpoint that closes after tenths of a second.
fn attentive(application: &Application) -> RunningWorker {
    let change = outbound(Protocol::Http, &[application.address], None);
    let credentials = Arc::new(CredentialStore::new());
    RunningWorker::start_tuned(Direction::Outbound, destination(), change, credentials, |worker| {
        let times = IdleTimes { look: Duration::from_millis(10), ..IdleTimes::default() };
        worker.pool = Pool::new(times);
    })
}

#[test]
fn an_endpoint_that_says_when_it_closes_is_forestalled() {
    let application = Application::start();
    let worker = attentive(&application);
    let mut client = worker.connect();
    send(&mut client, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET_SENT);
    send(&mut upstream, "HTTP/1.1 200 OK\r\nKeep-Alive: max=5, Timeout=1\r\nContent-Length: 2\r\n\r\nok");
    // What it says is between it and us.
    expect(&mut client, OK);
    expect_end(&mut upstream);
}

/// Serves each connection until it has idled for `keep`; counts those it closed for that.
fn serve(application: &Application, keep: Duration, closed: &Arc<AtomicUsize>) {
    while let Some(mut stream) = application.accept_within(Duration::from_secs(5)) {
        let closed = Arc::clone(closed);
        thread::spawn(move || {
            stream.set_read_timeout(Some(keep)).expect("a timeout");
            let mut byte = [0; 1];
            loop {
                match stream.peek(&mut byte) {
                    Ok(1..) => {}
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                        closed.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                    _ => return,
                }
                read_message(&mut BufReader::with_capacity(1, &stream), false);
                send(&mut stream, OK);
            }
        });
    }
}

#[test]
fn an_endpoint_that_closes_early_is_learned_and_costs_no_request() {
    const KEEP: Duration = Duration::from_millis(400);
    let application = Application::start();
    let worker = attentive(&application);
    let closed = Arc::new(AtomicUsize::new(0));
    let server = thread::spawn({
        let closed = Arc::clone(&closed);
        move || serve(&application, KEEP, &closed)
    });
    let mut client = worker.connect();
    let ask = move |client: &mut TcpStream| {
        // May not be sent twice: it fails if it meets a closing connection.
        send(client, POST);
        expect(client, OK);
    };
    ask(&mut client);
    super::reuse::wait_until_noticed(&worker);
    assert_eq!(closed.load(Ordering::Relaxed), 1, "it was closed by us before anything was known");
    let clients: Vec<_> = (0..4u64)
        .map(|index| {
            let mut client = worker.connect();
            thread::spawn(move || {
                let mut chance = fastrand::Rng::with_seed(index);
                for _ in 0..12 {
                    ask(&mut client);
                    // The gaps are the point: around the age at which the endpoint would close.
                    thread::park_timeout(KEEP.mul_f64(chance.f64().mul_add(0.4, 0.8)));
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("every request is answered");
    }
    assert_eq!(closed.load(Ordering::Relaxed), 1, "the endpoint came to close what it should not have had any more");
    drop(worker);
    server.join().expect("the application");
}
