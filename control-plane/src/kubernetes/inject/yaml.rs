//! YAML as `kubectl` reads it, to JSON and back.
//!
//! Kubernetes' reader follows YAML 1.1 where our own documents follow 1.2: `0755` is a number of base eight, and `yes` and
//! `no` are truth values. What is read here must mean what it meant there, and what is written here must mean the same to
//! readers of both. Input is not trusted: depth and the copies aliases make are bounded.

mod write;

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::{Map, Number, Value};

pub(super) use write::write;

/// As deep as JSON is read elsewhere; schemas of custom resources go past 30.
const MAX_DEPTH: usize = 100;
/// Values that aliases may copy.
const MAX_COPIES: usize = 100_000;

/// Why a text is not YAML that makes an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct YamlProblem {
    /// From 1, in the text that was given.
    pub(super) line: usize,
    pub(super) what: String,
}

/// Reads one document; nothing, when there are only comments.
pub(super) fn read(text: &str) -> Result<Option<Value>, YamlProblem> {
    let mut tree = Tree::default();
    for event in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        let (event, span) = event.map_err(|error| YamlProblem {
            line: error.marker().line().max(1),
            what: format!("not YAML: {}", error.info()),
        })?;
        let line = span.start.line().max(1);
        tree.take(event).map_err(|what| YamlProblem { line, what })?;
    }
    Ok(tree.document.filter(|value| !value.is_null()))
}

#[derive(Default)]
struct Tree {
    document: Option<Value>,
    open: Vec<Open>,
    anchors: HashMap<usize, Value>,
    copies: usize,
}

struct Open {
    value: Value,
    anchor: usize,
    key: Option<Key>,
    /// Mappings to take over what is not said here (`<<`).
    merged: Vec<Value>,
}

enum Key {
    Field(String),
    Merge,
}

impl Tree {
    fn take(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_key = self.open.last().is_some_and(|open| open.value.is_object() && open.key.is_none());
                if is_key && anchor == 0 {
                    return self.key(&text, style);
                }
                let value = scalar(&text, style, tag.as_deref())?;
                self.add(value, anchor)
            }
            Event::SequenceStart(anchor, tag) => self.open(Value::Array(Vec::new()), anchor, tag.as_deref()),
            Event::MappingStart(anchor, tag) => self.open(Value::Object(Map::new()), anchor, tag.as_deref()),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { mut value, anchor, merged, .. }) = self.open.pop() else { return Ok(()) };
                if let Value::Object(fields) = &mut value {
                    take_over(fields, merged)?;
                }
                self.add(value, anchor)
            }
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor).cloned().ok_or("the alias refers to nothing before it")?;
                self.copies += size(&value);
                if self.copies > MAX_COPIES {
                    return Err(format!("aliases repeat more than {MAX_COPIES} values; write them out"));
                }
                self.add(value, 0)
            }
            Event::DocumentStart(_) if self.document.is_some() => Err("a second document without `---`".to_owned()),
            Event::DocumentStart(_) | Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn open(&mut self, value: Value, anchor: usize, tag: Option<&Tag>) -> Result<(), String> {
        if let Some(tag) = tag.filter(|tag| !(tag.is_yaml_core_schema() && matches!(&*tag.suffix, "map" | "seq"))) {
            return Err(unsupported(tag));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH} levels"));
        }
        let waits_for_key = |open: &Open| open.value.is_object() && open.key.is_none();
        if self.open.last().is_some_and(waits_for_key) {
            return Err("a field's name must be text".to_owned());
        }
        self.open.push(Open { value, anchor, key: None, merged: Vec::new() });
        Ok(())
    }

    fn key(&mut self, text: &str, style: ScalarStyle) -> Result<(), String> {
        let Some(Open { value: Value::Object(fields), key, .. }) = self.open.last_mut() else { return Ok(()) };
        if fields.contains_key(text) {
            return Err(format!("the field `{}` occurs twice", super::error::shortened(text)));
        }
        let is_merge = text == "<<" && style == ScalarStyle::Plain;
        *key = Some(if is_merge { Key::Merge } else { Key::Field(text.to_owned()) });
        Ok(())
    }

    fn add(&mut self, value: Value, anchor: usize) -> Result<(), String> {
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.document = Some(value);
            return Ok(());
        };
        match &mut parent.value {
            Value::Array(items) => items.push(value),
            Value::Object(fields) => match (parent.key.take(), value) {
                (Some(Key::Merge), value) => parent.merged.push(value),
                (Some(Key::Field(key)), value) => {
                    fields.insert(key, value);
                }
                // A name with an anchor, or an alias in its place.
                (None, Value::String(text)) => return self.key(&text, ScalarStyle::DoubleQuoted),
                (None, _) => return Err("a field's name must be text".to_owned()),
            },
            _ => {}
        }
        Ok(())
    }
}

