//! The state-of-the-world variant: each request lists all names, each response of listeners and clusters all resources.
//!
//! Absence from such a response is a deletion, so they always hold everything asked for, and are not split. Endpoints and
//! routes cannot be deleted in this variant, and only the changed ones are sent. A missing name cannot be told either: the
//! client finds out by waiting. See [`super`] for the rules of both variants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use weft_proto::discovery::{Any, DiscoveryRequest, DiscoveryResponse, Node};

use super::{Acks, Contents, PATIENCE, RESPONSE_LIMIT, Session, Standing, Star, Stream, Violation, settle, standing};
use crate::world::{Changes, Interest, Kind, Resource, View, content_hash};

/// What the client asked for of one type, and what it was sent.
#[derive(Debug, Default)]
struct Subscription {
    opened: bool,
    wildcard: bool,
    /// A name has been asked for on this stream: an empty list no longer means everything.
    explicit: bool,
    names: BTreeSet<Arc<str>>,
    /// What the client has, bodies included: a cluster that is gone is repeated until its users are.
    held: BTreeMap<Arc<str>, Resource>,
    /// To be answered, changed or not.
    owed: BTreeSet<Arc<str>>,
    /// To be sent, changed or not, if there: endpoints of a changed cluster.
    following: BTreeSet<Arc<str>>,
    changed: BTreeSet<Arc<str>>,
    /// To compare all.
    scan: bool,
    /// The answer to the first request is due.
    greet: bool,
    acks: Acks,
}

impl Subscription {
    fn asks_for(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    fn is_waiting(&self) -> bool {
        self.scan || !self.changed.is_empty()
    }

    fn is_quiet(&self) -> bool {
        !self.is_waiting() && self.acks.in_flight.is_empty()
    }

    fn has_current(&self, resource: &Resource) -> bool {
        self.held.get(&resource.name).is_some_and(|held| held.version == resource.version)
    }

    /// All resources asked for that exist.
    fn target<'v>(&self, kind: Kind, view: &'v View) -> Vec<&'v Resource> {
        if self.wildcard {
            view.all(kind).collect()
        } else {
            self.names.iter().filter_map(|name| view.get(kind, name)).collect()
        }
    }

    fn send(
        &mut self,
        kind: Kind,
        stream: &mut Stream,
        now: Instant,
        contents: Contents,
        resources: Vec<Any>,
    ) -> DiscoveryResponse {
        let (sequence, nonce) = stream.next_nonce();
        self.acks.sent(sequence, contents, now);
        let version_info = version_of(self.held.values());
        DiscoveryResponse { version_info, resources, type_url: kind.type_url().to_owned(), nonce }
    }

    /// Everything the client has or is to have.
    fn send_all(&mut self, kind: Kind, stream: &mut Stream, now: Instant, contents: Contents) -> DiscoveryResponse {
        let resources = self.held.values().map(payload).collect();
        self.send(kind, stream, now, contents, resources)
    }
}

/// The server side of one state-of-the-world stream.
#[derive(Debug)]
pub struct Sotw {
    stream: Stream,
    kinds: [Subscription; Kind::ALL.len()],
    /// Since when clusters that are gone wait for their users.
    leaving_since: Option<Instant>,
}

