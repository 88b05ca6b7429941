//! Our containers and our volume in a pod.
//!
//! Both pass Pod Security `restricted`, except for the init container, which is only there when no CNI plugin captures.
//! Nothing is written anywhere: no `emptyDir`, which would keep autoscalers from moving the pod.

use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Map, Value, json};
use weft_proxy::capture::{Exempt, Rules};
use weft_proxy::limits::DEFAULT_BUFFERED_BYTES;

use super::annotations::Overrides;
use super::error::InjectError;
use super::probes::Probes;
use super::quantity::Quantity;
use super::settings::{Capture, InjectSettings};
use crate::document::ProxyUpgrade;
use crate::kubernetes::names;

/// Kubernetes' own default.
const DEFAULT_GRACE_SECONDS: i64 = 30;
/// What of a pod's grace period is left for the proxy's own end.
const RESERVE_SECONDS: i64 = 5;
/// Workers of a proxy without a limit of processor time: as many as the node has processors would cost memory in each
/// pod, for load that few pods have.
const WORKERS: u128 = 2;
/// Of `WEFT_WORKERS`.
const MOST_WORKERS: u128 = 256;
/// Tries of the startup probe, one each second: a control plane that is away for ten minutes restarts nobody.
const STARTUP_TRIES: u32 = 600;
/// Lifetime of the tokens by which proxies prove who they are; the kubelet renews them at four fifths of it.
const TOKEN_SECONDS: u32 = 3600;
/// Variable by which the proxy is not ready before it has seen that it captures.
const REQUIRE_CAPTURE: &str = "WEFT_REQUIRE_CAPTURE";
/// Variable by which the proxy takes no program from the control plane, whatever the mesh says.
const UPGRADE: &str = "WEFT_UPGRADE";
/// Variable with the application's probes: the one part that may differ between injections of one pod.
pub(super) const APP_PROBES: &str = "WEFT_APP_PROBES";
/// Bytes of a hash that are kept: enough to tell injections of one pod apart.
const HASH_BYTES: usize = 8;

/// What a pod is to have.
#[derive(Debug)]
pub(super) struct Parts {
    /// Absent where the node's plugin captures.
    pub(super) init: Option<Value>,
    /// With no probes yet.
    pub(super) proxy: Value,
    pub(super) volume: Value,
}

impl Parts {
    pub(super) fn new(
        spec: &PodSpec,
        overrides: &Overrides,
        rules: &Rules,
        settings: &InjectSettings,
    ) -> Result<Self, InjectError> {
        let resources = Resources::new(overrides, settings)?;
        let image = overrides.image.as_ref().unwrap_or(&settings.options.proxy_image);
        let capture = overrides.capture.unwrap_or(settings.options.capture);
        let init = (capture == Capture::Init).then(|| init(image, rules, &resources, settings));
        let mut variables = environment(spec, overrides, &resources, settings);
        // No container of the pod has failed if the node had no plugin when it began, or if something took the rules away
        // since the init container made them: the proxy looks itself.
        variables.push(json!({ "name": REQUIRE_CAPTURE, "value": "on" }));
        let upgrade = upgrade(overrides);
        if upgrade == ProxyUpgrade::OnRestart {
            variables.push(json!({ "name": UPGRADE, "value": upgrade.as_str() }));
        }
        let mut proxy = proxy(image, variables, upgrade, &resources, settings);
        overrides.patch.apply(&mut proxy)?;
        Ok(Self { init, proxy, volume: volume() })
    }

    /// Tells an injection from one with other settings.
    pub(super) fn hash(&self) -> String {
        let all = json!([self.init, self.proxy, self.volume]).to_string();
        let digest = digest(&SHA256, all.as_bytes());
        digest.as_ref().iter().take(HASH_BYTES).fold(String::new(), |hash, byte| format!("{hash}{byte:02x}"))
    }
}

/// Tells the proxy which probes it makes for the application.
pub(super) fn set_probes(proxy: &mut Value, probes: &Probes) {
    let value = json!({ "name": APP_PROBES, "value": probes.to_variable() });
    if !proxy["env"].is_array() {
        proxy["env"] = json!([]);
    }
    let Some(variables) = proxy["env"].as_array_mut() else { return };
    match variables.iter_mut().find(|variable| variable["name"] == APP_PROBES) {
        Some(variable) => *variable = value,
        None => variables.push(value),
    }
}

/// Whether the pod's proxy may be given another program while it runs, if the mesh wants that. A pod that names an image of
/// its own has chosen its program, and that image may be of a version that knows no supervisor.
fn upgrade(overrides: &Overrides) -> ProxyUpgrade {
    let chosen = if overrides.image.is_some() { ProxyUpgrade::OnRestart } else { ProxyUpgrade::Live };
    overrides.upgrade.unwrap_or(chosen)
}

