//! What else is in the cluster: other meshes, and remains of earlier installations.

use serde_json::Value;

use super::{Circumstances, Finding, is_injected, label, name, some_of};
use crate::kubernetes::install::cluster::{ClusterError, Kind, Reference};
use crate::kubernetes::install::manifests::manifests;

/// A mesh of somebody else's.
struct Mesh {
    name: &'static str,
    /// End of its API groups.
    group: &'static str,
    /// Beginnings of its mutating webhook configurations' names.
    webhooks: &'static [&'static str],
    /// Labels or annotations of a namespace by which it takes its pods, with their values.
    marks: &'static [(&'static str, &'static [&'static str])],
}

const MESHES: [Mesh; 4] = [
    Mesh {
        name: "Istio",
        group: "istio.io",
        webhooks: &["istio-sidecar-injector", "istio-revision-tag"],
        marks: &[("istio-injection", &["enabled"]), ("istio.io/rev", &[]), ("istio.io/dataplane-mode", &["ambient"])],
    },
    Mesh {
        name: "Linkerd",
        group: "linkerd.io",
        webhooks: &["linkerd-proxy-injector"],
        marks: &[("linkerd.io/inject", &["enabled", "ingress"])],
    },
    Mesh {
        name: "Kuma",
        group: "kuma.io",
        webhooks: &["kuma-admission-mutating", "kong-mesh-admission-mutating"],
        marks: &[("kuma.io/sidecar-injection", &["enabled", "true"])],
    },
    Mesh {
        name: "Consul",
        group: "consul.hashicorp.com",
        webhooks: &["consul-connect-injector", "consul-consul-connect-injector"],
        marks: &[],
    },
];

impl Mesh {
    /// Whether it takes the pods of a namespace.
    fn takes(&self, namespace: &Value) -> bool {
        let metadata = &namespace["metadata"];
        self.marks.iter().any(|(key, values)| {
            let found = ["labels", "annotations"].iter().find_map(|place| metadata[place].get(key)?.as_str());
            found.is_some_and(|value| values.is_empty() || values.contains(&value))
        })
    }
}

pub(super) async fn meshes(at: &Circumstances<'_>) -> Result<Vec<Finding>, ClusterError> {
    const CHECK: &str = "other meshes";
    let groups = at.cluster.read("/apis", "ask for the API groups").await?.body;
    let groups: Vec<&str> = groups["groups"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
        .filter_map(|group| group["name"].as_str())
        .collect();
    let webhooks = at.cluster.list(&Kind::of("MutatingWebhookConfiguration"), None, "").await?;
    let namespaces = at.cluster.list(&Kind::of("Namespace"), None, "").await?;
    let mut findings = Vec::new();
    for mesh in &MESHES {
        let of_group = |group: &&str| *group == mesh.group || group.ends_with(&format!(".{}", mesh.group));
        let injects = webhooks.iter().any(|it| mesh.webhooks.iter().any(|begin| name(it).starts_with(begin)));
        if !injects && !groups.iter().any(of_group) {
            continue;
        }
        let both: Vec<String> =
            namespaces.iter().filter(|it| is_injected(it) && mesh.takes(it)).map(|it| name(it).to_owned()).collect();
        findings.push(if !both.is_empty() {
            Finding::failed(
                CHECK,
                format!("{} takes the pods of {} too: two proxies would redirect the same traffic", mesh.name, some_of(&both)),
                "take the label of one of the two off each of these namespaces, and restart their pods",
            )
        } else if injects {
            Finding::warning(
                CHECK,
                format!("{} is installed", mesh.name),
                "that goes well as long as no namespace is labelled for both, and they do not expect mutual TLS of each other",
            )
        } else {
            Finding::warning(
                CHECK,
                format!("definitions of {} are left, but it injects nothing", mesh.name),
                "nothing needs to be done; its own tool removes them",
            )
        });
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, "there is none"));
    }
    Ok(findings)
}

pub(super) async fn leftovers(at: &Circumstances<'_>) -> Result<Vec<Finding>, ClusterError> {
    const CHECK: &str = "leftovers";
    let wanted: Vec<Reference> = match &at.installed {
        Some(_) => manifests(&at.values).iter().map(Reference::of).collect(),
        None => Vec::new(),
    };
    // What holds users' things or is the control plane's own is no remainder.
    let kept = ["Namespace", "CustomResourceDefinition", "Secret", "ConfigMap", "Lease"];
    let mut left = Vec::new();
    let mut refuses = false;
    for kind in Kind::ours().filter(|kind| !kept.contains(&kind.name.as_str())) {
        for object in at.cluster.ours(&kind).await? {
            if !wanted.contains(&object) {
                refuses |= kind.name == "MutatingWebhookConfiguration";
                left.push(object.to_string());
            }
        }
    }
    let what = || format!("{} of an installation that is not there any more", some_of(&left));
    Ok(vec![match (&at.installed, left.is_empty()) {
        (_, true) => Finding::ok(CHECK, "there are none"),
        (None, false) if refuses => Finding::failed(
            CHECK,
            format!(
                "{}: with the injector's webhook and no control plane, pods of labelled namespaces are refused",
                what()
            ),
            "remove them with `weft uninstall`, or install again with `weft install`",
        ),
        (None, false) => {
            Finding::warning(CHECK, what(), "`weft install` takes them over, `weft uninstall` removes them")
        }
        (Some(_), false) => Finding::warning(CHECK, what(), "`weft upgrade` removes them"),
    }])
}

/// A namespace's word on Pod Security, for the sentence about it.
pub(super) fn pod_security(namespace: &Value) -> &str {
    label(namespace, crate::kubernetes::install::manifests::POD_SECURITY_LABEL).unwrap_or("privileged")
}
