//! Nodes in miniature: what the scheduler and the kubelet do for pods, as far as a mesh can tell the difference.
//!
//! | module | does |
//! |---|---|
//! | [`schedule`] | chooses a node |
//! | [`pod`] | a pod's life: init containers, sidecars, applications, the end in its order |
//! | [`tend`] | a container's life: start, probes, restarts, stop |
//! | [`container`] | one process of a container: file system, user, rights |
//! | [`sandbox`] | a pod's namespaces and its address |
//! | [`chain`] | a pod's network, by the plugins of its node |
//! | [`environment`], [`values`], [`volumes`] | what a pod's object says, looked up |
//! | [`images`] | what image names stand for |
//! | [`probe`] | probes and hooks, from outside the pod |
//! | [`status`] | what is told of a pod |
//!
//! Not done: resource limits, seccomp, images' layers, `kubectl exec|logs|port-forward`, probes over
//! HTTPS and gRPC, several interfaces, IPv6.

pub mod chain;
mod container;
mod environment;
mod images;
mod pod;
mod probe;
mod sandbox;
mod schedule;
mod status;
mod tend;
mod values;
mod volumes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{Binding, Event, Node, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event as Change;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::network::NODE;
use super::watching;
use crate::process::{Finished, PATIENCE, run_within, system};
use pod::PodLife;
use tend::{Task, timestamp};

/// Before a pod that found no node is looked at again.
const AGAIN: Duration = Duration::from_millis(100);
/// Lines that a failing test shows.
const STORY: usize = 120;
/// Characters of a container's log that a failing test shows.
const SHOWN: usize = 3_000;

/// The nodes of a cluster, all on this machine.
#[derive(Debug)]
pub struct Nodes {
    shared: Arc<Shared>,
}

struct Shared {
    client: OnceLock<Client>,
    /// For directories of pods.
    place: PathBuf,
    /// For the nodes' own files.
    hosts: PathBuf,
    node_address: Ipv4Addr,
    names: Mutex<BTreeSet<String>>,
    /// Addresses are not given twice: what is cached about one that ended must not meet another.
    next: AtomicU16,
    known: Mutex<BTreeMap<(String, String), Arc<PodLife>>>,
    story: Mutex<VecDeque<String>>,
}

impl Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Nodes {
    pub(super) fn new(place: &Path) -> Self {
        let shared = Shared {
            client: OnceLock::new(),
            place: place.join("pods"),
            hosts: place.join("nodes"),
            node_address: NODE,
            names: Mutex::default(),
            next: AtomicU16::new(2),
            known: Mutex::default(),
            story: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Registers nodes, each in a zone of its own, with a network; pods are run from the first one on.
    pub(super) async fn add(&self, client: &Client, names: &[&str]) {
        for name in names {
            self.make_host(name);
            self.give_network(name);
            self.register(client, name, &Value::Null).await;
        }
    }

    /// Registers a node that has no network yet, and this taint.
    pub(super) async fn add_unready(&self, client: &Client, name: &str, taint: &str) {
        self.make_host(name);
        self.register(client, name, &json!([{"key": taint, "effect": "NoSchedule"}])).await;
    }

    async fn register(&self, client: &Client, name: &str, taints: &Value) {
        let is_first = self.shared.client.set(client.clone()).is_ok();
        lock(&self.shared.names).insert(name.to_owned());
        let api = Api::<Node>::all(client.clone());
        let made: Node = serde_json::from_value(object(name)).expect("it is a node");
        api.create(&PostParams::default(), &made).await.expect("nodes can be made");
        // Admission marks a new node as not ready, and a controller that does not run here would take that back.
        let ready = Patch::Merge(json!({"spec": {"taints": taints}}));
        api.patch(name, &PatchParams::default(), &ready).await.expect("nodes can be changed");
        let status = Patch::Merge(status());
        api.patch_status(name, &PatchParams::default(), &status).await.expect("nodes can be changed");
        if is_first {
            tokio::spawn(run(Arc::clone(&self.shared)));
        }
    }

    fn make_host(&self, name: &str) {
        for directory in [chain::CONFIGURATIONS, chain::BINARIES] {
            std::fs::create_dir_all(self.host(name).join(directory)).expect("the place can be written to");
        }
    }

    /// The root of a node's files.
    pub fn host(&self, name: &str) -> PathBuf {
        self.shared.host(name)
    }

    /// The network configuration of a node: what [`Nodes::give_network`] writes.
    pub fn network_of(&self, name: &str) -> PathBuf {
        self.host(name).join(chain::CONFIGURATIONS).join("10-miniature.conflist")
    }

    /// Writes the network configuration of a node, as the cluster's own network plugin does.
    pub fn give_network(&self, name: &str) {
        let file = self.network_of(name);
        std::fs::write(&file, chain::CONFIGURATION).expect("the place can be written to");
    }

    pub(super) async fn renew_tokens(&self, namespace: &str, pod: &str) -> Result<(), String> {
        self.shared.pod(namespace, pod).renew_tokens().await
    }

    /// Where a pod can be reached.
    #[track_caller]
    pub fn address(&self, namespace: &str, pod: &str) -> Ipv4Addr {
        self.shared.pod(namespace, pod).facts.address
    }

    /// All that a container has written.
    #[track_caller]
    pub fn log(&self, namespace: &str, pod: &str, container: &str) -> String {
        let log = self.shared.pod(namespace, pod).log(container);
        String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned()
    }

    /// A command of this machine in a pod's network.
    #[track_caller]
    pub fn command(&self, namespace: &str, pod: &str, program: &str) -> Command {
        let pause = self.shared.pod(namespace, pod).pause.to_string();
        let mut command = system("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "nsenter", "--target", &pause, "--net", "--", program]);
        command
    }

    /// Runs a command in a running container, as `kubectl exec` does.
    #[track_caller]
    pub fn execute(&self, namespace: &str, pod: &str, container: &str, command: &[&str]) -> Finished {
        let pid = self.process_of(namespace, pod, container);
        let mut nsenter = system("nsenter");
        nsenter.args(["--target", &pid.to_string(), "--all", "--root", "--wd", "--"]).args(command);
        run_within(&mut nsenter, PATIENCE)
    }

    /// A command in a running container, which signals reach: it is a process of this machine's process namespace.
    #[track_caller]
    pub fn beside(&self, namespace: &str, pod: &str, container: &str, command: &[&str]) -> Command {
        let pid = self.process_of(namespace, pod, container);
        let mut beside = system("setpriv");
        beside.args(["--pdeathsig", "KILL", "--", "nsenter", "--target", &pid.to_string()]);
        beside.args(["--mount", "--uts", "--net", "--root", "--wd", "--"]).args(command);
        beside
    }

    #[track_caller]
    fn process_of(&self, namespace: &str, pod: &str, container: &str) -> u32 {
        let life = self.shared.pod(namespace, pod);
        let tended = life.containers.iter().find(|tended| tended.spec.name == container);
        let pid = tended.and_then(|tended| tended.state.borrow().pid());
        pid.unwrap_or_else(|| panic!("{namespace}/{pod} has no running container {container}"))
    }

    /// Makes an image of the control plane, `ANYWHERE/NAME`, with this program for running proxies in it.
    pub fn make_control_plane(&self, name: &str, proxy: &Path) {
        images::make_control_plane(name, proxy.to_owned());
    }

    /// The process of a running container, as this machine numbers it.
    #[track_caller]
    pub fn process(&self, namespace: &str, pod: &str, container: &str) -> u32 {
        self.process_of(namespace, pod, container)
    }

    /// What happened last, and what containers said, for a test that fails.
    pub fn story(&self) -> String {
        let mut lines: Vec<String> = lock(&self.shared.story).iter().cloned().collect();
        for ((namespace, name), life) in lock(&self.shared.known).iter() {
            for tended in &life.containers {
                let container = &tended.spec.name;
                let log = std::fs::read(life.log(container)).unwrap_or_default();
                let log = String::from_utf8_lossy(&log);
                if !log.is_empty() {
                    let begin = log.char_indices().rev().nth(SHOWN).map_or(0, |(at, _)| at);
                    lines.push(format!("--- {namespace}/{name} {container}\n{}", &log[begin..]));
                }
            }
        }
        lines.join("\n")
    }
}

impl Shared {
    fn client(&self) -> Client {
        self.client.get().expect("pods are run after the first node was added").clone()
    }

    fn next_address(&self) -> Ipv4Addr {
        let [high, low] = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        Ipv4Addr::new(10, 244, high, low)
    }

    /// The root of a node's files.
    fn host(&self, node: &str) -> PathBuf {
        self.hosts.join(node)
    }

    /// An event about a pod.
    async fn warn(&self, pod: &Pod, reason: &str, message: &str) {
        let namespace = pod.namespace().unwrap_or_default();
        let event = json!({
            "metadata": {"generateName": format!("{}.", pod.name_any()), "namespace": namespace},
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": pod.name_any(), "namespace": namespace, "uid": pod.uid()},
            "type": "Warning",
            "reason": reason,
            "message": message,
        });
        let event: Event = serde_json::from_value(event).expect("it is an event");
        // Told as far as it can be: the story has it in any case.
        let _ = Api::<Event>::namespaced(self.client(), &namespace).create(&PostParams::default(), &event).await;
    }

    fn know(&self, life: &Arc<PodLife>) {
        lock(&self.known).insert((life.namespace(), life.name()), Arc::clone(life));
    }

    #[track_caller]
    fn pod(&self, namespace: &str, name: &str) -> Arc<PodLife> {
        let known = lock(&self.known).get(&(namespace.to_owned(), name.to_owned())).cloned();
        known.unwrap_or_else(|| panic!("no node has run {namespace}/{name}"))
    }

    fn tell(&self, pod: &Pod, text: &str) {
        let mut story = lock(&self.story);
        story.push_back(format!("{} {}/{} {text}", timestamp(), pod.namespace().unwrap_or_default(), pod.name_any()));
        if story.len() > STORY {
            story.pop_front();
        }
    }
}

fn object(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "topology.kubernetes.io/zone": format!("zone-of-{name}"),
    }}})
}