/// The sidecar: an init container that stays, which starts before the application and ends after it.
fn proxy(
    image: &str,
    environment: Vec<Value>,
    upgrade: ProxyUpgrade,
    resources: &Resources,
    settings: &InjectSettings,
) -> Value {
    let mut container = base(names::PROXY_CONTAINER, image, settings);
    let command: &[&str] = match upgrade {
        ProxyUpgrade::Live => &[names::PROXY_PROGRAM, names::SUPERVISE],
        ProxyUpgrade::OnRestart => &[names::PROXY_PROGRAM],
    };
    container.insert("command".into(), json!(command));
    container.insert("env".into(), Value::Array(environment));
    container.insert(
        "ports".into(),
        json!([{ "name": "weft-health", "containerPort": names::HEALTH_PORT, "protocol": "TCP" }]),
    );
    // Listeners up, certificate held, first configuration complete: until then no application container starts.
    container.insert(
        "startupProbe".into(),
        json!({ "httpGet": health("/ready"), "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": STARTUP_TRIES }),
    );
    // Only that it is alive, with patience: restarting a busy proxy would make it busier.
    container.insert(
        "livenessProbe".into(),
        json!({ "httpGet": health("/live"), "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6 }),
    );
    container.insert("resources".into(), resources.to_json());
    container.insert("restartPolicy".into(), json!("Always"));
    container.insert(
        "securityContext".into(),
        json!({
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsGroup": names::PROXY_UID,
            "runAsNonRoot": true,
            "runAsUser": names::PROXY_UID,
            "seccompProfile": { "type": "RuntimeDefault" },
        }),
    );
    container.insert(
        "volumeMounts".into(),
        json!([{ "name": names::TOKEN_VOLUME, "mountPath": names::TOKEN_DIRECTORY, "readOnly": true }]),
    );
    Value::Object(container)
}

/// The container that captures, and ends.
fn init(image: &str, rules: &Rules, resources: &Resources, settings: &InjectSettings) -> Value {
    let mut container = base(names::INIT_CONTAINER, image, settings);
    container.insert("command".into(), json!(capture_command(rules)));
    container.insert("resources".into(), resources.to_json());
    container.insert(
        "securityContext".into(),
        json!({
            "allowPrivilegeEscalation": false,
            // The second for kernels whose rules are of iptables' older kind: they are changed through a raw socket.
            "capabilities": { "add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"] },
            "privileged": false,
            "readOnlyRootFilesystem": true,
            // Capabilities reach a program that is no file of its own only as root; the pod may say otherwise for all.
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "runAsUser": 0,
            "seccompProfile": { "type": "RuntimeDefault" },
        }),
    );
    Value::Object(container)
}

fn base(name: &str, image: &str, settings: &InjectSettings) -> Map<String, Value> {
    let mut container = Map::new();
    container.insert("name".into(), json!(name));
    container.insert("image".into(), json!(image));
    if let Some(policy) = settings.options.proxy_pull_policy {
        container.insert("imagePullPolicy".into(), json!(policy.text()));
    }
    // The last lines of the log say why: they stand in the pod's status then.
    container.insert("terminationMessagePolicy".into(), json!("FallbackToLogsOnError"));
    container
}

fn health(path: &str) -> Value {
    json!({ "path": path, "port": names::HEALTH_PORT })
}

fn capture_command(rules: &Rules) -> Vec<String> {
    let mut command: Vec<String> =
        [names::PROXY_PROGRAM, "capture", "install"].iter().map(|word| (*word).to_owned()).collect();
    if let Exempt::Uid(uid) = rules.exempt {
        command.extend(["--exempt-uid".to_owned(), uid.to_string()]);
    }
    let mut list = |flag: &str, values: String| {
        if !values.is_empty() {
            command.extend([flag.to_owned(), values]);
        }
    };
    list("--exclude-inbound-ports", joined(&rules.exclude_inbound_ports));
    list("--exclude-outbound-ports", joined(&rules.exclude_outbound_ports));
    list("--exclude-cidrs", joined(&rules.exclude_cidrs));
    list("--include-cidrs", joined(&rules.include_cidrs));
    list("--exclude-uids", joined(&rules.exclude_uids));
    command
}

fn joined<T: ToString>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

fn environment(spec: &PodSpec, overrides: &Overrides, resources: &Resources, settings: &InjectSettings) -> Vec<Value> {
    let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let fixed = |name: &str, value: String| json!({ "name": name, "value": value });
    let log = overrides.log_level.unwrap_or(settings.options.proxy_log_level);
    let destinations = overrides.destinations.unwrap_or(settings.options.proxy_destinations);
    let health = names::HEALTH_PORT;
    let mut variables = vec![
        field("WEFT_NAMESPACE", "metadata.namespace"),
        field("WEFT_WORKLOAD", "metadata.name"),
        field("WEFT_SERVICE_ACCOUNT", "spec.serviceAccountName"),
        fixed(
            "WEFT_CONTROL_PLANE",
            format!("{}.{}.svc:{}", names::CONTROL_PLANE, settings.system_namespace, names::XDS_PORT),
        ),
        fixed("WEFT_BUNDLE_PEM", settings.bundle.clone()),
        fixed("WEFT_JOIN_TOKEN_FILE", names::TOKEN_FILE.to_owned()),
        // The cluster's service network also has services that are not of the mesh.
        fixed("WEFT_VIRTUAL_NETWORKS", "none".to_owned()),
        fixed("WEFT_HEALTH", format!("0.0.0.0:{health},[::]:{health}")),
        fixed("WEFT_DESTINATIONS", destinations.to_string()),
        fixed("WEFT_LOG", log.to_string()),
        fixed("WEFT_DRAIN_SECONDS", drain_seconds(spec.termination_grace_period_seconds).to_string()),
        fixed("WEFT_WORKERS", resources.workers().to_string()),
    ];
    variables.extend(resources.buffered_bytes().map(|bytes| fixed("WEFT_MAX_BUFFERED_BYTES", bytes.to_string())));
    for (name, value) in settings.options.proxy_env.iter().chain(overrides.variables.iter()) {
        variables.retain(|variable| variable["name"] != name);
        variables.push(fixed(name, value.to_owned()));
    }
    variables
}

/// How long the proxy may wait for connections to end: less than the pod has, or it would be killed while it waits.
fn drain_seconds(grace: Option<i64>) -> i64 {
    let grace = grace.unwrap_or(DEFAULT_GRACE_SECONDS).max(0);
    (grace - RESERVE_SECONDS).max(grace / 2)
}

fn volume() -> Value {
    json!({
        "name": names::TOKEN_VOLUME,
        "projected": {
            "sources": [{
                "serviceAccountToken": {
                    "audience": names::PROXY_AUDIENCE,
                    "expirationSeconds": TOKEN_SECONDS,
                    "path": token_path(),
                },
            }],
        },
    })
}

/// The file's place in its directory.
fn token_path() -> &'static str {
    names::TOKEN_FILE.rsplit('/').next().unwrap_or(names::TOKEN_FILE)
}

