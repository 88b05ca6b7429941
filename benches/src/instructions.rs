//! User instructions, counted by running this program under callgrind.
//!
//! Each figure is the difference of two runs that differ only in how often they repeat, so that starting up, warming up
//! and ending cancel out.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::drive::Chain;
use crate::mesh::Kind;
use crate::streams::STREAMS;
use crate::traffic::Shape;

/// Repetitions of the shorter run; the longer makes three times as many.
const REPEATED: u64 = 800;
/// The same for handshakes, which are long.
const HANDSHAKES: u64 = 50;
/// Enough that one wake-up serves several requests, as under load.
const CONNECTIONS: u64 = 16;
/// The workers' threads are the first that a run starts; callgrind counts from 1, the main thread.
const FIRST_WORKER: usize = 2;

/// Instructions of one step, by its place in [`crate::steps::STEPS`].
pub fn of_step(index: usize) -> Result<f64> {
    difference(|times| {
        let threads = callgrind(&["repeat", &index.to_string(), &times.to_string()])?;
        threads.first().copied().context("the main thread was not counted")
    })
}

/// Instructions of both sides of a handshake.
pub fn of_handshake(kind: Kind) -> Result<f64> {
    let kind = kind.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let run = |times: u64| {
        let threads = callgrind(&["meet", &kind, &times.to_string()])?;
        threads.first().copied().context("the main thread was not counted")
    };
    let (few, many) = (run(HANDSHAKES)?, run(3 * HANDSHAKES)?);
    Ok(many.saturating_sub(few) as f64 / (2 * HANDSHAKES) as f64)
}

/// Instructions of a request in each worker of a chain, the client's first.
pub fn of_request(chain: Chain, shape: Shape) -> Result<Vec<f64>> {
    let workers = if chain == Chain::Pair { 2 } else { 1 };
    let per_connection = if shape.has_streams() { u64::from(STREAMS) } else { 1 };
    let argument =
        |value: Option<clap::builder::PossibleValue>| value.map(|v| v.get_name().to_owned()).unwrap_or_default();
    let (chain, shape) = (argument(chain.to_possible_value()), argument(shape.to_possible_value()));
    let run = |times: u64| {
        let rounds = times / CONNECTIONS / per_connection;
        let (connections, rounds) = (CONNECTIONS.to_string(), rounds.to_string());
        callgrind(&["drive", &chain, &shape, "--connections", &connections, "--rounds", &rounds])
    };
    let (few, many) = (run(REPEATED)?, run(3 * REPEATED)?);
    // The workload's worker is started first: the client's needs its address.
    (0..workers)
        .rev()
        .map(|worker| {
            let of =
                |threads: &[u64]| threads.get(FIRST_WORKER - 1 + worker).copied().context("a worker was not counted");
            Ok(of(&many)?.saturating_sub(of(&few)?) as f64 / (2 * REPEATED) as f64)
        })
        .collect()
}

fn difference(run: impl Fn(u64) -> Result<u64>) -> Result<f64> {
    let (few, many) = (run(REPEATED)?, run(3 * REPEATED)?);
    Ok(many.saturating_sub(few) as f64 / (2 * REPEATED) as f64)
}

/// Instructions of each thread of one run of this program.
fn callgrind(arguments: &[&str]) -> Result<Vec<u64>> {
    let directory = tempfile::tempdir()?;
    let out = directory.path().join("out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--separate-threads=yes", "--fair-sched=yes"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("running valgrind; is it installed?")?;
    if !output.status.success() {
        bail!("valgrind: {}", String::from_utf8_lossy(&output.stderr));
    }
    let mut threads = Vec::new();
    loop {
        let file = directory.path().join(format!("out-{:02}", threads.len() + 1));
        if !file.exists() {
            break;
        }
        threads.push(total(&file)?);
    }
    ensure!(!threads.is_empty(), "callgrind wrote no counts");
    Ok(threads)
}

/// The line `totals: N` or `summary: N` of a callgrind file.
fn total(file: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(file)?;
    let number = |line: &str| {
        line.strip_prefix("totals:").or_else(|| line.strip_prefix("summary:")).map(str::trim).map(str::to_owned)
    };
    let total = text.lines().rev().find_map(number).with_context(|| format!("no total in {}", file.display()))?;
    total.parse().with_context(|| format!("`{total}` in {}", file.display()))
}
