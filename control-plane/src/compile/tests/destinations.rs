//! Who is behind an address.

use weft_proto::weft::Destination;
use weft_proto::weft::destination::{Peer, Service, Who};

use super::incremental::{Told, headless, stored};
use super::*;
use crate::document::Captured;
use crate::store::Snapshot;
use crate::world;

/// A mesh that changes, and what its destinations are.
struct Mesh {
    compiler: Compiler,
    snapshot: Snapshot,
    told: Told,
}

impl Mesh {
    fn new() -> Self {
        // With some that do not take part, so that changes are followed.
        let documents = large(16).into_iter().map(stored).collect();
        let mut mesh = Self {
            compiler: Compiler::new("shop.local"),
            snapshot: Snapshot { revision: 1, documents },
            told: Told::default(),
        };
        mesh.follow();
        mesh
    }

    /// What is told of destinations: `NAME -> LISTENER`, `NAME -> ACCOUNT but PORTS`, `NAME gone`.
    fn follow(&mut self) -> Vec<String> {
        let snapshot = Snapshot { revision: 1, documents: self.snapshot.documents.clone() };
        let outcome = self.compiler.follow(&std::sync::Arc::new(snapshot), &std::sync::Arc::default());
        let is_destination = |kind: world::Kind| kind == world::Kind::Destination;
        let new = outcome.change.shared.iter().filter(|resource| is_destination(resource.kind)).map(describe);
        let gone = outcome.change.gone.iter().filter(|key| is_destination(key.0)).map(|key| format!("{} gone", key.1));
        let mut told: Vec<String> = new.chain(gone).collect();
        told.sort();
        self.told.take(outcome);
        told
    }

    fn set(&mut self, documents: impl IntoIterator<Item = Document>) -> Vec<String> {
        self.snapshot.documents.extend(documents.into_iter().map(stored));
        self.follow()
    }

    fn remove(&mut self, kind: Kind, name: &str) -> Vec<String> {
        self.snapshot.documents.remove(&Key::new(kind, "default", name)).unwrap();
        self.follow()
    }
}

fn describe(resource: &world::Resource) -> String {
    let who = Destination::decode(resource.body.clone()).unwrap().who.unwrap();
    match who {
        Who::Service(Service { listener }) => format!("{} -> {listener}", resource.name),
        Who::Peer(Peer { namespace, spiffe_id, except_ports }) => {
            assert!(spiffe_id.starts_with(&format!("spiffe://shop.local/ns/{namespace}/sa/")), "{spiffe_id}");
            format!("{} -> {} but {except_ports:?}", resource.name, spiffe_id.rsplit('/').next().unwrap())
        }
    }
}

fn service(name: &str, addresses: &str, ports: &str) -> Document {
    let ports: Vec<String> = ports.split(' ').map(|port| format!("{{port: {port}}}")).collect();
    let ports = ports.join(", ");
    documents(&format!(
        "kind: Service\nmetadata: {{name: {name}}}\nspec: {{addresses: [{addresses}], ports: [{ports}], selector: {{app: {name}}}}}\n"
    ))
    .remove(0)
}

fn captured(name: &str, addresses: &str, account: &str, state: &str, except: &[u16]) -> Document {
    let text = format!(
        "kind: Workload\nmetadata: {{name: {name}}}\nspec: {{addresses: [{addresses}], serviceAccount: {account}, state: {state}}}\n"
    );
    let mut document = documents(&text).remove(0);
    let Document::Workload(workload) = &mut document else { panic!() };
    workload.spec.captured = Some(Captured { except_ports: except.iter().copied().collect() });
    document
}

const NOTHING: [&str; 0] = [];

#[test]
fn each_address_and_port_of_a_service_leads_to_its_listener() {
    let mut mesh = Mesh::new();
    let orders = || service("orders", "\"fd57::2\", 10.96.99.2", "80 9000");
    let expected = [
        "10.96.99.2:80 -> outbound/default/orders:80",
        "10.96.99.2:9000 -> outbound/default/orders:9000",
        "[fd57::2]:80 -> outbound/default/orders:80",
        "[fd57::2]:9000 -> outbound/default/orders:9000",
    ];
    assert_eq!(mesh.set([orders()]), expected);
    assert_eq!(mesh.set([orders()]), NOTHING, "the same again");
    let moved = mesh.set([service("orders", "10.96.99.2, 10.96.99.3", "80")]);
    let gone = [
        "10.96.99.2:9000 gone",
        "10.96.99.3:80 -> outbound/default/orders:80",
        "[fd57::2]:80 gone",
        "[fd57::2]:9000 gone",
    ];
    assert_eq!(moved, gone);
    assert_eq!(mesh.remove(Kind::Service, "orders"), ["10.96.99.2:80 gone", "10.96.99.3:80 gone"]);
}

