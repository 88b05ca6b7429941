//! The client side of a delta ADS stream: a pure state machine, no sockets and no time.
//!
//! In: a stream opened, a response came, the stream was lost. Out: requests to send, one [`Change`] at most a response,
//! what was refused, and once the word that the first configuration is complete.
//!
//! Rules (xDS protocol, "Incremental xDS"):
//! - clusters and listeners are wildcard subscriptions: the first request of the type names nothing, and no later one
//!   does. Endpoints and routes are asked for by name, as clusters and listeners name them, and given up when nothing
//!   names them; without a name there is no request at all, because an empty one would mean everything.
//! - a proxy that asks for destinations asks for `*` of clusters and listeners, which then means what is for its own
//!   workload, and for those of others by name, as the destinations lead to them that were asked for. Giving up such a name
//!   is answered by its removal, unless `*` means it: that is not the answer to asking for it again.
//! - the first request of a type on a stream has no nonce (a nonce belongs to its stream) and tells in
//!   `initial_resource_versions` exactly what is held. Only an ACK or NACK carries a nonce; a change of subscription is
//!   spontaneous and must not.
//! - resources are judged one by one: the good ones of a response apply, the bad ones make it one NACK and leave what
//!   was held before untouched.
//! - losing the stream changes nothing that is in force.

mod body;
mod graph;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use weft_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource as Delivered, Status};
use weft_proto::names::ASKS_FOR_DESTINATIONS;

use self::body::Packed;
use self::graph::{Graph, is_own};
use super::ResourceType;
use super::decode::{DecodeError, Decoded, decode_as};
use crate::state::Change;

/// Longest text of a NACK, in bytes: enough to name several resources, too little to carry configuration away.
const NACK_TEXT: usize = 2048;

/// Everything of a type, beside names.
const WILDCARD: &str = "*";

/// `INVALID_ARGUMENT` of google.rpc.Code.
const INVALID_ARGUMENT: i32 = 3;

/// A resource as the server sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    pub kind: ResourceType,
    pub name: Arc<str>,
    pub version: Arc<str>,
    /// The encoded message, without its `Any`.
    pub body: Bytes,
}

/// A resource as it is held; cloning and sending it costs little.
#[derive(Debug, Clone)]
pub struct Stored {
    kind: ResourceType,
    name: Arc<str>,
    version: Arc<str>,
    body: Packed,
}

impl Stored {
    /// As the server sent it.
    pub fn resource(&self) -> Resource {
        Resource {
            kind: self.kind,
            name: Arc::clone(&self.name),
            version: Arc::clone(&self.version),
            body: self.body.bytes(),
        }
    }
}

/// Who is behind an address that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Not answered, or not all is there that the answer leads to.
    Awaited,
    /// A service, whose listener is in force and all it leads to.
    Service,
    /// A workload of the mesh.
    Peer,
    Nobody,
}

/// What follows from an event.
#[derive(Debug, Default)]
pub struct Output {
    /// To be sent in this order, after the change was applied: an ACK says "in force".
    pub requests: Vec<DeltaDiscoveryRequest>,
    /// To be applied at once; `None` when nothing in force changes.
    pub change: Option<Change>,
    /// Resources of this response that are not used, each with its reason.
    pub rejected: Vec<DecodeError>,
    /// True once in a session's life: everything the first configuration refers to has been answered.
    pub completed: bool,
    /// What is held differs from before: a snapshot on disk is out of date.
    pub held_changed: bool,
    /// Destinations about which something was said.
    pub told: Vec<Arc<str>>,
}

/// The state of one proxy's subscription to its control plane; outlives streams.
#[derive(Debug)]
pub struct Session {
    node: Node,
    graph: Graph,
    /// `None` while there is no stream.
    stream: Option<Stream>,
    /// Wildcard types that were answered at least once.
    answered: BTreeSet<ResourceType>,
    completed: bool,
}

/// What is true of one stream only.
#[derive(Debug, Default)]
struct Stream {
    node_was_sent: bool,
    /// Types asked for on this stream.
    asked: BTreeSet<ResourceType>,
    /// Names asked for and not given up.
    subscribed: HashMap<ResourceType, BTreeSet<Arc<str>>>,
    /// Names given up of types where `*` stays: whether it means them is answered.
    given_up: HashMap<ResourceType, BTreeSet<Arc<str>>>,
}

