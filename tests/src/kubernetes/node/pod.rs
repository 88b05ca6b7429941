//! The life of one pod on a node: its namespaces, its containers in their order, its status, its end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Shared;
use super::chain::Network;
use super::container::{Exit, Plan, Process};
use super::environment::words;
use super::images::Image;
use super::sandbox::Sandbox;
use super::status::{Conditions, creating, patch};
use super::tend::{Kind, State, Task, Tended, tend, timestamp};
use super::volumes;
use crate::kubernetes::names::resolver;
use crate::process::now;

/// Before what failed is tried again.
const AGAIN: Duration = Duration::from_millis(300);

/// What a pod may be told of its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) address: Ipv4Addr,
    pub(super) node_address: Ipv4Addr,
    pub(super) since: Timestamp,
}

/// A pod on the node.
#[derive(Debug)]
pub(super) struct PodLife {
    shared: Arc<Shared>,
    pod: Pod,
    pub(super) facts: Facts,
    /// First process of its namespaces.
    pub(super) pause: u32,
    place: PathBuf,
    volumes: OnceLock<BTreeMap<String, PathBuf>>,
    /// In the order of their start.
    pub(super) containers: Vec<Arc<Tended>>,
    /// Names of containers that are not started again.
    pub(super) ended: watch::Sender<BTreeSet<String>>,
    /// Counts changes of states.
    changes: watch::Sender<u64>,
    /// How many of them the API server was told.
    reported: watch::Sender<u64>,
}

/// Runs a pod from its binding to its end. `ending` has the seconds it is left when it is deleted.
pub(super) async fn live(shared: Arc<Shared>, pod: Pod, mut ending: watch::Receiver<Option<u64>>) {
    let hostname = spec(&pod).hostname.clone().unwrap_or_else(|| pod.name_any());
    let made = tokio::select! {
        made = settle(&shared, &pod, &hostname) => Some(made),
        _ = ending.wait_for(Option::is_some) => None,
    };
    let Some((sandbox, network)) = made else { return remove(&shared, &pod).await };
    let life = Arc::new(PodLife::new(Arc::clone(&shared), pod, &sandbox, &hostname));
    shared.know(&life);
    let _reporter = Task(tokio::spawn(report(Arc::clone(&life))));

    let mut tending = JoinSet::new();
    tokio::select! {
        () = life.run(&mut tending) => {}
        _ = ending.wait_for(Option::is_some) => {}
    }
    let given = ending.borrow().map(Duration::from_secs);
    life.stop(given.unwrap_or_else(|| life.grace()), &mut tending).await;
    if let Some(network) = network
        && let Err(error) = network.delete(&life.pod, &sandbox).await
    {
        life.tell(&format!("FailedKillPod: {error}"));
    }
    sandbox.end().await;
    // What has ended by itself stays until somebody deletes it.
    if ending.wait_for(Option::is_some).await.is_ok() {
        life.remove().await;
    }
}

/// Makes a pod's namespaces and network, as often as it takes; what hinders stands in its events and its status.
async fn settle(shared: &Shared, pod: &Pod, hostname: &str) -> (Sandbox, Option<Network>) {
    let api = Api::<Pod>::namespaced(shared.client(), &pod.namespace().unwrap_or_default());
    let host = shared.host(spec(pod).node_name.as_deref().unwrap_or_default());
    let of_node = spec(pod).host_network == Some(true);
    let mut told = None;
    loop {
        let address = if of_node { shared.node_address } else { shared.next_address() };
        let made = async {
            let sandbox = Sandbox::create(hostname, address, of_node).await?;
            if of_node {
                return Ok((sandbox, None));
            }
            // As it is now: its annotations may have been corrected.
            let now = api.get_opt(&pod.name_any()).await.ok().flatten();
            let network = Network::make(&host, now.as_ref().unwrap_or(pod), &sandbox).await?;
            Ok((sandbox, Some(network)))
        };
        let error: String = match made.await {
            Ok(made) => return made,
            Err(error) => error,
        };
        if told.as_ref() != Some(&error) {
            shared.tell(pod, &format!("FailedCreatePodSandBox: {error}"));
            shared.warn(pod, "FailedCreatePodSandBox", &error).await;
            let status = Patch::Strategic(creating(pod));
            let _ = api.patch_status(&pod.name_any(), &PatchParams::default(), &status).await;
            told = Some(error);
        }
        sleep(AGAIN).await;
    }
}

