//! `weft apply`: documents into the store.

use std::path::PathBuf;

use serde_json::json;
use weft_proto::weft::{ApplyRequest, Change, Source};

use super::objects::{self, Outcome};
use super::output::{Cell, Format, Output, Style};
use super::target::{ClusterFlags, Target};
use super::{Context, Failure, sources};
use crate::kubernetes::install::cluster::Mode;
use crate::manage::notes;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A file, a directory of *.yaml, *.yml and *.json files, or `-` for standard input; may be repeated.
    #[arg(short, long = "file", value_name = "FILE|DIR|-", required = true)]
    files: Vec<PathBuf>,
    /// Check and report, store nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    cluster: ClusterFlags,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let sources = sources::read_all(&self.files)?;
        context.block_on(async {
            let (revision, changes) = match self.cluster.target(context).await? {
                Target::Local(mut client) => {
                    let sources =
                        sources.into_iter().map(|source| Source { name: source.name, text: source.text }).collect();
                    let request = ApplyRequest { sources, author: sources::author(), dry_run: self.dry_run };
                    let response = client.apply(request).await?;
                    for warning in notes(response.metadata()) {
                        context.output.warning(&warning);
                    }
                    let response = response.into_inner();
                    (Some(response.revision), response.changes)
                }
                Target::Cluster(remote) => {
                    let mode = if self.dry_run { Mode::DryRun } else { Mode::Real };
                    (None, objects::apply(&remote, &sources, mode).await?.iter().map(change).collect())
                }
            };
            if self.dry_run && context.output.format == Format::Table {
                context.output.note("dry run: nothing is stored");
            }
            Ok(show(&context.output, revision, &changes, self.dry_run)?)
        })
    }
}

/// What became of an object, as the control plane's own store says it.
pub(super) fn change(outcome: &Outcome) -> Change {
    Change {
        kind: outcome.key.kind.to_string(),
        namespace: outcome.key.namespace.to_string(),
        name: outcome.key.name.to_string(),
        action: outcome.action.to_owned(),
    }
}

/// What a change did, document by document. A cluster has no revisions.
pub(super) fn show(output: &Output, revision: Option<u64>, changes: &[Change], dry_run: bool) -> std::io::Result<()> {
    if output.format == Format::Table {
        return output.table(&["ACTION", "KIND", "NAMESPACE", "NAME"], &changes.iter().map(row).collect::<Vec<_>>());
    }
    let changes: Vec<_> = changes
        .iter()
        .map(|change| {
            json!({"kind": change.kind, "namespace": change.namespace, "name": change.name, "action": change.action})
        })
        .collect();
    let mut value = json!({"dryRun": dry_run, "changes": changes});
    if let Some(revision) = revision {
        value["revision"] = json!(revision);
    }
    output.value(&value)
}

fn row(change: &Change) -> Vec<Cell> {
    let style = match change.action.as_str() {
        "created" | "changed" => Style::Good,
        "deleted" => Style::Warning,
        _ => Style::Plain,
    };
    vec![
        Cell::styled(change.action.clone(), style),
        change.kind.clone().into(),
        change.namespace.clone().into(),
        change.name.clone().into(),
    ]
}