impl Session {
    /// A session that holds nothing; `node` goes with the first request of each stream.
    pub fn new(node: Node) -> Self {
        Self { node, graph: Graph::default(), stream: None, answered: BTreeSet::new(), completed: false }
    }

    /// The same of a proxy that asks for destinations; `node` must say so too.
    pub fn on_demand(node: Node) -> Self {
        Self { graph: Graph::on_demand(), ..Self::new(node) }
    }

    /// Whether it asks for destinations; no more once a server did not know them.
    pub fn is_on_demand(&self) -> bool {
        self.graph.is_on_demand()
    }

    /// Asks who is behind these addresses, and to be told of changes.
    pub fn ask(&mut self, names: impl IntoIterator<Item = Arc<str>>) -> Output {
        self.graph.ask(names);
        Output { requests: self.subscriptions(), ..Output::default() }
    }

    /// Forgets who is behind these addresses, and all that nothing else leads to.
    pub fn give_up<'n>(&mut self, names: impl IntoIterator<Item = &'n str>) -> Output {
        let held_changed = self.graph.give_up(names);
        let change = some_if_any(self.graph.settle(Fresh::new()));
        Output { requests: self.subscriptions(), change, held_changed, ..Output::default() }
    }

    /// Who is behind an address, by the name it was asked for.
    pub fn answer(&self, name: &str) -> Answer {
        self.graph.answer(name)
    }

    /// Takes over what an earlier life of this proxy held, which counts as a complete configuration.
    ///
    /// Meant for a fresh session, before its first stream, and of one that asks for destinations after it has asked for
    /// those of its earlier life. Resources that this version cannot read are left out and
    /// reported; the control plane then sends them anew.
    pub fn restore(&mut self, resources: Vec<Resource>) -> Output {
        let mut output = Output::default();
        let mut fresh = HashMap::new();
        let is_of_use = |graph: &Graph, resource: &Resource| {
            resource.kind != ResourceType::Destination || graph.wanted(resource.kind).contains(&resource.name)
        };
        for resource in resources {
            if !is_of_use(&self.graph, &resource) {
                continue;
            }
            match decode_as(resource.kind, &resource.name, &resource.body) {
                Ok(mut decoded) => {
                    self.graph.share_names(&mut decoded);
                    let resource = Resource { name: decoded.shared_name(), ..resource };
                    let key = (resource.kind, Arc::clone(&resource.name));
                    self.graph.accept(resource, &decoded);
                    fresh.insert(key, decoded);
                }
                Err(error) => output.rejected.push(error),
            }
        }
        output.change = some_if_any(self.graph.settle(fresh));
        output.completed = !self.completed;
        self.completed = true;
        output
    }

    /// A stream is open: says what is held and asks for everything wanted.
    pub fn stream_opened(&mut self) -> Output {
        self.stream = Some(Stream::default());
        Output { requests: self.subscriptions(), ..Output::default() }
    }

    /// The stream is gone: everything held stays in force, everything said on it is forgotten.
    pub fn stream_lost(&mut self) {
        self.stream = None;
    }

    /// A response came.
    pub fn response(&mut self, response: DeltaDiscoveryResponse) -> Output {
        let DeltaDiscoveryResponse { type_url, nonce, resources, removed_resources, .. } = response;
        let Some(kind) = ResourceType::from_url(&type_url) else {
            let error = DecodeError {
                kind: "resource",
                resource: String::new(),
                field: "type_url".to_owned(),
                found: type_url.chars().take(160).collect(),
                supported: "the types this proxy asked for",
            };
            let answer = answer(type_url, nonce, &[&error]);
            return Output { requests: vec![answer], rejected: vec![error], ..Output::default() };
        };
        if self.means_everything(kind, &resources) {
            self.want_everything();
        }
        let (fresh, touched, mut output) = self.take(kind, resources, &removed_resources);
        if kind.is_wildcard() {
            self.answered.insert(kind);
        }
        let change = if kind == ResourceType::Endpoints && !self.graph.clusters_are_waiting() {
            self.graph.settle_endpoints(&touched, fresh)
        } else {
            self.graph.settle(fresh)
        };
        output.change = some_if_any(change);
        if kind == ResourceType::Destination {
            output.told = touched.into_iter().collect();
        }
        output.requests.push(answer(type_url, nonce, &output.rejected.iter().collect::<Vec<_>>()));
        output.requests.extend(self.subscriptions());
        if !self.completed && self.is_complete() {
            self.completed = true;
            output.completed = true;
        }
        output
    }

    /// Takes the good resources of a response in, and the removals.
    ///
    /// Removals come first: a name that is both removed and sent was recreated. What nobody asked for any more (an
    /// answer that crossed our unsubscription) is ignored.
    fn take(
        &mut self,
        kind: ResourceType,
        resources: Vec<Delivered>,
        removed: &[String],
    ) -> (Fresh, BTreeSet<Arc<str>>, Output) {
        let (mut fresh, mut touched, mut output) = (Fresh::new(), BTreeSet::new(), Output::default());
        for name in removed {
            if self.is_of_before(kind, name) {
                continue;
            }
            output.held_changed |= self.graph.remove(kind, name);
            touched.insert(Arc::from(name.as_str()));
        }
        for delivered in resources {
            if self.is_renewal(kind, &delivered) {
                continue;
            }
            match read(kind, delivered) {
                Ok((resource, mut decoded)) if self.graph.takes(kind, &decoded) => {
                    self.graph.share_names(&mut decoded);
                    let resource = Resource { name: decoded.shared_name(), ..resource };
                    let name = Arc::clone(&resource.name);
                    output.held_changed |= self.graph.accept(resource, &decoded);
                    touched.insert(Arc::clone(&name));
                    fresh.insert((kind, name), decoded);
                }
                Ok(_) => {}
                Err(error) => {
                    self.graph.refuse(kind, &error.resource);
                    if kind == ResourceType::Destination {
                        touched.insert(Arc::from(error.resource.as_str()));
                    }
                    output.rejected.push(error);
                }
            }
        }
        (fresh, touched, output)
    }

    /// Whether the server sends what is for others without being asked: one of before destinations, which means everything by
    /// `*`.
    fn means_everything(&self, kind: ResourceType, resources: &[Delivered]) -> bool {
        let Some(stream) = self.stream.as_ref().filter(|_| kind.is_wildcard() && self.graph.is_on_demand()) else {
            return false;
        };
        let is_asked = |name: &str| {
            let names = [stream.subscribed.get(&kind), stream.given_up.get(&kind)];
            names.into_iter().flatten().any(|names| names.contains(name))
        };
        resources.iter().any(|delivered| {
            !is_asked(&delivered.name) && read(kind, delivered.clone()).is_ok_and(|(_, decoded)| !is_own(&decoded))
        })
    }

    /// From now on all of the mesh is held, for this session's life: a server that knows destinations must be told so too.
    fn want_everything(&mut self) {
        self.node.client_features.retain(|feature| feature != ASKS_FOR_DESTINATIONS);
        self.graph.want_everything();
    }

    /// Whether a removal only says that `*` does not mean a name that was given up; asked for again meanwhile, it is answered
    /// again. What is held was sent after that.
    fn is_of_before(&mut self, kind: ResourceType, name: &str) -> bool {
        let given_up = self.stream.as_mut().and_then(|stream| stream.given_up.get_mut(&kind));
        given_up.is_some_and(|names| names.remove(name)) && self.graph.version(kind, name).is_none()
    }

    /// A resource without body and with the version we hold only says "still valid" (xDS, "TTL").
    fn is_renewal(&self, kind: ResourceType, delivered: &Delivered) -> bool {
        delivered.resource.is_none()
            && self.graph.version(kind, &delivered.name).is_some_and(|version| version == delivered.version)
    }

    /// Requests that make the stream ask for exactly what is wanted; none while there is no stream.
    fn subscriptions(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let Some(stream) = &mut self.stream else { return Vec::new() };
        let mut requests = Vec::new();
        for kind in ResourceType::ALL {
            let Some(mut request) = stream.subscription(kind, &self.graph) else { continue };
            if !stream.node_was_sent {
                stream.node_was_sent = true;
                request.node = Some(self.node.clone());
            }
            requests.push(request);
        }
        requests
    }

    fn is_complete(&self) -> bool {
        let wildcards_answered =
            ResourceType::ALL.iter().all(|kind| !kind.is_wildcard() || self.answered.contains(kind));
        wildcards_answered && self.graph.awaited() == 0
    }

    /// Whether the first configuration was complete once; never false again.
    pub fn has_completed(&self) -> bool {
        self.completed
    }

    /// How many resources are referred to and were never answered.
    pub fn awaited(&self) -> usize {
        self.graph.awaited()
    }

    /// How many resources of a type are held.
    pub fn held_count(&self, kind: ResourceType) -> usize {
        self.graph.held_count(kind)
    }

    /// Everything held, at its newest accepted version.
    pub fn stored(&self) -> Vec<Stored> {
        self.graph.stored()
    }

    /// [`Self::stored`], as the server sent it.
    #[cfg(test)]
    pub(crate) fn held(&self) -> Vec<Resource> {
        self.stored().iter().map(Stored::resource).collect()
    }
}

