//! The supervisor's end of a pod: its process, orders and reports.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::logs;
use super::protocol::{Order, Report};
use super::spawner::Spawner;

/// How long the quick steps of a pod may take before something must be wrong.
const STEP: Duration = Duration::from_secs(20);

/// A running pod.
#[derive(Debug)]
pub(super) struct Channel {
    child: Child,
    reports: BufReader<OwnedReadHalf>,
    line: Vec<u8>,
    orders: OwnedWriteHalf,
}

impl Channel {
    /// Starts a pod's processes; their output goes to `log`.
    pub(super) async fn start(
        spawner: &Spawner,
        executable: &Path,
        namespaces: bool,
        (name, log, quiet): (&str, &Path, bool),
    ) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        let (output, writer) = logs::output_pipe()?;
        let parent = std::process::id().to_string();
        let mut command = Command::new(executable);
        command.arg("pod");
        if namespaces {
            command.args(["enter", &parent]);
        } else {
            command.args(["init", "loopback", &parent]);
        }
        let errors = writer.try_clone()?;
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::from(writer)).stderr(Stdio::from(errors));
        // A group of its own: Ctrl-C is for the supervisor, which then stops the rest in order.
        command.process_group(0);
        let child = spawner.spawn(command).await?;
        tokio::spawn(logs::pump(output, name.to_owned(), log.to_owned(), quiet));
        ours.set_nonblocking(true)?;
        let (reader, orders) = UnixStream::from_std(ours)?.into_split();
        Ok(Self { child, reports: BufReader::new(reader), line: Vec::new(), orders })
    }

    /// The pod's outermost process.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    pub(super) async fn send(&mut self, order: &Order) -> io::Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        match timeout(STEP, self.orders.write_all(&line)).await {
            Ok(sent) => sent,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the pod takes no orders")),
        }
    }

    /// The next report. May be dropped and called again: what has been read stays.
    pub(super) async fn next(&mut self) -> io::Result<Report> {
        // The peer is our own process, which writes short lines.
        let length = self.reports.read_until(b'\n', &mut self.line).await?;
        if length == 0 || self.line.last() != Some(&b'\n') {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the pod is gone"));
        }
        let report = serde_json::from_slice(&self.line);
        self.line.clear();
        Ok(report?)
    }

    /// The next report, when it is due.
    pub(super) async fn expect(&mut self) -> io::Result<Report> {
        match timeout(STEP, self.next()).await {
            Ok(report) => report,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("the pod said nothing for {STEP:?}"))),
        }
    }

    /// Ends the pod and everything in it.
    pub(super) async fn end(mut self) {
        const WAIT: Duration = Duration::from_secs(2);
        self.send(&Order::Exit).await.ok();
        if timeout(WAIT, self.child.wait()).await.is_err() {
            self.child.kill().await.ok();
        }
    }
}
