//! Manifests with holes: one tree, filled by [`Values`](super::values::Values) or printed as a Helm template.
//!
//! A hole is text between two characters that no manifest contains, so that the tree is ordinary JSON and functions
//! that know nothing of holes (a webhook configuration's, given a namespace) can make parts of it. A string that is
//! one hole takes the setting's value as it is; holes inside of longer text take it as text. A key may carry a
//! condition, and is there only when that holds.

use std::fmt::Write as _;

use serde_json::{Map, Value};

const OPEN: char = '\u{e000}';
const CLOSE: char = '\u{e001}';

/// Settings a chart has no value for, because Helm itself says them: the namespace of the release, and who manages.
pub const NAMESPACE: &str = "systemNamespace";
pub const MANAGER: &str = "manager";

/// A manifest, and when there is one.
#[derive(Debug, Clone)]
pub struct Template {
    pub body: Value,
    /// `path` (is true), `!path` (is not) or `path=value`.
    pub when: Option<&'static str>,
}

/// A hole for the setting at a path: `images.proxy`.
pub fn setting(path: &str) -> String {
    format!("{OPEN}{path}{CLOSE}")
}

/// A key that is there only when a condition holds.
pub fn only_when(condition: &str, key: &str) -> String {
    format!("{OPEN}{condition}{CLOSE}{key}")
}

impl Template {
    pub fn always(body: Value) -> Self {
        Self { body, when: None }
    }

    pub fn when(condition: &'static str, body: Value) -> Self {
        Self { body, when: Some(condition) }
    }

    /// The manifest with these settings, if it is there.
    pub fn fill(&self, settings: &Value) -> Option<Value> {
        self.when.is_none_or(|condition| holds(condition, settings)).then(|| fill(&self.body, settings))
    }

    /// The manifest as a template of Helm.
    pub fn helm(&self) -> String {
        let mut out = String::new();
        let Value::Object(fields) = &self.body else { return out };
        if let Some(condition) = self.when {
            out = format!("{{{{- if {} }}}}\n", helm_condition(condition));
        }
        helm_map(fields, 0, &mut out);
        if self.when.is_some() {
            out.push_str("{{- end }}\n");
        }
        out
    }
}

/// A setting by its path.
fn look_up<'s>(path: &str, settings: &'s Value) -> &'s Value {
    path.split('.')
        .try_fold(settings, |value, key| value.get(key))
        .expect("every hole names a setting: a test fills all templates")
}

fn holds(condition: &str, settings: &Value) -> bool {
    if let Some((path, wanted)) = condition.split_once('=') {
        look_up(path, settings).as_str() == Some(wanted)
    } else if let Some(path) = condition.strip_prefix('!') {
        look_up(path, settings) != &Value::Bool(true)
    } else {
        look_up(condition, settings) == &Value::Bool(true)
    }
}

fn fill(value: &Value, settings: &Value) -> Value {
    match value {
        Value::String(text) => match whole_hole(text) {
            Some(path) => look_up(path, settings).clone(),
            None => Value::String(fill_text(text, settings)),
        },
        Value::Array(items) => items.iter().map(|item| fill(item, settings)).collect(),
        Value::Object(fields) => {
            let mut filled = Map::new();
            for (key, value) in fields {
                let (condition, key) = conditional_key(key);
                if condition.is_none_or(|condition| holds(condition, settings)) {
                    filled.insert(fill_text(key, settings), fill(value, settings));
                }
            }
            Value::Object(filled)
        }
        other => other.clone(),
    }
}

/// The path, when the text is one hole and nothing else.
fn whole_hole(text: &str) -> Option<&str> {
    text.strip_prefix(OPEN)?.strip_suffix(CLOSE).filter(|path| !path.contains(OPEN))
}

fn conditional_key(key: &str) -> (Option<&str>, &str) {
    match key.strip_prefix(OPEN).and_then(|rest| rest.split_once(CLOSE)) {
        Some((condition, key)) => (Some(condition), key),
        None => (None, key),
    }
}

/// A piece of text with holes.
enum Part<'t> {
    Plain(&'t str),
    Hole(&'t str),
}

fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        let (path, after) = after.split_once(CLOSE).expect("holes are closed: `setting` makes them");
        parts.extend([Part::Plain(before), Part::Hole(path)]);
        rest = after;
    }
    parts.push(Part::Plain(rest));
    parts
}

fn fill_text(text: &str, settings: &Value) -> String {
    let fill = |part| match part {
        Part::Plain(plain) => plain.to_owned(),
        Part::Hole(path) => match look_up(path, settings) {
            Value::String(value) => value.clone(),
            other => other.to_string(),
        },
    };
    parts(text).into_iter().map(fill).collect()
}

fn helm_path(path: &str) -> String {
    match path {
        NAMESPACE => ".Release.Namespace".to_owned(),
        MANAGER => ".Release.Service".to_owned(),
        _ => format!(".Values.{path}"),
    }
}

