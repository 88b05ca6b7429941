//! One workload, from its first process to its last: the task that owns it.
//!
//! It compares what is with what should be after every event (a report from the pod, a passed deadline, a wish) and
//! does what is missing. Its document says `ready` only while proxy and application both are.

mod handle;
mod progress;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until, timeout};
use weft_proxy::clock;

use super::channel::Channel;
use super::data::{DataError, PodDirectory};
use super::file::ServiceSpec;
use super::logs;
use super::place::Place;
use super::plane::{KnownService, PlaneError, WorkloadDocument, WorkloadState, hosts_file};
use super::protocol::{Order, Part, Report, SetUp};
use super::shared::Shared;
use super::view::{Phase, WorkloadView, host_pid};
pub(super) use handle::{Handle, start};
use progress::{Application, Progress, Proxy, backoff};

/// What an application gets between SIGTERM and SIGKILL: Docker's figure.
const APPLICATION_GRACE: Duration = Duration::from_secs(10);
/// When a proxy is killed that should have ended after [`PROXY_DRAIN`](super::place::PROXY_DRAIN).
const PROXY_GRACE: Duration = Duration::from_secs(7);
/// How long a leaving workload waits for the other proxies to know.
const DRAIN_NOTICE: Duration = Duration::from_secs(2);
/// What ran this long did not crash at its start: the backoff begins anew.
const STEADY: Duration = Duration::from_mins(1);
/// A proxy that dies this often before it was ever ready will not become so.
const HOPELESS: u32 = 4;
/// How long a control plane that is away is left alone.
const ASK_AGAIN: Duration = Duration::from_secs(2);
const READY_INTERVAL: Duration = Duration::from_millis(50);

/// What the owner of the mesh wants of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Stay,
    /// Leave; `noticed`: only after the other proxies know.
    Leave {
        noticed: bool,
    },
}

/// Why a pod ended unasked.
#[derive(Debug, thiserror::Error)]
enum PodError {
    #[error("{0}")]
    Channel(#[from] io::Error),
    #[error(transparent)]
    Plane(#[from] PlaneError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("{0}")]
    Network(String),
    #[error("{0}")]
    SetUp(String),
    #[error("its proxy does not start ({how}); the last line of {log}: {line}")]
    Proxy { how: String, log: String, line: String },
    #[error("found an unexpected report: {0:?}")]
    Confused(Report),
}

/// A workload.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) shared: Arc<Shared>,
    pub(super) service: ServiceSpec,
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) directory: PodDirectory,
    pub(super) wish: watch::Receiver<Wish>,
    pub(super) view: watch::Sender<WorkloadView>,
    pub(super) known: watch::Receiver<Arc<Vec<KnownService>>>,
}

impl Pod {
    /// Runs the workload until it is wished away, or its first start fails.
    pub(super) async fn run(mut self) {
        let document = self.place.document(&self.service, &self.name);
        let mut failures = 0;
        let outcome = loop {
            let began = clock::now();
            let Err(error) = self.incarnation(&document).await else { break Phase::Gone };
            self.detach().await;
            if self.view.borrow().starts == 0 {
                break Phase::Failed { reason: error.to_string() };
            }
            failures = if clock::now() - began > STEADY { 0 } else { failures + 1 };
            let pause = backoff(failures);
            self.shared.say(&format!("{}: {error}; making its pod again in {}s", self.name, pause.as_secs()));
            self.set_phase(Phase::Restarting { reason: error.to_string() });
            // If this fails too, its endpoint is ejected by whoever tries it.
            self.shared.plane.impatient().apply_workload(&document, WorkloadState::Unhealthy).await.ok();
            if self.wished_away_within(pause).await {
                break Phase::Gone;
            }
        };
        self.detach().await;
        self.shared.plane.impatient().delete_workload(&document).await.ok();
        self.place.release(&self.shared);
        self.set_phase(outcome);
    }

    /// One life of the pod; `Ok` when it left as wished.
    async fn incarnation(&mut self, document: &WorkloadDocument) -> Result<(), PodError> {
        let mut channel = self.open().await?;
        // The port's listener is sent to a workload that exists: others hear of it when it is ready to answer.
        self.shared.plane.apply_workload(document, WorkloadState::Unhealthy).await?;
        let mut progress = Progress::new(clock::now());
        let admin = self.directory.admin_socket();
        loop {
            let wish = *self.wish.borrow();
            if let Wish::Leave { noticed } = wish {
                self.set_phase(Phase::Stopping);
                return self.leave(channel, document, &progress, noticed).await;
            }
            self.advance(&mut channel, document, &mut progress).await?;
            let deadline = progress.deadline();
            tokio::select! {
                report = channel.next() => self.note(report?, &channel, &mut progress)?,
                () = answers_ready(&admin), if progress.proxy == Proxy::Starting => progress.proxy = Proxy::Ready,
                () = sleep_until(deadline.unwrap_or_else(clock::now).into()), if deadline.is_some() => {}
                changed = self.wish.changed() => {
                    if changed.is_err() {
                        // Whoever could wish is gone: the mesh was dropped without a stop.
                        return Ok(());
                    }
                }
                Ok(()) = self.known.changed() => self.write_hosts()?,
            }
        }
    }

