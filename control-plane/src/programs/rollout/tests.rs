use std::collections::BTreeSet;

use fastrand::Rng;

use super::*;

const OURS: &str = "0f";

fn program() -> Facts {
    Facts { architecture: "x86_64", version: "1.2.0".into(), digest: OURS.into(), size: 9 }
}

fn running(workload: &str) -> Running {
    Running {
        workload: workload.into(),
        version: "1.1.0".into(),
        digest: "ee".into(),
        architecture: "x86_64".into(),
        replaceable: true,
    }
}

fn has_it(workload: &str) -> Running {
    Running { digest: OURS.into(), version: "1.2.0".into(), ..running(workload) }
}

/// A rollout that may begin, and the time.
fn begun() -> (Rollout, Instant) {
    let now = weft_proxy::clock::now();
    let mut rollout = Rollout::new([program()].iter(), now);
    rollout.follow(ProxyUpgrade::Live);
    (rollout, now + SETTLING)
}

fn asked(rollout: &mut Rollout, now: Instant) -> Vec<Arc<str>> {
    rollout.ask(now).into_iter().map(|ask| ask.workload).collect()
}

const fn everywhere(_: &str) -> bool {
    true
}

#[test]
fn only_proxies_that_can_have_the_program_are_asked_and_when_the_mesh_says_so() {
    let cases = [
        ("one that is outdated", running("a/b"), true),
        ("of the same version, built otherwise", Running { version: "1.2.0".into(), ..running("a/b") }, true),
        ("of a version before this one's release", Running { version: "1.2.0-rc.1".into(), ..running("a/b") }, true),
        ("of a newer version", Running { version: "1.10.0".into(), ..running("a/b") }, false),
        ("of a version nobody can compare", Running { version: "new".into(), ..running("a/b") }, false),
        ("of this program", has_it("a/b"), false),
        ("of another machine", Running { architecture: "aarch64".into(), ..running("a/b") }, false),
        ("that cannot be replaced", Running { replaceable: false, ..running("a/b") }, false),
    ];
    for (what, proxy, is_asked) in cases {
        let (mut rollout, now) = begun();
        rollout.observe(std::slice::from_ref(&proxy), everywhere, now);
        let early = now.checked_sub(SETTLING).unwrap();
        assert_eq!(rollout.next(early), Some(now), "{what}");
        assert!(rollout.ask(early).is_empty(), "{what}: before the proxies have gathered");
        rollout.follow(ProxyUpgrade::OnRestart);
        assert!(rollout.ask(now).is_empty(), "{what}: nobody wants it");
        rollout.follow(ProxyUpgrade::Live);
        let expected: Vec<Ask> =
            is_asked.then(|| Ask { workload: "a/b".into(), program: program() }).into_iter().collect();
        assert_eq!(rollout.ask(now), expected, "{what}");
        assert!(rollout.ask(now).is_empty(), "{what}: twice");
    }
}

#[test]
fn nobody_follows_before_the_first_has_kept_the_program() {
    let (mut rollout, mut now) = begun();
    let all: Vec<Running> = (0..100).map(|index| running(&format!("n{}/p{index}", index % 3))).collect();
    rollout.observe(&all, everywhere, now);
    let canary = asked(&mut rollout, now);
    assert_eq!(canary.len(), 1);
    rollout.answered(&canary[0], OURS, Outcome::Upgraded, now);
    assert!(asked(&mut rollout, now).is_empty(), "it has not come back");
    let mut all: Vec<Running> =
        all.into_iter().map(|proxy| if proxy.workload == canary[0] { has_it(&canary[0]) } else { proxy }).collect();
    rollout.observe(&all, everywhere, now);
    assert!(asked(&mut rollout, now).is_empty(), "it has not kept it");
    now = rollout.next(now).unwrap();
    let second = asked(&mut rollout, now);
    let home = canary[0].split_once('/').unwrap().0;
    let at_home = second.iter().filter(|workload| workload.starts_with(home)).count();
    assert_eq!((second.len(), at_home), (10, 8), "a tenth, of them one in each namespace that has none yet");
    for workload in &second {
        rollout.answered(workload, OURS, Outcome::Upgraded, now);
        all.retain(|proxy| proxy.workload != *workload);
        all.push(has_it(workload));
    }
    rollout.observe(&all, everywhere, now);
    now += WATCH;
    assert_eq!(asked(&mut rollout, now).len(), 10);
    let counts = rollout.trials()[0].counts();
    assert_eq!((counts.connected, counts.outdated, counts.under_way, counts.replaced), (100, 89, 10, 11));
}

