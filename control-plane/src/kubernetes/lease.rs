//! Which replica writes: the holder of Lease `weft-leader`.
//!
//! The Lease's own times are for people. What counts is each replica's monotonic clock: a holder believes in its lead for
//! [`BELIEF`] from the moment it *sent* its last successful renewal; the others wait for the whole [`DURATION`] from the
//! moment they *saw* the last change. Sent is before written is before seen, and the belief is shorter than the wait by a
//! third, which is the room for clocks that run at different speeds and for writes that are under way when the lead
//! ends. Every write carries the version it was decided on, so that of two replicas that want the Lease one gets it.
//!
//! Somebody who deletes the Lease gives it free: a replica that never saw it takes it at once.

use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;

use super::names;
use super::time::{RealTime, Time, sleep_until, within};

/// How long a Lease holds after its last renewal.
const DURATION: Duration = Duration::from_secs(15);
/// How long its holder believes in it.
const BELIEF: Duration = Duration::from_secs(10);
/// Pause between looks at the Lease; a holder has four tries before its belief ends.
const PAUSE: Duration = Duration::from_secs(2);
/// For one look and one write.
const ROUND_LIMIT: Duration = Duration::from_secs(3);
/// For giving the Lease back.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);

/// Takes part in the election as `holder`, a name no other process has (the pod's), until `stop`. The answer tells whether
/// this replica leads; it is closed once the Lease is given back.
///
/// The answer turns `false` by itself when the lead may have ended, however long the API server is silent.
pub fn hold(client: Client, namespace: &str, holder: &str, stop: watch::Receiver<bool>) -> watch::Receiver<bool> {
    let (leads, leading) = watch::channel(false);
    let leases = Api::namespaced(client, namespace);
    let candidate = Candidate { leases, election: Election::new(holder), time: RealTime, leads };
    tokio::spawn(candidate.run(stop));
    leading
}

/// One replica in the election.
struct Candidate<T> {
    leases: Api<Lease>,
    election: Election,
    time: T,
    leads: watch::Sender<bool>,
}

impl<T: Time> Candidate<T> {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = self.turn() => {}
                // A sender that is gone stops as well.
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        self.release().await;
    }

    /// One look at the Lease and the pause after it; the lead ends in the middle of either if it must.
    async fn turn(&mut self) {
        let Self { leases, election, time, leads } = self;
        let believed = election.until;
        let round = async {
            match within(time, ROUND_LIMIT, round(leases, election, time)).await {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::warn!(%error, "cannot reach Lease {}", names::LEADER_LEASE),
                None => tracing::warn!("no answer about Lease {} within {ROUND_LIMIT:?}", names::LEADER_LEASE),
            }
        };
        lowering(time, leads, believed, round).await;
        set(leads, election.leads(time.now()));
        lowering(time, leads, election.until, time.sleep(PAUSE)).await;
    }

    /// Gives the Lease back, after the lead has ended: the next replica need not wait for it.
    async fn release(mut self) {
        set(&self.leads, false);
        let Some(lease) = self.election.released(self.time.wall()) else { return };
        let parameters = PostParams::default();
        let giving = self.leases.replace(names::LEADER_LEASE, &parameters, &lease);
        if let Some(Err(error)) = within(&self.time, RELEASE_LIMIT, giving).await {
            tracing::debug!(%error, "the Lease was not given back, it runs out");
        }
    }
}

/// Reads the Lease and writes it if it is to be ours.
async fn round<T: Time>(leases: &Api<Lease>, election: &mut Election, time: &T) -> Result<(), kube::Error> {
    let seen = leases.get_opt(names::LEADER_LEASE).await?;
    let sent = time.now();
    let result = match election.decide(seen, sent, time.wall()) {
        Step::Wait => return Ok(()),
        Step::Create(lease) => leases.create(&PostParams::default(), &lease).await,
        Step::Replace(lease) => leases.replace(names::LEADER_LEASE, &PostParams::default(), &lease).await,
    };
    match result {
        Ok(lease) => {
            election.written(lease, sent);
            Ok(())
        }
        // Another was first; the next look shows who.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error),
    }
}

