//! The control plane's process.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::super::protocol::{Launch, RunAs};
use super::super::shared::Shared;
use super::super::{UpError, launch, logs};

/// How long it may take to answer after its start.
const START: Duration = Duration::from_secs(20);
/// ... and to end when asked.
pub(in super::super) const GRACE: Duration = Duration::from_secs(5);

/// Starts the control plane and waits until it answers.
pub(in super::super) async fn start(shared: &Shared, arguments: &[String]) -> Result<Child, UpError> {
    let failed = |how: String| {
        let log = shared.data.log("control-plane");
        let line = logs::last_line(&log).unwrap_or_else(|| "(empty)".to_owned());
        UpError::ControlPlane { how, log: log.display().to_string(), line }
    };
    let mut child = spawn(shared, arguments).await.map_err(|error| failed(error.to_string()))?;
    let answers = async {
        while shared.plane.status().await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        answered = timeout(START, answers) => match answered {
            Ok(()) => Ok(child),
            Err(_) => Err(failed(format!("no answer within {START:?}"))),
        },
        status = child.wait() => Err(failed(status.map_or_else(|error| error.to_string(), |status| status.to_string()))),
    }
}

async fn spawn(shared: &Shared, arguments: &[String]) -> std::io::Result<Child> {
    let data = shared.data.path().display().to_string();
    let settings = ["--data".to_owned(), data, "--listen".to_owned(), shared.control_plane.to_string()];
    let own_executable = String::new();
    let whole: Vec<String> = std::iter::once(own_executable).chain(arguments.iter().cloned()).chain(settings).collect();
    let launch = Launch { directory: "/".into(), run_as: RunAs::Same, die_with_parent: true };
    let (output, writer) = logs::output_pipe()?;
    let mut command = Command::new(&shared.executable);
    command.args(launch::arguments(&launch, &whole)?);
    command.stdin(Stdio::null()).stderr(Stdio::from(writer.try_clone()?)).stdout(Stdio::from(writer)).process_group(0);
    let child = shared.spawner.spawn(command).await?;
    tokio::spawn(logs::pump(output, "control-plane".to_owned(), shared.data.log("control-plane"), true));
    Ok(child)
}

/// Starts the control plane again whenever it ends, until told to stop. The proxies go on without it meanwhile.
pub(in super::super) async fn keep(
    shared: Arc<Shared>,
    arguments: Vec<String>,
    first: Child,
    mut stop: oneshot::Receiver<()>,
) {
    const PAUSE: Duration = Duration::from_secs(1);
    let mut running = Some(first);
    loop {
        if let Some(child) = &mut running {
            tokio::select! {
                status = child.wait() => {
                    let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                    shared.say(&format!("the control plane ended ({how}); starting it again"));
                }
                _ = &mut stop => {
                    end(child).await;
                    return;
                }
            }
        }
        running = spawn(&shared, &arguments).await.ok();
        tokio::select! {
            () = sleep(PAUSE) => {}
            _ = &mut stop => return,
        }
    }
}

async fn end(child: &mut Child) {
    if let Some(pid) = child.id() {
        kill(Pid::from_raw(pid as i32), Signal::SIGTERM).ok();
    }
    if timeout(GRACE, child.wait()).await.is_err() {
        child.kill().await.ok();
    }
}
