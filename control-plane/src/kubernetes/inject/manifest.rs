//! Manifests as people keep them: every pod that a document of a source makes, whatever makes it.
//!
//! What makes no pods passes through as it was written, to the letter.

use std::fmt;

use serde_json::{Value, json};

use super::error::shortened;
use super::settings::InjectSettings;
use super::{Injected, NamespaceFacts, Reason, inject, warnings, yaml};

/// Kinds that make pods: their group, and where the pod's template stands in them.
const KINDS: [(&str, &str, &[&str]); 7] = [
    ("", "Pod", &[]),
    ("apps", "Deployment", &["spec", "template"]),
    ("apps", "StatefulSet", &["spec", "template"]),
    ("apps", "DaemonSet", &["spec", "template"]),
    ("apps", "ReplicaSet", &["spec", "template"]),
    ("batch", "Job", &["spec", "template"]),
    ("batch", "CronJob", &["spec", "jobTemplate", "spec", "template"]),
];

/// One document of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// As it was read.
    pub before: Value,
    /// With a proxy beside each pod it makes.
    pub after: Value,
    /// The text it was read from.
    pub text: String,
    pub findings: Vec<Finding>,
}

/// What somebody who injects by hand should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Pods that stay as they are.
    Unchanged { place: String, reason: Reason },
    /// What has no effect.
    Warning { place: String, what: String },
}

/// Why a source cannot be injected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct SourceError {
    /// `FILE:LINE`, and the object and its field where it could be read.
    pub place: String,
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unchanged { place, reason } => write!(f, "{place}: not injected: {reason}"),
            Self::Warning { place, what } => write!(f, "{place}: {what}"),
        }
    }
}

/// The documents of a source, or everything that is wrong with it.
pub fn documents(source: &str, text: &str, settings: &InjectSettings) -> Result<Vec<Manifest>, Vec<SourceError>> {
    let (mut manifests, mut errors) = (Vec::new(), Vec::new());
    for (line, text) in split(text) {
        let before = match parse(text) {
            Ok(Some(value)) => value,
            Ok(None) => continue,
            Err(problem) => {
                errors.push(SourceError { place: format!("{source}:{}", line + problem.line - 1), what: problem.what });
                continue;
            }
        };
        let mut walk = Walk { settings, findings: Vec::new(), errors: Vec::new() };
        let mut after = before.clone();
        // The first line that says something is where people look.
        let skipped = text.lines().take_while(|line| line.trim().is_empty() || line.starts_with('#')).count();
        walk.document(&mut after, &format!("{source}:{}", line + skipped), "");
        errors.append(&mut walk.errors);
        manifests.push(Manifest { before, after, text: text.trim().to_owned(), findings: walk.findings });
    }
    if errors.is_empty() { Ok(manifests) } else { Err(errors) }
}

/// A stream of documents; what has not changed is as it was written.
pub fn to_yaml(manifests: &[Manifest]) -> String {
    let text = |manifest: &Manifest| {
        if manifest.after == manifest.before { format!("{}\n", manifest.text) } else { yaml::write(&manifest.after) }
    };
    manifests.iter().map(text).collect::<Vec<_>>().join("---\n")
}

/// One object: a List when there are several.
pub fn to_json(manifests: &[Manifest]) -> Value {
    match manifests {
        [one] => one.after.clone(),
        all => {
            let items: Vec<&Value> = all.iter().map(|manifest| &manifest.after).collect();
            json!({ "apiVersion": "v1", "kind": "List", "items": items })
        }
    }
}

/// JSON is nearly YAML, but for what its own reader also takes: tabs.
fn parse(text: &str) -> Result<Option<Value>, yaml::YamlProblem> {
    if text.trim_start().starts_with('{')
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(Some(value));
    }
    yaml::read(text)
}

/// The documents of a text, each with the number of its first line. A line that begins with three dashes ends a document
/// wherever it stands.
fn split(text: &str) -> Vec<(usize, &str)> {
    let (mut documents, mut start, mut first_line, mut at) = (Vec::new(), 0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let after = line.strip_prefix("---").filter(|rest| rest.trim_start().len() < rest.len() || rest.is_empty());
        if after.is_some() {
            documents.push((first_line, &text[start..at]));
            (start, first_line) = (at + "---".len(), index + 1);
        }
        at += line.len();
    }
    documents.push((first_line, &text[start..]));
    documents
}

/// Where a document has the template of its pods, if it is of a kind that makes some.
pub(super) fn template_path(document: &Value) -> Option<&'static [&'static str]> {
    let api_version = document["apiVersion"].as_str()?;
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    let (_, _, path) = KINDS.iter().find(|(of, name, _)| *of == group && document["kind"] == *name)?;
    Some(path)
}

struct Walk<'a> {
    settings: &'a InjectSettings,
    findings: Vec<Finding>,
    errors: Vec<SourceError>,
}

impl Walk<'_> {
    /// `path` is that of the document in the one that was read.
    fn document(&mut self, document: &mut Value, place: &str, path: &str) {
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (text(&document["apiVersion"]), text(&document["kind"]));
        if api_version == "v1" && kind == "List" {
            for (index, item) in document["items"].as_array_mut().into_iter().flatten().enumerate() {
                self.document(item, place, &format!("{path}items[{index}]."));
            }
            return;
        }
        let Some(steps) = template_path(document) else { return };
        let metadata = &document["metadata"];
        let (namespace, mut name) = (text(&metadata["namespace"]), text(&metadata["name"]));
        if name.is_empty() {
            name = text(&metadata["generateName"]);
        }
        let object = if namespace.is_empty() { name } else { format!("{namespace}/{name}") };
        let mut place = format!("{place}: {kind} {}", shortened(&object));
        let path = format!("{path}{}", steps.join("."));
        if !path.is_empty() {
            place = format!("{place}: {}", path.trim_end_matches('.'));
        }
        match steps.iter().try_fold(&mut *document, |value, step| value.get_mut(step)) {
            Some(pod) => self.pod(pod, place, namespace),
            None => self.errors.push(SourceError { place, what: "there is no pod template".to_owned() }),
        }
    }

    fn pod(&mut self, pod: &mut Value, place: String, namespace: String) {
        // Whoever calls this by hand wants injection, whatever the namespace's label says; a pod's own label counts.
        match inject(pod, &NamespaceFacts::enabled(namespace), self.settings) {
            Ok(Injected::Changed(after)) => {
                let told = warnings(&after).into_iter();
                self.findings.extend(told.map(|what| Finding::Warning { place: place.clone(), what }));
                *pod = after;
            }
            Ok(Injected::Unchanged(reason)) => self.findings.push(Finding::Unchanged { place, reason }),
            Err(error) => self.errors.push(SourceError { place, what: error.to_string() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_end_at_three_dashes_and_know_their_lines() {
        let text = "a: 1\n---\nb: |\n  ---\n  x\n--- # c\nc: 1\n----\n---";
        let expected = [(1, "a: 1\n"), (2, "\nb: |\n  ---\n  x\n"), (6, " # c\nc: 1\n----\n"), (9, "")];
        assert_eq!(split(text), expected);
        assert_eq!(split(""), [(1, "")]);
    }
}
