//! Rules of one replica, and whole elections on a server of tests with a bad network.

mod simulation;

use serde_json::json;
use weft_proxy::clock;

use super::*;
use crate::kubernetes::fake_api::FakeApi;

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/weft-system/leases/weft-leader";
const WALL: SystemTime = SystemTime::UNIX_EPOCH;

fn lease(version: &str, holder: Option<&str>, seconds: Option<i32>) -> Lease {
    Lease {
        metadata: ObjectMeta { resource_version: Some(version.to_owned()), ..ObjectMeta::default() },
        spec: Some(LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: seconds,
            lease_transitions: Some(4),
            ..LeaseSpec::default()
        }),
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_lease_that_is_missing_free_or_ours_is_taken_at_once() {
    let now = clock::now();
    let cases = [
        ("missing", None, 1),
        ("free", Some(lease("1", None, Some(1))), 5),
        ("given back", Some(lease("1", Some(""), Some(1))), 5),
        ("ours", Some(lease("1", Some("a"), Some(15))), 4),
    ];
    for (what, seen, transitions) in cases {
        let mut election = Election::new("a");
        let spec = match election.decide(seen, now, WALL) {
            Step::Create(lease) | Step::Replace(lease) => lease.spec.unwrap(),
            Step::Wait => panic!("{what}: waits"),
        };
        assert_eq!(spec.holder_identity.as_deref(), Some("a"), "{what}");
        assert_eq!(spec.lease_duration_seconds, Some(15), "{what}");
        assert_eq!(spec.lease_transitions, Some(transitions), "{what}");
    }
}

#[test]
fn anothers_lease_is_respected_for_its_duration_after_its_last_change() {
    let start = clock::now();
    // What it says, and for how long it is respected.
    for (said, respected) in [(Some(15), 15), (Some(40), 40), (None, 15), (Some(0), 15), (Some(-3), 15)] {
        let mut election = Election::new("a");
        let mut looks = |version: &str, at: u64| {
            let step = election.decide(Some(lease(version, Some("b"), said)), start + seconds(at), WALL);
            matches!(step, Step::Replace(_))
        };
        assert!(!looks("1", 0) && !looks("1", respected - 1), "{said:?}");
        // Renewed just before.
        assert!(!looks("2", respected - 1) && !looks("2", 2 * respected - 2), "{said:?}");
        assert!(looks("2", 2 * respected - 1), "{said:?}");
    }
}

#[test]
fn belief_begins_when_the_renewal_was_sent_and_ends_when_another_has_it() {
    let start = clock::now();
    let mut election = Election::new("a");
    assert!(!election.leads(start));
    election.written(lease("1", Some("a"), Some(15)), start);
    assert!(election.leads(start + seconds(9)) && !election.leads(start + BELIEF));
    let step = election.decide(Some(lease("2", Some("b"), Some(15))), start + seconds(1), WALL);
    assert!(matches!(step, Step::Wait) && !election.leads(start + seconds(1)));
    assert!(election.released(WALL).is_none(), "another's Lease must not be given back");
}

#[test]
fn a_deleted_lease_is_left_to_who_held_it() {
    let start = clock::now();
    let mut election = Election::new("a");
    assert!(matches!(election.decide(Some(lease("1", Some("b"), Some(15))), start, WALL), Step::Wait));
    assert!(matches!(election.decide(None, start + seconds(14), WALL), Step::Wait));
    assert!(matches!(election.decide(None, start + seconds(15), WALL), Step::Create(_)));
}

#[tokio::test]
async fn a_stopped_leader_gives_the_lease_back_and_closes_its_answer() {
    let api = FakeApi::new();
    let (stop, stopped) = watch::channel(false);
    let mut leading = hold(api.client(), "weft-system", "a", stopped);
    leading.wait_for(|leads| *leads).await.unwrap();
    assert_eq!(api.get(PATH).unwrap()["spec"]["holderIdentity"], "a");
    stop.send_replace(true);
    leading.wait_for(|leads| !*leads).await.unwrap();
    assert!(leading.changed().await.is_err());
    let spec = api.get(PATH).unwrap()["spec"].clone();
    assert_eq!((&spec["holderIdentity"], &spec["leaseDurationSeconds"]), (&json!(null), &json!(1)));
}
