//! What is kept of the cluster's objects: the few fields documents are made of. A pod of the API server takes some ten
//! kilobytes, what is kept of it some hundred bytes.
//!
//! `None` where an object, as it is now, is nothing to the mesh: it is then as if it were not there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodSpec, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::document::Protocol;
use crate::kubernetes::names::{EXCLUDE_INBOUND_PORTS, HEALTH_PORT, INJECT_LABEL, PROTOCOLS, PROXY_CONTAINER};

/// The label that says whose endpoints a slice has.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The annotation of a pod that mirrors a file of its kubelet.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";

/// An object's namespace and name; the namespace of an object of the whole cluster is empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// A Service that has endpoints of its own: not an alias for a name (`ExternalName`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFacts {
    /// Of its clients: none while it is headless, or none are assigned.
    pub addresses: Vec<IpAddr>,
    pub headless: bool,
    pub publishes_not_ready: bool,
    /// Those of TCP.
    pub ports: Vec<PortFacts>,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortFacts {
    /// Empty for a port without a name.
    pub name: String,
    pub port: u16,
    /// Where that is a number.
    pub target: Option<u16>,
    pub protocol: Protocol,
}

/// An `EndpointSlice` of addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceFacts {
    /// The Service's name, in the slice's namespace.
    pub service: String,
    /// Those of TCP: name, and number unless any is meant.
    pub ports: Vec<(String, Option<u16>)>,
    pub endpoints: Vec<EndpointFacts>,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointFacts {
    pub address: IpAddr,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub pod: Option<ObjectName>,
    /// The node it is on, by name.
    pub node: Option<ObjectName>,
    /// As the slice itself says.
    pub zone: Option<String>,
}

/// A pod that has not come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    pub addresses: Vec<IpAddr>,
    pub terminating: bool,
    /// The node it runs on.
    pub node: Option<ObjectName>,
    pub proxy: Proxy,
}

/// Whether a pod has a proxy beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proxy {
    Present(MeshFacts),
    Absent(Box<BareFacts>),
}

/// A pod without a proxy: what tells whether it should have one. Boxed, as most pods of most clusters have one or need none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BareFacts {
    pub uid: String,
    /// Value of the label [`INJECT_LABEL`].
    pub label: Option<String>,
    pub host_network: bool,
    /// It mirrors one of the kubelet's own files.
    pub is_mirror: bool,
    /// Kind and name of what made it.
    pub owner: Option<(String, String)>,
}

/// A pod with a proxy beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshFacts {
    pub labels: BTreeMap<String, String>,
    pub service_account: String,
    pub ready: bool,
    /// Ports whose incoming connections go past the proxy.
    pub excluded_ports: BTreeSet<u16>,
}

