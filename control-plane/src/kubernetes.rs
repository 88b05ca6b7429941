//! Weft in a Kubernetes cluster: what it reads there, what it puts there, and how it is installed.
//!
//! | module | does |
//! |---|---|
//! | [`names`] | labels, annotations and names of our objects: the contract between all others |
//! | [`access`] | the way to a cluster: a kubeconfig, or the pod's own account |
//! | [`admission`] | what the webhooks answer: injection and validation |
//! | [`api`] | what the command line is told over HTTP, by the reader's token |
//! | [`authority`] | the root in a Secret, its bundle in a ConfigMap |
//! | `causes` | errors told with their causes |
//! | `confidential` | requests whose answers hold secrets |
//! | [`custom_resources`] | our documents as custom resources: schemas and rules from their types |
//! | [`discovery`] | the cluster's objects, watched, as documents |
//! | [`inject`] | a pod with a proxy beside it: one function for the webhook and the command line |
//! | [`install`] | everything of ours in a cluster: rendered, applied, removed, checked |
//! | [`lease`] | which replica writes |
//! | [`run`] | wires a control plane in a cluster |
//! | [`status`] | what became of a document, written back |
//! | `time` | clocks that are given |
//! | [`token_review`] | service-account tokens as proof of identity |
//! | [`unmeshed`] | pods that should have a proxy and have none |
//! | [`webhook`] | HTTPS for the API server, with certificates of our own root |

pub mod access;
pub mod admission;
pub mod api;
pub mod authority;
mod causes;
mod confidential;
pub mod custom_resources;
pub mod discovery;
#[cfg(test)]
pub(crate) mod fake_api;
pub mod inject;
pub mod install;
pub mod lease;
pub mod names;
pub mod run;
pub mod status;
mod time;
pub mod token_review;
pub mod unmeshed;
pub mod webhook;