/// What is said in the mapping itself counts, then what is merged first.
fn take_over(fields: &mut Map<String, Value>, merged: Vec<Value>) -> Result<(), String> {
    for value in merged {
        let sources = if let Value::Array(sources) = value { sources } else { vec![value] };
        for source in sources {
            let Value::Object(source) = source else { return Err("`<<` wants mappings to take over".to_owned()) };
            for (key, value) in source {
                fields.entry(key).or_insert(value);
            }
        }
    }
    Ok(())
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    match tag {
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Ok(Value::String(text.to_owned())),
        Some(tag) => Err(unsupported(tag)),
        None if style == ScalarStyle::Plain => Ok(plain(text)),
        None => Ok(Value::String(text.to_owned())),
    }
}

/// A scalar without quotes.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => return Value::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

fn number(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let negative = text.starts_with('-');
    let based = [("0x", 16), ("0o", 8), ("0b", 2), ("0", 8)].iter().find_map(|(prefix, base)| {
        let digits = unsigned.strip_prefix(prefix).filter(|digits| digits.starts_with(|c: char| c.is_digit(*base)))?;
        i64::from_str_radix(digits, *base).ok()
    });
    if let Some(number) = based {
        return Some(if negative { (-number).into() } else { number.into() });
    }
    // Rust reads no sign of plus in JSON, and JSON has no number without a digit before its point.
    let digits = text.strip_prefix('+').unwrap_or(text);
    if let Ok(number) = digits.parse::<i64>() {
        return Some(number.into());
    }
    if let Ok(number) = digits.parse::<u64>() {
        return Some(number.into());
    }
    unsigned.bytes().any(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok().and_then(Number::from_f64)).flatten()
}

fn unsupported(tag: &Tag) -> String {
    format!("the tag `{}` is not supported; remove it", super::error::shortened(&tag.to_string()))
}

fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(fields) => fields.values().map(size).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_are_what_kubectl_reads() {
        for (text, expected) in [
            ("0755", json!(0o755)),
            ("0o17", json!(15)),
            ("-0x1F", json!(-31)),
            ("08", json!(8)),
            ("+5", json!(5)),
            ("18446744073709551615", json!(18_446_744_073_709_551_615_u64)),
            ("1.50", json!(1.5)),
            (".5", json!(0.5)),
            ("1e3", json!(1000.0)),
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("\"yes\"", json!("yes")),
            ("'0755'", json!("0755")),
            ("!!str 0755", json!("0755")),
            ("10m", json!("10m")),
            ("1.2.3", json!("1.2.3")),
            ("1.2.3.4/8", json!("1.2.3.4/8")),
            (".", json!(".")),
            ("0xZZ", json!("0xZZ")),
        ] {
            assert_eq!(read(&format!("a: {text}")), Ok(Some(json!({ "a": expected }))), "{text}");
        }
        assert_eq!(read("# nothing\n"), Ok(None));
        assert_eq!(read("1: one\nyes: two\n"), Ok(Some(json!({"1": "one", "yes": "two"}))));
    }

    #[test]
    fn anchors_are_copied_and_merged() {
        let text = "base: &base {a: 1, b: 2}\nmore: &more {c: 3}\none: *base\ntwo: {<<: [*base, *more], b: 5}\n";
        let expected = json!({"base": {"a": 1, "b": 2}, "more": {"c": 3}, "one": {"a": 1, "b": 2},
            "two": {"b": 5, "a": 1, "c": 3}});
        assert_eq!(read(text).unwrap().unwrap(), expected);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let deep = format!("a: {}", "[".repeat(150));
        let bomb = (0..20).fold("a0: &a0 [1, 2]\n".to_owned(), |text, level| {
            text + &format!("a{0}: &a{0} [*a{level}, *a{level}]\n", level + 1)
        });
        for (text, line, words) in [
            ("a: 1\na: 2\n", 2, "`a` occurs twice"),
            ("a: !!binary AAAA\n", 1, "tag"),
            ("a: *x\n", 1, ""),
            ("a: {<<: 1}\n", 1, "`<<`"),
            ("? [a]\n: 1\n", 1, "name must be text"),
            ("a: 1\nb: [\n", 3, "not YAML"),
            (&deep, 1, "nested deeper"),
            (&bomb, 15, "aliases repeat"),
        ] {
            let problem = read(text).unwrap_err();
            assert!(problem.what.contains(words), "{text}: {problem:?}");
            assert!(problem.line.abs_diff(line) <= 1, "{text}: {problem:?}");
        }
    }
}
