//! What the API server asks us: pods to inject, documents to check.
//!
//! Neither configuration holds the certificate to trust (`caBundle`): the control plane puts its root there and keeps it,
//! and applying these again leaves it alone, as it is another manager's field.

use serde_json::{Value, json};

use super::global;
use crate::kubernetes::admission::{injector as injection, validation};
use crate::kubernetes::install::template::{NAMESPACE, setting};
use crate::kubernetes::names;

pub(super) fn injector() -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": global(names::INJECTOR, "injector"),
        "webhooks": injection::webhooks(&json!(setting(NAMESPACE))),
    })
}

pub(super) fn validator() -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": global(names::VALIDATOR, "validator"),
        "webhooks": validation::webhooks(&setting(NAMESPACE)),
    })
}
