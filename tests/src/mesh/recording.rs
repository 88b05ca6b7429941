//! Packets between pods, recorded by tcpdump.

use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;

use super::command::{PATIENCE, Running, run, until};

/// TCP segments that begin with a TLS record of application data.
pub const TLS_RECORDS: &str = "tcp[((tcp[12] & 0xf0) >> 2)] = 0x17";
/// Sent when all is done: with it in a recording, all that was before is in it too.
const LAST: &str = "last-of-all-55d0";

/// What tcpdump hears on an interface.
#[derive(Debug)]
pub struct Recording {
    tcpdump: Running,
    file: PathBuf,
}

/// What it has heard.
#[derive(Debug)]
pub struct Recorded {
    file: PathBuf,
}

impl Recording {
    /// Begins to record an interface; `inside` runs a command where that interface is.
    #[track_caller]
    pub fn begin(file: PathBuf, interface: &str, inside: impl Fn(&[&str]) -> Command) -> Self {
        let path = file.display().to_string();
        let options = ["tcpdump", "-i", interface, "--immediate-mode", "-U", "-Z", "root", "-w", &path];
        let tcpdump = Running::start(inside(&options));
        tcpdump.says("listening on");
        Self { tcpdump, file }
    }

    /// Ends it once it holds a packet that is sent to `address` now.
    #[track_caller]
    pub fn end(self, address: &str, inside: impl Fn(&[&str]) -> Command) -> Recorded {
        let send = format!("echo {LAST} >/dev/udp/{address}/9");
        let recorded = Recorded { file: self.file };
        until("the last packet is recorded", || {
            run(inside(&["bash", "-c", &send]));
            recorded.holds(LAST).then_some(())
        });
        self.tcpdump.signal(Signal::SIGTERM);
        self.tcpdump.finish(PATIENCE);
        recorded
    }
}

impl Recorded {
    pub fn holds(&self, text: &str) -> bool {
        let bytes = std::fs::read(&self.file).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// How many packets a filter matches.
    #[track_caller]
    pub fn count(&self, filter: &str) -> usize {
        let mut tcpdump = Command::new("tcpdump");
        tcpdump.args(["-n", "-r"]).arg(&self.file).arg(filter);
        Running::start(tcpdump).finish(PATIENCE).ok().lines().count()
    }
}
