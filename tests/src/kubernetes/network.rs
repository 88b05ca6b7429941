//! A cluster's network: a namespace of its own, in which addresses and ports are the same in every test.
//!
//! Namespaces belong to threads. Whoever talks to the cluster enters its network first, and what it starts is in it too.
//! The namespace goes with the last process and descriptor in it.

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::process::Stdio;

use nix::sched::{CloneFlags, setns, unshare};

use crate::process::system;

/// The node's address: the API server, and what probes come from.
pub const NODE: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// Cluster IPs, of which these are taken.
pub const SERVICES: &str = "10.96.0.0/16";
pub const SERVICE_OF_API: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

#[derive(Debug)]
pub struct Network {
    namespace: File,
}

impl Network {
    /// Makes a network; the calling thread is in it from now on.
    pub fn create() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("root makes network namespaces");
        let namespace = File::open("/proc/thread-self/ns/net").expect("a thread has a namespace");
        // Pods are routed, one address each: what goes from pod to pod passes the node's rules of Services.
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("the namespace is ours");
        ip(&[
            "link set lo up".to_owned(),
            format!("address add {NODE}/32 dev lo"),
            format!("address add {NAME_SERVER}/32 dev lo"),
            // What the node itself sends to a Service needs a route before it is turned to an endpoint.
            format!("route add {SERVICES} dev lo src {NODE}"),
        ]);
        Self { namespace }
    }

    /// Puts the calling thread into it.
    pub fn enter(&self) {
        setns(&self.namespace, CloneFlags::CLONE_NEWNET).expect("root enters network namespaces");
    }
}

/// Runs commands of `ip` in the namespace of the calling thread.
pub fn ip(commands: &[String]) {
    let mut ip = system("ip");
    ip.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = ip.spawn().expect("ip is installed");
    let mut input = child.stdin.take().expect("it was piped");
    input.write_all((commands.join("\n") + "\n").as_bytes()).expect("ip reads its commands");
    drop(input);
    let output = child.wait_with_output().expect("a child can be waited for");
    assert!(output.status.success(), "{commands:#?}: {}", String::from_utf8_lossy(&output.stderr));
}
