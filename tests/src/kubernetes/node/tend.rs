//! The life of one container: started, probed, started again, stopped in its turn.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::jiff::Timestamp;
use nix::sys::signal::Signal;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::container::{Exit, Process};
use super::pod::PodLife;
use super::probe::{self, Pace, Target};
use crate::process::{now, wall};

/// A kubelet waits 10 s before the second start, and up to 5 minutes: too long for a test.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// What every container gets between SIGTERM and SIGKILL, however little is left (kubelet's `minimumGracePeriodInSeconds`).
const LEAST_GRACE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Init,
    Sidecar,
    Application,
}

/// A container as its status tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) last: Option<Terminated>,
    /// The startup probe succeeded, or there is none.
    pub(super) started: bool,
    pub(super) ready: bool,
    pub(super) restarts: i32,
    /// It is not started again.
    pub(super) is_over: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// Reason and message.
    Waiting(&'static str, String),
    Running {
        since: Timestamp,
        pid: u32,
    },
    Terminated(Terminated),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Terminated {
    pub(super) exit: Exit,
    pub(super) started: Timestamp,
    pub(super) finished: Timestamp,
}

impl State {
    pub(super) fn new() -> Self {
        let phase = Phase::Waiting("PodInitializing", String::new());
        Self { phase, last: None, started: false, ready: false, restarts: 0, is_over: false }
    }

    /// How it ended for good.
    pub(super) fn outcome(&self) -> Option<Exit> {
        match &self.phase {
            Phase::Terminated(terminated) if self.is_over => Some(terminated.exit),
            _ => None,
        }
    }

    pub(super) fn pid(&self) -> Option<u32> {
        if let Phase::Running { pid, .. } = self.phase { Some(pid) } else { None }
    }
}

/// A container of a pod.
#[derive(Debug)]
pub(super) struct Tended {
    pub(super) spec: Container,
    pub(super) kind: Kind,
    pub(super) state: watch::Sender<State>,
    /// When it must have ended; `None` while it may go on.
    pub(super) stop: watch::Sender<Option<Instant>>,
}

impl Tended {
    pub(super) fn new(spec: Container, kind: Kind) -> Arc<Self> {
        Arc::new(Self { spec, kind, state: watch::Sender::new(State::new()), stop: watch::Sender::new(None) })
    }
}

/// Aborted when dropped.
#[derive(Debug)]
pub(super) struct Task(pub(super) JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tends a container until it is over.
pub(super) async fn tend(pod: Arc<PodLife>, own: Arc<Tended>) {
    let mut stop = own.stop.subscribe();
    let mut wait = FIRST_PAUSE;
    while stop.borrow_and_update().is_none() {
        let begin = timestamp();
        let exit = match pod.start(&own.spec).await {
            Ok(Ok(process)) => {
                pod.note(&own, |state| {
                    state.phase = Phase::Running { since: begin, pid: process.pid };
                });
                run(&pod, &own, process, &mut stop).await
            }
            Ok(Err(exit)) => exit,
            Err((reason, message)) => {
                pod.note(&own, |state| state.phase = Phase::Waiting(reason, message));
                pause(wait, &mut stop).await;
                continue;
            }
        };
        let is_stopped = stop.borrow().is_some();
        let is_over = is_stopped || !pod.restarts(own.kind, exit);
        let terminated = Terminated { exit, started: begin, finished: timestamp() };
        pod.note(&own, |state| {
            state.phase = Phase::Terminated(terminated.clone());
            state.ready = false;
            state.started = false;
            state.is_over = is_over;
        });
        if is_over {
            return;
        }
        pause(wait, &mut stop).await;
        wait = (wait * 2).min(LONGEST_PAUSE);
        pod.note(&own, |state| {
            state.last = Some(terminated);
            state.restarts += 1;
        });
    }
    // Stopped before it was started, or between two starts.
    pod.note(&own, |state| state.is_over = true);
}

async fn pause(wait: Duration, stop: &mut watch::Receiver<Option<Instant>>) {
    let _ = timeout(wait, stopped(stop)).await;
}

async fn stopped(stop: &mut watch::Receiver<Option<Instant>>) -> Instant {
    match stop.wait_for(Option::is_some).await {
        Ok(deadline) => deadline.unwrap_or_else(now),
        // Its pod is gone: now.
        Err(_) => now(),
    }
}

/// From its start to its end.
async fn run(
    pod: &Arc<PodLife>,
    own: &Arc<Tended>,
    mut process: Process,
    stop: &mut watch::Receiver<Option<Instant>>,
) -> Exit {
    // Goes on while it stops: what serves until its end is still ready for those who look (KEP-1669).
    let pid = process.pid;
    let readiness = Task(tokio::spawn(tell_readiness(Arc::clone(pod), Arc::clone(own), pid)));
    let exit = tokio::select! {
        exit = process.wait() => exit,
        reason = watch_over(pod, own, pid) => {
            pod.tell(&format!("{}: killed: {reason}", own.spec.name));
            end(&mut process, pod.grace()).await
        }
        deadline = stopped(stop) => stop_in_turn(pod, own, &mut process, deadline).await,
    };
    drop(readiness);
    exit
}

/// Returns why a container must be killed.
async fn watch_over(pod: &PodLife, own: &Tended, pid: u32) -> String {
    let target = Target { address: pod.facts.address, pid, container: &own.spec };
    if let Some(hook) = own.spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref())
        && let Err(error) = probe::hook(target, hook).await
    {
        return format!("PostStartHookError: {error}");
    }
    if let Some(probe) = &own.spec.startup_probe {
        let failed = repeat(target, probe, |_| Some(())).await;
        if let Err(error) = failed {
            return format!("startup probe: {error}");
        }
    }
    pod.note(own, |state| state.started = true);
    match &own.spec.liveness_probe {
        Some(probe) => loop {
            if let Err(error) = repeat(target, probe, |_| None::<()>).await {
                return format!("liveness probe: {error}");
            }
        },
        None => std::future::pending().await,
    }
}

/// Looks again and again; ends when `stop` takes a success for the last one, or with the failure that was one too many.
async fn repeat<T>(target: Target<'_>, probe: &Probe, stop: impl Fn(u32) -> Option<T>) -> Result<T, String> {
    let pace = Pace::of(probe);
    sleep(pace.delay).await;
    let (mut failures, mut successes) = (0, 0);
    loop {
        match probe::look(target, probe).await {
            Ok(()) => {
                failures = 0;
                successes += 1;
                if let Some(value) = stop(successes) {
                    return Ok(value);
                }
            }
            Err(error) => {
                successes = 0;
                failures += 1;
                if failures >= pace.failures {
                    return Err(error);
                }
            }
        }
        sleep(pace.period).await;
    }
}

/// Keeps `ready` true to its probe, once the container has started.
async fn tell_readiness(pod: Arc<PodLife>, own: Arc<Tended>, pid: u32) {
    let mut state = own.state.subscribe();
    if state.wait_for(|state| state.started).await.is_err() {
        return;
    }
    let Some(probe) = &own.spec.readiness_probe else {
        pod.note(&own, |state| state.ready = true);
        return;
    };
    let target = Target { address: pod.facts.address, pid, container: &own.spec };
    let pace = Pace::of(probe);
    sleep(pace.delay).await;
    let (mut failures, mut successes) = (0, 0);
    loop {
        let is_good = probe::look(target, probe).await.is_ok();
        (failures, successes) = if is_good { (0, successes + 1) } else { (failures + 1, 0) };
        if successes >= pace.successes {
            pod.note(&own, |state| state.ready = true);
        } else if failures >= pace.failures {
            pod.note(&own, |state| state.ready = false);
        }
        sleep(pace.period).await;
    }
}

/// As a kubelet stops a container of a pod that ends: its hook at once, then, a sidecar, all those that started after
/// it, then SIGTERM, then SIGKILL.
async fn stop_in_turn(pod: &PodLife, own: &Tended, process: &mut Process, deadline: Instant) -> Exit {
    let left = || deadline.saturating_duration_since(now());
    let target = Target { address: pod.facts.address, pid: process.pid, container: &own.spec };
    if let Some(hook) = own.spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref()) {
        tokio::select! {
            exit = process.wait() => return exit,
            done = timeout(left(), probe::hook(target, hook)) => {
                if let Ok(Err(error)) = done {
                    pod.tell(&format!("{}: FailedPreStopHook: {error}", own.spec.name));
                }
            }
        }
    }
    if own.kind == Kind::Sidecar {
        let after = pod.started_after(&own.spec.name);
        let mut ended = pod.ended.subscribe();
        tokio::select! {
            exit = process.wait() => return exit,
            _ = timeout(left(), ended.wait_for(|ended: &BTreeSet<String>| after.is_subset(ended))) => {}
        }
    }
    end(process, left().max(LEAST_GRACE)).await
}

async fn end(process: &mut Process, grace: Duration) -> Exit {
    process.signal(Signal::SIGTERM);
    if let Ok(exit) = timeout(grace, process.wait()).await {
        return exit;
    }
    process.signal(Signal::SIGKILL);
    process.wait().await
}

pub(super) fn timestamp() -> Timestamp {
    Timestamp::try_from(wall()).expect("it is neither before the common era nor after the year 9999")
}
