//! A model client against the incremental session: whatever happens, it ends with the world's state, and nothing is sent to it
//! twice without a reason.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;
use weft_proto::discovery::DeltaDiscoveryRequest;

use super::*;
use crate::serve::session::delta::Delta;
use crate::world::Own;

/// The last is of another workload's own resources alone.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "other's"];
const SHARED: usize = 4;
/// `a` and `b` may also be of what is for the client's own workload alone.
const OWN: usize = 2;

/// For each kind and name nothing (0) or content.
type Contents<const N: usize> = [[u32; N]; Kind::ALL.len()];

#[derive(Debug, Clone)]
enum Step {
    /// A revision.
    Publish(Contents<SHARED>, Contents<OWN>),
    Subscribe(Kind, usize),
    Unsubscribe(Kind, usize),
    SubscribeAll(Kind),
    UnsubscribeAll(Kind),
    /// The client takes the next response in.
    Receive {
        accept: bool,
    },
    /// The session hears of what was published.
    Hear,
    Pass(u64),
    /// The stream is lost with all that was under way.
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = || prop::sample::select(Kind::ALL.to_vec());
    let with_wildcard = || kind().prop_filter("no wildcard", |kind| kind.has_wildcard());
    let name = || 0..NAMES.len();
    prop_oneof![
        3 => (prop::array::uniform5(prop::array::uniform4(0_u32..3)), prop::array::uniform5(prop::array::uniform2(0_u32..3)))
            .prop_map(|(shared, own)| Step::Publish(shared, own)),
        3 => (kind(), name()).prop_map(|(kind, name)| Step::Subscribe(kind, name)),
        2 => (kind(), name()).prop_map(|(kind, name)| Step::Unsubscribe(kind, name)),
        1 => with_wildcard().prop_map(Step::SubscribeAll),
        1 => with_wildcard().prop_map(Step::UnsubscribeAll),
        8 => prop::bool::weighted(0.85).prop_map(|accept| Step::Receive { accept }),
        3 => Just(Step::Hear),
        2 => (0_u64..1500).prop_map(Step::Pass),
        1 => Just(Step::Reconnect),
    ]
}

/// What a correct client knows of one type.
#[derive(Debug, Default, Clone)]
struct Type {
    opened: bool,
    wildcard: bool,
    names: BTreeSet<String>,
    holds: BTreeMap<String, String>,
    /// Last version each name was sent in on this stream.
    seen: BTreeMap<String, String>,
    /// Names that may be answered once more.
    excused: BTreeSet<String>,
}

