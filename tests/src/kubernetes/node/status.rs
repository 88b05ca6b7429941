//! What a pod's object says of it, from the states of its containers: as a kubelet would put it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::pod::Facts;
use super::tend::{Kind, Phase, State, Tended, Terminated};

/// The patch of a pod's status.
pub(super) fn patch(
    pod: &Pod,
    facts: &Facts,
    containers: &[Arc<Tended>],
    conditions: &mut Conditions,
    now: Timestamp,
) -> Value {
    let states = containers.iter().map(|tended| (&**tended, tended.state.borrow().clone()));
    let states: Vec<(&Tended, State)> = states.collect();
    let of = |kind: Kind| -> Vec<&State> {
        states.iter().filter(|(tended, _)| tended.kind == kind).map(|(_, state)| state).collect()
    };
    let (init, sidecars, applications) = (of(Kind::Init), of(Kind::Sidecar), of(Kind::Application));
    let phase = phase(&init, &sidecars, &applications);
    let has_ended = matches!(phase, "Succeeded" | "Failed");
    let is_initialized = init.iter().all(|state| state.outcome().is_some_and(|exit| exit.code == 0))
        && sidecars.iter().all(|state| state.started || state.restarts > 0 || state.is_over);
    let is_ready = !has_ended && applications.iter().chain(&sidecars).all(|state| state.ready);
    let reason = if phase == "Succeeded" { "PodCompleted" } else { "ContainersNotReady" };
    let told = [
        ("PodReadyToStartContainers", !has_ended, ""),
        ("Initialized", is_initialized, "ContainersNotInitialized"),
        ("ContainersReady", is_ready, reason),
        ("Ready", is_ready, reason),
    ];
    let conditions = told.map(|(kind, holds, reason)| conditions.tell(kind, holds, reason, now));

    let status = |is_asked: fn(Kind) -> bool| -> Vec<Value> {
        let asked = states.iter().filter(|(tended, _)| is_asked(tended.kind));
        asked.map(|(tended, state)| container(pod, tended, state)).collect()
    };
    json!({
        "metadata": {"uid": pod.uid()},
        "status": {
            "phase": phase,
            "conditions": conditions,
            "hostIP": facts.node_address,
            "hostIPs": [{"ip": facts.node_address}],
            "podIP": facts.address,
            "podIPs": [{"ip": facts.address}],
            "startTime": facts.since.to_string(),
            "initContainerStatuses": status(|kind| kind != Kind::Application),
            "containerStatuses": status(|kind| kind == Kind::Application),
        },
    })
}

/// The same of a pod that has no network yet.
pub(super) fn creating(pod: &Pod) -> Value {
    let waiting = |container: &Container| {
        json!({
            "name": container.name,
            "image": container.image,
            "imageID": "",
            "ready": false,
            "restartCount": 0,
            "state": {"waiting": {"reason": "ContainerCreating"}},
        })
    };
    let containers: Vec<Value> = pod.spec.iter().flat_map(|spec| &spec.containers).map(waiting).collect();
    json!({
        "metadata": {"uid": pod.uid()},
        "status": {"phase": "Pending", "containerStatuses": containers},
    })
}

