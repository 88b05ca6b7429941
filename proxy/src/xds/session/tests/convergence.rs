//! Whatever happens on the way, the proxy ends at what the server says, and never gave up early what it still used.

use proptest::prelude::*;

use super::*;

/// A control plane in miniature: resources by type and name, and what this stream was told.
#[derive(Default)]
struct Server {
    resources: BTreeMap<(ResourceType, String), (String, Bytes)>,
    stream: Option<Told>,
    counter: u32,
}

#[derive(Default)]
struct Told {
    versions: BTreeMap<(ResourceType, String), Option<String>>,
    names: BTreeMap<ResourceType, BTreeSet<String>>,
    asked: BTreeSet<ResourceType>,
}

impl Server {
    fn put<M: prost::Message>(&mut self, kind: ResourceType, name: &str, message: &M) {
        self.counter += 1;
        let body = Bytes::from(message.encode_to_vec());
        // Versions are content hashes: the same body has the same version.
        let version =
            format!("{:x}", body.iter().fold(17u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(*byte))));
        self.resources.insert((kind, name.to_owned()), (version, body));
    }

    fn request(&mut self, request: &DeltaDiscoveryRequest) {
        let Some(kind) = ResourceType::from_url(&request.type_url) else { panic!("{request:?}") };
        let told = self.stream.as_mut().expect("a request needs a stream");
        if told.asked.insert(kind) {
            assert!(request.response_nonce.is_empty(), "the first request of a type has no nonce: {request:?}");
            for (name, version) in &request.initial_resource_versions {
                told.versions.insert((kind, name.clone()), Some(version.clone()));
            }
        } else {
            assert!(request.initial_resource_versions.is_empty(), "versions come first or never: {request:?}");
        }
        assert!(request.error_detail.is_none(), "everything the server has is valid: {request:?}");
        let names = told.names.entry(kind).or_default();
        if !kind.is_wildcard() && request.response_nonce.is_empty() {
            let asks = !request.resource_names_subscribe.is_empty() || !request.resource_names_unsubscribe.is_empty();
            assert!(asks, "an empty request would mean everything: {request:?}");
        }
        for name in &request.resource_names_unsubscribe {
            assert!(names.remove(name), "{name} was not subscribed");
            told.versions.remove(&(kind, name.clone()));
        }
        for name in &request.resource_names_subscribe {
            assert!(names.insert(name.clone()), "{name} was subscribed already");
        }
    }

    /// The next response of a type, when the client lacks something.
    fn respond(&mut self, kind: ResourceType) -> Option<DeltaDiscoveryResponse> {
        let told = self.stream.as_mut()?;
        if !told.asked.contains(&kind) {
            return None;
        }
        let is_first = !told.versions.contains_key(&(kind, String::new()));
        let mut names: BTreeSet<String> = match kind.is_wildcard() {
            true => self.resources.keys().filter(|(k, _)| *k == kind).map(|(_, name)| name.clone()).collect(),
            false => told.names.get(&kind).cloned().unwrap_or_default(),
        };
        if kind.is_wildcard() {
            let known =
                told.versions.iter().filter(|((k, name), version)| *k == kind && !name.is_empty() && version.is_some());
            names.extend(known.map(|((_, name), _)| name.clone()));
        }
        self.counter += 1;
        let mut answer = response(kind, &self.counter.to_string(), vec![], &[]);
        for name in names {
            let key = (kind, name.clone());
            let current = self.resources.get(&key);
            if told.versions.get(&key) == Some(&current.map(|(version, _)| version.clone())) {
                continue;
            }
            told.versions.insert(key, current.map(|(version, _)| version.clone()));
            match current {
                Some((version, body)) => answer.resources.push(Delivered {
                    name,
                    version: version.clone(),
                    resource: Some(weft_proto::discovery::Any { type_url: kind.url().to_owned(), value: body.clone() }),
                    aliases: vec![],
                }),
                None => answer.removed_resources.push(name),
            }
        }
        told.versions.insert((kind, String::new()), None);
        let is_news = !answer.resources.is_empty() || !answer.removed_resources.is_empty();
        (is_news || (is_first && kind.is_wildcard())).then_some(answer)
    }
}

/// What the rest of the proxy has, from changes alone.
#[derive(Default)]
struct Applied {
    resources: BTreeMap<(ResourceType, String), Decoded>,
}

impl Applied {
    fn apply(&mut self, change: Change) {
        let Change { listeners, routes, clusters, endpoints, .. } = change;
        let specs = listeners
            .into_iter()
            .map(|spec| (Listeners, Decoded::Listener(spec)))
            .chain(routes.into_iter().map(|spec| (Routes, Decoded::Routes(spec))))
            .chain(clusters.into_iter().map(|spec| (Clusters, Decoded::Cluster(spec))))
            .chain(endpoints.into_iter().map(|spec| (Endpoints, Decoded::Endpoints(spec))));
        for (kind, spec) in specs {
            self.resources.insert((kind, spec.name().to_owned()), spec);
        }
        let removed = (change.removed_listeners.iter().map(|name| (Listeners, name.as_str())))
            .chain(change.removed_routes.iter().map(|name| (Routes, name.as_str())))
            .chain(change.removed_clusters.iter().map(|name| (Clusters, name.as_str())))
            .chain(change.removed_endpoints.iter().map(|name| (Endpoints, name.as_str())));
        for (kind, name) in removed {
            let was = self.resources.remove(&(kind, name.to_owned()));
            assert!(was.is_some(), "{kind} {name} was removed without having been there");
        }
    }

    /// Clusters that listeners and routes in force send to.
    fn used_clusters(&self) -> BTreeSet<String> {
        let mut used = BTreeSet::new();
        for spec in self.resources.values() {
            match spec {
                Decoded::Listener(listener) => used.extend(listener.cluster.iter().map(ToString::to_string)),
                Decoded::Routes(table) => {
                    let routes = table.virtual_hosts.iter().flat_map(|host| &host.routes);
                    used.extend(routes.map(|route| route.cluster.to_string()));
                }
                Decoded::Cluster(_) | Decoded::Endpoints(_) => {}
            }
        }
        used
    }
}

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
    server: Server,
    session: Session,
    applied: Applied,
    completions: usize,
}

impl World {
    fn open(&mut self) {
        if self.server.stream.is_none() {
            self.server.stream = Some(Told::default());
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

    fn step(&mut self, step: Step) {
        let name = |n: u8| format!("default/s{n}:80");
        match step {
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
                self.server.stream = None;
                self.session.stream_lost();
            }
            Step::Restart => {
                self.server.stream = None;
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
                Decoded::Routes(_) | Decoded::Endpoints(_) => {}
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
            server: Server::default(),
            session: session(),
            applied: Applied::default(),
            completions: 0,
        };
        for step in steps {
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
                Listeners => false,
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
