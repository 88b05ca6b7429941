//! Schemas against the reader: through both go the documents of its own tests.

use std::collections::{BTreeMap, BTreeSet};

use kube_cel::Validator;
use serde_json::{Map, Value, json};

use super::*;
use crate::document::tests::http_route::bad_http_routes;
use crate::document::tests::{ALL_KINDS, bad_documents, bad_lines_of_requests, bad_tls_routes};
use crate::document::{self, from_object};

/// An API server's opinion of objects, from a definition alone.
struct Server {
    schema: Value,
    structure: jsonschema::Validator,
    is_namespaced: bool,
}

fn servers() -> BTreeMap<String, Server> {
    let server = |definition: CustomResourceDefinition| {
        let kind = definition.spec.names.kind.clone();
        let schema = definition.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
        let schema = serde_json::to_value(schema).unwrap();
        let mut strict = schema.clone();
        // What the API server would drop, `kubectl` refuses.
        close(&mut strict);
        let structure = jsonschema::options().should_validate_formats(true).build(&strict).unwrap();
        let is_namespaced = definition.spec.scope == "Namespaced";
        (kind, Server { schema, structure, is_namespaced })
    };
    all().into_iter().map(server).collect()
}

fn close(schema: &mut Value) {
    let Value::Object(node) = schema else { return };
    let is_metadata = !node.contains_key("properties");
    if node.get("type") == Some(&json!("object")) && !is_metadata && !node.contains_key("additionalProperties") {
        node.insert("additionalProperties".to_owned(), json!(false));
    }
    if let Some(Value::Object(properties)) = node.get_mut("properties") {
        properties.values_mut().for_each(close);
    }
    for inner in ["items", "additionalProperties"] {
        node.get_mut(inner).into_iter().for_each(close);
    }
}

impl Server {
    /// Why it would refuse an object.
    fn problems(&self, object: &Value) -> Vec<String> {
        let object = without_nulls(object);
        let mut problems: Vec<String> =
            self.structure.iter_errors(&object).map(|error| format!("{}: {error}", error.instance_path())).collect();
        repeated(&self.schema, &object, "", &mut problems);
        if !self.is_namespaced && object.pointer("/metadata/namespace").is_some() {
            problems.push("metadata.namespace: the kind has none".to_owned());
        }
        // Rules are looked at where the structure is right, as the API server does.
        if problems.is_empty()
            && let Err(errors) = Validator::new().validate(&self.schema, &object, None)
        {
            problems.extend(errors.as_slice().iter().map(ToString::to_string));
        }
        problems
    }
}

/// Fields without a value are dropped before anything is checked.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name.clone(), without_nulls(value))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

/// Entries that a list's type allows once.
fn repeated(schema: &Value, value: &Value, path: &str, problems: &mut Vec<String>) {
    if let (Some(items), Value::Array(values)) = (schema.get("items"), value) {
        let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
        let mut seen = BTreeSet::new();
        for (index, value) in values.iter().enumerate() {
            let identity = match (schema.get("x-kubernetes-list-type").and_then(Value::as_str), keys) {
                (Some("set"), _) => Some(value.to_string()),
                (Some("map"), Some(keys)) => {
                    Some(keys.iter().map(|key| value[key.as_str().unwrap()].to_string()).collect::<Vec<_>>().join(","))
                }
                _ => None,
            };
            if identity.is_some_and(|identity| !seen.insert(identity)) {
                problems.push(format!("{path}[{index}]: Duplicate value"));
            }
            repeated(items, value, &format!("{path}[{index}]"), problems);
        }
    }
    if let (Some(Value::Object(properties)), Value::Object(fields)) = (schema.get("properties"), value) {
        for (name, value) in fields {
            if let Some(schema) = properties.get(name) {
                repeated(schema, value, &format!("{path}.{name}"), problems);
            }
        }
    }
}

