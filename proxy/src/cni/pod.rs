//! Which pods are ours to capture, and by which rules.

use std::collections::BTreeMap;

use serde::Deserialize;
use weft_proto::names::{INIT_CONTAINER, annotation};

use crate::capture::{AnnotationError, Rules, rules_of_pod};

/// A pod as the API server shows it, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Pod {
    #[serde(default)]
    pub(super) metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Metadata {
    #[serde(default)]
    pub(super) uid: String,
    #[serde(default)]
    pub(super) annotations: Annotations,
}

#[derive(Debug, Default, Deserialize)]
struct Spec {
    #[serde(default, rename = "initContainers")]
    init_containers: Vec<Container>,
}

#[derive(Debug, Deserialize)]
struct Container {
    #[serde(default)]
    name: String,
}

pub(super) type Annotations = BTreeMap<String, String>;

/// What becomes of a pod's network.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Pass,
    Capture(Box<Rules>),
    /// Its annotations alone do not tell.
    Unclear,
}

/// A pod that asks for what cannot be.
#[derive(Debug, thiserror::Error)]
pub(super) enum PodError {
    #[error("annotation {name}: `{0}` is neither init nor cni", name = annotation::CAPTURE)]
    Capture(String),
    #[error(transparent)]
    Rules(#[from] AnnotationError),
}

/// Judges by the annotations; they tell all where injection wrote down who captures.
pub(super) fn judge(annotations: &Annotations) -> Result<Verdict, PodError> {
    // Without a proxy there is nowhere to send its traffic.
    if !annotations.contains_key(annotation::INJECTED) {
        return Ok(Verdict::Pass);
    }
    match annotations.get(annotation::CAPTURE).map(String::as_str) {
        Some("cni") => captured(annotations),
        Some("init") => Ok(Verdict::Pass),
        Some(other) => Err(PodError::Capture(other.to_owned())),
        None => Ok(Verdict::Unclear),
    }
}

/// Judges by the whole pod: one that captures itself has a container for that.
pub(super) fn judge_whole(pod: &Pod) -> Result<Verdict, PodError> {
    match judge(&pod.metadata.annotations)? {
        Verdict::Unclear if pod.spec.init_containers.iter().any(|container| container.name == INIT_CONTAINER) => {
            Ok(Verdict::Pass)
        }
        Verdict::Unclear => captured(&pod.metadata.annotations),
        verdict => Ok(verdict),
    }
}

fn captured(annotations: &Annotations) -> Result<Verdict, PodError> {
    let rules = rules_of_pod(|name| annotations.get(name).map(String::as_str))?;
    Ok(Verdict::Capture(Box::new(rules)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(annotations: &[(&str, &str)], init_containers: &[&str]) -> Pod {
        let containers: Vec<_> = init_containers.iter().map(|name| serde_json::json!({"name": name})).collect();
        let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
        let text = serde_json::json!({
            "metadata": {"name": "web", "annotations": annotations},
            "spec": {"initContainers": containers},
        });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn a_pod_is_ours_when_it_has_a_proxy_and_does_not_capture_itself() {
        let usual = || Verdict::Capture(Box::new(rules_of_pod(|_| None).unwrap()));
        let injected = (annotation::INJECTED, "abc");
        let table = [
            (pod(&[], &[]), Verdict::Pass, Verdict::Pass),
            (pod(&[(annotation::CAPTURE, "cni")], &[]), Verdict::Pass, Verdict::Pass),
            (pod(&[injected, (annotation::CAPTURE, "cni")], &[]), usual(), usual()),
            (pod(&[injected, (annotation::CAPTURE, "init")], &[INIT_CONTAINER]), Verdict::Pass, Verdict::Pass),
            (pod(&[injected], &[INIT_CONTAINER, "weft-proxy"]), Verdict::Unclear, Verdict::Pass),
            (pod(&[injected], &["migrate", "weft-proxy"]), Verdict::Unclear, usual()),
        ];
        for (pod, by_annotations, by_all) in table {
            assert_eq!(judge(&pod.metadata.annotations).unwrap(), by_annotations, "{pod:?}");
            assert_eq!(judge_whole(&pod).unwrap(), by_all, "{pod:?}");
        }
    }

    #[test]
    fn a_pod_that_asks_for_what_cannot_be_is_no_pod_to_pass() {
        let with = |name, value| pod(&[(annotation::INJECTED, "a"), (name, value)], &[]);
        for pod in [with(annotation::CAPTURE, "CNI"), with(annotation::EXCLUDE_UIDS, "root")] {
            assert!(judge_whole(&pod).is_err(), "{pod:?}");
        }
        let unrelated: Pod = serde_json::from_str(r#"{"metadata": {}}"#).unwrap();
        assert_eq!(judge_whole(&unrelated).unwrap(), Verdict::Pass);
    }
}
