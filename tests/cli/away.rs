//! The control plane dies and comes back: what goes on, what waits, what is told.

use std::time::Duration;

use weft_tests::process::application::Application;
use weft_tests::process::pair::{self, CLUSTER, Pair};
use weft_tests::process::plane::Plane;
use weft_tests::process::sidecar::{Settings, Sidecar};
use weft_tests::process::{Port, holds, http, until};

const TYPES: [&str; 4] = ["cluster", "endpoints", "listener", "routes"];

fn disconnected(proxy: &Sidecar) {
    until("the proxy has noticed", || {
        holds(proxy.metrics().sum("weft_xds_connected", &[]) == 0.0, || "it is connected".to_owned())
    });
}

fn connected(proxy: &Sidecar) {
    until("the proxy is connected", || holds(proxy.metrics().sum("weft_xds_connected", &[]) == 1.0, || proxy.log()));
}

#[test]
fn traffic_goes_on_when_the_control_plane_is_killed() {
    let place = tempfile::tempdir().unwrap();
    let mut pair = Pair::start(place.path());
    assert_eq!(pair.curl("/").0, 200);
    pair.plane.kill();
    disconnected(&pair.client);
    disconnected(&pair.server);
    for _ in 0..50 {
        assert_eq!(pair.curl("/"), (200, "echo-1\n".to_owned()));
    }
    assert_eq!(pair.client.ask("/ready").unwrap().status, 200);
    assert_eq!(pair.server.ask("/ready").unwrap().status, 200);
}

#[test]
fn a_control_plane_that_is_back_sends_what_changed_and_nothing_else() {
    let place = tempfile::tempdir().unwrap();
    let mut pair = Pair::start(place.path());
    let count = |pair: &Pair| {
        let metrics = pair.client.metrics();
        let sum = |kind: &str| metrics.sum("weft_xds_responses_total", &[("type", kind)]);
        (TYPES.map(sum), metrics.sum("weft_xds_updates_applied_total", &[]))
    };
    let before = count(&pair);
    pair.plane.kill();
    disconnected(&pair.client);
    pair.plane.start_again();
    connected(&pair.client);
    until("the control plane knows how far the proxy is", || {
        let proxy = pair.plane.proxy("default/client-1").ok_or("it is not connected")?;
        holds(proxy["appliedRevision"] == pair.plane.revision(), || proxy.to_string())
    });
    let (responses, updates) = count(&pair);
    // Who asks for all of a type is answered, with nothing when nothing is new.
    assert_eq!(responses, [before.0[0] + 1.0, before.0[1], before.0[2] + 1.0, before.0[3]], "{TYPES:?}");
    assert_eq!(updates, before.1, "nothing new was in them");
    let before = count(&pair);
    assert_eq!(pair.curl("/").0, 200);

    let second = Port::reserve();
    pair.plane.apply(&pair::workload("echo-2", pair.application.port(), second.address()));
    pair.has_endpoints(&[pair.inbound.address(), second.address()]);
    let (responses, updates) = count(&pair);
    assert_eq!(responses[1], before.0[1] + 1.0, "one response with endpoints");
    assert_eq!((responses[0], responses[2], responses[3]), (before.0[0], before.0[2], before.0[3]));
    assert_eq!(updates, before.1 + 1.0);
}

#[test]
fn what_changed_while_the_control_plane_was_away_reaches_the_proxies() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("documents");
    std::fs::create_dir(&directory).unwrap();
    let mut pair = Pair::start_with(place.path(), &["--config-dir", directory.to_str().unwrap()], |settings| settings);
    pair.plane.kill();
    let second = Port::reserve();
    let more = pair::workload("echo-2", pair.application.port(), second.address());
    std::fs::write(directory.join("more.yaml"), more).unwrap();
    pair.plane.start_again();
    pair.has_endpoints(&[pair.inbound.address(), second.address()]);
}

