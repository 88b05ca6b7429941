//! `weft proxy config`: what one proxy runs with.
//!
//! On this machine the proxy says it itself. In a cluster its admin endpoint listens inside its pod alone, and the control plane says
//! what it sent and what of it the proxy acknowledged or refused.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weft_proto::weft::StatusRequest;

use super::admin::{PATIENCE, admin_of, fetch};
use super::tables;
use crate::cli::output::{Format, age};
use crate::cli::target::{ClusterFlags, Target};
use crate::cli::{Context, Failure};
use crate::document::DEFAULT_NAMESPACE;
use crate::manage::view;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "In a cluster the control plane tells what it sent to the proxy, and what of it the proxy acknowledged or refused."
)]
pub(super) struct Config {
    /// The proxy's workload, in a cluster its pod: NAME, or NAMESPACE/NAME.
    workload: String,
    /// Only this part, in a table.
    #[arg(value_enum)]
    part: Option<tables::Part>,
    /// Namespace of the workload.
    #[arg(short, long, value_name = "NAMESPACE", default_value = DEFAULT_NAMESPACE)]
    namespace: String,
    #[command(flatten)]
    cluster: ClusterFlags,
}

impl Config {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let workload = match self.workload.split_once('/') {
            None => format!("{}/{}", self.namespace, self.workload),
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                self.workload
            }
            Some(_) => return Err(Failure::usage("a workload is NAME or NAMESPACE/NAME; name a pod without its kind")),
        };
        context.block_on(async {
            let (facts, shown) = match self.cluster.target(context).await? {
                Target::Local(mut client) => {
                    let status = client.status(StatusRequest {}).await?.into_inner();
                    let dump = by_the_proxy(&workload, admin_of(&workload, &status.proxies)?).await?;
                    (proxy_facts(&workload, &dump), dump)
                }
                Target::Cluster(remote) => {
                    let (replica, found) = remote.configuration(&workload).await?;
                    let now = weft_proxy::clock::unix_seconds();
                    (control_plane_facts(&found, &replica, now), by_the_control_plane(found, &replica))
                }
            };
            if context.output.format != Format::Table {
                context.output.value(&shown)?;
                return Ok(());
            }
            if self.part.is_none() {
                for (name, value) in facts {
                    context.output.line(format!("{name:<15}{value}"))?;
                }
            }
            tables::show(&context.output, &shown, self.part)?;
            Ok(())
        })
    }
}

async fn by_the_proxy(workload: &str, admin: &str) -> Result<Value, Failure> {
    let dump = fetch(admin, "/config_dump", PATIENCE).await.map_err(|error| {
        Failure::new(format!(
            "cannot ask the proxy of {workload} at {admin}: {error}; run this where that address can be reached"
        ))
    })?;
    serde_json::from_slice(&dump).map_err(|error| {
        Failure::new(format!("the proxy of {workload} sent what is not JSON ({error}); update it, or this program"))
    })
}

fn proxy_facts(workload: &str, dump: &Value) -> Vec<(&'static str, String)> {
    let text = |pointer: &str| dump.pointer(pointer).map(shown).unwrap_or_default();
    let identity = match dump["certificate"]["expires_in_seconds"].as_i64() {
        Some(left) => format!("{}, expires in {}", text("/certificate/identity"), age(0, left)),
        None => "none yet".to_owned(),
    };
    vec![
        ("proxy", format!("{workload}, version {}", text("/version"))),
        ("identity", identity),
        ("told by", "the proxy itself".into()),
    ]
}

fn control_plane_facts(found: &view::Configuration, replica: &str, now: i64) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    match &found.proxy {
        Some(proxy) => {
            let since = age(proxy.connected_since, now);
            facts.push(("proxy", format!("{}, version {}, connected for {since}", found.workload, proxy.version)));
            facts.push(("identity", proxy.spiffe_id.clone()));
            let pending =
                if proxy.pending > 0 { format!(", {} resources pending", proxy.pending) } else { String::new() };
            facts.push(("revision", format!("{} acknowledged of {}{pending}", proxy.applied_revision, found.revision)));
        }
        None => facts.push(("proxy", format!("{}, not connected: this is what it would be sent", found.workload))),
    }
    if let Some(asked) = &found.asked {
        let count = |of: &BTreeMap<String, u64>| of.get("Destination").copied().unwrap_or_default();
        let (asked, known) = (count(asked), count(&found.resources));
        facts.push(("destinations", format!("those it uses: {asked} names asked for, {known} of them of the mesh")));
    }
    for refused in &found.refused {
        let names = if refused.names.is_empty() { "something".to_owned() } else { refused.names.join(", ") };
        let more = if refused.more { " and more" } else { "" };
        facts.push(("refused", format!("{} {names}{more}: {}", refused.kind, refused.message.replace('\n', " "))));
    }
    facts.extend(found.unreadable.iter().map(|error| ("unreadable", error.clone())));
    facts.push(("told by", format!("the control plane {replica}: as sent, without the proxy's own counts")));
    facts
}

/// For programs: the same fields as a proxy's own dump, beside what the control plane knows.
fn by_the_control_plane(found: view::Configuration, replica: &str) -> Value {
    let view::Configuration { workload, revision, proxy, refused, resources, asked, unreadable, config } = found;
    json!({
        "source": "control-plane", "replica": replica, "workload": workload, "revision": revision, "proxy": proxy,
        "refused": refused, "resources": resources, "asked": asked, "unreadable": unreadable,
        "listeners": config["listeners"], "clusters": config["clusters"], "peers": config["peers"],
    })
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
