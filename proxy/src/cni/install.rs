//! The plugin's installer and guard: one on each node, as root, with the node's CNI directories mounted.
//!
//! In this order, so that nothing refers to what is not there yet: the program, its kubeconfig, the entry in the network
//! configuration; then the node's taint comes off. After that it watches: whoever writes the configuration anew gets our
//! entry put back within milliseconds; a new token is written down; a program that vanished is copied again; and a node
//! that was registered anew loses its taint again.
//!
//! At SIGTERM everything stays, as a node whose installer is replaced or evicted must go on capturing; unless the
//! `DaemonSet` is gone: then the entry is taken out, and the kubeconfig deleted. The program stays even so: runtimes that
//! remember the configuration of each pod still call it to delete those made with it.

mod files;
mod taint;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::Args;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tracing::level_filters::LevelFilter;
use weft_proto::names::{CNI, EXEMPT_NAMESPACES, SYSTEM_NAMESPACE};

use super::access::{self, Access, AccessError};
use super::api::{Api, ApiError};
use super::conflist;
use crate::telemetry;
use files::{Directory, FileError};

/// Between two looks at what sends no word of its change: the token, and the program.
const LOOK: Duration = Duration::from_secs(10);
/// A change comes seldom alone.
const SETTLING: Duration = Duration::from_millis(20);
/// Between two looks at the node's taints: it may be registered anew with them.
const TAINT_LOOK: Duration = Duration::from_mins(5);
const RIGHTS_PROGRAM: u32 = 0o755;
const RIGHTS_SECRET: u32 = 0o600;
const RIGHTS_PUBLIC: u32 = 0o644;

/// What `install` can be told.
#[derive(Debug, Clone, Args)]
pub struct InstallArgs {
    /// The node's directory of CNI programs, as it is mounted here
    #[arg(long, env = "WEFT_CNI_BIN", default_value = "/host/cni/bin", value_name = "DIR")]
    host_bin: PathBuf,
    /// The node's directory of network configurations, as it is mounted here
    #[arg(long, env = "WEFT_CNI_CONF", default_value = "/host/cni/net.d", value_name = "DIR")]
    host_conf: PathBuf,
    /// The node whose taint is taken off when its pods are safe; without it no taint is
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node_name: Option<String>,
    /// Our namespace: its pods are never asked for [default: the one of the service account]
    #[arg(long, env = "WEFT_SYSTEM_NAMESPACE", value_name = "NAME")]
    system_namespace: Option<String>,
    /// The API server as it is reached from the node [default: as pods reach it]
    #[arg(long, env = "WEFT_API_SERVER", value_name = "URL")]
    api_server: Option<String>,
    /// Directory of the service account's token
    #[arg(long, default_value = "/var/run/secrets/kubernetes.io/serviceaccount", value_name = "DIR")]
    service_account: PathBuf,
    /// Log level: off, error, warn, info, debug, trace
    #[arg(long, env = "WEFT_LOG", default_value = "info", value_name = "LEVEL")]
    log: LevelFilter,
}

/// Why the plugin is not on the node.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("cannot start: {0}")]
    Start(#[source] io::Error),
    #[error("no address of the API server: set --api-server, or run in a pod (KUBERNETES_SERVICE_HOST)")]
    NoServer,
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("pods that start on this node are not captured: {0}; the installer's log says why")]
    NotThere(String),
}

