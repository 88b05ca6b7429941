//! `weft status`: the control plane and its proxies.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};
use weft_proto::weft::{ProxyStatus, StatusRequest, StatusResponse};

use super::output::{Cell, Format, Output, Style, age, timestamp};
use super::remote::Replica;
use super::target::{ClusterFlags, Target};
use super::{Context, Failure, upgrades};
use crate::document::Kind;
use crate::manage::notes;
use crate::version;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    cluster: ClusterFlags,
}

/// One control plane, and what it says. In a cluster there are several, and each proxy is connected to one.
struct Seen {
    place: String,
    status: StatusResponse,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        context.block_on(async {
            let (seen, mut problems, what) = match self.cluster.target(context).await? {
                Target::Local(mut client) => {
                    let response = client.status(StatusRequest {}).await?;
                    let problems = notes(response.metadata());
                    let place = context.data.display().to_string();
                    (vec![Seen { place, status: response.into_inner() }], problems, "not applied: ")
                }
                Target::Cluster(remote) => {
                    let replicas = remote.status().await?;
                    let of_one = |replica: &Replica| {
                        let Replica { pod, status } = replica;
                        status.problems.iter().map(|problem| format!("{pod}: {problem}")).collect::<Vec<_>>()
                    };
                    let problems = replicas.iter().flat_map(of_one).collect();
                    let of = |replica: Replica| Seen {
                        place: format!("{}/{} of {}", remote.system_namespace, replica.pod, remote.cluster.place()),
                        status: replica.status.into(),
                    };
                    (replicas.into_iter().map(of).collect(), problems, "")
                }
            };
            let apart = apart(&seen);
            match context.output.format {
                Format::Json | Format::Yaml => {
                    problems.extend(apart);
                    context.output.value(&value(&seen, &problems))?;
                }
                Format::Table => {
                    table(&context.output, &seen, weft_proxy::clock::unix_seconds())?;
                    for problem in problems {
                        context.output.warning(&format!("{what}{problem}"));
                    }
                    for problem in apart {
                        context.output.warning(&problem);
                    }
                }
            }
            Ok(())
        })
    }
}

/// The proxies of all, each with the revision of the control plane it is connected to.
fn all_proxies(seen: &[Seen]) -> Vec<(&ProxyStatus, u64)> {
    let of = |seen: &'_ Seen| seen.status.revision;
    let mut all: Vec<_> =
        seen.iter().flat_map(|seen| seen.status.proxies.iter().map(move |proxy| (proxy, of(seen)))).collect();
    all.sort_by(|(a, _), (b, _)| a.workload.cmp(&b.workload));
    all
}

/// Proxies that are not of a version that works with their control plane's.
fn apart(seen: &[Seen]) -> Vec<String> {
    let of_one = |Seen { status, .. }: &Seen| -> Vec<String> {
        let apart = |proxy: &ProxyStatus| {
            let why = version::apart(&proxy.version, &status.version)?;
            Some(format!("the proxy of {}: {why}", proxy.workload))
        };
        status.proxies.iter().filter_map(apart).collect()
    };
    seen.iter().flat_map(of_one).collect()
}

/// What ports were seen to speak, by whichever control plane was told.
fn all_detected(seen: &[Seen]) -> BTreeMap<&String, &String> {
    seen.iter().flat_map(|seen| &seen.status.detected).collect()
}

fn table(output: &Output, seen: &[Seen], now: i64) -> std::io::Result<()> {
    let Some(Seen { status, .. }) = seen.first() else { return Ok(()) };
    let proxies = all_proxies(seen);
    let count = |kind: Kind| format!("{kind} {}", status.documents.get(kind.as_str()).copied().unwrap_or(0));
    let current = proxies.iter().filter(|(proxy, revision)| state(proxy, *revision).1 == Style::Good).count();
    for Seen { place, status } in seen {
        let what = format!("{} at {place}, up {}", status.version, age(status.started_at, now));
        output.line(format!("{:<15}{what}", "control plane"))?;
    }
    let statuses: Vec<&StatusResponse> = seen.iter().map(|seen| &seen.status).collect();
    let revisions: Vec<String> = seen.iter().map(|seen| seen.status.revision.to_string()).collect();
    let facts = [
        ("trust domain", status.trust_domain.clone()),
        (
            "root expires",
            if status.root_expires_at == 0 { "unknown".into() } else { timestamp(status.root_expires_at) },
        ),
        ("revision", revisions.join(", ")),
        ("documents", Kind::ALL.map(count).join(", ")),
        ("proxies", format!("{} connected, {current} up to date", proxies.len())),
        ("programs", upgrades::summary(&statuses)),
    ];
    for (name, value) in facts {
        output.line(format!("{name:<15}{value}"))?;
    }
    for problem in upgrades::stops(&statuses) {
        output.warning(&problem);
    }
    show_proxies(output, &proxies, now)?;
    let detected = all_detected(seen);
    if detected.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let rows: Vec<Vec<Cell>> =
        detected.into_iter().map(|(port, protocol)| vec![port.clone().into(), protocol.clone().into()]).collect();
    output.table(&["UNDECLARED PORT", "SPEAKS"], &rows)
}

