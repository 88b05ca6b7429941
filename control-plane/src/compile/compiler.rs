//! A compiler that keeps what it made, and after a change makes only what that touches.
//!
//! From the documents that differ it finds, by their [`Links`], those of which something else may have to be made, and hands
//! them, with all that these refer to, to the same function that makes everything the first time. What comes out is held
//! against what was kept: what is the same goes to nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::destinations::Destinations;
use super::kept::{OfService, OfWorkload};
use super::links::{Documents, Links, Point};
use super::peers::Peers;
use super::{Made, ParentStatus, Warning, make};
use crate::document::{Document, Key, Kind, Retries, ServicePort, ServiceSpec, Timeouts};
use crate::store::Snapshot;
use crate::verdicts::{self, Seen};
use crate::world::{Change, Own, WorkloadKey};

/// Where one document of so many differs, making everything costs less than finding out what need not be made.
const MOST_OF: usize = 4;

/// Resources made, by all compilations.
const MADE: &str = "weft_compiled_resources_total";

/// A compiler and what it made last.
#[derive(Debug, Default)]
pub struct Compiler {
    trust_domain: String,
    snapshot: Arc<Snapshot>,
    seen: Arc<Seen>,
    is_first: bool,
    links: Links,
    services: BTreeMap<Key, OfService>,
    workloads: BTreeMap<Key, OfWorkload>,
    peers: Peers,
    destinations: Destinations,
    findings: Findings,
}

/// What there is to be said of documents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Of the documents that were compiled.
    pub revision: u64,
    /// What became of each HTTPRoute, parent by parent.
    pub routes: BTreeMap<Key, Vec<ParentStatus>>,
    pub warnings: BTreeMap<Key, Vec<Warning>>,
}

/// What a compilation changed.
#[derive(Debug, Default)]
pub struct Outcome {
    pub change: Change,
    pub verdicts: verdicts::Change,
    /// How many resources were made to find that out.
    pub made: usize,
}

/// Documents of which something else may have to be made.
#[derive(Debug, Default)]
struct Touched {
    services: BTreeSet<Key>,
    workloads: BTreeSet<Key>,
    routes: BTreeSet<Key>,
}

impl Compiler {
    pub fn new(trust_domain: &str) -> Self {
        metrics::describe_counter!(MADE, "Resources made, to be sent or found to be what they were");
        Self { trust_domain: trust_domain.to_owned(), is_first: true, ..Self::default() }
    }

    /// Compiles the documents as they are now.
    pub fn follow(&mut self, snapshot: &Arc<Snapshot>, seen: &Arc<Seen>) -> Outcome {
        let before = std::mem::replace(&mut self.snapshot, Arc::clone(snapshot));
        let differing = differing(&before.documents, &snapshot.documents);
        let is_of_all = |key: &&Key| key.kind == Kind::Mesh;
        let everything = std::mem::take(&mut self.is_first)
            || differing.iter().any(is_of_all)
            || differing.len() * MOST_OF > snapshot.documents.len();
        let of_peers = everything || differing.iter().any(|key| key.kind == Kind::Workload);
        let mut touched = if everything {
            self.links = Links::of_all(&snapshot.documents);
            self.everything(&before.documents)
        } else {
            self.touched(&differing, &before.documents)
        };
        if !Arc::ptr_eq(&self.seen, seen) {
            let workloads = self.seen.differing(seen).map(workload_key);
            touched
                .services
                .extend(workloads.flat_map(|key| self.links.to_workload(&key).cloned().collect::<Vec<_>>()));
            self.seen = Arc::clone(seen);
        }
        self.findings.revision = snapshot.revision;
        let mut outcome = Outcome::default();
        let mut made = self.make(&touched, everything);
        outcome.made += made.count();
        // What a port is taken for stands in the listeners of all it leads to.
        if self.turn(&made, &mut touched) {
            made = self.make(&touched, everything);
            outcome.made += made.count();
        }
        self.take(made, &touched, &mut outcome);
        outcome.made += self.destinations.settle(&mut outcome.change);
        if of_peers {
            let workloads = snapshot.documents.values().filter_map(|stored| match &stored.document {
                Document::Workload(workload) => Some(workload),
                _ => None,
            });
            outcome.made += self.peers.follow(workloads, &self.trust_domain, &mut outcome.change);
        }
        metrics::counter!(MADE).increment(outcome.made as u64);
        outcome
    }

