//! What can be said about an installation, by file (`-f`), flag (`--set`) and Helm alike; every default has its reason.
//!
//! The comments of the fields are what users read: the chart's `values.yaml` and its schema are made from them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::kubernetes::names;

/// Settings of an installation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Values {
    /// Namespace of everything of ours that lives in one. With Helm it is the release's.
    pub system_namespace: String,
    /// Whether the namespace is made too. Not with Helm by default, which wants to make it by itself (--create-namespace)
    /// or to find it.
    pub create_namespace: bool,
    pub images: Images,
    /// First part of all identities, `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`. It cannot be changed later without new
    /// identities for all workloads.
    pub trust_domain: String,
    /// Who makes the kernel redirect a pod's traffic: `init`, an init container with the capability `NET_ADMIN` in each pod, or `cni`, a
    /// plugin on each node, with which pods need no privilege at all. `init` by default, as it needs nothing of the node.
    pub capture: Capture,
    /// Replicas of the control plane. Two, so that one may always be gone: pods of meshed namespaces cannot start without
    /// any. All of them serve.
    pub replicas: u32,
    /// Requests and limits of the control plane. 100m and 128Mi carry a thousand pods; no limits, as one that is cut off
    /// when the cluster grows takes the mesh with it.
    pub resources: Resources,
    pub autoscaling: Autoscaling,
    /// What the control plane logs.
    pub log_level: LogLevel,
    /// Where the control plane may run.
    pub node_selector: Map<String, Value>,
    /// Taints the control plane tolerates, as in a pod.
    #[schemars(with = "Vec<Map<String, Value>>")]
    pub tolerations: Vec<Value>,
    /// Priority class of the control plane. Empty: the built-in ones need a quota in namespaces of some providers.
    pub priority_class: String,
    pub proxy: Proxy,
    pub cni: Cni,
}

/// Images, by their full names, so that a mirror or a digest is one setting each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Images {
    /// Image of the control plane. Of the program's own version.
    pub control_plane: String,
    /// Image of the proxy beside each workload, and of the CNI plugin's installer. Of the program's own version.
    pub proxy: String,
    pub pull_policy: PullPolicy,
    /// Secrets with registry credentials, `{name: SECRET}` each, for the control plane.
    #[schemars(with = "Vec<Map<String, Value>>")]
    pub pull_secrets: Vec<Value>,
}

/// When nodes ask the registry: `IfNotPresent`, as versions are never pushed twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    Always,
    #[default]
    IfNotPresent,
    Never,
}

/// Who captures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Capture {
    #[default]
    Init,
    Cni,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Destinations {
    #[default]
    Used,
    All,
}

/// Requests and limits as Kubernetes writes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    pub requests: Map<String, Value>,
    pub limits: Map<String, Value>,
}

/// More replicas of the control plane under load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Autoscaling {
    /// Off: it needs a metrics server, and two replicas carry a few thousand pods.
    pub enabled: bool,
    /// Never fewer: two, so that one may always be gone.
    pub min_replicas: u32,
    /// Never more.
    pub max_replicas: u32,
    /// Processor use to hold, in percent of what is requested.
    pub target_cpu_percent: u32,
}

/// The proxy beside each workload. A pod's annotations count before these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Proxy {
    /// Processor time it requests: what it needs for a few hundred requests a second; it may use more.
    pub cpu_request: String,
    /// Memory it requests: twice what it holds when idle.
    pub memory_request: String,
    /// What it logs.
    pub log_level: LogLevel,
    /// Which destinations it knows: those its pod used lately, or all of the mesh.
    pub destinations: Destinations,
}

/// The CNI plugin, where `capture` is `cni`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Cni {
    /// Directory of CNI plugins on the nodes.
    pub binary_directory: String,
    /// Directory of CNI configurations on the nodes.
    pub configuration_directory: String,
    /// Requests and limits on each node.
    pub resources: Resources,
    /// Priority class: what pods need before they start must not wait for room.
    pub priority_class: String,
}

impl Default for Values {
    fn default() -> Self {
        Self {
            system_namespace: names::SYSTEM_NAMESPACE.into(),
            create_namespace: true,
            images: Images::default(),
            trust_domain: "cluster.local".into(),
            capture: Capture::default(),
            replicas: 2,
            resources: Resources::requesting("100m", "128Mi"),
            autoscaling: Autoscaling::default(),
            log_level: LogLevel::default(),
            node_selector: Map::new(),
            tolerations: Vec::new(),
            priority_class: String::new(),
            proxy: Proxy::default(),
            cni: Cni::default(),
        }
    }
}

impl Default for Images {
    fn default() -> Self {
        let image = |name| format!("ghcr.io/weft-mesh/{name}:{}", env!("CARGO_PKG_VERSION"));
        Self {
            control_plane: image("weft"),
            proxy: image("weft-proxy"),
            pull_policy: PullPolicy::default(),
            pull_secrets: Vec::new(),
        }
    }
}

