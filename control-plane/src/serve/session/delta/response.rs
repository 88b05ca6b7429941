//! Responses of one type, and the books kept while they are filled.

use std::sync::Arc;
use std::time::Instant;

use weft_proto::discovery::{Any, DeltaDiscoveryResponse, Resource as Sent};

use super::super::{Contents, RESPONSE_LIMIT, Stream};
use super::subscription::{Held, Subscription};
use crate::world::{Kind, Resource, View};

/// Responses of one type, each below [`RESPONSE_LIMIT`].
pub(super) struct Responses<'a> {
    kind: Kind,
    now: Instant,
    revision: u64,
    out: &'a mut Vec<DeltaDiscoveryResponse>,
    resources: Vec<Sent>,
    removed: Vec<String>,
    /// Names in the response being filled.
    contents: Contents,
    size: usize,
    /// Names of all resources sent.
    sent: Vec<Arc<str>>,
}

impl<'a> Responses<'a> {
    pub(super) fn new(kind: Kind, now: Instant, view: &View, out: &'a mut Vec<DeltaDiscoveryResponse>) -> Self {
        let revision = view.revision();
        Self {
            kind,
            now,
            revision,
            out,
            resources: Vec::new(),
            removed: Vec::new(),
            contents: Contents::default(),
            size: 0,
            sent: Vec::new(),
        }
    }

    pub(super) fn resource(&mut self, stream: &mut Stream, subscription: &mut Subscription, resource: &Resource) {
        self.make_room(stream, subscription, resource.size());
        self.resources.push(Sent {
            version: resource.version.to_string(),
            resource: Some(Any { type_url: resource.type_url.to_owned(), value: resource.body.clone() }),
            name: resource.name.to_string(),
            aliases: Vec::new(),
        });
        self.contents.sent.push(resource.name.clone());
        self.sent.push(resource.name.clone());
        subscription.changed.remove(&resource.name);
        subscription.leaving.remove(&resource.name);
        subscription.told(resource.name.clone(), Held::Version(resource.version.clone()));
    }

    pub(super) fn removal(&mut self, stream: &mut Stream, subscription: &mut Subscription, name: Arc<str>) {
        self.make_room(stream, subscription, name.len());
        self.removed.push(name.to_string());
        self.contents.removed.push(name.clone());
        subscription.changed.remove(&name);
        subscription.leaving.remove(&name);
        subscription.told(name, Held::Missing);
    }

    fn make_room(&mut self, stream: &mut Stream, subscription: &mut Subscription, size: usize) {
        if self.size > 0 && self.size + size > RESPONSE_LIMIT {
            self.close(stream, subscription);
        }
        self.size += size;
    }

    fn close(&mut self, stream: &mut Stream, subscription: &mut Subscription) {
        let (sequence, nonce) = stream.next_nonce();
        subscription.acks.sent(sequence, std::mem::take(&mut self.contents), self.now);
        self.size = 0;
        self.out.push(DeltaDiscoveryResponse {
            system_version_info: self.revision.to_string(),
            resources: std::mem::take(&mut self.resources),
            type_url: self.kind.type_url().to_owned(),
            nonce,
            removed_resources: std::mem::take(&mut self.removed),
        });
    }

    /// Closes the last response, if it holds anything or must be there; returns the names of all resources sent.
    pub(super) fn finish(
        mut self,
        stream: &mut Stream,
        subscription: &mut Subscription,
        even_empty: bool,
    ) -> Vec<Arc<str>> {
        if self.contents.len() > 0 || (even_empty && self.sent.is_empty()) {
            self.close(stream, subscription);
        }
        self.sent
    }
}
