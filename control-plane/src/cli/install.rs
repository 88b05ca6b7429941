//! `weft install` and `weft upgrade`: the mesh in a cluster, rendered, planned or put there.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use weft_proto::weft::StatusResponse;

use super::output::{Cell, Format, Output, Style};
use super::target::{PlaceFlags, Remote};
use super::{Context, Failure, upgrades};
use crate::kubernetes::install::apply::{self, Installation};
use crate::kubernetes::install::cluster::{Cluster, ClusterError};
use crate::kubernetes::install::plan::{Action, Step, plan};
use crate::kubernetes::install::{Values, chart, custom_resource_definitions, manifests};
use crate::kubernetes::names;
use crate::watch::files;

/// Images must come to each node, and a first start reads the whole cluster.
const PATIENCE: &str = "5m";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    settings: SettingFlags,
    /// Print the manifests, and touch no cluster.
    #[arg(long, conflicts_with_all = ["plan", "kubeconfig", "context", "reset"])]
    print: bool,
    /// Leave out the custom resource definitions.
    #[arg(long)]
    skip_crds: bool,
    #[command(flatten)]
    steps: StepFlags,
    /// Write the Helm charts below a directory.
    #[arg(long, value_name = "DIR", hide = true, conflicts_with_all = ["print", "plan"])]
    chart: Option<PathBuf>,
}

/// `weft upgrade`.
#[derive(Debug, clap::Args)]
pub(super) struct UpgradeArgs {
    #[command(flatten)]
    settings: SettingFlags,
    /// Leave the custom resource definitions as they are.
    #[arg(long)]
    skip_crds: bool,
    #[command(flatten)]
    steps: StepFlags,
}

/// What is installed.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct SettingFlags {
    /// A file of settings (YAML); may be repeated, the last counts.
    #[arg(short = 'f', long = "values", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// One setting, such as replicas=3 or images.proxy=example.org/weft-proxy:1; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
}

/// Where, and how far.
#[derive(Debug, clap::Args)]
struct StepFlags {
    #[command(flatten)]
    place: PlaceFlags,
    /// Show what would be created, changed and deleted, and do nothing.
    #[arg(long)]
    plan: bool,
    /// Start from the defaults, not from the settings of the last installation.
    #[arg(long)]
    reset: bool,
    /// Do not wait until everything runs.
    #[arg(long)]
    no_wait: bool,
    /// How long to wait: seconds, or with s, m or h.
    #[arg(long, value_name = "DURATION", default_value = PATIENCE, value_parser = super::token::seconds)]
    timeout: u64,
}

impl SettingFlags {
    /// These settings over others.
    pub(super) fn over(&self, base: &Values) -> Result<Values, Failure> {
        let mut values = base.clone();
        for path in &self.files {
            let name = path.display().to_string();
            let text = files::text(path).map_err(|error| Failure::new(format!("cannot read {name}: {error}")))?;
            values = values.with_file(&name, &text)?;
        }
        for assignment in &self.assignments {
            values = values.with_assignment(assignment)?;
        }
        Ok(values)
    }
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        if let Some(directory) = &self.chart {
            return chart::write(directory)
                .map_err(|error| Failure::new(format!("cannot write the charts to {}: {error}", directory.display())));
        }
        if self.print {
            let base = match self.steps.place.system_namespace() {
                Some(namespace) => Values::default().with_assignment(&format!("systemNamespace={namespace}"))?,
                None => Values::default(),
            };
            return Ok(print(&context.output, &self.settings.over(&base)?, self.skip_crds)?);
        }
        context.block_on(carry_out(context, &self.settings, &self.steps, self.skip_crds, None))
    }
}

impl UpgradeArgs {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let absent = "there is nothing to upgrade; install it with `weft install`";
        context.block_on(carry_out(context, &self.settings, &self.steps, self.skip_crds, Some(absent)))
    }
}

/// Manifests as `kubectl apply -f -` takes them.
fn print(output: &Output, values: &Values, skip_crds: bool) -> std::io::Result<()> {
    let all = everything(values, skip_crds);
    if output.format == Format::Json {
        return output.value(&json!({"apiVersion": "v1", "kind": "List", "items": all}));
    }
    for manifest in &all {
        let text = serde_yaml_ng::to_string(manifest).map_err(std::io::Error::other)?;
        output.line(format!("---\n{}", text.trim_end()))?;
    }
    Ok(())
}

fn everything(values: &Values, skip_crds: bool) -> Vec<Value> {
    let mut all = manifests(values);
    if !skip_crds {
        // A namespace needs nothing, and nothing else can be before it; definitions are for those who start later.
        all.splice(0..0, custom_resource_definitions());
    }
    all
}

