//! The first process of a pod: sets it up, starts what runs in it, reaps, reports.
//!
//! One thread, one `poll`: orders from the supervisor, signals, and the few deadlines. It decides nothing by itself
//! but one thing: when the supervisor's end of the channel closes, it ends, and with it everything in the pod.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use weft_proxy::clock;

use super::launch;
use super::protocol::{MAX_LINE, Order, Part, Program, Report, SetUp};
use super::{capture, network};

/// How often a port is tried until it takes connections.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// A connection on loopback is accepted or refused at once, unless the backlog is full.
const PROBE_TIMEOUT: Duration = Duration::from_millis(200);
/// What a program gets when the pod itself is asked to end.
const GRACE: Duration = Duration::from_secs(10);

/// Where the pod lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Process 1 of namespaces of its own.
    Namespaces,
    /// An ordinary process; nothing to set up.
    Loopback,
}

/// Runs until the supervisor says so or is gone.
pub(super) fn main(place: Place) -> Result<(), String> {
    prctl::set_name(c"weft-pod-init").ok();
    if place == Place::Loopback {
        // Orphans of the application come here, as they would to a process 1.
        prctl::set_child_subreaper(true).map_err(|error| format!("becoming a reaper: {error}"))?;
    }
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT] {
        mask.add(signal);
    }
    mask.thread_block().map_err(|error| format!("blocking signals: {error}"))?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|error| format!("opening a signal descriptor: {error}"))?;
    let control =
        std::io::stdin().as_fd().try_clone_to_owned().map_err(|error| format!("opening the channel: {error}"))?;
    let mut init = Init {
        place,
        control: UnixStream::from(control),
        received: Vec::new(),
        proxy: Slot::default(),
        application: Slot::default(),
        probe: None,
        leaving: false,
    };
    init.report(&Report::Up)?;
    let outcome = init.serve(&signals);
    init.kill_all();
    outcome
}

struct Init {
    place: Place,
    control: UnixStream,
    received: Vec<u8>,
    proxy: Slot,
    application: Slot,
    probe: Option<Probe>,
    /// Asked to end by a signal: application first, then proxy.
    leaving: bool,
}

/// A running program.
#[derive(Default)]
struct Slot {
    pid: Option<Pid>,
    signal_group: bool,
    kill_at: Option<Instant>,
}

/// A port that is not open yet.
struct Probe {
    port: u16,
    next: Instant,
}

impl Init {
    fn serve(&mut self, signals: &SignalFd) -> Result<(), String> {
        loop {
            let (from_supervisor, from_kernel) = self.wait(signals)?;
            if from_kernel {
                self.take_signals(signals)?;
            }
            if from_supervisor && !self.take_orders()? {
                return Ok(());
            }
            self.keep_deadlines(clock::now())?;
            if self.leaving && self.application.pid.is_none() {
                match self.proxy.pid {
                    None => return Ok(()),
                    Some(_) if self.proxy.kill_at.is_none() => self.proxy.stop(clock::now() + GRACE),
                    Some(_) => {}
                }
            }
        }
    }

