//! A whole mesh for a test: `weft up` on a mesh file of the test's own, and hands on everything in it.
//!
//! Each mesh has a directory of its own, where also its temporary files go, and its processes carry a mark in their
//! environment, so that what it leaves behind can be told from what other meshes are using.

pub mod command;
pub mod machine;
pub mod metrics;
pub mod recording;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use command::{Finished, PATIENCE, Running, command, now, run, until};
use machine::{Process, descendants, processes, variable};
use metrics::{Metrics, get};

/// In the environment of every process of a mesh of a test.
const MARK: &str = "WEFT_TEST_MESH";
/// How long a stop in order may take: applications get 10 s, proxies 7.
const STOP: Duration = Duration::from_secs(40);
/// How long a load may take.
const LOAD: Duration = Duration::from_mins(2);

/// Who runs a mesh, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// As this user, root.
    Root,
    /// As a user without privileges, in a user namespace.
    User(u32),
    /// Without namespaces.
    Loopback,
}

/// A place for meshes: files, data and temporary files. It can hold several meshes, one after the other.
#[derive(Debug)]
pub struct Ground {
    directory: TempDir,
    how: How,
    weft: PathBuf,
    /// Settings of the mesh's proxies.
    settings: Vec<(String, String)>,
}

/// A running mesh.
#[derive(Debug)]
pub struct Mesh {
    ground: Arc<Ground>,
    /// Gone when it was stopped.
    up: Option<Running>,
}

/// The processes of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Process 1 of its namespaces.
    pub init: u32,
    pub proxy: u32,
    pub application: Option<u32>,
}

impl Ground {
    /// A fresh place for the mesh file `yaml`, in which `<weft>` and `<python>` stand for these programs.
    pub fn new(how: How, yaml: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("weft-e2e-").tempdir().expect("a temporary directory");
        let root = directory.path();
        // The proxies' user passes through it.
        let mut weft = machine::weft();
        if let How::User(_) = how {
            // Wherever the build directory is, this user may not be able to get there.
            let copy = root.join("weft");
            std::fs::copy(&weft, &copy).expect("the program can be copied");
            weft = copy;
        }
        let ground = Self { directory, how, weft, settings: Vec::new() };
        ground.make("tmp");
        let text = yaml.replace("<weft>", &ground.weft.display().to_string()).replace("<python>", &machine::python());
        ground.write("mesh.yaml", &text);
        ground.give(ground.path());
        ground
    }

    /// Gives the proxies of its meshes a setting, by the name of its variable.
    #[must_use]
    pub fn with(mut self, setting: &str, value: &str) -> Self {
        self.settings.push((setting.to_owned(), value.to_owned()));
        self
    }

    /// `weft`, where the mesh's user can start it.
    pub fn program(&self) -> &Path {
        &self.weft
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// Where programs of the mesh put temporary files.
    pub fn temporary(&self) -> PathBuf {
        self.path().join("tmp")
    }

    /// Writes a file beside the mesh file, where the mesh's programs are run.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        self.give(&path);
    }

    fn make(&self, name: &str) {
        let path = self.path().join(name);
        std::fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        self.give(&path);
    }

    fn give(&self, path: &Path) {
        use std::os::unix::fs::{PermissionsExt, chown};
        let owner = if let How::User(uid) = self.how { Some(uid) } else { None };
        chown(path, owner, owner).expect("root gives files away");
        if path.is_dir() {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("an owner sets modes");
        }
    }

    /// `weft ARGUMENTS` as the user of this mesh.
    pub fn weft(&self, arguments: &[&str]) -> Command {
        let mut command = match self.how {
            How::User(uid) => {
                let uid = uid.to_string();
                let mut command = command("setpriv");
                command.args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "--pdeathsig", "KILL", "--"]);
                command.arg(&self.weft);
                command
            }
            How::Root | How::Loopback => command(&self.weft),
        };
        let inherited = std::env::vars_os().map(|(name, _)| name);
        for name in inherited.filter(|name| name.to_string_lossy().starts_with("WEFT_")) {
            command.env_remove(name);
        }
        command.args(arguments).env("TMPDIR", self.temporary()).env("HOME", self.temporary()).env(MARK, self.path());
        command.current_dir("/");
        command
    }

    /// `weft up` on this ground's data directory.
    pub fn up(&self) -> Command {
        let mut command = self.weft(&["up"]);
        command.arg(self.path().join("mesh.yaml")).arg("--data").arg(self.data());
        command.envs(self.settings.iter().map(|(setting, value)| (setting, value)));
        if self.how == How::Loopback {
            command.arg("--no-namespaces");
        }
        command
    }

    /// Every process that was started by a mesh here, whoever its parent is by now.
    pub fn processes(&self) -> Vec<Process> {
        let ours = self.path().display().to_string();
        processes().into_iter().filter(|process| variable(process.pid, MARK).as_ref() == Some(&ours)).collect()
    }
}

impl Mesh {
    /// Runs a mesh as root and waits until it can be used.
    #[track_caller]
    pub fn start(yaml: &str) -> Self {
        Self::on(&Arc::new(Ground::new(How::Root, yaml)))
    }