impl Default for Resources {
    fn default() -> Self {
        Self { requests: Map::new(), limits: Map::new() }
    }
}

impl Resources {
    fn requesting(cpu: &str, memory: &str) -> Self {
        let requests = [("cpu".to_owned(), json!(cpu)), ("memory".to_owned(), json!(memory))];
        Self { requests: requests.into_iter().collect(), limits: Map::new() }
    }
}

impl Default for Autoscaling {
    fn default() -> Self {
        Self { enabled: false, min_replicas: 2, max_replicas: 5, target_cpu_percent: 80 }
    }
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            cpu_request: "10m".into(),
            memory_request: "16Mi".into(),
            log_level: LogLevel::default(),
            destinations: Destinations::default(),
        }
    }
}

impl Default for Cni {
    fn default() -> Self {
        Self {
            binary_directory: "/opt/cni/bin".into(),
            configuration_directory: "/etc/cni/net.d".into(),
            resources: Resources::requesting("10m", "32Mi"),
            priority_class: "system-node-critical".into(),
        }
    }
}

/// Why settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValuesError {
    #[error("{source_name} is not YAML: {what}")]
    Syntax { source_name: String, what: String },
    #[error("{source_name} must hold settings by name, such as `replicas: 3`")]
    NoMap { source_name: String },
    #[error("{source_name}: {what}")]
    Type { source_name: String, what: String },
    #[error(
        "`{0}` does not set anything; write KEY=VALUE, such as replicas=3 or images.proxy=example.org/weft-proxy:1"
    )]
    Assignment(String),
    #[error("{field} is `{found}`; {wanted}")]
    Value { field: &'static str, found: String, wanted: &'static str },
}

impl Values {
    /// These settings with a file's in their place: maps are merged, all else is replaced.
    pub fn with_file(&self, name: &str, text: &str) -> Result<Self, ValuesError> {
        let over: Value = serde_yaml_ng::from_str(text)
            .map_err(|error| ValuesError::Syntax { source_name: name.into(), what: error.to_string() })?;
        match over {
            Value::Null => Ok(self.clone()),
            Value::Object(_) => self.with(name, &over),
            _ => Err(ValuesError::NoMap { source_name: name.into() }),
        }
    }

    /// These settings with `KEY=VALUE` in its place; keys are paths with dots, values are YAML.
    pub fn with_assignment(&self, text: &str) -> Result<Self, ValuesError> {
        let assignment =
            text.split_once('=').filter(|(path, _)| !path.is_empty() && path.split('.').all(|k| !k.is_empty()));
        let (path, value) = assignment.ok_or_else(|| ValuesError::Assignment(text.into()))?;
        let name = format!("--set {text}");
        let value = serde_yaml_ng::from_str::<Value>(value)
            .map_err(|error| ValuesError::Syntax { source_name: name.clone(), what: error.to_string() })?;
        // Nothing behind the sign is empty text, not the absence of a value.
        let value = if value.is_null() { json!("") } else { value };
        let over = path.rsplit('.').fold(value, |inner, key| json!({ key: inner }));
        self.with(&name, &over)
    }

    fn with(&self, name: &str, over: &Value) -> Result<Self, ValuesError> {
        let mut merged = self.to_json();
        merge(&mut merged, over);
        let values: Self = serde_json::from_value(merged)
            .map_err(|error| ValuesError::Type { source_name: name.into(), what: error.to_string() })?;
        values.check()?;
        Ok(values)
    }

    /// All settings, under their names in files.
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("settings are maps of text and numbers")
    }

    /// Those that differ from the defaults: what a later version starts from, with its own defaults for the rest.
    pub fn differences(&self) -> Value {
        difference(&self.to_json(), &Self::default().to_json()).unwrap_or_else(|| json!({}))
    }

    fn check(&self) -> Result<(), ValuesError> {
        let refuse = |field, found: &str, wanted| Err(ValuesError::Value { field, found: found.into(), wanted });
        let namespace = &self.system_namespace;
        if !is_label(namespace) {
            return refuse("systemNamespace", namespace, "a namespace has lower-case letters, digits and dashes");
        }
        if names::EXEMPT_NAMESPACES.contains(&namespace.as_str()) || namespace == "default" {
            return refuse("systemNamespace", namespace, "choose a namespace of its own: uninstalling removes it");
        }
        if self.trust_domain.len() > 253 || !self.trust_domain.split('.').all(is_label) {
            let allowed = "a domain has labels of lower-case letters, digits and dashes, with dots between";
            return refuse("trustDomain", &self.trust_domain, allowed);
        }
        for (field, image) in
            [("images.controlPlane", &self.images.control_plane), ("images.proxy", &self.images.proxy)]
        {
            if image.is_empty() || image.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"') {
                return refuse(field, image, "name an image, such as example.org/weft:1.0.0");
            }
        }
        if self.replicas == 0 {
            return refuse("replicas", "0", "at least 1: without a control plane no pod of a meshed namespace starts");
        }
        let Autoscaling { min_replicas, max_replicas, .. } = self.autoscaling;
        if min_replicas == 0 || max_replicas < min_replicas {
            return refuse(
                "autoscaling.maxReplicas",
                &max_replicas.to_string(),
                "minReplicas is at least 1 and no more than this",
            );
        }
        for (field, quantity) in
            [("proxy.cpuRequest", &self.proxy.cpu_request), ("proxy.memoryRequest", &self.proxy.memory_request)]
        {
            if !quantity.starts_with(|c: char| c.is_ascii_digit())
                || !quantity.chars().all(|c| c.is_ascii_alphanumeric() || c == '.')
            {
                return refuse(field, quantity, "write an amount, such as 10m, 0.5, 16Mi");
            }
        }
        for (field, directory) in [
            ("cni.binaryDirectory", &self.cni.binary_directory),
            ("cni.configurationDirectory", &self.cni.configuration_directory),
        ] {
            if !directory.starts_with('/') || directory.contains("..") {
                return refuse(field, directory, "name a directory from the root on");
            }
        }
        Ok(())
    }
}

