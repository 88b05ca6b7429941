//! `weft proxy config`: what one proxy runs with.
//!
//! The proxy says it itself, with its counts, through the control plane it is connected to. In a cluster the control plane adds
//! what of it the proxy acknowledged or refused; of a proxy that cannot be asked it tells what it sent, and says so.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{asking, tables, workload_of};
use crate::cli::output::{Format, age};
use crate::cli::remote::Told;
use crate::cli::target::{ClusterFlags, Target};
use crate::cli::{Context, Failure};
use crate::document::DEFAULT_NAMESPACE;
use crate::manage::view;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The proxy tells it itself, through the control plane. Of one that cannot be asked in a cluster the control plane tells what it sent, and what of it the proxy acknowledged or refused."
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
        let workload = workload_of(&self.namespace, self.workload)?;
        context.block_on(async {
            let (facts, shown) = match self.cluster.target(context).await? {
                Target::Local(mut client) => {
                    let dump = asking::configuration(&mut client, &workload).await?;
                    (proxy_facts(&workload, &dump), dump)
                }
                Target::Cluster(remote) => {
                    let told = remote.configuration(&workload).await?;
                    let now = weft_proxy::clock::unix_seconds();
                    (facts_of_both(&told, now), by_both(told))
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

fn facts_of_both(told: &Told, now: i64) -> Vec<(&'static str, String)> {
    let Told { replica, sent, own } = told;
    let mut facts = Vec::new();
    match &sent.proxy {
        Some(proxy) => {
            let since = age(proxy.connected_since, now);
            facts.push(("proxy", format!("{}, version {}, connected for {since}", sent.workload, proxy.version)));
            facts.push(("identity", proxy.spiffe_id.clone()));
            let pending =
                if proxy.pending > 0 { format!(", {} resources pending", proxy.pending) } else { String::new() };
            facts.push(("revision", format!("{} acknowledged of {}{pending}", proxy.applied_revision, sent.revision)));
        }
        None => facts.push(("proxy", format!("{}, not connected: this is what it would be sent", sent.workload))),
    }
    if let Some(asked) = &sent.asked {
        let count = |of: &BTreeMap<String, u64>| of.get("Destination").copied().unwrap_or_default();
        let (asked, known) = (count(asked), count(&sent.resources));
        facts.push(("destinations", format!("those it uses: {asked} names asked for, {known} of them of the mesh")));
    }
    for refused in &sent.refused {
        let names = if refused.names.is_empty() { "something".to_owned() } else { refused.names.join(", ") };
        let more = if refused.more { " and more" } else { "" };
        facts.push(("refused", format!("{} {names}{more}: {}", refused.kind, refused.message.replace('\n', " "))));
    }
    facts.extend(sent.unreadable.iter().map(|error| ("unreadable", error.clone())));
    match own {
        Ok(_) => facts.push(("told by", format!("the proxy itself, through the control plane {replica}"))),
        Err(reason) => {
            let by = format!("the control plane {replica}: as sent, without the proxy's own counts");
            facts.extend([("told by", by), ("not asked", reason.replace('\n', " "))]);
        }
    }
    facts
}

/// For programs: the proxy's own dump, or the same fields as far as the control plane knows them, beside what it alone knows.
fn by_both(told: Told) -> Value {
    let Told { replica, sent, own } = told;
    let view::Configuration { workload, revision, proxy, refused, resources, asked, unreadable, config } = sent;
    let mut shown = json!({
        "source": if own.is_ok() { "proxy" } else { "control-plane" },
        "notAsked": own.as_ref().err(),
        "replica": replica, "workload": workload, "revision": revision, "proxy": proxy,
        "refused": refused, "resources": resources, "asked": asked, "unreadable": unreadable,
    });
    let parts = own.unwrap_or(config);
    for (name, value) in parts.as_object().into_iter().flatten() {
        // What both know under one name, the control plane knows of all replicas' view.
        if shown.get(name).is_none() {
            shown[name] = value.clone();
        }
    }
    shown
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn told(own: Result<Value, String>) -> Told {
        let sent = view::Configuration {
            workload: "shop/web-1".to_owned(),
            revision: 7,
            proxy: None,
            refused: Vec::new(),
            resources: BTreeMap::new(),
            asked: None,
            unreadable: Vec::new(),
            config: json!({"listeners": ["sent"], "clusters": [], "peers": []}),
        };
        Told { replica: "a".to_owned(), sent, own }
    }

    #[test]
    fn who_tells_a_configuration_is_said_for_people_and_programs() {
        let own = json!({"version": "0.1.0", "listeners": ["own"], "clusters": [], "workload": "forged"});
        let both = by_both(told(Ok(own.clone())));
        assert_eq!(
            (&both["source"], &both["listeners"], &both["version"]),
            (&json!("proxy"), &json!(["own"]), &json!("0.1.0"))
        );
        assert_eq!((&both["workload"], &both["notAsked"]), (&json!("shop/web-1"), &Value::Null));
        let sent = by_both(told(Err("of an earlier version".to_owned())));
        assert_eq!((&sent["source"], &sent["listeners"]), (&json!("control-plane"), &json!(["sent"])));
        assert_eq!(sent["notAsked"], "of an earlier version");
        let said = |own| facts_of_both(&told(own), 0).into_iter().map(|(_, fact)| fact).collect::<Vec<_>>().join("; ");
        assert!(said(Ok(own)).ends_with("the proxy itself, through the control plane a"));
        assert!(said(Err("of an\nearlier version".to_owned())).ends_with("own counts; of an earlier version"));
    }
}
