//! `weft up` in real namespaces, with a control plane and proxies that are faked by `examples/pod_host.rs`.
//!
//! Each mesh runs with a mark in its environment, which all its processes inherit: what carries the mark is counted,
//! found and killed, and nothing else.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use weft_proxy::clock;

const DEADLINE: Duration = Duration::from_secs(40);
const NOBODY: u32 = 65534;

#[test]
fn pods_reach_each_other_by_address_and_know_the_names_of_services() {
    let Some(mesh) = Mesh::start(As::Itself, PAIR, &[]) else { return };
    mesh.pods_reach_each_other();
    let log = mesh.log("orders-1-proxy");
    if Uid::effective().is_root() {
        assert!(log.contains("proxy of uid 14001"), "{log}");
    }
    assert!(log.contains(r#"("WEFT_CONTROL_PLANE", "10.97.0.1:15010")"#), "{log}");
}

#[test]
fn a_user_without_privileges_gets_the_same_mesh() {
    if !Uid::effective().is_root() {
        return eprintln!("skipped: the test itself has no privileges, so the others have shown it");
    }
    let Some(mesh) = Mesh::start(As::Nobody, PAIR, &[]) else { return };
    mesh.pods_reach_each_other();
    let log = mesh.log("orders-1");
    assert!(log.contains(&format!("serving as uid {NOBODY}")), "a program sees its real user: {log}");
    assert!(mesh.log("orders-1-proxy").contains("WEFT_SOCKET_MARK"));
    mesh.vanishes_when_killed();
}

#[test]
fn nothing_outlives_a_supervisor_that_is_killed() {
    let Some(mesh) = Mesh::start(As::Itself, PAIR, &[]) else { return };
    mesh.vanishes_when_killed();
}

#[test]
fn a_stopped_mesh_leaves_nothing_and_ends_applications_before_their_proxies() {
    let text = "
services:
  web:
    command: \"trap 'echo application asked to end; exit 0' TERM; HOST serve & echo up; wait\"
    port: 8080
";
    let Some(mut mesh) = Mesh::start(As::Itself, text, &[]) else { return };
    let namespaces = mesh.namespaces();
    assert!(namespaces.len() >= 2, "fabric and pod: {namespaces:?}");
    kill(mesh.supervisor_pid(), Signal::SIGTERM).unwrap();
    let status = mesh.wait();
    assert!(status.success(), "{status}");
    assert!(mesh.log("web-1").contains("application asked to end"), "{}", mesh.log("web-1"));
    assert!(mesh.log("web-1-proxy").contains("proxy asked to end"), "{}", mesh.log("web-1-proxy"));
    mesh.nothing_is_left(&namespaces);
    assert!(!mesh.data.join("up.sock").exists());
    let modified = |name: &str| fs::metadata(mesh.log_path(name)).unwrap().modified().unwrap();
    assert!(modified("web-1") <= modified("web-1-proxy"));
}

#[test]
fn a_mesh_with_a_time_limit_ends_by_itself_and_takes_its_directory_along() {
    if !namespaces_work(As::Itself) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mesh.yaml");
    fs::write(&file, "services: {web: {command: [HOST, serve], port: 80}}".replace("HOST", host().to_str().unwrap()))
        .unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let temporary = directory.path().join("t");
    fs::create_dir(&temporary).unwrap();
    let output = output(Command::new(host()).arg("up").arg(&file).args(["--for", "100ms"]).env("TMPDIR", &temporary));
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("1 of 1 workloads are ready"), "{output:?}");
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
}

#[test]
fn an_application_that_dies_is_started_again_and_takes_no_work_meanwhile() {
    let Some(mesh) = Mesh::start(As::Itself, PAIR, &[]) else { return };
    let application = mesh.process(&["serve"], "orders-2");
    let from = mesh.history().len();
    kill(application, Signal::SIGKILL).unwrap();
    mesh.happens_after(from, &["Workload orders-2 unhealthy", "Workload orders-2 ready"]);
    assert_ne!(mesh.process(&["serve"], "orders-2"), application);
    assert!(!mesh.history()[from..].iter().any(|line| line.contains("orders-1")), "{:?}", mesh.history());
}

#[test]
fn a_proxy_that_dies_is_started_again_and_its_application_goes_on() {
    let Some(mesh) = Mesh::start(As::Itself, PAIR, &[]) else { return };
    let application = mesh.process(&["serve"], "orders-1");
    let from = mesh.history().len();
    kill(mesh.process(&["proxy"], "orders-1"), Signal::SIGKILL).unwrap();
    mesh.happens_after(from, &["Workload orders-1 unhealthy", "Workload orders-1 ready"]);
    assert_eq!(mesh.process(&["serve"], "orders-1"), application);
}

#[test]
fn a_pod_whose_first_process_dies_is_made_again() {
    let Some(mesh) = Mesh::start(As::Itself, PAIR, &[]) else { return };
    let from = mesh.history().len();
    let old = mesh.process(&["serve"], "orders-1");
    kill(mesh.process(&["pod", "init"], "orders-1"), Signal::SIGKILL).unwrap();
    mesh.happens_after(from, &["Workload orders-1 unhealthy", "Workload orders-1 ready"]);
    assert_ne!(mesh.process(&["serve"], "orders-1"), old);
    // Under its old address, and at once: nobody has to forget where it was.
    let caller = mesh.log("load-1").len();
    eventually("orders-1 answers again", || {
        mesh.log("load-1")[caller..].contains("10.97.0.2:8080: hello from orders-1")
    });
}

#[test]
fn a_control_plane_that_dies_is_started_again() {
    let Some(mesh) = Mesh::start(As::Itself, PAIR, &[]) else { return };
    let old = mesh.process(&["control-plane"], "");
    fs::remove_file(mesh.data.join("api.sock")).unwrap();
    kill(old, Signal::SIGKILL).unwrap();
    eventually("a new control plane", || mesh.data.join("api.sock").exists());
    assert_ne!(mesh.process(&["control-plane"], ""), old);
}

#[test]
fn scaling_makes_and_drains_replicas() {
    let Some(mesh) = Mesh::start(As::Itself, PAIR, &[]) else { return };
    let from = mesh.history().len();
    let scaled = mesh.scale("orders", "3");
    assert!(scaled.status.success(), "{scaled:?}");
    assert!(mesh.history()[from..].contains(&"Workload orders-3 ready".to_owned()), "{:?}", mesh.history());
    let from = mesh.history().len();
    let scaled = mesh.scale("orders", "1");
    assert!(scaled.status.success(), "{scaled:?}");
    for name in ["orders-2", "orders-3"] {
        mesh.happens_after(from, &[&format!("Workload {name} draining"), &format!("Workload {name} deleted")]);
    }
    assert!(mesh.find(&["serve"], "orders-2").is_none());
    mesh.process(&["serve"], "orders-1");
    for (service, replicas, expected) in [
        ("order", "1", "found service `order`, allowed: orders, load"),
        ("orders", "51", "found 51 replicas, allowed: 0..=50"),
    ] {
        let refused = mesh.scale(service, replicas);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(1) && said.contains(expected), "{said}");
    }
}