/// The pauses a proxy has announced, in seconds.
fn pauses(proxy: &Sidecar) -> Vec<f64> {
    let lines = proxy.log();
    let of = |line: &str| {
        let text = line.split_once("no control plane; ")?.1.rsplit_once("wait=")?.1;
        let (number, unit) = text.split_at(text.find(|c: char| c.is_alphabetic() || c == 'µ')?);
        let unit = match unit {
            "s" => 1.0,
            "ms" => 1e-3,
            "µs" => 1e-6,
            _ => 1e-9,
        };
        Some(number.parse::<f64>().ok()? * unit)
    };
    lines.lines().filter_map(of).collect()
}

#[test]
fn proxies_come_back_with_growing_pauses_of_their_own() {
    let place = tempfile::tempdir().unwrap();
    let mut pair = Pair::start(place.path());
    pair.plane.kill();
    let proxies = [&pair.client, &pair.server];
    let pauses = until("each has tried seven times", || {
        let pauses = proxies.map(pauses);
        holds(pauses.iter().all(|pauses| pauses.len() >= 7), || format!("{pauses:?}")).map(|()| pauses)
    });
    for pauses in &pauses {
        for (attempt, pause) in pauses.iter().enumerate() {
            let limit = (0.1 * f64::from(1 << attempt.min(10))).min(10.0);
            assert!(*pause <= limit, "attempt {attempt}: {pause} s, more than {limit} s: {pauses:?}");
        }
    }
    assert!(pauses[0].iter().zip(&pauses[1]).all(|(one, other)| (one - other).abs() > 1e-6), "in step: {pauses:?}");
    // However many attempts it took, the way back is found.
    pair.plane.start_again();
    connected(&pair.client);
    connected(&pair.server);
}

/// A client of two services: `echo`, in the mesh, and `outside`, which is not.
struct Restarted {
    client: Sidecar,
    plane: Plane,
    _applications: [Application; 2],
    meshed: Port,
    outside: Port,
    unknown: Port,
}

/// A proxy that has run once with a state directory and is started again while the control plane is away.
fn restarted(place: &std::path::Path, with_state: bool) -> Restarted {
    let mut plane = Plane::start(place);
    let applications = [Application::start("meshed"), Application::start("outside")];
    let [meshed, outside, unknown] = [Port::reserve(), Port::reserve(), Port::reserve()];
    plane.apply(&pair::documents(&applications[0], applications[0].address()));
    plane.apply(&format!(
        "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{name: outside}}\nspec:\n  addresses: [127.96.0.10]\n  \
         ports: [{{port: 80, protocol: http}}]\n  endpoints: [{{address: 127.0.0.1, port: {}}}]\n",
        applications[1].port()
    ));
    let state = place.join("state");
    std::fs::create_dir(&state).unwrap();
    let settings = Settings::new(&plane, "client-1", "client")
        .outbound(&meshed, pair::virtual_address())
        .outbound(&outside, "127.96.0.10:80".parse().unwrap())
        .outbound(&unknown, applications[1].address());
    let settings = if with_state { settings.set("WEFT_STATE_DIR", state.display()) } else { settings };
    let mut client = settings.start(&plane);
    client.ready();
    if with_state {
        until("the last good configuration is written", || {
            holds(state.join("snapshot").exists(), || "there is no file".to_owned())
        });
    }
    plane.kill();
    client.process.kill();
    client.start_again();
    Restarted { client, plane, _applications: applications, meshed, outside, unknown }
}

/// What the proxy says it waits for.
fn waits_for(proxy: &Sidecar, expected: &str) {
    until(&format!("it waits for {expected}"), || {
        let answer = proxy.ask("/ready").map_err(|error| error.to_string())?;
        holds(answer.status == 503 && answer.body.trim() == format!("waiting for: {expected}"), || {
            format!("{answer:?}")
        })
    });
}

