//! The container runtime's protocol: a command and its place by variables, the network configuration on standard input,
//! a result or an error on standard output (CNI specification 1.1).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use serde::Deserialize;
use serde_json::{Value, json};
use weft_proto::names::{EXEMPT_NAMESPACES, SYSTEM_NAMESPACE};

use super::access::{self, Access};
use super::api::{Api, ApiError};
use super::pod::{self, Annotations, Pod, PodError, Verdict};
use crate::capture::{self, CaptureError, Rules};
use crate::clock;

/// What we say we speak where nobody says more.
const VERSION: &str = "1.1.0";
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// Longest time for questions to the API server, repetitions included: less than a runtime gives a pod's network.
const ASK_LIMIT: Duration = Duration::from_secs(20);
/// Between two of them, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What is printed, and whether it is a success.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) is_good: bool,
}

/// Why a command failed; codes below 100 are the specification's.
#[derive(Debug, thiserror::Error)]
pub(super) enum PluginError {
    #[error("the variable {0} is missing")]
    Variable(&'static str),
    #[error("CNI_COMMAND `{0}` is none of ADD, DEL, CHECK, GC, STATUS, VERSION")]
    Command(String),
    #[error("the network configuration cannot be read: {0}")]
    Configuration(#[from] serde_json::Error),
    #[error("there is no prevResult: weft-cni makes no network, it stands behind the plugins that do")]
    NotChained,
    #[error("cannot enter the pod's network namespace {path}: {problem}")]
    Namespace { path: String, problem: String },
    #[error("cannot learn whether pod {pod} belongs to the mesh: {problem}; it starts when that is known")]
    Unknown { pod: String, problem: String },
    #[error("pod {pod} was replaced by another one of its name")]
    Replaced { pod: String },
    #[error("pod {pod}: {source}")]
    Pod { pod: String, source: PodError },
    #[error("pod {pod} cannot be captured: {source}")]
    Capture { pod: String, source: CaptureError },
    #[error("the rules of pod {pod} are not the ones it must have: something changed them, or removed them")]
    Changed { pod: String },
}

impl PluginError {
    fn code(&self) -> u32 {
        match self {
            Self::Variable(_) | Self::Command(_) => 4,
            Self::Configuration(_) => 6,
            Self::NotChained => 7,
            Self::Namespace { .. } => 5,
            // Try again later.
            Self::Unknown { .. } | Self::Replaced { .. } => 11,
            Self::Capture { .. } => 100,
            Self::Pod { .. } => 101,
            Self::Changed { .. } => 102,
        }
    }
}

/// The network configuration, as far as it is about us.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    #[serde(default)]
    cni_version: Option<String>,
    /// What the plugins before us made.
    prev_result: Option<Value>,
    #[serde(default)]
    runtime_config: RuntimeConfiguration,
    /// Instead of the one beside the program.
    kubeconfig: Option<PathBuf>,
    /// Namespaces whose pods are never asked for.
    exclude_namespaces: Option<Vec<String>>,
}

/// What the runtime adds, because the configuration says that we can use it.
#[derive(Debug, Default, Deserialize)]
struct RuntimeConfiguration {
    #[serde(rename = "io.kubernetes.cri.pod-annotations")]
    annotations: Option<Annotations>,
}

/// The answer to one call.
pub(super) fn answer(variable: &impl Fn(&str) -> Option<String>, input: &str) -> Answer {
    let version = || {
        let configuration: Option<Configuration> = serde_json::from_str(input).ok();
        configuration.and_then(|configuration| configuration.cni_version).unwrap_or_else(|| VERSION.to_owned())
    };
    match perform(variable, input) {
        Ok(text) => Answer { text, is_good: true },
        Err(error) => {
            let text = json!({"cniVersion": version(), "code": error.code(), "msg": error.to_string(), "details": ""});
            Answer { text: format!("{text}\n"), is_good: false }
        }
    }
}

fn perform(variable: &impl Fn(&str) -> Option<String>, input: &str) -> Result<String, PluginError> {
    let command = variable("CNI_COMMAND").ok_or(PluginError::Variable("CNI_COMMAND"))?;
    match command.as_str() {
        "VERSION" => Ok(format!("{}\n", json!({"cniVersion": VERSION, "supportedVersions": VERSIONS}))),
        // The rules live in the pod's namespace and go with it. STATUS speaks for the node's whole network, and that is not
        // broken when we are.
        "DEL" | "GC" | "STATUS" => Ok(String::new()),
        "ADD" => {
            let configuration: Configuration = serde_json::from_str(input)?;
            let result = configuration.prev_result.as_ref().ok_or(PluginError::NotChained)?;
            if let Some((pod, rules)) = captured(variable, &configuration)? {
                enter(variable)?;
                capture::install(&rules).map_err(|source| PluginError::Capture { pod, source })?;
            }
            Ok(format!("{result}\n"))
        }
        "CHECK" => {
            let configuration: Configuration = serde_json::from_str(input)?;
            if let Some((pod, rules)) = captured(variable, &configuration)? {
                enter(variable)?;
                match capture::installed() {
                    Ok(Some(installed)) if installed.is(&rules) => {}
                    Ok(_) => return Err(PluginError::Changed { pod }),
                    Err(source) => return Err(PluginError::Capture { pod, source }),
                }
            }
            Ok(String::new())
        }
        _ => Err(PluginError::Command(command)),
    }
}

/// The pod that is called for and its rules, if it is ours.
fn captured(
    variable: &impl Fn(&str) -> Option<String>,
    configuration: &Configuration,
) -> Result<Option<(String, Rules)>, PluginError> {
    // What is no pod has no name: somebody else uses the node's network configuration.
    let arguments = variable("CNI_ARGS").unwrap_or_default();
    let argument = |name: &str| {
        let pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).find(|value| !value.is_empty())
    };
    let (Some(namespace), Some(name)) = (argument("K8S_POD_NAMESPACE"), argument("K8S_POD_NAME")) else {
        return Ok(None);
    };
    if is_exempt(configuration, namespace) {
        return Ok(None);
    }
    let pod = format!("{namespace}/{name}");
    let in_pod = |source| PluginError::Pod { pod: pod.clone(), source };
    let annotations = configuration.runtime_config.annotations.as_ref();
    let verdict = match annotations.map(pod::judge).transpose().map_err(in_pod)? {
        Some(Verdict::Unclear) | None => {
            match ask(configuration, &pod, namespace, name)? {
                // No longer there, or never: whatever the runtime makes, it is no pod of ours.
                None => Verdict::Pass,
                Some(found) if argument("K8S_POD_UID").is_some_and(|uid| uid != found.metadata.uid) => {
                    return Err(PluginError::Replaced { pod });
                }
                Some(found) => pod::judge_whole(&found).map_err(in_pod)?,
            }
        }
        Some(verdict) => verdict,
    };
    Ok(match verdict {
        Verdict::Capture(rules) => Some((pod, *rules)),
        Verdict::Pass | Verdict::Unclear => None,
    })
}

