//! Whole pods in, whole pods out.

mod generated;
mod golden;
mod hostile;
mod lifetimes;

use clap::Parser;
use serde_json::{Value, json};

use super::*;

#[derive(Debug, Parser)]
struct Program {
    #[command(flatten)]
    options: InjectOptions,
}

/// A mesh's settings, with these flags.
pub(crate) fn settings(flags: &[&str]) -> InjectSettings {
    let mut options = Program::parse_from(["program"].iter().chain(flags)).options;
    if options.proxy_image == names::DEFAULT_PROXY_IMAGE {
        options.proxy_image = "registry.example/weft-proxy:1".to_owned();
    }
    InjectSettings {
        options,
        system_namespace: names::SYSTEM_NAMESPACE.to_owned(),
        bundle: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".to_owned(),
    }
}

/// The pods of the golden files: as they were, and with their proxy.
pub(crate) fn golden_pods() -> Vec<(Value, Value)> {
    golden::FILES.iter().flat_map(|(name, input, _)| golden::pods(name, input)).collect()
}

fn shop() -> NamespaceFacts {
    NamespaceFacts::enabled("shop")
}

/// A pod of one container, with these fields beside or in place of the usual.
fn pod(fields: &Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "web", "image": "registry.example/web:1"}]},
    });
    merge(&mut pod, fields);
    pod
}

fn merge(value: &mut Value, over: &Value) {
    match (value, over) {
        (Value::Object(fields), Value::Object(over)) => {
            for (key, over) in over {
                merge(fields.entry(key.clone()).or_insert(Value::Null), over);
            }
        }
        (value, over) => *value = over.clone(),
    }
}

fn injected(pod: &Value, settings: &InjectSettings) -> Value {
    match inject(pod, &shop(), settings) {
        Ok(Injected::Changed(after)) => after,
        other => panic!("{other:?} of {pod:#}"),
    }
}

fn names_of(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(|item| item["name"].as_str()).collect()
}

fn proxy_of(pod: &Value) -> &Value {
    let list = pod["spec"]["initContainers"].as_array().expect("init containers");
    list.iter().find(|container| container["name"] == names::PROXY_CONTAINER).expect("a proxy")
}

fn variable<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    let variables = proxy_of(pod)["env"].as_array().expect("variables");
    variables.iter().find(|variable| variable["name"] == name).and_then(|variable| variable["value"].as_str())
}

#[test]
fn a_proxy_is_supervised_unless_its_pod_keeps_its_program() {
    let supervised = json!([names::PROXY_PROGRAM, names::SUPERVISE]);
    let alone = json!([names::PROXY_PROGRAM]);
    for (annotations, command, expected) in [
        (json!({}), &supervised, None),
        (json!({ names::PROXY_UPGRADE: "live" }), &supervised, None),
        (json!({ names::PROXY_UPGRADE: "on-restart" }), &alone, Some("on-restart")),
        // An image of the pod's own is its choice, and may know no supervisor.
        (json!({ names::PROXY_IMAGE: "registry.example/mine:1" }), &alone, Some("on-restart")),
        (json!({ names::PROXY_IMAGE: "registry.example/mine:1", names::PROXY_UPGRADE: "live" }), &supervised, None),
    ] {
        let injected = injected(&pod(&json!({ "metadata": { "annotations": annotations } })), &settings(&[]));
        assert_eq!(&proxy_of(&injected)["command"], command, "{annotations}");
        assert_eq!(variable(&injected, "WEFT_UPGRADE"), expected, "{annotations}");
    }
}