    /// What there is to be said of the documents that were compiled last.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    fn everything(&self, before: &Documents) -> Touched {
        let mut touched = Touched::default();
        for key in before.keys().chain(self.snapshot.documents.keys()) {
            touched.add(key.clone());
        }
        touched
    }

    /// Brings the links up to date, and follows them from the documents that differ.
    fn touched(&mut self, differing: &[&Key], before: &Documents) -> Touched {
        let mut touched = Touched::default();
        let documents = Arc::clone(&self.snapshot);
        let after = &documents.documents;
        for key in differing.iter().copied().filter(|key| key.kind == Kind::Workload) {
            touched.workloads.insert(key.clone());
            for documents in [before, after] {
                let Some(Document::Workload(workload)) = documents.get(key).map(|stored| &stored.document) else {
                    continue;
                };
                touched.services.extend(self.links.selecting(workload, after).cloned());
            }
            touched.services.extend(self.links.to_workload(key).cloned());
        }
        // Of what selects by labels, what it leads to has to be found anew.
        let selecting: Vec<Key> = touched.services.iter().cloned().collect();
        let others = differing.iter().copied().filter(|key| key.kind != Kind::Workload);
        for key in others.chain(&selecting) {
            self.touch(key, before, &mut touched);
        }
        self.touch_parents(&mut touched);
        touched
    }

    /// A document differs, or what its selector selects.
    fn touch(&mut self, key: &Key, before: &Documents, touched: &mut Touched) {
        let after = Arc::clone(&self.snapshot);
        let parents_before = self.links.of_route(key).map(|links| links.parents.clone()).unwrap_or_default();
        let had = self.links.of_service(key).map(|links| links.points.clone()).unwrap_or_default();
        let mut points = self.links.follow(key, &after.documents);
        touched.add(key.clone());
        touched.services.extend(parents_before);
        if key.kind != Kind::Service {
            return;
        }
        if spec_of(before, key).map(Shape::of) != spec_of(&after.documents, key).map(Shape::of) {
            points.extend(had);
            points.extend(self.links.of_service(key).into_iter().flat_map(|links| links.points.iter().cloned()));
            touched.routes.extend(self.links.about(key).cloned());
        }
        // Who listens for a pod's address may also turn because the pod's workload has come or gone.
        let links = self.links.of_service(key).into_iter();
        points.extend(links.flat_map(|links| &links.points).filter(|point| matches!(point, Point::Socket(_))).cloned());
        for point in &points {
            touched.services.extend(self.links.to_point(point).cloned());
            if let Point::Port(workload, _) = point {
                touched.workloads.insert(workload.clone());
                touched.services.extend(self.links.to_workload(workload).cloned());
            }
        }
    }

    /// Routes share the ports they are for: what one of them gives up another has.
    fn touch_parents(&self, touched: &mut Touched) {
        let parents = |route: &Key| self.links.of_route(route).map(|links| links.parents.iter());
        let of_differing: BTreeSet<&Key> = touched.routes.iter().filter_map(parents).flatten().collect();
        let lost = touched.services.iter().filter(|key| spec_of(&self.snapshot.documents, key).is_some());
        let ports: BTreeSet<&Key> = of_differing.into_iter().chain(lost).collect();
        let sharing: BTreeSet<Key> = ports.iter().flat_map(|key| self.links.for_parent(key)).cloned().collect();
        let services: Vec<Key> = sharing.iter().filter_map(parents).flatten().cloned().collect();
        touched.services.extend(services);
        touched.routes.extend(sharing);
    }

    /// Whether ports are taken for something else than before; what they lead to is touched then.
    fn turn(&self, made: &Made, touched: &mut Touched) -> bool {
        let mut turned = BTreeSet::new();
        for (key, new) in &made.services {
            if self.services.get(key).is_some_and(|old| old.verdicts != new.verdicts) {
                let links = self.links.of_service(key);
                turned.extend(links.into_iter().flat_map(|links| links.workloads.iter().cloned()));
            }
        }
        let services: Vec<Key> = turned.iter().flat_map(|key| self.links.to_workload(key)).cloned().collect();
        let is_more = turned.iter().any(|key| !touched.workloads.contains(key));
        touched.services.extend(services);
        touched.workloads.extend(turned);
        is_more
    }

    /// Makes what is touched, from that and all it refers to.
    fn make(&self, touched: &Touched, everything: bool) -> Made {
        let documents = &self.snapshot.documents;
        if everything {
            let all = documents.values().map(|stored| &stored.document);
            return make(all, &self.trust_domain, &self.seen, |_| true);
        }
        let mut needed: BTreeSet<&Key> = touched.workloads.iter().chain(&touched.routes).collect();
        let mut routes: BTreeSet<&Key> = touched.routes.iter().collect();
        for key in &touched.services {
            needed.insert(key);
            routes.extend(self.links.for_parent(key));
            let Some(links) = self.links.of_service(key) else { continue };
            needed.extend(&links.workloads);
            needed.extend(links.points.iter().flat_map(|point| self.links.to_point(point)));
            // Whether another service listens for an address depends on the workload it has there, be it another one.
            let sockets = links.points.iter().filter(|point| matches!(point, Point::Socket(_)));
            let others: BTreeSet<&Key> = sockets.flat_map(|point| self.links.to_point(point)).collect();
            let others = others.into_iter().filter_map(|key| self.links.of_service(key));
            needed.extend(others.flat_map(|links| &links.workloads));
        }
        for links in routes.iter().filter_map(|key| self.links.of_route(key)) {
            needed.extend(links.parents.iter().chain(&links.backends));
        }
        needed.extend(routes);
        let meshes = documents.iter().take_while(|(key, _)| key.kind == Kind::Mesh).map(|(_, stored)| stored);
        let needed = needed.into_iter().filter_map(|key| documents.get(key)).chain(meshes);
        let is_wanted = |key: &Key| touched.services.contains(key) || touched.workloads.contains(key);
        make(needed.map(|stored| &stored.document), &self.trust_domain, &self.seen, is_wanted)
    }

    /// Keeps what was made; what is other than before goes out.
    fn take(&mut self, mut made: Made, touched: &Touched, outcome: &mut Outcome) {
        for key in touched.services.iter().chain(&touched.workloads).chain(&touched.routes) {
            self.findings.warnings.remove(key);
        }
        for warning in made.warnings {
            if touched.contains(&warning.key) {
                self.findings.warnings.entry(warning.key.clone()).or_default().push(warning);
            }
        }
        for key in &touched.routes {
            match made.routes.remove(key) {
                Some(parents) => _ = self.findings.routes.insert(key.clone(), parents),
                None => _ = self.findings.routes.remove(key),
            }
        }
        for key in &touched.services {
            let before = self.services.remove(key).unwrap_or_default();
            let after = made.services.remove(key).map(OfService::from);
            before.compare(after.as_ref(), &mut outcome.change, &mut outcome.verdicts);
            self.destinations.replace(&before.claims, after.as_ref().map_or(&BTreeSet::new(), |after| &after.claims));
            self.services.extend(after.map(|after| (key.clone(), after)));
        }
        for key in &touched.workloads {
            let after = made.workloads.remove(key).map(OfWorkload::from);
            if self.workloads.get(key) == after.as_ref() {
                continue;
            }
            let name = format!("{}/{}", key.namespace, key.name);
            let own = after
                .as_ref()
                .map(|after| Own { account: Arc::clone(&after.account), resources: after.resources.clone() });
            outcome.change.own.insert(WorkloadKey::from(name.as_str()), own);
            outcome.verdicts.undeclared.insert(name, after.as_ref().and_then(OfWorkload::undeclared));
            match after {
                Some(after) => _ = self.workloads.insert(key.clone(), after),
                None => _ = self.workloads.remove(key),
            }
        }
    }
}

