//! What a pod's author may change of the proxy's container where no other annotation does: a strategic merge patch.
//!
//! Objects merge, `null` removes, and of the lists `env` (by name) and `volumeMounts` (by path) entries are replaced or
//! added, as the API server merges such patches. Only what is listed here may be touched: whoever may write a pod's
//! annotations must not thereby give the proxy rights that a policy on pods would not see its author ask for, nor take
//! its identity, its program or its place in the pod. The init container, which has rights, is never patched.

use k8s_openapi::api::core::v1::Container;
use serde_json::{Map, Value, json};

use super::error::{InjectError, shortened};
use super::settings::RESERVED;
use crate::kubernetes::names;

/// More than any patch by hand; annotations of a pod may have 256 KiB together.
const MAX_BYTES: usize = 16 << 10;
/// Fields that go over as they are.
const FREE: [&str; 5] =
    ["lifecycle", "terminationMessagePath", "terminationMessagePolicy", "imagePullPolicy", "resizePolicy"];
/// Fields of which a part may be changed.
const PARTLY: &str = "env, volumeMounts, resources (but cpu and memory), times and thresholds of startupProbe and \
                      livenessProbe, securityContext.appArmorProfile and .seLinuxOptions";
/// Of a probe: all but what it asks.
const TIMES: [&str; 6] = [
    "initialDelaySeconds",
    "periodSeconds",
    "timeoutSeconds",
    "successThreshold",
    "failureThreshold",
    "terminationGracePeriodSeconds",
];
const ENV_FIELDS: [&str; 3] = ["name", "value", "valueFrom"];
const MOUNT_FIELDS: [&str; 6] = ["name", "mountPath", "subPath", "subPathExpr", "readOnly", "recursiveReadOnly"];

/// A patch that touches nothing it may not.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ProxyPatch(Map<String, Value>);

/// The field, and why it cannot be so.
type Refusal = (String, String);

impl ProxyPatch {
    /// Reads the annotation's text: a JSON object of fields of a container.
    pub(super) fn parse(text: &str) -> Result<Self, InjectError> {
        if text.len() > MAX_BYTES {
            return Err(refused((String::new(), format!("it has more than {MAX_BYTES} bytes"))));
        }
        let patch: Map<String, Value> = serde_json::from_str(text).map_err(|error| {
            let what = format!("it is no JSON object of a container's fields ({error})");
            refused((String::new(), what))
        })?;
        for (field, value) in &patch {
            check(field, value).map_err(refused)?;
        }
        Ok(Self(patch))
    }

    /// Changes the container.
    pub(super) fn apply(&self, container: &mut Value) -> Result<(), InjectError> {
        if self.0.is_empty() {
            return Ok(());
        }
        for (field, value) in &self.0 {
            match field.as_str() {
                "env" => merge_list(&mut container["env"], value, "name"),
                "volumeMounts" => merge_list(&mut container["volumeMounts"], value, "mountPath"),
                _ => json_patch::merge(container, &json!({ field: value })),
            }
        }
        // What Kubernetes would drop without a word is told here.
        let typed: Container = serde_path_to_error::deserialize(&*container).map_err(|error| {
            refused((error.path().to_string(), format!("Kubernetes takes no such value: {}", error.inner())))
        })?;
        let back = serde_json::to_value(typed).unwrap_or_default();
        match self
            .0
            .keys()
            .find(|field| !container[field.as_str()].is_null() && back[field.as_str()] != container[field.as_str()])
        {
            Some(field) => Err(refused((field.clone(), "a field in it is unknown to Kubernetes".to_owned()))),
            None => Ok(()),
        }
    }
}

fn refused((field, what): Refusal) -> InjectError {
    let field = if field.is_empty() { String::new() } else { format!(" at `{}`", shortened(&field)) };
    InjectError::ProxyPatch { field, what: shortened_remedy(&what) }
}

