//! The namespaces of a pod: network, processes, host name. Its first process holds them, and takes all others with it.

use std::net::Ipv4Addr;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::kubernetes::network::{NODE, ip};
use crate::process::system;

/// Holds a pod's namespaces; says that they are there, and then sleeps.
const PAUSE: &str = r#"printf %s "$1" >/proc/sys/kernel/hostname; echo ready; exec sleep infinity"#;

#[derive(Debug)]
pub(super) struct Sandbox {
    /// Not the first process but the one outside that made it; both go when this is dropped.
    holder: Child,
    /// The first process of the namespaces.
    pub(super) pause: u32,
    pub(super) address: Ipv4Addr,
}

impl Sandbox {
    /// Makes namespaces; a network of its own, still without an interface, unless the pod uses the node's.
    pub(super) async fn create(hostname: &str, address: Ipv4Addr, of_node: bool) -> Result<Self, String> {
        let mut unshare = Command::from(system("setpriv"));
        unshare.args(["--pdeathsig", "KILL", "--", "unshare", "--uts", "--ipc", "--pid"]);
        if !of_node {
            unshare.arg("--net");
        }
        unshare.args(["--fork", "--kill-child=KILL", "sh", "-c", PAUSE, "pause", hostname]);
        unshare.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut holder = unshare.spawn().map_err(|error| format!("unshare: {error}"))?;
        let stdout = holder.stdout.take().ok_or("unshare has no output")?;
        let said = BufReader::new(stdout).lines().next_line().await;
        if !matches!(said.as_ref().map(Option::as_deref), Ok(Some("ready"))) {
            return Err(format!("the pod's namespaces cannot be made: {said:?}"));
        }
        let pause = holder.id().and_then(child_of).ok_or("the pod's first process has ended")?;
        Ok(Self { holder, pause, address })
    }

    /// Where others find its network.
    pub(super) fn network(&self) -> String {
        format!("/proc/{}/ns/net", self.pause)
    }

    /// Joins its network to the node's: one address, and the node on the other end of everything.
    pub(super) async fn join(&self) -> Result<(), String> {
        let Self { pause, address, .. } = self;
        let [.., high, low] = address.octets();
        let outer = format!("pod{}", u16::from_be_bytes([high, low]));
        // On this thread, which is in the node's network.
        ip(&[
            format!("link add {outer} type veth peer name eth0 netns {pause}"),
            format!("link set {outer} up"),
            format!("route add {address}/32 dev {outer} src {NODE}"),
        ]);
        let inside = format!(
            "link set lo up\naddress add {address}/32 dev eth0\nlink set eth0 up\n\
             route add {NODE}/32 dev eth0 scope link\nroute add default via {NODE} dev eth0\n"
        );
        let mut nsenter = Command::from(system("nsenter"));
        nsenter.args(["--target", &pause.to_string(), "--net", "--", "ip", "-batch", "-"]);
        let output = fed(nsenter, inside.as_bytes()).await?;
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    /// Ends everything in it, and waits until it has ended.
    pub(super) async fn end(mut self) {
        // It may have ended by itself.
        let _ = self.holder.kill().await;
    }
}

/// Runs a command with this on its standard input.
pub(super) async fn fed(mut command: Command, input: &[u8]) -> Result<std::process::Output, String> {
    use tokio::io::AsyncWriteExt;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    let mut stdin = child.stdin.take().ok_or("no input")?;
    stdin.write_all(input).await.map_err(|error| error.to_string())?;
    drop(stdin);
    child.wait_with_output().await.map_err(|error| error.to_string())
}

/// The first child of a process (proc(5), `children`).
pub(super) fn child_of(pid: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}
