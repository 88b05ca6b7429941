//! Which pods the API server asks us about.
//!
//! The selectors are exact, so that no failure of ours can keep the cluster from healing itself: never the cluster's own
//! namespaces, never ours, and elsewhere nothing that nobody labelled. What is labelled is refused while no control plane
//! answers: a pod that starts outside the mesh in silence is worse than one that starts later.

use serde_json::{Value, json};

use crate::kubernetes::names;

/// How long the API server waits for an answer. It is computed from what is in memory; what takes longer is lost.
const TIMEOUT_SECONDS: u32 = 5;

/// The field `webhooks` of the `MutatingWebhookConfiguration`, without the certificate to trust (`caBundle`), which the
/// control plane puts there and keeps. The namespace is a value, so that templates may have a hole there.
pub fn webhooks(system_namespace: &Value) -> Value {
    let exempt: Vec<Value> =
        names::EXEMPT_NAMESPACES.iter().map(|name| json!(name)).chain([system_namespace.clone()]).collect();
    let elsewhere = json!({ "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": exempt });
    let label =
        |operator: &str, value: &str| json!({ "key": names::INJECT_LABEL, "operator": operator, "values": [value] });
    let webhook = |name: &str, of_namespace: Value, of_pod: Vec<Value>| {
        json!({
            "name": name,
            "admissionReviewVersions": ["v1"],
            "clientConfig": {
                "service": { "name": names::CONTROL_PLANE, "namespace": system_namespace, "path": "/inject", "port": 443 },
            },
            "rules": [{
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "operations": ["CREATE"],
                "resources": ["pods"],
                "scope": "Namespaced",
            }],
            "namespaceSelector": { "matchExpressions": [&elsewhere, of_namespace] },
            "objectSelector": { "matchExpressions": of_pod },
            // The kubelet shows these as the files it made them from say; nothing may change them or keep them away.
            "matchConditions": [{
                "name": "not-of-a-file",
                "expression": "!has(object.metadata.annotations) || !('kubernetes.io/config.mirror' in object.metadata.annotations)",
            }],
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            // Webhooks after ours may add containers, whose probes are ours to see too.
            "reinvocationPolicy": "IfNeeded",
            "sideEffects": "None",
            "timeoutSeconds": TIMEOUT_SECONDS,
        })
    };
    let not_disabled = label("NotIn", names::DISABLED);
    let labelled = json!({ "key": names::INJECT_LABEL, "operator": "Exists" });
    json!([
        webhook("namespace.injector.weft.dev", label("In", names::ENABLED), vec![not_disabled.clone()]),
        // Also those whose label is misspelt: they are refused with what it may be, not left out in silence.
        webhook("pod.injector.weft.dev", label("NotIn", names::ENABLED), vec![labelled, not_disabled]),
    ])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::admissionregistration::v1::MutatingWebhook;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

    use super::*;

    type Labels = BTreeMap<String, String>;

    fn matches(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
        let expressions = selector.and_then(|selector| selector.match_expressions.as_deref()).unwrap_or_default();
        expressions.iter().all(|expression| {
            let value = labels.get(&expression.key);
            let listed =
                value.is_some_and(|value| expression.values.as_ref().is_some_and(|values| values.contains(value)));
            match expression.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                other => panic!("{other}"),
            }
        })
    }

    #[test]
    fn each_pod_meets_the_one_webhook_it_should_or_none() {
        let webhooks: Vec<MutatingWebhook> = serde_json::from_value(webhooks(&json!("mesh"))).expect("webhooks");
        let of_namespace = "namespace.injector.weft.dev";
        let of_pod = "pod.injector.weft.dev";
        for (namespace, its_label, pods_label, expected) in [
            ("shop", Some("enabled"), None, Some(of_namespace)),
            ("shop", Some("enabled"), Some("enabled"), Some(of_namespace)),
            ("shop", Some("enabled"), Some("true"), Some(of_namespace)),
            ("shop", Some("enabled"), Some("disabled"), None),
            ("shop", None, None, None),
            ("shop", None, Some("enabled"), Some(of_pod)),
            ("shop", None, Some("true"), Some(of_pod)),
            ("shop", None, Some("disabled"), None),
            ("shop", Some("disabled"), Some("enabled"), Some(of_pod)),
            ("shop", Some("disabled"), None, None),
            ("kube-system", Some("enabled"), Some("enabled"), None),
            ("kube-public", None, Some("enabled"), None),
            ("kube-node-lease", None, Some("enabled"), None),
            ("mesh", Some("enabled"), Some("enabled"), None),
        ] {
            let label = |value: Option<&str>| value.map(|value| (names::INJECT_LABEL.to_owned(), value.to_owned()));
            let name = ("kubernetes.io/metadata.name".to_owned(), namespace.to_owned());
            let of_namespace: Labels = label(its_label).into_iter().chain([name]).collect();
            let of_pod: Labels = label(pods_label).into_iter().collect();
            let asked: Vec<&str> = webhooks
                .iter()
                .filter(|webhook| matches(webhook.namespace_selector.as_ref(), &of_namespace))
                .filter(|webhook| matches(webhook.object_selector.as_ref(), &of_pod))
                .map(|webhook| webhook.name.as_str())
                .collect();
            assert_eq!(asked, expected.into_iter().collect::<Vec<_>>(), "{namespace} {its_label:?} {pods_label:?}");
        }
    }

    #[test]
    fn a_failure_refuses_new_pods_and_nothing_else() {
        let webhooks: Vec<MutatingWebhook> = serde_json::from_value(webhooks(&json!("mesh"))).expect("webhooks");
        for webhook in webhooks {
            assert_eq!(webhook.failure_policy.as_deref(), Some("Fail"));
            assert_eq!((webhook.timeout_seconds, webhook.side_effects.as_str()), (Some(5), "None"));
            assert_eq!(webhook.reinvocation_policy.as_deref(), Some("IfNeeded"));
            let rules = webhook.rules.expect("rules");
            assert_eq!(rules.len(), 1);
            assert_eq!(rules[0].operations.as_deref(), Some(&["CREATE".to_owned()][..]));
            assert_eq!(rules[0].resources.as_deref(), Some(&["pods".to_owned()][..]));
            let service = webhook.client_config.service.expect("a service");
            assert_eq!((service.namespace.as_str(), service.path.as_deref()), ("mesh", Some("/inject")));
        }
    }
}