#[test]
fn without_namespaces_programs_are_told_where_to_listen_and_whom_to_call() {
    let text = "
services:
  web:
    command: [HOST, serve]
    env: {PORT: '${PORT}'}
    port: 80
    targetPort: 9
    replicas: 2
  load:
    command: echo calling $WEFT_URL_WEB; exec sleep 1000
";
    let Some(mut mesh) = Mesh::start(As::Nobody, text, &["--no-namespaces"]) else { return };
    eventually("a call", || mesh.log("load-1").contains("calling http://127.0.0.1:"));
    let proxy = mesh.log("load-1-proxy");
    assert!(proxy.contains(r#"=10.96.0.2:80"), ("#), "the outbound entry names the virtual address: {proxy}");
    let proxy = mesh.log("web-2-proxy");
    assert!(proxy.contains(r#"("WEFT_INBOUND", "127.0.0.1:"#) && proxy.contains("=127.0.0.1:"), "{proxy}");
    kill(mesh.supervisor_pid(), Signal::SIGTERM).unwrap();
    assert!(mesh.wait().success());
    mesh.nothing_is_left(&BTreeSet::new());
}

#[test]
fn a_second_mesh_on_a_data_directory_is_refused_in_one_line() {
    let Some(mesh) = Mesh::start(As::Itself, PAIR, &[]) else { return };
    let second = output(Command::new(host()).arg("up").arg(&mesh.file).arg("--data").arg(&mesh.data));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!((second.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains(&format!("process {}", mesh.supervisor_pid())), "{said}");
}

#[test]
fn what_cannot_start_is_refused_in_one_line_before_anything_runs() {
    if !namespaces_work(As::Itself) {
        return;
    }
    for (command, expected) in [
        ("no-such-program-here", "services.web.command: found `no-such-program-here`"),
        ("/etc/passwd", "services.web.command: found `/etc/passwd`"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mesh.yaml");
        fs::write(&file, format!("services: {{web: {{command: [{command}], port: 80}}}}")).unwrap();
        let refused =
            output(Command::new(host()).arg("up").arg(&file).arg("--data").arg(directory.path().join("data")));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!((refused.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains(expected), "{said}");
        assert!(!directory.path().join("data").exists());
    }
}

/// Two that answer on 10.97.0.2 and 10.97.0.3, and one that asks, again and again: its pause is how a client goes
/// easy on two processors, and no test waits for it.
const PAIR: &str = "
services:
  orders:
    command: [HOST, serve]
    port: 80
    targetPort: 8080
    replicas: 2
  load:
    command: |
      while true; do
        for address in 10.97.0.2 10.97.0.3 '[fd58::3]'; do HOST ask $address:8080; done
        HOST resolve orders; HOST resolve orders.default.svc.cluster.local; hostname
        sleep 0.1
      done
";

#[derive(Clone, Copy, PartialEq)]
enum As {
    Itself,
    Nobody,
}

struct Mesh {
    supervisor: Child,
    mark: String,
    file: PathBuf,
    data: PathBuf,
    _directory: tempfile::TempDir,
}

impl Mesh {
    /// A running mesh; `None` (said aloud) where this machine allows no namespaces.
    fn start(who: As, text: &str, more: &[&str]) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !more.contains(&"--no-namespaces") && !namespaces_work(who) {
            return None;
        }
        let mark = format!("WEFT_TEST_MARK={}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let (file, data) = (directory.path().join("mesh.yaml"), directory.path().join("data"));
        fs::write(&file, text.replace("HOST", host().to_str().unwrap())).unwrap();
        let (key, value) = mark.split_once('=').unwrap();
        let supervisor = command(who)
            .arg("up")
            .arg(&file)
            .arg("--data")
            .arg(&data)
            .args(more)
            .env(key, value)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut mesh = Self { supervisor, mark, file, data, _directory: directory };
        let stderr = mesh.supervisor.stderr.take().unwrap();
        let mut said = String::new();
        for line in std::io::BufRead::lines(std::io::BufReader::new(stderr)) {
            let line = line.unwrap();
            if line.contains("workloads are ready") {
                return Some(mesh);
            }
            said += &line;
            said.push('\n');
        }
        panic!("the mesh did not start: {said}");
    }

    fn supervisor_pid(&self) -> Pid {
        Pid::from_raw(self.supervisor.id() as i32)
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.data.join("logs").join(format!("{name}.log"))
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.log_path(name)).unwrap_or_default()
    }

    fn history(&self) -> Vec<String> {
        let text = fs::read_to_string(self.data.join("history")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until the control plane has been told these things, in this order.
    fn happens_after(&self, from: usize, expected: &[&str]) {
        eventually(&format!("{expected:?}"), || {
            let history = self.history();
            let mut lines = history[from..].iter();
            expected.iter().all(|expected| lines.any(|line| line == expected))
        });
    }

    fn pods_reach_each_other(&self) {
        for expected in [
            "10.97.0.2:8080: hello from orders-1\n",
            "10.97.0.3:8080: hello from orders-2\n",
            "[fd58::3]:8080: hello from orders-2\n",
            "orders is 10.96.0.2:80\n",
            "orders is [fd57::2]:80\n",
            "orders.default.svc.cluster.local is 10.96.0.2:80\n",
            "load-1\n",
        ] {
            eventually(expected, || self.log("load-1").contains(expected));
        }
        assert!(self.history().contains(&"Workload load-1 ready".to_owned()));
        // All of it went through both proxies.
        for (proxy, expected) in [
            ("load-1-proxy", "carrying out to 10.97.0.2:8080\n"),
            ("load-1-proxy", "carrying out to [fd58::3]:8080\n"),
            ("orders-1-proxy", "carrying in to 127.0.0.1:8080\n"),
        ] {
            assert!(self.log(proxy).contains(expected), "{}", self.log(proxy));
        }
    }

    fn vanishes_when_killed(mut self) {
        let namespaces = self.namespaces();
        assert!(namespaces.len() >= 4, "fabric and three pods: {namespaces:?}");
        // Not at once: a process that is just becoming another program shows no environment.
        eventually("supervisor, control plane, four for each pod", || self.processes().len() >= 14);
        kill(self.supervisor_pid(), Signal::SIGKILL).unwrap();
        self.wait();
        self.nothing_is_left(&namespaces);
    }

    fn nothing_is_left(&self, namespaces: &BTreeSet<PathBuf>) {
        eventually("no process is left", || self.processes().is_empty());
        // A network namespace and its veths last as long as a process is in it.
        eventually("no namespace is left", || all_namespaces().is_disjoint(namespaces));
        let links = output(Command::new("ip").args(["-o", "link"]));
        let links = String::from_utf8_lossy(&links.stdout).into_owned();
        assert!(!links.contains("weft0") && !links.contains(": pod"), "{links}");
    }

    /// Every process of this mesh.
    fn processes(&self) -> Vec<Pid> {
        let mark = self.mark.as_bytes();
        let marked = |pid: &Pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|variable| variable == mark)
        };
        all_processes().into_iter().filter(marked).collect()
    }

    /// The process of a workload (or of none) with these arguments.
    fn find(&self, arguments: &[&str], workload: &str) -> Option<Pid> {
        let hostname_is = |pid: &Pid| {
            let of_pod = fs::read_link(format!("/proc/{pid}/ns/uts")).ok();
            let proxy = self.processes().into_iter().find(|other| {
                let environment = fs::read(format!("/proc/{other}/environ")).unwrap_or_default();
                let name = format!("WEFT_WORKLOAD={workload}");
                environment.split(|&byte| byte == 0).any(|variable| variable == name.as_bytes())
            });
            proxy.is_some_and(|proxy| fs::read_link(format!("/proc/{proxy}/ns/uts")).ok() == of_pod)
        };
        self.processes().into_iter().find(|pid| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&str> = line.trim_end_matches('\0').split('\0').skip(1).collect();
            words.starts_with(arguments) && (workload.is_empty() || hostname_is(pid))
        })
    }

    fn process(&self, arguments: &[&str], workload: &str) -> Pid {
        let mut found = None;
        eventually(&format!("{workload} {arguments:?}"), || {
            found = self.find(arguments, workload);
            found.is_some()
        });
        found.unwrap()
    }

    /// The network namespaces of this mesh.
    fn namespaces(&self) -> BTreeSet<PathBuf> {
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let of = |pid: Pid| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        self.processes().into_iter().filter_map(of).filter(|namespace| *namespace != own).collect()
    }

    fn scale(&self, service: &str, replicas: &str) -> Output {
        output(command(As::Itself).args(["scale", service, replicas, "--data"]).arg(&self.data))
    }

    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the supervisor has ended", || {
            status = self.supervisor.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.supervisor.kill().ok();
        self.supervisor.wait().ok();
        if std::thread::panicking() {
            for name in ["control-plane", "orders-1", "orders-1-proxy", "web-1", "load-1"] {
                let log = self.log(name);
                eprintln!("--- {name}\n{}", log.lines().take(20).collect::<Vec<_>>().join("\n"));
            }
            eprintln!("--- history {:?}", self.history());
        }
    }
}

/// The example beside this test: cargo builds it along.
fn host() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().and_then(Path::parent).unwrap().join("examples/pod_host")
}

fn command(who: As) -> Command {
    if who == As::Nobody && Uid::effective().is_root() {
        let mut command = Command::new("setpriv");
        let id = NOBODY.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(host());
        return command;
    }
    Command::new(host())
}

fn namespaces_work(who: As) -> bool {
    let how = if who == As::Itself && Uid::effective().is_root() { "root" } else { "user" };
    let probe = output(command(who).args(["pod", "probe", how]));
    if !probe.status.success() {
        eprintln!("skipped: no namespaces here: {}", String::from_utf8_lossy(&probe.stderr));
    }
    probe.status.success()
}

fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

fn all_processes() -> Vec<Pid> {
    let names = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    names.map(Pid::from_raw).collect()
}

fn all_namespaces() -> BTreeSet<PathBuf> {
    all_processes().iter().filter_map(|pid| fs::read_link(format!("/proc/{pid}/ns/net")).ok()).collect()
}

/// Waits for a condition.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = clock::now() + DEADLINE;
    while !condition() {
        assert!(clock::now() < deadline, "waited {DEADLINE:?} in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
