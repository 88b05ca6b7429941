//! `weft uninstall`: everything of ours out of a cluster.

use serde_json::json;

use super::output::{Cell, Format, Output, Style};
use super::target::PlaceFlags;
use super::{Context, Failure};
use crate::kubernetes::install::apply::installation;
use crate::kubernetes::install::uninstall::{Removal, removal, remove};
use crate::kubernetes::names::SYSTEM_NAMESPACE;

/// Pods named in a refusal.
const SHOWN: usize = 5;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: PlaceFlags,
    /// Show what would be removed, and remove nothing.
    #[arg(long)]
    plan: bool,
    /// Remove the custom resource definitions too, and with them every document of the mesh.
    #[arg(long)]
    crds: bool,
    /// Go on although pods still have proxies: those lose their identities within a day.
    #[arg(long)]
    force: bool,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        context.block_on(async {
            let output = &context.output;
            let cluster = self.place.connect().await?;
            let namespace = match self.place.system_namespace() {
                Some(said) => said.to_owned(),
                None => {
                    installation(&cluster).await?.map_or_else(|| SYSTEM_NAMESPACE.to_owned(), |found| found.namespace)
                }
            };
            let found = removal(&cluster, &namespace, self.crds).await?;
            if let Some(manager) = &found.foreign {
                return Err(Failure::new(format!(
                    "the installation in {namespace} belongs to {manager}; remove it with that (`helm uninstall`)"
                )));
            }
            if self.plan {
                return Ok(show(output, &found, false)?);
            }
            if !found.meshed.is_empty() && !self.force {
                return Err(Failure::new(refusal(&found)));
            }
            remove(&cluster, &found, |object| {
                if output.format == Format::Table {
                    output.note(&format!("deleted {object}"));
                }
            })
            .await?;
            Ok(show(output, &found, true)?)
        })
    }
}

/// Why pods that have proxies stand in the way.
fn refusal(found: &Removal) -> String {
    let shown = found.meshed.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = found.meshed.len().saturating_sub(SHOWN);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!(
        "{} pods still have proxies ({shown}{more}), whose certificates end within a day without a control plane; \
         take the label weft.dev/inject off their namespaces and restart them first, or go on with --force",
        found.meshed.len()
    )
}

fn show(output: &Output, found: &Removal, is_done: bool) -> std::io::Result<()> {
    if output.format != Format::Table {
        let object = |object: &crate::kubernetes::install::cluster::Reference| json!({"kind": object.kind.name, "namespace": object.namespace, "name": object.name});
        return output.value(&json!({
            "removed": found.objects.iter().map(object).collect::<Vec<_>>(),
            "kept": found.kept,
            "meshedPods": found.meshed,
            "done": is_done,
        }));
    }
    if found.objects.is_empty() {
        output.line("nothing of weft is installed")?;
    } else if is_done {
        output.line(format!("weft is removed: {} objects", found.objects.len()))?;
    } else {
        let rows: Vec<Vec<Cell>> = found
            .objects
            .iter()
            .map(|object| {
                let action = Cell::styled("deleted", Style::Warning);
                vec![
                    action,
                    object.kind.name.clone().into(),
                    object.namespace.clone().into(),
                    object.name.clone().into(),
                ]
            })
            .collect();
        output.table(&["ACTION", "KIND", "NAMESPACE", "NAME"], &rows)?;
        output.note("nothing is done yet");
    }
    for kept in &found.kept {
        output.note(&format!("kept: {kept}"));
    }
    if is_done && !found.meshed.is_empty() {
        output.warning(&format!("{} pods still have proxies; restart them", found.meshed.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_that_stand_in_the_way_are_named_and_counted() {
        let meshed = (0..7).map(|number| format!("shop/{number}")).collect();
        let text = refusal(&Removal { meshed, ..Removal::default() });
        assert!(
            text.starts_with("7 pods still have proxies (shop/0, shop/1, shop/2, shop/3, shop/4 and 2 more)"),
            "{text}"
        );
        assert!(text.contains("--force"), "{text}");
    }
}
