//! Values read out of a tree, each checked where it stands; what is wrong is collected and reading goes on.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::problem::{Place, Position, Problem, not_one_of, shortened};
use super::yaml::{FieldName, Node, Value};

/// What a document is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Text, in which everything has a position.
    Text,
    /// An object of the API server's: its defaults are filled in, and others may share it.
    Object,
}

/// Collects the problems of one document.
pub(super) struct Reader {
    pub(super) source: Arc<str>,
    pub(super) origin: Origin,
    /// Says a kind of the Gateway API's by that API's version.
    pub(super) is_gateway_api: bool,
    /// Kind and name, once they are known.
    pub(super) document: String,
    pub(super) problems: Vec<Problem>,
}

/// A value and the path that leads to it.
#[derive(Clone)]
pub(super) struct Field<'n> {
    pub(super) node: &'n Node,
    pub(super) path: String,
}

/// The fields of a mapping.
pub(super) struct Fields<'n> {
    at: Position,
    path: String,
    entries: &'n [(FieldName, Node)],
}

impl Field<'_> {
    pub(super) fn at(&self) -> Position {
        self.node.at
    }
}

impl<'n> Fields<'n> {
    /// The field of this name; one without a value counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<Field<'n>> {
        let (_, node) = self.entries.iter().find(|(key, _)| key.text == name)?;
        (node.value != Value::Null).then(|| Field { node, path: joined(&self.path, name) })
    }

    /// The field of this name, whose absence is a problem; `example` shows what belongs there.
    pub(super) fn required(&self, reader: &mut Reader, name: &str, example: &str) -> Option<Field<'n>> {
        let found = self.get(name);
        if found.is_none() {
            let path = joined(&self.path, name);
            reader.problem(self.at, &path, format!("missing; write for example `{example}`"));
        }
        found
    }

    /// All fields that have a value, for mappings whose names are the user's.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'n FieldName, Field<'n>)> + '_ {
        self.entries.iter().map(|(key, node)| (key, Field { node, path: joined(&self.path, &key.text) }))
    }
}

impl Reader {
    pub(super) fn new(source: &Arc<str>, origin: Origin) -> Self {
        let source = Arc::clone(source);
        Self { source, origin, is_gateway_api: false, document: String::new(), problems: Vec::new() }
    }

    /// Where a message sends its reader: to a line, or to a field where there are no lines.
    pub(super) fn whereabouts(&self, field: &Field<'_>) -> String {
        match self.origin {
            Origin::Text => format!("in line {}", field.at().line),
            Origin::Object => format!("at {}", field.path),
        }
    }

    pub(super) fn problem(&mut self, at: Position, path: &str, what: String) {
        let position = (self.origin == Origin::Text).then_some(at);
        self.problems.push(Problem {
            place: Place { source: Arc::clone(&self.source), position },
            document: self.document.clone(),
            field: path.to_owned(),
            what,
        });
    }

    fn wrong_type(&mut self, field: &Field<'_>, expected: &str) {
        let found = field.node.value.describe();
        self.problem(field.at(), &field.path, format!("found {found}; expected {expected}"));
    }

