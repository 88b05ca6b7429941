//! Derived schemas in the form the API server wants them: structural, as apiextensions v1 defines it.
//!
//! `schemars` says in JSON Schema what a type is; a structural schema is a smaller language. Every value has its one type
//! outside `oneOf` and the like, which may only narrow it; there is no `const`, no `null` among the types (an absent field and
//! one without a value are the same to the API server), no `additionalProperties` beside `properties`, and only formats it
//! knows.

use schemars::Schema;
use serde_json::{Map, Value, json};

/// Keywords that have no place in a structural schema, or say nothing there.
const DROPPED: [&str; 7] = ["$schema", "$defs", "title", "examples", "unevaluatedProperties", "deprecated", "$comment"];
const JUNCTORS: [&str; 2] = ["oneOf", "anyOf"];

pub(super) fn structural(schema: Schema) -> Value {
    let mut value = schema.to_value();
    rewrite(&mut value);
    value
}

fn rewrite(value: &mut Value) {
    let Value::Object(node) = value else { return };
    for keyword in DROPPED {
        node.remove(keyword);
    }
    for junctor in JUNCTORS {
        if let Some(Value::Array(members)) = node.remove(junctor) {
            unite(node, junctor, members);
        }
    }
    if let Some(constant) = node.remove("const") {
        node.insert("enum".to_owned(), json!([constant]));
    }
    without_null(node);
    if node.get("additionalProperties").is_some_and(Value::is_boolean) {
        node.remove("additionalProperties");
    }
    format(node);
    if let Some(Value::Object(properties)) = node.get_mut("properties") {
        properties.values_mut().for_each(rewrite);
    }
    for inner in ["items", "additionalProperties"] {
        node.get_mut(inner).into_iter().for_each(rewrite);
    }
}

/// Takes what the members of a junctor say of the value's type out of it.
fn unite(node: &mut Map<String, Value>, junctor: &str, members: Vec<Value>) {
    let mut members: Vec<Map<String, Value>> = members
        .into_iter()
        .filter_map(|member| match member {
            Value::Object(member) if member.get("type") != Some(&json!("null")) => Some(member),
            _ => None,
        })
        .collect();
    if members.len() == 1 {
        // An optional value: what the field says of it goes before what its type says.
        for (keyword, value) in members.remove(0) {
            node.entry(keyword).or_insert(value);
        }
        // It may have been a choice itself.
        for junctor in JUNCTORS {
            if let Some(Value::Array(members)) = node.remove(junctor) {
                unite(node, junctor, members);
            }
        }
    } else if members.iter().all(|member| !words(member).is_empty()) {
        choice(node, &members);
    } else if members.iter().any(|member| member.contains_key("properties")) {
        variants(node, junctor, members);
    } else {
        let members = members.into_iter().map(Value::Object).collect();
        node.insert(junctor.to_owned(), Value::Array(members));
    }
}

/// The words of a closed set that a schema allows.
fn words(member: &Map<String, Value>) -> Vec<Value> {
    let listed = member.get("enum").and_then(Value::as_array).cloned().unwrap_or_default();
    listed.into_iter().chain(member.get("const").cloned()).filter(Value::is_string).collect()
}

/// One of several words; what each means goes into the description.
fn choice(node: &mut Map<String, Value>, members: &[Map<String, Value>]) {
    let words_of_all: Vec<Value> = members.iter().flat_map(words).collect();
    let meaning = |member: &Map<String, Value>| {
        let meaning = member.get("description").and_then(Value::as_str)?;
        let word = words(member).first().and_then(Value::as_str).map(str::to_owned)?;
        Some(format!("`{word}`: {meaning}"))
    };
    let meanings: Vec<String> = members.iter().filter_map(meaning).collect();
    if !meanings.is_empty() {
        let own = node.get("description").and_then(Value::as_str);
        let text = own.map(str::to_owned).into_iter().chain(meanings).collect::<Vec<_>>().join("\n");
        node.insert("description".to_owned(), text.into());
    }
    node.insert("type".to_owned(), "string".into());
    node.insert("enum".to_owned(), words_of_all.into());
}

/// One of several sets of fields: all of them are fields of the value, and the junctor says which belong together.
fn variants(node: &mut Map<String, Value>, junctor: &str, members: Vec<Map<String, Value>>) {
    let mut sets = Vec::new();
    for mut member in members {
        let properties = node.entry("properties").or_insert_with(|| json!({}));
        if let (Value::Object(all), Some(Value::Object(own))) = (properties, member.remove("properties")) {
            for (name, schema) in own {
                all.entry(name).or_insert(schema);
            }
        }
        sets.push(json!({"required": member.remove("required").unwrap_or_else(|| json!([]))}));
    }
    node.insert("type".to_owned(), "object".into());
    node.insert(junctor.to_owned(), sets.into());
}

/// An absent value is no value of its own.
fn without_null(node: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = node.get("type") {
        let first = types.iter().find(|kind| **kind != "null").cloned();
        node.insert("type".to_owned(), first.unwrap_or_else(|| "object".into()));
    }
    if let Some(Value::Array(words)) = node.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
    if node.get("default").is_some_and(Value::is_null) {
        node.remove("default");
    }
}

/// The API server knows two widths of integers.
fn format(node: &mut Map<String, Value>) {
    let Some(format) = node.get("format").and_then(Value::as_str) else { return };
    match format {
        "int8" | "int16" | "uint8" | "uint16" => {
            node.insert("format".to_owned(), "int32".into());
        }
        "uint" | "uint32" | "uint64" | "int" => {
            node.insert("format".to_owned(), "int64".into());
        }
        "ip" => {
            node.remove("format");
        }
        _ => {}
    }
}
