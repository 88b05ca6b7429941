//! The way to a control plane on this machine: the socket in its data directory.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use weft_proto::weft::management_client::ManagementClient;

use super::failure::Failure;
use crate::manage::MAX_MESSAGE_BYTES;

/// A connected client.
pub type Client = ManagementClient<Channel>;

/// Long enough for the largest batch on a slow disk.
const ANSWER: Duration = Duration::from_secs(30);
/// Problems come in headers; the server bounds them far below this.
const MAX_HEADER_BYTES: u32 = 1 << 20;

/// Connects to the control plane that runs on a data directory.
pub async fn connect(data: &Path) -> Result<Client, Failure> {
    let path = data.join("api.sock");
    let stream = UnixStream::connect(&path).await.map_err(|error| refusal(data, &error))?;
    // One connection is all a verb needs, and a second would hide why the first ended.
    let stream = Arc::new(Mutex::new(Some(stream)));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move { stream.map(TokioIo::new).ok_or_else(|| std::io::Error::from(ErrorKind::ConnectionReset)) }
    });
    let channel = Endpoint::from_static("http://control-plane.weft")
        .timeout(ANSWER)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .connect_with_connector(connector)
        .await
        .map_err(|error| Failure::new(format!("no answer from the control plane at {}: {error}", data.display())))?;
    Ok(ManagementClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES))
}

fn refusal(data: &Path, error: &std::io::Error) -> Failure {
    let directory = data.display();
    Failure::new(match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::NotADirectory => format!(
            "no control plane is running at {directory}; start one with `weft control-plane --data {directory}`, or name its directory with --data"
        ),
        ErrorKind::PermissionDenied => format!(
            "no permission to use the control plane at {directory}; run this as the user that started it, or as root"
        ),
        _ => format!("cannot reach the control plane at {directory}: {error}; name its directory with --data"),
    })
}
