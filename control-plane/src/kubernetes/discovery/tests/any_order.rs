//! Whatever the order in which watches speak, and however often they begin again, the same objects are the same documents.

use proptest::prelude::*;

use super::*;
use crate::compile::Compiler;
use crate::compile::tests::Told;
use crate::document::{Locality, Protocol};
use crate::kubernetes::discovery::mirror::Step;
use crate::kubernetes::discovery::object::{BareFacts, EndpointFacts, MeshFacts, PortFacts, Proxy};
use crate::kubernetes::discovery::translate::tests::translate;

/// One thing that happens in a cluster; small numbers name objects.
#[derive(Debug, Clone)]
enum Happening {
    Service { name: u8, headless: bool, ports: u8 },
    ServiceGone { name: u8 },
    Slice { name: u8, service: u8, target: u16, pods: Vec<(u8, bool)> },
    SliceGone { name: u8 },
    Pod { name: u8, address: u8, meshed: bool, terminating: bool },
    PodGone { name: u8 },
    Node { name: u8, zone: u8 },
}

fn happening() -> impl Strategy<Value = Happening> {
    let name = 0_u8..4;
    prop_oneof![
        (name.clone(), any::<bool>(), 1_u8..3).prop_map(|(name, headless, ports)| Happening::Service {
            name,
            headless,
            ports
        }),
        name.clone().prop_map(|name| Happening::ServiceGone { name }),
        (name.clone(), 0_u8..4, 8080_u16..8083, prop::collection::vec((0_u8..5, any::<bool>()), 0..4))
            .prop_map(|(name, service, target, pods)| Happening::Slice { name, service, target, pods }),
        name.clone().prop_map(|name| Happening::SliceGone { name }),
        (0_u8..5, 1_u8..6, any::<bool>(), any::<bool>())
            .prop_map(|(name, address, meshed, terminating)| Happening::Pod { name, address, meshed, terminating }),
        (0_u8..5).prop_map(|name| Happening::PodGone { name }),
        (0_u8..2, 0_u8..3).prop_map(|(name, zone)| Happening::Node { name, zone }),
    ]
}

fn object(name: u8) -> ObjectName {
    ObjectName::new("shop", &format!("o{name}"))
}

fn node(name: u8) -> ObjectName {
    ObjectName::new("", &format!("n{name}"))
}

fn address(number: u8) -> std::net::IpAddr {
    [10, 1, 0, number].into()
}

fn update(happening: &Happening) -> Update {
    match happening {
        Happening::Service { name, headless, ports } => {
            let port = |number: u8| PortFacts {
                name: format!("p{number}"),
                port: 80 + u16::from(number),
                target: None,
                protocol: Protocol::Auto,
            };
            let facts = ServiceFacts {
                addresses: if *headless { Vec::new() } else { vec![address(100 + name)] },
                headless: *headless,
                publishes_not_ready: false,
                ports: (0..*ports).map(port).collect(),
            };
            Update::Service(Step::Set(object(*name), Some(facts)))
        }
        Happening::ServiceGone { name } => Update::Service(Step::Gone(object(*name))),
        Happening::Slice { name, service, target, pods } => {
            let endpoint = |(pod, ready): &(u8, bool)| EndpointFacts {
                address: address(pod + 1),
                ready: *ready,
                serving: *ready,
                terminating: false,
                pod: (*pod > 0).then(|| object(*pod)),
                node: ready.then(|| node(*pod % 2)),
                zone: None,
            };
            let facts = SliceFacts {
                service: format!("o{service}"),
                ports: vec![("p0".to_owned(), Some(*target)), ("p1".to_owned(), None)],
                endpoints: pods.iter().map(endpoint).collect(),
            };
            Update::Slice(Step::Set(object(*name), Some(facts)))
        }
        Happening::SliceGone { name } => Update::Slice(Step::Gone(object(*name))),
        Happening::Pod { name, address: number, meshed, terminating } => {
            let mesh = MeshFacts {
                labels: BTreeMap::new(),
                service_account: format!("a{name}"),
                ready: true,
                excluded_ports: [8082].into(),
            };
            let bare =
                BareFacts { uid: String::new(), label: None, host_network: false, is_mirror: false, owner: None };
            let proxy = if *meshed { Proxy::Present(mesh) } else { Proxy::Absent(Box::new(bare)) };
            let facts = PodFacts {
                addresses: vec![address(*number)],
                terminating: *terminating,
                node: Some(node(number % 2)),
                proxy,
            };
            Update::Pod(Step::Set(object(*name), Some(facts)))
        }
        Happening::PodGone { name } => Update::Pod(Step::Gone(object(*name))),
        Happening::Node { name, zone } => {
            let locality = Locality { region: String::new(), zone: format!("z{zone}") };
            Update::Node(Step::Set(node(*name), (*zone > 0).then_some(locality)))
        }
    }
}