#[test]
fn a_proxy_started_without_control_plane_serves_its_last_good_configuration_as_far_as_it_goes_without_a_certificate() {
    let place = tempfile::tempdir().unwrap();
    let mut mesh = restarted(place.path(), true);
    waits_for(&mesh.client, "certificate");
    assert!(mesh.client.log().contains("starting from the last good configuration"), "{}", mesh.client.log());
    assert_eq!(mesh.client.endpoints(CLUSTER).len(), 1);
    // In plaintext it goes on: services outside the mesh, and what is no service at all.
    assert_eq!(http::curl(mesh.outside.address(), "/"), (200, "outside\n".to_owned()));
    assert_eq!(http::curl(mesh.unknown.address(), "/"), (200, "outside\n".to_owned()));
    // Keys are never written, so that there is none to prove an identity with.
    let answer = http::get(mesh.meshed.address(), "/").unwrap();
    assert_eq!((answer.status, answer.field("weft-error")), (503, Some("no-certificate")), "{answer:?}");

    mesh.plane.start_again();
    mesh.client.ready();
    connected(&mesh.client);
}

#[test]
fn without_a_last_good_configuration_a_proxy_waits_for_both() {
    let place = tempfile::tempdir().unwrap();
    let mut mesh = restarted(place.path(), false);
    waits_for(&mesh.client, "certificate, configuration");
    mesh.plane.start_again();
    mesh.client.ready();
}

#[test]
fn a_damaged_or_foreign_last_good_configuration_is_ignored() {
    let place = tempfile::tempdir().unwrap();
    let mut mesh = restarted(place.path(), true);
    waits_for(&mesh.client, "certificate");
    mesh.client.process.kill();
    let path = place.path().join("state/snapshot");
    let good = std::fs::read(&path).unwrap();
    let mut damaged = good.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for content in [&damaged[..], &good[..good.len() / 2], b"no configuration", b""] {
        std::fs::write(&path, content).unwrap();
        mesh.client.start_again();
        waits_for(&mesh.client, "certificate, configuration");
        assert!(mesh.client.log().contains("ignoring the last good configuration"), "{}", mesh.client.log());
        mesh.client.process.kill();
    }
    // As soon as there is a good one it replaces the bad one.
    mesh.client.start_again();
    mesh.plane.start_again();
    mesh.client.ready();
    until("a good one is written", || {
        let written = std::fs::read(&path).unwrap();
        holds(written.len() > 100 && written != damaged, || format!("{} bytes", written.len()))
    });
}

#[test]
fn an_inbound_proxy_started_without_control_plane_takes_plaintext_where_that_is_permitted() {
    let place = tempfile::tempdir().unwrap();
    let state = place.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let mut pair = Pair::start_with(place.path(), &[], |settings| settings.set("WEFT_STATE_DIR", state.display()));
    // The directory is the server's alone from here on.
    pair.client.process.kill();
    let permissive = "apiVersion: weft.dev/v1alpha1\nkind: Mesh\nmetadata: {name: default}\nspec: {mtls: permissive}\n";
    pair.plane.apply(permissive);
    until("plaintext is taken", || holds(http::curl(pair.inbound.address(), "/").0 == 200, || "not yet".to_owned()));
    // Ended in order, it has written what it held.
    pair.server.process.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(pair.server.process.ended().code(), Some(0));
    pair.plane.kill();
    pair.server.start_again();
    waits_for(&pair.server, "certificate");
    assert_eq!(http::curl(pair.inbound.address(), "/").0, 200);
}

#[test]
fn a_proxy_waits_for_a_control_plane_that_starts_after_it() {
    let place = tempfile::tempdir().unwrap();
    let mut plane = Plane::start(place.path());
    let token = plane.token("client");
    plane.kill();
    let client = Settings::with_token("client-1", "client", token).start(&plane);
    waits_for(&client, "certificate, configuration");
    until("it says why", || {
        let log = client.log();
        holds(
            log.contains("no certificate yet, trying again") && log.contains("cannot connect to the control plane"),
            || log,
        )
    });
    plane.start_again();
    let back = weft_tests::process::now();
    client.ready();
    // Pauses have not grown far yet.
    assert!(back.elapsed() < Duration::from_secs(10), "{:?}", back.elapsed());
}
