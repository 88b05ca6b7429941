//! One run: a client, one worker (plain) or two (mutual TLS between them), and an application, over loopback.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use weft_core::model::Direction;

use crate::allocations::Allocated;
use crate::configuration::{Root, SERVICE, WORKLOAD, callee, caller, inbound, outbound, routed};
use crate::traffic::Shape;
use crate::worker::RunningWorker;
use crate::{streams, traffic};

/// Which proxies stand between the client and the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Chain {
    /// One, in plaintext on both sides.
    Plain,
    /// One in plaintext, whose routes look at method, headers and query, and share the requests between two clusters.
    Routed,
    /// The caller's and the workload's, with mutual TLS between them.
    Pair,
}

/// Any port of loopback.
pub const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Starts the workers of a chain in front of `application`; the client talks to the first of them, on `listen`.
pub fn workers(chain: Chain, listen: SocketAddr, application: SocketAddr) -> Result<Vec<RunningWorker>> {
    if chain != Chain::Pair {
        let change = outbound(&[application], None);
        let change = if chain == Chain::Routed { routed(change) } else { change };
        return Ok(vec![RunningWorker::start(listen, Direction::Outbound, SERVICE, change, None)?]);
    }
    let root = Root::new()?;
    let credentials = root.credentials(&callee())?;
    let second = RunningWorker::start(ANY_PORT, Direction::Inbound, WORKLOAD, inbound(application), Some(credentials))?;
    let change = outbound(&[second.address], Some(callee()));
    let credentials = root.credentials(&caller())?;
    let first = RunningWorker::start(listen, Direction::Outbound, SERVICE, change, Some(credentials))?;
    Ok(vec![first, second])
}

/// What one worker spent on the measured requests.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    pub allocated: Allocated,
    pub cpu: Duration,
}

/// A run's plan.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    pub chain: Chain,
    pub shape: Shape,
    pub connections: usize,
    /// Rounds before counting starts: pools and buffers fill.
    pub warm_up: usize,
    /// Rounds counted; each is one request on every connection, or on every stream of it.
    pub rounds: usize,
}

impl Run {
    /// Requests counted.
    pub fn requests(&self) -> usize {
        self.connections * self.rounds * if self.shape.has_streams() { streams::STREAMS as usize } else { 1 }
    }

    /// Runs it; what each worker spent, the client's first.
    ///
    /// The workers' threads are started before all others, the client's last: callgrind knows threads by number only.
    pub fn run(&self) -> Result<Vec<Spent>> {
        let application = TcpListener::bind(ANY_PORT)?;
        let workers = workers(self.chain, ANY_PORT, application.local_addr()?)?;
        let first = workers.first().context("a chain has a worker")?.address;
        if self.shape.has_streams() {
            streams::serve_application(application, self.shape);
            let mut clients = streams::Clients::connect(first, self.shape, self.connections)?;
            self.measure(&workers, || clients.round())
        } else {
            traffic::serve_application(application, self.shape, self.connections);
            let mut clients = traffic::Clients::connect(first, self.shape, self.connections)?;
            self.measure(&workers, || clients.round())
        }
    }

    fn measure(&self, workers: &[RunningWorker], mut round: impl FnMut() -> io::Result<()>) -> Result<Vec<Spent>> {
        for _ in 0..self.warm_up {
            round()?;
        }
        let before = read(workers)?;
        for _ in 0..self.rounds {
            round()?;
        }
        let after = read(workers)?;
        let spent = before.iter().zip(&after).map(|(before, after)| Spent {
            allocated: Allocated {
                count: after.allocated.count - before.allocated.count,
                bytes: after.allocated.bytes - before.allocated.bytes,
            },
            cpu: after.cpu.saturating_sub(before.cpu),
        });
        Ok(spent.collect())
    }
}

fn read(workers: &[RunningWorker]) -> Result<Vec<Spent>> {
    workers.iter().map(|worker| Ok(Spent { allocated: worker.allocated(), cpu: worker.cpu_time()? })).collect()
}
