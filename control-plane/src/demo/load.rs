//! `weft load`: a constant rate of requests over kept connections, and honest figures.
//!
//! The load is open: request `i` is due at `start + i / rate`, whether or not earlier ones were answered. Latency
//! counts from when a request was due, so that a server that stalls is charged for the requests that had to wait
//! behind the stall (no coordinated omission). What was due but could not be sent by the end is a failure. The timer's
//! step of a millisecond is part of the figures.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use weft_proxy::clock;

use self::tally::Tally;
use super::client::{Client, Target};
use super::fault::duration;

pub mod tally;

/// Outcomes on their way to the reporter; when full, connections wait, and their requests count as late.
const OUTCOMES: usize = 4096;
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// What was due before the end may leave this much after it: only a longer wait tells that the connections were busy.
const GRACE: Duration = Duration::from_millis(100);
/// Between two attempts of `--wait`.
const WAIT_STEP: Duration = Duration::from_millis(100);

/// `weft load URL`.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// What to GET
    pub url: Target,
    /// Requests per second, all connections together
    #[arg(long, default_value_t = 100.0, value_parser = rate)]
    pub rate: f64,
    /// Kept connections
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub connections: u16,
    /// End after this long, such as 30s
    #[arg(long = "for", value_parser = duration)]
    pub lasting: Option<Duration>,
    /// End after this many requests
    #[arg(long)]
    pub requests: Option<u64>,
    /// A request without an answer after this long has failed
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub timeout: Duration,
    /// Begin when the URL first answers with success, and give up after this long
    #[arg(long, value_parser = duration)]
    pub wait: Option<Duration>,
    /// Exit with 1 when a request failed
    #[arg(long)]
    pub fail_on_error: bool,
    /// Print only the summary
    #[arg(long)]
    pub quiet: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.01..=1_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("a rate is a number of requests per second from 0.01 to 1000000".to_owned()),
    }
}

/// Why there is no load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{authority} did not answer with success in {waited:?}: {last}")]
    NeverReady { authority: String, waited: Duration, last: String },
    #[error("cannot wait for SIGTERM: {0}")]
    Signal(std::io::Error),
    #[error("cannot write the figures: {0}")]
    Write(std::io::Error),
}

/// Figures of a second, or of the whole run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// `second` or `summary`.
    pub kind: &'static str,
    /// Seconds since the load began.
    pub at: f64,
    pub requests: u64,
    /// Answers of 400 and above, and requests without an answer.
    pub failures: u64,
    /// Requests per second.
    pub rate: f64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    /// What the last failure was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
}

/// Which requests are due when; shared by the connections, which take the next one in turn.
#[derive(Debug)]
struct Schedule {
    start: Instant,
    rate: f64,
    requests: Option<u64>,
    end: Option<Instant>,
    taken: AtomicU64,
}

impl Schedule {
    fn due(&self, index: u64) -> Instant {
        self.start + Duration::from_secs_f64(index as f64 / self.rate)
    }

    /// When the next request is due; none when the load is over.
    fn take(&self) -> Option<Instant> {
        let index = self.taken.fetch_add(1, Ordering::Relaxed);
        if self.requests.is_some_and(|requests| index >= requests) {
            return None;
        }
        let due = self.due(index);
        if self.end.is_some_and(|end| due >= end) { None } else { Some(due) }
    }

    /// How many requests were due before `at`.
    fn due_before(&self, at: Instant) -> u64 {
        let at = self.end.map_or(at, |end| at.min(end));
        let mut due = (at.saturating_duration_since(self.start).as_secs_f64() * self.rate).ceil() as u64;
        // The product may round past a request due at exactly `at`; `due` has the last word.
        while due > 0 && self.due(due - 1) >= at {
            due -= 1;
        }
        self.requests.map_or(due, |requests| due.min(requests))
    }
}

/// One request as it ended.
#[derive(Debug)]
struct Outcome {
    latency: Duration,
    failure: Option<String>,
}