struct Model {
    star: Star,
    bench: Bench<Delta>,
    /// Versions in force, for everybody and for the client's workload alone.
    shared: BTreeMap<(Kind, &'static str), String>,
    own: BTreeMap<(Kind, &'static str), String>,
    /// The revision it counted as having applied, on this stream.
    acknowledged: u64,
    types: [Type; Kind::ALL.len()],
    under_way: VecDeque<DeltaDiscoveryResponse>,
    salt: u64,
}

impl Model {
    fn new(star: Star) -> Self {
        let world = Bench::<Delta>::new(&[]).world;
        Self {
            star,
            bench: Bench::meaning(star, world, 7),
            shared: BTreeMap::new(),
            own: BTreeMap::new(),
            acknowledged: 0,
            types: Default::default(),
            under_way: VecDeque::new(),
            salt: 8,
        }
    }

    fn publish(&mut self, shared: Contents<SHARED>, own: Contents<OWN>) {
        self.bench.revision += 1;
        let (shared, own) = (resources(shared), resources(own));
        let versions = |resources: &[Resource]| {
            let key = |resource: &Resource| (resource.kind, NAMES.into_iter().find(|name| **name == *resource.name));
            resources.iter().map(|r| ((r.kind, key(r).1.unwrap()), r.version.to_string())).collect()
        };
        (self.shared, self.own) = (versions(&shared), versions(&own));
        let of = |resources| Own { account: "orders".into(), resources };
        let others = Kind::ALL.map(|kind| resource(kind, "other's", 99));
        let own = [("default/orders-1", of(own)), ("default/other", of(others.to_vec()))];
        let own = own.into_iter().map(|(workload, own)| (workload.into(), own)).collect();
        self.bench.world.put(self.bench.revision, shared, own);
    }

    /// The version the client is to have.
    fn expected(&self, kind: Kind, name: &'static str) -> Option<&String> {
        let Type { wildcard, names, .. } = &self.types[kind as usize];
        let is_named = names.contains(name);
        let own = self.own.get(&(kind, name)).filter(|_| *wildcard || is_named);
        let shared = is_named || (*wildcard && self.star == Star::Everything);
        own.or_else(|| self.shared.get(&(kind, name)).filter(|_| shared))
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Publish(shared, own) => self.publish(shared, own),
            Step::Subscribe(kind, name) => self.ask(kind, Some(NAMES[name]), None),
            Step::Unsubscribe(kind, name) => {
                if self.types[kind as usize].names.contains(NAMES[name]) {
                    self.ask(kind, None, Some(NAMES[name]));
                }
            }
            Step::SubscribeAll(kind) => self.ask(kind, Some("*"), None),
            Step::UnsubscribeAll(kind) => {
                if self.types[kind as usize].wildcard {
                    self.ask(kind, None, Some("*"));
                }
            }
            Step::Receive { accept } => self.receive(accept),
            Step::Hear => {
                let (changes, revision) = self.bench.watch.take();
                self.bench.session.changed(changes, revision);
                self.flush();
            }
            Step::Pass(milliseconds) => {
                self.bench.now += Duration::from_millis(milliseconds);
                self.flush();
            }
            Step::Reconnect => self.reconnect(),
        }
        let acknowledged = self.bench.acknowledged();
        if self.star == Star::Own {
            assert!(acknowledged >= self.acknowledged, "what it begins to ask for sets a client back");
        }
        self.acknowledged = acknowledged;
    }

    fn flush(&mut self) {
        let responses = self.bench.flush();
        self.take(responses);
    }

    fn take(&mut self, responses: Vec<DeltaDiscoveryResponse>) {
        let changed: BTreeSet<String> = responses
            .iter()
            .filter(|response| response.type_url == names::CLUSTER)
            .flat_map(|response| response.resources.iter().map(|r| r.name.clone()))
            .collect();
        for response in responses {
            let kind = Kind::from_type_url(&response.type_url).unwrap();
            let state = &mut self.types[kind as usize];
            for resource in &response.resources {
                let again = state.seen.insert(resource.name.clone(), resource.version.clone());
                let excused = state.excused.remove(&resource.name)
                    || (kind == Kind::Endpoints && changed.contains(&resource.name));
                assert!(
                    again.as_ref() != Some(&resource.version) || excused,
                    "{} sent twice without a reason",
                    response.summary()
                );
                assert!(state.wildcard || state.names.contains(&resource.name), "{} unasked", response.summary());
            }
            for name in &response.removed_resources {
                let known = state.seen.remove(name).is_some() || state.holds.contains_key(name);
                assert!(state.excused.remove(name) || known, "{}: removed twice", response.summary());
            }
            self.under_way.push_back(response);
        }
    }

    fn ask(&mut self, kind: Kind, subscribe: Option<&str>, unsubscribe: Option<&str>) {
        let state = &mut self.types[kind as usize];
        // The first request is never empty here, so that it has no second meaning.
        state.opened = true;
        match (subscribe, unsubscribe) {
            (Some("*"), _) => {
                state.wildcard = true;
                let under_way = self.under_way.iter().filter(|response| response.type_url == kind.type_url());
                let names = under_way.flat_map(|response| &response.resources).map(|resource| resource.name.clone());
                state.excused.extend(names);
            }
            (Some(name), _) => {
                state.names.insert(name.to_owned());
                state.excused.insert(name.to_owned());
            }
            (_, Some("*")) => {
                state.wildcard = false;
                let names = state.names.clone();
                state.holds.retain(|name, _| names.contains(name));
                state.seen.retain(|name, _| names.contains(name));
            }
            (_, Some(name)) => {
                state.names.remove(name);
                if state.wildcard {
                    state.excused.insert(name.to_owned());
                } else {
                    state.holds.remove(name);
                    state.seen.remove(name);
                }
            }
            (None, None) => {}
        }
        let list = |name: Option<&str>| name.map(str::to_owned).into_iter().collect();
        let responses = self.bench.send(DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: list(subscribe),
            resource_names_unsubscribe: list(unsubscribe),
            ..DeltaDiscoveryRequest::default()
        });
        self.take(responses);
    }

