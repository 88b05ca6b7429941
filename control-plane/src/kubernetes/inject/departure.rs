//! A wait before an application is told to end: until then it answers those who have not heard yet that its pod leaves.
//!
//! Kubernetes tells the application and all that call it at the same moment, and an application that ends at once refuses
//! calls for as long as the news takes. So containers without a `preStop` hook of their own get one: a request to the proxy,
//! which answers after the wait. It needs no shell in anybody's image, and it costs nothing where a container ends by itself.

use k8s_openapi::api::core::v1::{Container, PodSpec};
use serde_json::{Value, json};

use super::annotations::Annotations;
use super::error::InjectError;
use super::probes::Probes;
use crate::kubernetes::names;

/// Endpoints are news within a second of the API server's; what is under way then gets as long again.
const SECONDS: i64 = 3;
/// Of the pod's grace period: the wait is part of it, and most of it is the application's.
const SHARE: i64 = 4;
/// Kubernetes' own default.
const DEFAULT_GRACE_SECONDS: i64 = 30;
const HOOK: &str = "preStop";

/// Seconds of the wait; none for a pod that is not to wait.
pub(super) fn seconds(annotations: &Annotations, spec: &PodSpec) -> Result<Option<i64>, InjectError> {
    let grace = spec.termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE_SECONDS).max(0);
    let wait = match annotations.get(names::DEPARTURE_SECONDS) {
        None => SECONDS.min(grace / SHARE),
        Some(text) => {
            let given = text.trim().parse().ok().filter(|seconds| (0..=grace).contains(seconds));
            let allowed = format!("whole seconds from 0 to terminationGracePeriodSeconds, which is {grace}");
            given.ok_or_else(|| InjectError::annotation(names::DEPARTURE_SECONDS, text, allowed))?
        }
    };
    Ok((wait > 0).then_some(wait))
}

/// Gives a container its wait, unless it has a hook of its own; takes away that of an earlier injection.
pub(super) fn give(raw: &mut Value, container: &Container, seconds: Option<i64>, probes: &mut Probes) {
    let key = format!("{}/{HOOK}", container.name);
    let is_ours = probes.get(&key).is_some_and(|was| was.get("sleep").is_some());
    // What is read by index would be made.
    let has_hook = raw.get("lifecycle").and_then(|lifecycle| lifecycle.get(HOOK)).is_some_and(|hook| !hook.is_null());
    if has_hook && !is_ours {
        return;
    }
    if let Some(seconds) = seconds {
        raw["lifecycle"][HOOK] = json!({"httpGet": {
            "path": format!("{}{key}", names::APP_PROBE_PATH),
            "port": names::HEALTH_PORT,
        }});
        probes.insert(key, json!({"sleep": {"seconds": seconds}}));
    } else if has_hook {
        take_away(raw);
        probes.remove(&key);
    }
}

fn take_away(raw: &mut Value) {
    let Some(fields) = raw.as_object_mut() else { return };
    let Some(lifecycle) = fields.get_mut("lifecycle").and_then(Value::as_object_mut) else { return };
    lifecycle.shift_remove(HOOK);
    if lifecycle.is_empty() {
        fields.shift_remove("lifecycle");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(mut raw: Value, seconds: Option<i64>, probes: &mut Probes) -> Value {
        let container = serde_json::from_value(raw.clone()).unwrap();
        give(&mut raw, &container, seconds, probes);
        raw
    }

    #[test]
    fn the_wait_is_a_share_of_the_grace_period_or_what_the_annotation_says() {
        let spec = |grace| PodSpec { termination_grace_period_seconds: grace, ..PodSpec::default() };
        for (grace, annotation, expected) in [
            (None, None, Ok(Some(3))),
            (Some(8), None, Ok(Some(2))),
            (Some(3), None, Ok(None)),
            (Some(-1), None, Ok(None)),
            (Some(60), Some("20"), Ok(Some(20))),
            (None, Some(" 0 "), Ok(None)),
            (None, Some("31"), Err("0 to terminationGracePeriodSeconds, which is 30")),
            (None, Some("3s"), Err("whole seconds")),
        ] {
            let annotations = annotation.map(|text: &str| (names::DEPARTURE_SECONDS.to_owned(), text.to_owned()));
            match (seconds(&annotations.into_iter().collect(), &spec(grace)), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
                (found, expected) => panic!("{found:?} is not {expected:?}"),
            }
        }
    }

    #[test]
    fn containers_without_a_hook_get_one_and_others_keep_theirs() {
        let ours = json!({"httpGet": {"path": "/app-probe/web/preStop", "port": 15020}});
        let own = json!({"name": "web", "lifecycle": {"preStop": {"exec": {"command": ["true"]}}}});
        let bare = json!({"name": "web"});
        let mut probes = Probes::default();
        assert_eq!(given(own.clone(), Some(3), &mut probes), own);
        assert_eq!(given(bare.clone(), None, &mut probes), bare);
        assert_eq!(probes, Probes::default());

        let after = given(bare.clone(), Some(3), &mut probes);
        assert_eq!(after, json!({"name": "web", "lifecycle": {"preStop": ours}}));
        assert_eq!(probes.get("web/preStop"), Some(&json!({"sleep": {"seconds": 3}})));
        let with_start = json!({"name": "web", "lifecycle": {"postStart": {"sleep": {"seconds": 1}}}});
        assert_eq!(given(with_start, Some(3), &mut Probes::default())["lifecycle"]["preStop"], ours);

        // Once more: the same; otherwise: as it is wanted now.
        assert_eq!(given(after.clone(), Some(3), &mut probes), after);
        given(after.clone(), Some(5), &mut probes);
        assert_eq!(probes.get("web/preStop"), Some(&json!({"sleep": {"seconds": 5}})));
        assert_eq!(given(after, None, &mut probes), bare);
        assert_eq!(probes, Probes::default());
    }
}
