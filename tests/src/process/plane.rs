//! A control plane as its user has it: `weft control-plane` on a directory, and the verbs that talk to it.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{Finished, Port, Process, Programs, command, fed, run, until};

/// One control plane; its data lies in `PLACE/data`, its log in `PLACE/control-plane.log`.
#[derive(Debug)]
pub struct Plane {
    place: PathBuf,
    port: Port,
    arguments: Vec<String>,
    /// Whose control plane runs, and whose verbs talk to it.
    programs: Programs,
    process: Process,
}

/// `weft` with a data directory.
pub fn weft(data: &Path) -> Command {
    weft_of(&Programs::ours(), data)
}

fn weft_of(programs: &Programs, data: &Path) -> Command {
    let mut weft = command(programs.path("weft"));
    weft.env("WEFT_DATA", data);
    weft
}

impl Plane {
    pub fn start(place: &Path) -> Self {
        Self::start_with(place, &[])
    }

    /// Starts one with more arguments.
    pub fn start_with(place: &Path, arguments: &[&str]) -> Self {
        Self::start_as(place, arguments, &Programs::ours())
    }

    /// Starts one of these programs.
    pub fn start_as(place: &Path, arguments: &[&str], programs: &Programs) -> Self {
        let port = Port::reserve();
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let process = launch(place, &port, &arguments, programs);
        let plane = Self { place: place.to_owned(), port, arguments, programs: programs.clone(), process };
        plane.serves();
        plane
    }

    /// Starts it again after its end, on the same directory and port.
    pub fn start_again(&mut self) {
        self.start_again_as(&self.programs.clone());
    }

    /// The same, of these programs.
    pub fn start_again_as(&mut self, programs: &Programs) {
        assert!(self.process.has_ended().is_some(), "the control plane still runs");
        self.programs = programs.clone();
        self.process = launch(&self.place, &self.port, &self.arguments, programs);
        self.serves();
    }

    /// From now on it is talked to by the verbs of these programs.
    pub fn ask_by(&mut self, programs: &Programs) {
        self.programs = programs.clone();
    }

    fn verb(&self) -> Command {
        weft_of(&self.programs, &self.data())
    }

    fn serves(&self) {
        let socket = self.data().join("api.sock");
        until("the control plane serves", || {
            UnixStream::connect(&socket).map(drop).map_err(|error| format!("{error}\n{}", self.log()))
        });
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends it as an administrator would.
    pub fn stop(&mut self) -> ExitStatus {
        self.process.signal(Signal::SIGTERM);
        self.process.ended()
    }

    pub fn place(&self) -> &Path {
        &self.place
    }

    pub fn data(&self) -> PathBuf {
        self.place.join("data")
    }

    pub fn bundle(&self) -> PathBuf {
        self.data().join("bundle.pem")
    }

    /// Where proxies connect.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Runs a verb.
    pub fn weft(&self, arguments: &[&str]) -> Finished {
        run(self.verb().args(arguments))
    }

    /// Applies documents; what `weft apply` made of it.
    pub fn try_apply(&self, documents: &str) -> Finished {
        fed(self.verb().args(["apply", "-f", "-"]), documents)
    }

    #[track_caller]
    pub fn apply(&self, documents: &str) {
        self.try_apply(documents).succeeded();
    }

    /// What a verb gives as JSON.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = run(self.verb().args(arguments).args(["-o", "json"])).succeeded();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error} in {text}"))
    }

    pub fn status(&self) -> Value {
        self.json(&["status"])
    }

    pub fn revision(&self) -> u64 {
        self.status()["revision"].as_u64().expect("a revision is a number")
    }

    /// What the status says of a workload's proxy.
    pub fn proxy(&self, workload: &str) -> Option<Value> {
        let status = self.status();
        let proxies = status["proxies"].as_array().expect("proxies are a list");
        proxies.iter().find(|proxy| proxy["workload"] == workload).cloned()
    }

    /// A join token for an account in a file of its own.
    pub fn token(&self, account: &str) -> PathBuf {
        self.token_of(account, "1h")
    }

    pub fn token_of(&self, account: &str, life: &str) -> PathBuf {
        let made = self.weft(&["token", "create", "--service-account", account, "--ttl", life]).succeeded();
        let path = self.place.join(format!("{account}.token"));
        std::fs::write(&path, made).expect("the place can be written to");
        path
    }
}

fn launch(place: &Path, port: &Port, arguments: &[String], programs: &Programs) -> Process {
    let mut weft = weft_of(programs, &place.join("data"));
    weft.args(["control-plane", "--listen", &port.address().to_string()]).args(arguments);
    Process::start("the control plane", &mut weft, &place.join("control-plane.log"))
}
