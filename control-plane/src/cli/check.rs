//! `weft check`: what will go wrong in a cluster, before it does.

use std::process::ExitCode;

use serde_json::json;

use super::install::SettingFlags;
use super::output::{Cell, Format, Output, Style};
use super::remote::Replica;
use super::target::{PlaceFlags, Remote};
use super::{Context, Failure, upgrades};
use crate::kubernetes::install::Values;
use crate::kubernetes::install::apply::installation;
use crate::kubernetes::install::check::{Finding, Stage, Verdict, check, versions};
use crate::manage::view::Proxy;

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 nothing failed (warnings may stand), 1 something failed, 2 wrong usage.")]
pub(super) struct Args {
    /// Check whether an installation would work, not one that is there.
    #[arg(long)]
    pre: bool,
    #[command(flatten)]
    settings: SettingFlags,
    #[command(flatten)]
    place: PlaceFlags,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let findings = context.block_on(async {
            let cluster = self.place.connect().await?;
            // What is wrong in the settings is told before anything is asked.
            self.settings.over(&Values::default())?;
            let stage = if self.pre { Stage::Before } else { Stage::After };
            let given = |base: Values| {
                let base = match self.place.system_namespace() {
                    Some(namespace) => Values { system_namespace: namespace.to_owned(), ..base },
                    None => base,
                };
                self.settings.over(&base).unwrap_or(base)
            };
            let mut findings = check(&cluster, stage, given, weft_proxy::clock::unix_seconds()).await?;
            if let (Stage::After, Some(installed)) = (stage, installation(&cluster).await?) {
                let remote = Remote { cluster, system_namespace: installed.namespace };
                let replicas = remote.status().await;
                if let Ok(replicas) = &replicas {
                    findings.push(proxies(replicas));
                }
                let statuses =
                    replicas.map(|replicas| replicas.into_iter().map(|replica| replica.status.into()).collect());
                findings.push(upgrades::finding(statuses));
            }
            Ok(findings)
        })?;
        show(&context.output, &findings)?;
        let worst = findings.iter().map(|finding| finding.verdict).max();
        Ok(if worst == Some(Verdict::Failed) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// The versions of the proxies, as they say to the replica they are connected to.
fn proxies(replicas: &[Replica]) -> Finding {
    let of = |replica: &Replica| -> Vec<(String, String, String)> {
        let control_plane = &replica.status.version;
        let of = |proxy: &Proxy| (proxy.workload.clone(), proxy.version.clone(), control_plane.clone());
        replica.status.proxies.iter().map(of).collect()
    };
    versions(&replicas.iter().flat_map(of).collect::<Vec<_>>())
}

fn show(output: &Output, findings: &[Finding]) -> std::io::Result<()> {
    if output.format != Format::Table {
        return output.value(&json!(findings));
    }
    let row = |finding: &Finding| {
        let style = match finding.verdict {
            Verdict::Ok => Style::Good,
            Verdict::Warning => Style::Warning,
            Verdict::Failed => Style::Bad,
        };
        vec![finding.check.into(), Cell::styled(finding.verdict.to_string(), style), finding.what.clone().into()]
    };
    output.table(&["CHECK", "STATE", "FOUND"], &findings.iter().map(row).collect::<Vec<_>>())?;
    let wrong: Vec<&Finding> = findings.iter().filter(|finding| finding.verdict != Verdict::Ok).collect();
    if !wrong.is_empty() {
        output.line("")?;
    }
    for finding in wrong {
        output.line(format!("{}: {}", finding.check, finding.remedy))?;
    }
    Ok(())
}
