//! All workloads of a mesh together: start, scale, stop.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::data::DataDirectory;
use super::file::{MeshFile, Mtls, ServiceSpec};
use super::network::{FABRIC, Fabric};
use super::plane::{NAMESPACE, Plane, document, process};
use super::shared::Shared;
use super::spawner::Spawner;
use super::taken::Taken;
use super::view::WorkloadView;
use super::workloads::Workloads;
use super::{Options, UpError, check, control};

/// How often new services are looked for, for the names in the pods.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// A running mesh. Dropping it kills everything in it; [`Mesh::stop`] ends it in order.
#[derive(Debug)]
pub struct Mesh {
    workloads: Arc<Workloads>,
    stop_plane: Option<oneshot::Sender<()>>,
    plane: JoinHandle<()>,
    background: JoinSet<()>,
}

/// Starts a mesh and waits until its workloads are ready, or have at least been tried.
///
/// # Errors
/// When something cannot start; nothing is left running then.
pub async fn start(mesh: MeshFile, options: Options) -> Result<Mesh, UpError> {
    check::machine(&mesh, &options.mode)?;
    let data = DataDirectory::open(options.data.as_deref(), &options.mode, mesh.longest_workload_name())?;
    let machine = |doing: &'static str| {
        move |error: &dyn std::fmt::Display| UpError::Machine { doing, reason: error.to_string() }
    };
    let spawner = Spawner::start().map_err(|error| machine("starting a thread")(&error))?;
    let taken = Taken::default();
    let (fabric, control_plane) = if options.mode.has_namespaces() {
        let fabric = Fabric::create().await.map_err(|error| machine("making the mesh's network")(&error))?;
        (Some(fabric), SocketAddr::from((FABRIC, weft_proto::names::CONTROL_PLANE_PORT)))
    } else {
        (None, taken.loopback_address().map_err(|error| machine("finding a port")(&error))?)
    };
    let shared = Arc::new(Shared {
        plane: Plane::connect(data.api_socket()),
        mesh,
        mode: options.mode,
        quiet: options.quiet,
        executable: options.executable,
        sidecar: options.sidecar,
        control_plane,
        fabric,
        taken,
        known: watch::Sender::new(Arc::default()),
        spawner,
        data,
    });
    let (stop_plane, stopped) = oneshot::channel();
    let first = process::start(&shared, &options.control_plane).await?;
    let plane = tokio::spawn(process::keep(Arc::clone(&shared), options.control_plane, first, stopped));
    let workloads = Arc::new(Workloads::new(shared));
    // From here on a failure, or losing interest, ends what runs already.
    let mut mesh = Mesh { workloads, stop_plane: Some(stop_plane), plane, background: JoinSet::new() };
    match mesh.fill().await {
        Ok(()) => Ok(mesh),
        Err(error) => {
            mesh.stop().await;
            Err(error)
        }
    }
}

impl Mesh {
    /// Writes the documents, starts the workloads and waits for them.
    async fn fill(&mut self) -> Result<(), UpError> {
        let workloads = &self.workloads;
        apply_mesh(&workloads.shared).await?;
        let listener = control::listen(&workloads.shared.data.control_socket())
            .map_err(|error| UpError::Machine { doing: "opening the control socket", reason: error.to_string() })?;
        self.background.spawn(look_around(Arc::clone(&workloads.shared)));
        self.background.spawn(control::serve(listener, Arc::clone(workloads)));
        // Those that only call come last: what they say first should not be that nobody is there.
        for calls_only in [false, true] {
            for service in workloads.shared.mesh.services.iter().filter(|service| service.port.is_none() == calls_only)
            {
                workloads.grow(service, service.replicas)?;
            }
            workloads.settle(|_| true).await?;
        }
        Ok(())
    }

    /// All workloads as they are now.
    pub fn workloads(&self) -> Vec<WorkloadView> {
        self.workloads.pods().iter().map(|pod| pod.view.borrow().clone()).collect()
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        self.workloads.shared.data.path()
    }

    /// Whether the data directory goes away with the mesh.
    pub fn is_temporary(&self) -> bool {
        self.workloads.shared.data.is_temporary()
    }

    /// Changes how many replicas a service has; returns when they are ready, or gone.
    pub async fn scale(&self, service: &str, replicas: u32) -> Result<(), UpError> {
        self.workloads.scale(service, replicas).await
    }

    /// Ends the mesh in order: those that only call others first, then the rest, then the control plane.
    pub async fn stop(mut self) {
        self.workloads.end().await;
        if let Some(stop) = self.stop_plane.take() {
            stop.send(()).ok();
        }
        timeout(process::GRACE * 2, &mut self.plane).await.ok();
        self.background.shutdown().await;
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.plane.abort();
        self.workloads.pods().clear();
    }
}

/// Writes the mesh's documents and removes what an earlier run left in a kept data directory.
async fn apply_mesh(shared: &Shared) -> Result<(), UpError> {
    let mesh = &shared.mesh;
    let recorded = shared.data.recorded_services();
    let present = |service: &&ServiceSpec| service.port.is_some();
    shared.data.record_services(mesh.services.iter().map(|service| service.name.as_str()))?;
    if !recorded.is_empty() {
        let of_replica =
            |name: &str| name.rsplit_once('-').is_some_and(|(stem, _)| recorded.iter().any(|known| known == stem));
        let wanted = |name: &str| mesh.services.iter().filter(present).any(|service| service.name == name);
        let mut workloads = shared.plane.names("Workload").await?;
        workloads.retain(|name| of_replica(name));
        shared.plane.delete("Workload", &workloads).await?;
        let mut services = shared.plane.names("Service").await?;
        services.retain(|name| !wanted(name) && (recorded.contains(name) || workloads.contains(name)));
        shared.plane.delete("Service", &services).await?;
    }
    let mut documents: Vec<String> = mesh.services.iter().filter_map(service_document).collect();
    if let Some(mtls) = mesh.mtls {
        let mode = if mtls == Mtls::Strict { "strict" } else { "permissive" };
        documents.push(document("Mesh", &json!({"name": "default"}), &json!({"mtls": mode})));
    }
    if !documents.is_empty() {
        shared.plane.apply(&mesh.path.display().to_string(), &documents).await?;
    }
    shared.known.send_replace(Arc::new(shared.plane.services().await?));
    Ok(())
}

fn service_document(service: &ServiceSpec) -> Option<String> {
    let port = service.port?;
    let spec = json!({
        "ports": [{"name": "main", "port": port.port, "targetPort": port.target_port, "protocol": port.protocol.name()}],
        "selector": BTreeMap::from([("app", &service.name)]),
    });
    Some(document("Service", &json!({"name": service.name, "namespace": NAMESPACE}), &spec))
}

/// Keeps the names in the pods in step with the services of the control plane.
async fn look_around(shared: Arc<Shared>) {
    let mut seen = None;
    loop {
        sleep(LOOK_AROUND).await;
        let Ok(status) = shared.plane.status().await else { continue };
        if seen == Some(status.revision) {
            continue;
        }
        if let Ok(services) = shared.plane.services().await {
            seen = Some(status.revision);
            shared.known.send_if_modified(|known| {
                let changed = **known != services;
                if changed {
                    *known = Arc::new(services);
                }
                changed
            });
        }
    }
}
