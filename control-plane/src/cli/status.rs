//! `weft status`: the control plane and its proxies.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};
use weft_proto::weft::{ProxyStatus, StatusRequest, StatusResponse};

use super::output::{Cell, Format, Output, Style, age, timestamp};
use super::{Context, Failure, connect};
use crate::document::Kind;
use crate::manage::notes;

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let Self {} = self;
        context.block_on(async {
            let response = connect(&context.data).await?.status(StatusRequest {}).await?;
            let problems = notes(response.metadata());
            let status = response.into_inner();
            match context.output.format {
                Format::Json | Format::Yaml => context.output.value(&value(&status, &problems))?,
                Format::Table => {
                    let now = weft_proxy::clock::unix_seconds();
                    table(&context.output, &context.data.display().to_string(), &status, now)?;
                    for problem in problems {
                        context.output.warning(&format!("not applied: {problem}"));
                    }
                }
            }
            Ok(())
        })
    }
}

fn table(output: &Output, data: &str, status: &StatusResponse, now: i64) -> std::io::Result<()> {
    let count = |kind: Kind| format!("{kind} {}", status.documents.get(kind.as_str()).copied().unwrap_or(0));
    let current = status.proxies.iter().filter(|proxy| state(proxy, status.revision).1 == Style::Good).count();
    let facts = [
        ("control plane", format!("{} at {data}, up {}", status.version, age(status.started_at, now))),
        ("trust domain", status.trust_domain.clone()),
        (
            "root expires",
            if status.root_expires_at == 0 { "unknown".into() } else { timestamp(status.root_expires_at) },
        ),
        ("revision", status.revision.to_string()),
        ("documents", Kind::ALL.map(count).join(", ")),
        ("proxies", format!("{} connected, {current} up to date", status.proxies.len())),
    ];
    for (name, value) in facts {
        output.line(format!("{name:<15}{value}"))?;
    }
    proxies(output, status, now)?;
    let detected = sorted(&status.detected);
    if detected.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let rows: Vec<Vec<Cell>> =
        detected.into_iter().map(|(port, protocol)| vec![port.clone().into(), protocol.clone().into()]).collect();
    output.table(&["UNDECLARED PORT", "SPEAKS"], &rows)
}

fn proxies(output: &Output, status: &StatusResponse, now: i64) -> std::io::Result<()> {
    if status.proxies.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let row = |proxy: &ProxyStatus| -> Vec<Cell> {
        let (state, style) = state(proxy, status.revision);
        vec![
            proxy.workload.clone().into(),
            proxy.address.clone().into(),
            proxy.version.clone().into(),
            age(proxy.connected_since, now).into(),
            proxy.applied_revision.to_string().into(),
            Cell::styled(state, style),
        ]
    };
    let rows: Vec<Vec<Cell>> = status.proxies.iter().map(row).collect();
    output.table(&["WORKLOAD", "FROM", "VERSION", "CONNECTED", "REVISION", "STATE"], &rows)
}

fn state(proxy: &ProxyStatus, revision: u64) -> (String, Style) {
    if !proxy.nack.is_empty() {
        (format!("refused: {}", proxy.nack.replace('\n', " ")), Style::Bad)
    } else if proxy.pending > 0 {
        (format!("{} pending", proxy.pending), Style::Warning)
    } else if proxy.applied_revision < revision {
        ("behind".into(), Style::Warning)
    } else {
        ("up to date".into(), Style::Good)
    }
}

fn sorted<V>(map: &HashMap<String, V>) -> BTreeMap<&String, &V> {
    map.iter().collect()
}

fn value(status: &StatusResponse, problems: &[String]) -> Value {
    let proxy = |proxy: &ProxyStatus| {
        json!({
            "workload": proxy.workload,
            "spiffeId": proxy.spiffe_id,
            "address": proxy.address,
            "version": proxy.version,
            "connectedSince": timestamp(proxy.connected_since),
            "appliedRevision": proxy.applied_revision,
            "pending": proxy.pending,
            "nack": proxy.nack,
            "admin": proxy.admin,
        })
    };
    json!({
        "version": status.version,
        "trustDomain": status.trust_domain,
        "rootExpiresAt": timestamp(status.root_expires_at),
        "startedAt": timestamp(status.started_at),
        "revision": status.revision,
        "documents": sorted(&status.documents),
        "detected": sorted(&status.detected),
        "problems": problems,
        "proxies": status.proxies.iter().map(proxy).collect::<Vec<_>>(),
    })
}
