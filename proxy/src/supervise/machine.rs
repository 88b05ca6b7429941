//! What a supervisor decides: events in, actions out; no process, socket or clock is touched here.
//!
//! One proxy is current. At most one other is a candidate: it gets ready (`Preparing`), the current one is asked for its
//! listeners (`Collecting`), the candidate is given them (`TakingOver`), and when it accepts it is the current one, and
//! the one before it drains. Until then the old one has never stopped accepting, so whatever goes wrong ends the candidate
//! alone. For a while afterwards the new one is on probation: should it end, its program is refused from then on, and the
//! program before it is started again on the listeners that were kept.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::message::{Counts, Preparation, ToProxy, Why};

/// Longest time from being asked for listeners to the last of them. 5 s: no work.
const COLLECTING: Duration = Duration::from_secs(5);
/// Longest time from listeners to accepting. 10 s: threads are started on a processor that others use too.
const TAKING_OVER: Duration = Duration::from_secs(10);
/// Longest wait of a program that comes back for its certificate: connections wait in the kernel meanwhile. After that it
/// serves with what it has, as one that starts.
const COMING_BACK: Duration = Duration::from_secs(5);
/// Programs remembered as bad ones.
const REMEMBERED: usize = 16;

/// SHA-256.
pub(super) type Digest = [u8; 32];

/// One process, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChildId(pub(super) u32);

/// One open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProgramId(pub(super) u32);

/// A file and what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) id: ProgramId,
    pub(super) digest: Digest,
}

/// How long things may take that people may want to change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Until a new program has certificate and configuration.
    pub(super) configured: Duration,
    /// How long a program must live after it took over.
    pub(super) probation: Duration,
}

/// What happened.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// A program to put in place; by whom it was asked for.
    Offered(Option<ChildId>, Program),
    /// What was offered cannot be read.
    Unreadable(Option<ChildId>, String),
    Configured(ChildId),
    /// All its listeners have come.
    Collected(ChildId),
    Serving(ChildId),
    /// It says why it will end.
    Failed(ChildId, String),
    /// It could not be started.
    NotStarted(ChildId, String),
    /// It is gone; its exit code as a shell has it.
    Ended(ChildId, u8),
    /// We are told to end.
    Leave(SignalNumber),
    /// A deadline may have passed.
    Time,
}

/// A signal to pass on, by number.
pub(super) type SignalNumber = i32;

/// What to do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Start(ChildId, ProgramId),
    Send(ChildId, ToProxy),
    /// Give it copies of the listeners that are kept.
    Pass(ChildId),
    Kill(ChildId),
    Signal(ChildId, SignalNumber),
    Exit(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Preparing,
    Collecting,
    TakingOver,
}

#[derive(Debug)]
struct Candidate {
    child: ChildId,
    program: Program,
    phase: Phase,
    deadline: Instant,
    /// It comes back after its successor died.
    returns: bool,
    reason: Option<String>,
}

/// The proxy that connections go to.
#[derive(Debug, Clone, Copy)]
struct Current {
    child: ChildId,
    program: Program,
    /// It has said so.
    serves: bool,
}

/// The end of a process.
struct Loss {
    child: ChildId,
    code: u8,
    why: Why,
    reason: String,
}

#[derive(Debug)]
struct Probation {
    until: Instant,
    previous: Program,
}

/// The state.
#[derive(Debug)]
pub(super) struct Machine {
    limits: Limits,
    children: BTreeSet<ChildId>,
    current: Option<Current>,
    candidate: Option<Candidate>,
    probation: Option<Probation>,
    bad: VecDeque<Digest>,
    counts: Counts,
    is_leaving: bool,
    /// Exit code of the last current proxy.
    code: u8,
    next: u32,
}

impl Machine {
    /// Starts the first proxy.
    pub(super) fn new(limits: Limits, program: Program) -> (Self, Vec<Action>) {
        let mut machine = Self {
            limits,
            children: BTreeSet::new(),
            current: None,
            candidate: None,
            probation: None,
            bad: VecDeque::new(),
            counts: Counts::default(),
            is_leaving: false,
            code: 0,
            next: 0,
        };
        let child = machine.child();
        machine.current = Some(Current { child, program, serves: false });
        (machine, vec![Action::Start(child, program.id), Action::Send(child, ToProxy::Start)])
    }

