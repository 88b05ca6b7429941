//! Proxies that do anything at any time, and what must hold whatever they do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;

const SEEDS: u64 = 3_000;
const STEPS: usize = 120;
/// Programs that are offered: few, so that ones that died are offered again.
const PROGRAMS: u32 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begun,
    Preparing,
    Taking,
    Serving,
    Draining,
    Killed,
}

#[derive(Debug)]
struct Proxy {
    program: Program,
    stage: Stage,
    is_asked: bool,
    /// It has asked to be replaced and has no answer.
    asks: bool,
}

/// A supervisor's process as the machine sees it.
struct World {
    machine: Machine,
    now: Instant,
    chance: fastrand::Rng,
    proxies: BTreeMap<ChildId, Proxy>,
    files: BTreeMap<ProgramId, Program>,
    has_listeners: bool,
    /// Programs that took over and died too soon.
    bad: BTreeSet<u8>,
    /// Since when it has served, and the program it took over from.
    took_over: BTreeMap<ChildId, (Instant, Program)>,
    is_leaving: bool,
    exit: Option<u8>,
    next_file: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let first = program(0);
        let (machine, actions) = Machine::new(LIMITS, first);
        let mut world = Self {
            machine,
            now: clock::now(),
            chance: fastrand::Rng::with_seed(seed),
            proxies: BTreeMap::new(),
            files: BTreeMap::from([(first.id, first)]),
            has_listeners: false,
            bad: BTreeSet::new(),
            took_over: BTreeMap::new(),
            is_leaving: false,
            exit: None,
            next_file: 1,
        };
        world.act(actions);
        world
    }

    fn happened(&mut self, event: Event) {
        let actions = self.machine.handle(self.now, event);
        if !self.machine.needs_listeners() {
            self.has_listeners = false;
        }
        self.files.retain(|&id, _| self.machine.needs(id));
        self.act(actions);
        let beside = self.proxies.values().filter(|proxy| !matches!(proxy.stage, Stage::Draining | Stage::Killed));
        assert!(beside.count() <= 2, "more than a current one and a candidate: {:?}", self.proxies);
    }

    fn act(&mut self, actions: Vec<Action>) {
        let mut later = VecDeque::new();
        for action in actions {
            assert_eq!(self.exit, None, "{action:?} after the end");
            match action {
                Action::Start(child, id) => {
                    assert!(!self.is_leaving, "a proxy begins after we were told to end");
                    let program = *self.files.get(&id).expect("its file was kept");
                    assert!(!self.bad.contains(&program.digest[0]), "a program that died is tried again");
                    if self.chance.u8(..) < 20 {
                        later.push_back(Event::NotStarted(child, "no program".to_owned()));
                    } else {
                        let proxy = Proxy { program, stage: Stage::Begun, is_asked: false, asks: false };
                        assert!(self.proxies.insert(child, proxy).is_none(), "{child:?} twice");
                    }
                }
                Action::Send(child, message) => self.told(child, &message),
                Action::Pass(child) => {
                    assert!(self.has_listeners, "there are no listeners to give");
                    if let Some(proxy) = self.proxies.get_mut(&child) {
                        proxy.stage = Stage::Taking;
                    }
                }
                Action::Kill(child) => {
                    if let Some(proxy) = self.proxies.get_mut(&child) {
                        assert!(!matches!(proxy.stage, Stage::Serving | Stage::Draining), "{child:?} serves");
                        proxy.stage = Stage::Killed;
                    }
                }
                Action::Signal(child, _) => assert!(self.is_leaving && self.proxies.contains_key(&child)),
                Action::Exit(code) => {
                    assert!(!self.is_leaving || self.proxies.is_empty(), "{:?} are left", self.proxies);
                    self.exit = Some(code);
                }
            }
        }
        for event in later {
            self.happened(event);
        }
    }

    fn told(&mut self, child: ChildId, message: &ToProxy) {
        let others_serve = self.proxies.iter().any(|(&other, proxy)| other != child && proxy.stage == Stage::Serving);
        let Some(proxy) = self.proxies.get_mut(&child) else { return };
        match message {
            ToProxy::Start | ToProxy::Counted(_) => {}
            ToProxy::Prepare(_) => proxy.stage = Stage::Preparing,
            ToProxy::HandOver => {
                assert_eq!(proxy.stage, Stage::Serving);
                proxy.is_asked = true;
            }
            ToProxy::TakeOver(_) => panic!("listeners go by another action"),
            ToProxy::Drain => {
                assert!(others_serve, "nobody else accepts connections");
                assert_eq!(proxy.stage, Stage::Serving);
                (proxy.stage, proxy.asks) = (Stage::Draining, false);
            }
            ToProxy::Refused { .. } => proxy.asks = false,
        }
    }

    fn ended(&mut self, child: ChildId, code: u8) {
        let Some(proxy) = self.proxies.remove(&child) else { return };
        let is_probed = self.took_over.get(&child).is_some_and(|&(since, before)| {
            self.now < since + LIMITS.probation && before.digest != proxy.program.digest
        });
        let is_next_serving = self.proxies.values().any(|proxy| proxy.stage == Stage::Taking);
        if proxy.stage == Stage::Serving && is_probed && !self.is_leaving && !is_next_serving {
            self.bad.insert(proxy.program.digest[0]);
        }
        self.happened(Event::Ended(child, code));
    }

    /// Something happens.
    fn step(&mut self) {
        let children: Vec<ChildId> = self.proxies.keys().copied().collect();
        let child = self.chance.choice(children).unwrap_or(FIRST);
        match self.chance.u8(..) {
            0..40 => self.asks(Some(child)),
            40..55 => self.asks(None),
            55..75 => self.ended(child, 1),
            75..77 if !self.is_leaving => {
                self.is_leaving = true;
                self.happened(Event::Leave(15));
            }
            77..120 => {
                self.now += Duration::from_millis(self.chance.u64(0..20_000));
                self.happened(Event::Time);
            }
            _ => self.goes_on(child),
        }
    }

    fn asks(&mut self, by: Option<ChildId>) {
        let digest = [self.chance.u32(1..=PROGRAMS) as u8; 32];
        if let Some(child) = by {
            match self.proxies.get_mut(&child) {
                Some(proxy) if !proxy.asks && proxy.stage == Stage::Serving => proxy.asks = true,
                _ => return,
            }
        }
        let id = ProgramId(self.next_file);
        self.next_file += 1;
        let program = Program { id, digest };
        self.files.insert(id, program);
        self.happened(Event::Offered(by, program));
    }

    /// A proxy does what it does next when all is well.
    fn goes_on(&mut self, child: ChildId) {
        let Some(proxy) = self.proxies.get_mut(&child) else { return };
        match proxy.stage {
            Stage::Begun => {
                proxy.stage = Stage::Serving;
                self.happened(Event::Serving(child));
            }
            Stage::Preparing => self.happened(Event::Configured(child)),
            Stage::Taking => {
                proxy.stage = Stage::Serving;
                let is_due = self.machine.candidate.as_ref().is_some_and(|candidate| candidate.child == child);
                if let Some(before) = self.machine.current.filter(|_| is_due) {
                    self.took_over.insert(child, (self.now, before.program));
                }
                self.happened(Event::Serving(child));
            }
            Stage::Serving if proxy.is_asked => {
                proxy.is_asked = false;
                if self.machine.collects_from(child) {
                    self.has_listeners = true;
                    self.happened(Event::Collected(child));
                }
            }
            Stage::Serving => {}
            Stage::Draining | Stage::Killed => self.ended(child, 0),
        }
    }

    /// Nothing happens any more but time.
    fn rest(&mut self) {
        while self.exit.is_none()
            && let Some(deadline) = self.machine.deadline()
        {
            self.now = self.now.max(deadline);
            self.happened(Event::Time);
        }
    }
}

#[test]
fn whatever_proxies_do_one_serves_or_the_supervisor_ends() {
    let (mut completed, mut returned) = (0, 0);
    for seed in 0..SEEDS {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..STEPS {
                if world.exit.is_some() {
                    break;
                }
                world.step();
            }
            if world.exit.is_none() {
                world.rest();
            }
            if world.exit.is_none() && !world.is_leaving {
                assert!(!world.has_listeners, "copies are kept for ever");
                assert!(world.files.len() <= 1, "files are kept for ever: {:?}", world.files);
                assert!(world.proxies.values().all(|proxy| !proxy.asks), "a question was never answered");
                assert!(world.machine.current.is_some(), "nobody serves");
            }
            (world.machine.counts.completed, world.machine.counts.rolled_back)
        });
        let (complete, rolled_back) = outcome.unwrap_or_else(|_| panic!("seed {seed}"));
        completed += complete;
        returned += rolled_back;
    }
    // The simulation has been where it matters.
    assert!(completed > 500 && returned > 50, "{completed} handovers, {returned} returns");
}