/// Runs the load, prints its figures, and tells how to exit.
///
/// # Errors
/// When the load never began, or its figures cannot be written.
pub async fn run(arguments: Arguments) -> Result<ExitCode, LoadError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(LoadError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(LoadError::Signal)?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let summary = drive(&arguments, &mut std::io::stdout(), stop).await?;
    let failed = arguments.fail_on_error && (summary.failures > 0 || summary.requests == 0);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs the load until its end or `stop`, writing a line of JSON every second and one at the end.
///
/// # Errors
/// As [`run`].
pub async fn drive(
    arguments: &Arguments,
    output: &mut impl Write,
    stop: impl Future<Output = ()>,
) -> Result<Figures, LoadError> {
    let mut stop = std::pin::pin!(stop);
    if let Some(patience) = arguments.wait {
        tokio::select! {
            ready = until_ready(&arguments.url, patience, arguments.timeout) => ready?,
            () = &mut stop => {}
        }
    }
    let start = clock::now();
    let schedule = Arc::new(Schedule {
        start,
        rate: arguments.rate,
        requests: arguments.requests,
        end: arguments.lasting.map(|lasting| start + lasting),
        taken: AtomicU64::new(0),
    });
    let (report, outcomes) = mpsc::channel(OUTCOMES);
    let (stopping, stopped) = watch::channel(None);
    let mut workers = JoinSet::new();
    for _ in 0..arguments.connections {
        let client = Client::new(arguments.url.clone());
        workers.spawn(work(client, schedule.clone(), arguments.timeout, report.clone(), stopped.clone()));
    }
    drop(report);
    let summary = collect(arguments, &schedule, outcomes, &stopping, stop, output).await?;
    // They end by themselves once the schedule is over; none is left when all outcomes are in.
    while workers.join_next().await.is_some() {}
    Ok(summary)
}

async fn until_ready(url: &Target, patience: Duration, timeout: Duration) -> Result<(), LoadError> {
    let give_up = clock::now() + patience;
    loop {
        let last = match tokio::time::timeout(timeout.min(patience), Client::new(url.clone()).get()).await {
            Ok(Ok(answer)) if answer.status.is_success() => return Ok(()),
            Ok(Ok(answer)) => format!("the last answer was {}", answer.status),
            Ok(Err(problem)) => problem.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        if clock::now() >= give_up {
            return Err(LoadError::NeverReady { authority: url.authority().to_owned(), waited: patience, last });
        }
        tokio::time::sleep(WAIT_STEP).await;
    }
}

/// One connection: takes the next request, waits until it is due, sends it, reports.
async fn work(
    mut client: Client,
    schedule: Arc<Schedule>,
    timeout: Duration,
    report: mpsc::Sender<Outcome>,
    mut stopped: watch::Receiver<Option<Instant>>,
) {
    loop {
        let stop = *stopped.borrow();
        if stop.is_some_and(|stop| clock::now() > stop + GRACE) {
            return;
        }
        let Some(due) = schedule.take() else { return };
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(due.into()) => {}
            stop = stopped.wait_for(Option::is_some) => match stop.map(|stop| *stop) {
                Ok(Some(stop)) if due < stop => {}
                _ => return,
            },
        }
        let failure = match tokio::time::timeout(timeout, client.get()).await {
            Ok(Ok(answer)) if answer.status.as_u16() < 400 => None,
            Ok(Ok(answer)) => Some(format!("answered {}", answer.status)),
            Ok(Err(problem)) => Some(problem.to_string()),
            Err(_) => Some(format!("no answer in {timeout:?}")),
        };
        let outcome = Outcome { latency: clock::now().saturating_duration_since(due), failure };
        if report.send(outcome).await.is_err() {
            return;
        }
    }
}

/// Counts outcomes until every connection is done, and stops them at the end.
async fn collect(
    arguments: &Arguments,
    schedule: &Schedule,
    mut outcomes: mpsc::Receiver<Outcome>,
    stopping: &watch::Sender<Option<Instant>>,
    mut stop: std::pin::Pin<&mut impl Future<Output = ()>>,
    output: &mut impl Write,
) -> Result<Figures, LoadError> {
    let mut second = Count::default();
    let mut total = Count::default();
    let mut reported = schedule.start;
    let mut ended: Option<Instant> = None;
    let mut ticks = tokio::time::interval_at((schedule.start + REPORT_EVERY).into(), REPORT_EVERY);
    let end = async {
        match schedule.end {
            Some(end) => tokio::time::sleep_until(end.into()).await,
            None => std::future::pending().await,
        }
    };
    let mut end = std::pin::pin!(end);
    loop {
        tokio::select! {
            outcome = outcomes.recv() => match outcome {
                Some(outcome) => {
                    second.add(&outcome);
                    total.add(&outcome);
                }
                None => break,
            },
            _ = ticks.tick() => if !arguments.quiet {
                let now = clock::now();
                write_line(output, &second.figures("second", schedule.start, reported, now))?;
                second = Count::default();
                reported = now;
            },
            () = &mut stop, if ended.is_none() => {
                ended = Some(clock::now());
                stopping.send_replace(ended);
            }
            () = &mut end, if ended.is_none() => {
                ended = schedule.end;
                stopping.send_replace(ended);
            }
        }
    }
    let now = clock::now();
    if let Some(ended) = ended {
        // Due, but every connection was still waiting for earlier answers.
        let unsent = schedule.due_before(ended).saturating_sub(total.requests);
        total.add_unsent(unsent, now.saturating_duration_since(schedule.start));
    }
    let summary = total.figures("summary", schedule.start, schedule.start, now);
    write_line(output, &summary)?;
    Ok(summary)
}

fn write_line(output: &mut impl Write, figures: &Figures) -> Result<(), LoadError> {
    let line = serde_json::to_string(figures).expect("figures are numbers and text");
    writeln!(output, "{line}").and_then(|()| output.flush()).map_err(LoadError::Write)
}

#[derive(Debug, Default)]
struct Count {
    requests: u64,
    failures: u64,
    latency: Tally,
    last_failure: Option<String>,
}

impl Count {
    fn add(&mut self, outcome: &Outcome) {
        self.requests += 1;
        self.latency.add(outcome.latency, 1);
        if let Some(failure) = &outcome.failure {
            self.failures += 1;
            self.last_failure = Some(failure.clone());
        }
    }

    /// Requests that were due and never left. How long they would have taken is not known; they waited at most `ran`.
    fn add_unsent(&mut self, unsent: u64, ran: Duration) {
        if unsent > 0 {
            self.requests += unsent;
            self.failures += unsent;
            self.latency.add(ran, unsent);
            self.last_failure = Some(format!("{unsent} requests were due and no connection was free to send them"));
        }
    }

    fn figures(&self, kind: &'static str, start: Instant, from: Instant, to: Instant) -> Figures {
        let seconds = to.saturating_duration_since(from).as_secs_f64();
        let quantile = |q| round(self.latency.quantile(q).as_secs_f64() * 1000.0);
        Figures {
            kind,
            at: round(to.saturating_duration_since(start).as_secs_f64()),
            requests: self.requests,
            failures: self.failures,
            rate: if seconds > 0.0 { round(self.requests as f64 / seconds) } else { 0.0 },
            p50_ms: quantile(0.5),
            p95_ms: quantile(0.95),
            p99_ms: quantile(0.99),
            last_failure: self.last_failure.clone(),
        }
    }
}

/// Microseconds are as fine as the figures are good.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests;