type Fresh = HashMap<(ResourceType, Arc<str>), Decoded>;

impl Stream {
    /// The request that brings the subscription of one type up to date; `None` when it is.
    fn subscription(&mut self, kind: ResourceType, graph: &Graph) -> Option<DeltaDiscoveryRequest> {
        let mut request = DeltaDiscoveryRequest { type_url: kind.url().to_owned(), ..Default::default() };
        let is_first = !self.asked.contains(&kind);
        let is_wildcard = kind.is_wildcard();
        if is_wildcard && !graph.is_on_demand() {
            if !is_first {
                return None;
            }
        } else {
            let wanted = graph.wanted(kind);
            let subscribed = self.subscribed.entry(kind).or_default();
            if *subscribed == *wanted && !(is_wildcard && is_first) {
                return None;
            }
            let text = |names: Vec<&Arc<str>>| names.into_iter().map(ToString::to_string).collect();
            request.resource_names_subscribe = text(wanted.difference(subscribed).collect());
            request.resource_names_unsubscribe = text(subscribed.difference(wanted).collect());
            if is_wildcard {
                self.given_up.entry(kind).or_default().extend(subscribed.difference(wanted).cloned());
            }
            if is_wildcard && is_first {
                // Said aloud, as names beside it would mean them alone.
                request.resource_names_subscribe.insert(0, WILDCARD.to_owned());
            }
            subscribed.clone_from(wanted);
        }
        if is_first {
            self.asked.insert(kind);
            request.initial_resource_versions = graph.versions(kind);
        }
        Some(request)
    }
}