impl Session for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    /// Whoever is sent all resources with each change has no use for another meaning of `*`.
    fn new(salt: u64, _star: Star) -> Self {
        Self { stream: Stream::new(salt), kinds: Default::default(), leaving_since: None }
    }

    fn node(request: &DiscoveryRequest) -> Option<&Node> {
        request.node.as_ref()
    }

    fn request(&mut self, request: DiscoveryRequest, now: Instant) -> Result<Vec<Interest>, Violation> {
        // A type we do not serve is not answered: in this variant an empty answer would say something.
        let kind = Kind::from_type_url(&request.type_url).filter(|kind| kind.is_of_whole_state());
        let Some(kind) = kind else { return Ok(Vec::new()) };
        let subscription = &mut self.kinds[kind as usize];
        if let Some(sequence) = self.stream.sequence_of(&request.response_nonce) {
            let Subscription { acks, held, .. } = subscription;
            acks.judge(kind, sequence, request.error_detail.as_ref(), now, |name| held.contains_key(name));
        }
        if !std::mem::replace(&mut subscription.opened, true) {
            subscription.greet = true;
        }
        let mut interests = Vec::new();
        self.ask_for(kind, request.resource_names, &mut interests)?;
        settle(&mut self.stream, self.kinds.iter().map(|s| &s.acks));
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

    fn flush(&mut self, now: Instant, view: &View) -> Vec<DiscoveryResponse> {
        let mut out = Vec::new();
        let clusters = self.push_all(Kind::Cluster, now, view, &mut out);
        let endpoints = &mut self.kinds[Kind::Endpoints as usize];
        let followed: Vec<Arc<str>> = clusters.into_iter().filter(|name| endpoints.asks_for(name)).collect();
        endpoints.following.extend(followed);
        self.push_changed(Kind::Endpoints, now, view, &mut out);
        self.push_all(Kind::Listener, now, view, &mut out);
        self.push_changed(Kind::Route, now, view, &mut out);
        if self.removals_due().is_some_and(|due| due <= now) {
            self.remove_clusters(now, view, &mut out);
        }
        if self.is_all_sent() {
            self.stream.all_sent();
        }
        settle(&mut self.stream, self.kinds.iter().map(|s| &s.acks));
        out
    }

    fn wake_at(&self) -> Option<Instant> {
        let waiting = self.kinds.iter().filter(|s| s.is_waiting()).filter_map(|s| s.acks.blocked_until());
        waiting.chain(self.removals_due()).min()
    }

    fn standing(&self) -> Standing {
        let opened = self.kinds.iter().any(|subscription| subscription.opened);
        standing(&self.stream, self.kinds.iter().map(|s| &s.acks), opened && self.is_all_sent())
    }
}

impl Sotw {
    /// Takes in the names of a request, which are all the client wants from now on.
    fn ask_for(&mut self, kind: Kind, names: Vec<String>, interests: &mut Vec<Interest>) -> Result<(), Violation> {
        let subscription = &mut self.kinds[kind as usize];
        subscription.explicit |= !names.is_empty();
        let wildcard = names.iter().any(|name| name == "*") || (kind.has_legacy_wildcard() && !subscription.explicit);
        if wildcard != subscription.wildcard {
            subscription.wildcard = wildcard;
            subscription.greet |= wildcard;
            interests.push(if wildcard { Interest::Wildcard(kind) } else { Interest::NotWildcard(kind) });
        }
        let names: BTreeSet<Arc<str>> = names.into_iter().filter(|name| name != "*").map(Arc::from).collect();
        for name in names.difference(&subscription.names) {
            self.stream.name_added(name)?;
            subscription.owed.insert(name.clone());
            interests.push(Interest::Name(kind, name.clone()));
        }
        for name in subscription.names.difference(&names) {
            self.stream.name_dropped(name);
            subscription.acks.forget(name);
            interests.push(Interest::NotName(kind, name.clone()));
        }
        subscription.names = names;
        let asked = |name: &Arc<str>| wildcard || subscription.names.contains(name);
        subscription.held.retain(|name, _| asked(name));
        for waiting in [&mut subscription.owed, &mut subscription.following, &mut subscription.changed] {
            waiting.retain(asked);
        }
        Ok(())
    }

    /// Sends all listeners or clusters if one of them changed; returns the names of those that did.
    fn push_all(&mut self, kind: Kind, now: Instant, view: &View, out: &mut Vec<DiscoveryResponse>) -> Vec<Arc<str>> {
        let subscription = &mut self.kinds[kind as usize];
        let owed = std::mem::take(&mut subscription.greet) | !std::mem::take(&mut subscription.owed).is_empty();
        if !owed && (!subscription.is_waiting() || subscription.acks.is_blocked(now)) {
            return Vec::new();
        }
        subscription.changed.clear();
        subscription.scan = false;
        let target = subscription.target(kind, view);
        let changed: Vec<&Resource> = target.iter().filter(|r| !subscription.has_current(r)).copied().collect();
        let changed_names: Vec<Arc<str>> = changed.iter().map(|resource| resource.name.clone()).collect();
        subscription.held.extend(changed.into_iter().map(|resource| (resource.name.clone(), resource.clone())));
        let mut contents = Contents { sent: changed_names.clone(), removed: Vec::new() };
        if subscription.held.len() > target.len() {
            if kind == Kind::Cluster {
                self.leaving_since.get_or_insert(now);
            } else {
                let gone = subscription.held.extract_if(.., |name, _| view.get(kind, name).is_none());
                contents.removed.extend(gone.map(|(name, _)| name));
            }
        }
        if owed || contents.len() > 0 {
            out.push(subscription.send_all(kind, &mut self.stream, now, contents));
        }
        changed_names
    }

