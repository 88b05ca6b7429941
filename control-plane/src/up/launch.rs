//! `pod launch`: the moment between a fork and a program. A process of our own, so that what must happen between the
//! two is ordinary code.

use std::io;
use std::os::unix::process::{CommandExt, parent_id};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Gid, Uid, User, initgroups, setgid, setgroups, setuid};

use super::fabric::map_identity;
use super::protocol::{Launch, RunAs};

/// The executable this process runs. Through the link, a user who may not walk the path to it can start it all the same.
pub(super) const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// The arguments that make our executable launch `command`.
pub(super) fn arguments(launch: &Launch, command: &[String]) -> Result<Vec<String>, serde_json::Error> {
    let head = ["pod".to_owned(), "launch".to_owned(), serde_json::to_string(launch)?, std::process::id().to_string()];
    Ok(head.into_iter().chain(command.iter().cloned()).collect())
}

/// Becomes the program; returns only to say why not.
pub(super) fn run(arguments: &[String]) -> String {
    let [launch, parent, program, rest @ ..] = arguments else {
        return "pod launch: too few arguments".to_owned();
    };
    let launch: Launch = match serde_json::from_str(launch) {
        Ok(launch) => launch,
        Err(error) => return format!("pod launch: {error}"),
    };
    if let Err((doing, error)) = prepare(&launch, parent) {
        return format!("cannot start `{program}`: {doing}: {error}");
    }
    let mut command = if program.is_empty() {
        let mut own = Command::new(OWN_EXECUTABLE);
        own.arg0("weft");
        own
    } else {
        Command::new(program)
    };
    let error = command.args(rest).exec();
    format!("cannot start `{program}`: {error}")
}

fn prepare(launch: &Launch, parent: &str) -> Result<(), (&'static str, io::Error)> {
    let step = |doing: &'static str| move |error: nix::Error| (doing, io::Error::from(error));
    // The pod's first process takes signals by descriptor and has them blocked; programs expect none to be.
    SigSet::empty().thread_set_mask().map_err(step("unblocking signals"))?;
    std::env::set_current_dir(&launch.directory).map_err(|error| ("entering its directory", error))?;
    become_user(&launch.run_as)?;
    if launch.die_with_parent {
        // After the change of user, which would clear it (prctl(2)).
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(step("tying it to its parent"))?;
        if parent_id().to_string() != parent {
            return Err(("tying it to its parent", io::Error::other("the parent is gone")));
        }
    }
    Ok(())
}

fn become_user(run_as: &RunAs) -> Result<(), (&'static str, io::Error)> {
    let step = |doing: &'static str| move |error: nix::Error| (doing, io::Error::from(error));
    match run_as {
        RunAs::Same => Ok(()),
        RunAs::Ids { uid, gid } => {
            setgroups(&[]).map_err(step("leaving root's groups"))?;
            setgid(Gid::from_raw(*gid)).map_err(step("changing group"))?;
            setuid(Uid::from_raw(*uid)).map_err(step("changing user"))
        }
        RunAs::Account(name) => {
            let user = User::from_name(name).map_err(step("looking up its user"))?;
            let user = user.ok_or_else(|| ("looking up its user", io::Error::other(format!("no user `{name}`"))))?;
            let c_name = std::ffi::CString::new(name.as_str()).map_err(|error| ("reading its user", error.into()))?;
            initgroups(&c_name, user.gid).map_err(step("taking its user's groups"))?;
            setgid(user.gid).map_err(step("changing group"))?;
            setuid(user.uid).map_err(step("changing user"))
        }
        RunAs::Nested { uid, gid } => {
            unshare(CloneFlags::CLONE_NEWUSER).map_err(step("making a user namespace"))?;
            map_identity(*uid, 0, *gid, 0).map_err(|error| ("naming the user in it", error))
        }
    }
}