/// What the proxy asks of its node.
struct Resources {
    cpu_request: Quantity,
    memory_request: Quantity,
    cpu_limit: Option<Quantity>,
    memory_limit: Option<Quantity>,
}

impl Resources {
    fn new(overrides: &Overrides, settings: &InjectSettings) -> Result<Self, InjectError> {
        let options = &settings.options;
        let cpu_limit = overrides.cpu_limit.clone().or_else(|| options.proxy_cpu_limit.clone());
        let memory_limit = overrides.memory_limit.clone().or_else(|| options.proxy_memory_limit.clone());
        Ok(Self {
            cpu_request: request(
                "cpu",
                names::PROXY_CPU_REQUEST,
                (overrides.cpu_request.as_ref(), &options.proxy_cpu_request),
                cpu_limit.as_ref(),
            )?,
            memory_request: request(
                "memory",
                names::PROXY_MEMORY_REQUEST,
                (overrides.memory_request.as_ref(), &options.proxy_memory_request),
                memory_limit.as_ref(),
            )?,
            cpu_limit,
            memory_limit,
        })
    }

    fn to_json(&self) -> Value {
        let text = Quantity::to_string;
        let mut resources =
            json!({ "requests": { "cpu": text(&self.cpu_request), "memory": text(&self.memory_request) } });
        for (name, limit) in [("cpu", &self.cpu_limit), ("memory", &self.memory_limit)] {
            if let Some(limit) = limit {
                resources["limits"][name] = json!(text(limit));
            }
        }
        resources
    }

    /// Half of what the proxy may have: above it requests are refused, which is better than to be killed with all of them.
    fn buffered_bytes(&self) -> Option<u128> {
        let (least, most) = (1024 * 1024, DEFAULT_BUFFERED_BYTES as u128);
        self.memory_limit.as_ref().map(|limit| (limit.whole() / 2).clamp(least, most))
    }

    fn workers(&self) -> u128 {
        self.cpu_limit.as_ref().map_or(WORKERS, |limit| limit.whole().clamp(1, MOST_WORKERS))
    }
}

/// The pod's wish, or else the mesh's as far as the limit allows it.
fn request(
    resource: &'static str,
    annotation: &'static str,
    (of_pod, of_mesh): (Option<&Quantity>, &Quantity),
    limit: Option<&Quantity>,
) -> Result<Quantity, InjectError> {
    let above = |request: &Quantity| limit.filter(|limit| limit.is_less_than(request));
    match of_pod {
        Some(request) => match above(request) {
            Some(limit) => Err(InjectError::request_above_limit(resource, request, limit, annotation)),
            None => Ok(request.clone()),
        },
        None => Ok(above(of_mesh).unwrap_or(of_mesh).clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drain_ends_before_the_pods_grace() {
        for (grace, drain) in [
            (None, 25),
            (Some(30), 25),
            (Some(300), 295),
            (Some(10), 5),
            (Some(9), 4),
            (Some(2), 1),
            (Some(1), 0),
            (Some(0), 0),
            (Some(-1), 0),
        ] {
            assert_eq!(drain_seconds(grace), drain, "{grace:?}");
        }
    }
}
