//! The verbs `weft up` and `weft scale`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::logs::tell;
use super::{Mesh, MeshFile, Mode, Options, Phase, UpError, enter_fabric, request_scale, start};

/// Run a whole mesh on this machine: control plane, proxies and your programs.
#[derive(Debug, clap::Args)]
pub struct UpArguments {
    /// The mesh file.
    #[arg(default_value = "mesh.yaml")]
    pub mesh: PathBuf,
    /// End after this time, like 20s, 5m or 500ms.
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    pub limit: Option<Duration>,
    /// Do not print what the programs print.
    #[arg(long)]
    pub quiet: bool,
    /// Share the machine's network; traffic is not intercepted.
    #[arg(long)]
    pub no_namespaces: bool,
}

/// Change how many replicas of a service run in a mesh started with `weft up`.
#[derive(Debug, clap::Args)]
pub struct ScaleArguments {
    /// Name of the service in the mesh file.
    pub service: String,
    /// How many shall run, 0 to 50.
    pub replicas: u32,
}

/// `weft up`. To be called with one thread, before any runtime.
/// `data`: where state and logs are kept; without one, a directory that is removed at the end.
pub fn main(arguments: UpArguments, data: Option<PathBuf>) -> ExitCode {
    let UpArguments { mesh, limit, quiet, no_namespaces } = arguments;
    let mesh = match MeshFile::load(&mesh) {
        Ok(mesh) => mesh,
        Err(error) => return fail(&error),
    };
    let executable = match std::env::current_exe() {
        Ok(executable) => executable,
        Err(error) => return fail(&format!("finding this executable: {error}")),
    };
    let mut options = match Options::new(mode(no_namespaces, &executable)) {
        Ok(options) => options,
        Err(error) => return fail(&format!("finding this executable: {error}")),
    };
    options.data = data;
    options.quiet = quiet;
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("starting a runtime: {error}")),
    };
    let mut keep = async |mesh: &Mesh, ended: oneshot::Receiver<()>| {
        announce(mesh);
        tokio::select! {
            _ = ended => if !quiet {
                tell("stopping; once more to kill");
            },
            () = sleep(limit.unwrap_or_default()), if limit.is_some() => {}
        }
    };
    match runtime.block_on(run(mesh, options, &mut keep)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Enters namespaces of our own, or says in one line why not. To be called with one thread, before any runtime.
pub fn mode(no_namespaces: bool, executable: &Path) -> Mode {
    let mode = if no_namespaces {
        Mode::Loopback { reason: "asked for with --no-namespaces".to_owned() }
    } else {
        enter_fabric(executable)
    };
    if let Mode::Loopback { reason } = &mode {
        tell(&format!("no network namespaces, so traffic is not intercepted: call others by WEFT_URL_* ({reason})"));
    }
    mode
}

/// `weft scale`.
/// `data`: the directory of the mesh; without one, that of the only mesh running.
pub fn scale_main(arguments: &ScaleArguments, data: Option<&Path>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("starting a runtime: {error}")),
    };
    match runtime.block_on(request_scale(data, &arguments.service, arguments.replicas)) {
        Ok(()) => {
            println!("{} has {} replicas", arguments.service, arguments.replicas);
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

/// Starts a mesh and hands it to `look`, which is told by the receiver when a signal asks for the end, and stops the mesh
/// when `look` returns. A second signal kills at once.
///
/// # Errors
/// When the mesh does not start.
pub async fn run(
    mesh: MeshFile,
    options: Options,
    look: &mut impl AsyncFnMut(&Mesh, oneshot::Receiver<()>),
) -> Result<(), UpError> {
    let mut signals = Signals::new()
        .map_err(|error| UpError::Machine { doing: "listening for signals", reason: error.to_string() })?;
    let mesh = tokio::select! {
        started = start(mesh, options) => started?,
        // What has been started so far dies with the future that held it.
        () = signals.next() => return Ok(()),
    };
    let (end, ended) = oneshot::channel();
    {
        let mut looking = std::pin::pin!(look(&mesh, ended));
        tokio::select! {
            () = &mut looking => {}
            () = signals.next() => {
                drop(end);
                tokio::select! {
                    () = looking => {}
                    () = signals.next() => return Ok(()),
                }
            }
        }
    }
    tokio::select! {
        () = mesh.stop() => {}
        () = signals.next() => {}
    }
    Ok(())
}

fn announce(mesh: &Mesh) {
    let workloads = mesh.workloads();
    let ready = workloads.iter().filter(|workload| workload.phase == Phase::Ready).count();
    let data = mesh.data().display();
    tell(&format!(
        "{ready} of {} workloads are ready; Ctrl-C stops; --data {data} for other commands",
        workloads.len()
    ));
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// The terminal was closed.
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// `20s`, `5m`, `1h`, `500ms`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let refused = || format!("found `{text}`, allowed: a whole number with ms, s, m or h, like 20s");
    let end = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(refused)?;
    let number: u32 = text[..end].parse().map_err(|_| refused())?;
    let unit = match &text[end..] {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_mins(1),
        "h" => Duration::from_hours(1),
        _ => return Err(refused()),
    };
    unit.checked_mul(number).ok_or_else(refused)
}

fn fail(error: &impl std::fmt::Display) -> ExitCode {
    tell(&error.to_string());
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_needs_a_unit() {
        for (text, expected) in [("20s", 20_000), ("500ms", 500), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(expected)), "{text}");
        }
        for text in ["", "20", "s", "-1s", "1.5s", "20 s", "4294967296s", "1d"] {
            assert!(parse_duration(text).unwrap_err().contains("allowed"), "{text}");
        }
    }
}