/// Does `work`, and says that the lead is over as soon as `until` has come.
async fn lowering<T: Time, W: Future<Output = ()>>(
    time: &T,
    leads: &watch::Sender<bool>,
    until: Option<Instant>,
    work: W,
) {
    let mut work = std::pin::pin!(work);
    // Without a lead there is nothing to end.
    tokio::select! {
        () = &mut work => return,
        () = sleep_until(time, until) => {}
    }
    set(leads, false);
    work.await;
}

fn set(leads: &watch::Sender<bool>, lead: bool) {
    let changed = leads.send_if_modified(|now| std::mem::replace(now, lead) != lead);
    if changed {
        tracing::info!(lead, "leadership changed");
    }
}

/// What a replica knows of the Lease, and what follows from it.
#[derive(Debug)]
struct Election {
    holder: String,
    observed: Option<Observed>,
    /// Until when we believe to lead.
    until: Option<Instant>,
    /// The Lease as we wrote it last, while it may be ours.
    held: Option<Lease>,
}

/// The Lease as somebody else left it.
#[derive(Debug)]
struct Observed {
    version: Option<String>,
    /// When we saw this version first.
    at: Instant,
    /// How long it is to be respected from then.
    duration: Duration,
}

#[derive(Debug)]
enum Step {
    Wait,
    Create(Lease),
    Replace(Lease),
}

impl Election {
    fn new(holder: &str) -> Self {
        Self { holder: holder.to_owned(), observed: None, until: None, held: None }
    }

    /// Whether we lead, as far as we know.
    fn leads(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// What to do about the Lease as it was just `seen`.
    fn decide(&mut self, seen: Option<Lease>, now: Instant, wall: SystemTime) -> Step {
        let Some(mut lease) = seen else {
            // Deleted: who held it does not know yet.
            if self.observed.as_ref().is_some_and(|observed| observed.holds(now)) {
                return Step::Wait;
            }
            let metadata = ObjectMeta { name: Some(names::LEADER_LEASE.to_owned()), ..ObjectMeta::default() };
            return Step::Create(Lease { metadata, spec: Some(self.spec(None, wall)) });
        };
        let spec = lease.spec.take().unwrap_or_default();
        match spec.holder_identity.as_deref().filter(|holder| !holder.is_empty()) {
            Some(holder) if holder != self.holder => {
                // Whatever we believed: it was taken from us.
                self.until = None;
                self.held = None;
                self.observe(lease.metadata.resource_version.as_ref(), &spec, now);
                if self.observed.as_ref().is_some_and(|observed| observed.holds(now)) {
                    return Step::Wait;
                }
            }
            _ => self.observed = None,
        }
        lease.spec = Some(self.spec(Some(spec), wall));
        Step::Replace(lease)
    }

    fn observe(&mut self, version: Option<&String>, spec: &LeaseSpec, now: Instant) {
        if self.observed.as_ref().is_some_and(|observed| observed.version.as_ref() == version) {
            return;
        }
        let duration = spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .filter(|seconds| *seconds > 0)
            .map_or(DURATION, Duration::from_secs);
        self.observed = Some(Observed { version: version.cloned(), at: now, duration });
    }

    /// Our write of the Lease, sent at `sent`, was taken.
    fn written(&mut self, lease: Lease, sent: Instant) {
        self.until = Some(sent + BELIEF);
        self.observed = None;
        self.held = Some(lease);
    }

    /// The Lease given back, if it may be ours. We no longer believe in it.
    fn released(&mut self, wall: SystemTime) -> Option<Lease> {
        self.until = None;
        let mut lease = self.held.take()?;
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = timestamp(wall);
        Some(lease)
    }

    /// The Lease as ours, from what it was.
    fn spec(&self, before: Option<LeaseSpec>, wall: SystemTime) -> LeaseSpec {
        let before = before.unwrap_or_default();
        let ours = before.holder_identity.as_ref() == Some(&self.holder);
        let transitions = before.lease_transitions.unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if ours { before.acquire_time } else { timestamp(wall) },
            renew_time: timestamp(wall),
            lease_transitions: Some(if ours { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }
}

impl Observed {
    fn holds(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < self.duration
    }
}

fn timestamp(wall: SystemTime) -> Option<MicroTime> {
    Timestamp::try_from(wall).ok().map(MicroTime)
}

#[cfg(test)]
mod tests;
