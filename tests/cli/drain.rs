//! SIGTERM: what is under way ends well, what is idle is closed, and then the proxy is gone.

use std::time::Duration;

use nix::sys::signal::Signal;
use weft_tests::process::application::Application;
use weft_tests::process::http::{self, Connection};
use weft_tests::process::pair::Pair;
use weft_tests::process::plane::Plane;
use weft_tests::process::sidecar::{Settings, Sidecar};
use weft_tests::process::{PATIENCE, holds, now, until};

const PERMISSIVE: &str = "\
apiVersion: weft.dev/v1alpha1
kind: Mesh
metadata: {name: default}
spec: {mtls: permissive}
";

/// Waits until `number` slow requests have reached the application.
fn under_way(application: &Application, number: usize) {
    until("the slow request is under way", || {
        let waiting = application.waiting();
        holds(waiting == number, || format!("{waiting} wait"))
    });
}

/// Waits until the proxy says that it drains.
fn drains(proxy: &Sidecar) {
    until("the proxy drains", || {
        let answer = proxy.ask("/ready").map_err(|error| error.to_string())?;
        holds(answer.status == 503 && answer.body.contains("draining"), || format!("{answer:?}"))
    });
}

/// Both sides of one proxy: the port it takes connections on.
fn sides(pair: &mut Pair) -> [(&mut Sidecar, std::net::SocketAddr); 2] {
    let (inbound, outbound) = (pair.inbound.address(), pair.outbound.address());
    [(&mut pair.server, inbound), (&mut pair.client, outbound)]
}

#[test]
fn a_draining_proxy_finishes_what_is_under_way_and_closes_what_is_idle() {
    for side in [0, 1] {
        let place = tempfile::tempdir().unwrap();
        let mut pair = Pair::start(place.path());
        // Plaintext inbound shows the same as mTLS would, and curl can look at it.
        pair.plane.apply(PERMISSIVE);
        until("plaintext is taken", || {
            holds(http::curl(pair.inbound.address(), "/").0 == 200, || "not yet".to_owned())
        });
        let (_, address) = &sides(&mut pair)[side];
        let address = *address;
        let mut idle = Connection::open(address).unwrap();
        assert_eq!(idle.get("/").unwrap().status, 200);
        let mut untouched = Connection::open(address).unwrap();
        let mut slow = Connection::open(address).unwrap();
        slow.ask("/slow").unwrap();
        under_way(&pair.application, 1);

        let begun = now();
        sides(&mut pair)[side].0.process.signal(Signal::SIGTERM);
        drains(sides(&mut pair)[side].0);
        assert!(idle.is_closed_within(PATIENCE), "an idle connection stays open (side {side})");
        assert!(untouched.is_closed_within(PATIENCE), "an unused connection stays open (side {side})");
        // Not by the limit, which is 25 s.
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        assert!(http::get(address, "/").is_err(), "a new connection is served during the drain (side {side})");
        assert!(sides(&mut pair)[side].0.process.has_ended().is_none(), "it has not waited (side {side})");

        pair.application.release();
        let answer = slow.answer().unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "echo-1: slowly\n"));
        assert!(slow.is_closed_within(PATIENCE));
        let (proxy, _) = &mut sides(&mut pair)[side];
        assert_eq!(proxy.process.ended().code(), Some(0), "{}", proxy.log());
        assert!(http::get(address, "/").is_err());
        assert!(proxy.log().contains("draining") && proxy.log().contains("stopped"), "{}", proxy.log());
    }
}

#[test]
fn a_client_sees_no_failure_while_the_servers_proxy_drains() {
    let place = tempfile::tempdir().unwrap();
    let mut pair = Pair::start(place.path());
    assert_eq!(pair.curl("/").0, 200);
    let address = pair.outbound.address();
    let slow = std::thread::spawn(move || http::curl(address, "/slow"));
    under_way(&pair.application, 1);
    pair.server.process.signal(Signal::SIGTERM);
    drains(&pair.server);
    pair.application.release();
    assert_eq!(slow.join().unwrap(), (200, "echo-1: slowly\n".to_owned()));
    assert_eq!(pair.server.process.ended().code(), Some(0));
}

#[test]
fn what_does_not_end_is_cut_at_the_limit() {
    let place = tempfile::tempdir().unwrap();
    let mut pair = Pair::start_with(place.path(), &[], |settings| settings.set("WEFT_DRAIN_SECONDS", 1));
    let mut slow = Connection::open(pair.outbound.address()).unwrap();
    slow.ask("/slow").unwrap();
    under_way(&pair.application, 1);
    let begun = now();
    pair.client.process.signal(Signal::SIGTERM);
    assert_eq!(pair.client.process.ended().code(), Some(0));
    let took = begun.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(5)).contains(&took), "{took:?}");
    assert!(slow.answer().is_err());
    assert!(pair.client.log().contains("connections were still open at the end of the drain"));
}

#[test]
fn a_proxy_without_connections_or_control_plane_ends_at_once() {
    let place = tempfile::tempdir().unwrap();
    let mut plane = Plane::start(place.path());
    let token = plane.token("client");
    plane.kill();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut proxy = Settings::with_token("client-1", "client", token.clone()).start(&plane);
        until("the admin endpoint answers", || proxy.ask("/live").map_err(|error| error.to_string()));
        let begun = now();
        proxy.process.signal(signal);
        assert_eq!(proxy.process.ended().code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}
