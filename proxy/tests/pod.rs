//! The proxy in a pod of its own: captured, asked by a kubelet from outside, and told to end.

#![allow(clippy::unwrap_used, reason = "a test that cannot have what it needs has failed")]

#[path = "cni/support.rs"]
#[allow(dead_code, reason = "the other tests use more of it")]
mod support;

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use support::{Namespace, PROGRAM, until};

/// The application's user: another one than the proxy's.
const USER: &str = "65534";
const PROBES: &str = r#"{
    "web/readiness": {"httpGet": {"path": "/", "port": 8080}},
    "web/liveness": {"tcpSocket": {"port": 8080}},
    "web/startup": {"tcpSocket": {"port": 9999}}
}"#;

/// A process of the pod; killed when dropped.
struct Process(Child);

impl Process {
    fn start(pod: &Namespace, line: &[&str], settings: &[(&str, &str)], log: File) -> Self {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", pod.path())).args(line).envs(settings.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self(command.spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The status of an answer, as one outside the pod gets it; nothing where there is none.
fn ask(world: &Namespace, url: &str) -> String {
    let line =
        ["--silent", "--globoff", "--max-time", "10", "--output", "/dev/null", "--write-out", "%{http_code}", url];
    let output =
        Command::new("nsenter").arg(format!("--net={}", world.path())).arg("curl").args(line).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A pod with 10.9.0.1 and `fd09::1`, and its node.
fn pod_and_node() -> (Namespace, Namespace) {
    let (pod, node) = (Namespace::new(), Namespace::new());
    let of_node = node.path();
    let of_node = of_node.split('/').nth(2).unwrap();
    pod.run("ip", &["link", "set", "lo", "up"]);
    pod.run("ip", &["link", "add", "eth0", "type", "veth", "peer", "name", "pod", "netns", of_node]);
    for (namespace, device, last) in [(&pod, "eth0", 1), (&node, "pod", 2)] {
        namespace.run("ip", &["addr", "add", &format!("10.9.0.{last}/24"), "dev", device]);
        namespace.run("ip", &["addr", "add", &format!("fd09::{last}/64"), "dev", device, "nodad"]);
        namespace.run("ip", &["link", "set", device, "up"]);
    }
    (pod, node)
}

#[test]
fn a_captured_pod_answers_its_kubelet_and_its_proxy_ends_after_the_application() {
    if !geteuid().is_root() {
        // The application needs a user of its own, which a user namespace of ours does not have.
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "a build machine must run this test");
        println!("skipped: not root");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (pod, node) = pod_and_node();
    let install = ["capture", "install", "--exempt-uid", "0", "--exclude-inbound-ports", "15020"];
    let serve = |address| {
        let line = [
            "setpriv",
            "--reuid",
            USER,
            "--clear-groups",
            "/usr/bin/python3",
            "-m",
            "http.server",
            "8080",
            "--bind",
            address,
        ];
        Process::start(
            &pod,
            &[&line[..], &["--directory", "/usr/share"]].concat(),
            &[],
            File::create("/dev/null").unwrap(),
        )
    };
    // Debian's: what else the path has may be its owner's alone. On the pod's addresses alone: nothing listens on loopback.
    let applications = [serve("10.9.0.1"), serve("fd09::1")];
    let settings = [
        ("WEFT_NAMESPACE", "shop"),
        ("WEFT_WORKLOAD", "web"),
        ("WEFT_CONTROL_PLANE", "127.0.0.1:1"),
        ("WEFT_BUNDLE", "/nonexistent"),
        ("WEFT_HEALTH", "0.0.0.0:15020,[::]:15020"),
        ("WEFT_APP_PROBES", PROBES),
        ("WEFT_REQUIRE_CAPTURE", "on"),
    ];
    let log = place.path().join("log");
    let mut proxy = Process::start(&pod, &[PROGRAM], &settings, File::create(&log).unwrap());
    let said = |words: &str| fs::read_to_string(&log).unwrap().contains(words);

    until("the proxy misses the rules", || said("this pod is not captured"));
    let waits_for = || pod.run("curl", &["--silent", "http://127.0.0.1:15000/ready"]);
    assert!(waits_for().contains("capture"), "{}", waits_for());
    pod.run(PROGRAM, &install);
    until("the proxy sees the rules", || !waits_for().contains("capture"));
    assert!(waits_for().contains("certificate"), "{}", waits_for());

    for address in ["10.9.0.1", "[fd09::1]"] {
        let probe = |name: &str| ask(&node, &format!("http://{address}:15020{name}"));
        until("the proxy lives", || probe("/live") == "200");
        until("the application answers its probe", || probe("/app-probe/web/readiness") == "200");
        assert_eq!(probe("/app-probe/web/liveness"), "200");
        assert_eq!(probe("/app-probe/web/startup"), "503", "nobody listens there");
        assert_eq!(probe("/ready"), "503", "there is no control plane");
        assert_eq!(probe("/config_dump"), "404");
        assert_eq!(ask(&node, &format!("http://{address}:8080/")), "000", "plaintext is refused by the proxy");
    }

    proxy.signal(Signal::SIGTERM);
    until("the proxy waits for the application", || said("the proxy stays until it has ended"));
    assert_eq!(ask(&node, "http://10.9.0.1:15020/app-probe/web/readiness"), "200");
    drop(applications);
    assert!(proxy.0.wait().unwrap().success());
    assert!(said("stopped"), "{}", fs::read_to_string(&log).unwrap());
}