/// Installs and guards until SIGTERM.
pub(super) fn run(args: InstallArgs) -> Result<(), InstallError> {
    telemetry::start_log(args.log, false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(InstallError::Start)?;
    runtime.block_on(async {
        let terminate = signal(SignalKind::terminate()).map_err(InstallError::Start)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(InstallError::Start)?;
        Installer::new(args)?.guard(terminate, interrupt).await
    })
}

/// Fails unless pods that start now are captured: the installer's readiness probe.
pub(super) fn check(args: InstallArgs) -> Result<(), InstallError> {
    match Installer::new(args)?.lacking()? {
        None => Ok(()),
        Some(what) => Err(InstallError::NotThere(what)),
    }
}

struct Installer {
    bin: Directory,
    conf: Directory,
    node: Option<String>,
    namespace: String,
    server: String,
    service_account: PathBuf,
    entry: serde_json::Value,
    /// What was told last, so that it is told once.
    told: Option<String>,
}

impl Installer {
    fn new(args: InstallArgs) -> Result<Self, InstallError> {
        let server = args.api_server.or_else(server_of_pod).ok_or(InstallError::NoServer)?;
        let of_account = || std::fs::read_to_string(args.service_account.join("namespace")).ok();
        let namespace = args.system_namespace.or_else(of_account).unwrap_or_else(|| SYSTEM_NAMESPACE.to_owned());
        let namespace = namespace.trim().to_owned();
        let mut excluded = EXEMPT_NAMESPACES.map(str::to_owned).to_vec();
        excluded.push(namespace.clone());
        Ok(Self {
            bin: Directory::new(args.host_bin),
            conf: Directory::new(args.host_conf),
            node: args.node_name,
            namespace,
            server,
            service_account: args.service_account,
            entry: conflist::entry(&excluded),
            told: None,
        })
    }

    async fn guard(mut self, mut terminate: Signal, mut interrupt: Signal) -> Result<(), InstallError> {
        // Before the first look, so that no change falls between.
        let changes = watch(&[self.bin.path(), self.conf.path()]).map_err(InstallError::Start)?;
        self.bin.copy_program(CNI, RIGHTS_PROGRAM)?;
        let mut taint_look = tokio::time::interval(TAINT_LOOK);
        // The first look is made anyhow.
        taint_look.reset();
        let mut is_due = true;
        loop {
            let is_safe = match self.look() {
                Ok(is_safe) => is_safe,
                Err(error) => {
                    self.tell(format!("the plugin is not as it must be: {error}"));
                    false
                }
            };
            if is_safe && is_due {
                is_due = !self.untaint().await;
            }
            tokio::select! {
                () = changes.notified() => tokio::time::sleep(SETTLING).await,
                () = tokio::time::sleep(LOOK) => {}
                _ = taint_look.tick() => is_due = true,
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        self.stop().await
    }

    /// Puts everything right; tells whether pods that start now are captured.
    fn look(&mut self) -> Result<bool, InstallError> {
        self.bin.keep_program(CNI, RIGHTS_PROGRAM)?;
        let access = Access::of_service_account(&self.service_account, self.server.clone())?;
        self.bin.keep(access::AUTHORITY, &access.authority, RIGHTS_PUBLIC)?;
        self.bin.keep(access::KUBECONFIG, &access.kubeconfig(), RIGHTS_SECRET)?;
        let mended = self.conf.mend(&self.entry)?;
        let place = self.conf.path().display();
        self.tell(mended.as_ref().map_or_else(
            || format!("{place} has no network configuration yet: the cluster's own plugin brings it"),
            |file| format!("pods of the mesh are captured by the plugin in {}", file.display()),
        ));
        Ok(mended.is_some())
    }

    /// What is not on the node that must be there.
    fn lacking(&self) -> Result<Option<String>, InstallError> {
        let (bin, conf) = (self.bin.path().display(), self.conf.path().display());
        if !self.bin.has_program(CNI) {
            return Ok(Some(format!("{bin} does not have the plugin of this version")));
        }
        Access::of_kubeconfig(&self.bin.path().join(access::KUBECONFIG))?;
        Ok(self
            .conf
            .entered(&self.entry)?
            .is_none()
            .then(|| format!("no network configuration in {conf} has its entry, or there is none yet")))
    }

    fn tell(&mut self, what: String) {
        if self.told.as_ref() != Some(&what) {
            tracing::info!("{what}");
            self.told = Some(what);
        }
    }

    /// Takes the taint off the node; tells whether it is off.
    async fn untaint(&self) -> bool {
        let Some(node) = &self.node else { return true };
        let off = async { taint::take_off(&self.api()?, node).await };
        match off.await {
            Ok(was_there) => {
                if was_there {
                    tracing::info!(node, "the node takes pods of the mesh: its taint is off");
                }
                true
            }
            Err(error) => {
                tracing::warn!(node, %error, "the node's taint cannot be taken off; trying again");
                false
            }
        }
    }

    fn api(&self) -> Result<Api, InstallError> {
        let access = Access::of_service_account(&self.service_account, self.server.clone())?;
        Ok(Api::new(&access)?)
    }

    /// Leaves everything to the next installer, or nothing where there is none.
    async fn stop(self) -> Result<(), InstallError> {
        if !self.is_uninstalled().await {
            tracing::info!("stopping: the plugin stays for the installer that comes next");
            return Ok(());
        }
        self.conf.take_out()?;
        for name in [access::KUBECONFIG, access::AUTHORITY] {
            self.bin.delete(name)?;
        }
        tracing::info!("the plugin's DaemonSet is gone: its entry in the network configuration is taken out");
        Ok(())
    }

    /// Whether nobody will come after us. In doubt somebody will: what stays by mistake is inert, what is missing by
    /// mistake lets pods start uncaptured.
    async fn is_uninstalled(&self) -> bool {
        let Ok(api) = self.api() else { return false };
        let path = format!("/apis/apps/v1/namespaces/{}/daemonsets/{CNI}", self.namespace);
        match api.get(&path).await {
            Ok(found) => found.pointer("/metadata/deletionTimestamp").is_some(),
            Err(error) => match error.status().map(|status| status.as_u16()) {
                // Our account is gone as well.
                Some(401 | 404) => true,
                // We may look at nothing any more: so are our roles.
                Some(403) => match &self.node {
                    Some(node) => taint::may_not_look(&api, node).await,
                    None => false,
                },
                _ => {
                    tracing::warn!(%error, "cannot learn whether the plugin is uninstalled: it stays");
                    false
                }
            },
        }
    }
}

/// As every pod is told.
fn server_of_pod() -> Option<String> {
    let host = std::env::var("KUBERNETES_SERVICE_HOST").ok()?;
    let port = std::env::var("KUBERNETES_SERVICE_PORT").ok()?;
    Some(if host.contains(':') { format!("https://[{host}]:{port}") } else { format!("https://{host}:{port}") })
}

/// Tells of changes in these directories, as long as the process lives.
fn watch(directories: &[&Path]) -> io::Result<Arc<Notify>> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
    let changes = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_DELETE;
    for directory in directories {
        inotify.add_watch(*directory, changes).map_err(|errno| {
            io::Error::new(io::Error::from(errno).kind(), format!("cannot watch {}: {errno}", directory.display()))
        })?;
    }
    let changed = Arc::new(Notify::new());
    let tell = Arc::clone(&changed);
    thread::Builder::new().name("watch".to_owned()).spawn(move || {
        loop {
            match inotify.read_events() {
                // What changed is looked up, not told.
                Ok(_) => tell.notify_one(),
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    tracing::warn!(%errno, "the node's directories cannot be watched: looking from time to time");
                    return;
                }
            }
        }
    })?;
    Ok(changed)
}
