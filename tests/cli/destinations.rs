//! Proxies that know the destinations their workload uses, and no more.

#![allow(clippy::unwrap_used, reason = "a test that cannot have what it needs has failed")]

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;
use weft_tests::process::application::Application;
use weft_tests::process::pair::{self, CLUSTER, Pair};
use weft_tests::process::plane::Plane;
use weft_tests::process::sidecar::{Settings, Sidecar};
use weft_tests::process::{Port, holds, http, until};

/// A service that is not in the mesh.
const OUTSIDE: &str = "127.96.0.10:80";

fn outside(application: &Application) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{name: outside}}\nspec:\n  addresses: [127.96.0.10]\n  \
         ports: [{{port: 80, protocol: http}}]\n  endpoints: [{{address: 127.0.0.1, port: {}}}]\n",
        application.port()
    )
}

fn used(settings: Settings) -> Settings {
    settings.set("WEFT_DESTINATIONS", &"used").set("WEFT_VIRTUAL_NETWORKS", &"127.96.0.0/16")
}

fn dump(proxy: &Sidecar) -> Value {
    serde_json::from_str(&proxy.ask("/config_dump").unwrap().body).unwrap()
}

/// Names of the listeners of others.
fn outbound(proxy: &Sidecar) -> Vec<String> {
    let dump = dump(proxy);
    let listeners = dump["listeners"].as_array().unwrap();
    let names = listeners.iter().filter(|listener| listener["direction"] == "outbound").map(|l| l["name"].as_str());
    names.flatten().map(str::to_owned).collect()
}

/// What it was answered, by address.
fn destinations(proxy: &Sidecar) -> Vec<(String, String)> {
    let dump = dump(proxy);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let asked = dump["destinations"].as_array().unwrap();
    asked.iter().map(|asked| (text(&asked["address"]), text(&asked["answer"]))).collect()
}

fn asks(proxy: &Sidecar, result: &str) -> u64 {
    proxy.metrics().sum("weft_destination_asks_total", &[("result", result)])
}

#[test]
fn a_service_is_known_from_its_first_call_on_and_followed_from_then() {
    let place = tempfile::tempdir().unwrap();
    let pair = Pair::start_with(place.path(), &[], used);
    assert!(outbound(&pair.client).is_empty() && destinations(&pair.client).is_empty());
    assert_eq!(pair.curl("/"), (200, "echo-1\n".to_owned()));
    assert_eq!(destinations(&pair.client), [(pair::VIRTUAL.to_owned(), "service".to_owned())]);
    assert_eq!(outbound(&pair.client), ["outbound/default/echo:80"]);
    assert_eq!(pair.curl("/").0, 200);
    assert_eq!(asks(&pair.client, "service"), 1, "asked once");
    let second = Port::reserve();
    pair.plane.apply(&pair::workload("echo-2", pair.application.port(), second.address()));
    pair.has_endpoints(&[pair.inbound.address(), second.address()]);
    assert!(outbound(&pair.server).is_empty(), "who calls nobody knows nobody");
    let told = pair.plane.json(&["proxy", "config", "client-1"]);
    assert_eq!(told["destinations"][0]["address"], pair::VIRTUAL, "{told}");
}

#[test]
fn a_service_that_comes_to_an_address_of_nobody_is_known() {
    let place = tempfile::tempdir().unwrap();
    let plane = Plane::start(place.path());
    let application = Application::start("outside");
    let called = Port::reserve();
    let client = used(Settings::new(&plane, "client-1", "client").outbound(&called, OUTSIDE.parse().unwrap()));
    let client = client.start(&plane);
    client.ready();
    assert!(http::get(called.address(), "/").is_err(), "in a network of services nobody is passed on");
    assert_eq!(destinations(&client), [(OUTSIDE.to_owned(), "nobody".to_owned())]);
    plane.apply(&outside(&application));
    until("it is told", || {
        let told = destinations(&client);
        holds(told == [(OUTSIDE.to_owned(), "service".to_owned())], || format!("{told:?}"))
    });
    assert_eq!(http::curl(called.address(), "/"), (200, "outside\n".to_owned()));
    assert_eq!((asks(&client, "nobody"), asks(&client, "service")), (1, 0), "nobody waited again");
}

/// A client that has called the meshed service but not the other, and its control plane.
struct Away {
    client: Sidecar,
    plane: Plane,
    _server: Sidecar,
    _applications: [Application; 2],
    meshed: Port,
    other: Port,
    outside: Port,
}

