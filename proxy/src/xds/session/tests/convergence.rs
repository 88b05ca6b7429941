//! Whatever happens on the way, the proxy ends at what the server says, and never gave up early what it still used.

use proptest::prelude::*;

use super::*;
use crate::xds::fixtures::control_plane::{Applied, ControlPlane};

#[derive(Debug, Clone)]
enum Step {
    Cluster { name: u8, endpoints: u8, timeout: i64 },
    Listener { name: u8, target: u8, is_http: bool },
    Routes { name: u8, cluster: u8 },
    Endpoints { name: u8, port: u32 },
    Remove { kind: ResourceType, name: u8 },
    Respond(ResourceType),
    Lose,
    Restart,
}

fn any_kind() -> impl Strategy<Value = ResourceType> {
    prop::sample::select(ResourceType::ALL.to_vec())
}

fn any_step() -> impl Strategy<Value = Step> {
    let name = 0..3u8;
    prop_oneof![
        2 => (name.clone(), name.clone(), 1..3i64)
            .prop_map(|(name, endpoints, timeout)| Step::Cluster { name, endpoints, timeout }),
        2 => (name.clone(), name.clone(), any::<bool>())
            .prop_map(|(name, target, is_http)| Step::Listener { name, target, is_http }),
        2 => (name.clone(), name.clone()).prop_map(|(name, cluster)| Step::Routes { name, cluster }),
        2 => (name.clone(), 1..3u32).prop_map(|(name, port)| Step::Endpoints { name, port }),
        2 => (any_kind(), name).prop_map(|(kind, name)| Step::Remove { kind, name }),
        8 => any_kind().prop_map(Step::Respond),
        1 => Just(Step::Lose),
        1 => Just(Step::Restart),
    ]
}

struct World {
    server: ControlPlane,
    session: Session,
    applied: Applied,
    completions: usize,
}

impl World {
    fn open(&mut self) {
        if !self.server.has_stream() {
            self.server.open();
            let output = self.session.stream_opened();
            self.follow(output);
        }
    }

    fn follow(&mut self, output: Output) {
        if let Some(change) = output.change {
            let used = self.applied.used_clusters();
            let removed: Vec<String> = change.removed_clusters.iter().map(ToString::to_string).collect();
            self.applied.apply(change);
            let still_used = self.applied.used_clusters();
            for name in removed {
                assert!(!still_used.contains(&name), "{name} was removed while used; before: {used:?}");
            }
        }
        self.completions += usize::from(output.completed);
        for request in &output.requests {
            self.server.request(request);
        }
    }

    fn respond(&mut self, kind: ResourceType) -> bool {
        self.open();
        let Some(response) = self.server.respond(kind) else { return false };
        let output = self.session.response(response);
        self.follow(output);
        true
    }

    fn step(&mut self, step: &Step) {
        let name = |n: u8| format!("default/s{n}:80");
        match *step {
            Step::Cluster { name: n, endpoints, timeout } => {
                let mut message = cluster_with_endpoints(&name(n), &name(endpoints));
                message.connect_timeout = crate::xds::fixtures::seconds(timeout);
                self.server.put(Clusters, &name(n), &message);
            }
            Step::Listener { name: n, target, is_http: true } => {
                self.server.put(Listeners, &name(n), &http_listener(&name(n), &name(target)));
            }
            Step::Listener { name: n, target, is_http: false } => {
                self.server.put(Listeners, &name(n), &tcp_listener(&name(n), &name(target)));
            }
            Step::Routes { name: n, cluster } => self.server.put(Routes, &name(n), &routes(&name(n), &name(cluster))),
            Step::Endpoints { name: n, port } => self.server.put(Endpoints, &name(n), &one_endpoint(&name(n), port)),
            Step::Remove { kind, name: n } => {
                self.server.resources.remove(&(kind, name(n)));
            }
            Step::Respond(kind) => {
                self.respond(kind);
            }
            Step::Lose => {
                self.server.lose();
                self.session.stream_lost();
            }
            Step::Restart => {
                self.server.lose();
                let held = self.session.held();
                self.session = session();
                self.applied = Applied::default();
                self.completions = 0;
                let output = self.session.restore(held);
                self.follow(output);
            }
        }
    }

