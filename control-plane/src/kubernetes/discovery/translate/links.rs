//! Which objects have to do with each other: what a change of one means for the documents of others.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;

use crate::kubernetes::discovery::object::{ObjectName, SliceFacts};
use crate::kubernetes::discovery::objects::{Changed, Objects};

/// The links of the objects as they were when [`Links::follow`] was last called.
#[derive(Debug, Default)]
pub(super) struct Links {
    slices: HashMap<ObjectName, OfSlice>,
    by_service: HashMap<ObjectName, BTreeSet<ObjectName>>,
    /// Slices by the pods they name.
    by_pod: HashMap<ObjectName, BTreeSet<ObjectName>>,
    /// Slices by the addresses they name without a pod.
    by_address: HashMap<IpAddr, BTreeSet<ObjectName>>,
    /// Slices and pods by the nodes they name.
    by_node: HashMap<ObjectName, BTreeSet<ObjectName>>,
    pods_by_node: HashMap<ObjectName, BTreeSet<ObjectName>>,
    nodes_of_pods: HashMap<ObjectName, BTreeSet<ObjectName>>,
    /// Addresses of pods with a proxy.
    meshed: HashMap<ObjectName, BTreeSet<IpAddr>>,
    owners: HashMap<IpAddr, BTreeSet<ObjectName>>,
}

/// What a slice names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OfSlice {
    service: ObjectName,
    pods: BTreeSet<ObjectName>,
    addresses: BTreeSet<IpAddr>,
    nodes: BTreeSet<ObjectName>,
}

/// Objects of which a change may make something else.
#[derive(Debug)]
pub(super) struct Touched {
    pub(super) services: BTreeSet<ObjectName>,
    pub(super) pods: BTreeSet<ObjectName>,
}

impl Links {
    /// Brings the links up to date.
    pub(super) fn follow(&mut self, objects: &Objects, changed: &Changed) -> Touched {
        let mut services = changed.services.clone();
        for name in &changed.slices {
            let after = objects.slices.get(name).map(|facts| OfSlice::of(name, facts));
            services.extend(self.slices.get(name).map(|before| before.service.clone()));
            services.extend(after.as_ref().map(|after| after.service.clone()));
            self.set_slice(name, after);
        }
        let of_nodes = |index: &HashMap<ObjectName, BTreeSet<ObjectName>>| -> BTreeSet<ObjectName> {
            changed.nodes.iter().filter_map(|node| index.get(node)).flatten().cloned().collect()
        };
        let mut pods = of_nodes(&self.pods_by_node);
        pods.extend(changed.pods.iter().cloned());
        let on_nodes = of_nodes(&self.by_node);
        let mut slices: BTreeSet<&ObjectName> = on_nodes.iter().collect();
        let mut addresses = BTreeSet::new();
        for name in &pods {
            let node = objects.pods.get(name).and_then(|pod| pod.node.clone()).into_iter().collect();
            let before = self.nodes_of_pods.remove(name).unwrap_or_default();
            relate(&mut self.pods_by_node, name, &before, &node);
            if !node.is_empty() {
                self.nodes_of_pods.insert(name.clone(), node);
            }
            let pod = objects.pods.get(name).filter(|pod| pod.mesh().is_some());
            let after: BTreeSet<IpAddr> = pod.into_iter().flat_map(|pod| pod.addresses.iter().copied()).collect();
            let before = self.meshed.remove(name).unwrap_or_default();
            relate(&mut self.owners, name, &before, &after);
            addresses.extend(before.union(&after).copied());
            if !after.is_empty() {
                self.meshed.insert(name.clone(), after);
            }
            slices.extend(self.by_pod.get(name).into_iter().flatten());
        }
        slices.extend(addresses.iter().filter_map(|address| self.by_address.get(address)).flatten());
        services.extend(slices.into_iter().filter_map(|name| Some(self.slices.get(name)?.service.clone())));
        Touched { services, pods }
    }

    fn set_slice(&mut self, name: &ObjectName, after: Option<OfSlice>) {
        let before = self.slices.remove(name);
        let service = |slice: &Option<OfSlice>| slice.iter().map(|slice| slice.service.clone()).collect();
        let pods = |slice: &Option<OfSlice>| slice.as_ref().map(|slice| slice.pods.clone()).unwrap_or_default();
        let addresses =
            |slice: &Option<OfSlice>| slice.as_ref().map(|slice| slice.addresses.clone()).unwrap_or_default();
        let nodes = |slice: &Option<OfSlice>| slice.as_ref().map(|slice| slice.nodes.clone()).unwrap_or_default();
        relate(&mut self.by_node, name, &nodes(&before), &nodes(&after));
        relate(&mut self.by_service, name, &service(&before), &service(&after));
        relate(&mut self.by_pod, name, &pods(&before), &pods(&after));
        relate(&mut self.by_address, name, &addresses(&before), &addresses(&after));
        self.slices.extend(after.map(|after| (name.clone(), after)));
    }

    /// The slices of a service, by name.
    pub(super) fn slices_of(&self, service: &ObjectName) -> impl Iterator<Item = &ObjectName> {
        self.by_service.get(service).into_iter().flatten()
    }

    /// The pods with a proxy that have an address, by name.
    pub(super) fn owners(&self, address: IpAddr) -> impl Iterator<Item = &ObjectName> {
        self.owners.get(&address).into_iter().flatten()
    }
}

impl OfSlice {
    fn of(name: &ObjectName, facts: &SliceFacts) -> Self {
        let without_pod = facts.endpoints.iter().filter(|endpoint| endpoint.pod.is_none());
        Self {
            service: ObjectName { namespace: name.namespace.clone(), name: facts.service.as_str().into() },
            pods: facts.endpoints.iter().filter_map(|endpoint| endpoint.pod.clone()).collect(),
            addresses: without_pod.map(|endpoint| endpoint.address).collect(),
            nodes: facts.endpoints.iter().filter_map(|endpoint| endpoint.node.clone()).collect(),
        }
    }
}

/// Makes an index say of `name` what is in `after`, where it said what is in `before`.
fn relate<K: Hash + Ord + Clone>(
    index: &mut HashMap<K, BTreeSet<ObjectName>>,
    name: &ObjectName,
    before: &BTreeSet<K>,
    after: &BTreeSet<K>,
) {
    for gone in before.difference(after) {
        if let Some(names) = index.get_mut(gone) {
            names.remove(name);
            if names.is_empty() {
                index.remove(gone);
            }
        }
    }
    for come in after.difference(before) {
        index.entry(come.clone()).or_default().insert(name.clone());
    }
}