    pub(super) fn handle(&mut self, now: Instant, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Offered(by, program) => self.offered(now, by, program, &mut actions),
            Event::Unreadable(by, reason) => self.refuse(by, Why::NoProgram, reason, &mut actions),
            Event::Configured(child) => self.configured(now, child, &mut actions),
            Event::Collected(child) => self.collected(now, child, &mut actions),
            Event::Serving(child) => self.serving(now, child, &mut actions),
            Event::Failed(child, reason) => {
                if let Some(candidate) = self.candidate.as_mut().filter(|candidate| candidate.child == child) {
                    candidate.reason = Some(reason);
                }
            }
            Event::NotStarted(child, reason) => {
                self.children.remove(&child);
                self.lost(now, Loss { child, code: 1, why: Why::NoProgram, reason }, &mut actions);
            }
            Event::Ended(child, code) => {
                self.children.remove(&child);
                let reason = self.candidate.as_mut().filter(|candidate| candidate.child == child);
                let reason = reason.and_then(|candidate| candidate.reason.take());
                let reason = reason.unwrap_or_else(|| format!("it ended with code {code}; its log says why"));
                self.lost(now, Loss { child, code, why: Why::Ended, reason }, &mut actions);
            }
            Event::Leave(signal) => self.leave(signal, &mut actions),
            Event::Time => self.time(now, &mut actions),
        }
        actions
    }

    /// When [`Event::Time`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let candidate = self.candidate.as_ref().map(|candidate| candidate.deadline);
        let probation = self.probation.as_ref().map(|probation| probation.until);
        candidate.into_iter().chain(probation).min()
    }

    /// Whether the listeners this child offers are wanted.
    pub(super) fn collects_from(&self, child: ChildId) -> bool {
        self.is_current(child) && self.phase() == Some(Phase::Collecting)
    }

    /// Whether copies of listeners are still of use. Copies keep an address open that nobody else accepts on.
    pub(super) fn needs_listeners(&self) -> bool {
        self.probation.is_some() || self.candidate.is_some()
    }

    /// Whether a program may be started again.
    pub(super) fn needs(&self, program: ProgramId) -> bool {
        let candidate = self.candidate.as_ref().map(|candidate| candidate.program);
        let previous = self.probation.as_ref().map(|probation| probation.previous);
        let current = self.current.map(|current| current.program);
        [candidate, previous, current].into_iter().flatten().any(|needed| needed.id == program)
    }

    fn phase(&self) -> Option<Phase> {
        self.candidate.as_ref().map(|candidate| candidate.phase)
    }

    fn is_current(&self, child: ChildId) -> bool {
        self.current.is_some_and(|current| current.child == child)
    }

    fn child(&mut self) -> ChildId {
        let child = ChildId(self.next);
        self.next += 1;
        self.children.insert(child);
        child
    }

    fn offered(&mut self, now: Instant, by: Option<ChildId>, program: Program, actions: &mut Vec<Action>) {
        let current = self.current.filter(|current| current.serves).map(|current| current.child);
        let asked = by.or(self.current.map(|current| current.child));
        let refusal = if self.is_leaving {
            Some((Why::Ending, "the proxy is being ended".to_owned()))
        } else if self.candidate.is_some() || current.is_none() || asked != current {
            Some((Why::Busy, "a proxy is being put in place already".to_owned()))
        } else if self.bad.contains(&program.digest) {
            Some((Why::DiedBefore, "this program died after it had taken over, and is not tried again".to_owned()))
        } else {
            None
        };
        if let Some((why, reason)) = refusal {
            // Not the current one when nobody asked: it may wait for the answer to a question of its own.
            self.refuse(by, why, reason, actions);
            return;
        }
        tracing::info!(program = %hexadecimal(&program.digest), "a new program gets ready beside the proxy");
        let deadline = now + self.limits.configured;
        self.begin(program, deadline, None, actions);
    }

    fn begin(&mut self, program: Program, deadline: Instant, returns_from: Option<Digest>, actions: &mut Vec<Action>) {
        let child = self.child();
        let returns = returns_from.is_some();
        let returns_from = returns_from.map(|digest| hexadecimal(&digest)).unwrap_or_default();
        let preparation = Preparation { counts: self.counts, returns_from };
        self.candidate = Some(Candidate { child, program, phase: Phase::Preparing, deadline, returns, reason: None });
        actions.push(Action::Start(child, program.id));
        actions.push(Action::Send(child, ToProxy::Prepare(preparation)));
    }

    fn configured(&mut self, now: Instant, child: ChildId, actions: &mut Vec<Action>) {
        let current = self.current.map(|current| current.child);
        let Some(candidate) = self.candidate.as_mut() else { return };
        if candidate.child != child || candidate.phase != Phase::Preparing {
            return;
        }
        match current {
            Some(current) => {
                tracing::info!("the new program is configured; asking the proxy for its listeners");
                candidate.phase = Phase::Collecting;
                candidate.deadline = now + COLLECTING;
                actions.push(Action::Send(current, ToProxy::HandOver));
            }
            None => self.pass(now, actions),
        }
    }

    fn collected(&mut self, now: Instant, child: ChildId, actions: &mut Vec<Action>) {
        if self.collects_from(child) {
            self.pass(now, actions);
        }
    }

    fn pass(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if let Some(candidate) = &mut self.candidate {
            candidate.phase = Phase::TakingOver;
            candidate.deadline = now + TAKING_OVER;
            actions.push(Action::Pass(candidate.child));
        }
    }

    fn serving(&mut self, now: Instant, child: ChildId, actions: &mut Vec<Action>) {
        if let Some(current) = self.current.as_mut().filter(|current| current.child == child) {
            current.serves = true;
            return;
        }
        let is_due = |candidate: &mut Candidate| candidate.child == child && candidate.phase == Phase::TakingOver;
        let Some(candidate) = self.candidate.take_if(is_due) else { return };
        let before = self.current.replace(Current { child, program: candidate.program, serves: true });
        self.probation = None;
        if candidate.returns {
            self.counts.rolled_back += 1;
            tracing::warn!("the program from before the handover serves again");
            return;
        }
        self.counts.completed += 1;
        // One that died while its successor took over is nothing to go back to.
        let Some(before) = before else { return };
        self.probation = Some(Probation { until: now + self.limits.probation, previous: before.program });
        tracing::info!(probation = ?self.limits.probation, "the new program serves; the one before it drains");
        actions.push(Action::Send(before.child, ToProxy::Drain));
    }

    /// A process is no more, or never was.
    fn lost(&mut self, now: Instant, loss: Loss, actions: &mut Vec<Action>) {
        let Loss { child, code, why, reason } = loss;
        if self.is_current(child) {
            self.code = code;
        }
        if self.is_leaving {
            if self.children.is_empty() {
                actions.push(Action::Exit(self.code));
            }
        } else if let Some(candidate) = self.candidate.take_if(|candidate| candidate.child == child) {
            if candidate.returns || self.current.is_none() {
                tracing::error!(%reason, "no proxy is left");
                actions.push(Action::Exit(code.max(1)));
            } else {
                self.refuse(self.current.map(|current| current.child), why, reason, actions);
            }
        } else if let Some(current) = self.current.take_if(|current| current.child == child) {
            self.current_lost(now, current, code, &reason, actions);
        } else {
            tracing::info!(code, "a proxy that was replaced has ended");
        }
    }

    fn current_lost(&mut self, now: Instant, dead: Current, code: u8, reason: &str, actions: &mut Vec<Action>) {
        if self.phase() == Some(Phase::TakingOver) {
            tracing::warn!(%reason, "the proxy ended while the new program took over from it");
            return;
        }
        let Some(probation) = self.probation.take() else {
            tracing::info!(%reason, "the proxy has ended");
            actions.push(Action::Exit(code));
            return;
        };
        if let Some(candidate) = self.candidate.take() {
            actions.push(Action::Kill(candidate.child));
        }
        let digest = dead.program.digest;
        tracing::error!(
            %reason, program = %hexadecimal(&digest),
            "the new program died soon after it had taken over: going back to the one before it"
        );
        // The same program again is no worse than the one it came after.
        if digest != probation.previous.digest {
            if self.bad.len() == REMEMBERED {
                self.bad.pop_front();
            }
            self.bad.push_back(digest);
        }
        self.begin(probation.previous, now + COMING_BACK, Some(digest), actions);
    }

    fn refuse(&mut self, to: Option<ChildId>, why: Why, reason: String, actions: &mut Vec<Action>) {
        self.counts.refused += 1;
        tracing::warn!(?why, %reason, "the program was not put in place; the proxy goes on");
        if let Some(to) = to {
            actions.push(Action::Send(to, ToProxy::Refused { why, reason }));
        }
        if let Some(current) = self.current {
            actions.push(Action::Send(current.child, ToProxy::Counted(self.counts)));
        }
    }

    fn leave(&mut self, signal: SignalNumber, actions: &mut Vec<Action>) {
        self.is_leaving = true;
        self.candidate = None;
        self.probation = None;
        actions.extend(self.children.iter().map(|&child| Action::Signal(child, signal)));
        if self.children.is_empty() {
            actions.push(Action::Exit(self.code));
        }
    }

    fn time(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.probation.take_if(|probation| probation.until <= now).is_some() {
            tracing::info!("the new program has proved itself");
        }
        let Some(candidate) = self.candidate.as_ref().filter(|candidate| candidate.deadline <= now) else { return };
        if candidate.returns && candidate.phase == Phase::Preparing {
            tracing::warn!("the program from before serves with what it has: it was not configured in time");
            self.pass(now, actions);
            return;
        }
        let missing = match candidate.phase {
            Phase::Preparing => "it had no certificate and configuration in time",
            Phase::Collecting => "the proxy did not give its listeners in time",
            Phase::TakingOver => "it did not accept connections in time",
        };
        actions.push(Action::Kill(candidate.child));
        if self.current.is_none() {
            actions.push(Action::Exit(1));
        }
        self.candidate = None;
        self.refuse(self.current.map(|current| current.child), Why::Late, missing.to_owned(), actions);
    }
}

fn hexadecimal(digest: &Digest) -> String {
    digest.iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests;
