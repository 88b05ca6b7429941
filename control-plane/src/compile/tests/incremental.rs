//! A compiler that follows changes says the same as one that begins anew, and makes little.

use std::sync::Arc;

use weft_proto::weft::Destination;
use weft_proto::weft::destination::{Service, Who};

use super::*;
use crate::document::{Captured, Discovered, DiscoveredEndpoint, EndpointGroup, PortMapping, WorkloadState};
use crate::store::{Snapshot, Stored};
use crate::verdicts::Verdicts;
use crate::world::{self, WorkloadKey};

type ByName = BTreeMap<(world::Kind, String), world::Resource>;

/// What all outcomes of a compiler together say.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Told {
    shared: ByName,
    own: BTreeMap<WorkloadKey, (String, ByName)>,
    verdicts: BTreeMap<String, Verdict>,
    undeclared: BTreeMap<String, Undeclared>,
}

fn named(resources: Vec<world::Resource>) -> impl Iterator<Item = ((world::Kind, String), world::Resource)> {
    resources.into_iter().map(|resource| ((resource.kind, resource.name.to_string()), resource))
}

fn set<T>(map: &mut BTreeMap<String, T>, changed: BTreeMap<String, Option<T>>) {
    for (name, value) in changed {
        match value {
            Some(value) => _ = map.insert(name, value),
            None => _ = map.remove(&name),
        }
    }
}

impl Told {
    /// The shared resources in which this differs from another, to be read by people.
    fn differing(&self, other: &Self) -> Vec<String> {
        let keys: BTreeSet<_> = self.shared.keys().chain(other.shared.keys()).collect();
        let differs = |key: &&&(world::Kind, String)| self.shared.get(**key) != other.shared.get(**key);
        keys.iter().filter(differs).map(|(kind, name)| format!("{kind:?} {name}")).collect()
    }

    pub(super) fn shared(&self, kind: world::Kind, name: &str) -> &world::Resource {
        &self.shared[&(kind, name.to_owned())]
    }

    pub(crate) fn take(&mut self, outcome: Outcome) {
        for (kind, name) in outcome.change.gone {
            assert!(self.shared.remove(&(kind, name.to_string())).is_some(), "{kind:?} {name} was never told");
        }
        self.shared.extend(named(outcome.change.shared));
        for (workload, own) in outcome.change.own {
            match own {
                Some(own) => {
                    _ = self.own.insert(workload, (own.account.to_string(), named(own.resources).collect()));
                }
                None => _ = self.own.remove(&workload),
            }
        }
        set(&mut self.verdicts, outcome.verdicts.services);
        set(&mut self.undeclared, outcome.verdicts.undeclared);
    }
}

