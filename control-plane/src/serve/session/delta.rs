//! The incremental variant: only what changed is sent, and what is gone is named.
//!
//! Each new or repeated subscription is answered: with the resource, or by naming it as removed when there is none, so
//! that no client waits for a timeout. What the client says it holds (`initial_resource_versions`) is not sent
//! again. See [`super`] for the rules of both variants.
//!
//! A client that asks for what it uses ([`Star::Own`]) is told by its `*` what is for its own workload, and by name whatever
//! it names: a shared resource concerns it for as long as it names it, and no other does.

mod response;
mod subscription;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use weft_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};

use self::response::Responses;
use self::subscription::{Entry, Held, Subscription};
use super::{PATIENCE, Session, Standing, Star, Stream, Violation, settle, standing};
use crate::world::{Changes, Interest, Kind, Progress, View};

/// Requests for unknown types that may await their answer.
const UNKNOWN_LIMIT: usize = 64;

/// The server side of one incremental stream.
#[derive(Debug)]
pub struct Delta {
    stream: Stream,
    star: Star,
    kinds: [Subscription; Kind::ALL.len()],
    /// Since when removals wait.
    leaving_since: Option<Instant>,
    /// Answers to requests for types we do not serve.
    unknown: Vec<DeltaDiscoveryResponse>,
}

impl Session for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn new(salt: u64, star: Star) -> Self {
        let kinds = std::array::from_fn(|_| Subscription { star, ..Subscription::default() });
        Self { stream: Stream::new(salt), star, kinds, leaving_since: None, unknown: Vec::new() }
    }

    fn node(request: &DeltaDiscoveryRequest) -> Option<&Node> {
        request.node.as_ref()
    }

    fn request(&mut self, request: DeltaDiscoveryRequest, now: Instant) -> Result<Vec<Interest>, Violation> {
        let Some(kind) = Kind::from_type_url(&request.type_url) else {
            return self.request_unknown(request).map(|()| Vec::new());
        };
        if let Some(sequence) = self.stream.sequence_of(&request.response_nonce) {
            let Subscription { acks, entries, .. } = &mut self.kinds[kind as usize];
            acks.judge(kind, sequence, request.error_detail.as_ref(), now, |name| entries.contains_key(name));
        }
        let first = !std::mem::replace(&mut self.kinds[kind as usize].opened, true);
        if first {
            self.take_over(kind, request.initial_resource_versions);
        }
        let mut interests = Vec::new();
        let legacy_wildcard = first && kind.has_legacy_wildcard() && request.resource_names_subscribe.is_empty();
        if legacy_wildcard {
            self.subscribe_all(kind, &mut interests);
        }
        for name in request.resource_names_subscribe {
            if name == "*" && kind.has_wildcard() {
                self.subscribe_all(kind, &mut interests);
            } else {
                self.subscribe(kind, name.into(), first, &mut interests)?;
            }
        }
        // After the subscriptions: a client that wants nothing yet takes back its `*` in the same request.
        for name in request.resource_names_unsubscribe {
            if name == "*" && kind.has_wildcard() {
                self.unsubscribe_all(kind, &mut interests);
            } else {
                self.unsubscribe(kind, &name, &mut interests);
            }
        }
        if first {
            self.drop_unasked(kind);
        }
        self.settle();
        Ok(interests)
    }

    fn changed(&mut self, changes: Changes, revision: u64) {
        self.stream.revision = self.stream.revision.max(revision);
        for (kind, name) in changes.keys {
            let subscription = &mut self.kinds[kind as usize];
            if subscription.asks_for(&name) {
                subscription.changed.insert(name);
            }
        }
        if changes.everything {
            self.kinds.iter_mut().filter(|subscription| subscription.opened).for_each(|s| s.scan = true);
        }
    }

    fn flush(&mut self, now: Instant, view: &View) -> Vec<DeltaDiscoveryResponse> {
        if self.kinds.iter().all(|subscription| subscription.leaving.is_empty()) {
            self.leaving_since = None;
        }
        let mut out = std::mem::take(&mut self.unknown);
        for kind in Kind::ALL {
            let sent = self.push(kind, now, view, &mut out);
            if kind == Kind::Cluster {
                let endpoints = &mut self.kinds[Kind::Endpoints as usize];
                endpoints.following.extend(sent.into_iter().filter(|name| endpoints.entries.contains_key(name)));
            }
        }
        for kind in [Kind::Cluster, Kind::Endpoints] {
            if self.removals_due(kind).is_some_and(|due| due <= now) {
                self.remove(kind, now, view, &mut out);
            }
        }
        if self.is_all_sent() {
            self.stream.all_sent();
        }
        self.settle();
        out
    }

    fn wake_at(&self) -> Option<Instant> {
        let waiting = self.kinds.iter().filter(|s| s.is_waiting()).filter_map(|s| s.acks.blocked_until());
        let removals = [Kind::Cluster, Kind::Endpoints].into_iter().filter_map(|kind| self.removals_due(kind));
        waiting.chain(removals).min()
    }

    fn standing(&self) -> Standing {
        let is_opened = |kind: &Kind| self.kinds[*kind as usize].opened;
        let opened = match self.star {
            Star::Everything => Kind::ALL.iter().any(is_opened),
            // From then on it counts as up to date, whatever it begins to ask for.
            Star::Own => [Kind::Cluster, Kind::Listener].iter().all(is_opened),
        };
        let standing = standing(&self.stream, self.kinds.iter().map(|s| &s.acks), opened && self.is_all_sent());
        let on_demand = self.star == Star::Own;
        Standing { progress: Progress { on_demand, ..standing.progress }, ..standing }
    }
}