/// The objects of a text that are of one of our kinds and versions; others the API server never asks us about.
fn objects(text: &str) -> Vec<Value> {
    use serde::Deserialize;
    let documents = serde_yaml_ng::Deserializer::from_str(text).take(16).map(Value::deserialize);
    let ours = |object: &Value| {
        object["apiVersion"].as_str().is_some_and(|version| version == API_VERSION || !version.starts_with("weft"))
            && object["apiVersion"] != json!("v1")
            && document::key_of(object).is_some()
    };
    documents.filter_map(Result::ok).filter(ours).collect()
}

/// Texts that are wrong, from the reader's own tables.
fn bad_texts() -> Vec<String> {
    let documents = bad_documents().into_iter().map(|(_, text, _)| text);
    let routes = bad_tls_routes().into_iter().chain(bad_http_routes()).map(|(text, _)| text);
    documents.chain(routes).chain(bad_lines_of_requests().into_iter().map(|(text, ..)| text)).collect()
}

#[test]
fn what_the_reader_takes_no_schema_refuses() {
    let servers = servers();
    let mut kinds = BTreeSet::new();
    for mut object in objects(ALL_KINDS) {
        object["metadata"]["uid"] = json!("0c9a8d74");
        object["status"] = json!({"observedGeneration": 1, "conditions": []});
        let kind = object["kind"].as_str().unwrap().to_owned();
        from_object(&object, "x").unwrap();
        assert_eq!(servers[&kind].problems(&object), Vec::<String>::new(), "{object:#}");
        kinds.insert(kind);
    }
    assert_eq!(kinds.len(), Kind::ALL.len(), "{kinds:?}");
}

/// What takes more than one object, or more than a schema can say: the webhook refuses it.
const FOR_THE_WEBHOOK: [&str; 3] = [
    // A rule of an object knows its name and not its namespace.
    "is another namespace than the route's",
    // No rule can tell whether a text is a pattern.
    "is not a regular expression",
    // Keys of a map have no bound, so that a rule about them could cost anything.
    "is not a label's name",
];

#[test]
fn what_the_reader_refuses_a_schema_or_a_rule_refuses() {
    let servers = servers();
    let mut refused = 0;
    for text in bad_texts() {
        for object in objects(&text) {
            let Err(document::Problems(problems)) = from_object(&object, "x") else { continue };
            let by_webhook =
                problems.iter().any(|problem| FOR_THE_WEBHOOK.iter().any(|known| problem.what.contains(known)));
            let found = servers[object["kind"].as_str().unwrap()].problems(&object);
            assert_eq!(found.is_empty(), by_webhook, "{text}\n{problems:#?}\n{found:#?}");
            refused += 1;
        }
    }
    assert!(refused > 40, "{refused}");
}