    /// The mapping in a field, with every field outside `allowed` and every repeated one reported.
    pub(super) fn fields<'n>(&mut self, field: &Field<'n>, allowed: &[&str]) -> Option<Fields<'n>> {
        let fields = self.mapping(field)?;
        for (key, _) in fields.entries {
            if !allowed.contains(&key.text.as_str()) {
                let path = joined(&field.path, &key.text);
                self.problem(key.at, &path, not_one_of("field", &key.text, allowed));
            }
        }
        Some(fields)
    }

    /// The mapping in a field, whatever its fields are called; repeated ones are reported.
    pub(super) fn mapping<'n>(&mut self, field: &Field<'n>) -> Option<Fields<'n>> {
        let Value::Mapping(entries) = &field.node.value else {
            self.wrong_type(field, "a mapping (`field: value` lines)");
            return None;
        };
        let mut first = std::collections::HashMap::new();
        for (key, _) in entries {
            if let Some(line) = first.insert(key.text.as_str(), key.at.line) {
                let path = joined(&field.path, &key.text);
                self.problem(key.at, &path, format!("given twice; it already stands in line {line}: remove one"));
            }
        }
        Some(Fields { at: field.at(), path: field.path.clone(), entries })
    }

    /// The items of a list; `item` says what one is.
    pub(super) fn items<'n>(&mut self, field: &Field<'n>, item: &str) -> Option<Vec<Field<'n>>> {
        let Value::List(nodes) = &field.node.value else {
            self.wrong_type(field, &format!("a list of {item}"));
            return None;
        };
        let item = |(index, node)| Field { node, path: format!("{}[{index}]", field.path) };
        Some(nodes.iter().enumerate().map(item).collect())
    }

    /// The items of a list that must have one at least.
    pub(super) fn some_items<'n>(&mut self, field: &Field<'n>, item: &str) -> Option<Vec<Field<'n>>> {
        let items = self.items(field, item)?;
        if items.is_empty() {
            self.problem(field.at(), &field.path, format!("the list is empty; give at least one of {item}"));
            return None;
        }
        Some(items)
    }

    /// The items of a list that must not have more than `most`.
    pub(super) fn bounded<'n>(
        &mut self,
        field: &Field<'n>,
        items: Vec<Field<'n>>,
        most: usize,
    ) -> Option<Vec<Field<'n>>> {
        if items.len() > most {
            let what = format!("found {} entries; at most {most} are allowed", items.len());
            self.problem(field.at(), &field.path, what);
            return None;
        }
        Some(items)
    }

    pub(super) fn text<'n>(&mut self, field: &Field<'n>) -> Option<&'n str> {
        match &field.node.value {
            Value::Text(text) => Some(text),
            Value::Number(text) => {
                let text = shortened(text);
                self.wrong_type(field, &format!("text; write it in quotes: \"{text}\""));
                None
            }
            Value::Boolean(value) => {
                self.wrong_type(field, &format!("text; write it in quotes: \"{value}\""));
                None
            }
            _ => {
                self.wrong_type(field, "text");
                None
            }
        }
    }

    pub(super) fn port(&mut self, field: &Field<'_>) -> Option<u16> {
        const RANGE: &str = "a port from 1 to 65535";
        let Value::Number(text) = &field.node.value else {
            let quoted = matches!(&field.node.value, Value::Text(text) if text.parse::<u16>().is_ok());
            let expected = if quoted { format!("{RANGE}; remove the quotes") } else { RANGE.to_owned() };
            self.wrong_type(field, &expected);
            return None;
        };
        match text.parse::<u16>() {
            Ok(port) if port > 0 => Some(port),
            _ => {
                self.wrong_type(field, RANGE);
                None
            }
        }
    }

    /// A whole number from 0 to `most`.
    pub(super) fn whole(&mut self, field: &Field<'_>, most: u32) -> Option<u32> {
        let number = match &field.node.value {
            Value::Number(text) => text.parse::<u32>().ok().filter(|number| *number <= most),
            _ => None,
        };
        if number.is_none() {
            self.wrong_type(field, &format!("a whole number from 0 to {most}"));
        }
        number
    }

    /// An address traffic can go to.
    pub(super) fn address(&mut self, field: &Field<'_>) -> Option<IpAddr> {
        let text = self.text(field)?;
        let Ok(address) = text.parse::<IpAddr>() else {
            let what = format!("`{}` is not an IP address; expected one such as 10.96.0.2 or fd57::2", shortened(text));
            self.problem(field.at(), &field.path, what);
            return None;
        };
        self.reachable(field, address).then_some(address)
    }

    pub(super) fn socket_address(&mut self, field: &Field<'_>) -> Option<SocketAddr> {
        let text = self.text(field)?;
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() > 0 => self.reachable(field, address.ip()).then_some(address),
            _ => {
                let what = format!(
                    "`{}` is not ADDRESS:PORT; expected one such as 127.0.0.1:34567 or [::1]:34567",
                    shortened(text)
                );
                self.problem(field.at(), &field.path, what);
                None
            }
        }
    }

    fn reachable(&mut self, field: &Field<'_>, address: IpAddr) -> bool {
        let refused = if address.is_unspecified() {
            Some("any address of a host")
        } else if address.is_multicast() || address == IpAddr::from([255, 255, 255, 255]) {
            Some("many hosts at once")
        } else {
            None
        };
        if let Some(means) = refused {
            let what = format!("{address} means {means}; give the address of one host");
            self.problem(field.at(), &field.path, what);
        }
        refused.is_none()
    }

    pub(super) fn choice<T: Copy>(&mut self, field: &Field<'_>, what: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(field)?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            self.problem(field.at(), &field.path, not_one_of(what, text, &words));
        }
        found
    }

    /// A DNS label (RFC 1123): what a service, a namespace or a port may be called.
    pub(super) fn label(&mut self, field: &Field<'_>) -> Option<String> {
        let text = self.text(field)?;
        let valid = is_label(text);
        if !valid {
            let what = format!(
                "`{}` is not a valid name; use at most 63 of a-z, 0-9 and `-`, beginning and ending with a letter or digit{}",
                shortened(text),
                suggestion(text, is_label)
            );
            self.problem(field.at(), &field.path, what);
        }
        valid.then(|| text.to_owned())
    }

    /// DNS labels with dots between (RFC 1123): what a workload or a service account may be called.
    pub(super) fn subdomain(&mut self, field: &Field<'_>) -> Option<String> {
        let text = self.text(field)?;
        let valid = is_subdomain(text);
        if !valid {
            let what = format!(
                "`{}` is not a valid name; use at most 253 of a-z, 0-9, `-` and `.`, each part beginning and ending with a letter or digit{}",
                shortened(text),
                suggestion(text, is_subdomain)
            );
            self.problem(field.at(), &field.path, what);
        }
        valid.then(|| text.to_owned())
    }
}

pub(super) fn is_label(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= 63
        && text.as_bytes().first().is_some_and(alphanumeric)
        && text.as_bytes().last().is_some_and(alphanumeric)
        && text.bytes().all(|b| alphanumeric(&b) || b == b'-')
}

pub(super) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// `, such as ...` when changing case and separators makes a name valid.
fn suggestion(text: &str, is_valid: fn(&str) -> bool) -> String {
    let repaired = text.to_lowercase().replace(['_', ' '], "-");
    if is_valid(&repaired) { format!(", such as `{repaired}`") } else { String::new() }
}

fn joined(path: &str, name: &str) -> String {
    if name.contains(['.', '/', ' ', '[', '"']) {
        return format!("{path}[\"{}\"]", shortened(name));
    }
    if path.is_empty() { shortened(name) } else { format!("{path}.{}", shortened(name)) }
}
