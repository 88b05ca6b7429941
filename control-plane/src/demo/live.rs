//! The loop of the demo's display: scrape every proxy, compute, show; until told to stop.
//!
//! On a terminal the table is redrawn in place; elsewhere lines follow each other, as text or as JSON. A proxy that
//! gives no metrics keeps its last figures until it does again, so that its counts are neither lost nor doubled.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::MissedTickBehavior;
use weft_proxy::clock;

use super::edges::{Edge, Replica, Snapshot, edges, replicas, shares};
use super::events::{Event, Observer};
use super::scrape::scrape;
use super::summary::Summary;
use super::table::{cut, lines, render, render_replicas};

/// Events below the table.
const EVENTS: usize = 6;
/// What a terminal that does not tell its size is taken for.
const USUAL_SIZE: (usize, usize) = (100, 40);

/// A proxy to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// The workload beside it, `NAMESPACE/NAME` or, in the default namespace, `NAME`.
    pub name: String,
    /// Its admin socket.
    pub socket: PathBuf,
}

/// How the figures are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A table redrawn in place.
    Screen,
    /// A line for each edge and event.
    Lines,
    /// One JSON object an interval.
    Json,
}

/// How and how often the figures are shown.
#[derive(Debug, Clone, Copy)]
pub struct Display {
    pub form: Form,
    pub colour: bool,
    pub interval: Duration,
}

impl Display {
    /// What suits standard output: a table every second on a terminal, lines every two seconds elsewhere.
    pub fn of_stdout(json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        // https://no-color.org: set and not empty.
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let form = match (json, terminal) {
            (true, _) => Form::Json,
            (false, true) => Form::Screen,
            (false, false) => Form::Lines,
        };
        let interval = Duration::from_secs(if form == Form::Screen { 1 } else { 2 });
        Self { form, colour: terminal && !no_colour, interval }
    }
}

