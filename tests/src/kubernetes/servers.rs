//! etcd, the API server and the controllers as processes.
//!
//! They are in the cluster's network, so their ports are the usual ones. They die with the thread that starts them.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::keys::Keys;
use super::network::{NODE, SERVICES};
use super::programs::{self, Version};
use crate::mesh::command::command;
use crate::process::Process;

const ETCD: &str = "http://127.0.0.1:2379";
const ETCD_PEERS: &str = "http://127.0.0.1:2380";
pub const API_PORT: u16 = 6443;
/// What signs tokens of service accounts says that it is.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Characters of a server's log that a failing test shows: servers say much, and a test's own reason stands before them.
const SHOWN: usize = 1_500;

/// Those that turn what users write into pods, endpoints and tokens, and that tidy up. Nodes and volumes are the
/// business of a real cluster.
const CONTROLLERS: &[&str] = &[
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "root-ca-certificate-publisher-controller",
    "namespace-controller",
    "garbage-collector-controller",
    "endpoints-controller",
    "endpointslice-controller",
    "endpointslice-mirroring-controller",
    "deployment-controller",
    "replicaset-controller",
    "statefulset-controller",
    "daemonset-controller",
    "job-controller",
    "disruption-controller",
    "clusterrole-aggregation-controller",
];

/// The servers of a cluster.
#[derive(Debug)]
pub struct Servers {
    version: Version,
    place: PathBuf,
    etcd: Process,
    api: Process,
    controllers: Option<Process>,
}

impl Servers {
    pub fn start(version: Version, place: &Path, keys: &Keys) -> Self {
        let mut etcd = command(programs::etcd());
        etcd.arg("--data-dir").arg(place.join("etcd")).args(["--listen-client-urls", ETCD]);
        etcd.args(["--advertise-client-urls", ETCD, "--listen-peer-urls", ETCD_PEERS]);
        etcd.args(["--initial-advertise-peer-urls", ETCD_PEERS, "--initial-cluster"]);
        etcd.arg(format!("default={ETCD_PEERS}")).args(["--log-level", "warn"]);
        // A test's cluster need not survive the machine.
        etcd.arg("--unsafe-no-fsync");
        let etcd = Process::start("etcd", &mut etcd, &place.join("etcd.log")).showing(SHOWN);
        Self { version, place: place.to_owned(), etcd, api: api_server(version, place, keys), controllers: None }
    }

    /// The API server must be there: the controllers end when they cannot find out what it has.
    pub fn start_controllers(&mut self, kubeconfig: &Path, keys: &Keys) {
        let mut manager = command(programs::controller_manager());
        manager.arg("--kubeconfig").arg(kubeconfig).arg(format!("--controllers={}", CONTROLLERS.join(",")));
        manager.arg("--service-account-private-key-file").arg(keys.path("accounts.key"));
        manager.arg("--root-ca-file").arg(keys.path("ca.crt"));
        // Alone, and asked by nobody.
        manager.args(["--leader-elect=false", "--secure-port=0"]);
        manager.args(["--kube-api-qps=500", "--kube-api-burst=1000"]);
        let log = self.place.join("kube-controller-manager.log");
        self.controllers = Some(Process::start("kube-controller-manager", &mut manager, &log).showing(SHOWN));
    }

    /// SIGKILL to the API server: it is away from now on.
    pub fn kill_api(&mut self) {
        self.api.kill();
    }

    /// Starts it again on the same data.
    pub fn start_api(&mut self, keys: &Keys) {
        assert!(self.api.has_ended().is_some(), "the API server still runs");
        self.api = api_server(self.version, &self.place, keys);
    }

    /// What has ended that should run, with what it said.
    pub fn dead(&mut self) -> Option<String> {
        let all = [Some(&mut self.etcd), Some(&mut self.api), self.controllers.as_mut()];
        all.into_iter()
            .flatten()
            .find_map(|process| process.has_ended().map(|status| format!("{status}\n{}", process.log())))
    }
}

fn api_server(version: Version, place: &Path, keys: &Keys) -> Process {
    let mut server: Command = command(version.api_server());
    let mut file = |flag: &str, name: &str| {
        server.arg(flag).arg(keys.path(name));
    };
    file("--client-ca-file", "ca.crt");
    file("--tls-cert-file", "apiserver.crt");
    file("--tls-private-key-file", "apiserver.key");
    file("--service-account-signing-key-file", "accounts.key");
    file("--service-account-key-file", "accounts.pub");
    server.arg(format!("--service-account-issuer={ISSUER}"));
    server.arg(format!("--etcd-servers={ETCD}"));
    server.arg(format!("--service-cluster-ip-range={SERVICES}"));
    server.arg(format!("--advertise-address={NODE}"));
    server.arg(format!("--secure-port={API_PORT}"));
    server.args(["--bind-address=0.0.0.0", "--authorization-mode=RBAC", "--allow-privileged=true"]);
    // Pod Security is one of the default plugins.
    server.args(["--profiling=false", "--enable-priority-and-fairness=false"]);
    Process::start("kube-apiserver", &mut server, &place.join("kube-apiserver.log")).showing(SHOWN)
}
