//! What a pod's annotations say about its proxy: read, checked, and asked for what is misspelt.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde_json::Value;
use tracing::level_filters::LevelFilter;
use weft_proxy::config::Destinations;

use super::error::{InjectError, shortened};
use super::proxy_patch::ProxyPatch;
use super::quantity::Quantity;
use super::settings::{Capture, Variables, image};
use crate::document::ProxyUpgrade;
use crate::kubernetes::names;

/// Below this likeness a suggestion would be a guess.
const ALIKE: f64 = 0.7;
/// Less memory than this is a slip of the unit: `16m` is a sixtieth of a byte.
const LEAST_MEMORY: u128 = 1 << 20;
/// Everything of ours begins so.
const PREFIX: &str = "weft.dev/";
/// Our keys that stand on a pod without being its author's to write.
const KNOWN_ELSEWHERE: [(&str, &str); 2] = [
    (names::INJECT_LABEL, "is a label, and has no effect as an annotation"),
    (names::PROTOCOLS, "belongs on the Service"),
];

pub(super) type Annotations = BTreeMap<String, String>;

/// What one pod wants otherwise than the mesh.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    pub(super) capture: Option<Capture>,
    pub(super) image: Option<String>,
    pub(super) log_level: Option<LevelFilter>,
    pub(super) destinations: Option<Destinations>,
    pub(super) cpu_request: Option<Quantity>,
    pub(super) cpu_limit: Option<Quantity>,
    pub(super) memory_request: Option<Quantity>,
    pub(super) memory_limit: Option<Quantity>,
    pub(super) variables: Variables,
    pub(super) patch: ProxyPatch,
    pub(super) upgrade: Option<ProxyUpgrade>,
}

impl Overrides {
    pub(super) fn read(annotations: &Annotations) -> Result<Self, InjectError> {
        let read = Reader(annotations);
        let cpu = |name| read.one(name, "an amount of processor time, such as 10m or 0.5", |text| text.parse().ok());
        let memory = |name| read.one(name, "an amount of memory of at least 1Mi, such as 16Mi", memory);
        let variables = annotations.get(names::PROXY_ENV).map_or(Ok(Variables::default()), |text| {
            text.parse().map_err(|error: super::settings::VariablesError| {
                InjectError::annotation(names::PROXY_ENV, text, format!("NAME=VALUE with spaces between; {error}"))
            })
        })?;
        Ok(Self {
            capture: read.one(names::CAPTURE, "init, cni", |text| match text {
                "init" => Some(Capture::Init),
                "cni" => Some(Capture::Cni),
                _ => None,
            })?,
            image: read.one(names::PROXY_IMAGE, "an image, such as registry.example/weft-proxy:1.2", |text| {
                image(text).ok()
            })?,
            upgrade: read.one(names::PROXY_UPGRADE, "live, on-restart", |text| {
                [ProxyUpgrade::Live, ProxyUpgrade::OnRestart].into_iter().find(|upgrade| upgrade.as_str() == text)
            })?,
            log_level: read.one(names::PROXY_LOG_LEVEL, "off, error, warn, info, debug, trace", log_level)?,
            destinations: read
                .one(names::DESTINATIONS, "used, all", |text| Destinations::from_str(text, false).ok())?,
            cpu_request: cpu(names::PROXY_CPU_REQUEST)?,
            cpu_limit: cpu(names::PROXY_CPU_LIMIT)?,
            memory_request: memory(names::PROXY_MEMORY_REQUEST)?,
            memory_limit: memory(names::PROXY_MEMORY_LIMIT)?,
            variables,
            patch: annotations
                .get(names::PROXY_PATCH)
                .map_or_else(|| Ok(ProxyPatch::default()), |text| ProxyPatch::parse(text))?,
        })
    }
}

/// What on a pod is ours by its prefix and has no effect, and what will keep its proxy from starting, each as a sentence:
/// warnings for whoever wrote it.
pub fn warnings(pod: &Value) -> Vec<String> {
    let keys = |field: &str| {
        let map = pod["metadata"][field].as_object();
        map.into_iter().flat_map(|map| map.keys()).filter(|key| key.starts_with(PREFIX))
    };
    let annotations = keys("annotations")
        .filter(|key| !names::POD_ANNOTATIONS.contains(&key.as_str()) && *key != names::INJECTED_ANNOTATION)
        .map(|key| {
            let elsewhere = KNOWN_ELSEWHERE.iter().find(|(name, _)| name == key).map(|(_, why)| (*why).to_owned());
            let why = elsewhere.unwrap_or_else(|| unknown(key, &names::POD_ANNOTATIONS));
            format!("annotation {} {why}", shortened(key))
        });
    let labels = keys("labels").filter(|key| *key != names::INJECT_LABEL).map(|key| {
        let is_annotation = names::POD_ANNOTATIONS.contains(&key.as_str());
        let why = if is_annotation {
            "is an annotation, and has no effect as a label".to_owned()
        } else {
            unknown(key, &[names::INJECT_LABEL])
        };
        format!("label {} {why}", shortened(key))
    });
    annotations.chain(labels).chain(name_resolution(pod)).collect()
}