impl Made {
    fn count(&self) -> usize {
        let of_services = self.services.values().map(|made| made.resources.len());
        of_services.chain(self.workloads.values().map(|made| made.resources.len())).sum()
    }
}

impl Touched {
    fn add(&mut self, key: Key) {
        match key.kind {
            Kind::Mesh => {}
            Kind::Service => _ = self.services.insert(key),
            Kind::Workload => _ = self.workloads.insert(key),
            Kind::TlsRoute | Kind::HttpRoute => _ = self.routes.insert(key),
        }
    }

    fn contains(&self, key: &Key) -> bool {
        match key.kind {
            Kind::Mesh => false,
            Kind::Service => self.services.contains(key),
            Kind::Workload => self.workloads.contains(key),
            Kind::TlsRoute | Kind::HttpRoute => self.routes.contains(key),
        }
    }
}

/// What others see of a service: all but where it leads.
#[derive(PartialEq)]
struct Shape<'d> {
    ports: &'d [ServicePort],
    timeouts: Option<Timeouts>,
    retries: Option<&'d Retries>,
}

impl<'d> Shape<'d> {
    fn of(spec: &'d ServiceSpec) -> Self {
        Self { ports: &spec.ports, timeouts: spec.timeouts, retries: spec.retries.as_ref() }
    }
}

fn spec_of<'d>(documents: &'d Documents, key: &Key) -> Option<&'d ServiceSpec> {
    match &documents.get(key)?.document {
        Document::Service(service) => Some(&service.spec),
        _ => None,
    }
}

fn workload_key(name: &str) -> Key {
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    Key::new(Kind::Workload, namespace, name)
}

/// The documents that are not the same in both, in memory: what did not change has not been made anew.
fn differing<'d>(before: &'d Documents, after: &'d Documents) -> Vec<&'d Key> {
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    let mut found = Vec::new();
    loop {
        match (before.peek(), after.peek()) {
            (None, None) => return found,
            (Some((_, old)), Some((_, new))) if Arc::ptr_eq(old, new) => {
                before.next();
                after.next();
            }
            (Some((old, _)), Some((new, _))) if old == new => {
                found.push(*new);
                before.next();
                after.next();
            }
            (Some((old, _)), new) if new.is_none_or(|(new, _)| old < new) => {
                found.push(*old);
                before.next();
            }
            (_, Some((new, _))) => {
                found.push(*new);
                after.next();
            }
            (Some((old, _)), None) => {
                found.push(*old);
                before.next();
            }
        }
    }
}
