//! YAML text to a tree in which every key and value knows its position.
//!
//! The subset documents use: the core schema's scalars, lists and mappings with text keys, anchors and aliases.
//! Input is not trusted: depth and the copies aliases make are bounded.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use super::problem::Position;

/// Nested deeper than any document needs to be; bounds recursion over the tree.
pub(super) const MAX_DEPTH: usize = 32;
/// Values that aliases may copy, in one source: far above use, far below harm.
const MAX_COPIES: usize = 10_000;

/// One value and where it starts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Boolean(bool),
    /// A number, as it is written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    /// In the order of the text; a key may occur twice, which is the reader's to refuse.
    Mapping(Vec<(FieldName, Node)>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct FieldName {
    pub(super) at: Position,
    pub(super) text: String,
}

/// Why a text is not YAML we read.
#[derive(Debug, PartialEq)]
pub(super) struct SyntaxProblem {
    pub(super) at: Position,
    pub(super) what: String,
}

impl Value {
    /// What a message calls a value that should have been something else.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".into(),
            Self::Boolean(value) => format!("the boolean {value}"),
            Self::Number(text) => format!("the number {}", super::problem::shortened(text)),
            Self::Text(text) => format!("the text \"{}\"", super::problem::shortened(text)),
            Self::List(_) => "a list".into(),
            Self::Mapping(_) => "a mapping".into(),
        }
    }
}

/// The documents of a text, empty ones left out, and what ended the reading early.
pub(super) fn parse(text: &str) -> (Vec<Node>, Option<SyntaxProblem>) {
    let mut tree = Tree::default();
    for event in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        let taken = match event {
            Ok((event, span)) => tree.take(event, position(&span.start)),
            Err(error) => Err(syntax_problem(text, &error)),
        };
        if let Err(problem) = taken {
            return (tree.documents, Some(problem));
        }
    }
    (tree.documents, None)
}

/// The tree as far as it is built.
#[derive(Default)]
struct Tree {
    documents: Vec<Node>,
    /// Lists and mappings still open, the innermost last.
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    copies: usize,
}

struct Open {
    node: Node,
    anchor: usize,
    /// In a mapping: the key that waits for its value.
    key: Option<FieldName>,
}

impl Tree {
    fn take(&mut self, event: Event<'_>, at: Position) -> Result<(), SyntaxProblem> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(&text, style, tag.as_deref()).map_err(|what| SyntaxProblem { at, what })?;
                self.add(Node { at, value }, anchor)
            }
            Event::SequenceStart(anchor, tag) => self.open(Value::List(Vec::new()), at, anchor, tag.as_deref()),
            Event::MappingStart(anchor, tag) => self.open(Value::Mapping(Vec::new()), at, anchor, tag.as_deref()),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { node, anchor, .. }) => self.add(node, anchor),
                None => Ok(()),
            },
            Event::Alias(anchor) => {
                let unknown = || SyntaxProblem { at, what: "the alias refers to nothing before it".into() };
                let mut node = self.anchors.get(&anchor).cloned().ok_or_else(unknown)?;
                node.at = at;
                self.copies += size(&node);
                if self.copies > MAX_COPIES {
                    let what = format!("aliases repeat more than {MAX_COPIES} values; write them out");
                    return Err(SyntaxProblem { at, what });
                }
                self.add(node, 0)
            }
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn open(&mut self, value: Value, at: Position, anchor: usize, tag: Option<&Tag>) -> Result<(), SyntaxProblem> {
        if let Some(tag) = tag.filter(|tag| !(tag.is_yaml_core_schema() && matches!(&*tag.suffix, "map" | "seq"))) {
            return Err(SyntaxProblem { at, what: unsupported(tag) });
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(SyntaxProblem { at, what: format!("nested deeper than {MAX_DEPTH} levels") });
        }
        self.open.push(Open { node: Node { at, value }, anchor, key: None });
        Ok(())
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), SyntaxProblem> {
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            if node.value != Value::Null {
                self.documents.push(node);
            }
            return Ok(());
        };
        match &mut parent.node.value {
            Value::List(items) => items.push(node),
            Value::Mapping(fields) => match parent.key.take() {
                Some(key) => fields.push((key, node)),
                None => parent.key = Some(field_name(node)?),
            },
            _ => {}
        }
        Ok(())
    }
}

fn field_name(node: Node) -> Result<FieldName, SyntaxProblem> {
    let at = node.at;
    match node.value {
        Value::Text(text) | Value::Number(text) => Ok(FieldName { at, text }),
        Value::Boolean(value) => Ok(FieldName { at, text: value.to_string() }),
        other => {
            Err(SyntaxProblem { at, what: format!("a field's name must be text, but this is {}", other.describe()) })
        }
    }
}

/// A scalar by the core schema (YAML 1.2.2, section 10.3.2); only plain ones are anything but text.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    match tag {
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => return Ok(Value::Text(text.into())),
        Some(tag) => return Err(unsupported(tag)),
        None if style != ScalarStyle::Plain => return Ok(Value::Text(text.into())),
        None => {}
    }
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Boolean(true),
        "false" | "False" | "FALSE" => Value::Boolean(false),
        _ if is_number(text) => Value::Number(text.into()),
        _ => Value::Text(text.into()),
    })
}

fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    // Rust also reads `inf` and `nan`, which are text here.
    unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && (unsigned.parse::<f64>().is_ok()
            || ["0x", "0o"].iter().any(|prefix| {
                unsigned.strip_prefix(prefix).is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_hexdigit()))
            }))
}

fn unsupported(tag: &Tag) -> String {
    format!("the tag `{}` is not supported; remove it", super::problem::shortened(&tag.to_string()))
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(size).sum(),
        Value::Mapping(fields) => fields.iter().map(|(_, value)| size(value)).sum(),
        _ => 0,
    }
}

fn position(marker: &Marker) -> Position {
    Position { line: marker.line().max(1), column: marker.col() + 1 }
}

/// The parser's complaint, with the remedy where the cause is the usual one.
fn syntax_problem(text: &str, error: &ScanError) -> SyntaxProblem {
    let at = position(error.marker());
    // The parser notices a tab at the line it is on or at the one after it.
    for line in [at.line, at.line.saturating_sub(1)] {
        let Some(content) = line.checked_sub(1).and_then(|index| text.lines().nth(index)) else { continue };
        let indentation = &content[..content.len() - content.trim_start().len()];
        if let Some(column) = indentation.chars().position(|c| c == '\t') {
            let at = Position { line, column: column + 1 };
            return SyntaxProblem { at, what: "a tab in the indentation; YAML wants spaces".into() };
        }
    }
    SyntaxProblem { at, what: format!("not YAML: {}", error.info()) }
}
