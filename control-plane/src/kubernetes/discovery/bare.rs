//! Pods that run without a proxy though somebody asks for one.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::object::{BareFacts, ObjectName};
use crate::kubernetes::names::{ENABLED, INJECT_LABEL};

/// Pods without a proxy that ask for one, or whose namespace asks and they do not object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bare {
    /// By name.
    pub pods: Vec<(ObjectName, BareFacts)>,
    /// The namespaces that ask for all their pods, by name.
    pub namespaces: Vec<Arc<str>>,
}

impl Bare {
    /// The pods as objects, with what is known of them.
    pub fn pods(&self) -> impl Iterator<Item = Pod> {
        self.pods.iter().map(|(name, facts)| facts.pod(name))
    }

    /// The namespaces as objects, with their label.
    pub fn namespaces(&self) -> impl Iterator<Item = Namespace> {
        self.namespaces.iter().map(|name| Namespace {
            metadata: ObjectMeta {
                name: Some(name.to_string()),
                labels: Some([(INJECT_LABEL.to_owned(), ENABLED.to_owned())].into()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        })
    }
}

impl BareFacts {
    fn pod(&self, name: &ObjectName) -> Pod {
        let owner = |(kind, name): &(String, String)| OwnerReference {
            kind: kind.clone(),
            name: name.clone(),
            controller: Some(true),
            ..OwnerReference::default()
        };
        Pod {
            metadata: ObjectMeta {
                namespace: Some(name.namespace.to_string()),
                name: Some(name.name.to_string()),
                uid: Some(self.uid.clone()),
                labels: self.label.clone().map(|label| [(INJECT_LABEL.to_owned(), label)].into()),
                annotations: self.is_mirror.then(|| [(super::object::MIRROR.to_owned(), String::new())].into()),
                owner_references: self.owner.as_ref().map(|known| vec![owner(known)]),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec { host_network: Some(self.host_network), ..PodSpec::default() }),
            status: None,
        }
    }
}
