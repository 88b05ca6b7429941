//! Drives the [session](super::session) over gRPC: one delta ADS stream, for as long as the proxy lives.
//!
//! - A stream that ends is opened again after a [wait](super::backoff); what is in force stays in force meanwhile. The
//!   client is healthy when its stream is open, not when something happens to be new.
//! - Reading never waits for writing: requests go into an outbox that is emptied as the peer takes them. A peer that
//!   takes none of [`OUTBOX`] requests is given up, so that neither side can hold the other and memory stays bounded.
//! - An ACK leaves after its change was applied: for the control plane it means "in force".
//! - A silent peer is noticed by HTTP/2 keepalive, which belongs to the channel: whoever supplies it sets an interval
//!   of 10 s and a timeout of 3 s, also while idle. The client itself cannot tell quiet from dead.

mod asking;
mod snapshots;

use std::collections::VecDeque;
use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;
use weft_proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use weft_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};

use self::asking::Asking;
pub use self::asking::Asks;
use self::snapshots::Snapshots;
use super::backoff::Backoff;
use super::last_good::LastGood;
use super::session::{Output, Session};
use super::{ResourceType, last_good};
use crate::clock;
use crate::state::Change;

/// Largest response read. gRPC's usual 4 MiB would make a large mesh a reconnect loop; 200 MiB is what ztunnel takes.
const LARGEST_RESPONSE: usize = 200 << 20;

/// Requests waiting for the peer. A response causes six at most, and connections' asks wait for the others, so this is a peer that has long stopped reading.
const OUTBOX: usize = 1024;

/// Longest time to connect, TLS and certificate included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time until the stream's headers. Some servers send them with the first response, which one that is starting
/// may hold back until it has read its own sources.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// A stream that lived this long and delivered was a good one: the next wait is short again. One that delivers and dies
/// at once is likely to do so again.
const GOOD_STREAM: Duration = Duration::from_secs(1);

/// Rejected resources named in the log for one response.
const LOGGED_REJECTIONS: usize = 8;

/// Why there is no channel, in the words of whoever makes it.
pub type ConnectError = Box<dyn Error + Send + Sync>;