impl Delta {
    /// An unknown type is answered empty, and so is each name of it: nobody waits for what will not come.
    fn request_unknown(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Violation> {
        if !request.response_nonce.is_empty() && request.resource_names_subscribe.is_empty() {
            return Ok(());
        }
        if self.unknown.len() == UNKNOWN_LIMIT {
            return Err(Violation::TooManyUnknownTypes(UNKNOWN_LIMIT, self.unknown[0].type_url.clone()));
        }
        let (_, nonce) = self.stream.next_nonce();
        let mut removed_resources = request.resource_names_subscribe;
        removed_resources.retain(|name| name != "*");
        self.unknown.push(DeltaDiscoveryResponse {
            type_url: request.type_url,
            nonce,
            removed_resources,
            ..DeltaDiscoveryResponse::default()
        });
        Ok(())
    }

    /// What the client kept from an earlier stream: to be compared, not to be sent again.
    fn take_over(&mut self, kind: Kind, held: HashMap<String, String>) {
        let subscription = &mut self.kinds[kind as usize];
        for (name, version) in held {
            let name: Arc<str> = name.into();
            subscription.changed.insert(name.clone());
            subscription.entries.insert(name, Entry { named: false, held: Held::Version(version.into()) });
        }
    }

    fn subscribe_all(&mut self, kind: Kind, interests: &mut Vec<Interest>) {
        let subscription = &mut self.kinds[kind as usize];
        // Asked for once more, as clients do that began with an empty request and then say `*`, it goes on: the client
        // keeps what it has.
        subscription.wildcard = true;
        // Given up and asked for again while responses are under way: the client will take them for part of the
        // new subscription, so what is gone of them must be named.
        for name in subscription.acks.in_flight.iter().flat_map(|sent| &sent.contents.sent) {
            let untold = Entry { named: false, held: Held::Untold };
            subscription.entries.entry(name.clone()).or_insert(untold);
        }
        subscription.scan = true;
        subscription.greet = true;
        interests.push(match self.star {
            Star::Everything => Interest::Wildcard(kind),
            Star::Own => Interest::OwnWildcard(kind),
        });
    }

    fn unsubscribe_all(&mut self, kind: Kind, interests: &mut Vec<Interest>) {
        let subscription = &mut self.kinds[kind as usize];
        subscription.wildcard = false;
        subscription.greet = false;
        interests.push(Interest::NotWildcard(kind));
        self.drop_unasked(kind);
    }

    fn subscribe(
        &mut self,
        kind: Kind,
        name: Arc<str>,
        first: bool,
        interests: &mut Vec<Interest>,
    ) -> Result<(), Violation> {
        let subscription = &mut self.kinds[kind as usize];
        let entry = subscription.entries.entry(name.clone()).or_insert(Entry { named: false, held: Held::Untold });
        // What the client said it holds is compared, not repeated.
        if !first || entry.held == Held::Untold {
            subscription.owed.insert(name.clone());
        }
        if !std::mem::replace(&mut entry.named, true) {
            self.stream.name_added(&name)?;
            interests.push(Interest::Name(kind, name));
        }
        Ok(())
    }

    fn unsubscribe(&mut self, kind: Kind, name: &str, interests: &mut Vec<Interest>) {
        let subscription = &mut self.kinds[kind as usize];
        let Some((name, entry)) = subscription.entries.remove_entry(name) else { return };
        if entry.named {
            self.stream.name_dropped(&name);
            interests.push(Interest::NotName(kind, name.clone()));
        }
        if subscription.wildcard {
            // Still part of `*`, or gone with its name: the client cannot tell, so it is told.
            subscription.owed.insert(name.clone());
            subscription.entries.insert(name, Entry { named: false, ..entry });
        } else {
            self.forget(kind, &name);
        }
    }

    /// Drops what neither a name nor the wildcard asks for.
    fn drop_unasked(&mut self, kind: Kind) {
        let subscription = &mut self.kinds[kind as usize];
        if subscription.wildcard {
            return;
        }
        let unasked = subscription.entries.extract_if(|_, entry| !entry.named);
        for (name, _) in unasked.collect::<Vec<_>>() {
            self.forget(kind, &name);
        }
    }

    fn forget(&mut self, kind: Kind, name: &str) {
        let subscription = &mut self.kinds[kind as usize];
        for names in
            [&mut subscription.owed, &mut subscription.following, &mut subscription.changed, &mut subscription.leaving]
        {
            names.remove(name);
        }
        subscription.acks.forget(name);
    }

    /// Sends what is owed, and what changed unless that waits for an acknowledgement. Returns what was sent.
    fn push(&mut self, kind: Kind, now: Instant, view: &View, out: &mut Vec<DeltaDiscoveryResponse>) -> Vec<Arc<str>> {
        let subscription = &mut self.kinds[kind as usize];
        let mut response = Responses::new(kind, now, view, out);
        let owed = std::mem::take(&mut subscription.owed);
        for name in std::mem::take(&mut subscription.following).difference(&owed) {
            if let Some(resource) = subscription.find(kind, name, view) {
                response.resource(&mut self.stream, subscription, resource);
            }
        }
        for name in owed {
            if let Some(resource) = subscription.find(kind, &name, view) {
                response.resource(&mut self.stream, subscription, resource);
            } else {
                response.removal(&mut self.stream, subscription, name);
            }
        }
        let greet = std::mem::take(&mut subscription.greet);
        if subscription.is_waiting() && (greet || !subscription.acks.is_blocked(now)) {
            for name in subscription.take_candidates(kind, view) {
                match (subscription.find(kind, &name, view), subscription.entries.get(&name).map(|entry| &entry.held)) {
                    (Some(resource), Some(Held::Version(held))) if *held == resource.version => {
                        // One text for all streams, also for what clients brought along.
                        subscription.told(resource.name.clone(), Held::Version(resource.version.clone()));
                    }
                    (Some(resource), _) => response.resource(&mut self.stream, subscription, resource),
                    (None, Some(Held::Version(_))) if matches!(kind, Kind::Cluster | Kind::Endpoints) => {
                        subscription.leaving.insert(name);
                        self.leaving_since.get_or_insert(now);
                    }
                    (None, Some(Held::Version(_) | Held::Untold)) => {
                        response.removal(&mut self.stream, subscription, name);
                    }
                    (None, Some(Held::Missing) | None) => {}
                }
            }
        }
        response.finish(&mut self.stream, subscription, greet)
    }

    /// When clusters or endpoints that are gone may be removed from the client: last of all, once the listeners and routes
    /// that used them are acknowledged, or after [`PATIENCE`]; endpoints not before their clusters, which
    /// would be left empty.
    fn removals_due(&self, kind: Kind) -> Option<Instant> {
        let since = self.leaving_since.filter(|_| !self.kinds[kind as usize].leaving.is_empty())?;
        let unused = [Kind::Listener, Kind::Route].iter().all(|user| self.kinds[*user as usize].is_quiet());
        let due = if unused { since } else { since + PATIENCE };
        let own = self.kinds[kind as usize].acks.blocked_until();
        let clusters = &self.kinds[Kind::Cluster as usize];
        let clusters = match kind {
            // Their removal may be among the changes that wait.
            Kind::Endpoints if clusters.is_waiting() => clusters.acks.blocked_until(),
            Kind::Endpoints => self.removals_due(Kind::Cluster),
            _ => None,
        };
        own.into_iter().chain(clusters).chain([due]).max()
    }

    fn remove(&mut self, kind: Kind, now: Instant, view: &View, out: &mut Vec<DeltaDiscoveryResponse>) {
        let subscription = &mut self.kinds[kind as usize];
        let mut response = Responses::new(kind, now, view, out);
        for name in std::mem::take(&mut subscription.leaving) {
            let held = subscription.entries.get(&name).is_some_and(|entry| matches!(entry.held, Held::Version(_)));
            if held && subscription.find(kind, &name, view).is_none() {
                response.removal(&mut self.stream, subscription, name);
            }
        }
        response.finish(&mut self.stream, subscription, false);
    }

    fn is_all_sent(&self) -> bool {
        self.unknown.is_empty()
            && self.kinds.iter().all(|s| !s.is_waiting() && s.owed.is_empty() && s.leaving.is_empty() && !s.greet)
    }

    fn settle(&mut self) {
        settle(&mut self.stream, self.kinds.iter().map(|subscription| &subscription.acks));
    }
}
