//! The processes a pod is made of: `weft pod ...`, hidden verbs of the same executable.
//!
//! `enter` makes the namespaces and waits; `init` is process 1 in them ([`super::init`]) and starts proxy and
//! application through `launch` ([`super::launch`]). The end of either of the first two is the end of all: every
//! process in a process namespace dies with its first, and `enter` and `init` die with their parents.

use std::os::unix::process::{CommandExt, parent_id};
use std::process::{Command, ExitCode};

use nix::sched::unshare;
use nix::sys::prctl;
use nix::sys::signal::Signal;

use super::{fabric, init, launch};

/// Runs `weft pod ARGUMENTS`. To be called with one thread, before any runtime.
pub fn main(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["enter", parent] => tie_to_parent(parent).and_then(|()| enter()),
        ["init"] => init::main(init::Place::Namespaces),
        ["init", "loopback", parent] => tie_to_parent(parent).and_then(|()| init::main(init::Place::Loopback)),
        ["launch", ..] => Err(launch::run(&arguments[1..])),
        ["probe", how] => fabric::probe(how),
        _ => Err("`weft pod` is started by `weft up`; it is of no use by itself".to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason}");
            // What a shell says of a program it could not start.
            ExitCode::from(if words.first() == Some(&"launch") { 127 } else { 1 })
        }
    }
}

/// From here on this process dies with its parent, even if the parent is killed.
fn tie_to_parent(parent: &str) -> Result<(), String> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| format!("tying a pod to its supervisor: {error}"))?;
    // The parent may have died before the line above, and then no signal will come.
    if parent_id().to_string() == parent { Ok(()) } else { Err("the supervisor of this pod is gone".to_owned()) }
}

fn enter() -> Result<(), String> {
    prctl::set_name(c"weft-pod").ok();
    unshare(fabric::pod_namespaces()).map_err(|error| format!("making a pod's namespaces: {error}"))?;
    let mut init = Command::new(launch::OWN_EXECUTABLE)
        .arg0("weft")
        .args(["pod", "init"])
        .spawn()
        .map_err(|error| format!("starting a pod's first process: {error}"))?;
    let status = init.wait().map_err(|error| format!("waiting for a pod's first process: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("the pod's first process ended: {status}")) }
}
