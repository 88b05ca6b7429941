//! One process of a container: its file system, user and rights as its specification says, and its end.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use super::environment::Words;
use super::images::Image;
use super::sandbox::child_of;
use crate::process::system;

/// Between two looks whether a process has become its program.
const LOOK: Duration = Duration::from_millis(2);
/// In every command line before that of the program itself.
const LAUNCHING: &str = "/.launch/setpriv";
/// What container runtimes leave to root in a container that says nothing.
const CAPABILITIES: [&str; 14] = [
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "net_bind_service",
    "net_raw",
    "sys_chroot",
    "mknod",
    "audit_write",
    "setfcap",
];

/// Everything a process is started with.
#[derive(Debug)]
pub(super) struct Plan {
    words: Words,
    kind: &'static str,
    read_only: bool,
    privileged: bool,
    directory: String,
    mounts: Vec<(PathBuf, String, &'static str)>,
    rights: Vec<String>,
}

impl Plan {
    /// Fails as a kubelet would say it.
    pub(super) fn new(
        spec: &PodSpec,
        container: &Container,
        image: &Image,
        words: Words,
        volumes: &BTreeMap<String, PathBuf>,
        files: &Path,
    ) -> Result<Self, String> {
        let mut mounts: Vec<(PathBuf, String, &'static str)> = Vec::new();
        for name in ["hosts", "resolv.conf", "hostname"] {
            mounts.push((files.join(name), format!("/etc/{name}"), "ro"));
        }
        mounts.extend(image.programs.iter().map(|(path, target)| (path.clone(), target.clone(), "ro")));
        for mount in container.volume_mounts.iter().flatten() {
            let volume = volumes.get(&mount.name).ok_or_else(|| format!("no volume `{}`", mount.name))?;
            let source = mount.sub_path.as_ref().map_or_else(|| volume.clone(), |path| volume.join(path));
            let mode = if mount.read_only == Some(true) { "ro" } else { "rw" };
            mounts.push((source, mount.mount_path.clone(), mode));
        }
        let context = container.security_context.clone().unwrap_or_default();
        Ok(Self {
            words,
            kind: if image.programs.is_empty() { "machine" } else { "program" },
            read_only: context.read_only_root_filesystem == Some(true),
            privileged: context.privileged == Some(true),
            directory: container.working_dir.clone().unwrap_or_else(|| "/".to_owned()),
            mounts,
            rights: rights(spec, container, image)?,
        })
    }
}

/// Arguments of setpriv(1): user, groups and capabilities.
fn rights(spec: &PodSpec, container: &Container, image: &Image) -> Result<Vec<String>, String> {
    let pod = spec.security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let user = own.run_as_user.or(pod.run_as_user).unwrap_or_else(|| i64::from(image.user));
    // A user that is given and not a group leaves the group to be root's.
    let given = own.run_as_user.or(pod.run_as_user);
    let group = own.run_as_group.or(pod.run_as_group).unwrap_or(if given.is_some() { 0 } else { user });
    if user == 0 && own.run_as_non_root.or(pod.run_as_non_root) == Some(true) {
        return Err("container has runAsNonRoot and image will run as root".to_owned());
    }
    let groups: Vec<i64> = pod.supplemental_groups.into_iter().flatten().chain(pod.fs_group).collect();
    let mut rights = vec!["--reuid".to_owned(), user.to_string(), "--regid".to_owned(), group.to_string()];
    if groups.is_empty() {
        rights.push("--clear-groups".to_owned());
    } else {
        let groups: Vec<String> = groups.iter().map(ToString::to_string).collect();
        rights.extend(["--groups".to_owned(), groups.join(",")]);
    }
    if own.privileged != Some(true) {
        let asked = own.capabilities.unwrap_or_default();
        let named = |list: Option<Vec<String>>| list.unwrap_or_default().into_iter().map(|name| name.to_lowercase());
        let dropped: Vec<String> = named(asked.drop).collect();
        let is_dropped = |name: &str| dropped.iter().any(|dropped| dropped == "all" || dropped == name);
        let left = CAPABILITIES.into_iter().filter(|name| !is_dropped(name)).map(str::to_owned);
        let all = std::iter::once("-all".to_owned());
        let bounds: Vec<String> = all.chain(left.chain(named(asked.add)).map(|name| format!("+{name}"))).collect();
        // Whoever is not root has none of these, but may get them from a program that is given them (capabilities(7)).
        rights.extend(["--inh-caps".to_owned(), "-all".to_owned(), "--bounding-set".to_owned(), bounds.join(",")]);
    }
    if own.allow_privilege_escalation == Some(false) {
        rights.push("--no-new-privs".to_owned());
    }
    Ok(rights)
}

/// A process of a container: process 1 of a namespace of its own in the pod's.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// As this machine numbers it.
    pub(super) pid: u32,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exit {
    pub(super) code: i32,
    pub(super) signal: Option<i32>,
}

impl Process {
    /// Starts it in the namespaces of `pause`, and waits until it is the program. `Ok(Err)` is a program that ended
    /// before that was seen.
    pub(super) async fn start(pause: u32, plan: &Plan, root: &Path, log: &Path) -> Result<Result<Self, Exit>, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", log.display());
        let file = OpenOptions::new().create(true).append(true).open(log).map_err(failed)?;
        let second = file.try_clone().map_err(failed)?;
        std::fs::create_dir_all(root).map_err(failed)?;
        let mut command = Command::from(system("nsenter"));
        command.args(["--target", &pause.to_string(), "--net", "--uts", "--ipc", "--pid", "--"]);
        command.args(["unshare", "--mount", "--pid", "--fork", "sh", "-c", include_str!("launch.sh"), "launch"]);
        let word = |yes: bool| if yes { "yes" } else { "no" };
        command.arg(root).args([plan.kind, word(plan.read_only), word(plan.privileged), plan.directory.as_str()]);
        command.arg(plan.mounts.len().to_string());
        for (source, target, mode) in &plan.mounts {
            command.arg(source).args([target.as_str(), mode]);
        }
        command.args(&plan.rights).arg("--").args(&plan.words.command);
        command.env_clear().envs(&plan.words.environment);
        command.stdin(Stdio::null()).stdout(file).stderr(second).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| format!("nsenter: {error}"))?;
        loop {
            if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
                return Ok(Err(exit(status)));
            }
            // nsenter, then unshare, then the process.
            let found = child.id().and_then(child_of).and_then(child_of);
            let line = found.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok());
            match found {
                Some(pid) if line.is_some_and(|line| !line.is_empty() && !line.contains(LAUNCHING)) => {
                    return Ok(Ok(Self { child, pid }));
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        // One that has ended needs none.
        let _ = kill(Pid::from_raw(self.pid.cast_signed()), signal);
    }

    pub(super) async fn wait(&mut self) -> Exit {
        self.child.wait().await.map_or(Exit { code: 255, signal: None }, exit)
    }
}

/// Runs a command in a container, as `kubectl exec` does, with the variables of its program; whether it succeeded, and
/// what it said.
pub(super) async fn execute(pid: u32, command: &[String]) -> Result<(), String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).map_err(|error| error.to_string())?;
    let variables = environment.split(|byte| *byte == 0).filter_map(|line| {
        let at = line.iter().position(|byte| *byte == b'=')?;
        Some((OsStr::from_bytes(&line[..at]), OsStr::from_bytes(&line[at + 1..])))
    });
    let mut nsenter = Command::from(system("nsenter"));
    nsenter.args(["--target", &pid.to_string(), "--all", "--root", "--wd", "--"]).args(command);
    nsenter.env_clear().envs(variables).stdin(Stdio::null()).kill_on_drop(true);
    let output = nsenter.output().await.map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Runtimes tell a death by signal as 128 and the signal.
fn exit(status: std::process::ExitStatus) -> Exit {
    let signal = status.signal();
    let code = status.code().unwrap_or_else(|| 128 + signal.unwrap_or_default());
    Exit { code, signal: signal.or((code > 128).then_some(code - 128)) }
}