/// Shows what the proxies measure until `stop`, and returns the sum. `proxies` is asked before every look, since
/// workloads come and go. A reader who closed the output ends the display like `stop`.
///
/// # Errors
/// When the output cannot be written.
pub async fn follow(
    proxies: impl Fn() -> Vec<Proxy>,
    display: &Display,
    output: &mut impl Write,
    stop: impl Future<Output = ()>,
) -> io::Result<Summary> {
    let mut stop = std::pin::pin!(stop);
    let mut ticks = tokio::time::interval(display.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once; what was counted before is not this run's.
    ticks.tick().await;
    let started = clock::now();
    let mut at = started;
    let (mut last, _) = look(&proxies(), &Snapshot::new()).await;
    let mut observer = Observer::default();
    let mut summary = Summary::default();
    let mut picture = Picture::default();
    // Once used, an edge stays on screen.
    let mut used = BTreeSet::new();
    loop {
        let ending = tokio::select! {
            () = &mut stop => true,
            _ = ticks.tick() => false,
        };
        let now = clock::now();
        let (current, silent) = look(&proxies(), &last).await;
        let elapsed = now.saturating_duration_since(at);
        let mut edges = edges(&last, &current, elapsed);
        used.extend(edges.iter().filter(|edge| edge.is_used()).map(ends));
        edges.retain(|edge| used.contains(&ends(edge)));
        let replicas = replicas(&last, &current, elapsed, &edges);
        // At the end proxies stop: their silence is no event.
        let events = if ending { Vec::new() } else { observer.observe(&edges, &replicas, &silent) };
        summary.add(elapsed, &edges, &replicas, &events);
        if ending {
            return Ok(summary);
        }
        (last, at) = (current, now);
        let interval = Interval { at: now.saturating_duration_since(started), edges, replicas, events };
        match picture.show(&interval, display, output) {
            Err(closed) if closed.kind() == io::ErrorKind::BrokenPipe => return Ok(summary),
            shown => shown?,
        }
    }
}

fn ends(edge: &Edge) -> (String, String) {
    (edge.source.clone(), edge.destination.clone())
}

/// Scrapes all proxies at once; also tells the silent ones, which keep their last figures.
async fn look(proxies: &[Proxy], last: &Snapshot) -> (Snapshot, BTreeSet<String>) {
    let scrapes = join_all(proxies.iter().map(|proxy| scrape(&proxy.socket))).await;
    let mut snapshot = Snapshot::new();
    let mut silent = BTreeSet::new();
    for (proxy, scrape) in proxies.iter().zip(scrapes) {
        match scrape {
            Ok(scrape) => {
                snapshot.insert(proxy.name.clone(), scrape);
            }
            Err(problem) => {
                tracing::debug!(%problem, proxy = proxy.name, "no metrics");
                // One never heard is still starting.
                if let Some(scrape) = last.get(&proxy.name) {
                    silent.insert(proxy.name.clone());
                    snapshot.insert(proxy.name.clone(), scrape.clone());
                }
            }
        }
    }
    (snapshot, silent)
}

/// The figures of one interval.
#[derive(Debug)]
struct Interval {
    /// Since the display began.
    at: Duration,
    edges: Vec<Edge>,
    replicas: Vec<Replica>,
    events: Vec<Event>,
}

/// What is on screen.
#[derive(Debug, Default)]
struct Picture {
    /// Lines drawn, to be drawn over.
    drawn: usize,
    events: VecDeque<String>,
}

impl Picture {
    fn show(&mut self, interval: &Interval, display: &Display, output: &mut impl Write) -> io::Result<()> {
        match display.form {
            Form::Screen => {
                let (width, height) = screen_size();
                self.draw(interval, width, height, display.colour, output)?;
            }
            Form::Lines => {
                let at = interval.at.as_secs();
                for line in lines(&interval.edges, &interval.replicas) {
                    writeln!(output, "+{at}s  {line}")?;
                }
                for event in &interval.events {
                    writeln!(output, "+{at}s  {event}")?;
                }
            }
            Form::Json => {
                let shares = shares(&interval.replicas);
                let replicas = interval.replicas.iter().zip(shares).map(|(replica, share)| replica.to_json(share));
                let line = json!({
                    "at": interval.at.as_secs_f64(),
                    "edges": interval.edges.iter().map(Edge::to_json).collect::<Vec<_>>(),
                    "replicas": replicas.collect::<Vec<_>>(),
                    "events": interval.events.iter().map(ToString::to_string).collect::<Vec<_>>(),
                });
                writeln!(output, "{line}")?;
            }
        }
        output.flush()
    }

    fn draw(
        &mut self,
        interval: &Interval,
        width: usize,
        height: usize,
        colour: bool,
        output: &mut impl Write,
    ) -> io::Result<()> {
        for event in &interval.events {
            if self.events.len() == EVENTS {
                self.events.pop_front();
            }
            self.events.push_back(format!("+{}s  {event}", interval.at.as_secs()));
        }
        let mut text = render(&interval.edges, width, colour);
        let replicas = render_replicas(&interval.replicas, width, colour);
        for part in [replicas, self.events.iter().map(|event| cut(event, width) + "\n").collect()] {
            if !part.is_empty() {
                text.push('\n');
                text.push_str(&part);
            }
        }
        // A picture taller than the screen would scroll, and could no longer be drawn over.
        let shown: Vec<&str> = text.lines().take(height.saturating_sub(1)).collect();
        if self.drawn > 0 {
            write!(output, "\x1b[{}A", self.drawn)?;
        }
        write!(output, "\r\x1b[J")?;
        for line in &shown {
            writeln!(output, "{line}")?;
        }
        self.drawn = shown.len();
        Ok(())
    }
}

fn screen_size() -> (usize, usize) {
    terminal_size::terminal_size()
        .map(|(width, height)| (usize::from(width.0), usize::from(height.0)))
        .filter(|(width, height)| *width > 0 && *height > 0)
        .unwrap_or(USUAL_SIZE)
}

#[cfg(test)]
mod tests;