#[test]
fn texts_are_taken_by_the_schema_where_the_reader_takes_them() {
    let servers = servers();
    let service = |ports: &str, rest: &str| {
        format!(
            "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{name: a}}\nspec: {{ports: [{ports}], {rest}}}\n"
        )
    };
    let workload = |spec: &str| {
        format!("apiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {{name: a}}\nspec: {{{spec}}}\n")
    };
    let route = |name: &str| {
        format!(
            "apiVersion: weft.dev/v1alpha1\nkind: TLSRoute\nmetadata: {{name: a}}\n\
             spec: {{parentRefs: [{{name: b}}], hostnames: ['{name}'], rules: [{{backendRefs: [{{name: b, port: 1}}]}}]}}\n"
        )
    };
    let long = "a".repeat(63);
    let addresses = [
        "10.0.0.1",
        "255.255.255.255",
        "256.0.0.1",
        "1.2.3",
        "01.2.3.4",
        "0.0.0.0",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "::",
        "::1",
        "0:0:0:0:0:0:0:0",
        "fd57::2",
        "FF02::1",
        "ff::1",
        "ff02::1",
        "1::2::3",
        "12345::",
        "::ffff:1.2.3.4",
        "fe80::1%1",
        "x",
        "",
    ];
    let sockets = [
        "127.0.0.1:1",
        "127.0.0.1:0",
        "127.0.0.1:65535",
        "127.0.0.1:080",
        "[::1]:80",
        "::1:80",
        "[::1]",
        "a:80",
        "[fe80::1%3]:80",
    ];
    let names = ["a", "a-b", "-a", "a-", "A", "a.b", long.as_str(), &format!("{long}a"), "a_b", ""];
    let waits = [
        "1ms",
        "0s",
        "00s",
        "01s",
        "24h",
        "1440m",
        "1441m",
        "86400s",
        "86401s",
        "86400000ms",
        "1d",
        "1",
        "s",
        "+1s",
        "1.5s",
        "1s ",
        "12345678901234567890s",
        "00000000000000001s",
    ];
    let hosts = ["a.b", "*.b", "*", "*.*.b", "10.0.0.1", "10.0.0.256", "10.0", "A.b", "a..b", "a.b.", "w*.b"];
    let mut texts: Vec<String> = Vec::new();
    texts.extend(addresses.map(|text| service("{port: 1}", &format!("selector: {{a: b}}, addresses: ['{text}']"))));
    texts.extend(addresses.map(|text| service("{port: 1}", &format!("endpoints: [{{address: '{text}'}}]"))));
    texts.extend(
        sockets.map(|text| workload(&format!("addresses: [10.0.0.1], advertise: [{{port: 1, at: '{text}'}}]"))),
    );
    texts.extend(names.map(|text| service(&format!("{{port: 1, name: '{text}'}}"), "selector: {a: b}")));
    texts.extend(
        names.map(|text| service("{port: 1}", "selector: {a: b}").replace("name: a", &format!("name: '{text}'"))),
    );
    texts.extend(names.map(|text| workload(&format!("addresses: [10.0.0.1], serviceAccount: '{text}'"))));
    texts.extend(names.map(|text| service("{port: 1}", &format!("selector: {{a: '{text}'}}"))));
    texts.extend(
        waits.map(|text| service("{port: 1}", &format!("selector: {{a: b}}, timeouts: {{request: '{text}'}}"))),
    );
    texts.extend(hosts.map(route));
    // What a port speaks decides whether there are requests to speak of.
    for port in [
        "{port: 1}",
        "{port: 1, protocol: tcp}",
        "{port: 1, name: tcp}",
        "{port: 1, name: tcp-x}",
        "{port: 1, name: tcpx}",
        "{port: 1, name: tcp-x, appProtocol: grpc}",
        "{port: 1, name: web, appProtocol: tcp}",
        "{port: 1, name: tcp-x, appProtocol: example.com/mine}",
        "{port: 1, protocol: tcp}, {port: 2, protocol: http}",
        "{port: 1, name: a}, {port: 2, name: a}",
        "{port: 1, name: a}, {port: 2}, {port: 3}",
    ] {
        texts.push(service(port, "selector: {a: b}, retries: {attempts: 2}"));
        texts.push(service(port, "selector: {a: b}, timeouts: {request: 1s}"));
    }
    let http = |parents: &str, rules: &str| {
        format!(
            "apiVersion: weft.dev/v1alpha1\nkind: HTTPRoute\nmetadata: {{name: a}}\n\
             spec: {{parentRefs: [{parents}], rules: [{rules}]}}\n"
        )
    };
    for parents in [
        "{name: a}",
        "{name: a}, {name: a, port: 1}",
        "{name: a}, {name: a, sectionName: b}",
        "{name: a}, {name: a}",
        "{name: a}, {kind: Gateway, name: a}, {kind: Gateway, name: a}",
        "{kind: Gateway, name: a}",
        "{kind: Pod, name: a}",
    ] {
        texts.push(http(parents, "{}"));
    }
    for path in [
        "/", "/a", "/a/", "a", "", "//", "/a//b", "/.", "/..", "/.a", "/a.", "/a/./b", "/%2f", "/%2F", "/?", "/#",
        "/ä", "/a b",
    ] {
        texts.push(http("{name: a}", &format!("{{matches: [{{path: {{value: '{path}'}}}}]}}")));
        texts
            .push(http("{name: a}", &format!("{{matches: [{{path: {{type: RegularExpression, value: '{path}'}}}}]}}")));
    }
    for wait in ["0s", "1s", "1m30s", "30s1m", "1h1m1s1ms", "1h1m1s1ms1ms", "123456s", "1.5s", "", "1", "ms"] {
        texts.push(http("{name: a}", &format!("{{timeouts: {{request: '{wait}'}}}}")));
        texts.push(http("{name: a}", &format!("{{timeouts: {{request: '{wait}', backendRequest: 1s}}}}")));
    }
    texts.push(http("{name: a}", "{name: a}, {name: b}, {}, {}"));
    texts.push(http("{name: a}", "{name: a}, {name: a}"));
    let (mut taken, mut refused) = (0, 0);
    for text in texts {
        let object: Value = serde_yaml_ng::from_str(&text).unwrap();
        let by_reader = from_object(&object, "x");
        let by_schema = servers[object["kind"].as_str().unwrap()].problems(&object);
        // The names of objects in general are the API server's own to check.
        if object["metadata"]["name"] == json!("") {
            continue;
        }
        assert_eq!(by_reader.is_ok(), by_schema.is_empty(), "{text}\n{by_reader:#?}\n{by_schema:#?}");
        *(if by_reader.is_ok() { &mut taken } else { &mut refused }) += 1;
    }
    assert!(taken > 40 && refused > 60, "{taken} {refused}");
}

