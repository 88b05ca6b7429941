//! `weft top`: who is called how much, how well and how fast, as the proxies measure it.
//!
//! Outside Kubernetes the proxies of the control plane on this machine are asked at their admin endpoints, in a cluster those
//! beside pods through the API server, so many at once. A proxy that does not answer is named, and what it counts is missing.

mod figures;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde_json::json;
use weft_proto::weft::{ProxyStatus, StatusRequest};
use weft_proxy::clock;

use self::figures::{Order, Row, Sample, Samples, View, rows};
use super::output::{Cell, Format, Output, Style};
use super::pods::{MeshedPod, meshed};
use super::proxy::admin;
use super::target::{ClusterFlags, Remote, Target};
use super::{Client, Context, Failure};
use crate::demo::scrape::parse;

/// Proxies that are asked at once.
const AT_ONCE: usize = 32;
/// For one proxy on this machine.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a cluster is asked which pods there are: that costs it more than their figures.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Proxies that are named when they do not answer.
const NAMED: usize = 5;
/// Rows on a terminal that does not tell its size.
const USUAL_HEIGHT: usize = 40;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every request counts once: callers with a proxy count what they send, calls of others are counted where they arrive.
With --namespace only that namespace's proxies are asked. In a cluster you need to list pods and to get pods/proxy.
Exit codes: 0 done, even if some proxies did not answer (they are named); 1 none did, or failed; 2 wrong usage.")]
pub(super) struct Args {
    /// What a row is.
    #[arg(value_enum, default_value_t = View::Services)]
    view: View,
    /// Only this namespace; without it, all of them.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Show one interval and end, as is done wherever standard output is no terminal, and for JSON and YAML.
    #[arg(long)]
    once: bool,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=300))]
    interval: u64,
    #[arg(long, value_enum, value_name = "COLUMN", default_value_t = Order::Rate)]
    /// Column the rows are sorted by.
    sort: Order,
    #[command(flatten)]
    cluster: ClusterFlags,
}

/// Whom to ask.
enum Source {
    Local(Client),
    Cluster(Remote),
}

/// Proxies, by workload, and where each is asked.
enum Asked {
    Local(Vec<ProxyStatus>),
    Cluster(Vec<MeshedPod>),
}

/// What came of one look.
struct Look {
    samples: Samples,
    /// Workloads whose proxy did not answer, and why.
    silent: BTreeMap<String, String>,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        context.block_on(async {
            let mut source = match self.cluster.target(context).await? {
                Target::Local(client) => Source::Local(client),
                Target::Cluster(remote) => Source::Cluster(remote),
            };
            self.follow(&context.output, &mut source).await
        })
    }

    async fn follow(&self, output: &Output, source: &mut Source) -> Result<(), Failure> {
        let is_once = self.once || output.format != Format::Table || !std::io::stdout().is_terminal();
        let mut asked = source.proxies(self.namespace.as_deref()).await?;
        let mut listed = clock::now();
        let mut before = source.look(&asked).await;
        before.must_have_some(&asked)?;
        let mut ticks = tokio::time::interval(Duration::from_secs(self.interval));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first is at once.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            if matches!(source, Source::Local(_)) || listed.elapsed() >= LOOK_AGAIN {
                // What was there is asked on while nobody says what is.
                if let Ok(found) = source.proxies(self.namespace.as_deref()).await {
                    asked = found;
                }
                listed = clock::now();
            }
            let after = source.look(&asked).await;
            after.must_have_some(&asked)?;
            let rows = rows(&before.samples, &after.samples, self.view, self.sort, self.namespace.as_deref());
            if is_once {
                return self.show(output, &rows, &after);
            }
            self.draw(output, &rows, &after)?;
            before = after;
        }
    }

    fn show(&self, output: &Output, rows: &[Row], look: &Look) -> Result<(), Failure> {
        if output.format != Format::Table {
            let rows: Vec<_> = rows.iter().map(|row| row.to_json(self.view)).collect();
            output.value(&json!({
                "intervalSeconds": self.interval, "proxies": look.samples.len(), "rows": rows, "silent": look.silent,
            }))?;
            return Ok(());
        }
        let (headings, cells) = table(self.view, rows);
        output.table(&headings, &cells)?;
        if rows.is_empty() {
            output.note(&format!("nothing was called within {} s", self.interval));
        }
        if let Some(silence) = look.silence() {
            output.warning(&silence);
        }
        Ok(())
    }

    /// A picture over the last one.
    fn draw(&self, output: &Output, rows: &[Row], look: &Look) -> Result<(), Failure> {
        let height = terminal_size::terminal_size().map_or(USUAL_HEIGHT, |(_, height)| usize::from(height.0));
        let (headings, cells) = table(self.view, rows);
        let mut lines = vec![format!(
            "{} proxies, {} {}, every {} s",
            look.samples.len(),
            rows.len(),
            match self.view {
                View::Services => "services",
                View::Workloads => "workloads",
                View::Edges => "edges",
            },
            self.interval
        )];
        lines.extend(look.silence());
        lines.push(String::new());
        lines.extend(output.table_text(&headings, &cells).lines().map(str::to_owned));
        lines.truncate(height.saturating_sub(1).max(4));
        // From the top, without wrapping: a picture taller than the screen could not be drawn over.
        let mut picture = "\x1b[H\x1b[?7l".to_owned();
        for line in lines {
            picture.push_str(&line);
            picture.push_str("\x1b[K\n");
        }
        picture.push_str("\x1b[J\x1b[?7h");
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(picture.as_bytes())?;
        stdout.flush()?;
        Ok(())
    }
}