    /// Sends the endpoints or routes that changed or are owed.
    fn push_changed(&mut self, kind: Kind, now: Instant, view: &View, out: &mut Vec<DiscoveryResponse>) {
        let subscription = &mut self.kinds[kind as usize];
        let mut wanted = std::mem::take(&mut subscription.owed);
        wanted.append(&mut subscription.following);
        if std::mem::take(&mut subscription.greet) && subscription.wildcard {
            wanted.extend(view.all(kind).map(|resource| resource.name.clone()));
        }
        if !subscription.acks.is_blocked(now) {
            if std::mem::take(&mut subscription.scan) {
                let all = subscription.target(kind, view).into_iter().map(|resource| resource.name.clone());
                subscription.changed.extend(all.chain(subscription.held.keys().cloned()));
            }
            for name in std::mem::take(&mut subscription.changed) {
                match view.get(kind, &name) {
                    Some(resource) if subscription.has_current(resource) => {}
                    Some(_) => {
                        wanted.insert(name);
                    }
                    // The client keeps it, but when it returns, it is sent.
                    None => {
                        subscription.held.remove(&name);
                    }
                }
            }
        }
        let mut contents = Contents::default();
        let mut resources = Vec::new();
        let mut size = 0;
        for resource in wanted.iter().filter_map(|name| view.get(kind, name)) {
            if size > 0 && size + resource.size() > RESPONSE_LIMIT {
                let (contents, resources) = (std::mem::take(&mut contents), std::mem::take(&mut resources));
                out.push(subscription.send(kind, &mut self.stream, now, contents, resources));
                size = 0;
            }
            size += resource.size();
            subscription.changed.remove(&resource.name);
            subscription.held.insert(resource.name.clone(), resource.clone());
            contents.sent.push(resource.name.clone());
            resources.push(payload(resource));
        }
        if contents.len() > 0 {
            out.push(subscription.send(kind, &mut self.stream, now, contents, resources));
        }
    }

    /// When clusters that are gone may be left out; as in the incremental variant.
    fn removals_due(&self) -> Option<Instant> {
        let since = self.leaving_since?;
        let unused = [Kind::Listener, Kind::Route].iter().all(|user| self.kinds[*user as usize].is_quiet());
        let due = if unused { since } else { since + PATIENCE };
        self.kinds[Kind::Cluster as usize].acks.blocked_until().into_iter().chain([due]).max()
    }

    fn remove_clusters(&mut self, now: Instant, view: &View, out: &mut Vec<DiscoveryResponse>) {
        self.leaving_since = None;
        let subscription = &mut self.kinds[Kind::Cluster as usize];
        let gone = subscription.held.extract_if(.., |name, _| view.get(Kind::Cluster, name).is_none());
        let contents = Contents { sent: Vec::new(), removed: gone.map(|(name, _)| name).collect() };
        if contents.len() > 0 {
            out.push(subscription.send_all(Kind::Cluster, &mut self.stream, now, contents));
        }
    }

    fn is_all_sent(&self) -> bool {
        self.leaving_since.is_none()
            && self.kinds.iter().all(|s| !s.is_waiting() && s.owed.is_empty() && s.following.is_empty() && !s.greet)
    }
}

fn payload(resource: &Resource) -> Any {
    Any { type_url: resource.type_url.to_owned(), value: resource.body.clone() }
}

/// The version of a set: a hash of what is in it, as for a single resource.
fn version_of<'a>(resources: impl Iterator<Item = &'a Resource>) -> String {
    let mut content = Vec::new();
    for resource in resources {
        content.extend_from_slice(resource.name.as_bytes());
        content.push(0);
        content.extend_from_slice(resource.version.as_bytes());
        content.push(0);
    }
    content_hash(&content).to_string()
}