/// Reasons quote a value at most; what they recommend must stay whole.
fn shortened_remedy(what: &str) -> String {
    what.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(400).collect()
}

fn check(field: &str, value: &Value) -> Result<(), Refusal> {
    match field {
        _ if FREE.contains(&field) => Ok(()),
        "env" => entries(field, value, &ENV_FIELDS, variable),
        "volumeMounts" => entries(field, value, &MOUNT_FIELDS, mount),
        "resources" => resources(value),
        "startupProbe" | "livenessProbe" => {
            only(field, value, &TIMES, "what the kubelet asks of the proxy cannot be changed, only when and how often")
        }
        "securityContext" => security(value),
        "image" => Err((field.into(), format!("it has an annotation of its own, {}", names::PROXY_IMAGE))),
        _ => Err((
            field.into(),
            format!("it cannot be changed; what can: {}, and as a whole {}", PARTLY, FREE.join(", ")),
        )),
    }
}

/// An object that has these fields and no others.
fn only(place: &str, value: &Value, allowed: &[&str], why: &str) -> Result<(), Refusal> {
    let Some(object) = value.as_object() else { return Err((place.into(), "it must be an object".into())) };
    match object.keys().find(|key| !allowed.contains(&key.as_str())) {
        Some(other) => Err((format!("{place}.{other}"), format!("{why}; allowed: {}", allowed.join(", ")))),
        None => Ok(()),
    }
}

/// A list of objects.
fn entries(
    place: &str,
    value: &Value,
    allowed: &[&str],
    each: impl Fn(&str, &Value) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let Some(list) = value.as_array() else { return Err((place.into(), "it must be a list".into())) };
    list.iter().enumerate().try_for_each(|(index, entry)| {
        let place = format!("{place}[{index}]");
        only(&place, entry, allowed, "the patch cannot say this")?;
        each(&place, entry)
    })
}

fn variable(place: &str, entry: &Value) -> Result<(), Refusal> {
    match entry["name"].as_str() {
        None | Some("") => Err((place.into(), "a variable has a name".into())),
        Some(name) if RESERVED.contains(&name) => Err((
            format!("{place}.name"),
            format!(
                "{name} is set by injection itself; the log level has the annotation {}, the destinations have {}",
                names::PROXY_LOG_LEVEL,
                names::DESTINATIONS
            ),
        )),
        Some(_) => Ok(()),
    }
}

fn mount(place: &str, entry: &Value) -> Result<(), Refusal> {
    if entry["name"] == names::TOKEN_VOLUME {
        return Err((
            format!("{place}.name"),
            "the token by which the proxy proves who it is stays where it is".into(),
        ));
    }
    let path = entry["mountPath"].as_str().unwrap_or_default();
    let is_plain = path.len() > 1
        && path.strip_prefix('/').is_some_and(|rest| {
            rest.trim_end_matches('/').split('/').all(|part| !part.is_empty() && part != "." && part != "..")
        });
    if !is_plain {
        return Err((format!("{place}.mountPath"), "it must be an absolute path below /, without `.` and `..`".into()));
    }
    let covers = |ours: &str| {
        let path = path.trim_end_matches('/');
        let is_in = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        is_in(ours, path) || is_in(path, ours)
    };
    match [names::PROXY_PROGRAM, names::TOKEN_DIRECTORY].into_iter().find(|ours| covers(ours)) {
        Some(ours) => {
            Err((format!("{place}.mountPath"), format!("it would cover {ours} of the proxy; choose another path")))
        }
        None => Ok(()),
    }
}

