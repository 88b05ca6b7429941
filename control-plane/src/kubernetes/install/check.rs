//! `weft check`: what will go wrong, told before it does, each with what to do about it.
//!
//! Nothing is changed: what a webhook or Pod Security would say is found out by dry runs. A question the caller may not
//! ask is a warning, not a verdict: whoever may should ask it.

mod access;
mod neighbours;
mod parts;
mod pods;
#[cfg(test)]
mod tests;
mod webhooks;

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::apply::{Installation, installation, remembered};
use super::cluster::{Cluster, ClusterError};
use super::values::Values;
use crate::kubernetes::names;
use crate::version;

/// The oldest API server whose sidecars start first and end last without a feature gate.
pub const OLDEST_MINOR: u32 = 29;
/// What certificates and tokens forgive of a wrong clock, with room.
const CLOCK_SECONDS: i64 = 30;
/// Names listed in one sentence.
const SHOWN: usize = 5;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// It works, or may.
    Warning,
    /// It does not, or will not.
    Failed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        })
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: &'static str,
    pub verdict: Verdict,
    pub what: String,
    /// What to do; empty when all is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl Finding {
    fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, what: what.into(), remedy: String::new() }
    }

    fn warning(check: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warning, what: what.into(), remedy: remedy.into() }
    }

    fn failed(check: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Failed, what: what.into(), remedy: remedy.into() }
    }
}

/// When a check is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Before an installation: could it work?
    Before,
    /// Of an installation: does it?
    After,
}

/// What checks look at.
#[derive(Debug)]
pub(super) struct Circumstances<'c> {
    cluster: &'c Cluster,
    values: Values,
    installed: Option<Installation>,
    /// Seconds since the Unix epoch, by this machine's clock.
    now: i64,
}

/// Makes all checks of a stage, in the order in which things would go wrong. `given`: the settings of the command line,
/// laid over those of the last installation. `now` in seconds since the Unix epoch.
pub async fn check(
    cluster: &Cluster,
    stage: Stage,
    given: impl FnOnce(Values) -> Values,
    now: i64,
) -> Result<Vec<Finding>, ClusterError> {
    let installed = installation(cluster).await?;
    let base = match &installed {
        Some(installed) => {
            let base = remembered(cluster, &installed.namespace).await.unwrap_or_else(|_| Values::default());
            Values { system_namespace: installed.namespace.clone(), capture: installed.capture, ..base }
        }
        None => Values::default(),
    };
    let circumstances = Circumstances { cluster, values: given(base), installed, now };
    let mut findings = server(&circumstances).await;
    let at = &circumstances;
    if stage == Stage::Before {
        findings.extend(reported("permissions", access::caller(at).await));
    }
    findings.extend(reported("other meshes", neighbours::meshes(at).await));
    findings.extend(reported("leftovers", neighbours::leftovers(at).await));
    findings.extend(reported("pod security", pods::security(at).await));
    if stage == Stage::After {
        let Some(installed) = &circumstances.installed else {
            findings.push(Finding::failed(
                "control plane",
                format!("there is none at {}", cluster.place()),
                "install one with `weft install`, or ask with --pre whether that would work",
            ));
            return Ok(findings);
        };
        findings.extend(reported("control plane", parts::control_plane(at, installed).await));
        findings.extend(reported("control plane's permissions", access::control_plane(at).await));
        findings.extend(reported("cni", parts::cni(at, installed).await));
        findings.extend(reported("webhooks", webhooks::trust(at).await));
        findings.extend(reported("injection", webhooks::injection(at).await));
        findings.extend(reported("unmeshed pods", pods::unmeshed(at).await));
    }
    Ok(findings)
}

/// Whether proxies are of a version that works with their control plane's: `(workload, its version, its control plane's)`.
pub fn versions(proxies: &[(String, String, String)]) -> Finding {
    const CHECK: &str = "proxies";
    let apart = |(workload, proxy, control_plane): &(String, String, String)| {
        Some(format!("{workload}: {}", version::apart(proxy, control_plane)?))
    };
    let apart: Vec<String> = proxies.iter().filter_map(apart).collect();
    if apart.is_empty() {
        return Finding::ok(CHECK, format!("{} connected, all of versions that work together", proxies.len()));
    }
    Finding::warning(
        CHECK,
        some_of(&apart),
        "update the control plane first (`weft upgrade`), then restart older pods: `kubectl -n NAMESPACE rollout restart \
         deployment NAME`",
    )
}

/// What a check that could not be made comes to.
fn reported(check: &'static str, found: Result<Vec<Finding>, ClusterError>) -> Vec<Finding> {
    found.unwrap_or_else(|error| match error.code() {
        Some(403) => vec![Finding::warning(
            check,
            format!("not known: {}", error.message()),
            "ask as somebody who may, such as a cluster administrator",
        )],
        _ => vec![Finding::failed(check, error.to_string(), "see whether the API server is well, and try again")],
    })
}

/// Version and clock of the API server.
async fn server(at: &Circumstances<'_>) -> Vec<Finding> {
    let answer = match at.cluster.read("/version", "ask for the version").await {
        Ok(answer) => answer,
        Err(error) => return reported("version", Err(error)),
    };
    let mut findings = vec![server_version(&answer.body)];
    if let Some(date) = answer.date {
        let difference = (at.now - date).abs();
        findings.push(if difference <= CLOCK_SECONDS {
            Finding::ok("clock", "this machine and the API server agree")
        } else {
            Finding::warning(
                "clock",
                format!("this machine and the API server are {difference} s apart"),
                "see which of them is wrong (`timedatectl` on each): certificates and tokens are valid from one time to another",
            )
        });
    }
    findings
}

fn server_version(answer: &Value) -> Finding {
    // Providers write `29+`.
    let number = |key: &str| {
        let text = answer[key].as_str().unwrap_or_default();
        text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().ok()
    };
    let named = answer["gitVersion"].as_str().unwrap_or("of no version");
    match (number("major"), number("minor")) {
        (Some(1), Some(minor)) if minor < OLDEST_MINOR => Finding::failed(
            "version",
            format!("the API server is {named}; 1.{OLDEST_MINOR} or newer is needed"),
            "update the cluster: older ones have no sidecars that start before the application and end after it",
        ),
        (Some(_), Some(_)) => Finding::ok("version", format!("the API server is {named}")),
        _ => Finding::warning(
            "version",
            format!("the API server does not say its version ({named})"),
            format!("it must be 1.{OLDEST_MINOR} or newer"),
        ),
    }
}

/// The first few of a list, and how many more there are.
fn some_of(items: &[String]) -> String {
    let shown = items.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if items.len() > SHOWN { format!("{shown} and {} more", items.len() - SHOWN) } else { shown }
}

/// A label of an object.
fn label<'o>(object: &'o Value, key: &str) -> Option<&'o str> {
    object.pointer("/metadata/labels")?.get(key)?.as_str()
}

/// The name of an object.
fn name(object: &Value) -> &str {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}

/// Whether a namespace's pods are injected without a word of their own.
fn is_injected(namespace: &Value) -> bool {
    label(namespace, names::INJECT_LABEL) == Some(names::ENABLED)
        && !names::EXEMPT_NAMESPACES.contains(&name(namespace))
}
