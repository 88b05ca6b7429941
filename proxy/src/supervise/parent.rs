//! The supervisor's process: one thread that waits for its children, their messages and signals, and does what the
//! [machine](super::machine) says.
//!
//! Nothing here outlives the process but its children. Every descriptor it has closes on `exec`: a child gets its socket
//! as standard input and nothing else, and listeners only as messages.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use aws_lc_rs::digest;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::channel::{self, Channel, Inherited, Received};
use super::machine::{Action, ChildId, Digest, Event, Limits, Machine, Program, ProgramId};
use super::message::{Batch, FromProxy, MAX_DESCRIPTORS, PROTOCOL, ToProxy};
use crate::clock;

/// The program this process runs, and the way to every other open file.
const SELF: &str = "/proc/self/exe";
/// Most listeners kept: 256 workers on more addresses than anybody listens on.
const MAX_LISTENERS: usize = 8192;
/// Bytes of a program read at once while it is hashed.
const HASHED_AT_ONCE: usize = 64 << 10;
/// Signals that are passed on; HUP and CHLD are for ourselves.
const PASSED_ON: [Signal; 5] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// Why a supervisor could not do its work.
#[derive(Debug, thiserror::Error)]
pub(super) enum SuperviseError {
    #[error("cannot open {SELF}: {0}; is /proc mounted?")]
    OwnProgram(#[source] io::Error),
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] Errno),
    #[error("cannot wait for the proxy: {0}")]
    Poll(#[source] Errno),
    #[error("{name} is `{value}`; expected a number of seconds from 1 to 86400")]
    Setting { name: &'static str, value: String },
}

/// A child and what has come from it.
struct Proxy {
    process: Pid,
    /// `None` when the child has closed its end.
    channel: Option<Channel>,
    /// Listeners, until the last has come.
    arriving: Vec<Inherited>,
}

struct Parent {
    machine: Machine,
    arguments: Vec<OsString>,
    /// Where our own program was when we began: what lies there after a package was upgraded is the new one.
    installed: PathBuf,
    programs: BTreeMap<ProgramId, File>,
    next_program: u32,
    proxies: BTreeMap<ChildId, Proxy>,
    listeners: Vec<Inherited>,
    exit: Option<u8>,
}

/// Runs a proxy with these settings until it ends; its exit code.
///
/// # Errors
/// When there is no `/proc`, or the kernel does not let us wait.
pub(super) fn run(arguments: Vec<OsString>) -> Result<u8, SuperviseError> {
    let limits = Limits {
        configured: seconds("WEFT_HANDOVER_READY_SECONDS", 60)?,
        probation: seconds("WEFT_HANDOVER_PROBATION_SECONDS", 60)?,
    };
    // A handover holds every listener of a proxy; what we may have, our children may.
    crate::limits::raise_descriptor_limit();
    let file = File::open(SELF).map_err(SuperviseError::OwnProgram)?;
    let installed = std::fs::read_link(SELF).map_err(SuperviseError::OwnProgram)?;
    let id = ProgramId(0);
    // Not hashed: nobody offered it, so nothing is ever refused for it.
    let (machine, actions) = Machine::new(limits, Program { id, digest: Digest::default() });
    let mut waited_for = SigSet::empty();
    waited_for.extend(PASSED_ON.into_iter().chain([Signal::SIGHUP, Signal::SIGCHLD]));
    waited_for.thread_block().map_err(SuperviseError::Signals)?;
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    let signals = SignalFd::with_flags(&waited_for, flags).map_err(SuperviseError::Signals)?;
    let mut parent = Parent {
        machine,
        arguments,
        installed,
        programs: BTreeMap::from([(id, file)]),
        next_program: 1,
        proxies: BTreeMap::new(),
        listeners: Vec::new(),
        exit: None,
    };
    parent.act(actions);
    loop {
        if let Some(code) = parent.exit {
            return Ok(code);
        }
        parent.wait(&signals)?;
        parent.messages();
        parent.signals(&signals)?;
        parent.happened(Event::Time);
    }
}

impl Parent {
    /// Until there is something to do.
    fn wait(&self, signals: &SignalFd) -> Result<(), SuperviseError> {
        let left = self.machine.deadline().map(|deadline| deadline.saturating_duration_since(clock::now()));
        // A millisecond more: what is due must be over.
        let timeout = left
            .map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX));
        let channels = self.proxies.values().filter_map(|proxy| proxy.channel.as_ref());
        let mut waited_for: Vec<PollFd<'_>> =
            channels.map(|channel| PollFd::new(channel.as_fd(), PollFlags::POLLIN)).collect();
        waited_for.push(PollFd::new(signals.as_fd(), PollFlags::POLLIN));
        match poll(&mut waited_for, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(SuperviseError::Poll(error)),
        }
    }

    fn happened(&mut self, event: Event) {
        let actions = self.machine.handle(clock::now(), event);
        // Before anybody is told anything: a copy of ours keeps an address open.
        if !self.machine.needs_listeners() {
            self.listeners.clear();
        }
        self.programs.retain(|&id, _| self.machine.needs(id));
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Start(child, program) => {
                    if let Err(error) = self.start(child, program) {
                        self.happened(Event::NotStarted(child, format!("it cannot be started: {error}")));
                    }
                }
                Action::Send(child, message) => self.send(child, &message, &[]),
                Action::Pass(child) => self.pass(child),
                Action::Kill(child) => self.signal(child, Signal::SIGKILL),
                Action::Signal(child, signal) => {
                    if let Ok(signal) = Signal::try_from(signal) {
                        self.signal(child, signal);
                    }
                }
                Action::Exit(code) => self.exit = Some(code),
            }
        }
    }

    /// Every program is started from the open file: what lies on the disk may be another one by now.
    fn start(&mut self, child: ChildId, program: ProgramId) -> io::Result<()> {
        let file = self.programs.get(&program).ok_or(io::ErrorKind::NotFound)?;
        let (ours, theirs) = channel::pair()?;
        let mut command = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
        // A program that knows nothing of handovers does not know this flag either, and ends before it listens anywhere.
        command.arg0("weft-proxy").arg(format!("--supervised={PROTOCOL}")).args(&self.arguments);
        let started = command.stdin(Stdio::from(theirs)).spawn()?;
        let process = Pid::from_raw(started.id().cast_signed());
        tracing::info!(%process, "a proxy begins");
        self.proxies.insert(child, Proxy { process, channel: Some(ours), arriving: Vec::new() });
        Ok(())
    }

    fn send(&self, child: ChildId, message: &ToProxy, sockets: &[Inherited]) {
        let Some(channel) = self.proxies.get(&child).and_then(|proxy| proxy.channel.as_ref()) else { return };
        let descriptors: Vec<_> = sockets.iter().map(|inherited| inherited.socket.as_fd()).collect();
        // A child that does not read is found out by the limit of what it should do.
        if let Err(error) = channel.send(message, &descriptors) {
            tracing::warn!(%error, "a proxy cannot be told anything");
        }
    }

    fn pass(&self, child: ChildId) {
        let batches = self.listeners.chunks(MAX_DESCRIPTORS);
        let count = batches.len();
        for (number, batch) in batches.enumerate() {
            let names = batch.iter().map(|inherited| inherited.name.clone()).collect();
            self.send(child, &ToProxy::TakeOver(Batch { names, is_last: number + 1 == count }), batch);
        }
        if count == 0 {
            self.send(child, &ToProxy::TakeOver(Batch { names: Vec::new(), is_last: true }), &[]);
        }
    }

    fn signal(&self, child: ChildId, signal: Signal) {
        if let Some(proxy) = self.proxies.get(&child)
            && let Err(error) = kill(proxy.process, signal)
        {
            tracing::warn!(%error, %signal, "a proxy cannot be signalled");
        }
    }

    fn messages(&mut self) {
        let children: Vec<ChildId> = self.proxies.keys().copied().collect();
        for child in children {
            self.messages_of(child);
        }
    }

    fn messages_of(&mut self, child: ChildId) {
        while let Some(proxy) = self.proxies.get_mut(&child) {
            let Some(channel) = &proxy.channel else { return };
            match channel.receive::<FromProxy>() {
                Ok(Received::Message(message, descriptors)) => self.said(child, message, descriptors),
                Ok(Received::Unknown) => tracing::debug!("a proxy says what this supervisor does not know"),
                Ok(Received::Nothing) => return,
                Ok(Received::End) => proxy.channel = None,
                Err(channel::ChannelError::Socket(error)) => {
                    tracing::warn!(%error, "the socket of a proxy failed");
                    proxy.channel = None;
                }
                Err(error) => tracing::warn!(%error, "ignoring a message of a proxy"),
            }
        }
    }

    fn said(&mut self, child: ChildId, message: FromProxy, mut descriptors: Vec<OwnedFd>) {
        match message {
            FromProxy::Hello { protocol, version } => {
                tracing::info!(protocol, version, "the proxy has introduced itself");
            }
            FromProxy::Configured => self.happened(Event::Configured(child)),
            FromProxy::Serving => self.happened(Event::Serving(child)),
            FromProxy::Failed(reason) => self.happened(Event::Failed(child, reason)),
            FromProxy::Listeners(batch) => self.collect(child, batch, descriptors),
            FromProxy::Replace => {
                if let Some(file) = descriptors.pop() {
                    self.offered(Some(child), File::from(file));
                }
            }
        }
    }

    fn collect(&mut self, child: ChildId, batch: Batch, sockets: Vec<OwnedFd>) {
        let is_wanted = self.machine.collects_from(child);
        let Some(proxy) = self.proxies.get_mut(&child) else { return };
        if !is_wanted {
            proxy.arriving.clear();
            return;
        }
        let room = MAX_LISTENERS.saturating_sub(proxy.arriving.len());
        let inherited = batch.names.into_iter().zip(sockets).map(|(name, socket)| Inherited { name, socket });
        proxy.arriving.extend(inherited.take(room));
        if batch.is_last {
            self.listeners = std::mem::take(&mut proxy.arriving);
            self.happened(Event::Collected(child));
        }
    }

    fn offered(&mut self, by: Option<ChildId>, file: File) {
        let digest = match digest_of(&file) {
            Ok(digest) => digest,
            Err(error) => {
                self.happened(Event::Unreadable(by, format!("it cannot be read: {error}")));
                return;
            }
        };
        let id = ProgramId(self.next_program);
        self.next_program += 1;
        self.programs.insert(id, file);
        self.happened(Event::Offered(by, Program { id, digest }));
    }

    fn signals(&mut self, signals: &SignalFd) -> Result<(), SuperviseError> {
        while let Some(info) = signals.read_signal().map_err(SuperviseError::Signals)? {
            match Signal::try_from(info.ssi_signo.cast_signed()) {
                Ok(Signal::SIGCHLD) => self.reap(),
                Ok(Signal::SIGHUP) => self.reload(),
                Ok(signal @ (Signal::SIGUSR1 | Signal::SIGUSR2)) => {
                    for &child in self.proxies.keys() {
                        self.signal(child, signal);
                    }
                }
                Ok(signal) => {
                    tracing::info!(%signal, "ending");
                    self.happened(Event::Leave(signal as i32));
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Collects every child that has ended, also ones we were given as the first process of a container.
    fn reap(&mut self) {
        loop {
            let (process, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(process, code)) => (process, code as u8),
                Ok(WaitStatus::Signaled(process, signal, _)) => (process, 128 + signal as u8),
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            let found = self.proxies.iter().find(|(_, proxy)| proxy.process == process).map(|(&child, _)| child);
            if let Some(child) = found {
                // What it said last may be why.
                self.messages_of(child);
                self.proxies.remove(&child);
                self.happened(Event::Ended(child, code));
            }
        }
    }

    /// Replaces the proxy by the program that lies where ours was.
    fn reload(&mut self) {
        tracing::info!(program = %self.installed.display(), "replacing the proxy by the program on disk");
        match File::open(&self.installed) {
            Ok(file) => self.offered(None, file),
            Err(error) => self.happened(Event::Unreadable(None, format!("it cannot be opened: {error}"))),
        }
    }
}

/// Leaves the file's position alone, which it shares with whoever gave it.
fn digest_of(file: &File) -> io::Result<Digest> {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut bytes = vec![0; HASHED_AT_ONCE];
    let mut at = 0;
    loop {
        match file.read_at(&mut bytes, at)? {
            0 => break,
            length => {
                context.update(&bytes[..length]);
                at += length as u64;
            }
        }
    }
    let mut found = Digest::default();
    found.copy_from_slice(context.finish().as_ref());
    Ok(found)
}

fn seconds(name: &'static str, usual: u64) -> Result<Duration, SuperviseError> {
    let Some(value) = std::env::var_os(name) else { return Ok(Duration::from_secs(usual)) };
    let seconds = value.to_str().and_then(|text| text.parse().ok()).filter(|seconds| (1..=86_400).contains(seconds));
    let value = || value.to_string_lossy().into_owned();
    seconds.map(Duration::from_secs).ok_or_else(|| SuperviseError::Setting { name, value: value() })
}
