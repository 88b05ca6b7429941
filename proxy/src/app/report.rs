//! Tells the control plane what the undeclared ports of our own workload turned out to speak, so that new proxies know.
//!
//! All that was seen here goes in one report: gathered for a while after something new was seen, and once more on each
//! new connection to the control plane, which keeps reports in memory. What was only heard from it is not told back. A
//! report that fails delays nothing and is tried again; a control plane that takes none is asked once a connection.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Status};
use weft_proto::weft::detection_client::DetectionClient;
use weft_proto::weft::{ReportRequest, SeenPort};

use crate::state::Store;

/// From something new to its report: ports are often seen in a burst. 1 s: new proxies are not that many.
const GATHERING: Duration = Duration::from_secs(1);
/// From the report's first byte to its answer; taking it in is no work.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Between a report that failed and the next. 10 s: nothing is at stake but the time of new proxies.
const RETRY: Duration = Duration::from_secs(10);

/// The connection configuration comes over; `None` before the first and while there is none.
pub(super) type Connected = watch::Receiver<Option<Channel>>;

/// Reports until nobody connects any more. `reconnect` opens a connection with the certificate in force: the one of
/// `connected` may outlive the certificate it was made with.
pub(super) async fn run<F, R>(workload: String, store: Arc<Store>, mut connected: Connected, reconnect: F)
where
    F: Fn() -> R,
    R: Future<Output = Option<Channel>>,
{
    let mut told = Vec::new();
    let mut is_due = false;
    loop {
        tokio::select! {
            () = store.seen.notified() => {}
            changed = connected.changed() => {
                if changed.is_err() {
                    return;
                }
                told.clear();
            }
            () = tokio::time::sleep(RETRY), if is_due => {}
        }
        tokio::time::sleep(GATHERING).await;
        let channel = connected.borrow_and_update().clone();
        let ports = seen(&store);
        is_due = false;
        let Some(channel) = channel.filter(|_| !ports.is_empty() && ports != told) else { continue };
        let report = ReportRequest { workload: workload.clone(), ports };
        let result = match send(channel, &report).await {
            Err(status) if status.code() == Code::Unauthenticated => match reconnect().await {
                Some(channel) => send(channel, &report).await,
                None => Err(status),
            },
            result => result,
        };
        let label = match &result {
            Ok(()) => "taken",
            Err(status) if status.code() == Code::Unimplemented => "unsupported",
            Err(_) => "failed",
        };
        metrics::counter!("weft_detection_reports_total", "result" => label).increment(1);
        match result {
            Err(status) if label == "failed" => {
                tracing::debug!(code = ?status.code(), reason = status.message(), "the control plane did not take a report");
                is_due = true;
            }
            _ => told = report.ports,
        }
    }
}

/// What was seen here of the ports of our own workload.
fn seen(store: &Store) -> Vec<SeenPort> {
    let snapshot = store.load();
    let mut ports: Vec<SeenPort> = snapshot
        .inbound()
        .filter_map(|listener| {
            let verdict = listener.detection.as_ref()?.belief().seen()?;
            let port = listener.spec.addresses.first()?.port();
            Some(SeenPort { port: u32::from(port), protocol: verdict.name().to_owned() })
        })
        .collect();
    ports.sort_by_key(|seen| seen.port);
    ports
}

async fn send(channel: Channel, report: &ReportRequest) -> Result<(), Status> {
    let mut client = DetectionClient::new(channel);
    let answer = tokio::time::timeout(ANSWER_LIMIT, client.report(report.clone()));
    match answer.await {
        Ok(answer) => answer.map(drop),
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {ANSWER_LIMIT:?}"))),
    }
}
