//! Services and their endpoints as the API server last told them: what names and rules of the network are made of.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::watching;

/// Of a slice: the Service it belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Both, watched.
#[derive(Debug, Clone)]
pub struct Backends {
    services: Store<Service>,
    slices: Store<EndpointSlice>,
    /// Marked at every change.
    pub changed: watch::Receiver<()>,
}

impl Backends {
    /// Watches on `runtime` for as long as that lives.
    pub fn watch(runtime: &Handle, client: &Client) -> Self {
        let (mark, changed) = watch::channel(());
        let mark = Arc::new(mark);
        let services = reflect(runtime, Api::all(client.clone()), Arc::clone(&mark));
        let slices = reflect(runtime, Api::all(client.clone()), mark);
        Self { services, slices, changed }
    }

    pub fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.find(|found| found.name_any() == name && found.namespace().as_deref() == Some(namespace))
    }

    /// What an address of a Service's port is turned to: for each that has one, where its endpoints are. Those that are
    /// ready count; if there are none, those that still serve although they are to end.
    pub fn turns(&self) -> Vec<Turn> {
        let mut turns = Vec::new();
        for service in self.services.state() {
            let Some(address) = cluster_ip(&service) else { continue };
            for port in service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()) {
                let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
                let to = self.endpoints(&service, port);
                turns.push(Turn { address, protocol, port: port.port, to: to.into_iter().collect() });
            }
        }
        turns.sort();
        turns
    }

    fn endpoints(&self, service: &Service, port: &ServicePort) -> BTreeSet<(Ipv4Addr, i32)> {
        let (mut ready, mut serving) = (BTreeSet::new(), BTreeSet::new());
        for slice in self.slices(&service.namespace().unwrap_or_default(), &service.name_any()) {
            let named = |name: Option<&String>| name.cloned().unwrap_or_default();
            let mut ports = slice.ports.iter().flatten();
            let number = ports.find(|found| named(found.name.as_ref()) == named(port.name.as_ref()));
            let Some(number) = number.and_then(|found| found.port) else { continue };
            for endpoint in &slice.endpoints {
                let addresses = addresses(endpoint).map(|address| (address, number));
                if is_ready(endpoint) {
                    ready.extend(addresses);
                } else if endpoint.conditions.as_ref().is_some_and(|conditions| conditions.serving == Some(true)) {
                    serving.extend(addresses);
                }
            }
        }
        if ready.is_empty() { serving } else { ready }
    }

    /// Addresses behind a Service, all or those of the endpoint with this host name.
    pub fn addresses(&self, namespace: &str, service: &str, host: Option<&str>) -> BTreeSet<Ipv4Addr> {
        let slices = self.slices(namespace, service);
        let endpoints = slices.iter().flat_map(|slice| &slice.endpoints).filter(|endpoint| is_ready(endpoint));
        endpoints
            .filter(|endpoint| host.is_none() || endpoint.hostname.as_deref() == host)
            .flat_map(addresses)
            .collect()
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        self.slices.state_filter(|slice| {
            slice.namespace().as_deref() == Some(namespace)
                && slice.address_type == "IPv4"
                && slice.labels().get(SERVICE_NAME).is_some_and(|name| name == service)
        })
    }
}

/// A port of a Service and where connections to it go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    pub address: Ipv4Addr,
    pub protocol: String,
    pub port: i32,
    pub to: Vec<(Ipv4Addr, i32)>,
}

/// The address of a Service that has one.
pub fn cluster_ip(service: &Service) -> Option<Ipv4Addr> {
    service.spec.as_ref()?.cluster_ip.as_ref()?.parse().ok()
}

fn is_ready(endpoint: &Endpoint) -> bool {
    // Absent means yes, says the API.
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

fn addresses(endpoint: &Endpoint) -> impl Iterator<Item = Ipv4Addr> + '_ {
    endpoint.addresses.iter().filter_map(|address| address.parse().ok())
}

/// Keeps a store of what an API has, and marks each change.
fn reflect<K>(runtime: &Handle, api: Api<K>, mark: Arc<watch::Sender<()>>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let stream = reflector::reflector(writer, watcher(api, watching()).default_backoff());
    runtime.spawn(follow(stream, mark));
    store
}

async fn follow<T>(stream: impl Stream<Item = T> + Send, mark: Arc<watch::Sender<()>>) {
    let mut stream = std::pin::pin!(stream);
    // Errors are what the watcher tries again after.
    while stream.next().await.is_some() {
        mark.send_replace(());
    }
}