/// Plans, and does what was planned unless only the plan was asked for. `absent`: what to say where nothing is installed;
/// without it, that is no failure.
async fn carry_out(
    context: &Context,
    settings: &SettingFlags,
    steps: &StepFlags,
    skip_crds: bool,
    absent: Option<&str>,
) -> Result<(), Failure> {
    let output = &context.output;
    let cluster = steps.place.connect().await?;
    let installed = apply::installation(&cluster).await?;
    if let (None, Some(absent)) = (&installed, absent) {
        return Err(Failure::new(format!("{}: {absent}", cluster.place())));
    }
    let values = settings.over(&base(&cluster, installed.as_ref(), steps).await?)?;
    if let Some(installed) = installed.as_ref().filter(|installed| installed.namespace != values.system_namespace) {
        return Err(Failure::new(format!(
            "a control plane is installed in namespace {}, and a cluster has one; go on there, or remove it with `weft uninstall`",
            installed.namespace
        )));
    }
    let all = everything(&values, skip_crds);
    let planned = plan(&cluster, &all).await?;
    if steps.plan {
        show(output, &planned)?;
        if installed.is_some() && output.format == Format::Table {
            let remote = Remote { cluster, system_namespace: values.system_namespace };
            output.note(&running_proxies(&remote).await);
        }
        return Ok(());
    }
    announce(output, &cluster, installed.as_ref());
    apply::apply(&cluster, &all, &planned, |step| tell(output, step)).await?;
    apply::remember(&cluster, &values).await?;
    if !steps.no_wait {
        let limit = Duration::from_secs(steps.timeout);
        apply::wait(&cluster, &values, limit, |what| output.note(&format!("waiting: {what}"))).await?;
    }
    if output.format != Format::Table {
        return Ok(show(output, &planned)?);
    }
    let state = if steps.no_wait { "is being started" } else { "runs" };
    output.line(format!("weft {} {state} in namespace {}", env!("CARGO_PKG_VERSION"), values.system_namespace))?;
    output.note(&format!(
        "mesh a namespace with `kubectl label namespace NAMESPACE {}={}`, and restart its pods; `weft check` looks for trouble",
        names::INJECT_LABEL,
        names::ENABLED
    ));
    Ok(())
}

/// What will become of the proxies that run.
async fn running_proxies(remote: &Remote) -> String {
    match remote.status().await {
        Ok(replicas) => {
            let statuses: Vec<StatusResponse> = replicas.into_iter().map(|replica| replica.status.into()).collect();
            upgrades::plan(&statuses.iter().collect::<Vec<_>>())
        }
        Err(failure) => format!("what becomes of running proxies is not known: {failure}"),
    }
}

/// The settings to start from.
async fn base(cluster: &Cluster, installed: Option<&Installation>, steps: &StepFlags) -> Result<Values, Failure> {
    let said = steps.place.system_namespace();
    match (installed, said) {
        (Some(installed), None) if !steps.reset => Ok(apply::remembered(cluster, &installed.namespace).await?),
        (Some(installed), Some(said)) if !steps.reset && installed.namespace == said => {
            Ok(apply::remembered(cluster, said).await?)
        }
        (installed, said) => {
            let namespace = said.or(installed.map(|installed| installed.namespace.as_str()));
            let namespace = namespace.unwrap_or(names::SYSTEM_NAMESPACE);
            Ok(Values::default().with_assignment(&format!("systemNamespace={namespace}"))?)
        }
    }
}

fn announce(output: &Output, cluster: &Cluster, installed: Option<&Installation>) {
    let own = env!("CARGO_PKG_VERSION");
    output.note(&match installed {
        None => format!("installing weft {own} at {}", cluster.place()),
        Some(installed) if installed.version == own => {
            format!("weft {own} is installed at {}; putting its settings in force", cluster.place())
        }
        Some(installed) => format!("upgrading weft from {} to {own} at {}", installed.version, cluster.place()),
    });
}

/// One step, when it is done.
fn tell(output: &Output, step: &Step) {
    if output.format == Format::Table && step.action != Action::Unchanged {
        output.note(&format!("{} {}", step.action.as_str(), step.object));
    }
}

/// A plan, for people and programs.
fn show(output: &Output, steps: &[Step]) -> std::io::Result<()> {
    if output.format != Format::Table {
        let step = |step: &Step| {
            let fields: &[String] = if let Action::Changed(fields) = &step.action { fields } else { &[] };
            json!({
                "action": step.action.as_str(),
                "kind": step.object.kind.name,
                "namespace": step.object.namespace,
                "name": step.object.name,
                "fields": fields,
            })
        };
        return output.value(&Value::Array(steps.iter().map(step).collect()));
    }
    let rows: Vec<Vec<Cell>> = steps.iter().map(row).collect();
    output.table(&["ACTION", "KIND", "NAMESPACE", "NAME"], &rows)?;
    for step in steps {
        if let Action::Changed(fields) = &step.action {
            output.line("")?;
            output.line(format!("{}:", step.object))?;
            for field in fields {
                output.line(format!("  {field}"))?;
            }
        }
    }
    let count = |name: &str| steps.iter().filter(|step| step.action.as_str() == name).count();
    let counts = ["created", "changed", "unchanged", "deleted"].map(|name| format!("{} {name}", count(name)));
    output.note(&format!("nothing is done; would be: {}", counts.join(", ")));
    Ok(())
}

fn row(step: &Step) -> Vec<Cell> {
    let style = match step.action {
        Action::Created | Action::Changed(_) => Style::Good,
        Action::Deleted => Style::Warning,
        Action::Unchanged => Style::Plain,
    };
    vec![
        Cell::styled(step.action.as_str(), style),
        step.object.kind.name.clone().into(),
        step.object.namespace.clone().into(),
        step.object.name.clone().into(),
    ]
}

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<crate::kubernetes::install::ValuesError> for Failure {
    fn from(error: crate::kubernetes::install::ValuesError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<crate::kubernetes::install::plan::PlanError> for Failure {
    fn from(error: crate::kubernetes::install::plan::PlanError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<apply::ApplyError> for Failure {
    fn from(error: apply::ApplyError) -> Self {
        Self::new(error.to_string())
    }
}
