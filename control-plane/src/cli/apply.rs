//! `weft apply`: documents into the store.

use std::path::PathBuf;

use serde_json::json;
use weft_proto::weft::{ApplyRequest, Change, Source};

use super::output::{Cell, Format, Output, Style};
use super::{Context, Failure, connect, sources};
use crate::manage::notes;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A file, a directory of *.yaml, *.yml and *.json files, or `-` for standard input; may be repeated.
    #[arg(short, long = "file", value_name = "FILE|DIR|-", required = true)]
    files: Vec<PathBuf>,
    /// Check and report, store nothing.
    #[arg(long)]
    dry_run: bool,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let sources = sources::read_all(&self.files)?;
        let sources = sources.into_iter().map(|source| Source { name: source.name, text: source.text }).collect();
        let request = ApplyRequest { sources, author: sources::author(), dry_run: self.dry_run };
        context.block_on(async {
            let response = connect(&context.data).await?.apply(request).await?;
            for warning in notes(response.metadata()) {
                context.output.warning(&warning);
            }
            let response = response.into_inner();
            if self.dry_run && context.output.format == Format::Table {
                context.output.note("dry run: nothing is stored");
            }
            Ok(show(&context.output, response.revision, &response.changes, self.dry_run)?)
        })
    }
}

/// What a change did, document by document.
pub(super) fn show(output: &Output, revision: u64, changes: &[Change], dry_run: bool) -> std::io::Result<()> {
    if output.format == Format::Table {
        return output.table(&["ACTION", "KIND", "NAMESPACE", "NAME"], &changes.iter().map(row).collect::<Vec<_>>());
    }
    let changes: Vec<_> = changes
        .iter()
        .map(|change| {
            json!({"kind": change.kind, "namespace": change.namespace, "name": change.name, "action": change.action})
        })
        .collect();
    output.value(&json!({"revision": revision, "dryRun": dry_run, "changes": changes}))
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