fn status() -> Value {
    let size = json!({"cpu": "64", "memory": "256Gi", "pods": "1000"});
    json!({"status": {
        "addresses": [{"type": "InternalIP", "address": NODE}],
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "in miniature"}],
        "capacity": size,
        "allocatable": size,
    }})
}

/// A pod that is on one of our nodes. It goes when this is dropped.
#[derive(Debug)]
struct Worker {
    node: String,
    kind: String,
    ending: watch::Sender<Option<u64>>,
    _task: Task,
}

/// Scheduler and kubelets, for ever.
async fn run(shared: Arc<Shared>) {
    let client = shared.client();
    let (nodes, writer) = reflector::store::<Node>();
    let all = watcher(Api::all(client.clone()), watching()).default_backoff();
    let followed = reflector::reflector(writer, all);
    let _following = Task(tokio::spawn(followed.for_each(|_| std::future::ready(()))));

    let pods = watcher(Api::<Pod>::all(client.clone()), watching()).default_backoff();
    let mut pods = std::pin::pin!(pods);
    let mut house =
        House { shared, client, nodes, workers: BTreeMap::new(), homeless: BTreeMap::new(), bound: BTreeMap::new() };
    // Those that a list has shown since it began.
    let mut listed = None;
    loop {
        let wait = if house.homeless.is_empty() { Duration::from_hours(1) } else { AGAIN };
        match tokio::time::timeout(wait, pods.next()).await {
            Ok(Some(Ok(Change::Apply(pod)))) => house.take(pod),
            Ok(Some(Ok(Change::InitApply(pod)))) => {
                listed.get_or_insert_with(BTreeSet::new).insert(pod.uid().unwrap_or_default());
                house.take(pod);
            }
            Ok(Some(Ok(Change::Delete(pod)))) => house.forget(&pod.uid().unwrap_or_default()),
            Ok(Some(Ok(Change::Init))) => listed = Some(BTreeSet::new()),
            Ok(Some(Ok(Change::InitDone))) => {
                let listed = listed.take().unwrap_or_default();
                house.workers.retain(|uid, _| listed.contains(uid));
                house.homeless.retain(|uid, _| listed.contains(uid));
                house.bound.retain(|uid, _| listed.contains(uid));
            }
            // The API server is away: what runs goes on.
            Ok(Some(Err(_))) => {}
            Ok(None) => return,
            Err(_) => {}
        }
        house.place().await;
    }
}