fn show_proxies(output: &Output, proxies: &[(&ProxyStatus, u64)], now: i64) -> std::io::Result<()> {
    if proxies.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let row = |(proxy, revision): &(&ProxyStatus, u64)| -> Vec<Cell> {
        let (state, style) = state(proxy, *revision);
        vec![
            proxy.workload.clone().into(),
            proxy.address.clone().into(),
            proxy.version.clone().into(),
            age(proxy.connected_since, now).into(),
            proxy.applied_revision.to_string().into(),
            Cell::styled(state, style),
            upgrades::cell(&proxy.program),
        ]
    };
    let rows: Vec<Vec<Cell>> = proxies.iter().map(row).collect();
    output.table(&["WORKLOAD", "FROM", "VERSION", "CONNECTED", "REVISION", "STATE", "PROGRAM"], &rows)
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

/// For programs: one control plane's word, or several put together, with each of them in `replicas`.
fn value(seen: &[Seen], problems: &[String]) -> Value {
    let proxy = |(proxy, _): (&ProxyStatus, u64)| {
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
            "digest": proxy.digest,
            "program": proxy.program,
        })
    };
    let Some(Seen { status, .. }) = seen.first() else { return Value::Null };
    let mut value = json!({
        "version": status.version,
        "trustDomain": status.trust_domain,
        "rootExpiresAt": timestamp(status.root_expires_at),
        "startedAt": timestamp(status.started_at),
        "revision": status.revision,
        "documents": sorted(&status.documents),
        "detected": all_detected(seen),
        "problems": problems,
        "proxies": all_proxies(seen).into_iter().map(proxy).collect::<Vec<_>>(),
        "proxyUpgrade": status.proxy_upgrade,
        "programs": upgrades::value(status),
    });
    if seen.len() > 1 {
        let replica = |Seen { place, status }: &Seen| {
            json!({
                "place": place,
                "version": status.version,
                "startedAt": timestamp(status.started_at),
                "revision": status.revision,
                "proxies": status.proxies.len(),
                "programs": upgrades::value(status),
            })
        };
        value["replicas"] = seen.iter().map(replica).collect();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(revision: u64, proxies: &[(&str, u64)]) -> Seen {
        let proxies = proxies.iter().map(|(workload, applied)| ProxyStatus {
            workload: (*workload).into(),
            applied_revision: *applied,
            ..ProxyStatus::default()
        });
        Seen {
            place: "p".into(),
            status: StatusResponse { revision, proxies: proxies.collect(), ..StatusResponse::default() },
        }
    }

    #[test]
    fn a_proxy_of_a_version_that_is_not_served_is_told() {
        let mut seen = seen(1, &[("shop/a", 1), ("shop/b", 1)]);
        seen.status.version = "0.2.0".into();
        for (proxy, version) in seen.status.proxies.iter_mut().zip(["0.1.0", "0.3.0"]) {
            proxy.version = version.into();
        }
        let expected = "the proxy of shop/b: 0.3.0 is newer than the control plane, 0.2.0: update that first";
        assert_eq!(apart(&[seen]), [expected]);
    }

    #[test]
    fn a_proxy_is_measured_by_the_replica_it_is_connected_to() {
        let both = [seen(9, &[("shop/b", 9)]), seen(4, &[("shop/a", 4), ("shop/c", 3)])];
        let states: Vec<(String, String)> = all_proxies(&both)
            .into_iter()
            .map(|(proxy, revision)| (proxy.workload.clone(), state(proxy, revision).0))
            .collect();
        let expected = [("shop/a", "up to date"), ("shop/b", "up to date"), ("shop/c", "behind")];
        assert_eq!(states, expected.map(|(workload, state)| (workload.to_owned(), state.to_owned())));
        assert_eq!(value(&both, &[])["replicas"].as_array().map(Vec::len), Some(2));
        assert!(value(&both[..1], &[]).get("replicas").is_none(), "one alone is told as ever");
    }
}