/// What a client needs to know.
#[derive(Debug)]
pub struct XdsOptions {
    /// Who we say we are.
    pub node: Node,
    /// Where the last good configuration is kept; `None` keeps none.
    pub state_file: Option<PathBuf>,
    /// Whether that file is ours to write, now.
    pub writes_state: watch::Receiver<bool>,
    /// Where connections ask for destinations; `None` of a proxy that wants everything. Goes with a node that says so.
    pub asks: Option<Asks>,
    /// Chance for the waits between attempts.
    pub chance: fastrand::Rng,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamEnd {
    #[error("connecting to the control plane")]
    Connect(#[source] ConnectError),
    #[error("connecting to the control plane took longer than {CONNECT_TIMEOUT:?}")]
    ConnectTimeout,
    #[error("the control plane did not accept the stream within {OPEN_TIMEOUT:?}")]
    OpenTimeout,
    #[error("the stream to the control plane broke: {} ({:?})", .0.message(), .0.code())]
    Broken(Box<tonic::Status>),
    #[error("the control plane ended the stream")]
    Ended,
    #[error("the control plane reads no requests: {OUTBOX} are waiting")]
    NotReading,
    #[error("shutdown")]
    Shutdown,
}

/// Follows the control plane until `shutdown` says true, or its sender is gone.
///
/// `connect` makes a channel with TLS and keepalive for each attempt. `apply` is called with every change, in order, and
/// must not block; `on_complete` once, when the first configuration is complete. A last good configuration on disk is
/// applied before the first attempt and counts as complete.
pub async fn run<Connect, Connecting>(
    options: XdsOptions,
    connect: Connect,
    apply: impl FnMut(Change) + Send,
    on_complete: impl FnOnce() + Send,
    mut shutdown: watch::Receiver<bool>,
) where
    Connect: Fn() -> Connecting + Send,
    Connecting: Future<Output = Result<Channel, ConnectError>> + Send,
{
    describe_metrics();
    let XdsOptions { node, state_file, writes_state, asks, chance } = options;
    let snapshots = Snapshots::new(state_file, node.id.clone(), writes_state);
    let session = if asks.is_some() { Session::on_demand(node) } else { Session::new(node) };
    let (asking, asks) = asks.map(|Asks { store, asks }| (Asking::new(store), asks)).unzip();
    let mut client = Client { session, asking, asks, snapshots, apply, on_complete: Some(on_complete) };
    client.restore();
    let mut backoff = Backoff::new(chance);
    loop {
        let began = clock::now();
        let mut responses = 0;
        let end = client.stream(&connect, &mut shutdown, &mut responses).await;
        client.session.stream_lost();
        client.connected(false);
        metrics::gauge!("weft_xds_connected").set(0.0);
        if matches!(end, StreamEnd::Shutdown) {
            break;
        }
        metrics::counter!("weft_xds_stream_failures_total").increment(1);
        if responses > 0 && clock::now().duration_since(began) >= GOOD_STREAM {
            backoff.reset();
        }
        let wait = backoff.next_wait();
        tracing::warn!(error = %Chain(&end), ?wait, "no control plane; what is in force stays");
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            never = client.snapshots.tend(&client.session, client.asking.as_ref()) => match never {},
            () = is_over(&mut shutdown) => break,
        }
    }
    client.snapshots.finish(&client.session, client.asking.as_ref()).await;
}

struct Client<Apply, OnComplete> {
    session: Session,
    /// Of a proxy that asks for destinations, and where the asks arrive.
    asking: Option<Asking>,
    asks: Option<mpsc::Receiver<SocketAddr>>,
    snapshots: Snapshots,
    apply: Apply,
    on_complete: Option<OnComplete>,
}

impl<Apply, OnComplete> Client<Apply, OnComplete>
where
    Apply: FnMut(Change) + Send,
    OnComplete: FnOnce() + Send,
{
    /// Starts from the last good configuration, when there is one.
    fn restore(&mut self) {
        let Some(path) = self.snapshots.path() else { return };
        match last_good::read(path, self.snapshots.node(), self.session.is_on_demand()) {
            Ok(Some(LastGood { resources, asked })) => {
                tracing::info!(path = %path.display(), resources = resources.len(), "starting from the last good configuration");
                if let Some(asking) = &mut self.asking {
                    asking.restore(&mut self.session, &asked.unwrap_or_default());
                }
                let output = self.session.restore(resources);
                self.follow(output);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(error = %Chain(&error), "ignoring the last good configuration"),
        }
    }

    /// One stream, from connecting to its end.
    async fn stream<Connecting>(
        &mut self,
        connect: &(impl Fn() -> Connecting + Send),
        shutdown: &mut watch::Receiver<bool>,
        responses: &mut u64,
    ) -> StreamEnd
    where
        Connecting: Future<Output = Result<Channel, ConnectError>> + Send,
    {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, connect());
        let channel = tokio::select! {
            channel = connecting => match channel {
                Ok(Ok(channel)) => channel,
                Ok(Err(error)) => return StreamEnd::Connect(error),
                Err(_) => return StreamEnd::ConnectTimeout,
            },
            never = self.snapshots.tend(&self.session, self.asking.as_ref()) => match never {},
            () = is_over(shutdown) => return StreamEnd::Shutdown,
        };
        let (sender, receiver) = mpsc::channel(16);
        let mut outbox = VecDeque::from(self.session.stream_opened().requests);
        // The first requests are on their way before the server's headers: it may send those with its first response.
        while let Some(request) = outbox.pop_front() {
            if let Err(refused) = sender.try_send(request) {
                outbox.push_front(refused.into_inner());
                break;
            }
        }
        let mut service = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(LARGEST_RESPONSE);
        let opening =
            tokio::time::timeout(OPEN_TIMEOUT, service.delta_aggregated_resources(ReceiverStream::new(receiver)));
        let incoming = tokio::select! {
            opened = opening => match opened {
                Ok(Ok(response)) => response.into_inner(),
                Ok(Err(status)) => return StreamEnd::Broken(Box::new(status)),
                Err(_) => return StreamEnd::OpenTimeout,
            },
            never = self.snapshots.tend(&self.session, self.asking.as_ref()) => match never {},
            () = is_over(shutdown) => return StreamEnd::Shutdown,
        };
        tracing::info!("connected to the control plane");
        metrics::gauge!("weft_xds_connected").set(1.0);
        self.connected(true);
        self.converse(incoming, sender, outbox, shutdown, responses).await
    }

    async fn converse(
        &mut self,
        mut incoming: Streaming<DeltaDiscoveryResponse>,
        sender: mpsc::Sender<DeltaDiscoveryRequest>,
        mut outbox: VecDeque<DeltaDiscoveryRequest>,
        shutdown: &mut watch::Receiver<bool>,
        responses: &mut u64,
    ) -> StreamEnd {
        loop {
            tokio::select! {
                message = incoming.message() => match message {
                    Ok(Some(response)) => {
                        *responses += 1;
                        outbox.extend(self.response(response));
                    }
                    Ok(None) => return StreamEnd::Ended,
                    Err(status) => return StreamEnd::Broken(Box::new(status)),
                },
                permit = sender.reserve(), if !outbox.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(request) = outbox.pop_front() {
                            permit.send(request);
                        }
                    }
                    Err(_) => return StreamEnd::Ended,
                },
                batch = asking::next(&mut self.asks), if outbox.is_empty() => outbox.extend(self.ask(&batch)),
                () = asking::look_is_due(self.asking.as_ref()) => outbox.extend(self.give_up_unused()),
                never = self.snapshots.tend(&self.session, self.asking.as_ref()) => match never {},
                () = is_over(shutdown) => return StreamEnd::Shutdown,
            }
            if outbox.len() > OUTBOX {
                return StreamEnd::NotReading;
            }
        }
    }

    /// A stream is open, or is no more.
    fn connected(&self, is_connected: bool) {
        if let Some(asking) = &self.asking {
            asking.connected(is_connected);
        }
    }

    /// Asks for what connections wait for.
    fn ask(&mut self, batch: &[SocketAddr]) -> Vec<DeltaDiscoveryRequest> {
        let Some(asking) = &mut self.asking else { return Vec::new() };
        let output = asking.ask(&mut self.session, batch, clock::now());
        self.take(output)
    }

    fn give_up_unused(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let Some(asking) = &mut self.asking else { return Vec::new() };
        let output = asking.give_up_unused(&mut self.session, clock::now());
        self.take(output)
    }

    /// Takes a response in and gives back the requests that answer it.
    fn response(&mut self, response: DeltaDiscoveryResponse) -> Vec<DeltaDiscoveryRequest> {
        let label = ResourceType::from_url(&response.type_url).map_or("unknown", ResourceType::label);
        metrics::counter!("weft_xds_responses_total", "type" => label).increment(1);
        metrics::gauge!("weft_xds_last_message_timestamp_seconds").set(clock::unix_seconds() as f64);
        let output = self.session.response(response);
        if self.asking.is_some() && !self.session.is_on_demand() {
            tracing::warn!(
                "the control plane is of a version that does not know who asks for destinations: this proxy holds all of the \
                 mesh until it is started again"
            );
            self.connected(false);
            (self.asking, self.asks) = (None, None);
        }
        if !output.rejected.is_empty() {
            metrics::counter!("weft_xds_nacks_total", "type" => label).increment(1);
        }
        self.take(output)
    }

    /// Follows what the session says, and writes it down.
    fn take(&mut self, output: Output) -> Vec<DeltaDiscoveryRequest> {
        // Half a first configuration must never be the one a later start takes for complete.
        if (output.held_changed || output.completed) && self.session.has_completed() {
            self.snapshots.held_changed();
        }
        self.follow(output)
    }

    /// Does what the session says, in order: apply, tell, report; the requests come last.
    fn follow(&mut self, mut output: Output) -> Vec<DeltaDiscoveryRequest> {
        for error in output.rejected.iter().take(LOGGED_REJECTIONS) {
            tracing::warn!(%error, "a resource cannot be used; what was in force before stays");
        }
        if output.rejected.len() > LOGGED_REJECTIONS {
            tracing::warn!(more = output.rejected.len() - LOGGED_REJECTIONS, "further resources cannot be used");
        }
        if let Some(change) = output.change {
            (self.apply)(change);
            metrics::counter!("weft_xds_updates_applied_total").increment(1);
        }
        // Only now: who waited goes where the change leads.
        let asking = self.asking.as_mut();
        if let Some(further) = asking.and_then(|asking| asking.told(&mut self.session, &output.told)) {
            output.requests.extend(self.take(further));
        }
        if output.completed {
            tracing::info!("the first configuration is complete");
            if let Some(on_complete) = self.on_complete.take() {
                on_complete();
            }
        }
        for kind in ResourceType::ALL {
            metrics::gauge!("weft_xds_resources", "type" => kind.label()).set(self.session.held_count(kind) as f64);
        }
        metrics::gauge!("weft_xds_resources_awaited").set(self.session.awaited() as f64);
        output.requests
    }
}