struct House {
    shared: Arc<Shared>,
    client: Client,
    nodes: Store<Node>,
    workers: BTreeMap<String, Worker>,
    /// Without a node.
    homeless: BTreeMap<String, Pod>,
    /// Of those, the ones that were given one: node and kind.
    bound: BTreeMap<String, (String, String)>,
}

impl House {
    /// A pod as it is now.
    fn take(&mut self, pod: Pod) {
        let uid = pod.uid().unwrap_or_default();
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else {
            self.homeless.insert(uid, pod);
            return;
        };
        self.homeless.remove(&uid);
        self.bound.remove(&uid);
        if !lock(&self.shared.names).contains(&node) {
            return;
        }
        let grace = pod.metadata.deletion_timestamp.as_ref().map(|_| {
            let seconds = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
            u64::try_from(seconds).unwrap_or_default()
        });
        let has_ended =
            matches!(pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"));
        if !self.workers.contains_key(&uid) && !has_ended {
            let (ending, receiver) = watch::channel(None);
            let kind = schedule::kind_of(&pod);
            let task = tokio::spawn(pod::live(Arc::clone(&self.shared), pod, receiver));
            self.workers.insert(uid.clone(), Worker { node, kind, ending, _task: Task(task) });
        }
        if let (Some(worker), Some(_)) = (self.workers.get(&uid), grace) {
            worker.ending.send_if_modified(|ending| {
                ending.is_none() && {
                    *ending = grace;
                    true
                }
            });
        }
    }

    fn forget(&mut self, uid: &str) {
        self.workers.remove(uid);
        self.homeless.remove(uid);
        self.bound.remove(uid);
    }

    /// Finds nodes for pods that have none.
    async fn place(&mut self) {
        let placed = self.workers.values().map(|worker| (worker.node.clone(), worker.kind.clone()));
        let mut placed: Vec<_> = placed.chain(self.bound.values().cloned()).collect();
        for (uid, pod) in &self.homeless {
            let spec = pod.spec.clone().unwrap_or_default();
            let is_gated = spec.scheduling_gates.is_some_and(|gates| !gates.is_empty());
            if is_gated || self.bound.contains_key(uid) || pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let Some(node) = schedule::choose(&self.nodes.state(), pod, &placed) else { continue };
            let namespace = pod.namespace().unwrap_or_default();
            let binding = json!({
                "metadata": {"name": pod.name_any(), "namespace": namespace, "uid": uid},
                "target": {"apiVersion": "v1", "kind": "Node", "name": node},
            });
            let binding: Binding = serde_json::from_value(binding).expect("it is a binding");
            let api = Api::<Pod>::namespaced(self.client.clone(), &namespace);
            let params = PostParams::default();
            match api.create_subresource::<_, Value>("binding", &pod.name_any(), &params, &binding).await {
                // The watch brings it back with its node.
                Ok(_) => {
                    let at = (node, schedule::kind_of(pod));
                    placed.push(at.clone());
                    self.bound.insert(uid.clone(), at);
                }
                Err(error) => self.shared.tell(pod, &format!("it cannot be bound: {error}")),
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