    /// Lets the server say everything it has to say.
    fn run_dry(&mut self) {
        for _ in 0..50 {
            let mut is_quiet = true;
            for kind in ResourceType::ALL {
                is_quiet &= !self.respond(kind);
            }
            if is_quiet {
                return;
            }
        }
        panic!("the conversation does not end");
    }

    /// What the server's state amounts to for a proxy.
    fn expected(&self) -> BTreeMap<(ResourceType, String), Decoded> {
        let decode = |kind: ResourceType, name: &str| {
            let (_, body) = self.server.resources.get(&(kind, name.to_owned()))?;
            Some(((kind, name.to_owned()), decode_as(kind, name, body).unwrap()))
        };
        let mut expected: BTreeMap<_, _> = self
            .server
            .resources
            .keys()
            .filter(|(kind, _)| kind.is_wildcard())
            .filter_map(|(kind, name)| decode(*kind, name))
            .collect();
        let mut named = Vec::new();
        for spec in expected.values() {
            match spec {
                Decoded::Listener(spec) => {
                    if let Some(weft_core::model::RouteSource::Named(name)) = &spec.routes {
                        named.push((Routes, name.to_string()));
                    }
                }
                Decoded::Cluster(spec) => {
                    if let weft_core::model::EndpointSource::Discovered(name) = &spec.endpoints {
                        named.push((Endpoints, name.to_string()));
                    }
                }
                Decoded::Routes(_) | Decoded::Endpoints(_) | Decoded::Destination(_) => {}
            }
        }
        expected.extend(named.iter().filter_map(|(kind, name)| decode(*kind, name)));
        expected
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_history_ends_at_the_servers_state(steps in prop::collection::vec(any_step(), 0..60)) {
        let mut world = World {
            server: ControlPlane::default(),
            session: session(),
            applied: Applied::default(),
            completions: 0,
        };
        for step in &steps {
            world.step(step);
        }
        world.run_dry();
        prop_assert!(world.completions <= 1);
        prop_assert!(world.session.has_completed());
        let expected = world.expected();
        for (key, spec) in &expected {
            prop_assert_eq!(world.applied.resources.get(key), Some(spec), "{:?} is not as the server has it", key);
        }
        // What is there beyond is only what the server removed while something of its own still refers to it.
        let used = world.applied.used_clusters();
        for (kind, name) in world.applied.resources.keys().filter(|key| !expected.contains_key(*key)) {
            let is_kept_for_its_users = match kind {
                Clusters => used.contains(name),
                Routes => world.applied.resources.values().any(|spec| matches!(spec, Decoded::Listener(listener)
                    if listener.routes == Some(weft_core::model::RouteSource::Named(RouteName::from(name.as_str()))))),
                Endpoints => world.applied.resources.iter().any(|((kind, cluster), _)| *kind == Clusters && used.contains(cluster)),
                Listeners | ResourceType::Destination => false,
            };
            prop_assert!(is_kept_for_its_users, "{} {} is a ghost", kind, name);
        }
        // What a next stream would tell is exactly what the server has.
        for resource in world.session.held() {
            let (version, body) = &world.server.resources[&(resource.kind, resource.name.to_string())];
            prop_assert_eq!(&*resource.version, version.as_str());
            let decode = |body: &Bytes| decode_as(resource.kind, &resource.name, body).unwrap();
            prop_assert_eq!(decode(&resource.body), decode(body));
        }
    }

    #[test]
    fn arbitrary_responses_never_panic(
        kind in any_kind(),
        nonce in ".{0,8}",
        names in prop::collection::vec(".{0,8}", 0..4),
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut session = session_with_shop();
        let resources = names.iter().map(|name| Delivered {
            name: name.clone(),
            version: nonce.clone(),
            resource: Some(weft_proto::discovery::Any { type_url: kind.url().to_owned(), value: body.clone().into() }),
            aliases: vec![],
        });
        let removed: Vec<&str> = names.iter().map(String::as_str).collect();
        session.response(response(kind, &nonce, resources.collect(), &removed));
    }
}
