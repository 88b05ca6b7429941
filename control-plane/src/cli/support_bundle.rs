//! `weft support-bundle`: everything somebody far away wants to know about a mesh that misbehaves, in one file.
//!
//! Of a cluster: versions, checks, the control plane's and the proxies' state, configuration, metrics and logs, events, our own
//! objects. Outside: what the control plane on this machine and its proxies say. What cannot be had does not end it; it is named,
//! here and in the bundle's index.

mod archive;
mod cluster;
mod redact;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde_json::{Value, json};
use weft_proto::weft::{GetRequest, ProxyStatus, StatusRequest};
use weft_proxy::clock;

use self::archive::{Archive, Content, Missing, Part};
use super::output::{Format, Output, timestamp};
use super::proxy::{admin, asking};
use super::target::{ClusterFlags, Target};
use super::{Client, Context, Failure};
use crate::manage::view;

/// Reasons that are told; the index has all of them.
const TOLD: usize = 12;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Secrets are never asked for, and what looks like a key or a token is taken out, as are variables and arguments of your own
containers. Look through the file before you send it all the same.
Exit codes: 0 the file is written, even if parts are missing (they are named); 1 nothing could be had or written; 2 wrong usage.")]
pub(super) struct Args {
    /// File to write [default: weft-support-TIME.tar.gz here].
    #[arg(short = 'f', long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A proxy to look at, by its workload or pod; may be repeated.
    #[arg(long = "proxy", value_name = "NAMESPACE/NAME", value_parser = workload)]
    named: Vec<String>,
    /// How many proxies to look at when none is named: those that are not ready first.
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=500))]
    proxies: u16,
    #[command(flatten)]
    cluster: ClusterFlags,
}

fn workload(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => Ok(text.into()),
        _ => Err("expected NAMESPACE/NAME".to_owned()),
    }
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let now = clock::unix_seconds();
        context.block_on(async {
            let most = usize::from(self.proxies);
            let (place, parts) = match self.cluster.target(context).await? {
                Target::Local(client) => (context.data.display().to_string(), local(client, &self.named, most).await),
                Target::Cluster(remote) => {
                    (remote.cluster.place().to_owned(), cluster::collect(&remote, &self.named, most, now).await)
                }
            };
            self.write(&context.output, &place, parts, now)
        })
    }

    fn write(&self, output: &Output, place: &str, parts: Vec<Part>, now: i64) -> Result<(), Failure> {
        if let Some((part, Err(reason))) = parts.first()
            && parts.iter().all(|(_, content)| content.is_err())
        {
            return Err(Failure::new(format!("nothing could be had of {place}; {part}: {reason}")));
        }
        let root = format!("weft-support-{}", timestamp(now).replace(['-', ':'], ""));
        let path = self.file.clone().unwrap_or_else(|| PathBuf::from(format!("{root}.tar.gz")));
        let failed = |error: std::io::Error| {
            Failure::new(format!("cannot write {}: {error}; name another file with --file", path.display()))
        };
        let mut archive = Archive::create(&path, &root, now.max(0) as u64).map_err(failed)?;
        let about = json!({ "program": env!("CARGO_PKG_VERSION"), "of": place, "at": timestamp(now) });
        let written = parts.into_iter().try_for_each(|part| archive.part(part));
        let (names, missing) = (archive.parts.clone(), archive.missing.clone());
        let written = written.and_then(|()| archive.finish(&about)).and_then(|file| file.sync_all());
        if let Err(error) = written {
            // Half a bundle would be taken for a whole one.
            let _ = std::fs::remove_file(&path);
            return Err(failed(error));
        }
        show(output, &path.display().to_string(), &names, &missing)
    }
}

fn show(output: &Output, path: &str, names: &[String], missing: &[Missing]) -> Result<(), Failure> {
    if output.format != Format::Table {
        output.value(&json!({ "file": path, "parts": names, "missing": missing }))?;
        return Ok(());
    }
    for Missing { part, reason } in missing.iter().take(TOLD) {
        output.warning(&format!("without {part}: {}", reason.replace('\n', " ")));
    }
    if missing.len() > TOLD {
        output.warning(&format!("... and without {} more, see index.json in the bundle", missing.len() - TOLD));
    }
    output.line(format!("{path}: {} parts, {} missing", names.len(), missing.len()))?;
    Ok(())
}

/// What the control plane on this machine and its proxies say.
async fn local(mut client: Client, named: &[String], most: usize) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut proxies = Vec::new();
    let status = client.status(StatusRequest {}).await.map_err(|error| Failure::from(error).to_string());
    let status = status.map(|response| {
        let status = response.into_inner();
        proxies.clone_from(&status.proxies);
        Content::Object(json!(view::Status::from(status)))
    });
    parts.push(("status.json".into(), status));
    let documents = client.get(GetRequest::default()).await.map_err(|error| Failure::from(error).to_string());
    let documents = documents.map(|found| Content::Object(json!(view::Documents::from(found.into_inner()))));
    parts.push(("documents.json".into(), documents));
    let log =
        "a control plane and proxies on this machine write their logs to standard error; add what you kept of them";
    parts.push(("logs".into(), Err(log.to_owned())));
    if named.is_empty() {
        // Those that have not taken what they were sent are the interesting ones.
        proxies.sort_by_key(|proxy: &ProxyStatus| proxy.nack.is_empty() && proxy.pending == 0);
        if proxies.len() > most {
            let reason = format!("{} more proxies are there; name some with --proxy", proxies.len() - most);
            parts.push(("proxies".into(), Err(reason)));
        }
        proxies.truncate(most);
    }
    let names: Vec<String> =
        if named.is_empty() { proxies.iter().map(|proxy| proxy.workload.clone()).collect() } else { named.to_vec() };
    for name in names {
        let dump = asking::configuration(&mut client, &name).await.map_err(|failure| failure.to_string());
        parts.push((format!("proxies/{name}/config_dump.json"), dump.map(Content::Object)));
        for (file, path) in [("metrics.txt", "/metrics"), ("ready.txt", "/ready")] {
            parts.push((format!("proxies/{name}/{file}"), page(&name, &proxies, path).await));
        }
    }
    parts
}

async fn page(workload: &str, proxies: &[ProxyStatus], path: &str) -> Result<Content, String> {
    let address = admin::admin_of(workload, proxies).map_err(|failure| failure.to_string())?;
    let page = admin::fetch(address, path, admin::PATIENCE).await?;
    Ok(match serde_json::from_slice::<Value>(&page) {
        Ok(value @ Value::Object(_)) => Content::Object(value),
        _ => Content::Text(String::from_utf8_lossy(&page).into_owned()),
    })
}