#[test]
fn a_failure_ends_it_and_a_pod_that_goes_is_none() {
    type Story = fn(&mut Rollout, &str, Instant) -> Instant;
    let cases: [(&str, Story, Option<&str>); 5] = [
        (
            "it refuses",
            |rollout, canary, now| {
                rollout.answered(canary, OURS, Outcome::Refused("no memory".into()), now);
                now
            },
            Some("it refused: no memory"),
        ),
        (
            "it answers and never comes back",
            |rollout, canary, now| {
                rollout.answered(canary, OURS, Outcome::Upgraded, now);
                rollout.observe(&[running("a/other")], everywhere, now + RETURN);
                now + RETURN
            },
            Some("it did not come back with the program within 120 s"),
        ),
        (
            "it falls silent and comes back as it was",
            |rollout, canary, now| {
                rollout.answered(canary, OURS, Outcome::Silent, now);
                rollout.observe(&[running(canary), running("a/other")], everywhere, now + RETURN);
                now + RETURN
            },
            Some("it did not come back with the program within 120 s"),
        ),
        (
            "it goes back to another program",
            |rollout, canary, now| {
                rollout.answered(canary, OURS, Outcome::Upgraded, now);
                rollout.observe(&[has_it(canary), running("a/other")], everywhere, now);
                rollout.observe(&[running("a/other")], everywhere, now);
                let now = now + WATCH / 2;
                rollout.observe(&[running(canary), running("a/other")], everywhere, now);
                now
            },
            Some("it went back to another program after it had this one"),
        ),
        (
            "its pod is deleted",
            |rollout, canary, now| {
                rollout.answered(canary, OURS, Outcome::Silent, now);
                let canary = canary.to_owned();
                rollout.observe(&[running("a/other")], move |workload| workload != canary, now);
                now
            },
            None,
        ),
    ];
    for (what, story, expected) in cases {
        let (mut rollout, now) = begun();
        rollout.observe(&[running("a/canary")], everywhere, now);
        let canary = asked(&mut rollout, now);
        rollout.observe(&[running("a/canary"), running("a/other")], everywhere, now);
        let now = story(&mut rollout, &canary[0], now);
        let next = asked(&mut rollout, now);
        let stopped = rollout.trials()[0].stopped.clone();
        assert_eq!(stopped.as_ref().map(|stopped| stopped.why.as_str()), expected, "{what}");
        assert_eq!(next.is_empty(), expected.is_some(), "{what}");
        let failures = rollout.take_news().into_iter().filter(|news| matches!(news, News::Failed { .. })).count();
        assert_eq!(failures, usize::from(expected.is_some()), "{what}");
        // Taken back and asked for again, it begins anew.
        rollout.follow(ProxyUpgrade::OnRestart);
        rollout.follow(ProxyUpgrade::Live);
        assert_eq!(asked(&mut rollout, now).len(), usize::from(expected.is_some()), "{what}");
    }
}

#[test]
fn a_proxy_that_another_replica_gave_its_program_is_left_alone() {
    let (mut rollout, now) = begun();
    rollout.observe(&[has_it("a/b")], everywhere, now);
    rollout.observe(&[running("a/b")], everywhere, now);
    assert!(asked(&mut rollout, now).is_empty());
    assert_eq!(rollout.trials()[0].stopped, None, "that is no failure");
}

