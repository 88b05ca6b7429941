//! Replicas with clocks of different speed and a network that loses, delays and cuts, in simulated time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::kubernetes::fake_api::Fault;
use crate::kubernetes::time::simulated::SimulatedTime;

const REPLICAS: [&str; 3] = ["a", "b", "c"];
/// Simulated time of one run.
const RUN: Duration = Duration::from_mins(10);

/// One replica of a run.
struct Replica {
    leading: watch::Receiver<bool>,
    stop: watch::Sender<bool>,
    cut_off: Arc<AtomicBool>,
}

fn start(api: &FakeApi, time: &SimulatedTime, name: &str, seed: u64) -> Replica {
    let mut chance = fastrand::Rng::with_seed(seed);
    let time = time.drifting(0.9 + 0.2 * chance.f64());
    let chance = Mutex::new(chance);
    let cut_off = Arc::new(AtomicBool::new(false));
    let (cut, network) = (Arc::clone(&cut_off), time.clone());
    let client = api.client_with(move |_| {
        let mut chance = chance.lock().unwrap();
        if cut.load(Ordering::Relaxed) || chance.u8(..100) < 5 {
            return Fault::Silence { done: chance.bool() };
        }
        let mut delay = || {
            let longest = if chance.u8(..100) < 10 { 12_000 } else { 200 };
            Duration::from_millis(chance.u64(..longest))
        };
        let slept = |duration| {
            let network = network.clone();
            Box::pin(async move { network.sleep(duration).await })
        };
        Fault::Slow(slept(delay()), slept(delay()))
    });
    let (leads, leading) = watch::channel(false);
    let leases = Api::namespaced(client, "weft-system");
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(Candidate { leases, election: Election::new(name), time, leads }.run(stopped));
    Replica { leading, stop, cut_off }
}

/// What a run showed.
#[derive(Default)]
struct Seen {
    terms: u32,
    with_leader: Duration,
}

async fn run(seed: u64, replicas: usize) -> Seen {
    let (api, time) = (FakeApi::new(), SimulatedTime::new());
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut all: Vec<_> = (0..replicas).map(|index| start(&api, &time, REPLICAS[index], chance.u64(..))).collect();
    let (mut seen, mut before) = (Seen::default(), None);
    // Belief and wait differ by seconds: nothing is missed between looks.
    let look = Duration::from_millis(500);
    while time.passed() < RUN {
        time.pass(look).await;
        let leaders: Vec<_> = (0..replicas).filter(|index| *all[*index].leading.borrow()).collect();
        assert!(leaders.len() <= 1, "seed {seed}: {leaders:?} lead at {:?}", time.passed());
        let leader = leaders.first().copied();
        seen.with_leader += if leader.is_some() { look } else { Duration::ZERO };
        seen.terms += u32::from(leader.is_some() && leader != before);
        before = leader.or(before);
        let whom = chance.usize(..replicas);
        match chance.u16(..800) {
            0..16 => all[whom].cut_off.store(true, Ordering::Relaxed),
            16..80 => all[whom].cut_off.store(false, Ordering::Relaxed),
            // It ends, and another of another name comes in its place.
            80..86 => {
                let name = format!("{}-{}", REPLICAS[whom], chance.u32(..));
                let mut gone = std::mem::replace(&mut all[whom], start(&api, &time, &name, chance.u64(..)));
                gone.stop.send_replace(true);
                time.pass(2 * RELEASE_LIMIT).await;
                assert!(!*gone.leading.borrow_and_update(), "seed {seed}: its last word is that it leads");
                assert!(gone.leading.changed().await.is_err(), "seed {seed}");
            }
            _ => {}
        }
    }
    seen
}

#[tokio::test]
async fn there_is_never_more_than_one_leader_and_mostly_one() {
    let (mut terms, mut with_leader, mut runs) = (0, Duration::ZERO, 0);
    for seed in 0..20 {
        for replicas in [2, 3] {
            let seen = run(seed, replicas).await;
            terms += seen.terms;
            with_leader += seen.with_leader;
            runs += 1;
        }
    }
    // Else the runs show nothing: the lead must change, and there must be one.
    assert!(terms > 4 * runs, "{terms} terms in {runs} runs");
    let share = with_leader.as_secs_f64() / (RUN.as_secs_f64() * f64::from(runs));
    assert!(share > 0.5, "a leader for {share:.2} of the time");
}