#[test]
fn a_rule_says_what_is_wrong_in_the_words_of_the_reader() {
    let servers = servers();
    let service = |spec: Value| {
        let object = json!({"apiVersion": API_VERSION, "kind": "Service", "metadata": {"name": "a"}, "spec": spec});
        servers["Service"].problems(&object).join("\n")
    };
    let table = [
        (json!({"ports": [{"port": 80}]}), "spec: neither `selector` nor `endpoints`"),
        (
            json!({"ports": [{"port": 80}], "selector": {"a": "b"}, "endpoints": [{"address": "192.0.2.1"}]}),
            "spec.endpoints: given beside `selector`",
        ),
        (
            json!({"ports": [{"port": 80}], "selector": {"a": "b"}, "timeouts": {"request": "soon"}}),
            "`soon` is not a duration",
        ),
        (
            json!({"ports": [{"port": 80, "protocol": "tcp"}], "selector": {"a": "b"}, "retries": {}}),
            "spec.retries: every port speaks tcp",
        ),
        (
            json!({"ports": [{"port": 80}], "selector": {"a": "b"}, "timeouts": {"request": "1s", "perTry": "2s"}}),
            "spec.timeouts.perTry: not less than `request`",
        ),
        (json!({"ports": [{"port": 80, "name": "My_Port"}], "selector": {"a": "b"}}), "`My_Port` is not a valid name"),
    ];
    for (spec, expected) in table {
        let found = service(spec.clone());
        assert!(found.contains(expected), "{spec}: {found}");
    }
}

/// What apiextensions v1 lets a structural schema say, where it says what a value is.
const KEYWORDS: [&str; 26] = [
    "type",
    "properties",
    "items",
    "additionalProperties",
    "required",
    "description",
    "default",
    "enum",
    "format",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "anyOf",
    "oneOf",
    "nullable",
    "x-kubernetes-validations",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
];