#[test]
fn of_two_programs_of_one_workload_the_new_one_counts() {
    let (mut rollout, now) = begun();
    rollout.observe(&[running("a/b")], everywhere, now);
    assert_eq!(asked(&mut rollout, now).len(), 1);
    // Its stream is open before the old one has answered.
    rollout.observe(&[has_it("a/b"), running("a/b")], everywhere, now);
    rollout.answered("a/b", OURS, Outcome::Silent, now);
    assert_eq!(rollout.trials()[0].stage("a/b"), Some(&Stage::Replaced(now)));
    assert_eq!(rollout.take_news(), [News::Replaced { workload: "a/b".into() }]);
}

/// How a proxy of the simulation takes a question.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Replaces,
    Refuses,
    NeverReturns,
    Relapses,
    IsDeleted,
}

#[derive(Debug)]
struct Simulated {
    proxy: Running,
    is_here: bool,
    /// What happens next, and when.
    due: Option<(Instant, Step)>,
    /// Asked, and nothing is known of the end yet.
    since: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Answer(Fate),
    Return(Fate),
    Relapse,
}

struct Simulation {
    rng: Rng,
    rollout: Rollout,
    now: Instant,
    proxies: Vec<Simulated>,
    gone: BTreeSet<Arc<str>>,
    asked: BTreeSet<Arc<str>>,
    failures: f64,
}

impl Simulation {
    fn new(seed: u64, failures: f64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let (rollout, now) = begun();
        let namespaces = rng.usize(1..6);
        let proxy = |index: usize, rng: &mut Rng| {
            let mut proxy = running(&format!("n{}/p{index}", rng.usize(0..namespaces)));
            match rng.u8(0..20) {
                0 => proxy.replaceable = false,
                1 => proxy.architecture = "aarch64".into(),
                2 => proxy.version = "2.0.0".into(),
                3 => proxy.digest = OURS.into(),
                _ => {}
            }
            Simulated { proxy, is_here: true, due: None, since: None }
        };
        let proxies = (0..rng.usize(1..150)).map(|index| proxy(index, &mut rng)).collect();
        Self { rng, rollout, now, proxies, gone: BTreeSet::new(), asked: BTreeSet::new(), failures }
    }

    fn fate(&mut self) -> Fate {
        if self.rng.f64() >= self.failures {
            return Fate::Replaces;
        }
        let fates = [Fate::Refuses, Fate::NeverReturns, Fate::Relapses, Fate::IsDeleted];
        fates[self.rng.usize(0..fates.len())]
    }

    fn seconds(&mut self, most: u64) -> Instant {
        self.now + Duration::from_secs(self.rng.u64(0..=most))
    }

    fn step(&mut self, index: usize, step: Step) {
        let workload = Arc::clone(&self.proxies[index].proxy.workload);
        match step {
            Step::Answer(Fate::Refuses) => {
                self.proxies[index].since = None;
                self.rollout.answered(&workload, OURS, Outcome::Refused("no".into()), self.now);
            }
            Step::Answer(Fate::IsDeleted) => {
                self.proxies[index].is_here = false;
                self.proxies[index].since = None;
                self.gone.insert(Arc::clone(&workload));
                self.rollout.answered(&workload, OURS, Outcome::Silent, self.now);
            }
            Step::Answer(fate) => {
                self.proxies[index].is_here = false;
                let outcome = if self.rng.bool() { Outcome::Upgraded } else { Outcome::Silent };
                self.rollout.answered(&workload, OURS, outcome, self.now);
                let at = self.seconds(60);
                self.proxies[index].due = (fate != Fate::NeverReturns).then_some((at, Step::Return(fate)));
            }
            Step::Return(fate) => {
                self.proxies[index].is_here = true;
                self.proxies[index].since = None;
                self.proxies[index].proxy = has_it(&workload);
                let at = self.seconds(100);
                self.proxies[index].due = (fate == Fate::Relapses).then_some((at, Step::Relapse));
            }
            Step::Relapse => self.proxies[index].proxy = running(&workload),
        }
    }