fn away(place: &Path) -> Away {
    let mut plane = Plane::start(place);
    let applications = [Application::start("meshed"), Application::start("outside")];
    let [meshed, other, outside_port, inbound] = std::array::from_fn(|_| Port::reserve());
    plane.apply(&pair::documents(&applications[0], inbound.address()));
    plane.apply(&outside(&applications[1]));
    plane.apply(&outside(&applications[1]).replace("outside}", "other}").replace("127.96.0.10", "127.96.0.11"));
    let server = Settings::new(&plane, "echo-1", "echo").inbound(&inbound, applications[0].address());
    let server = used(server).start(&plane);
    let state = place.join("state");
    std::fs::create_dir(&state).unwrap();
    let client = Settings::new(&plane, "client-1", "client")
        .outbound(&meshed, pair::virtual_address())
        .outbound(&outside_port, OUTSIDE.parse().unwrap())
        .outbound(&other, "127.96.0.11:80".parse().unwrap());
    let client = used(client).set("WEFT_STATE_DIR", &state.display()).start(&plane);
    client.ready();
    server.ready();
    assert_eq!(http::curl(meshed.address(), "/").0, 200);
    assert_eq!(http::curl(outside_port.address(), "/").0, 200);
    plane.kill();
    until("the proxy has noticed", || {
        holds(client.metrics().sum("weft_xds_connected", &[]) == 0, || "it is connected".to_owned())
    });
    Away { client, plane, _server: server, _applications: applications, meshed, other, outside: outside_port }
}

#[test]
fn without_a_control_plane_what_was_used_works_and_the_rest_is_refused_at_once() {
    let place = tempfile::tempdir().unwrap();
    let mut mesh = away(place.path());
    for _ in 0..20 {
        assert_eq!(http::curl(mesh.meshed.address(), "/"), (200, "meshed\n".to_owned()));
    }
    assert!(http::get(mesh.other.address(), "/").is_err());
    assert_eq!(asks(&mesh.client, "unconnected"), 1);
    mesh.plane.start_again();
    until("the proxy is connected", || {
        holds(mesh.client.metrics().sum("weft_xds_connected", &[]) == 1, || mesh.client.log())
    });
    assert_eq!(http::curl(mesh.other.address(), "/"), (200, "outside\n".to_owned()));
    assert_eq!(http::curl(mesh.meshed.address(), "/").0, 200, "and the control plane took nothing away");
}

#[test]
fn a_restart_without_a_control_plane_knows_what_was_used() {
    let place = tempfile::tempdir().unwrap();
    let mut mesh = away(place.path());
    mesh.client.process.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(mesh.client.process.ended().code(), Some(0));
    mesh.client.start_again();
    until("it answers", || mesh.client.ask("/ready").map(drop).map_err(|error| error.to_string()));
    until("it has its last good configuration", || {
        let told = destinations(&mesh.client);
        holds(told.len() == 2, || format!("{told:?}"))
    });
    assert_eq!(mesh.client.endpoints(CLUSTER).len(), 1);
    assert_eq!(http::curl(mesh.outside.address(), "/"), (200, "outside\n".to_owned()), "{}", mesh.client.log());
    assert!(http::get(mesh.other.address(), "/").is_err());
    // Keys are never written, so that there is none to prove an identity with.
    let answer = http::get(mesh.meshed.address(), "/").unwrap();
    assert_eq!((answer.status, answer.field("weft-error")), (503, Some("no-certificate")), "{answer:?}");
    mesh.plane.start_again();
    mesh.client.ready();
    assert_eq!(http::curl(mesh.meshed.address(), "/"), (200, "meshed\n".to_owned()));
}

/// Anonymous memory of a process, in KiB.
fn anonymous(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Prints what a proxy holds that uses three of 1,000 services with five endpoints each, in both modes.
#[test]
#[ignore = "prints figures"]
fn memory_follows_use() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("documents");
    std::fs::create_dir(&directory).unwrap();
    let mut text = String::new();
    for n in 0..1000 {
        let (high, low) = (n / 250, n % 250 + 1);
        write!(
            text,
            "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{name: s{n}}}\nspec:\n  addresses: [127.90.{high}.{low}]\n  \
             ports: [{{name: http, port: 80, targetPort: 1, protocol: http}}]\n  selector: {{app: s{n}}}\n---\n"
        )
        .unwrap();
        for m in 0..5 {
            write!(
                text,
                "apiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {{name: s{n}-{m}, labels: {{app: s{n}}}}}\n\
                 spec: {{addresses: [127.{}.{high}.{low}], serviceAccount: s{n}}}\n---\n",
                100 + m
            )
            .unwrap();
        }
    }
    std::fs::write(directory.join("mesh.yaml"), text).unwrap();
    let plane = Plane::start_with(place.path(), &["--config-dir", directory.to_str().unwrap()]);
    for mode in ["all", "used"] {
        let called: [Port; 3] = std::array::from_fn(|_| Port::reserve());
        let mut settings = Settings::new(&plane, &format!("client-{mode}"), "client").set("WEFT_DESTINATIONS", &mode);
        for (n, port) in called.iter().enumerate() {
            settings = settings.outbound(port, format!("127.90.0.{}:80", n + 1).parse().unwrap());
        }
        let client = settings.set("WEFT_LOG", &"warn").start(&plane);
        client.ready();
        let before = anonymous(client.process.id());
        for port in &called {
            let answer = http::get(port.address(), "/").unwrap();
            assert_eq!(answer.status, 503, "nobody is at home: {answer:?}");
        }
        println!(
            "{mode}: {} KiB when ready, {} KiB after three calls; {} services known",
            before,
            anonymous(client.process.id()),
            outbound(&client).len()
        );
    }
}
