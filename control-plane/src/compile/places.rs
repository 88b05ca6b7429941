//! Where the ports of a service lead: addresses, and the workloads behind them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::envoy::{self, Health};
use super::selection::Selection;
use super::workload_name;
use crate::document::{
    Backends, DiscoveredEndpoint, EndpointGroup, Locality, Manifest, ServicePort, ServiceSpec, WorkloadSpec,
    WorkloadState,
};

/// One address a service port leads to.
pub(super) struct Place<'d> {
    pub(super) address: SocketAddr,
    pub(super) state: WorkloadState,
    /// The position of the workload behind it; `None` outside the mesh.
    pub(super) workload: Option<usize>,
    /// What the workload knows the port as.
    pub(super) target_port: u16,
    /// The pod's name, where it is one.
    pub(super) pod: Option<&'d str>,
    pub(super) locality: Option<Locality>,
}

impl Place<'_> {
    pub(super) fn endpoint(&self, selection: &Selection<'_>) -> envoy::Endpoint {
        envoy::Endpoint {
            address: self.address,
            health: match self.state {
                WorkloadState::Ready => Health::Healthy,
                WorkloadState::Draining => Health::Draining,
                WorkloadState::Unhealthy => Health::Unhealthy,
            },
            workload: self.workload.map(|position| workload_name(selection.workloads[position])),
            meshed: self.workload.is_some(),
            locality: self.locality.clone(),
        }
    }
}

/// Where a port of a service leads; `selected` are the positions of its workloads.
pub(super) fn places<'d>(
    service: &'d Manifest<ServiceSpec>,
    port: &ServicePort,
    selected: &[usize],
    selection: &Selection<'d>,
) -> Vec<Place<'d>> {
    match &service.spec.backends {
        Backends::Selector(_) => {
            let place = |position: &usize| of_workload(*position, selection.workloads[*position], port.target_port);
            selected.iter().map(place).collect()
        }
        Backends::Endpoints(endpoints) => endpoints
            .iter()
            .map(|endpoint| Place {
                address: SocketAddr::new(endpoint.address, endpoint.port.unwrap_or(port.target_port)),
                state: WorkloadState::Ready,
                workload: None,
                target_port: port.target_port,
                pod: None,
                locality: None,
            })
            .collect(),
        Backends::Discovered(discovered) => {
            let of_group = |group: &'d EndpointGroup| {
                let target_port = group.target_port(port.port);
                let place = move |target| {
                    group.endpoints.iter().filter_map(move |endpoint| of_endpoint(endpoint, target, selection))
                };
                target_port.into_iter().flat_map(place)
            };
            discovered.groups.iter().flat_map(of_group).collect()
        }
    }
}

/// Where peers reach a target port of a workload.
fn of_workload(position: usize, workload: &Manifest<WorkloadSpec>, port: u16) -> Place<'_> {
    let spec = &workload.spec;
    let advertised = spec.advertise.iter().find(|advertised| advertised.port == port).map(|advertised| advertised.at);
    // A valid workload has an address; one that was made wrong gets no traffic rather than a panic.
    let own = spec.addresses.first().copied().unwrap_or(IpAddr::from([127, 0, 0, 1]));
    Place {
        address: advertised.unwrap_or(SocketAddr::new(own, port)),
        state: spec.state,
        workload: Some(position),
        target_port: port,
        pod: Some(&workload.metadata.name),
        locality: Locality::of_labels(&workload.metadata.labels),
    }
}

/// An endpoint whose workload no document speaks of is left out: what may be of the mesh never gets plaintext.
fn of_endpoint<'d>(endpoint: &'d DiscoveredEndpoint, port: u16, selection: &Selection<'d>) -> Option<Place<'d>> {
    let workload = match &endpoint.workload {
        Some(name) => Some(selection.workload(name)?),
        None => None,
    };
    Some(Place {
        address: SocketAddr::new(endpoint.address, port),
        state: endpoint.state,
        workload,
        target_port: port,
        pod: endpoint.pod.as_deref(),
        locality: endpoint.locality.clone(),
    })
}

/// The endpoints of a service without address, each with all addresses it has: by pod, else by address.
pub(super) fn by_pod<'d>(places: Vec<Place<'d>>) -> BTreeMap<String, Vec<Place<'d>>> {
    let mut pods: BTreeMap<String, Vec<Place<'d>>> = BTreeMap::new();
    for place in places {
        // Colons and dots would read as something else in the name of a cluster.
        let of_address = || place.address.ip().to_string().replace([':', '.'], "-");
        let name = place.pod.map_or_else(of_address, str::to_owned);
        pods.entry(name).or_default().push(place);
    }
    pods
}
