//! A Kubernetes cluster for a test: the real API server with etcd and the controllers, and nodes in miniature.
//!
//! | module | does |
//! |---|---|
//! | [`programs`] | where Kubernetes' programs are |
//! | [`keys`] | certificates and keys of a cluster |
//! | [`network`] | the network namespace a cluster lives in |
//! | [`servers`] | etcd, API server and controllers as processes |
//! | [`backends`] | Services and endpoints, watched |
//! | [`rules`] | what kube-proxy does: Services' addresses lead to endpoints |
//! | [`names`] | what the name server does: names of Services |
//! | [`node`] | what scheduler and kubelet do, for pods in namespaces of their own |
//!
//! One cluster serves all tests of a test program; each test has namespaces of its own in it. A test that breaks
//! servers starts a cluster for itself. Everything a cluster runs dies with the test program, however that ends, and its
//! files are removed.

pub mod backends;
pub mod keys;
pub mod mesh;
pub mod names;
pub mod network;
pub mod node;
pub mod programs;
pub mod rules;
pub mod servers;

use std::fmt::Debug;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{GetParams, PostParams, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use kube::{Api, Client, Config, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::mesh::command::now;
use crate::mesh::machine::has_namespaces;
use crate::process::{Finished, command, fed_within, program};
use backends::Backends;
use keys::Keys;
use network::{NODE, Network};
use node::Nodes;
pub use programs::Version;
use servers::{API_PORT, Servers};

/// Longest wait for what takes a moment on an idle machine.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// How long servers may take to start, or a command line to end.
const START: Duration = Duration::from_mins(2);
/// Longest wait for one answer of the API server, while there is time to ask again.
const ANSWER: Duration = Duration::from_secs(10);
/// After which the API server ends a watch, and its caller begins another.
const WATCH_SECONDS: u32 = 15;
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(50);

/// A running cluster. Its methods put the calling thread into its network.
pub struct Cluster {
    place: PathBuf,
    kubeconfig: PathBuf,
    keys: Arc<Keys>,
    network: Network,
    client: Client,
    servers: Arc<Mutex<Servers>>,
    nodes: Nodes,
    /// Its threads are in the network. Processes that live as long as the cluster are started on them.
    runtime: Runtime,
    /// Ends when this process does, whereupon the place is removed.
    _sweeper: Child,
}

impl Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Cluster {
    /// The cluster of this test program, of the newest Kubernetes. `None` where there can be none, which it says.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Version::Newest)).as_ref().inspect(|cluster| cluster.network.enter())
    }

    /// [`Cluster::shared`] of the oldest Kubernetes.
    pub fn oldest() -> Option<&'static Self> {
        static OLDEST: OnceLock<Option<Cluster>> = OnceLock::new();
        OLDEST.get_or_init(|| Self::start(Version::Oldest)).as_ref().inspect(|cluster| cluster.network.enter())
    }

    /// A cluster for one test.
    pub fn start(version: Version) -> Option<Self> {
        if !has_namespaces() {
            return None;
        }
        let (place, sweeper) = make_place();
        // On a thread of its own, whose children the runtime's threads are: the caller may be in another network.
        let made = std::thread::spawn(|| {
            let network = Network::create();
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            (network, runtime.expect("threads can be started"))
        });
        let (network, runtime) = made.join().expect("a network can be made");
        network.enter();

        let keys = Arc::new(Keys::make(&place.join("keys")));
        let kubeconfig = place.join("kubeconfig");
        std::fs::write(&kubeconfig, administrator(&keys).to_string()).expect("the place can be written to");
        let (at, with) = (place.clone(), Arc::clone(&keys));
        let servers = on(&runtime, move || Servers::start(version, &at, &with));
        let client = runtime.block_on(connect(&kubeconfig));
        let nodes = Nodes::new(&place);
        let servers = Arc::new(Mutex::new(servers));
        let cluster = Self { place, kubeconfig, keys, network, client, servers, nodes, runtime, _sweeper: sweeper };
        cluster.is_ready();

        let (servers, keys, kubeconfig) =
            (Arc::clone(&cluster.servers), Arc::clone(&cluster.keys), cluster.kubeconfig());
        let kubeconfig = kubeconfig.to_owned();
        on(&cluster.runtime, move || lock(&servers).start_controllers(&kubeconfig, &keys));
        let backends = Backends::watch(cluster.runtime.handle(), &cluster.client);
        cluster.runtime.spawn(rules::keep(backends.clone()));
        cluster.runtime.spawn(names::serve(backends));
        Some(cluster)
    }

    /// Waits until the API server says that it is ready, or a server has ended.
    fn is_ready(&self) {
        self.until_within(START, "the API server is ready", async || {
            if let Some(dead) = lock(&self.servers).dead() {
                panic!("a server of Kubernetes ended: {dead}");
            }
            let request = Request::new("").get("readyz", &GetParams::default()).expect("it is a path");
            self.client.request_text(request).await.map(drop).map_err(|error| error.to_string())
        });
    }

    /// Adds nodes of these names, on which pods are run from now on.
    pub fn add_nodes(&self, names: &[&str]) {
        self.block_on(self.nodes.add(&self.client, names));
    }

    /// Adds a node that has no network yet ([`Nodes::give_network`]), with a taint of this name.
    pub fn add_unready_node(&self, name: &str, taint: &str) {
        self.block_on(self.nodes.add_unready(&self.client, name, taint));
    }

    /// Renews the tokens in a pod's volumes, long before it would be time.
    #[track_caller]
    pub fn renew_tokens(&self, namespace: &str, pod: &str) {
        self.block_on(self.nodes.renew_tokens(namespace, pod)).expect("accounts of pods that run have tokens");
    }

    /// Of an administrator.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// For files of tests; goes with the cluster.
    pub fn place(&self) -> &Path {
        &self.place
    }

    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// Runs a future to its end, in the cluster's network.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.network.enter();
        self.runtime.block_on(future)
    }

    /// Waits until `look` gives a value; its last objection is the panic's message.
    #[track_caller]
    pub fn until<T>(&self, what: &str, look: impl AsyncFnMut() -> Result<T, String>) -> T {
        self.until_within(PATIENCE, what, look)
    }

    #[track_caller]
    pub fn until_within<T>(&self, limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
        let deadline = now() + limit;
        loop {
            // A server that is away may leave a connection without an answer: then another one is tried.
            let looked = self.block_on(async { tokio::time::timeout(ANSWER, look()).await });
            match looked.unwrap_or_else(|_| Err("no answer".to_owned())) {
                Ok(value) => return value,
                Err(objection) if now() >= deadline => {
                    panic!("not within {limit:?}: {what}: {objection}\n{}", self.nodes.story())
                }
                Err(_) => std::thread::park_timeout(LOOK),
            }
        }
    }

    /// What a condition is usually about: an object of that name, once it is as it should be.
    #[track_caller]
    pub fn until_object<K>(&self, namespace: &str, name: &str, what: &str, holds: impl Fn(&K) -> bool) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize,
    {
        self.until_object_within(PATIENCE, namespace, name, what, holds)
    }

    #[track_caller]
    pub fn until_object_within<K>(
        &self,
        limit: Duration,
        namespace: &str,
        name: &str,
        what: &str,
        holds: impl Fn(&K) -> bool,
    ) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize,
    {
        let api = Api::<K>::namespaced(self.client(), namespace);
        self.until_within(limit, &format!("{} {namespace}/{name} {what}", K::kind(&())), async || {
            match api.get_opt(name).await {
                Ok(Some(object)) if holds(&object) => Ok(object),
                Ok(found) => Err(serde_json::to_string(&found).unwrap_or_default()),
                Err(error) => Err(error.to_string()),
            }
        })
    }

    /// Makes a namespace that pods can be made in.
    #[track_caller]
    pub fn namespace(&self, name: &str, labels: &[(&str, &str)]) {
        let labels: Value = labels.iter().map(|(key, value)| (key.to_string(), Value::from(*value))).collect();
        let object = json!({"metadata": {"name": name, "labels": labels}});
        let object: Namespace = serde_json::from_value(object).expect("it is a namespace");
        let api = Api::<Namespace>::all(self.client());
        self.block_on(api.create(&PostParams::default(), &object)).expect("namespaces can be made");
        self.namespace_is_usable(name);
    }

    /// Waits until pods can be made in a namespace.
    #[track_caller]
    pub fn namespace_is_usable(&self, name: &str) {
        self.until_object::<ServiceAccount>(name, "default", "is there", |_| true);
        self.until_object::<ConfigMap>(name, "kube-root-ca.crt", "is there", |_| true);
    }

    /// Runs `kubectl` as an administrator.
    pub fn kubectl(&self, arguments: &[&str]) -> Finished {
        self.kubectl_with(arguments, "")
    }

    /// Runs `kubectl` with this on its standard input.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Finished {
        let mut kubectl = command(programs::kubectl());
        self.finish(kubectl.args(arguments), input)
    }

    /// Applies documents as a user would, server-side.
    #[track_caller]
    pub fn apply(&self, documents: &str) {
        self.kubectl_with(&["apply", "--server-side", "-f", "-"], documents).succeeded();
    }

    /// Runs `weft` as an administrator.
    pub fn weft(&self, arguments: &[&str]) -> Finished {
        let mut weft = command(program("weft"));
        self.finish(weft.args(arguments), "")
    }

    fn finish(&self, command: &mut Command, input: &str) -> Finished {
        self.network.enter();
        // What it caches about servers goes with the cluster.
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.place);
        fed_within(command, input, START)
    }

    /// SIGKILL to the API server.
    pub fn kill_api(&self) {
        lock(&self.servers).kill_api();
    }

    /// Starts the API server again.
    pub fn start_api(&self) {
        let (servers, keys) = (Arc::clone(&self.servers), Arc::clone(&self.keys));
        on(&self.runtime, move || lock(&servers).start_api(&keys));
        self.is_ready();
    }
}