fn resources(value: &Value) -> Result<(), Refusal> {
    only("resources", value, &["limits", "requests", "claims"], "resources have no such field")?;
    for (list, cpu, memory) in [
        ("requests", names::PROXY_CPU_REQUEST, names::PROXY_MEMORY_REQUEST),
        ("limits", names::PROXY_CPU_LIMIT, names::PROXY_MEMORY_LIMIT),
    ] {
        let entries = &value[list];
        if value.get(list).is_some() && !entries.is_object() {
            return Err((format!("resources.{list}"), "it must be an object".into()));
        }
        for (resource, annotation) in [("cpu", cpu), ("memory", memory)] {
            if entries.get(resource).is_some() {
                return Err((
                    format!("resources.{list}.{resource}"),
                    format!("it has an annotation of its own, {annotation}"),
                ));
            }
        }
    }
    Ok(())
}

fn security(value: &Value) -> Result<(), Refusal> {
    let why = "the proxy's rights cannot be changed: it runs as its own user, without capabilities, on a read-only file system";
    only("securityContext", value, &["appArmorProfile", "seLinuxOptions"], why)?;
    if value["appArmorProfile"].is_object() && value["appArmorProfile"]["type"] == "Unconfined" {
        return Err(("securityContext.appArmorProfile.type".into(), "the proxy is not to run unconfined".into()));
    }
    Ok(())
}

