//! Scripts that serve, and scripts that ask.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use weft_tests::process::{Port, Process, command, python, run_within, until};

/// A server in Python on a port of its own.
#[derive(Debug)]
pub(crate) struct Peer {
    port: Port,
    _process: Process,
}

impl Peer {
    pub(crate) fn start(place: &Path, script: &str, package: Option<(&str, &str)>, arguments: &[&str]) -> Self {
        let port = Port::reserve();
        let mut server = command(interpreter(package));
        server.arg(self::script(script)).arg(port.number().to_string()).args(arguments);
        let mut process = Process::start(script, &mut server, &place.join(format!("{script}-{}.log", port.number())));
        until(&format!("{script} listens"), || {
            assert!(process.has_ended().is_none(), "{script} has ended: {}", process.log());
            std::net::TcpStream::connect(port.address()).map(drop).map_err(|error| error.to_string())
        });
        Self { port, _process: process }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }
}

/// Runs a client, shows its cells, and gives those that are wrong.
pub(crate) fn play(script: &str, package: Option<(&str, &str)>, arguments: &[&str], limit: Duration) -> Vec<String> {
    let mut client = command(interpreter(package));
    let finished = run_within(client.arg(self::script(script)).args(arguments), limit);
    print!("{}", finished.stdout);
    let mut wrong: Vec<String> =
        finished.stdout.lines().filter(|line| line.starts_with("WRONG")).map(str::to_owned).collect();
    if finished.code != Some(0) || !finished.stdout.contains("ok ") {
        wrong.push(format!("WRONG {script} {arguments:?} ended with {:?}: {}", finished.code, finished.stderr));
    }
    wrong
}

fn interpreter(package: Option<(&str, &str)>) -> PathBuf {
    package.map_or_else(|| PathBuf::from("python3"), python::interpreter)
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/peers").join(name)
}