/// When each condition last changed.
#[derive(Debug, Default)]
pub(super) struct Conditions(Vec<(&'static str, bool, Timestamp)>);

impl Conditions {
    fn tell(&mut self, kind: &'static str, holds: bool, reason: &str, now: Timestamp) -> Value {
        let known = self.0.iter_mut().find(|(known, ..)| *known == kind);
        let since = if let Some((_, held, since)) = known {
            if *held != holds {
                (*held, *since) = (holds, now);
            }
            *since
        } else {
            self.0.push((kind, holds, now));
            now
        };
        let reason = if holds { "" } else { reason };
        let status = if holds { "True" } else { "False" };
        json!({"type": kind, "status": status, "reason": reason, "lastTransitionTime": since.to_string()})
    }
}

/// A pod has ended when all its containers have, sidecars too: nothing of it is left on the node then.
fn phase(init: &[&State], sidecars: &[&State], applications: &[&State]) -> &'static str {
    let is_left = !sidecars.iter().all(|state| state.is_over);
    let has_failed = |state: &&State| state.outcome().is_some_and(|exit| exit.code != 0);
    if init.iter().any(has_failed) && !is_left {
        return "Failed";
    }
    if applications.iter().all(|state| state.outcome().is_some()) {
        return match (is_left, applications.iter().any(has_failed)) {
            (true, _) => "Running",
            (false, true) => "Failed",
            (false, false) => "Succeeded",
        };
    }
    let has_run = |state: &&State| !matches!(state.phase, Phase::Waiting(..)) || state.restarts > 0;
    if applications.iter().all(has_run) { "Running" } else { "Pending" }
}

fn container(pod: &Pod, tended: &Tended, state: &State) -> Value {
    let image = tended.spec.image.clone().unwrap_or_default();
    let id = format!("miniature://{}/{}/{}", pod.uid().unwrap_or_default(), tended.spec.name, state.restarts);
    let told = match &state.phase {
        Phase::Waiting(reason, message) => json!({"waiting": {"reason": reason, "message": message}}),
        Phase::Running { since, .. } => json!({"running": {"startedAt": since.to_string()}}),
        Phase::Terminated(terminated) => json!({"terminated": ended(terminated, &id)}),
    };
    let has_run = !matches!(state.phase, Phase::Waiting(..));
    json!({
        "name": tended.spec.name,
        "image": image,
        "imageID": if has_run { image.as_str() } else { "" },
        "containerID": if has_run { Some(&id) } else { None },
        "ready": state.ready || tended.kind == Kind::Init && state.outcome().is_some_and(|exit| exit.code == 0),
        "started": state.started,
        "restartCount": state.restarts,
        "state": told,
        "lastState": state.last.as_ref().map_or(json!({}), |last| json!({"terminated": ended(last, &id)})),
    })
}

fn ended(terminated: &Terminated, id: &str) -> Value {
    json!({
        "exitCode": terminated.exit.code,
        "signal": terminated.exit.signal,
        "reason": if terminated.exit.code == 0 { "Completed" } else { "Error" },
        "startedAt": terminated.started.to_string(),
        "finishedAt": terminated.finished.to_string(),
        "containerID": id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::node::container::Exit;
    use crate::kubernetes::node::tend::timestamp;

    fn running() -> State {
        State { phase: Phase::Running { since: timestamp(), pid: 1 }, started: true, ready: true, ..State::new() }
    }

    fn over(code: i32) -> State {
        let (started, finished) = (timestamp(), timestamp());
        let terminated = Terminated { exit: Exit { code, signal: None }, started, finished };
        State { phase: Phase::Terminated(terminated), is_over: true, ..State::new() }
    }

    #[test]
    fn a_pod_is_in_the_phase_its_containers_are_in() {
        for (init, sidecars, applications, expected) in [
            (vec![running()], vec![], vec![State::new()], "Pending"),
            (vec![over(0)], vec![running()], vec![State::new()], "Pending"),
            (vec![over(0)], vec![running()], vec![running(), State::new()], "Pending"),
            (vec![over(0)], vec![running()], vec![running(), running()], "Running"),
            (vec![], vec![running()], vec![over(0)], "Running"),
            (vec![], vec![over(0)], vec![over(0)], "Succeeded"),
            (vec![], vec![over(137)], vec![over(0)], "Succeeded"),
            (vec![], vec![], vec![over(0), over(3)], "Failed"),
            (vec![over(1)], vec![], vec![State::new()], "Failed"),
            (vec![over(1)], vec![running()], vec![State::new()], "Pending"),
        ] {
            let [i, s, a] = [&init, &sidecars, &applications].map(|states| states.iter().collect::<Vec<_>>());
            let told = phase(&i, &s, &a);
            assert_eq!(told, expected, "{init:?} {sidecars:?} {applications:?}");
        }
    }
}