/// One thing that happens to a mesh; small numbers name documents.
#[derive(Debug, Clone)]
enum Happening {
    Document(&'static str, u8, String),
    /// A service without an address, of pods by workload, address and port.
    Headless(u8, Vec<(u8, u8, u16)>),
    Gone(&'static str, u8),
    /// What the proxy of a workload saw its port 8080 speak.
    Report(u8, u8),
}

fn ports() -> impl Strategy<Value = String> {
    let protocol = || prop::sample::select(vec!["http", "auto", "tcp", "tls"]);
    (protocol(), protocol(), 8080_u16..8082).prop_map(|(one, other, target)| {
        format!("ports: [{{port: 80, targetPort: 8080, protocol: {one}}}, {{port: 81, targetPort: {target}, protocol: {other}}}]")
    })
}

fn route() -> impl Strategy<Value = String> {
    let port = || prop::sample::select(vec!["", ", port: 80", ", port: 81"]);
    (0_u8..4, port(), 0_u8..4, 0_u8..4, 80_u16..82).prop_map(|(parent, port, other, backend, number)| {
        let other = if other == parent { String::new() } else { format!(", {{name: s{other}}}") };
        format!(
            "parentRefs: [{{name: s{parent}{port}}}{other}], hostnames: [h{backend}.example, a.example], \
             rules: [{{backendRefs: [{{name: s{backend}, port: {number}}}]}}]"
        )
    })
}

fn happening() -> impl Strategy<Value = Happening> {
    // One that two may have, and some that are one's own.
    let addresses = prop::sample::select(vec![
        "10.96.0.9",
        "10.96.0.9, \"fd57::9\"",
        "10.96.0.N",
        "10.96.0.N, \"fd57::N\"",
        "10.97.0.1",
    ]);
    let service = (
        0_u8..4,
        addresses,
        ports(),
        prop::sample::select(vec![
            "selector: {app: a}",
            "selector: {app: a, tier: b}",
            "selector: {app: c}",
            "endpoints: [{address: 192.0.2.1}]",
        ]),
    );
    let labels = prop::sample::select(vec!["app: a", "app: a, tier: b", "app: c", ""]);
    let state = prop::sample::select(vec!["ready", "draining"]);
    let captured = prop::sample::select(vec!["", "15020", "8081,15020"]);
    let workload = (0_u8..4, 1_u8..4, labels, 0_u8..2, state, captured);
    let pods = prop::collection::vec((0_u8..4, 1_u8..4, 8080_u16..8082), 1..4);
    let gone = (prop::sample::select(vec!["Service", "Workload", "TLSRoute", "HTTPRoute", "Mesh"]), 0_u8..6);
    prop_oneof![
        4 => service.prop_map(|(name, addresses, ports, backends)| {
            let addresses = addresses.replace('N', &(name + 1).to_string());
            Happening::Document("Service", name, format!("{{addresses: [{addresses}], {ports}, {backends}}}"))
        }),
        4 => workload.prop_map(|(name, address, labels, account, state, captured)| {
            let text = format!(
                "{{addresses: [10.97.0.{address}], serviceAccount: a{account}, state: {state}}}|{labels}|{captured}"
            );
            Happening::Document("Workload", name, text)
        }),
        2 => (2_u8..6, pods).prop_map(|(name, pods)| Happening::Headless(name, pods)),
        2 => (0_u8..3, route()).prop_map(|(name, spec)| Happening::Document("TLSRoute", name, format!("{{{spec}}}"))),
        2 => (0_u8..3, route()).prop_map(|(name, spec)| Happening::Document("HTTPRoute", name, format!("{{{spec}}}"))),
        1 => any::<bool>().prop_map(|is_strict| {
            let mtls = if is_strict { "strict" } else { "permissive" };
            Happening::Document("Mesh", 0, format!("{{mtls: {mtls}}}"))
        }),
        2 => gone.prop_map(|(kind, name)| Happening::Gone(kind, name)),
        2 => (0_u8..4, 0_u8..4).prop_map(|(name, verdict)| Happening::Report(name, verdict)),
    ]
}

fn name(kind: &str, number: u8) -> String {
    if kind == "Mesh" { "default".into() } else { format!("{}{number}", kind[..1].to_lowercase()) }
}

fn document(kind: &str, number: u8, spec: &str) -> Document {
    let mut parts = spec.split('|');
    let [spec, labels, captured] = [(); 3].map(|()| parts.next().unwrap_or_default());
    let name = name(kind, number);
    let text = format!("kind: {kind}\nmetadata: {{name: {name}, labels: {{{labels}}}}}\nspec: {spec}\n");
    let mut document = documents(&text).remove(0);
    if let (Document::Workload(workload), false) = (&mut document, captured.is_empty()) {
        let except_ports = captured.split(',').map(|port| port.parse().unwrap()).collect();
        workload.spec.captured = Some(Captured { except_ports });
    }
    document
}

pub(super) fn headless(number: u8, pods: &[(u8, u8, u16)]) -> Document {
    let Document::Service(mut service) =
        document("Service", number, "{ports: [{port: 80, protocol: tcp}], selector: {a: b}}")
    else {
        panic!()
    };
    let group = |(workload, address, target_port): &(u8, u8, u16)| EndpointGroup {
        ports: vec![PortMapping { port: 80, target_port: *target_port }],
        endpoints: vec![DiscoveredEndpoint {
            address: IpAddr::from([10, 97, 0, *address]),
            state: WorkloadState::Ready,
            pod: Some(format!("w{workload}")),
            workload: Some(format!("default/w{workload}")),
            locality: None,
        }],
    };
    service.spec.addresses.clear();
    service.spec.backends =
        Backends::Discovered(Discovered { headless: true, groups: pods.iter().map(group).collect() });
    Document::Service(service)
}

/// What destinations there must be, from the listeners that are told and the workloads there are.
fn destinations(told: &Told, documents: &[Document]) -> BTreeMap<String, Who> {
    let mut expected = BTreeMap::new();
    // The first listener by name counts.
    for ((kind, name), resource) in told.shared.iter().rev() {
        if *kind == world::Kind::Listener {
            for address in weft_proxy::xds::decode::listener(&resource.body).unwrap().addresses {
                expected.insert(address.to_string(), Who::Service(Service { listener: name.clone() }));
            }
        }
    }
    let workloads = documents.iter().filter_map(|document| match document {
        Document::Workload(workload) => Some(workload),
        _ => None,
    });
    for (alike, addresses) in super::super::peers::alike(workloads) {
        let peer = super::super::destinations::peer(alike.namespace, &alike.identity("shop.local"), alike.except);
        let who = Destination::decode(peer.body).unwrap().who.unwrap();
        expected.extend(addresses.iter().map(|address| (address.to_string(), who.clone())));
    }
    expected
}

pub(super) fn stored(document: Document) -> (Key, Arc<Stored>) {
    (document.key(), Arc::new(Stored { document, revision: 1, changed_at: 0, author: String::new() }))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_follows_changes_says_the_same_as_what_begins_anew(
        steps in prop::collection::vec(prop::collection::vec(happening(), 1..4), 1..16),
    ) {
        let verdicts = Verdicts::default();
        let mut compiler = Compiler::new("shop.local");
        let mut told = Told::default();
        // With some that do not take part, so that not every change is one of a large part of them.
        let mut snapshot = Snapshot { revision: 1, documents: large(16).into_iter().map(stored).collect() };
        for step in steps {
            for happening in step {
                match happening {
                    Happening::Document(kind, number, spec) => {
                        snapshot.documents.extend([stored(document(kind, number, &spec))]);
                    }
                    Happening::Headless(number, pods) => {
                        snapshot.documents.extend([stored(headless(number, &pods))]);
                    }
                    Happening::Gone(kind, number) => {
                        let key = Key::new(Kind::parse(kind).unwrap(), "default", &name(kind, number));
                        snapshot.documents.remove(&key);
                    }
                    Happening::Report(number, verdict) => {
                        let verdict = Verdict::ALL[usize::from(verdict)];
                        for account in ["a0", "a1"] {
                            let account = SpiffeId::workload("shop.local", "default", account);
                            // Of another account: refused.
                            let _ = verdicts.report(&account, &name("Workload", number), [(8080, verdict)]);
                        }
                    }
                }
            }
            let (now, seen) = (Arc::new(Snapshot { revision: snapshot.revision, documents: snapshot.documents.clone() }), verdicts.seen());
            let outcome = compiler.follow(&now, &seen);
            verdicts.published(outcome.verdicts.clone());
            told.take(outcome);
            let (mut anew, mut expected) = (Compiler::new("shop.local"), Told::default());
            expected.take(anew.follow(&now, &seen));
            prop_assert_eq!(told.differing(&expected), Vec::<String>::new());
            prop_assert_eq!(&told, &expected);
            let documents: Vec<Document> = now.documents.values().map(|stored| stored.document.clone()).collect();
            let who = |resource: &world::Resource| Destination::decode(resource.body.clone()).unwrap().who.unwrap();
            let of_destinations = told.shared.iter().filter(|((kind, _), _)| *kind == world::Kind::Destination);
            let told_of: BTreeMap<String, Who> =
                of_destinations.map(|((_, name), resource)| (name.clone(), who(resource))).collect();
            prop_assert_eq!(told_of, destinations(&told, &documents));
            prop_assert_eq!(compiler.findings(), anew.findings());
        }
    }
}

#[test]
fn a_change_of_one_workload_makes_what_is_its_own_and_its_services_alone() {
    let mut snapshot = Snapshot { revision: 1, documents: large(200).into_iter().map(stored).collect() };
    let mut compiler = Compiler::new("shop.local");
    let first =
        compiler.follow(&Arc::new(Snapshot { revision: 1, documents: snapshot.documents.clone() }), &Arc::default());
    // A cluster, endpoints, a listener, routes and a destination; a cluster and a listener for its own proxy.
    assert_eq!((first.made, first.change.shared.len()), (200 * 7, 200 * 5));
    let text = "kind: Workload\nmetadata: {name: w7, labels: {mesh: all, app: s7}}\nspec: {addresses: [10.97.0.7], state: draining}\n";
    snapshot.documents.extend([stored(documents(text).remove(0))]);
    let second = compiler.follow(&Arc::new(snapshot), &Arc::default());
    let changed: Vec<_> = second.change.shared.iter().map(|resource| (resource.kind, &*resource.name)).collect();
    assert_eq!((second.made, changed), (6, vec![(world::Kind::Endpoints, "default/s7:80")]));
    assert!(second.change.own.is_empty() && second.change.gone.is_empty());
}

#[test]
fn what_a_proxy_saw_turns_the_ports_of_its_service_and_nothing_else() {
    let snapshot = Arc::new(Snapshot { revision: 1, documents: large(20).into_iter().map(stored).collect() });
    let verdicts = Verdicts::default();
    let mut compiler = Compiler::new("shop.local");
    verdicts.published(compiler.follow(&snapshot, &verdicts.seen()).verdicts);
    assert_eq!(compiler.follow(&snapshot, &verdicts.seen()).made, 0);
    let account = SpiffeId::workload("shop.local", "default", "default");
    verdicts.report(&account, "w7", [(8080, Verdict::ServerFirst)]).unwrap();
    let outcome = compiler.follow(&snapshot, &verdicts.seen());
    let changed: Vec<_> = outcome.change.shared.iter().map(|resource| (resource.kind, &*resource.name)).collect();
    assert_eq!(changed, [(world::Kind::Listener, "outbound/default/s7:80")]);
    let own: Vec<_> = outcome.change.own.keys().map(WorkloadKey::as_str).collect();
    assert_eq!(own, ["default/w7"]);
}