impl ObjectName {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    pub fn of(metadata: &ObjectMeta) -> Self {
        Self::new(metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl ServiceFacts {
    pub fn of(service: &Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            return None;
        }
        let declared = declared_protocols(service);
        let ports = spec.ports.iter().flatten().filter_map(|port| PortFacts::of(port, &declared)).collect();
        // Servers from before dual stack know the first address alone.
        let given = spec.cluster_ips.as_deref().filter(|addresses| !addresses.is_empty());
        let given = given.unwrap_or(spec.cluster_ip.as_slice());
        Some(Self {
            addresses: given.iter().filter_map(|address| address.parse().ok()).collect(),
            headless: given.first().is_some_and(|address| address == "None"),
            publishes_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
            ports,
        })
    }
}

impl PortFacts {
    /// `declared` are the protocols the service's annotation says.
    fn of(port: &ServicePort, declared: &BTreeMap<u16, Protocol>) -> Option<Self> {
        let number = u16::try_from(port.port).ok()?;
        let name = port.name.clone().unwrap_or_default();
        if !is_tcp(port.protocol.as_deref()) {
            return None;
        }
        let target = match &port.target_port {
            Some(IntOrString::Int(target)) => u16::try_from(*target).ok(),
            Some(IntOrString::String(_)) => None,
            None => Some(number),
        };
        let by_app_protocol = port.app_protocol.as_deref().and_then(Protocol::of_app_protocol);
        let protocol = by_app_protocol
            .or_else(|| Protocol::of_port_name(&name))
            .or_else(|| declared.get(&number).copied())
            .unwrap_or_default();
        Some(Self { name, port: number, target, protocol })
    }
}

/// What the annotation says of ports: `8080=grpc,9000=tcp`. What cannot be read is passed over, and said.
fn declared_protocols(service: &Service) -> BTreeMap<u16, Protocol> {
    let annotations = service.metadata.annotations.as_ref();
    let Some(text) = annotations.and_then(|annotations| annotations.get(PROTOCOLS)) else { return BTreeMap::new() };
    let entry = |entry: &str| {
        let (port, protocol) = entry.split_once('=')?;
        let protocol = Protocol::parse(protocol.trim())?;
        Some((port.trim().parse::<u16>().ok()?, protocol))
    };
    let mut declared = BTreeMap::new();
    for text in text.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        if let Some((port, protocol)) = entry(text) {
            declared.insert(port, protocol);
        } else {
            tracing::warn!(
                service = %ObjectName::of(&service.metadata),
                entry = text,
                "the annotation {PROTOCOLS} has an entry that is not PORT=PROTOCOL, such as 8080=grpc; it has no effect"
            );
        }
    }
    declared
}

impl SliceFacts {
    pub fn of(slice: &EndpointSlice) -> Option<Self> {
        let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?.clone();
        let name = ObjectName::of(&slice.metadata);
        let ports = slice.ports.iter().flatten().filter(|port| is_tcp(port.protocol.as_deref()));
        let ports = ports.map(|port| {
            let number = port.port.and_then(|number| u16::try_from(number).ok());
            (port.name.clone().unwrap_or_default(), number)
        });
        let endpoints = slice.endpoints.iter().filter_map(|endpoint| EndpointFacts::of(endpoint, &name.namespace));
        // Names instead of addresses (`addressType: FQDN`) leave no endpoint.
        Some(Self { service, ports: ports.collect(), endpoints: endpoints.collect() })
    }
}

impl EndpointFacts {
    fn of(endpoint: &Endpoint, namespace: &str) -> Option<Self> {
        // The others are the same endpoint again.
        let address = endpoint.addresses.first()?.parse().ok()?;
        let conditions = endpoint.conditions.as_ref();
        // Whoever writes slices may leave conditions out: unknown is ready, and ready is serving.
        let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
        let pod = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
        let pod = pod
            .and_then(|pod| Some(ObjectName::new(pod.namespace.as_deref().unwrap_or(namespace), pod.name.as_deref()?)));
        Some(Self {
            address,
            ready,
            serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(ready),
            terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or_default(),
            pod,
            node: endpoint.node_name.as_deref().map(|node| ObjectName::new("", node)),
            zone: endpoint.zone.clone().filter(|zone| !zone.is_empty()),
        })
    }
}

impl PodFacts {
    pub fn of(pod: &Pod) -> Option<Self> {
        let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            return None;
        }
        let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
        let mut addresses: Vec<IpAddr> = all.filter_map(|address| address.parse().ok()).collect();
        if addresses.is_empty() {
            addresses.extend(status.pod_ip.as_ref().and_then(|address| address.parse::<IpAddr>().ok()));
        }
        let terminating = pod.metadata.deletion_timestamp.is_some();
        let conditions = status.conditions.iter().flatten();
        let ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let proxy = if has_proxy(spec) {
            Proxy::Present(MeshFacts {
                labels: pod.metadata.labels.clone().unwrap_or_default(),
                service_account: account(spec).to_owned(),
                ready,
                excluded_ports: excluded_ports(&pod.metadata),
            })
        } else {
            Proxy::Absent(Box::new(BareFacts::of(&pod.metadata, spec)))
        };
        let node = spec.node_name.as_deref().filter(|node| !node.is_empty()).map(|node| ObjectName::new("", node));
        Some(Self { addresses, terminating, node, proxy })
    }

    /// What is known of its proxy; `None` without one.
    pub fn mesh(&self) -> Option<&MeshFacts> {
        match &self.proxy {
            Proxy::Present(mesh) => Some(mesh),
            Proxy::Absent(_) => None,
        }
    }
}

impl BareFacts {
    fn of(metadata: &ObjectMeta, spec: &PodSpec) -> Self {
        let has = |annotation| metadata.annotations.as_ref().is_some_and(|all| all.contains_key(annotation));
        let mut owners = metadata.owner_references.iter().flatten();
        let owner = owners.find(|owner| owner.controller == Some(true));
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            label: metadata.labels.as_ref().and_then(|labels| labels.get(INJECT_LABEL)).cloned(),
            host_network: spec.host_network.unwrap_or_default(),
            is_mirror: has(MIRROR),
            owner: owner.map(|owner| (owner.kind.clone(), owner.name.clone())),
        }
    }
}

/// A pod in its node's network shares that with everything else there: nothing of it can be captured.
fn has_proxy(spec: &PodSpec) -> bool {
    let mut containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    !spec.host_network.unwrap_or_default() && containers.any(|container| container.name == PROXY_CONTAINER)
}

fn account(spec: &PodSpec) -> &str {
    let given = spec.service_account_name.as_deref().or(spec.service_account.as_deref());
    given.filter(|account| !account.is_empty()).unwrap_or("default")
}

fn excluded_ports(metadata: &ObjectMeta) -> BTreeSet<u16> {
    let annotation = metadata.annotations.as_ref().and_then(|annotations| annotations.get(EXCLUDE_INBOUND_PORTS));
    let listed = annotation.into_iter().flat_map(|text| text.split(',')).filter_map(|port| port.trim().parse().ok());
    listed.chain([HEALTH_PORT]).collect()
}

fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}
