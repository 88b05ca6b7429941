//! Endpoints of a service as a cluster's own discovery says them, port by port.
//!
//! Files cannot hold this: it is made from EndpointSlices, and stored and shown like everything else.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::WorkloadState;

/// Where a service's traffic goes, said endpoint by endpoint rather than by labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Discovered {
    /// The service has no address of its own: clients learn those of its endpoints, and reach each as itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub headless: bool,
    /// Of different ports. An endpoint may be in several, each time for other ports.
    pub groups: Vec<EndpointGroup>,
}

/// Endpoints that have the same ports under the same numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointGroup {
    /// By service port; a port of the service that is not in here is not served by these endpoints.
    pub ports: Vec<PortMapping>,
    /// By address; none twice.
    pub endpoints: Vec<DiscoveredEndpoint>,
}

/// Under which number endpoints serve a port of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PortMapping {
    pub port: u16,
    pub target_port: u16,
}

/// One address of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscoveredEndpoint {
    pub address: IpAddr,
    #[serde(default)]
    pub state: WorkloadState,
    /// The pod's name, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// `NAMESPACE/NAME` of the Workload behind it; without one it is outside the mesh, and reached in plaintext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Where its node is, if the node says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
}

/// Where something runs, as the labels of its node say; empty where they do not.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locality {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub region: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
}

/// The label of nodes that says their region; of workloads, that of the node they run on.
pub const REGION_LABEL: &str = "topology.kubernetes.io/region";
/// The same for the zone.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

impl Locality {
    /// What labels say; `None`: nothing.
    pub fn of_labels(labels: &BTreeMap<String, String>) -> Option<Self> {
        let label = |name| labels.get(name).cloned().unwrap_or_default();
        let locality = Self { region: label(REGION_LABEL), zone: label(ZONE_LABEL) };
        (locality != Self::default()).then_some(locality)
    }
}

impl EndpointGroup {
    /// The number under which a port of the service is served.
    pub fn target_port(&self, port: u16) -> Option<u16> {
        self.ports.iter().find(|mapping| mapping.port == port).map(|mapping| mapping.target_port)
    }
}

impl Discovered {
    /// All endpoints of all groups; those of several groups several times.
    pub fn endpoints(&self) -> impl Iterator<Item = &DiscoveredEndpoint> {
        self.groups.iter().flat_map(|group| &group.endpoints)
    }
}