/// A DNS label.
fn is_label(text: &str) -> bool {
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.len() <= 63 && text.chars().all(inside) && !text.starts_with('-') && !text.ends_with('-')
}

fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// What of `value` is not in `base`.
fn difference(value: &Value, base: &Value) -> Option<Value> {
    let (Value::Object(fields), Value::Object(others)) = (value, base) else {
        return (value != base).then(|| value.clone());
    };
    let differing = fields.iter().filter_map(|(key, value)| {
        let different = match others.get(key) {
            Some(other) => difference(value, other)?,
            None => value.clone(),
        };
        Some((key.clone(), different))
    });
    let differing: Map<String, Value> = differing.collect();
    (!differing.is_empty()).then_some(Value::Object(differing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_assignments_are_laid_over_the_defaults_one_after_the_other() {
        let file = "replicas: 3\nresources: {limits: {memory: 1Gi}}\nimages: {proxy: example.org/p:1}\n";
        let values = Values::default().with_file("v.yaml", file).unwrap();
        let values = values.with_assignment("replicas=4").unwrap().with_assignment("capture=cni").unwrap();
        assert_eq!((values.replicas, values.capture), (4, Capture::Cni));
        assert_eq!(values.images.control_plane, Values::default().images.control_plane);
        assert_eq!(
            json!(values.resources),
            json!({"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}})
        );
        assert_eq!(Values::default().with_file("empty", "# nothing\n").unwrap(), Values::default());
    }

    #[test]
    fn what_differs_from_the_defaults_is_all_that_is_kept() {
        let values = Values::default().with_assignment("images.proxy=example.org/p:1").unwrap();
        let values = values.with_assignment("nodeSelector.disk=ssd").unwrap();
        let kept = values.differences();
        assert_eq!(kept, json!({"images": {"proxy": "example.org/p:1"}, "nodeSelector": {"disk": "ssd"}}));
        assert_eq!(Values::default().with_file("kept", &kept.to_string()).unwrap(), values);
        assert_eq!(Values::default().differences(), json!({}));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_place_value_and_remedy() {
        for (text, expected) in [
            ("replica=3", "--set replica=3: unknown field `replica`"),
            ("replicas=three", "--set replicas=three: invalid type: string \"three\""),
            ("capture=ebpf", "--set capture=ebpf: unknown variant `ebpf`, expected `init` or `cni`"),
            ("replicas=0", "replicas is `0`; at least 1"),
            ("replicas", "`replicas` does not set anything"),
            ("=3", "`=3` does not set anything"),
            ("a..b=3", "`a..b=3` does not set anything"),
            ("systemNamespace=kube-system", "systemNamespace is `kube-system`; choose a namespace of its own"),
            ("systemNamespace=Weft", "systemNamespace is `Weft`; a namespace has lower-case"),
            ("trustDomain=", "trustDomain is ``; a domain has labels"),
            ("trustDomain=spiffe://x", "trustDomain is `spiffe://x`"),
            ("images.proxy=a b", "images.proxy is `a b`; name an image"),
            ("autoscaling.maxReplicas=1", "autoscaling.maxReplicas is `1`"),
            ("proxy.cpuRequest=", "proxy.cpuRequest is ``; write an amount"),
            ("cni.binaryDirectory=bin", "cni.binaryDirectory is `bin`; name a directory"),
        ] {
            let refusal = Values::default().with_assignment(text).unwrap_err().to_string();
            assert!(refusal.starts_with(expected), "{text}: {refusal}");
        }
        let refusal = |text| Values::default().with_file("v.yaml", text).unwrap_err().to_string();
        assert!(refusal("[1]").starts_with("v.yaml must hold settings by name"), "{}", refusal("[1]"));
        assert!(refusal("a: [").starts_with("v.yaml is not YAML"), "{}", refusal("a: ["));
    }
}