/// Returns when the proxy shuts down.
async fn is_over(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it everybody who could still want us.
    let _ = shutdown.wait_for(|over| *over).await;
}

/// An error with its sources, on one line.
struct Chain<'a>(&'a dyn Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

fn describe_metrics() {
    metrics::describe_gauge!("weft_xds_connected", "1 while the stream to the control plane is open");
    metrics::describe_counter!("weft_xds_stream_failures_total", "Attempts and streams that failed or ended");
    metrics::describe_counter!("weft_xds_responses_total", "Responses received");
    metrics::describe_counter!("weft_xds_nacks_total", "Responses with a resource that was refused");
    metrics::describe_counter!("weft_xds_updates_applied_total", "Changes put in force");
    metrics::describe_gauge!(
        "weft_xds_last_message_timestamp_seconds",
        "When the control plane last sent anything, since the Unix epoch"
    );
    metrics::describe_gauge!("weft_xds_resources", "Resources held");
    metrics::describe_gauge!("weft_xds_resources_awaited", "Resources referred to that never arrived");
    metrics::describe_gauge!("weft_destinations", "Destinations asked for and answered, by kind");
    metrics::describe_counter!(
        "weft_destination_asks_total",
        "Connections that asked for their destination, by result"
    );
    metrics::describe_counter!("weft_xds_state_file_writes_total", "Last good configurations written, by result");
}

#[cfg(test)]
mod tests;
