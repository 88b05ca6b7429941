//! A proxy as a workload has it: `weft-proxy` with its settings in the environment.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::http::{self, Answer};
use super::metrics::Metrics;
use super::plane::Plane;
use super::{Port, Process, Programs, command, holds, until};

/// What a proxy is started with.
#[derive(Debug)]
pub struct Settings {
    workload: String,
    account: String,
    token: PathBuf,
    outbound: Vec<String>,
    inbound: Vec<String>,
    more: BTreeMap<String, String>,
    programs: Programs,
    /// The proxy's program, where it runs under a supervisor.
    supervised: Option<PathBuf>,
}

impl Settings {
    /// A proxy without listeners of use, with a token of its account.
    pub fn new(plane: &Plane, workload: &str, account: &str) -> Self {
        Self::with_token(workload, account, plane.token(account))
    }

    pub fn with_token(workload: &str, account: &str, token: PathBuf) -> Self {
        Self {
            workload: workload.to_owned(),
            account: account.to_owned(),
            token,
            outbound: Vec::new(),
            inbound: Vec::new(),
            more: BTreeMap::new(),
            programs: Programs::ours(),
            supervised: None,
        }
    }

    /// The proxy is one of these programs.
    #[must_use]
    pub fn of(self, programs: &Programs) -> Self {
        Self { programs: programs.clone(), ..self }
    }

    /// Connections to `port` count as made to `original`.
    #[must_use]
    pub fn outbound(mut self, port: &Port, original: SocketAddr) -> Self {
        self.outbound.push(format!("{}={original}", port.address()));
        self
    }

    /// Connections to `port` count as made to the application at `original`.
    #[must_use]
    pub fn inbound(mut self, port: &Port, original: SocketAddr) -> Self {
        self.inbound.push(format!("{}={original}", port.address()));
        self
    }

    /// A further setting; replaces what is usual.
    #[must_use]
    pub fn set(mut self, name: &str, value: &dyn Display) -> Self {
        self.more.insert(name.to_owned(), value.to_string());
        self
    }

    /// It runs under a supervisor, which is this program and puts in place what lies there.
    #[must_use]
    pub fn supervised(mut self, program: &Path) -> Self {
        self.supervised = Some(program.to_owned());
        self
    }

    pub fn start(self, plane: &Plane) -> Sidecar {
        let admin = Port::reserve();
        let list = |list: &Vec<String>| if list.is_empty() { "127.0.0.1:0".to_owned() } else { list.join(",") };
        let mut environment = BTreeMap::from([
            ("WEFT_WORKLOAD".to_owned(), self.workload.clone()),
            ("WEFT_SERVICE_ACCOUNT".to_owned(), self.account),
            ("WEFT_CONTROL_PLANE".to_owned(), plane.address().to_string()),
            ("WEFT_BUNDLE".to_owned(), plane.bundle().display().to_string()),
            ("WEFT_JOIN_TOKEN_FILE".to_owned(), self.token.display().to_string()),
            ("WEFT_ADMIN".to_owned(), admin.address().to_string()),
            ("WEFT_OUTBOUND".to_owned(), list(&self.outbound)),
            ("WEFT_INBOUND".to_owned(), list(&self.inbound)),
            // Everything a proxy logs is searched for secrets.
            ("WEFT_LOG".to_owned(), "debug".to_owned()),
            ("WEFT_WORKERS".to_owned(), "1".to_owned()),
        ]);
        environment.extend(self.more);
        let log = plane.place().join(format!("{}.log", self.workload));
        let process = launch(&self.workload, &self.programs, self.supervised.as_deref(), &environment, &log);
        Sidecar {
            workload: self.workload,
            supervised: self.supervised,
            environment,
            admin,
            log,
            programs: self.programs,
            process,
        }
    }
}

fn launch(
    workload: &str,
    programs: &Programs,
    supervised: Option<&Path>,
    environment: &BTreeMap<String, String>,
    log: &Path,
) -> Process {
    let mut command = command(supervised.map_or_else(|| programs.path("weft-proxy"), Path::to_owned));
    command.args(supervised.map(|_| "supervise")).envs(environment);
    Process::start(workload, &mut command, log)
}

/// A proxy.
#[derive(Debug)]
pub struct Sidecar {
    workload: String,
    supervised: Option<PathBuf>,
    environment: BTreeMap<String, String>,
    admin: Port,
    log: PathBuf,
    programs: Programs,
    pub process: Process,
}

impl Sidecar {
    /// Starts it again after its end, with the same settings.
    pub fn start_again(&mut self) {
        self.start_again_as(&self.programs.clone());
    }

    /// The same, of these programs.
    pub fn start_again_as(&mut self, programs: &Programs) {
        assert!(self.process.has_ended().is_some(), "the proxy still runs");
        self.programs = programs.clone();
        self.process = launch(&self.workload, &self.programs, self.supervised.as_deref(), &self.environment, &self.log);
    }

    /// Its name in the status: `NAMESPACE/WORKLOAD`.
    pub fn workload(&self) -> String {
        format!("default/{}", self.workload)
    }

    pub fn admin(&self) -> SocketAddr {
        self.admin.address()
    }

    /// What its admin endpoint says.
    pub fn ask(&self, path: &str) -> std::io::Result<Answer> {
        http::get(self.admin(), path)
    }

    /// Waits until it says that it is ready.
    pub fn ready(&self) {
        until(&format!("{} is ready", self.workload), || match self.ask("/ready") {
            Ok(answer) => holds(answer.status == 200, || answer.body),
            Err(error) => Err(error.to_string()),
        });
    }

    pub fn metrics(&self) -> Metrics {
        let answer = self.ask("/metrics").expect("the admin endpoint answers");
        assert_eq!(answer.status, 200);
        Metrics::parse(&answer.body)
    }

    /// Its signals once nothing is under way: a client has its answer a moment before the request is counted.
    pub fn settled(&self) -> Metrics {
        until(&format!("nothing is under way in {}", self.workload), || {
            let metrics = self.metrics();
            let left = metrics.sum("weft_requests_in_flight", &[]);
            if left == 0 { Ok(metrics) } else { Err(left.to_string()) }
        })
    }

    pub fn dump(&self) -> Value {
        let answer = self.ask("/config_dump").expect("the admin endpoint answers");
        assert_eq!(answer.status, 200);
        serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error} in {}", answer.body))
    }

    /// The addresses of a cluster's endpoints, as the proxy has them.
    pub fn endpoints(&self, cluster: &str) -> Vec<String> {
        let dump = self.dump();
        let clusters = dump["clusters"].as_array().expect("clusters are a list");
        let found = clusters.iter().find(|found| found["name"] == cluster);
        let endpoints = found.and_then(|cluster| cluster["endpoints"].as_array());
        let address = |endpoint: &Value| endpoint["address"].as_str().unwrap_or_default().to_owned();
        endpoints.into_iter().flatten().map(address).collect()
    }

    pub fn log(&self) -> String {
        self.process.log()
    }
}