/// A directory for a cluster, which others may pass through; and what removes it.
fn make_place() -> (PathBuf, Child) {
    let directory = tempfile::Builder::new().prefix("weft-kubernetes-").tempdir().expect("a temporary directory");
    let place = directory.keep();
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755)).expect("an owner sets modes");
    // The first reads until this process has ended, however it did. What it ran may write for a moment longer.
    let script = r#"cat; while ! rm -rf "$1" 2>/dev/null; do sleep 0.1; done"#;
    let mut sweeper = Command::new("sh");
    sweeper
        .args(["-c", script, "sweeper"])
        .arg(&place)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let sweeper = sweeper.spawn().expect("a shell can be started");
    (place, sweeper)
}

/// A kubeconfig.
fn administrator(keys: &Keys) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "weft",
        "contexts": [{"name": "weft", "context": {"cluster": "weft", "user": "admin"}}],
        "clusters": [{"name": "weft", "cluster": {
            "server": format!("https://{NODE}:{API_PORT}"),
            "certificate-authority": keys.path("ca.crt"),
        }}],
        "users": [{"name": "admin", "user": {
            "client-certificate": keys.path("admin.crt"),
            "client-key": keys.path("admin.key"),
        }}],
    })
}

async fn connect(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("it was just written");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let mut config = config.expect("it is complete");
    config.connect_timeout = Some(ANSWER);
    Client::try_from(config).expect("the keys can be used")
}

/// How what runs as long as a cluster watches it: a watch that a killed server left behind ends before a test does.
pub(crate) fn watching() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// Does it on a thread that lives as long as the runtime, for what dies with the thread that started it.
fn on<T: Send + 'static>(runtime: &Runtime, work: impl FnOnce() -> T + Send + 'static) -> T {
    runtime.block_on(runtime.spawn(async move { work() })).expect("servers can be started")
}

fn lock(servers: &Mutex<Servers>) -> std::sync::MutexGuard<'_, Servers> {
    servers.lock().unwrap_or_else(PoisonError::into_inner)
}