impl Source {
    async fn proxies(&mut self, namespace: Option<&str>) -> Result<Asked, Failure> {
        Ok(match self {
            Self::Local(client) => {
                let mut proxies = client.status(StatusRequest {}).await?.into_inner().proxies;
                proxies.retain(|proxy| namespace.is_none_or(|namespace| proxy.namespace == namespace));
                Asked::Local(proxies)
            }
            Self::Cluster(remote) => Asked::Cluster(meshed(&remote.cluster, namespace).await?),
        })
    }

    async fn look(&self, asked: &Asked) -> Look {
        let pages: Vec<(String, Result<String, String>)> = match (self, asked) {
            (Self::Cluster(remote), Asked::Cluster(pods)) => {
                let page = async |pod: &MeshedPod| {
                    let page = pod.metrics(&remote.cluster).await;
                    (pod.workload(), page.map_err(|error| error.message()))
                };
                stream::iter(pods).map(page).buffer_unordered(AT_ONCE).collect().await
            }
            (_, Asked::Local(proxies)) => {
                let page = async |proxy: &ProxyStatus| (proxy.workload.clone(), local_page(proxy).await);
                stream::iter(proxies).map(page).buffer_unordered(AT_ONCE).collect().await
            }
            // A source asks its own proxies.
            (Self::Local(_), Asked::Cluster(_)) => Vec::new(),
        };
        let mut look = Look { samples: Samples::new(), silent: BTreeMap::new() };
        for (workload, page) in pages {
            match page.and_then(|page| parse(&page).map_err(|error| error.to_string())) {
                Ok(scrape) => {
                    look.samples.insert(workload, Sample { at: clock::now(), scrape });
                }
                Err(reason) => {
                    look.silent.insert(workload, reason);
                }
            }
        }
        look
    }
}

async fn local_page(proxy: &ProxyStatus) -> Result<String, String> {
    let address = admin::admin_of(&proxy.workload, std::slice::from_ref(proxy)).map_err(|error| error.to_string())?;
    let page = admin::fetch(address, "/metrics", PATIENCE).await?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

impl Asked {
    fn len(&self) -> usize {
        match self {
            Self::Local(proxies) => proxies.len(),
            Self::Cluster(pods) => pods.len(),
        }
    }
}

impl Look {
    fn must_have_some(&self, asked: &Asked) -> Result<(), Failure> {
        match self.silent.first_key_value() {
            Some((workload, reason)) if self.samples.is_empty() => {
                let remedy = match asked {
                    Asked::Local(_) => "run this where their admin endpoints can be reached",
                    Asked::Cluster(_) => "you need the permission to get pods/proxy in their namespaces",
                };
                Err(Failure::new(format!(
                    "none of {} proxies gave its metrics; {workload}: {reason}; {remedy}",
                    asked.len()
                )))
            }
            None if asked.len() == 0 => {
                Err(Failure::new("there is no running proxy to ask; see which workloads have one with `weft status`"))
            }
            _ => Ok(()),
        }
    }

    /// Who did not answer, in one line.
    fn silence(&self) -> Option<String> {
        let (_, reason) = self.silent.first_key_value()?;
        let names: Vec<&str> = self.silent.keys().take(NAMED).map(String::as_str).collect();
        let more = self.silent.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Some(format!("not counted, as their proxies did not answer: {}{more} ({reason})", names.join(", ")))
    }
}

fn table(view: View, rows: &[Row]) -> (Vec<&'static str>, Vec<Vec<Cell>>) {
    let name = match view {
        View::Services => "SERVICE",
        View::Workloads => "WORKLOAD",
        View::Edges => "EDGE",
    };
    let mut headings = vec![name, "REQUESTS/S", "SUCCESS", "P50", "P99", "CONNECTIONS", "BYTES/S"];
    if view == View::Workloads {
        headings.push("SENT/S");
    }
    let cells = rows.iter().map(|row| {
        let mut cells: Vec<Cell> = vec![
            row.name.clone().into(),
            number(row.rate).into(),
            success(row.success()),
            latency(row.latency.millis(0.5)).into(),
            latency(row.latency.millis(0.99)).into(),
            format!("{:.0}", row.connections).into(),
            bytes(row.bytes).into(),
        ];
        if view == View::Workloads {
            cells.push(number(row.sent).into());
        }
        cells
    });
    (headings, cells.collect())
}

fn success(success: Option<f64>) -> Cell {
    let Some(success) = success else { return "-".into() };
    let style = match success {
        0.999.. => Style::Good,
        0.95.. => Style::Warning,
        _ => Style::Bad,
    };
    // Never 100 % that are none.
    let percent = if success < 1.0 { (success * 100.0).min(99.99) } else { 100.0 };
    Cell::styled(format!("{percent:.2}%"), style)
}

fn number(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

fn latency(millis: Option<f64>) -> String {
    match millis {
        None => "-".into(),
        Some(millis) if millis >= 1000.0 => format!("{:.2}s", millis / 1000.0),
        Some(millis) => format!("{millis:.1}ms"),
    }
}

fn bytes(value: f64) -> String {
    let mut value = value;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{value:.0}{unit}") } else { format!("{value:.1}{unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1}GiB")
}

#[cfg(test)]
mod tests;