/// Reads a delivered resource.
fn read(kind: ResourceType, delivered: Delivered) -> Result<(Resource, Decoded), DecodeError> {
    let refuse = |field: &str, found: String, supported| DecodeError {
        kind: kind.label(),
        resource: delivered.name.chars().take(256).collect(),
        field: field.to_owned(),
        found,
        supported,
    };
    let Some(any) = delivered.resource else {
        return Err(refuse("resource", "no body".to_owned(), "a body, or the version that is held"));
    };
    if any.type_url != kind.url() {
        let found = any.type_url.chars().take(160).collect();
        return Err(refuse("resource.type_url", found, "the type of the response"));
    }
    let decoded = decode_as(kind, &delivered.name, &any.value)?;
    let resource = Resource {
        kind,
        name: decoded.shared_name(),
        version: delivered.version.into(),
        // A slice of the whole response; what is held is a copy.
        body: any.value.clone(),
    };
    Ok((resource, decoded))
}

/// The ACK of a response, or its NACK when something of it was rejected.
fn answer(type_url: String, nonce: String, rejected: &[&DecodeError]) -> DeltaDiscoveryRequest {
    let error_detail = (!rejected.is_empty()).then(|| Status { code: INVALID_ARGUMENT, message: nack_text(rejected) });
    DeltaDiscoveryRequest { type_url, response_nonce: nonce, error_detail, ..Default::default() }
}

/// Names as many of the rejected resources as fit, and how many more there are.
fn nack_text(rejected: &[&DecodeError]) -> String {
    let mut text = String::new();
    for (index, error) in rejected.iter().enumerate() {
        let line = error.to_string();
        let separator = if text.is_empty() { "" } else { "; " };
        if text.len() + separator.len() + line.len() > NACK_TEXT {
            text = format!("{text}{separator}and {} more", rejected.len() - index);
            break;
        }
        text.push_str(separator);
        text.push_str(&line);
    }
    text
}

fn some_if_any(change: Change) -> Option<Change> {
    (change != Change::default()).then_some(change)
}

#[cfg(test)]
mod tests;