#[test]
fn an_address_of_two_services_is_the_first_ones_by_name() {
    let mut mesh = Mesh::new();
    assert_eq!(mesh.set([service("b", "10.96.99.2", "80")]), ["10.96.99.2:80 -> outbound/default/b:80"]);
    assert_eq!(mesh.set([service("c", "10.96.99.2", "80")]), NOTHING);
    assert_eq!(mesh.set([service("a", "10.96.99.2", "80")]), ["10.96.99.2:80 -> outbound/default/a:80"]);
    assert_eq!(mesh.remove(Kind::Service, "b"), NOTHING);
    assert_eq!(mesh.remove(Kind::Service, "a"), ["10.96.99.2:80 -> outbound/default/c:80"]);
    // From one to another in one revision: told once.
    mesh.snapshot.documents.remove(&Key::new(Kind::Service, "default", "c"));
    assert_eq!(mesh.set([service("d", "10.96.99.2", "80")]), ["10.96.99.2:80 -> outbound/default/d:80"]);
    assert_eq!(mesh.remove(Kind::Service, "d"), ["10.96.99.2:80 gone"]);
}

#[test]
fn an_ipv4_address_is_itself_also_where_it_is_written_as_ipv6() {
    let mut mesh = Mesh::new();
    let told = mesh.set([
        service("a", "\"::ffff:10.96.99.2\"", "80"),
        captured("p", "\"::ffff:10.97.99.1\"", "web", "ready", &[15020]),
    ]);
    assert_eq!(told, ["10.96.99.2:80 -> outbound/default/a:80", "10.97.99.1 -> web but [15020]"]);
}

#[test]
fn pods_of_a_headless_service_are_reached_at_their_own_addresses_by_its_port() {
    let mut mesh = Mesh::new();
    let pods = [("10.97.0.1", "a"), ("10.97.0.2", "a")];
    let workloads = pods
        .iter()
        .enumerate()
        .map(|(index, (address, account))| captured(&format!("w{index}"), address, account, "ready", &[15020]));
    mesh.set(workloads);
    let told = mesh.set([headless(31, &[(0, 1, 8080), (1, 2, 8080)])]);
    let expected = ["10.97.0.1:8080 -> outbound/default/w0.s31:80", "10.97.0.2:8080 -> outbound/default/w1.s31:80"];
    assert_eq!(told, expected);
    // Of two such services one has the pod.
    assert_eq!(mesh.set([headless(30, &[(0, 1, 8080)])]), ["10.97.0.1:8080 -> outbound/default/w0.s30:80"]);
    assert_eq!(mesh.remove(Kind::Service, "s30"), ["10.97.0.1:8080 -> outbound/default/w0.s31:80"]);
    assert_eq!(mesh.set([headless(31, &[(1, 2, 8080)])]), ["10.97.0.1:8080 gone"]);
}

#[test]
fn each_address_of_a_captured_workload_says_who_answers_there() {
    let mut mesh = Mesh::new();
    let web = |except: &[u16]| captured("p", "10.97.99.1, \"fd00::1\"", "web", "ready", except);
    let told = mesh.set([web(&[15020])]);
    assert_eq!(told, ["10.97.99.1 -> web but [15020]", "fd00::1 -> web but [15020]"]);
    assert_eq!(mesh.set([captured("p", "10.97.99.1, \"fd00::1\"", "web", "unhealthy", &[15020])]), NOTHING);
    let told = mesh.set([web(&[9100, 15020])]);
    assert_eq!(told, ["10.97.99.1 -> web but [9100, 15020]", "fd00::1 -> web but [9100, 15020]"]);
    assert_eq!(mesh.remove(Kind::Workload, "p"), ["10.97.99.1 gone", "fd00::1 gone"]);
}

#[test]
fn an_address_that_is_given_again_passes_to_the_one_that_stays() {
    let mut mesh = Mesh::new();
    mesh.set([captured("a", "10.97.99.1", "old", "ready", &[15020])]);
    // Both have it for as long as the first still goes.
    assert_eq!(mesh.set([captured("b", "10.97.99.1", "new", "ready", &[15020])]), NOTHING);
    let told = mesh.set([captured("a", "10.97.99.1", "old", "draining", &[15020])]);
    assert_eq!(told, ["10.97.99.1 -> new but [15020]"]);
    assert_eq!(mesh.remove(Kind::Workload, "a"), NOTHING);
    assert_eq!(mesh.remove(Kind::Workload, "b"), ["10.97.99.1 gone"]);
}

#[test]
fn addresses_that_lead_to_the_same_share_what_is_said_of_them() {
    let mut mesh = Mesh::new();
    mesh.set([service("orders", "\"fd57::2\", 10.96.99.2", "80")]);
    mesh.set([captured("p", "10.97.99.1", "web", "ready", &[15020])]);
    mesh.set([captured("q", "10.97.99.2", "web", "ready", &[15020])]);
    let body = |name: &str| mesh.told.shared(world::Kind::Destination, name).body.as_ptr();
    assert_eq!(body("[fd57::2]:80"), body("10.96.99.2:80"));
    assert_eq!(body("10.97.99.1"), body("10.97.99.2"), "also of a workload that comes later");
    assert_ne!(body("10.97.99.1"), body("10.96.99.2:80"));
}