/// Which watch would tell it.
fn watch_of(happening: &Happening) -> usize {
    match happening {
        Happening::Service { .. } | Happening::ServiceGone { .. } => 0,
        Happening::Slice { .. } | Happening::SliceGone { .. } => 1,
        Happening::Pod { .. } | Happening::PodGone { .. } => 2,
        Happening::Node { .. } => 3,
    }
}

/// The lists of a cluster to which all this happened, and nothing else: what a watch that begins now says.
fn relist(watch: usize, happened: &[&Happening]) -> Vec<Update> {
    fn list<T>(last: BTreeMap<ObjectName, Option<T>>, tell: impl Fn(Step<T>) -> Update) -> Vec<Update> {
        let listed =
            last.into_iter().filter(|(_, object)| object.is_some()).map(|(name, object)| Step::Listed(name, object));
        std::iter::once(Step::Begin).chain(listed).chain([Step::Complete]).map(tell).collect()
    }
    macro_rules! last {
        ($variant:ident) => {{
            let mut last = BTreeMap::new();
            for happening in happened.iter().filter(|happening| watch_of(happening) == watch) {
                match update(happening) {
                    Update::$variant(Step::Set(name, object)) => _ = last.insert(name, object),
                    Update::$variant(Step::Gone(name)) => _ = last.insert(name, None),
                    other => panic!("{other:?}"),
                }
            }
            list(last, Update::$variant)
        }};
    }
    match watch {
        0 => last!(Service),
        1 => last!(Slice),
        2 => last!(Pod),
        _ => last!(Node),
    }
}

proptest! {
    #[test]
    fn any_order_of_events_ends_in_the_same_documents(
        happened in prop::collection::vec(happening(), 0..40),
        // For each step, which watch speaks next, and whether it begins again with a list, perhaps one that breaks off.
        turns in prop::collection::vec((0_usize..4, 0_u8..8), 0..120),
    ) {
        let mut straight = Objects::default();
        for happening in &happened {
            straight.take(update(happening));
        }
        let expected = translate(&straight);

        let mut queues: [Vec<&Happening>; 4] = Default::default();
        for happening in &happened {
            queues[watch_of(happening)].push(happening);
        }
        let mut told = [0_usize; 4];
        let mut objects = Objects::default();
        let mut control_plane = ControlPlane::default();
        for (watch, turn) in turns.into_iter().chain((0..4).cycle().map(|watch| (watch, 0)).take(4 * happened.len() + 4)) {
            match turn {
                7 => {
                    // A watch may miss any number of events before it begins again.
                    told[watch] = queues[watch].len().min(told[watch] + 2);
                    for update in relist(watch, &queues[watch][..told[watch]]) {
                        objects.take(update);
                    }
                }
                6 => {
                    let mut steps = relist(watch, &queues[watch][..told[watch]]);
                    steps.pop();
                    for update in steps {
                        objects.take(update);
                    }
                }
                _ => if let Some(happening) = queues[watch].get(told[watch]) {
                    told[watch] += 1;
                    objects.take(update(happening));
                }
            }
            // Sometimes a change goes out alone, sometimes several together.
            if turn % 2 == 0 {
                control_plane.follow(&mut objects);
            }
            if turn == 0 {
                control_plane.check(&mut objects)?;
            }
        }
        control_plane.check(&mut objects)?;
        prop_assert_eq!(translate(&objects), expected);
    }
}

/// What follows the objects change by change.
struct ControlPlane {
    translator: Translator,
    snapshot: Arc<Snapshot>,
    compiler: Compiler,
    told: Told,
}

impl Default for ControlPlane {
    fn default() -> Self {
        let compiler = Compiler::new("shop.local");
        Self { translator: Translator::default(), snapshot: Arc::default(), compiler, told: Told::default() }
    }
}

impl ControlPlane {
    fn follow(&mut self, objects: &mut Objects) {
        let changed = objects.take_changed();
        let documents = self.translator.follow(objects, changed);
        if let Some(snapshot) = publication::follow(&self.snapshot, documents, 0) {
            self.snapshot = Arc::new(snapshot);
            self.told.take(self.compiler.follow(&self.snapshot, &Arc::default()));
        }
    }

    /// It is what whoever begins now would have.
    fn check(&mut self, objects: &mut Objects) -> Result<(), TestCaseError> {
        self.follow(objects);
        let documents = self.snapshot.documents.iter().map(|(key, stored)| (key.clone(), stored.document.clone()));
        prop_assert_eq!(documents.collect::<BTreeMap<_, _>>(), translate(objects));
        let (mut anew, mut told) = (Compiler::new("shop.local"), Told::default());
        told.take(anew.follow(&self.snapshot, &Arc::default()));
        prop_assert_eq!(&self.told, &told);
        prop_assert_eq!(self.compiler.findings(), anew.findings());
        Ok(())
    }
}