    /// Waits for an order, a signal or the next deadline.
    fn wait(&self, signals: &SignalFd) -> Result<(bool, bool), String> {
        let deadlines = [self.proxy.kill_at, self.application.kill_at, self.probe.as_ref().map(|probe| probe.next)];
        let timeout = deadlines.into_iter().flatten().min().map_or(PollTimeout::NONE, |at| {
            // Rounded up: waking a moment early would spin.
            let left = at.saturating_duration_since(clock::now()).as_millis() + 1;
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let mut descriptors =
            [PollFd::new(self.control.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut descriptors, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(format!("waiting: {error}")),
        }
        Ok((descriptors[0].any().unwrap_or(true), descriptors[1].any().unwrap_or(true)))
    }

    /// Reads and carries out orders; `false` when it is time to end.
    fn take_orders(&mut self) -> Result<bool, String> {
        let mut chunk = [0; 16 << 10];
        let length = match self.control.read(&mut chunk) {
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(true),
            Err(_) => 0,
        };
        if length == 0 {
            return Ok(false);
        }
        self.received.extend_from_slice(&chunk[..length]);
        while let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.received.drain(..=end).collect();
            let order = serde_json::from_slice(&line).map_err(|error| format!("reading an order: {error}"))?;
            if !self.obey(order)? {
                return Ok(false);
            }
        }
        if self.received.len() > MAX_LINE { Err("an order is too long".to_owned()) } else { Ok(true) }
    }

    fn obey(&mut self, order: Order) -> Result<bool, String> {
        match order {
            Order::SetUp(set_up) => match set_up_pod(&set_up) {
                Ok(()) => self.report(&Report::Ready)?,
                Err(what) => {
                    self.report(&Report::Failed { what })?;
                    return Ok(false);
                }
            },
            Order::Start { part, program, listens } => match start(&program) {
                Ok(pid) => {
                    *self.slot(part) = Slot { pid: Some(pid), signal_group: program.signal_group, kill_at: None };
                    self.report(&Report::Started { part, pid: pid.as_raw() })?;
                    if part == Part::Application {
                        self.probe = listens.map(|port| Probe { port, next: clock::now() });
                    }
                }
                Err(how) => self.report(&Report::Exited { part, how })?,
            },
            Order::Stop { part, grace_ms } => {
                let kill_at = clock::now() + Duration::from_millis(grace_ms);
                self.slot(part).stop(kill_at);
            }
            Order::Exit => return Ok(false),
        }
        Ok(true)
    }

    fn take_signals(&mut self, signals: &SignalFd) -> Result<(), String> {
        while let Ok(Some(information)) = signals.read_signal() {
            match Signal::try_from(information.ssi_signo as i32) {
                Ok(Signal::SIGCHLD) => {}
                _ if self.leaving => {}
                _ => {
                    self.leaving = true;
                    self.application.stop(clock::now() + GRACE);
                }
            }
        }
        self.reap()
    }

    fn reap(&mut self) -> Result<(), String> {
        loop {
            let (pid, how) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, format!("exit code {code}")),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, format!("killed by {signal}")),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(error) => return Err(format!("reaping: {error}")),
            };
            let part = if self.proxy.pid == Some(pid) {
                Part::Proxy
            } else if self.application.pid == Some(pid) {
                // What it left behind would hold its port when it is started again.
                killpg(pid, Signal::SIGKILL).ok();
                self.probe = None;
                Part::Application
            } else {
                continue;
            };
            *self.slot(part) = Slot::default();
            self.report(&Report::Exited { part, how })?;
        }
    }

    fn keep_deadlines(&mut self, now: Instant) -> Result<(), String> {
        for slot in [&mut self.proxy, &mut self.application] {
            if slot.kill_at.is_some_and(|at| at <= now) {
                slot.kill_at = None;
                slot.signal(Signal::SIGKILL);
            }
        }
        if let Some(probe) = self.probe.as_mut().filter(|probe| probe.next <= now) {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, probe.port));
            if TcpStream::connect_timeout(&address, PROBE_TIMEOUT).is_ok() {
                self.probe = None;
                self.report(&Report::Listening)?;
            } else {
                probe.next = now + PROBE_INTERVAL;
            }
        }
        Ok(())
    }

    fn slot(&mut self, part: Part) -> &mut Slot {
        match part {
            Part::Proxy => &mut self.proxy,
            Part::Application => &mut self.application,
        }
    }

    fn report(&mut self, report: &Report) -> Result<(), String> {
        let mut line = serde_json::to_vec(report).map_err(|error| format!("writing a report: {error}"))?;
        line.push(b'\n');
        self.control.write_all(&line).map_err(|error| format!("the supervisor is gone: {error}"))
    }

    /// With a process namespace the kernel does this when we end; without one it is ours to do.
    fn kill_all(&mut self) {
        if self.place == Place::Loopback {
            for slot in [&mut self.application, &mut self.proxy] {
                slot.signal_group = true;
                slot.signal(Signal::SIGKILL);
            }
        }
    }
}

impl Slot {
    fn stop(&mut self, kill_at: Instant) {
        if self.pid.is_some() {
            self.kill_at = Some(kill_at);
            self.signal(Signal::SIGTERM);
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid {
            // A process that has just ended is reaped in a moment; nothing to say about it here.
            if self.signal_group { killpg(pid, signal) } else { kill(pid, signal) }.ok();
        }
    }
}

fn start(program: &Program) -> Result<Pid, String> {
    let arguments = launch::arguments(&program.launch, &program.command).map_err(|error| error.to_string())?;
    let mut command = Command::new(launch::OWN_EXECUTABLE);
    command.arg0("weft").args(arguments).envs(&program.env).stdin(Stdio::null()).process_group(0);
    if let Some(path) = &program.log {
        let open = std::fs::OpenOptions::new().create(true).append(true).mode(0o644).open(path);
        let log = open.map_err(|error| format!("opening {}: {error}", path.display()))?;
        let copy = log.try_clone().map_err(|error| format!("opening {}: {error}", path.display()))?;
        command.stdout(log).stderr(copy);
    }
    let child = command.spawn().map_err(|error| format!("starting a process: {error}"))?;
    Ok(Pid::from_raw(child.id() as i32))
}

fn set_up_pod(set_up: &SetUp) -> Result<(), String> {
    const NOTHING: Option<&str> = None;
    let step = |doing: &str, error: &dyn std::fmt::Display| format!("{doing}: {error}");
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING)
        .map_err(|e| step("making mounts private", &e))?;
    // Where the machine hides parts of /proc a fresh one is refused (mount_namespaces(7)); the old one shows more than
    // the pod's own processes, and everything else works.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, NOTHING).ok();
    nix::unistd::sethostname(&set_up.hostname).map_err(|e| step("naming the host", &e))?;
    for (what, place) in &set_up.mounts {
        if place.exists() {
            mount(Some(what), place, NOTHING, MsFlags::MS_BIND, NOTHING)
                .map_err(|e| step(&format!("mounting {} on {}", what.display(), place.display()), &e))?;
        }
    }
    network::block_on(network::configure_pod(set_up.address)).map_err(|e| e.to_string())?;
    // Programs that are not root listen on the port their service has; there is nobody to protect it from.
    std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0").ok();
    capture::install(set_up.exempt).map_err(|e| step("installing the traffic redirect", &e))
}
