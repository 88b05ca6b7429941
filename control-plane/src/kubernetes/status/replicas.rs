//! The reports of the other replicas, asked for by the one that writes statuses.
//!
//! Who they are is known as everything else is: from the endpoints of our own Service. Each is asked every [`INTERVAL`], which
//! costs it a walk over its own proxies and the API server nothing, as tokens that were reviewed are believed for a while.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use weft_proxy::clock;

use super::proxies::Group;
use super::report::Report;
use crate::document::{Backends, Document, Key, Kind, WorkloadState};
use crate::kubernetes::names;
use crate::store::Snapshot;

/// Statuses turn within a second of a proxy's answer.
const INTERVAL: Duration = Duration::from_millis(400);
/// For one answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// A replica that has not answered for so long is told to be silent; until then its last word counts.
const SILENCE: Duration = Duration::from_secs(5);
/// A report of a hundred thousand proxies is smaller.
const LARGEST: usize = 4 << 20;

/// How the others are reached.
#[derive(Debug, Clone)]
pub struct Peers {
    pub system_namespace: String,
    /// This replica's own name.
    pub name: String,
    /// The token this replica shows to the others.
    pub token: PathBuf,
}

/// What the others say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Others {
    pub(super) reports: Vec<Arc<Report>>,
    /// How many do not answer.
    pub(super) silent: usize,
}

impl Others {
    pub(super) fn groups(&self) -> impl Iterator<Item = Group> {
        self.reports.iter().map(|report| report.group.clone())
    }
}

#[derive(Debug)]
struct Other {
    since: Instant,
    report: Option<Arc<Report>>,
    heard_at: Option<Instant>,
}

/// Asks them until dropped.
pub(super) async fn follow(peers: Peers, snapshots: watch::Receiver<Arc<Snapshot>>, told: watch::Sender<Others>) {
    let mut known: BTreeMap<SocketAddr, Other> = BTreeMap::new();
    loop {
        let addresses = addresses(&snapshots.borrow(), &peers.system_namespace);
        known.retain(|address, _| addresses.contains(address));
        let answers = ask_all(&addresses, &peers).await;
        let now = clock::now();
        for address in addresses {
            known.entry(address).or_insert(Other { since: now, report: None, heard_at: None });
        }
        for (address, answer) in answers {
            let Some(other) = known.get_mut(&address) else { continue };
            match answer {
                Ok(report) => {
                    other.heard_at = Some(now);
                    if other.report.as_deref() != Some(&report) {
                        other.report = Some(Arc::new(report));
                    }
                }
                Err(reason) => tracing::debug!(%address, reason, "another replica does not say what its proxies did"),
            }
        }
        let is_silent =
            |other: &&Other| now.saturating_duration_since(other.heard_at.unwrap_or(other.since)) >= SILENCE;
        let (silent, speaking): (Vec<&Other>, Vec<&Other>) = known.values().partition(is_silent);
        let reports = speaking.iter().filter_map(|other| other.report.clone());
        let reports = reports.filter(|report| report.replica != peers.name).collect();
        let others = Others { reports, silent: silent.len() };
        told.send_if_modified(|told| {
            let is_news = *told != others;
            *told = others;
            is_news
        });
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Where replicas answer, this one among them: nobody is told its own address.
fn addresses(snapshot: &Snapshot, namespace: &str) -> Vec<SocketAddr> {
    let key = Key::new(Kind::Service, namespace, names::CONTROL_PLANE);
    let Some(Document::Service(service)) = snapshot.documents.get(&key).map(|stored| &stored.document) else {
        return Vec::new();
    };
    let Backends::Discovered(discovered) = &service.spec.backends else { return Vec::new() };
    let of_group = |group: &crate::document::EndpointGroup| {
        let port = group.target_port(names::API_PORT)?;
        let serving = group.endpoints.iter().filter(|endpoint| endpoint.state == WorkloadState::Ready);
        Some(serving.map(move |endpoint| SocketAddr::new(endpoint.address, port)).collect::<Vec<_>>())
    };
    discovered.groups.iter().filter_map(of_group).flatten().collect()
}

async fn ask_all(addresses: &[SocketAddr], peers: &Peers) -> Vec<(SocketAddr, Result<Report, String>)> {
    // The kubelet renews it.
    let token = tokio::fs::read_to_string(&peers.token).await;
    let token = token.map_err(|error| format!("no token in {}: {error}", peers.token.display()));
    let mut asking = JoinSet::new();
    for address in addresses.iter().copied() {
        let token = token.clone();
        asking.spawn(async move {
            let asked = async { ask(address, token?.trim()).await };
            let answer = tokio::time::timeout(TIMEOUT, asked).await;
            (address, answer.unwrap_or_else(|_| Err(format!("no answer within {} s", TIMEOUT.as_secs()))))
        });
    }
    asking.join_all().await
}

async fn ask(address: SocketAddr, token: &str) -> Result<Report, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let host = match address.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let request = Request::get(names::REPORT_PATH)
        .header(http::header::HOST, host)
        .header(names::CLI_TOKEN_HEADER, format!("Bearer {token}"))
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST).collect().await.map_err(|error| error.to_string())?;
        Ok::<_, String>((status, body.to_bytes()))
    };
    let (status, body) = tokio::select! {
        answer = exchange => answer?,
        ended = connection => return Err(ended.map_or_else(|error| error.to_string(), |()| "it hung up".to_owned())),
    };
    if status != StatusCode::OK {
        return Err(format!(
            "it answered {status}: {}",
            String::from_utf8_lossy(&body).chars().take(200).collect::<String>()
        ));
    }
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}
