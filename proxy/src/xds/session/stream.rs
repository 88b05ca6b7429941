//! What one stream was told and asked.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use weft_proto::discovery::DeltaDiscoveryRequest;

use super::graph::Graph;
use crate::xds::ResourceType;

/// Everything of a type, beside names.
const WILDCARD: &str = "*";

/// What is true of one stream only.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) node_was_sent: bool,
    /// Types asked for on this stream.
    asked: BTreeSet<ResourceType>,
    /// Names asked for and not given up.
    subscribed: HashMap<ResourceType, BTreeSet<Arc<str>>>,
    /// Names given up of types where `*` stays: whether it means them is answered.
    given_up: HashMap<ResourceType, BTreeSet<Arc<str>>>,
}

impl Stream {
    /// The request that brings the subscription of one type up to date; `None` when it is.
    pub(super) fn subscription(&mut self, kind: ResourceType, graph: &Graph) -> Option<DeltaDiscoveryRequest> {
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

    /// Whether the server may send this beside what `*` means.
    pub(super) fn may_bring(&self, kind: ResourceType, name: &str) -> bool {
        let names = [self.subscribed.get(&kind), self.given_up.get(&kind)];
        names.into_iter().flatten().any(|names| names.contains(name))
    }

    /// Whether a removal of this name answers giving it up; the next one does not.
    pub(super) fn answers_giving_up(&mut self, kind: ResourceType, name: &str) -> bool {
        self.given_up.get_mut(&kind).is_some_and(|names| names.remove(name))
    }
}
