//! The supervisor's own socket, `DIR/up.sock`: a line of JSON asks, a line of JSON answers.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::data::{self, DataError};
use super::workloads::Workloads;

/// Longest request.
const MAX_REQUEST: u64 = 4096;
/// Requests at a time; more wait.
const AT_ONCE: usize = 8;
/// How long a client may take to say what it wants.
const READ: Duration = Duration::from_secs(5);
/// Longer than a workload may take to start, drain and stop.
const ANSWER: Duration = Duration::from_mins(2);

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    Scale { service: String, replicas: u32 },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Done,
    Refused(String),
}

/// Why the supervisor of a mesh did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("{path}: no mesh answers there ({source}); is `weft up` running?")]
    Away { path: String, source: io::Error },
    #[error("{0}")]
    Refused(String),
}

pub(super) fn listen(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

pub(super) async fn serve(listener: UnixListener, workloads: Arc<Workloads>) {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut conversations = tokio::task::JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        while conversations.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let workloads = Arc::clone(&workloads);
                conversations.spawn(async move {
                    // A client that left is no matter for the mesh.
                    converse(stream, &workloads).await.ok();
                    drop(permit);
                });
            }
            // Out of descriptors, say: not at full speed.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn converse(stream: UnixStream, workloads: &Workloads) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader.take(MAX_REQUEST));
    let mut line = String::new();
    timeout(READ, reader.read_line(&mut line)).await??;
    let answer = match serde_json::from_str(&line) {
        Ok(Request::Scale { service, replicas }) => match workloads.scale(&service, replicas).await {
            Ok(()) => Answer::Done,
            Err(error) => Answer::Refused(error.to_string()),
        },
        Err(error) => Answer::Refused(format!("the request cannot be read: {error}")),
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    timeout(READ, writer.write_all(&line)).await?
}

/// Asks a running mesh for another number of replicas; returns when they are ready, or gone.
pub async fn request_scale(data: Option<&Path>, service: &str, replicas: u32) -> Result<(), ControlError> {
    let path = data::control_socket(&data::locate(data)?);
    let ask = async {
        let mut stream = UnixStream::connect(&path).await?;
        let request = Request::Scale { service: service.to_owned(), replicas };
        let mut line = serde_json::to_vec(&request)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = String::new();
        stream.take(1 << 20).read_to_string(&mut answer).await?;
        Ok(serde_json::from_str(&answer)?)
    };
    let answer = timeout(ANSWER, ask).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    match answer {
        Ok(Answer::Done) => Ok(()),
        Ok(Answer::Refused(reason)) => Err(ControlError::Refused(reason)),
        Err(source) => Err(ControlError::Away { path: path.display().to_string(), source }),
    }
}
