//! `weft inject`: manifests with a proxy beside each pod, by the function the cluster's webhook uses.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::output::Format;
use super::target::PlaceFlags;
use super::{Context, Failure, sources};
use crate::kubernetes::inject::{Finding, InjectOptions, InjectSettings, SourceError, documents, to_json, to_yaml};
use crate::kubernetes::install::cluster::{Kind, Reference};
use crate::kubernetes::names;

#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Pods, Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs, CronJobs and Lists of them get a proxy; other documents pass
through as they are. A pod's label weft.dev/inject=disabled counts, its namespace's does not: whoever calls this wants it.
Injecting what is injected changes nothing. Nothing is printed when anything is wrong.

The roots the proxies trust are in the result: inject again when they are rotated, or label the namespace and let the cluster
do it. Native sidecars are needed: Kubernetes 1.29 or newer (`weft check` tells).

Examples:
  weft inject -f deployment.yaml | kubectl apply -f -
  kubectl get deploy -o yaml | weft inject -f - --capture cni
  weft inject -f manifests/ --bundle bundle.pem -o json")]
pub(super) struct Args {
    /// A file, a directory of *.yaml, *.yml and *.json files, or `-` for standard input; may be repeated.
    #[arg(short, long = "file", value_name = "FILE|DIR|-", required = true)]
    files: Vec<PathBuf>,
    /// File with the roots the proxies trust (PEM) [default: those of the cluster].
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kubeconfig", "context"])]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    place: PlaceFlags,
    #[command(flatten)]
    options: InjectOptions,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let sources = sources::read_all(&self.files)?;
        let system_namespace = self.place.system_namespace().unwrap_or(names::SYSTEM_NAMESPACE).to_owned();
        let bundle = match &self.bundle {
            Some(path) => of_file(path)?,
            None => context.block_on(self.of_cluster(&system_namespace))?,
        };
        let settings = InjectSettings { options: self.options, system_namespace, bundle };
        let (mut manifests, mut errors) = (Vec::new(), Vec::new());
        for source in sources {
            match documents(&source.name, &source.text, &settings) {
                Ok(read) => manifests.extend(read),
                Err(found) => errors.extend(found),
            }
        }
        if !errors.is_empty() {
            let lines: Vec<String> = errors.iter().map(SourceError::to_string).collect();
            return Err(Failure::new(lines.join("\n")));
        }
        for finding in manifests.iter().flat_map(|manifest| &manifest.findings) {
            match finding {
                Finding::Unchanged { .. } => context.output.note(&finding.to_string()),
                Finding::Warning { .. } => context.output.warning(&finding.to_string()),
            }
        }
        let text = match context.output.format {
            Format::Json => format!("{:#}\n", to_json(&manifests)),
            Format::Table | Format::Yaml => to_yaml(&manifests),
        };
        Ok(io::stdout().lock().write_all(text.as_bytes())?)
    }

    /// The roots the control plane published.
    async fn of_cluster(&self, namespace: &str) -> Result<String, Failure> {
        let object = Reference::new(Kind::of("ConfigMap"), namespace, names::BUNDLE_CONFIG_MAP);
        let refused =
            |what: String| Failure::new(format!("{what}; the roots can also come from a file: name one with --bundle"));
        let cluster = self.place.connect().await.map_err(|failure| refused(failure.to_string()))?;
        let Some(map) = cluster.get(&object).await.map_err(|error| refused(error.to_string()))? else {
            return Err(refused(format!("{} has no {object}: no control plane runs there yet", cluster.place())));
        };
        let bundle = map["data"][names::BUNDLE_KEY].as_str().unwrap_or_default().to_owned();
        checked(bundle).map_err(|what| refused(format!("cannot use {object} as roots: {what}")))
    }
}

fn of_file(path: &Path) -> Result<String, Failure> {
    let refused =
        |what: String| Failure::new(format!("cannot use {} as roots: {what}; name a file of PEM", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    checked(text).map_err(refused)
}

/// A proxy that trusts nobody never gets ready: told here, not by a pod that hangs.
fn checked(bundle: String) -> Result<String, String> {
    if bundle.contains("-----BEGIN CERTIFICATE-----") { Ok(bundle) } else { Err("it holds no certificate".to_owned()) }
}
