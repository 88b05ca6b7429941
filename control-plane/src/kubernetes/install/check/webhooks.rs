//! Whether the API server reaches our webhooks and trusts them: by their configuration, and by trying.

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::{Circumstances, Finding, is_injected, name};
use crate::kubernetes::install::apply::bundles;
use crate::kubernetes::install::cluster::{ClusterError, Kind, Reference};
use crate::kubernetes::install::uninstall::has_proxy;
use crate::kubernetes::names;

/// Namespaces in which injection is tried.
const MOST_TRIED: usize = 20;

/// The configurations hold the root that the mesh has now.
pub(super) async fn trust(at: &Circumstances<'_>) -> Result<Vec<Finding>, ClusterError> {
    const CHECK: &str = "webhooks";
    let remedy = "the control plane puts it there within seconds: see its log";
    let map = Reference::new(Kind::of("ConfigMap"), &at.values.system_namespace, names::BUNDLE_CONFIG_MAP);
    let map = at.cluster.get(&map).await?;
    let Some(roots) = map.as_ref().and_then(|map| map["data"][names::BUNDLE_KEY].as_str()).map(certificates) else {
        let what =
            format!("there is no root yet (ConfigMap {}/{})", at.values.system_namespace, names::BUNDLE_CONFIG_MAP);
        return Ok(vec![Finding::failed(CHECK, what, "the control plane makes it at its first start: see its log")]);
    };
    let mut findings = Vec::new();
    for (kind, name) in
        [("MutatingWebhookConfiguration", names::INJECTOR), ("ValidatingWebhookConfiguration", names::VALIDATOR)]
    {
        let Some(configuration) = at.cluster.get(&Reference::new(Kind::of(kind), "", name)).await? else {
            findings.push(Finding::failed(CHECK, format!("{name} is gone"), "put it back with `weft install`"));
            continue;
        };
        let trusts = |bundle: Option<String>| {
            let known = bundle.and_then(|text| decoded(&text)).map(|text| certificates(&text)).unwrap_or_default();
            !roots.is_empty() && roots.iter().all(|root| known.contains(root))
        };
        findings.push(if bundles(&configuration).into_iter().all(trusts) {
            Finding::ok(CHECK, format!("{name} trusts the mesh's root"))
        } else {
            Finding::failed(
                CHECK,
                format!("{name} does not trust the mesh's root: the API server cannot ask the control plane"),
                remedy,
            )
        });
    }
    Ok(findings)
}

/// Certificates of a PEM file, without their line ends.
fn certificates(pem: &str) -> Vec<String> {
    let blocks = pem.split("-----BEGIN CERTIFICATE-----").skip(1);
    let inside = blocks.filter_map(|block| block.split("-----END CERTIFICATE-----").next());
    inside.map(|block| block.split_whitespace().collect()).collect()
}

/// Text in base64, as objects hold bytes.
fn decoded(text: &str) -> Option<String> {
    let ByteString(bytes) = serde_json::from_value(json!(text)).ok()?;
    String::from_utf8(bytes).ok()
}

/// Makes a pod that is never kept in each labelled namespace, and looks whether it got a proxy.
pub(super) async fn injection(at: &Circumstances<'_>) -> Result<Vec<Finding>, ClusterError> {
    let namespaces = at.cluster.list(&Kind::of("Namespace"), None, "").await?;
    let mut places: Vec<&str> = namespaces.iter().filter(|it| is_injected(it)).map(name).collect();
    places.truncate(MOST_TRIED);
    if places.is_empty() {
        places.push("default");
    }
    let mut findings = Vec::new();
    for place in places {
        let path = format!("/api/v1/namespaces/{place}/pods?dryRun=All");
        let answer = at.cluster.create(&path, &sample(), &format!("try a pod in {place}")).await;
        findings.push(verdict(place, answer));
    }
    Ok(findings)
}

/// A pod that every Pod Security level admits, so that a refusal is about what was injected.
fn sample() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "weft-check-", "labels": {names::INJECT_LABEL: names::ENABLED}},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "check",
                "image": "weft.dev/check",
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    })
}

fn verdict(place: &str, answer: Result<Value, ClusterError>) -> Finding {
    const CHECK: &str = "injection";
    match answer {
        Ok(pod) if has_proxy(&pod) => Finding::ok(CHECK, format!("a pod in {place} gets a proxy")),
        Ok(_) => Finding::failed(
            CHECK,
            format!("a pod in {place} gets no proxy: the API server does not ask the injector"),
            "put its configuration back with `weft install`; it must select what the namespace's labels say",
        ),
        Err(error) => {
            let message = error.message();
            if message.contains("failed calling webhook") {
                Finding::failed(
                    CHECK,
                    format!("the API server cannot ask the injector: {message}"),
                    format!(
                        "it connects to the control plane's pods on port {}: allow that in firewalls and network policies",
                        names::WEBHOOK_PORT
                    ),
                )
            } else if message.contains("PodSecurity") {
                Finding::failed(
                    CHECK,
                    format!("Pod Security refuses pods of {place}: {message}"),
                    "capture by the CNI plugin: `weft upgrade --set capture=cni`",
                )
            } else {
                Finding::warning(
                    CHECK,
                    format!("a pod in {place} could not be tried: {message}"),
                    "ask as somebody who may create pods there",
                )
            }
        }
    }
}
