//! Permissions: of whoever installs, and of the control plane.

use std::collections::BTreeSet;

use futures_util::StreamExt;
use serde_json::{Value, json};

use super::{Circumstances, Finding, some_of};
use crate::kubernetes::install::cluster::{Cluster, ClusterError, Reference};
use crate::kubernetes::install::manifests::{custom_resource_definitions, manifests};
use crate::kubernetes::names;

/// Questions under way at once: some eighty are asked in all.
const AT_ONCE: usize = 8;

/// One thing somebody may or may not do.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Deed {
    verb: String,
    group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

impl Deed {
    fn attributes(&self) -> Value {
        json!({
            "verb": self.verb, "group": self.group, "resource": self.resource, "subresource": self.subresource,
            "namespace": self.namespace, "name": self.name,
        })
    }
}

impl std::fmt::Display for Deed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.subresource.is_empty() {
            write!(f, "/{}", self.subresource)?;
        }
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if !self.name.is_empty() {
            write!(f, " {}", self.name)?;
        }
        if !self.namespace.is_empty() {
            write!(f, " in {}", self.namespace)?;
        }
        Ok(())
    }
}

/// Whether the caller may install.
pub(super) async fn caller(at: &Circumstances<'_>) -> Result<Vec<Finding>, ClusterError> {
    const CHECK: &str = "permissions";
    let objects = custom_resource_definitions().into_iter().chain(manifests(&at.values));
    let mut deeds = BTreeSet::new();
    for object in objects.map(|manifest| Reference::of(&manifest)) {
        for verb in ["get", "create", "patch"] {
            deeds.insert(Deed {
                verb: verb.into(),
                group: object.kind.group().into(),
                resource: object.kind.plural.clone(),
                namespace: object.namespace.clone(),
                ..Deed::default()
            });
        }
    }
    let refused = refused(at.cluster, deeds, |deed| {
        ("selfsubjectaccessreviews", "SelfSubjectAccessReview", json!({"resourceAttributes": deed.attributes()}))
    });
    let refused = refused.await?;
    Ok(vec![if refused.is_empty() {
        Finding::ok(CHECK, "you may create all that an installation needs")
    } else {
        Finding::failed(CHECK, format!("you may not {}", some_of(&refused)), "install as a cluster administrator")
    }])
}

/// Whether the roles of our programs allow them what they do.
pub(super) async fn control_plane(at: &Circumstances<'_>) -> Result<Vec<Finding>, ClusterError> {
    const CHECK: &str = "control plane's permissions";
    let namespace = &at.values.system_namespace;
    let user = format!("system:serviceaccount:{namespace}:{}", names::CONTROL_PLANE);
    let groups = [
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
        "system:authenticated".to_owned(),
    ];
    let roles = manifests(&at.values);
    let roles = roles.iter().filter(|manifest| {
        manifest["metadata"]["name"] == names::CONTROL_PLANE
            && (manifest["kind"] == "ClusterRole" || manifest["kind"] == "Role")
    });
    let deeds: BTreeSet<Deed> = roles.flat_map(deeds_of).collect();
    let refused = refused(at.cluster, deeds, |deed| {
        let spec = json!({"user": user, "groups": groups, "resourceAttributes": deed.attributes()});
        ("subjectaccessreviews", "SubjectAccessReview", spec)
    });
    let refused = refused.await?;
    Ok(vec![if refused.is_empty() {
        Finding::ok(CHECK, "its roles allow what it does")
    } else {
        Finding::failed(CHECK, format!("it may not {}", some_of(&refused)), "put its roles back with `weft install`")
    }])
}

/// Everything a role allows.
fn deeds_of(role: &Value) -> Vec<Deed> {
    let list = |rule: &Value, key: &str| -> Vec<String> {
        let items = rule[key].as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let namespace = role["metadata"]["namespace"].as_str().unwrap_or_default();
    let mut deeds = Vec::new();
    for rule in role["rules"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let mut object_names = list(rule, "resourceNames");
        if object_names.is_empty() {
            object_names.push(String::new());
        }
        for group in list(rule, "apiGroups") {
            for resource in list(rule, "resources") {
                let (resource, subresource) = resource.split_once('/').unwrap_or((&resource, ""));
                for name in &object_names {
                    deeds.extend(list(rule, "verbs").into_iter().map(|verb| Deed {
                        verb,
                        group: group.clone(),
                        resource: resource.into(),
                        subresource: subresource.into(),
                        namespace: namespace.into(),
                        name: name.clone(),
                    }));
                }
            }
        }
    }
    deeds
}

/// Asks about each deed; those that are not allowed, in words.
async fn refused(
    cluster: &Cluster,
    deeds: BTreeSet<Deed>,
    question: impl Fn(&Deed) -> (&'static str, &'static str, Value),
) -> Result<Vec<String>, ClusterError> {
    let questions = deeds.into_iter().map(|deed| {
        let (path, kind, spec) = question(&deed);
        async move {
            let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec});
            let path = format!("/apis/authorization.k8s.io/v1/{path}");
            let answer = cluster.create(&path, &review, "ask for permissions").await?;
            let is_allowed = answer.pointer("/status/allowed").and_then(Value::as_bool).unwrap_or(false);
            Ok::<_, ClusterError>((!is_allowed).then(|| deed.to_string()))
        }
    });
    let answers: Vec<_> = futures_util::stream::iter(questions).buffered(AT_ONCE).collect().await;
    let answers: Vec<Option<String>> = answers.into_iter().collect::<Result<_, _>>()?;
    Ok(answers.into_iter().flatten().collect())
}