fn helm_condition(condition: &str) -> String {
    if let Some((path, wanted)) = condition.split_once('=') {
        format!("eq {} {wanted:?}", helm_path(path))
    } else if let Some(path) = condition.strip_prefix('!') {
        format!("not {}", helm_path(path))
    } else {
        helm_path(condition)
    }
}

fn helm_map(fields: &Map<String, Value>, indent: usize, out: &mut String) {
    for (key, value) in fields {
        let (condition, key) = conditional_key(key);
        if let Some(condition) = condition {
            let _ = writeln!(out, "{{{{- if {} }}}}", helm_condition(condition));
        }
        let _ = write!(out, "{:indent$}{}:", "", helm_scalar(key));
        helm_value(value, indent, out);
        if condition.is_some() {
            out.push_str("{{- end }}\n");
        }
    }
}

/// What stands behind a key; ends with the line.
fn helm_value(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            out.push('\n');
            helm_map(fields, indent + 2, out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            for item in items {
                helm_item(item, indent, out);
            }
        }
        other => {
            let _ = writeln!(out, " {}", helm_leaf(other));
        }
    }
}

/// One item of a list, whose dashes stand below the list's key.
fn helm_item(item: &Value, indent: usize, out: &mut String) {
    match item {
        Value::Object(fields) if !fields.is_empty() => {
            let mut inner = String::new();
            helm_map(fields, indent + 2, &mut inner);
            // The first key stands on the dash's line; conditions may not stand before it.
            let _ = write!(out, "{:indent$}-{}", "", &inner[indent + 1..]);
        }
        other => {
            let _ = writeln!(out, "{:indent$}- {}", "", helm_leaf(other));
        }
    }
}

fn helm_leaf(value: &Value) -> String {
    match value {
        Value::String(text) => match whole_hole(text) {
            Some(path) => format!("{{{{ {} | toJson }}}}", helm_path(path)),
            None => helm_scalar(text),
        },
        other => other.to_string(),
    }
}

/// Text as YAML: bare where nothing else could be read from it, and as JSON has it elsewhere.
fn helm_scalar(text: &str) -> String {
    let print = |part| match part {
        Part::Plain(plain) => {
            let json = Value::String(plain.to_owned()).to_string();
            // What Helm would take for its own is written by Helm.
            json[1..json.len() - 1].replace("{{", "{{ \"{{\" }}")
        }
        Part::Hole(path) => format!("{{{{ {} }}}}", helm_path(path)),
    };
    let inner: String = parts(text).into_iter().map(print).collect();
    if is_plain(text) { inner } else { format!("\"{inner}\"") }
}

fn is_plain(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let taken = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(word)
        && !taken.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn example() -> Template {
        Template::when(
            "on",
            json!({
                "kind": "Example",
                "replicas": setting("replicas"),
                "image": format!("{}:{}", setting("registry"), setting("tag")),
                only_when("mode=a", "mode"): {"name": setting(NAMESPACE), "off": [setting("extra"), {"x": 1, "y": "no"}]},
                only_when("!on", "never"): 1,
                "empty": {},
            }),
        )
    }

    #[test]
    fn a_hole_takes_the_value_in_its_own_type_and_as_text_inside_of_text() {
        let settings = json!({
            "on": true, "replicas": 2, "registry": "r", "tag": "1", "mode": "a", "systemNamespace": "s",
            "extra": {"cpu": "1"},
        });
        assert_eq!(
            example().fill(&settings),
            Some(json!({
                "kind": "Example", "replicas": 2, "image": "r:1",
                "mode": {"name": "s", "off": [{"cpu": "1"}, {"x": 1, "y": "no"}]}, "empty": {},
            }))
        );
    }

    #[test]
    fn conditions_decide_about_keys_and_whole_manifests() {
        let mut settings =
            json!({"on": true, "replicas": 2, "registry": "r", "tag": "1", "mode": "b", "systemNamespace": "s"});
        let filled = example().fill(&settings).expect("it is on");
        assert!(filled.get("mode").is_none() && filled.get("never").is_none(), "{filled}");
        settings["on"] = json!(false);
        assert_eq!(example().fill(&settings), None);
    }

    #[test]
    fn a_template_for_helm_has_the_same_holes_in_helms_words() {
        let expected = "\
{{- if .Values.on }}
kind: Example
replicas: {{ .Values.replicas | toJson }}
image: \"{{ .Values.registry }}:{{ .Values.tag }}\"
{{- if eq .Values.mode \"a\" }}
mode:
  name: {{ .Release.Namespace | toJson }}
  \"off\":
  - {{ .Values.extra | toJson }}
  - x: 1
    \"y\": \"no\"
{{- end }}
{{- if not .Values.on }}
never: 1
{{- end }}
empty: {}
{{- end }}
";
        assert_eq!(example().helm(), expected);
    }

    #[test]
    fn what_helm_would_read_as_its_own_stays_text() {
        let template = Template::always(json!({"description": "a {{ b }} \"c\" \n d"}));
        assert_eq!(template.helm(), "description: \"a {{ \"{{\" }} b }} \\\"c\\\" \\n d\"\n");
    }
}