fn is_exempt(configuration: &Configuration, namespace: &str) -> bool {
    match &configuration.exclude_namespaces {
        Some(excluded) => excluded.iter().any(|excluded| excluded == namespace),
        None => EXEMPT_NAMESPACES.contains(&namespace) || namespace == SYSTEM_NAMESPACE,
    }
}

/// The pod as the API server has it; `None` when it has none.
fn ask(configuration: &Configuration, pod: &str, namespace: &str, name: &str) -> Result<Option<Pod>, PluginError> {
    let unknown = |problem: String| PluginError::Unknown { pod: pod.to_owned(), problem };
    let path = match &configuration.kubeconfig {
        Some(path) => path.clone(),
        None => beside_program().map_err(|error| unknown(error.to_string()))?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| unknown(error.to_string()))?;
    runtime.block_on(async {
        let deadline = clock::now() + ASK_LIMIT;
        let mut pause = FIRST_PAUSE;
        loop {
            let problem = match read_pod(&path, namespace, name).await {
                Ok(found) => return Ok(found),
                Err(problem) => problem,
            };
            if clock::now() + pause >= deadline {
                return Err(unknown(problem));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    })
}

fn beside_program() -> std::io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program.with_file_name(access::KUBECONFIG))
}

/// Asks once. The token is read each time: it may have been renewed meanwhile.
async fn read_pod(kubeconfig: &Path, namespace: &str, name: &str) -> Result<Option<Pod>, String> {
    let access = Access::of_kubeconfig(kubeconfig).map_err(|error| error.to_string())?;
    let api = Api::new(&access).map_err(|error| error.to_string())?;
    match api.get(&format!("/api/v1/namespaces/{namespace}/pods/{name}")).await {
        Ok(object) => serde_json::from_value(object).map(Some).map_err(|error| error.to_string()),
        Err(ApiError::Refused { status, .. }) if status == ::http::StatusCode::NOT_FOUND => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Makes the pod's network namespace this thread's own, for good: the process has nothing else to do.
fn enter(variable: &impl Fn(&str) -> Option<String>) -> Result<(), PluginError> {
    let path = variable("CNI_NETNS").filter(|path| !path.is_empty()).ok_or(PluginError::Variable("CNI_NETNS"))?;
    let failed = |problem: String| PluginError::Namespace { path: path.clone(), problem };
    let namespace = File::open(&path).map_err(|error| failed(error.to_string()))?;
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| failed(errno.to_string()))
}