fn check_structure(schema: &Value, path: &str) {
    let node = schema.as_object().unwrap_or_else(|| panic!("{path} is no schema: {schema}"));
    for keyword in node.keys() {
        assert!(KEYWORDS.contains(&keyword.as_str()), "{path}: {keyword} has no place in a structural schema");
    }
    let kind = node.get("type").and_then(Value::as_str).unwrap_or_else(|| panic!("{path} has no type: {schema:#}"));
    assert!(!(node.contains_key("properties") && node.contains_key("additionalProperties")), "{path}");
    if let Some(format) = node.get("format").and_then(Value::as_str) {
        let known = match kind {
            "integer" => &["int32", "int64"][..],
            _ => &["date-time", "ipv4", "ipv6"],
        };
        assert!(known.contains(&format), "{path}: {format}");
    }
    for junctor in ["anyOf", "oneOf"] {
        for member in node.get(junctor).and_then(Value::as_array).into_iter().flatten() {
            let narrowing = ["format", "required", "pattern", "enum", "minimum", "maximum"];
            let member = member.as_object().unwrap();
            assert!(member.keys().all(|keyword| narrowing.contains(&keyword.as_str())), "{path}: {member:?}");
        }
    }
    // Rules are paid for by what they may meet: texts and lists they look at are bounded.
    let rules = node.get("x-kubernetes-validations").and_then(Value::as_array);
    if rules.is_some() && kind != "object" {
        assert!(node.contains_key("maxLength") || node.contains_key("maxItems"), "{path} has rules and no bound");
    }
    if kind == "array" {
        assert!(node.contains_key("maxItems"), "{path} has no bound");
        let keys = node.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
        let required = schema.pointer("/items/required").and_then(Value::as_array).cloned().unwrap_or_default();
        assert!(keys.into_iter().flatten().all(|key| required.contains(key)), "{path}: a key is not required");
    }
    for (name, schema) in node.get("properties").and_then(Value::as_object).into_iter().flatten() {
        check_structure(schema, &format!("{path}.{name}"));
    }
    for inner in ["items", "additionalProperties"] {
        node.get(inner).into_iter().for_each(|schema| check_structure(schema, &format!("{path}.{inner}")));
    }
}

#[test]
fn every_definition_is_structural_and_its_lists_are_bounded() {
    for definition in all() {
        let name = definition.metadata.name.clone().unwrap();
        let schema = definition.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
        check_structure(&serde_json::to_value(schema).unwrap(), &name);
    }
}

#[test]
fn every_rule_compiles() {
    fn rules(schema: &Value, found: &mut Vec<Value>) {
        match schema {
            Value::Object(fields) => {
                for (name, value) in fields {
                    if name == "x-kubernetes-validations" {
                        found.extend(value.as_array().unwrap().iter().cloned());
                    }
                    rules(value, found);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| rules(item, found)),
            _ => {}
        }
    }
    for server in servers().into_values() {
        let mut found = Vec::new();
        rules(&server.schema, &mut found);
        let compiled = kube_cel::compile_schema(&server.schema);
        assert!(!compiled.has_errors(), "{:?}", compiled.compilation_errors());
        for rule in found {
            assert!(rule["message"].as_str().is_some_and(|message| !message.contains('\n')), "{rule}");
        }
    }
}

#[test]
fn a_definition_names_its_kind_as_people_ask_for_it() {
    let definitions = all();
    assert_eq!(definitions.len(), Kind::ALL.len());
    let mut short = BTreeSet::new();
    for (definition, kind) in definitions.iter().zip(Kind::ALL) {
        let spec = &definition.spec;
        assert_eq!(definition.metadata.name.as_deref(), Some(format!("{}.weft.dev", spec.names.plural).as_str()));
        assert_eq!(spec.scope, if kind == Kind::Mesh { "Cluster" } else { "Namespaced" });
        assert_eq!(spec.names.categories.as_deref(), Some(&["weft".to_owned()][..]));
        let names = spec.names.short_names.clone().unwrap_or_default();
        assert!(!names.is_empty() && names.into_iter().all(|name| short.insert(name)), "{kind}");
        assert_eq!(api_resource(kind, API_VERSION).plural, spec.names.plural);
        let version = &spec.versions[0];
        assert!(version.subresources.as_ref().is_some_and(|subresources| subresources.status.is_some()));
        let columns: Vec<&str> =
            version.additional_printer_columns.iter().flatten().map(|column| column.name.as_str()).collect();
        assert!(columns.ends_with(&["Accepted", "Programmed", "Age"]), "{columns:?}");
    }
}