    /// Makes the pod with its network, up to the point where programs can be started in it.
    async fn open(&mut self) -> Result<Channel, PodError> {
        let shared = &self.shared;
        let log = shared.data.log(&self.name);
        let output = (self.name.as_str(), log.as_path(), shared.quiet);
        let namespaces = matches!(self.place, Place::Namespace { .. });
        let mut channel = Channel::start(&shared.spawner, &shared.executable, namespaces, output).await?;
        expect(&mut channel, Report::Up).await?;
        let (Place::Namespace { number, address }, Some(fabric), Some(exempt)) =
            (&self.place, &shared.fabric, shared.mode.exempt())
        else {
            return Ok(channel);
        };
        let pid = channel.pid().ok_or_else(|| io::Error::other("the pod is gone"))?;
        fabric.attach(pid, *number).await.map_err(|error| PodError::Network(error.to_string()))?;
        self.write_hosts()?;
        let resolver = self.directory.resolver();
        // Nobody answers on this address of the pod, and says so at once; the machine's own name servers would be
        // waited for, as they cannot be reached from here.
        PodDirectory::write_mounted(&resolver, "nameserver 127.0.0.1\n")?;
        let mounts = vec![(self.directory.hosts(), "/etc/hosts".into()), (resolver, "/etc/resolv.conf".into())];
        let set_up = SetUp { hostname: self.name.clone(), address: *address, exempt, mounts };
        channel.send(&Order::SetUp(set_up)).await?;
        expect(&mut channel, Report::Ready).await?;
        Ok(channel)
    }

    /// Does what is due.
    async fn advance(
        &mut self,
        channel: &mut Channel,
        document: &WorkloadDocument,
        progress: &mut Progress,
    ) -> Result<(), PodError> {
        let now = clock::now();
        if matches!(progress.proxy, Proxy::Down { again } if again <= now) {
            // Made for each start: a token expires, and the key it was used for died with the process.
            match self.shared.plane.impatient().token(&self.service.name).await {
                Ok(token) => self.start_proxy(channel, &token, progress).await?,
                Err(error) => {
                    self.shared.say(&format!("{}: {error}; asking again in {ASK_AGAIN:?}", self.name));
                    progress.proxy = Proxy::Down { again: now + ASK_AGAIN };
                }
            }
        }
        let due = match progress.application {
            Application::Waiting => progress.proxy == Proxy::Ready,
            Application::Down { again } => again <= now,
            Application::Starting { .. } | Application::Running { .. } => false,
        };
        if due {
            let program = self.place.application(&self.shared, &self.service, self.index);
            let listens = self.place.application_port(&self.service);
            channel.send(&Order::Start { part: Part::Application, program, listens }).await?;
            progress.application = Application::Starting { since: now };
        }
        let state = progress.state();
        if progress.published != Some(state) && progress.publish_again.is_none_or(|at| at <= now) {
            match self.shared.plane.impatient().apply_workload(document, state).await {
                Ok(_) => {
                    (progress.published, progress.publish_again) = (Some(state), None);
                    if state == WorkloadState::Ready {
                        self.set_phase(Phase::Ready);
                    }
                }
                // The pod goes on as it is: what the proxies know of it is a little older than it should be.
                Err(error) => {
                    self.shared.say(&format!("{}: {error}; asking again in {ASK_AGAIN:?}", self.name));
                    (progress.published, progress.publish_again) = (None, Some(now + ASK_AGAIN));
                }
            }
        }
        Ok(())
    }

    async fn start_proxy(&self, channel: &mut Channel, token: &str, progress: &mut Progress) -> Result<(), PodError> {
        self.directory.write_token(token)?;
        let program = self.place.proxy(&self.shared, &self.service, &self.name, &self.directory)?;
        channel.send(&Order::Start { part: Part::Proxy, program, listens: None }).await?;
        progress.proxy = Proxy::Starting;
        Ok(())
    }