    /// Runs the mesh of a ground and waits until it can be used.
    #[track_caller]
    pub fn on(ground: &Arc<Ground>) -> Self {
        let mut mesh = Self { ground: Arc::clone(ground), up: Some(Running::start(ground.up())) };
        mesh.up.as_mut().expect("it was just started").says(" workloads are ready");
        mesh.settle();
        mesh
    }

    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// The process of `weft up`.
    pub fn supervisor(&self) -> u32 {
        self.up().pid()
    }

    /// What `weft up` has printed about the mesh.
    pub fn told(&self) -> String {
        self.up().stderr()
    }

    /// Runs `weft ARGUMENTS` on the mesh's data directory.
    #[track_caller]
    pub fn weft(&self, arguments: &[&str]) -> Finished {
        let mut command = self.ground.weft(arguments);
        command.arg("--data").arg(self.ground.data());
        run(command)
    }

    /// What `weft ARGUMENTS -o json` says; `None` while the control plane is away.
    pub fn ask(&self, arguments: &[&str]) -> Option<Value> {
        let finished = self.weft(&[arguments, &["--output", "json"]].concat());
        if finished.status.success() { serde_json::from_str(&finished.stdout).ok() } else { None }
    }

    /// Names of the workloads that are ready.
    pub fn ready(&self) -> BTreeSet<String> {
        let documents = self.ask(&["get", "workload"]).unwrap_or_default();
        let ready = documents.as_array().into_iter().flatten().filter(|document| document["spec"]["state"] == "ready");
        ready.filter_map(|document| document["metadata"]["name"].as_str()).map(str::to_owned).collect()
    }

    /// Workloads of the proxies that are connected and hold all there is, in every part accepted.
    pub fn current(&self) -> BTreeSet<String> {
        let status = self.ask(&["status"]).unwrap_or_default();
        let revision = status["revision"].as_u64();
        let proxies = status["proxies"].as_array().into_iter().flatten();
        let current = proxies.filter(|proxy| {
            proxy["appliedRevision"].as_u64() >= revision && proxy["pending"] == 0 && proxy["nack"] == ""
        });
        current.filter_map(|proxy| proxy["workload"].as_str()?.strip_prefix("default/")).map(str::to_owned).collect()
    }

    /// Waits until every workload is ready and every proxy knows it.
    #[track_caller]
    pub fn settle(&self) {
        until("every workload is ready and every proxy is up to date", || {
            let documents = self.ask(&["get", "workload"])?.as_array()?.len();
            let ready = self.ready();
            (ready.len() == documents && ready == self.current()).then_some(())
        });
    }

    /// The pod of a workload, while it has a proxy.
    pub fn find_pod(&self, workload: &str) -> Option<Pod> {
        let below = descendants(self.supervisor());
        let inits = below.iter().filter(|process| process.name == "weft-pod-init");
        inits.into_iter().find_map(|init| {
            // Programs lead groups of their own; what they left behind does not.
            let own = |process: &&Process| process.parent == init.pid && process.group == process.pid;
            let (proxies, others): (Vec<&Process>, Vec<&Process>) =
                below.iter().filter(own).partition(|process| variable(process.pid, "WEFT_CONTROL_PLANE").is_some());
            let of_workload = |proxy: &&&Process| variable(proxy.pid, "WEFT_WORKLOAD").as_deref() == Some(workload);
            let proxy = proxies.iter().find(of_workload)?.pid;
            Some(Pod { init: init.pid, proxy, application: others.first().map(|process| process.pid) })
        })
    }

    #[track_caller]
    pub fn pod(&self, workload: &str) -> Pod {
        until(&format!("the processes of {workload}"), || self.find_pod(workload))
    }

    /// The control plane's process.
    #[track_caller]
    pub fn control_plane(&self) -> u32 {
        until("the control plane's process", || {
            descendants(self.supervisor()).into_iter().find_map(|process| {
                let line = std::fs::read(format!("/proc/{}/cmdline", process.pid)).ok()?;
                line.starts_with(b"weft\0control-plane\0").then_some(process.pid)
            })
        })
    }

    /// The first address of a workload.
    #[track_caller]
    pub fn address(&self, workload: &str) -> String {
        let documents = self.ask(&["get", "workload"]).expect("the control plane answers");
        let documents = documents.as_array().into_iter().flatten();
        let found = documents
            .filter(|document| document["metadata"]["name"] == workload)
            .find_map(|document| document["spec"]["addresses"][0].as_str().map(str::to_owned));
        found.unwrap_or_else(|| panic!("{workload} has no address"))
    }

    /// A program in a pod, as its application would call it.
    #[track_caller]
    pub fn inside(&self, workload: &str, arguments: &[&str]) -> Command {
        let namespaces: &[&str] =
            if self.ground.how == How::Loopback { &["--net"] } else { &["--net", "--mount", "--uts"] };
        enter(self.pod(workload).init, namespaces, arguments)
    }