    fn receive(&mut self, accept: bool) {
        let Some(response) = self.under_way.pop_front() else { return };
        let kind = Kind::from_type_url(&response.type_url).unwrap();
        let state = &mut self.types[kind as usize];
        // There is nothing to refuse in a response that only removes.
        let accept = accept || response.resources.is_empty();
        if accept {
            for resource in &response.resources {
                // What was given up meanwhile is not taken in.
                if state.wildcard || state.names.contains(&resource.name) {
                    state.holds.insert(resource.name.clone(), resource.version.clone());
                }
            }
        }
        // As real clients do, also in a response of which they refuse a resource.
        for name in &response.removed_resources {
            state.holds.remove(name);
        }
        let responses = self.bench.send(DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            error_detail: if accept { None } else { Some(error("it will not do")) },
            ..DeltaDiscoveryRequest::default()
        });
        self.take(responses);
    }

    /// A new stream, on which the client says what it has.
    fn reconnect(&mut self) {
        self.salt += 1;
        self.under_way.clear();
        let (revision, now) = (self.bench.revision, self.bench.now);
        self.bench = Bench { now, revision, ..Bench::meaning(self.star, self.bench.world.clone(), self.salt) };
        self.acknowledged = 0;
        for kind in Kind::ALL {
            let state = &mut self.types[kind as usize];
            state.seen = state.holds.clone();
            state.excused = state.names.iter().filter(|name| !state.holds.contains_key(*name)).cloned().collect();
            if !state.opened {
                continue;
            }
            let star = state.wildcard.then(|| "*".to_owned());
            let subscribe: Vec<String> = state.names.iter().cloned().chain(star).collect();
            // Nothing to ask for any more: on a new stream an empty request would mean everything.
            if subscribe.is_empty() {
                state.opened = false;
                continue;
            }
            let responses = self.bench.send(DeltaDiscoveryRequest {
                type_url: kind.type_url().to_owned(),
                resource_names_subscribe: subscribe,
                initial_resource_versions: state.holds.clone().into_iter().collect(),
                ..DeltaDiscoveryRequest::default()
            });
            self.take(responses);
        }
    }

    /// Lets everything come to rest, with new content so that refused versions are superseded.
    fn come_to_rest(&mut self) {
        let shared = [[11, 0, 12, 13], [14, 15, 0, 0], [0, 16, 17, 0], [18, 19, 0, 20], [21, 0, 22, 0]];
        let own = [[31, 0], [0, 32], [33, 34], [0, 0], [35, 0]];
        self.run(&Step::Publish(shared, own));
        self.run(&Step::Hear);
        for _ in 0..200 {
            while !self.under_way.is_empty() {
                self.receive(true);
            }
            let Some(at) = self.bench.session.wake_at() else { return };
            self.bench.now = self.bench.now.max(at);
            self.flush();
        }
        panic!("the session never comes to rest: {:?}", self.bench.session);
    }

    fn check(&self) {
        for kind in Kind::ALL {
            let expected: BTreeMap<String, String> = NAMES
                .into_iter()
                .filter_map(|name| Some((name.to_owned(), self.expected(kind, name)?.clone())))
                .collect();
            assert_eq!(self.types[kind as usize].holds, expected, "{kind:?}");
        }
        let standing = self.bench.session.standing();
        assert_eq!((standing.pending, &standing.refusal), (0, &None));
        let is_opened = |kind: &Kind| self.types[*kind as usize].opened;
        if match self.star {
            Star::Everything => Kind::ALL.iter().any(is_opened),
            Star::Own => [Kind::Cluster, Kind::Listener].iter().all(is_opened),
        } {
            assert_eq!(self.bench.acknowledged(), self.bench.revision);
        }
    }
}

/// All that has content.
fn resources<const N: usize>(contents: Contents<N>) -> Vec<Resource> {
    let of = |kind: Kind| {
        let present = NAMES.into_iter().zip(contents[kind as usize]).filter(|(_, content)| *content > 0);
        present.map(move |(name, content)| resource(kind, name, content))
    };
    Kind::ALL.into_iter().flat_map(of).collect()
}

fn converges(star: Star, steps: &[Step]) {
    let mut model = Model::new(star);
    for step in steps {
        model.run(step);
    }
    model.come_to_rest();
    model.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_client_converges_and_nothing_is_sent_twice_without_a_reason(steps in prop::collection::vec(step(), 1..60)) {
        converges(Star::Everything, &steps);
    }

    #[test]
    fn a_client_that_asks_for_what_it_uses_ends_with_its_own_and_that(steps in prop::collection::vec(step(), 1..60)) {
        converges(Star::Own, &steps);
    }
}
