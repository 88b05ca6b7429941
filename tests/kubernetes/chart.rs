//! The Helm chart against `weft install --print`: with the same settings both say the same; and what they say is what
//! Kubernetes' own schemas allow.

#![allow(clippy::unwrap_used, reason = "a test that cannot have what it needs has failed")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use weft_tests::process::{command, fed, program, python, run, run_within};

/// The oldest version that is supported, and the newest there are schemas of.
const VERSIONS: [&str; 2] = ["1.29", "1.37"];
/// What Helm shall think of the cluster: a build without flags takes it for 1.20.
const OLDEST: &str = "1.29.0";
/// Helm is a large program, and it is built once.
const BUILD: Duration = Duration::from_mins(20);

/// Settings with which both must agree: each turns something on, or says something Helm might read in its own way.
const SETTINGS: [&str; 4] = [
    "{}",
    "{capture: cni, logLevel: debug, images: {pullSecrets: [{name: registry}]}}",
    "{autoscaling: {enabled: true, maxReplicas: 9}, resources: {limits: {memory: 1Gi}}, priorityClass: important}",
    "{replicas: 3, trustDomain: example.org, images: {controlPlane: 'example.org/w@sha256:0', proxy: 'example.org/p:1'}, \
     nodeSelector: {disk: ssd}, tolerations: [{key: only, operator: Exists}]}",
];

/// Helm's own program, built from the module that pins its version.
fn helm() -> PathBuf {
    /// Two tests must not build it at once.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes/helm");
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools");
    std::fs::create_dir_all(&tools).unwrap();
    let program = tools.canonicalize().unwrap().join("helm");
    if program.exists() {
        return program;
    }
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/local/go/bin";
    let has_go = path.split(':').any(|directory| Path::new(directory).join("go").exists());
    assert!(has_go, "go is not installed, and helm is built with it: see https://go.dev/dl");
    let mut go = command("go");
    go.env("PATH", path).current_dir(module).args(["build", "-mod=readonly", "-o"]).arg(&program);
    let built = run_within(go.arg("helm.sh/helm/v3/cmd/helm"), BUILD);
    assert_eq!(built.code, Some(0), "helm cannot be built: {}", built.stderr);
    program
}

fn charts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s")
}

/// What `weft install --print` says.
fn printed(place: &Path, settings: &str, more: &[&str]) -> Vec<Value> {
    let file = place.join("settings.yaml");
    std::fs::write(&file, settings).unwrap();
    let mut weft = command(program("weft"));
    weft.args(["install", "--print", "-o", "json", "--system-namespace", "mesh", "-f"]).arg(&file).args(more);
    let list: Value = serde_json::from_str(&run(&mut weft).succeeded()).unwrap();
    list["items"].as_array().unwrap().clone()
}

/// What Helm makes of a chart.
fn rendered(place: &Path, chart: &str, settings: &str, more: &[&str]) -> Vec<Value> {
    let file = place.join("settings.yaml");
    std::fs::write(&file, settings).unwrap();
    let mut helm = command(helm());
    // Nobody's own settings of Helm.
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        helm.env(variable, place);
    }
    helm.args(["template", "weft", "--namespace", "mesh", "--kube-version", OLDEST])
        .arg(charts().join(chart))
        .arg("-f")
        .arg(&file)
        .args(more);
    let text = run(&mut helm).succeeded();
    let documents = serde_yaml_ng::Deserializer::from_str(&text).map(|document| Value::deserialize(document).unwrap());
    documents.filter(|document| !document.is_null()).collect()
}

/// By kind and name, as both have an order of their own.
fn by_name(manifests: Vec<Value>) -> BTreeMap<String, Value> {
    let count = manifests.len();
    let named: BTreeMap<String, Value> = manifests
        .into_iter()
        .map(|mut manifest| {
            // The one thing in which they differ is who looks after the objects.
            let manager = &mut manifest["metadata"]["labels"]["app.kubernetes.io/managed-by"];
            if manager == "Helm" {
                *manager = "weft".into();
            }
            (format!("{} {}", manifest["kind"], manifest["metadata"]["name"]), manifest)
        })
        .collect();
    assert_eq!(named.len(), count, "two manifests have one name");
    named
}

#[test]
fn helm_renders_what_the_program_prints() {
    let place = tempfile::tempdir().unwrap();
    for settings in SETTINGS {
        let printed = by_name(printed(place.path(), settings, &["--skip-crds"]));
        assert!(printed.len() > 10, "{printed:#?}");
        let rendered = by_name(rendered(place.path(), "chart", settings, &["--set", "createNamespace=true"]));
        assert_eq!(rendered.keys().collect::<Vec<_>>(), printed.keys().collect::<Vec<_>>(), "{settings}");
        for (name, manifest) in &printed {
            assert_eq!(&rendered[name], manifest, "{name} with {settings}");
        }
    }
}

#[test]
fn the_chart_of_definitions_has_those_the_program_prints() {
    let place = tempfile::tempdir().unwrap();
    let all = by_name(printed(place.path(), "{}", &[]));
    let others = by_name(printed(place.path(), "{}", &["--skip-crds"]));
    let definitions: BTreeMap<String, Value> = all.into_iter().filter(|(name, _)| !others.contains_key(name)).collect();
    assert_eq!(by_name(rendered(place.path(), "chart-crds", "{}", &[])), definitions);
}

#[test]
fn helm_refuses_settings_there_are_none_of() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("settings.yaml");
    for (settings, word) in
        [("{replica: 3}", "replica"), ("{capture: ebpf}", "capture"), ("{systemNamespace: x}", "systemNamespace")]
    {
        std::fs::write(&file, settings).unwrap();
        let mut helm = command(helm());
        helm.args(["template", "weft", "--kube-version", OLDEST]).arg(charts().join("chart")).arg("-f").arg(&file);
        let said = run(&mut helm).failed(1);
        assert!(said.contains(word), "{settings}: {said}");
    }
}

/// Reads `[VERSION, MANIFEST]` pairs and says which are wrong, and that it looked at all of them.
const VALIDATE: &str = "\
import json, sys
import kubernetes_validate as check
count = 0
for version, manifest in json.load(sys.stdin):
    name = f\"{manifest['kind']} {manifest['metadata']['name']} ({version})\"
    try:
        check.validate(manifest, version, strict=True)
    except check.ValidationError as error:
        print(f'{name}: {error.message}')
    count += 1
print(f'{count} validated')
";

fn validated(manifests: &[Value]) -> String {
    let pairs: Vec<(&str, &Value)> =
        VERSIONS.iter().flat_map(|version| manifests.iter().map(move |manifest| (*version, manifest))).collect();
    let mut python = command(python::interpreter(python::KUBERNETES_VALIDATE));
    fed(python.args(["-c", VALIDATE]), &serde_json::to_string(&pairs).unwrap()).succeeded()
}

#[test]
fn every_manifest_fits_the_schemas_of_the_oldest_and_the_newest_kubernetes() {
    let place = tempfile::tempdir().unwrap();
    for settings in SETTINGS {
        let manifests = printed(place.path(), settings, &[]);
        assert_eq!(validated(&manifests), format!("{} validated\n", manifests.len() * VERSIONS.len()), "{settings}");
    }
    // The validator can say no.
    let mut wrong = printed(place.path(), "{}", &[]);
    wrong.retain(|manifest| manifest["kind"] == "Deployment");
    wrong[0]["spec"]["replica"] = 3.into();
    assert!(validated(&wrong).contains("replica"), "a field there is none of must be found");
}
