//! The workloads of a mesh, and how their number changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::file::ServiceSpec;
use super::shared::Shared;
use super::supervise::{self, Handle, Wish};
use super::view::{Phase, WorkloadView};
use super::{UpError, check};

/// How long workloads may take until the mesh is called running all the same.
const PODS_START: Duration = Duration::from_mins(1);

/// What the mesh's owner shares with its control socket.
#[derive(Debug)]
pub(super) struct Workloads {
    pub(super) shared: Arc<Shared>,
    pods: Mutex<Vec<Handle>>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
}

impl Workloads {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, pods: Mutex::default(), changing: tokio::sync::Mutex::default() }
    }

    /// Ends all, those that only call others first.
    pub(super) async fn end(&self) {
        let _changing = self.changing.lock().await;
        let (callers, servers): (Vec<Handle>, Vec<Handle>) = std::mem::take(&mut *self.pods())
            .into_iter()
            .partition(|pod| self.service_of(pod).is_some_and(|service| service.port.is_none()));
        for group in [callers, servers] {
            // Everybody leaves: nobody is left to take notice.
            leave(group, false).await;
        }
    }

    pub(super) fn pods(&self) -> MutexGuard<'_, Vec<Handle>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn service_of(&self, pod: &Handle) -> Option<&ServiceSpec> {
        self.shared.mesh.service(&pod.view.borrow().service)
    }

    pub(super) async fn scale(&self, name: &str, replicas: u32) -> Result<(), UpError> {
        let mesh = &self.shared.mesh;
        let Some(service) = mesh.service(name) else {
            let names: Vec<&str> = mesh.services.iter().map(|service| service.name.as_str()).collect();
            return Err(UpError::NoSuchService { found: name.to_owned(), allowed: names.join(", ") });
        };
        let most = check::most_replicas(service, &self.shared.mode);
        if replicas > most {
            let why = if most == 1 { check::NEEDS_PORT } else { "" };
            return Err(UpError::TooMany { service: name.to_owned(), found: replicas, most, why });
        }
        let _changing = self.changing.lock().await;
        let surplus = {
            let mut pods = self.pods();
            let (surplus, rest) =
                std::mem::take(&mut *pods).into_iter().partition(|pod| pod.is_of(name) && pod.index >= replicas);
            *pods = rest;
            surplus
        };
        leave(surplus, true).await;
        self.grow(service, replicas)?;
        self.settle(|pod| pod.is_of(name)).await
    }

    /// Starts the replicas that are missing.
    pub(super) fn grow(&self, service: &ServiceSpec, replicas: u32) -> Result<(), UpError> {
        for index in 0..replicas {
            let exists = |pod: &Handle| pod.is_of(&service.name) && pod.index == index;
            if !self.pods().iter().any(exists) {
                let pod = supervise::start(&self.shared, service, index)?;
                self.pods().push(pod);
            }
        }
        self.pods().sort_by_cached_key(|pod| {
            let services = &self.shared.mesh.services;
            (services.iter().position(|service| pod.is_of(&service.name)), pod.index)
        });
        Ok(())
    }

    /// Waits until the chosen workloads are ready or have been tried. Those that cannot start at all are forgotten.
    pub(super) async fn settle(&self, chosen: impl Fn(&Handle) -> bool) -> Result<(), UpError> {
        let views: Vec<watch::Receiver<WorkloadView>> =
            self.pods().iter().filter(|pod| chosen(pod)).map(|pod| pod.view.clone()).collect();
        let deadline = sleep(PODS_START);
        tokio::pin!(deadline);
        let mut failure = None;
        for mut view in views {
            let settled = view.wait_for(|view| view.phase != Phase::Starting);
            let late = tokio::select! {
                _ = settled => false,
                () = &mut deadline => true,
            };
            let view = view.borrow().clone();
            match view.phase {
                Phase::Failed { reason } => failure = failure.or(Some(UpError::Workload { name: view.name, reason })),
                Phase::Starting if late => {
                    self.shared.say(&format!(
                        "{} is not ready after {PODS_START:?}; see {}",
                        view.name,
                        view.log.display()
                    ));
                }
                _ => {}
            }
            if failure.is_some() {
                break;
            }
        }
        self.pods().retain(|pod| !matches!(pod.view.borrow().phase, Phase::Failed { .. }));
        failure.map_or(Ok(()), Err)
    }
}

impl Handle {
    fn is_of(&self, service: &str) -> bool {
        self.view.borrow().service == service
    }
}

async fn leave(pods: Vec<Handle>, noticed: bool) {
    for pod in &pods {
        pod.wish.send_replace(Wish::Leave { noticed });
    }
    for mut pod in pods {
        pod.ended().await;
    }
}
