//! The owner's end of a workload's task.

use std::sync::Arc;

use tokio::sync::watch;

use super::super::UpError;
use super::super::file::ServiceSpec;
use super::super::place::Place;
use super::super::shared::Shared;
use super::super::view::{Phase, WorkloadView};
use super::{Pod, Wish};

/// Starts a workload: makes its place and the task that owns it.
pub(in super::super) fn start(shared: &Arc<Shared>, service: &ServiceSpec, index: u32) -> Result<Handle, UpError> {
    let name = service.workload(index);
    let failed = |reason: String| UpError::Workload { name: service.workload(index), reason };
    let place = Place::choose(shared, service, index).map_err(|error| failed(format!("finding a port: {error}")))?;
    let directory = shared.data.pod(&name, shared.proxy_owner())?;
    let (wish, wished) = watch::channel(Wish::Stay);
    let (view, viewed) = watch::channel(WorkloadView {
        service: service.name.clone(),
        name: name.clone(),
        addresses: place.addresses(),
        admin_socket: directory.admin_socket(),
        log: shared.data.log(&name),
        pid: None,
        starts: 0,
        phase: Phase::Starting,
    });
    let pod = Pod {
        shared: Arc::clone(shared),
        service: service.clone(),
        index,
        name,
        place,
        directory,
        wish: wished,
        view,
        known: shared.known.subscribe(),
    };
    let task = tokio::spawn(pod.run());
    Ok(Handle { index, wish, view: viewed, task })
}

/// The owner's end of a workload; dropping it kills the workload.
#[derive(Debug)]
pub(in super::super) struct Handle {
    pub(in super::super) index: u32,
    pub(in super::super) wish: watch::Sender<Wish>,
    pub(in super::super) view: watch::Receiver<WorkloadView>,
    task: tokio::task::JoinHandle<()>,
}

impl Handle {
    /// Waits until the task has ended.
    pub(in super::super) async fn ended(&mut self) {
        // A task that panicked has dropped, and so killed, its pod.
        (&mut self.task).await.ok();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}