/// Tells the API server that nothing of a pod is left.
async fn remove(shared: &Shared, pod: &Pod) {
    let api = Api::<Pod>::namespaced(shared.client(), &pod.namespace().unwrap_or_default());
    let only_this = Preconditions { uid: pod.uid(), ..Preconditions::default() };
    let params = DeleteParams::default().grace_period(0).preconditions(only_this);
    loop {
        match api.delete(&pod.name_any(), &params).await {
            Ok(_) => return,
            Err(error) if is_gone(&error) => return,
            Err(error) => shared.tell(pod, &format!("it cannot be removed: {error}")),
        }
        sleep(AGAIN).await;
    }
}

impl PodLife {
    fn new(shared: Arc<Shared>, pod: Pod, sandbox: &Sandbox, hostname: &str) -> Self {
        let facts = Facts { address: sandbox.address, node_address: shared.node_address, since: timestamp() };
        let place =
            shared.place.join(format!("{}_{}_{}", pod.namespace().unwrap_or_default(), pod.name_any(), sandbox.pause));
        let own = spec(&pod);
        let before = own.init_containers.iter().flatten().map(|container| {
            let is_sidecar = container.restart_policy.as_deref() == Some("Always");
            Tended::new(container.clone(), if is_sidecar { Kind::Sidecar } else { Kind::Init })
        });
        let then = own.containers.iter().map(|container| Tended::new(container.clone(), Kind::Application));
        let containers = before.chain(then).collect();

        let files = place.join("files");
        std::fs::create_dir_all(&files).expect("the place can be written to");
        let aliases = own
            .host_aliases
            .iter()
            .flatten()
            .map(|alias| format!("{}\t{}\n", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t")));
        let aliases: String = aliases.collect();
        let hosts = format!("127.0.0.1\tlocalhost\n{}\t{hostname}\n{aliases}", facts.address);
        let resolver = resolver(&pod.namespace().unwrap_or_default());
        for (name, text) in [("hosts", hosts), ("resolv.conf", resolver), ("hostname", format!("{hostname}\n"))] {
            std::fs::write(files.join(name), text).expect("the place can be written to");
        }
        Self {
            shared,
            facts,
            pause: sandbox.pause,
            place,
            volumes: OnceLock::new(),
            containers,
            ended: watch::Sender::default(),
            changes: watch::Sender::new(1),
            reported: watch::Sender::default(),
            pod,
        }
    }

    pub(super) fn namespace(&self) -> String {
        self.pod.namespace().unwrap_or_default()
    }

    pub(super) fn name(&self) -> String {
        self.pod.name_any()
    }

    pub(super) fn log(&self, container: &str) -> PathBuf {
        self.place.join(format!("{container}.log"))
    }

    /// Until its applications are over, or an init container has failed for good.
    async fn run(self: &Arc<Self>, tending: &mut JoinSet<()>) {
        let client = self.shared.client();
        let host = self.shared.host(spec(&self.pod).node_name.as_deref().unwrap_or_default());
        loop {
            match volumes::make(&client, &self.pod, &self.facts, &host, &self.place.join("volumes")).await {
                Ok(volumes) => {
                    self.volumes.get_or_init(|| volumes);
                    break;
                }
                Err(error) => self.tell(&format!("FailedMount: {error}")),
            }
            sleep(AGAIN).await;
        }
        for container in &self.containers {
            tending.spawn(Arc::clone(self).tend(Arc::clone(container)));
            let mut state = container.state.subscribe();
            // The sender lives as long as this does.
            let _ = match container.kind {
                Kind::Application => continue,
                Kind::Init => state.wait_for(|state| state.is_over).await.map(drop),
                Kind::Sidecar => state.wait_for(|state| state.started).await.map(drop),
            };
            if container.kind == Kind::Init && state.borrow().outcome().is_none_or(|exit| exit.code != 0) {
                return;
            }
        }
        for container in self.containers.iter().filter(|container| container.kind == Kind::Application) {
            let _ = container.state.subscribe().wait_for(|state| state.is_over).await;
        }
    }

    async fn tend(self: Arc<Self>, container: Arc<Tended>) {
        tend(Arc::clone(&self), Arc::clone(&container)).await;
        self.ended.send_modify(|ended| {
            ended.insert(container.spec.name.clone());
        });
    }

    /// Stops what runs, in its order, within `grace`.
    async fn stop(&self, grace: Duration, tending: &mut JoinSet<()>) {
        let deadline = now() + grace;
        for container in &self.containers {
            container.stop.send_replace(Some(deadline));
            // Nobody waits for one that never ran.
            let has_run = container.state.borrow().phase != State::new().phase;
            if !has_run {
                self.ended.send_modify(|ended| {
                    ended.insert(container.spec.name.clone());
                });
            }
        }
        while tending.join_next().await.is_some() {}
        for container in &self.containers {
            self.note(container, |state| state.is_over = true);
        }
    }

    /// Tells the API server that nothing of it is left, when it has been told all that was before.
    async fn remove(&self) {
        let told = *self.changes.borrow();
        let _ = self.reported.subscribe().wait_for(|reported| *reported >= told).await;
        remove(&self.shared, &self.pod).await;
    }

    /// Starts a process of a container; fails with a kubelet's reason.
    pub(super) async fn start(&self, own: &Container) -> Result<Result<Process, Exit>, (&'static str, String)> {
        let reference = own.image.as_deref().unwrap_or_default();
        let image =
            Image::find(reference).ok_or_else(|| ("ErrImagePull", format!("there is no image `{reference}`")))?;
        let client = self.shared.client();
        let configured = async {
            let words = words(&client, &self.pod, &self.facts, own, &image).await?;
            let volumes = self.volumes.get().ok_or("its volumes are not made")?;
            Plan::new(spec(&self.pod), own, &image, words, volumes, &self.place.join("files"))
        };
        let plan = configured.await.map_err(|error| ("CreateContainerConfigError", error))?;
        let root = self.place.join("roots").join(&own.name);
        let started = Process::start(self.pause, &plan, &root, &self.log(&own.name)).await;
        started.map_err(|error| ("RunContainerError", error))
    }

    /// Whether a container is started again after such an end.
    pub(super) fn restarts(&self, kind: Kind, exit: Exit) -> bool {
        let policy = spec(&self.pod).restart_policy.as_deref().unwrap_or("Always");
        match kind {
            Kind::Sidecar => true,
            Kind::Init => exit.code != 0 && policy != "Never",
            Kind::Application => policy == "Always" || policy == "OnFailure" && exit.code != 0,
        }
    }

    /// Containers that are stopped before a sidecar of that name is.
    pub(super) fn started_after(&self, name: &str) -> BTreeSet<String> {
        let after = self.containers.iter().skip_while(|container| container.spec.name != name).skip(1);
        after.map(|container| container.spec.name.clone()).collect()
    }

    pub(super) fn grace(&self) -> Duration {
        let seconds = spec(&self.pod).termination_grace_period_seconds.unwrap_or(30);
        Duration::from_secs(seconds.unsigned_abs())
    }

    /// Changes a container's state, and has it reported.
    pub(super) fn note(&self, container: &Tended, change: impl FnOnce(&mut State)) {
        let mut before = None;
        let has_changed = container.state.send_if_modified(|state| {
            let old = before.insert(state.clone());
            change(state);
            old != state
        });
        if !has_changed {
            return;
        }
        let now = container.state.borrow().clone();
        if before.is_some_and(|before| before.phase != now.phase) {
            self.tell(&format!("{}: {:?}", container.spec.name, now.phase));
        }
        self.changes.send_modify(|changes| *changes += 1);
    }

    pub(super) fn tell(&self, text: &str) {
        self.shared.tell(&self.pod, text);
    }
}

/// Keeps the pod's status true, until the API server has no such pod any more.
async fn report(life: Arc<PodLife>) {
    let api = Api::<Pod>::namespaced(life.shared.client(), &life.namespace());
    let mut changes = life.changes.subscribe();
    let mut conditions = Conditions::default();
    let mut last = None;
    loop {
        let seen = *changes.borrow_and_update();
        let now = patch(&life.pod, &life.facts, &life.containers, &mut conditions, timestamp());
        if last.as_ref() != Some(&now) {
            let done = api.patch_status(&life.name(), &PatchParams::default(), &Patch::Strategic(&now)).await;
            match done {
                Ok(_) => last = Some(now),
                Err(error) if is_gone(&error) => last = Some(now),
                Err(error) => {
                    life.tell(&format!("its status cannot be told: {error}"));
                    sleep(AGAIN).await;
                    continue;
                }
            }
        }
        life.reported.send_replace(seen);
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Whether there is no such pod, or another one of its name.
fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409))
}

fn spec(pod: &Pod) -> &PodSpec {
    pod.spec.as_ref().expect("the API server takes no pod without a specification")
}