    fn tick(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        for index in 0..self.proxies.len() {
            if let Some((_, step)) = self.proxies[index].due.filter(|(at, _)| *at <= self.now) {
                self.proxies[index].due = None;
                self.step(index, step);
            }
        }
        let here: Vec<Running> =
            self.proxies.iter().filter(|proxy| proxy.is_here).map(|proxy| proxy.proxy.clone()).collect();
        let gone = self.gone.clone();
        self.rollout.observe(&here, |workload| !gone.contains(workload), self.now);
        let was_stopped = self.rollout.trials()[0].stopped.is_some();
        let asks = self.rollout.ask(self.now);
        assert!(!was_stopped || asks.is_empty(), "a rollout that ended goes on");
        for ask in asks {
            assert!(self.asked.insert(Arc::clone(&ask.workload)), "{} is asked twice", ask.workload);
            let fate = self.fate();
            let at = self.seconds(100);
            let now = self.now;
            let proxy = self.proxies.iter_mut().find(|proxy| proxy.proxy.workload == ask.workload).unwrap();
            let Running { digest, version, architecture, replaceable, .. } = &proxy.proxy;
            let facts = (digest.as_str(), version.as_str(), architecture.as_str(), *replaceable);
            assert_eq!(facts, ("ee", "1.1.0", "x86_64", true), "{} must not be asked", ask.workload);
            proxy.due = Some((at, Step::Answer(fate)));
            proxy.since = Some(now);
        }
        self.check_those_under_way();
    }

    /// By what the simulation knows itself.
    fn check_those_under_way(&self) {
        let under_way: Vec<&Arc<str>> = self
            .proxies
            .iter()
            // The answer took 100 s at most.
            .filter(|proxy| proxy.since.is_some_and(|since| self.now < since + Duration::from_secs(100) + RETURN))
            .map(|proxy| &proxy.proxy.workload)
            .collect();
        let has_kept = |proxy: &Simulated| proxy.proxy.digest == OURS && self.asked.contains(&proxy.proxy.workload);
        let most = if self.proxies.iter().any(has_kept) { (self.proxies.len() / SHARE).max(1) } else { 1 };
        assert!(under_way.len() <= most, "{} under way, of {}", under_way.len(), self.proxies.len());
        for namespace in under_way.iter().map(|workload| workload.split_once('/').unwrap().0) {
            let is_home = |workload: &str| workload.split_once('/').unwrap().0 == namespace;
            let is_tried = self.proxies.iter().any(|proxy| has_kept(proxy) && is_home(&proxy.proxy.workload));
            let canaries = under_way.iter().filter(|workload| is_home(workload)).count();
            assert!(is_tried || canaries <= 1, "{canaries} canaries in {namespace}");
        }
    }
}

#[test]
fn whatever_happens_few_are_under_way_and_a_failure_ends_it() {
    for seed in 0..20 {
        let mut simulation = Simulation::new(seed, 0.08);
        println!("seed {seed}, {} proxies", simulation.proxies.len());
        let mut at_stop = None;
        for _ in 0..1_000 {
            simulation.tick(3);
            if simulation.rollout.trials()[0].stopped.is_some() {
                let so_far = *at_stop.get_or_insert(simulation.asked.len());
                assert_eq!(simulation.asked.len(), so_far, "seed {seed}");
            }
        }
    }
}

#[test]
fn where_nothing_fails_every_proxy_that_can_be_replaced_is() {
    for seed in 0..8 {
        let mut simulation = Simulation::new(seed, 0.0);
        println!("seed {seed}, {} proxies", simulation.proxies.len());
        let mut counts = Counts::default();
        for _ in 0..10_000 {
            simulation.tick(5);
            counts = simulation.rollout.trials()[0].counts();
            if counts.replaceable == 0 && counts.under_way == 0 {
                break;
            }
        }
        assert_eq!((counts.replaceable, counts.under_way), (0, 0), "seed {seed}: {counts:?}");
        assert_eq!(counts.replaced, simulation.asked.len(), "seed {seed}");
        assert_eq!(simulation.rollout.trials()[0].stopped, None, "seed {seed}");
    }
}
