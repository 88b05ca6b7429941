//! Which workloads each service selects.

use std::collections::{BTreeMap, HashMap};

use crate::document::{
    Backends, Discovered, Document, HttpRouteSpec, Manifest, Metadata, Mtls, ServiceSpec, TlsRouteSpec, WorkloadSpec,
};

/// The documents of a mesh, sorted by name, with the selectors resolved.
pub(super) struct Selection<'d> {
    pub(super) mtls: Mtls,
    /// Each with the indices of the workloads it selects, ascending.
    pub(super) services: Vec<(&'d Manifest<ServiceSpec>, Vec<usize>)>,
    pub(super) workloads: Vec<&'d Manifest<WorkloadSpec>>,
    pub(super) tls_routes: Vec<&'d Manifest<TlsRouteSpec>>,
    pub(super) http_routes: Vec<&'d Manifest<HttpRouteSpec>>,
}

/// Namespace, label and value to the workloads that have it.
type Index<'d> = HashMap<(&'d str, &'d str, &'d str), Vec<usize>>;

impl<'d> Selection<'d> {
    pub(super) fn new(documents: impl IntoIterator<Item = &'d Document>) -> Self {
        let mut mtls = Mtls::default();
        let mut services = Vec::new();
        let mut workloads = Vec::new();
        let mut tls_routes = Vec::new();
        let mut http_routes = Vec::new();
        for document in documents {
            match document {
                Document::Mesh(mesh) => mtls = mesh.spec.mtls,
                Document::Service(service) => services.push(service),
                Document::Workload(workload) => workloads.push(workload),
                Document::TlsRoute(route) => tls_routes.push(route),
                Document::HttpRoute(route) => http_routes.push(route),
            }
        }
        services.sort_unstable_by_key(|service| by_name(&service.metadata));
        workloads.sort_unstable_by_key(|workload| by_name(&workload.metadata));
        tls_routes.sort_unstable_by_key(|route| by_name(&route.metadata));
        http_routes.sort_unstable_by_key(|route| by_name(&route.metadata));
        let mut index = Index::new();
        for (position, workload) in workloads.iter().enumerate() {
            let Metadata { namespace, labels, .. } = &workload.metadata;
            for (label, value) in labels {
                index.entry((namespace, label, value)).or_default().push(position);
            }
        }
        let services = services
            .into_iter()
            .map(|service| {
                let selected = match &service.spec.backends {
                    Backends::Selector(labels) => select(&service.metadata.namespace, labels, &index, &workloads),
                    Backends::Endpoints(_) => Vec::new(),
                    Backends::Discovered(discovered) => discovered_workloads(discovered, &workloads),
                };
                (service, selected)
            })
            .collect();
        Self { mtls, services, workloads, tls_routes, http_routes }
    }

    /// The position of a workload by `NAMESPACE/NAME`.
    pub(super) fn workload(&self, name: &str) -> Option<usize> {
        position(name, &self.workloads)
    }
}

fn position(name: &str, workloads: &[&Manifest<WorkloadSpec>]) -> Option<usize> {
    let name = name.split_once('/')?;
    workloads.binary_search_by_key(&name, |workload| by_name(&workload.metadata)).ok()
}

/// The workloads behind endpoints that discovery found.
fn discovered_workloads(discovered: &Discovered, workloads: &[&Manifest<WorkloadSpec>]) -> Vec<usize> {
    let names = discovered.endpoints().filter_map(|endpoint| endpoint.workload.as_deref());
    let mut found: Vec<usize> = names.filter_map(|name| position(name, workloads)).collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn by_name(metadata: &Metadata) -> (&str, &str) {
    (&metadata.namespace, &metadata.name)
}

/// Starts from the rarest label, so that a label everybody has costs nothing beside one that few have.
fn select(
    namespace: &str,
    labels: &BTreeMap<String, String>,
    index: &Index<'_>,
    workloads: &[&Manifest<WorkloadSpec>],
) -> Vec<usize> {
    let candidates = labels
        .iter()
        .map(|(label, value)| index.get(&(namespace, label.as_str(), value.as_str())).map_or(&[][..], Vec::as_slice))
        .min_by_key(|candidates| candidates.len());
    let has_all = |position: &&usize| {
        let carried = &workloads[**position].metadata.labels;
        labels.iter().all(|(label, value)| carried.get(label) == Some(value))
    };
    candidates.unwrap_or_default().iter().filter(has_all).copied().collect()
}