/// Entries of the same key are replaced in place, others come behind.
fn merge_list(list: &mut Value, over: &Value, key: &str) {
    if !list.is_array() {
        *list = json!([]);
    }
    let (Some(list), Some(over)) = (list.as_array_mut(), over.as_array()) else { return };
    for entry in over {
        match list.iter_mut().find(|known| known[key] == entry[key]) {
            Some(known) => *known = entry.clone(),
            None => list.push(entry.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> Value {
        json!({
            "name": "weft-proxy", "image": "i", "env": [{"name": "WEFT_LOG", "value": "info"}, {"name": "A", "value": "1"}],
            "resources": {"requests": {"cpu": "10m"}}, "startupProbe": {"httpGet": {"port": 15020}, "periodSeconds": 1},
            "securityContext": {"privileged": false}, "volumeMounts": [{"name": "weft-token", "mountPath": "/t"}],
        })
    }

    #[test]
    fn a_patch_merges_as_the_api_server_does() {
        let patch = json!({
            "env": [{"name": "A", "value": "2"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}],
            "resources": {"limits": {"ephemeral-storage": "1Gi"}},
            "startupProbe": {"periodSeconds": 5},
            "securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}},
            "volumeMounts": [{"name": "dumps", "mountPath": "/dumps"}],
            "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
            "imagePullPolicy": null,
        });
        let mut after = container();
        ProxyPatch::parse(&patch.to_string()).unwrap().apply(&mut after).unwrap();
        let expected = json!({
            "name": "weft-proxy", "image": "i",
            "env": [
                {"name": "WEFT_LOG", "value": "info"}, {"name": "A", "value": "2"},
                {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
            ],
            "resources": {"requests": {"cpu": "10m"}, "limits": {"ephemeral-storage": "1Gi"}},
            "startupProbe": {"httpGet": {"port": 15020}, "periodSeconds": 5},
            "securityContext": {"privileged": false, "appArmorProfile": {"type": "RuntimeDefault"}},
            "volumeMounts": [{"name": "weft-token", "mountPath": "/t"}, {"name": "dumps", "mountPath": "/dumps"}],
            "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
        });
        assert_eq!(after, expected);
    }

    #[test]
    fn what_security_rests_on_is_refused_by_name_with_what_may_be_changed() {
        for (patch, field, words) in [
            (r#"{"securityContext":{"privileged":true}}"#, "securityContext.privileged", "rights cannot be changed"),
            (r#"{"securityContext":{"runAsUser":0}}"#, "securityContext.runAsUser", "rights cannot be changed"),
            (r#"{"securityContext":{"capabilities":{"add":["SYS_ADMIN"]}}}"#, "securityContext.capabilities", "rights"),
            (r#"{"securityContext":{"seccompProfile":null}}"#, "securityContext.seccompProfile", "rights"),
            (r#"{"securityContext":null}"#, "securityContext", "must be an object"),
            (r#"{"securityContext":{"appArmorProfile":{"type":"Unconfined"}}}"#, "appArmorProfile.type", "unconfined"),
            (r#"{"image":"evil"}"#, "image", "weft.dev/proxy-image"),
            (r#"{"command":["sh"]}"#, "command", "what can: env, volumeMounts"),
            (r#"{"args":["x"]}"#, "args", "cannot be changed"),
            (r#"{"name":"x"}"#, "name", "cannot be changed"),
            (r#"{"ports":[{"containerPort":1,"hostPort":1}]}"#, "ports", "cannot be changed"),
            (r#"{"restartPolicy":null}"#, "restartPolicy", "cannot be changed"),
            (r#"{"volumeDevices":[]}"#, "volumeDevices", "cannot be changed"),
            (r#"{"envFrom":[]}"#, "envFrom", "cannot be changed"),
            (r#"{"env":{}}"#, "env", "must be a list"),
            (r#"{"env":[{"value":"x"}]}"#, "env[0]", "has a name"),
            (r#"{"env":[{"name":"WEFT_BUNDLE_PEM","value":"x"}]}"#, "env[0].name", "set by injection"),
            (r#"{"env":[{"name":"A","$patch":"delete"}]}"#, "env[0].$patch", "cannot say this"),
            (r#"{"volumeMounts":[{"name":"weft-token","mountPath":"/x"}]}"#, "volumeMounts[0].name", "stays where"),
            (r#"{"volumeMounts":[{"name":"v","mountPath":"/"}]}"#, "volumeMounts[0].mountPath", "below /"),
            (r#"{"volumeMounts":[{"name":"v","mountPath":"/a/../weft-proxy"}]}"#, "mountPath", "without `.`"),
            (r#"{"volumeMounts":[{"name":"v","mountPath":"/weft-proxy/"}]}"#, "mountPath", "cover /weft-proxy"),
            (
                r#"{"volumeMounts":[{"name":"v","mountPath":"/var/run"}]}"#,
                "mountPath",
                "cover /var/run/secrets/weft.dev",
            ),
            (
                r#"{"volumeMounts":[{"name":"v","mountPath":"/a","mountPropagation":"Bidirectional"}]}"#,
                "mountPropagation",
                "cannot",
            ),
            (r#"{"resources":{"limits":{"cpu":"2"}}}"#, "resources.limits.cpu", "weft.dev/proxy-cpu-limit"),
            (
                r#"{"resources":{"requests":{"memory":null}}}"#,
                "resources.requests.memory",
                "weft.dev/proxy-memory-request",
            ),
            (r#"{"resources":{"limits":null}}"#, "resources.limits", "must be an object"),
            (r#"{"livenessProbe":{"exec":{"command":["x"]}}}"#, "livenessProbe.exec", "only when and how often"),
            (r#"{"startupProbe":{"periodSeconds":"often"}}"#, "startupProbe.periodSeconds", "takes no such value"),
            (r#"{"lifecycle":{"preStopp":{}}}"#, "lifecycle", "unknown to Kubernetes"),
            ("[]", "", "no JSON object"),
            ("env: []", "", "no JSON object"),
        ] {
            let outcome = ProxyPatch::parse(patch).and_then(|patch| patch.apply(&mut container()));
            let text = outcome.expect_err(patch).to_string();
            assert!(text.starts_with("annotation weft.dev/proxy-patch cannot be used"), "{text}");
            assert!(text.contains(field) && text.contains(words), "{patch}: {text}");
        }
        let long = ProxyPatch::parse(&"x".repeat(MAX_BYTES + 1)).unwrap_err().to_string();
        assert!(long.len() < 400 && long.contains("bytes"), "{long}");
        // A path beside ours that only begins alike is nobody's.
        let beside = r#"{"volumeMounts":[{"name":"v","mountPath":"/weft-proxy-dumps"}]}"#;
        assert_eq!(ProxyPatch::parse(beside).unwrap().apply(&mut container()), Ok(()));
    }
}
