//! JSON as YAML, in block style, with quotes wherever some reader might see anything but text.

use std::fmt::Write as _;

use serde_json::Value;

use super::plain;

const INDENTATION: usize = 2;

/// One document, without the line that separates it from others.
pub(in crate::kubernetes::inject) fn write(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

/// Writes a value whose first line is already indented.
fn block(value: &Value, indentation: usize, out: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (index, (key, value)) in fields.iter().enumerate() {
                if index > 0 {
                    indent(indentation, out);
                }
                text(key, out);
                out.push(':');
                nested(value, indentation, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    indent(indentation, out);
                }
                out.push('-');
                out.push(' ');
                block(item, indentation + INDENTATION, out);
            }
        }
        Value::Object(_) => out.push_str("{}\n"),
        Value::Array(_) => out.push_str("[]\n"),
        Value::String(string) => {
            lines_or_text(string, indentation, out);
            out.push('\n');
        }
        other => {
            let _ = writeln!(out, "{other}");
        }
    }
}

/// Writes the value of a field: on the same line, or below it.
fn nested(value: &Value, indentation: usize, out: &mut String) {
    let (below, further) = match value {
        Value::Object(fields) => (!fields.is_empty(), INDENTATION),
        // As `kubectl` writes lists: at the field's own indentation.
        Value::Array(items) => (!items.is_empty(), 0),
        _ => (false, INDENTATION),
    };
    if below {
        out.push('\n');
        indent(indentation + further, out);
    } else {
        out.push(' ');
    }
    block(value, indentation + further, out);
}

fn indent(by: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', by));
}

/// Text of several plain lines as such, all other as one scalar. Not ended with a line's end.
fn lines_or_text(string: &str, indentation: usize, out: &mut String) {
    let body = string.trim_end_matches('\n');
    let ends = string.len() - body.len();
    let is_plain = |c: char| c == '\n' || (' '..='~').contains(&c);
    let fits = body.contains('\n') && string.chars().all(is_plain) && body.lines().all(|line| !line.ends_with(' '));
    // A first line that is indented or empty would need a number beside the sign.
    if !fits || body.starts_with([' ', '\n']) || ends > 1 {
        return text(string, out);
    }
    out.push_str(if ends == 1 { "|" } else { "|-" });
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            indent(indentation.max(INDENTATION), out);
            out.push_str(line);
        }
    }
}

/// As it is, or in quotes: with nothing but printable ASCII, as YAML 1.1 breaks lines at more characters than others.
fn text(string: &str, out: &mut String) {
    if is_safe(string) {
        return out.push_str(string);
    }
    out.push('"');
    for c in string.chars() {
        let _ = match c {
            '"' | '\\' => write!(out, "\\{c}"),
            '\n' => out.write_str("\\n"),
            ' '..='~' => out.write_char(c),
            '\0'..='\u{ffff}' => write!(out, "\\u{:04x}", u32::from(c)),
            _ => write!(out, "\\U{:08x}", u32::from(c)),
        };
    }
    out.push('"');
}

/// Whether a text without quotes is text to readers of YAML 1.1 and 1.2.
fn is_safe(string: &str) -> bool {
    let may_stand = |c: char| c.is_ascii_alphanumeric() || "_./:@%+=,() -".contains(c);
    let starts_well = string.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/');
    // 1.1 also has numbers with underscores and of base sixty, and dates; none of them has such a letter.
    let has_letter = string.contains(|c: char| c.is_ascii_alphabetic() && !"abcdefox".contains(c.to_ascii_lowercase()));
    let is_numeric = string.starts_with(|c: char| c.is_ascii_digit()) && !has_letter;
    starts_well
        && !is_numeric
        && string.chars().all(may_stand)
        && !string.ends_with([' ', ':'])
        && !string.contains(": ")
        && plain(string).is_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::read;
    use super::*;

    #[test]
    fn documents_look_as_people_write_them() {
        let value = json!({
            "kind": "Pod",
            "list": [{"name": "a", "args": ["--x=1", "b"]}, [1, 2], {}],
            "empty": {"list": [], "text": "", "nothing": null},
            "script": "set -e\n\n  run\n",
            "lines": "a\nb",
        });
        let expected = "kind: Pod\nlist:\n- name: a\n  args:\n  - \"--x=1\"\n  - b\n- - 1\n  - 2\n- {}\n\
            empty:\n  list: []\n  text: \"\"\n  nothing: null\nscript: |\n  set -e\n\n    run\nlines: |-\n  a\n  b\n";
        assert_eq!(write(&value), expected);
        assert_eq!(read(expected), Ok(Some(value)));
    }

    #[test]
    fn text_that_some_reader_takes_for_something_else_has_quotes() {
        for text in [
            "yes",
            "NO",
            "y",
            "on",
            "null",
            "~",
            "true",
            "1",
            "0755",
            "1_000",
            "12:30:45",
            "2020-01-01",
            "1e3",
            "0x1f",
            ".5",
            ".inf",
            ".nan",
            "-1",
            "- a",
            "a: b",
            "a:",
            "a #b",
            "#a",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "{a",
            "[a",
            "?",
            "|",
            " a",
            "a ",
            "\ta",
            "a\u{85}b",
            "ä",
            "",
            "=",
            "<<",
            "---",
            "...",
            "0b1",
            "1.2.3.4",
        ] {
            let written = write(&json!({ "k": text }));
            assert!(written.starts_with("k: \""), "{written}");
            assert_eq!(read(&written), Ok(Some(json!({ "k": text }))));
        }
        for text in ["weft-proxy", "16Mi", "10m", "/live", "a/b:1.2", "/var/run/x", "registry.example:5000/a@sha256:0a"]
        {
            assert_eq!(write(&json!({ "k": text })), format!("k: {text}\n"));
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[ -~\n]{0,12}",
            "[a-z \n#:|>-]{0,8}",
            any::<String>(),
            Just("yes".to_owned()),
            Just("a\n\nb\n".to_owned())
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[ -~]{0,6}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(value in any_value()) {
            let value = json!({ "v": value });
            let written = write(&value);
            prop_assert_eq!(read(&written), Ok(Some(value)), "{}", written);
        }
    }
}
