//! nghttpd: an application that speaks HTTP/2 and nothing else, and sends back what it is sent.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use super::{Port, Process, command, need, until};

#[derive(Debug)]
pub struct Nghttpd {
    port: Port,
    process: Process,
}

impl Nghttpd {
    /// Starts it; `GET /` gives so many bytes.
    pub fn start(place: &Path, bytes: usize) -> Self {
        Self::start_with(place, bytes, &[])
    }

    /// Starts it with more arguments.
    pub fn start_with(place: &Path, bytes: usize, arguments: &[&str]) -> Self {
        need(&["nghttpd"]);
        let port = Port::reserve();
        std::fs::write(place.join("index.html"), "x".repeat(bytes)).expect("the place can be written to");
        let mut server = command("nghttpd");
        server
            .args(["--no-tls", "--echo-upload"])
            .args(arguments)
            .arg("--htdocs")
            .arg(place)
            .arg(port.number().to_string());
        let process = Process::start("nghttpd", &mut server, &place.join("nghttpd.log"));
        until("nghttpd listens", || TcpStream::connect(port.address()).map(drop).map_err(|error| error.to_string()));
        Self { port, process }
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    pub fn log(&self) -> String {
        self.process.log()
    }
}