/// The proxy finds the control plane by the name of its Service, with the cluster's domain searched. A pod whose names are
/// resolved elsewhere has none, unless it says itself what is searched.
fn name_resolution(pod: &Value) -> Option<String> {
    let spec = &pod["spec"];
    let searches = spec["dnsConfig"]["searches"].as_array().is_some_and(|domains| !domains.is_empty());
    match spec["dnsPolicy"].as_str() {
        Some("Default") => Some("dnsPolicy Default knows no Services, so the proxy finds no control plane: take ClusterFirst"),
        Some("None") if !searches => Some(
            "dnsPolicy None without dnsConfig.searches knows no Services by their short names, so the proxy finds no control \
             plane: add the cluster's domain there",
        ),
        _ => None,
    }
    .map(|why| format!("spec: {why}; until then the pod does not become ready"))
}

fn unknown(key: &str, known: &[&str]) -> String {
    let alike = known
        .iter()
        .map(|name| (strsim::jaro_winkler(&key[PREFIX.len()..], &name[PREFIX.len()..]), name))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other));
    match alike {
        Some((_, name)) => format!("is unknown and has no effect; did you mean {name}?"),
        None => "is unknown and has no effect".to_owned(),
    }
}

fn memory(text: &str) -> Option<Quantity> {
    text.parse().ok().filter(|quantity: &Quantity| quantity.whole() >= LEAST_MEMORY)
}

fn log_level(text: &str) -> Option<LevelFilter> {
    // Its own reader also takes numbers, which nobody would understand.
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_lowercase()))
}

struct Reader<'a>(&'a Annotations);

impl Reader<'_> {
    fn one<T>(
        &self,
        name: &'static str,
        allowed: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, InjectError> {
        let Some(text) = self.0.get(name) else { return Ok(None) };
        let refused = || InjectError::annotation(name, text, allowed);
        parse(text.trim()).map(Some).ok_or_else(refused)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(name: &str, value: &str) -> Annotations {
        Annotations::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn each_annotation_is_refused_with_its_name_its_value_and_what_is_allowed() {
        for (name, value, allowed) in [
            (names::PROXY_CPU_REQUEST, "fast", "10m or 0.5"),
            (names::PROXY_CPU_LIMIT, "-1", "10m or 0.5"),
            (names::PROXY_MEMORY_REQUEST, "16m", "at least 1Mi"),
            (names::PROXY_MEMORY_LIMIT, "", "at least 1Mi"),
            (names::PROXY_LOG_LEVEL, "loud", "off, error, warn, info, debug, trace"),
            (names::PROXY_LOG_LEVEL, "3", "off, error, warn, info, debug, trace"),
            (names::DESTINATIONS, "some", "used, all"),
            (names::PROXY_IMAGE, "a b", "registry.example"),
            (names::CAPTURE, "CNI", "init, cni"),
            (names::PROXY_UPGRADE, "Live", "live, on-restart"),
            (names::PROXY_ENV, "A", "NAME=VALUE"),
            (names::PROXY_ENV, "WEFT_WORKLOAD=other", "WEFT_WORKLOAD is set by injection"),
        ] {
            let annotations = with(name, value);
            let text = Overrides::read(&annotations).unwrap_err().to_string();
            assert!(text.starts_with(&format!("annotation {name} is `{value}`")) && text.contains(allowed), "{text}");
        }
    }

    #[test]
    fn what_has_no_effect_is_told_with_what_was_meant() {
        let told = |field: &str, key: &str| warnings(&json!({ "metadata": { field: { key: "1" } } }));
        for (field, key, end) in [
            ("annotations", "weft.dev/exclude-inbound-port", "did you mean weft.dev/exclude-inbound-ports?"),
            ("annotations", "weft.dev/proxy-loglevel", "did you mean weft.dev/proxy-log-level?"),
            ("annotations", "weft.dev/inject", "is a label, and has no effect as an annotation"),
            ("annotations", "weft.dev/protocols", "belongs on the Service"),
            ("annotations", "weft.dev/zzz", "is unknown and has no effect"),
            ("annotations", "weft.dev/", "is unknown and has no effect"),
            ("labels", "weft.dev/injct", "did you mean weft.dev/inject?"),
            ("labels", names::CAPTURE, "is an annotation, and has no effect as a label"),
        ] {
            let told = told(field, key);
            assert!(told.len() == 1 && told[0].ends_with(end), "{told:?}");
            assert!(told[0].starts_with(&format!("{} {key} ", field.trim_end_matches('s'))), "{told:?}");
        }
        for (field, key) in [
            ("annotations", names::CAPTURE),
            ("annotations", names::INJECTED_ANNOTATION),
            ("annotations", "example.com/weft.dev"),
            ("labels", names::INJECT_LABEL),
        ] {
            assert_eq!(told(field, key), Vec::<String>::new());
        }
        assert_eq!(warnings(&json!(null)), Vec::<String>::new());
    }

    #[test]
    fn a_pod_that_cannot_find_the_control_plane_is_told_of() {
        let none = json!({ "dnsPolicy": "None", "dnsConfig": { "nameservers": ["10.96.0.10"] } });
        let searching = json!({ "dnsPolicy": "None", "dnsConfig": { "searches": ["cluster.local"] } });
        for (spec, is_told) in [
            (json!({}), false),
            (json!({ "dnsPolicy": "ClusterFirst" }), false),
            (json!({ "dnsPolicy": "Default" }), true),
            (none, true),
            (searching, false),
        ] {
            let told = warnings(&json!({ "spec": spec.clone() }));
            assert_eq!(
                told.iter().any(|warning| warning.contains("finds no control plane")),
                is_told,
                "{spec} {told:?}"
            );
        }
    }
}