    /// Runs a program in a pod to its end.
    #[track_caller]
    pub fn exec(&self, workload: &str, arguments: &[&str]) -> Finished {
        run(self.inside(workload, arguments))
    }

    /// A program on the mesh's bridge, beside the pods and no part of the mesh.
    pub fn outside(&self, arguments: &[&str]) -> Command {
        enter(self.supervisor(), &["--net"], arguments)
    }

    /// The figures of a workload's proxy.
    #[track_caller]
    pub fn scrape(&self, workload: &str) -> Metrics {
        let (status, text) =
            self.admin(workload, "/metrics").unwrap_or_else(|error| panic!("the proxy of {workload}: {error}"));
        assert_eq!(status, 200, "{text}");
        Metrics::parse(&text)
    }

    /// The figures of a workload's proxy once nothing is under way: a client has its answer a moment before the request
    /// is counted.
    pub fn settled(&self, workload: &str) -> Metrics {
        until(&format!("nothing is under way in {workload}"), || {
            let figures = self.scrape(workload);
            (figures.sum("weft_requests_in_flight", &[]) == 0).then_some(figures)
        })
    }

    /// What a workload's proxy answers to `GET path`.
    ///
    /// # Errors
    /// When it does not.
    pub fn admin(&self, workload: &str, path: &str) -> std::io::Result<(u16, String)> {
        get(&self.ground.data().join("pods").join(workload).join("admin.sock"), path)
    }

    /// Starts `weft load ARGUMENTS` in a pod.
    #[track_caller]
    pub fn load(&self, workload: &str, arguments: &[&str]) -> Load {
        let weft = self.ground.weft.display().to_string();
        Load { running: Running::start(self.inside(workload, &[&[weft.as_str(), "load"], arguments].concat())) }
    }

    /// Ends the mesh by a signal; what is left is its ground.
    #[track_caller]
    pub fn stop(mut self, signal: Signal) -> (Arc<Ground>, Finished) {
        let up = self.up.take().expect("only this takes it");
        up.signal(signal);
        (Arc::clone(&self.ground), up.finish(STOP))
    }

    fn up(&self) -> &Running {
        self.up.as_ref().expect("it is there until the mesh is stopped")
    }

    /// What a failed test shows of a mesh.
    fn show(&self) {
        eprintln!("weft up:\n{}", last_lines(&self.up().stderr(), 20));
        let logs = std::fs::read_dir(self.ground.data().join("logs"));
        for entry in logs.into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            if !text.is_empty() {
                eprintln!("{}:\n{}", entry.file_name().display(), last_lines(&text, 15));
            }
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if self.up.is_some() && std::thread::panicking() {
            self.show();
        }
        // Killed: nothing in a mesh outlives its supervisor, but the kernel takes a moment.
        drop(self.up.take());
        let deadline = now() + PATIENCE;
        while !self.ground.processes().is_empty() && now() < deadline {
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

/// A running `weft load`.
#[derive(Debug)]
pub struct Load {
    running: Running,
}

/// What became of the requests of a load.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    pub requests: u64,
    pub failures: u64,
    pub last_failure: String,
}

impl Load {
    /// Waits for its end, and that it is content.
    #[track_caller]
    pub fn finish(self) -> Figures {
        let finished = self.running.finish(LOAD);
        let summary = figures(&finished.stdout, "summary").pop().unwrap_or_else(|| panic!("no summary: {finished}"));
        assert!(finished.status.success(), "{finished}");
        summary
    }

    /// Ends it; what became of all requests up to now, and a few more.
    #[track_caller]
    pub fn stop(self) -> Figures {
        // It tells once a second: the line after next is about what comes after this moment.
        let told = || figures(&self.running.stdout(), "second");
        let before = told().len();
        let seconds = until("the load tells", || Some(told()).filter(|seconds| seconds.len() >= before + 2));
        seconds.into_iter().fold(Figures::default(), |sum, second| Figures {
            requests: sum.requests + second.requests,
            failures: sum.failures + second.failures,
            last_failure: if second.failures > 0 { second.last_failure } else { sum.last_failure },
        })
    }
}

/// The lines of one kind that `weft load` has printed.
fn figures(output: &str, kind: &str) -> Vec<Figures> {
    let values = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let chosen = values.filter(|value| value["kind"] == kind);
    let read = chosen.map(|value| Figures {
        requests: value["requests"].as_u64().unwrap_or_default(),
        failures: value["failures"].as_u64().expect("every line counts failures"),
        last_failure: value["last_failure"].as_str().unwrap_or_default().to_owned(),
    });
    read.collect()
}

/// A program in namespaces of another process.
pub fn enter(pid: u32, namespaces: &[&str], arguments: &[&str]) -> Command {
    let mut command = command("nsenter");
    command.args(["--target", &pid.to_string()]).args(namespaces).arg("--").args(arguments);
    command
}

/// Kills a process at once.
#[track_caller]
pub fn kill_now(pid: u32) {
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap_or_else(|error| panic!("killing {pid}: {error}"));
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