    /// Takes in a report.
    fn note(&mut self, report: Report, channel: &Channel, progress: &mut Progress) -> Result<(), PodError> {
        let now = clock::now();
        match report {
            Report::Started { part: Part::Application, pid } => {
                let pid = host_pid(channel.pid(), pid, self.shared.mode.has_namespaces());
                self.view.send_modify(|view| {
                    view.pid = pid;
                    view.starts += 1;
                });
                // Without a port there is nothing more to wait for.
                if let Application::Starting { since } = progress.application
                    && self.service.port.is_none()
                {
                    progress.application = Application::Running { since };
                }
            }
            Report::Started { part: Part::Proxy, .. } => {}
            Report::Listening => {
                if let Application::Starting { since } = progress.application {
                    progress.application = Application::Running { since };
                }
            }
            Report::Exited { part: Part::Application, how } => {
                if let Application::Starting { since } | Application::Running { since } = progress.application {
                    let steady = now - since > STEADY;
                    progress.application_failures = if steady { 0 } else { progress.application_failures + 1 };
                }
                let pause = backoff(progress.application_failures);
                progress.application = Application::Down { again: now + pause };
                self.tell_restart("the application", &how, pause);
                self.view.send_modify(|view| view.pid = None);
            }
            Report::Exited { part: Part::Proxy, how } => {
                progress.proxy_failures = if progress.proxy == Proxy::Ready { 1 } else { progress.proxy_failures + 1 };
                if progress.proxy_failures >= HOPELESS && progress.application == Application::Waiting {
                    let log = self.shared.data.log(&format!("{}-proxy", self.name));
                    let line = logs::last_line(&log).unwrap_or_else(|| "(empty)".to_owned());
                    return Err(PodError::Proxy { how, log: log.display().to_string(), line });
                }
                let pause = backoff(progress.proxy_failures) / 4;
                progress.proxy = Proxy::Down { again: now + pause };
                self.tell_restart("its proxy", &how, pause);
            }
            Report::Failed { what } => return Err(PodError::SetUp(what)),
            Report::Up | Report::Ready => return Err(PodError::Confused(report)),
        }
        Ok(())
    }

    fn tell_restart(&self, what: &str, how: &str, pause: Duration) {
        let reason = format!("{what} ended ({how})");
        self.shared.say(&format!("{}: {reason}; starting it again in {pause:?}", self.name));
        self.set_phase(Phase::Restarting { reason });
    }

    /// Ends the pod in order: endpoint, application, proxy.
    async fn leave(
        &self,
        mut channel: Channel,
        document: &WorkloadDocument,
        progress: &Progress,
        noticed: bool,
    ) -> Result<(), PodError> {
        if noticed
            && progress.published == Some(WorkloadState::Ready)
            && let Ok(revision) = self.shared.plane.impatient().apply_workload(document, WorkloadState::Draining).await
        {
            self.shared.plane.wait_applied(revision, &self.name, DRAIN_NOTICE).await;
        }
        if matches!(progress.application, Application::Starting { .. } | Application::Running { .. }) {
            stop(&mut channel, Part::Application, APPLICATION_GRACE).await;
        }
        if !matches!(progress.proxy, Proxy::Down { .. }) {
            stop(&mut channel, Part::Proxy, PROXY_GRACE).await;
        }
        channel.end().await;
        Ok(())
    }

    async fn detach(&self) {
        if let (Some(fabric), Place::Namespace { number, .. }) = (&self.shared.fabric, &self.place) {
            fabric.detach(*number).await;
        }
    }

    async fn wished_away_within(&mut self, pause: Duration) -> bool {
        let away = self.wish.wait_for(|wish| *wish != Wish::Stay);
        // Over, wished away, or nobody left to wish.
        timeout(pause, away).await.is_ok()
    }

    fn write_hosts(&self) -> Result<(), DataError> {
        let text = hosts_file(&self.name, &self.place.addresses(), &self.shared.known.borrow());
        PodDirectory::write_mounted(&self.directory.hosts(), &text)
    }

    fn set_phase(&self, phase: Phase) {
        self.view.send_modify(|view| view.phase = phase);
    }
}

async fn expect(channel: &mut Channel, expected: Report) -> Result<(), PodError> {
    match channel.expect().await? {
        report if report == expected => Ok(()),
        Report::Failed { what } => Err(PodError::SetUp(what)),
        other => Err(PodError::Confused(other)),
    }
}

/// Asks a program to end and waits until it has.
async fn stop(channel: &mut Channel, part: Part, grace: Duration) {
    let order = Order::Stop { part, grace_ms: grace.as_millis() as u64 };
    if channel.send(&order).await.is_err() {
        return;
    }
    let ended = async {
        loop {
            match channel.next().await {
                Ok(Report::Exited { part: ended, .. }) if ended == part => return,
                Ok(_) => {}
                Err(_) => return,
            }
        }
    };
    // It is killed after the grace; a moment more for the report.
    timeout(grace + Duration::from_secs(2), ended).await.ok();
}

/// Returns when `GET /ready` on an admin socket is answered with 200.
async fn answers_ready(admin: &Path) {
    loop {
        if timeout(Duration::from_secs(1), is_ready(admin)).await.is_ok_and(|ready| ready.unwrap_or(false)) {
            return;
        }
        sleep(READY_INTERVAL).await;
    }
}

async fn is_ready(admin: &Path) -> io::Result<bool> {
    let mut stream = UnixStream::connect(admin).await?;
    stream.write_all(b"GET /ready HTTP/1.1\r\nhost: weft\r\nconnection: close\r\n\r\n").await?;
    let mut head = [0; "HTTP/1.1 200".len()];
    stream.read_exact(&mut head).await?;
    Ok(head.starts_with(b"HTTP/1.") && head.ends_with(b" 200"))
}
