//! The Helm charts, from the same templates as the manifests: `weft` and, apart from it, `weft-crds`.
//!
//! They are committed under `k8s/`, made by `weft install --chart k8s`. A test holds them to what this module makes now,
//! and another compares what Helm renders with what `weft install --print` says.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::check::OLDEST_MINOR;
use super::manifests::{custom_resource_definitions, templates};
use super::template::{NAMESPACE, Template};
use super::values::Values;

/// Comments of the chart's settings are broken here.
const COLUMNS: usize = 110;

const ABOUT: &str = "Made by `weft install --chart k8s` from the program's own manifests: change those, not this.";

/// All files of both charts, by their paths below the charts' directory.
pub fn files() -> Vec<(PathBuf, String)> {
    let mut files = vec![
        ("chart/Chart.yaml".into(), chart_file("weft", "Weft, a service mesh: control plane, injector and roles.")),
        ("chart/values.yaml".into(), values_file()),
        ("chart/values.schema.json".into(), schema_file()),
        ("chart/templates/NOTES.txt".into(), NOTES.to_owned()),
        (
            "chart-crds/Chart.yaml".into(),
            chart_file(
                "weft-crds",
                "Definitions of Weft's documents, apart from the rest: removing them removes all documents.",
            ),
        ),
    ];
    files.extend(templates().iter().map(|template| template_file("chart", template)));
    files.extend(
        custom_resource_definitions().into_iter().map(|body| template_file("chart-crds", &Template::always(body))),
    );
    files
}

/// Writes the charts below a directory. Templates of objects that are no more go.
pub fn write(directory: &Path) -> std::io::Result<()> {
    for chart in ["chart", "chart-crds"] {
        match std::fs::remove_dir_all(directory.join(chart)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    for (path, text) in files() {
        let path = directory.join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(directory))?;
        std::fs::write(path, text)?;
    }
    Ok(())
}

const NOTES: &str = "\
Weft {{ .Chart.AppVersion }} is being started in namespace {{ .Release.Namespace }}.

See whether it works, and what would keep it from working:  weft check
Mesh a namespace:     kubectl label namespace NAMESPACE weft.dev/inject=enabled
and restart its pods: kubectl -n NAMESPACE rollout restart deployment
";

fn chart_file(name: &str, description: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let home = env!("CARGO_PKG_REPOSITORY");
    // As JSON has it, which quotes what YAML could take for its own.
    let description = Value::from(description);
    format!(
        "# {ABOUT}\napiVersion: v2\nname: {name}\ndescription: {description}\ntype: application\nversion: {version}\n\
         appVersion: \"{version}\"\nkubeVersion: '>=1.{OLDEST_MINOR}.0-0'\nhome: {home}\n"
    )
}

fn template_file(chart: &str, template: &Template) -> (PathBuf, String) {
    let text = |pointer| template.body.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let name = text("/metadata/name");
    // The one object whose name is a setting is the only one of its kind.
    let own = if name.starts_with(|c: char| c.is_ascii_lowercase()) { format!("-{name}") } else { String::new() };
    let file = format!("{chart}/templates/{}{own}.yaml", text("/kind").to_ascii_lowercase());
    (file.into(), format!("# {ABOUT}\n{}", template.helm()))
}

/// The settings as a chart has them: Helm knows the namespace, and makes it where it is told to.
fn settings() -> Value {
    let mut settings = Values::default().to_json();
    if let Value::Object(fields) = &mut settings {
        fields.shift_remove(NAMESPACE);
    }
    settings["createNamespace"] = json!(false);
    settings
}

fn schema() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Values>().to_value();
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.shift_remove(NAMESPACE);
        // Helm gives these to a chart that another depends on.
        properties.insert("global".into(), json!({"type": "object"}));
    }
    schema
}

fn schema_file() -> String {
    let mut schema = schema();
    // The one default that is the chart's own.
    schema["properties"]["createNamespace"]["default"] = json!(false);
    format!("{schema:#}\n")
}

fn values_file() -> String {
    let mut out = format!("# {ABOUT}\n");
    commented(&settings(), &schema(), 0, &mut out);
    out
}

/// Settings with their comments above them.
fn commented(settings: &Value, schema: &Value, indent: usize, out: &mut String) {
    let Value::Object(fields) = settings else { return };
    for (key, value) in fields {
        let field = &schema["properties"][key];
        if indent == 0 {
            out.push('\n');
        }
        for line in wrapped(field["description"].as_str().unwrap_or_default(), COLUMNS - indent) {
            let _ = writeln!(out, "{:indent$}# {line}", "");
        }
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                let _ = writeln!(out, "{:indent$}{key}:", "");
                commented(value, field, indent + 2, out);
            }
            other => {
                let _ = writeln!(out, "{:indent$}{key}: {other}", "");
            }
        }
    }
}

/// Text in lines of so many characters, broken at blanks.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= columns - 2 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(directory: &Path, below: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in std::fs::read_dir(directory.join(below)).unwrap() {
            let entry = entry.unwrap();
            let path = below.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                read(directory, &path, found);
            } else {
                found.insert(path.clone(), std::fs::read_to_string(directory.join(&path)).unwrap());
            }
        }
    }

    #[test]
    fn the_committed_charts_are_what_the_manifests_make_now() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s");
        let mut found = BTreeMap::new();
        for chart in ["chart", "chart-crds"] {
            read(&directory, Path::new(chart), &mut found);
        }
        let made: BTreeMap<PathBuf, String> = files().into_iter().collect();
        assert_eq!(files().len(), made.len(), "two templates have one name");
        let names = |files: &BTreeMap<PathBuf, String>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&made), "make them with `weft install --chart k8s`");
        for (path, text) in &made {
            assert_eq!(&found[path], text, "{}: make it with `weft install --chart k8s`", path.display());
        }
    }

    #[test]
    fn the_charts_settings_are_the_programs_defaults_but_for_the_namespace() {
        let settings: Value = serde_yaml_ng::from_str(&values_file()).unwrap();
        let text = settings.to_string();
        let values = Values::default().with_file("values.yaml", &text).unwrap();
        assert_eq!(values, Values { create_namespace: false, ..Values::default() });
        assert!(settings.get("systemNamespace").is_none());
    }

    #[test]
    fn every_setting_has_a_comment() {
        fn uncommented(path: &str, settings: &Value, schema: &Value, found: &mut Vec<String>) {
            let Value::Object(fields) = settings else { return };
            for (key, value) in fields {
                let field = &schema["properties"][key];
                let path = format!("{path}.{key}");
                // Requests and limits are Kubernetes' own, and the map above them says what they are for.
                if field["description"].is_null() && !path.contains("esources.") {
                    found.push(path.clone());
                }
                if field["properties"].is_object() {
                    uncommented(&path, value, field, found);
                }
            }
        }
        let mut found = Vec::new();
        uncommented("", &settings(), &schema(), &mut found);
        assert!(found.is_empty(), "{found:?}");
    }
}
