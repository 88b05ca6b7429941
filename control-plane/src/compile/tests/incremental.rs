//! A compiler that follows changes says the same as one that begins anew, and makes little.

use std::sync::Arc;

use super::*;
use crate::store::{Snapshot, Stored};
use crate::verdicts::Verdicts;
use crate::world::{self, WorkloadKey};

/// What all outcomes of a compiler together say.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Told {
    pub(crate) shared: BTreeMap<(world::Kind, String), world::Resource>,
    own: BTreeMap<WorkloadKey, (String, BTreeMap<(world::Kind, String), world::Resource>)>,
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
    let service = (
        0_u8..4,
        ports(),
        prop::sample::select(vec![
            "selector: {app: a}",
            "selector: {app: a, tier: b}",
            "selector: {app: c}",
            "endpoints: [{address: 192.0.2.1}]",
        ]),
    );
    let workload = (0_u8..4, 1_u8..4, prop::sample::select(vec!["app: a", "app: a, tier: b", "app: c", ""]), 0_u8..2);
    let gone = (prop::sample::select(vec!["Service", "Workload", "TLSRoute", "HTTPRoute", "Mesh"]), 0_u8..4);
    prop_oneof![
        4 => service.prop_map(|(name, ports, backends)| {
            Happening::Document("Service", name, format!("{{addresses: [10.96.0.{}], {ports}, {backends}}}", name + 1))
        }),
        4 => workload.prop_map(|(name, address, labels, account)| {
            let text = format!("{{addresses: [10.97.{name}.{address}], serviceAccount: a{account}}}|{labels}");
            Happening::Document("Workload", name, text)
        }),
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
    let (spec, labels) = spec.split_once('|').unwrap_or((spec, ""));
    let name = name(kind, number);
    documents(&format!("kind: {kind}\nmetadata: {{name: {name}, labels: {{{labels}}}}}\nspec: {spec}\n")).remove(0)
}

/// Documents with some that do not take part, so that not every change is one of a large part of them.
fn many() -> Vec<Document> {
    large(16).into_iter().collect()
}

fn stored(document: Document) -> (Key, Arc<Stored>) {
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
        let mut snapshot = Snapshot { revision: 1, documents: many().into_iter().map(stored).collect() };
        for step in steps {
            for happening in step {
                match happening {
                    Happening::Document(kind, number, spec) => {
                        snapshot.documents.extend([stored(document(kind, number, &spec))]);
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
            prop_assert_eq!(&told, &expected);
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
    // A cluster, endpoints, a listener and routes; a cluster and a listener for its own proxy.
    assert_eq!((first.made, first.change.shared.len()), (200 * 6, 200 * 4));
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
