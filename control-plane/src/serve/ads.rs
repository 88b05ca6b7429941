//! The aggregated discovery service: who may open a stream, and one task for each.
//!
//! A stream's task owns its [`Session`] and its [`Watch`]; nothing else touches them. It makes new responses only when the
//! client has taken the last ones, so that a slow client costs the responses of one turn and then continues
//! with the newest state. Requests are read all the time: a client that sends while its own responses wait must not
//! block both sides.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep_until, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};
use weft_core::names::SpiffeId;
use weft_proto::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use weft_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};
use weft_proxy::clock;

use super::coalesce::Coalesce;
use super::earlier::Reader;
use super::node::NodeFacts;
use super::registry::{Asked, Entered, ProxyInfo, Refused, RefusedResources, Registry};
use super::session::delta::Delta;
use super::session::sotw::Sotw;
use super::session::{Refusal, Session};
use crate::world::{View, Watch, WorkloadKey, World};

/// How long a stream may take to begin: its first request, and our own first publication. Below the 15 s after which
/// clients go on without what they asked for.
const OPENING: Duration = Duration::from_secs(10);

/// When the server stops, streams end within this, one after the other: their proxies do not come to the next server all
/// at once.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);
/// In so many groups.
const FAREWELLS: u64 = 32;

/// Responses between a stream's task and the transport.
const QUEUE: usize = 2;

/// Size of one request: a client that comes back lists all it has.
const REQUEST_LIMIT: usize = 16 * 1024 * 1024;

/// Says whose stream it is, from what the transport knows of the peer. UNAUTHENTICATED without a certificate.
type Authenticate = dyn Fn(&Request<()>) -> Result<SpiffeId, Status> + Send + Sync;

/// The service. Cloning it gives another handle.
#[derive(Clone)]
pub struct AdsServer {
    world: Arc<World>,
    authenticate: Arc<Authenticate>,
    registry: Arc<Registry>,
    salt: Arc<AtomicU64>,
    opening: Duration,
    stop: Option<watch::Receiver<bool>>,
}

impl fmt::Debug for AdsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdsServer").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl AdsServer {
    /// `authenticate` is asked once a stream.
    pub fn new(
        world: Arc<World>,
        authenticate: impl Fn(&Request<()>) -> Result<SpiffeId, Status> + Send + Sync + 'static,
    ) -> Self {
        // Nonces of an earlier life of this server must mean nothing in this one.
        let salt = (clock::unix_seconds() as u64) << 20;
        Self {
            world,
            authenticate: Arc::new(authenticate),
            registry: Arc::default(),
            salt: Arc::new(salt.into()),
            opening: OPENING,
            stop: None,
        }
    }

    /// The same server, whose streams end after `stop`.
    #[must_use]
    pub fn until(self, stop: watch::Receiver<bool>) -> Self {
        Self { stop: Some(stop), ..self }
    }

    /// The service to be added to a tonic server.
    pub fn into_service(self) -> AggregatedDiscoveryServiceServer<Self> {
        AggregatedDiscoveryServiceServer::new(self).max_decoding_message_size(REQUEST_LIMIT)
    }

    /// The proxies connected now, by workload.
    pub fn proxies(&self) -> Vec<ProxyInfo> {
        self.registry.proxies()
    }

    /// The connected proxy of a workload, and what it asks for; `None` in its place for one that is told everything.
    pub fn proxy(&self, workload: &str) -> Option<(ProxyInfo, Option<Asked>)> {
        self.registry.proxy(workload)
    }

    fn open<S: Session + 'static>(
        &self,
        request: Request<Streaming<S::Request>>,
    ) -> Result<Response<Responses<S::Response>>, Status> {
        let (metadata, extensions, requests) = request.into_parts();
        let caller = Request::from_parts(metadata, extensions, ());
        let identity = (self.authenticate)(&caller)?;
        let address = caller
            .remote_addr()
            .or_else(|| caller.extensions().get::<SocketAddr>().copied())
            .or_else(|| crate::ca::peer(&caller).map(|peer| peer.address))
            // A listener of both families writes those of IPv4 as IPv6.
            .map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()));
        let bound = crate::ca::peer(&caller).and_then(|peer| peer.workload()).map(str::to_owned);
        let caller = Caller { identity, bound, address };
        let (out, responses) = mpsc::channel(QUEUE);
        let server = self.clone();
        tokio::spawn(async move {
            let result = tokio::select! {
                result = server.serve::<S>(caller, requests, &out) => result,
                () = out.closed() => Ok(()),
                () = server.farewell() => {
                    Err(Status::unavailable("this control plane stops; another replica, or the next one here, goes on"))
                }
            };
            if let Err(status) = result {
                // The client hears of it unless it has left or takes nothing; then it needs no reason.
                let _ = timeout_at((clock::now() + server.opening).into(), out.send(Err(status))).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    /// Completes when a stream that begins now is to end, because the server stops.
    async fn farewell(&self) {
        let Some(mut stop) = self.stop.clone() else { return std::future::pending().await };
        // A sender that is gone stops as well.
        let _ = stop.wait_for(|stop| *stop).await;
        let turn = self.salt.fetch_add(1, Ordering::Relaxed) % FAREWELLS;
        tokio::time::sleep(FAREWELL.mul_f64(turn as f64 / FAREWELLS as f64)).await;
    }

    async fn serve<S: Session>(
        &self,
        Caller { identity, bound, address }: Caller,
        mut requests: Streaming<S::Request>,
        out: &mpsc::Sender<Result<S::Response, Status>>,
    ) -> Result<(), Status> {
        let deadline = (clock::now() + self.opening).into();
        let first = timeout_at(deadline, requests.message())
            .await
            .map_err(|_| Status::deadline_exceeded(format!("no request within {:?}", self.opening)))??;
        let Some(first) = first else { return Ok(()) };
        let facts = NodeFacts::read(S::node(&first), &identity)?;
        is_bound_to(bound.as_deref(), &facts.workload)?;
        timeout_at(deadline, self.world.synced()).await.map_err(|_| {
            Status::unavailable("the control plane has not read its own configuration yet; come back in a second")
        })?;
        let key = facts.key();
        let watch = self.world.watch(key.clone());
        belongs(&watch.view(), &key, &identity)?;
        info!(workload = %key, %identity, ?address, version = facts.version, "a proxy connected");
        let reader = Reader::of(&facts);
        let session = S::new(self.salt.fetch_add(1, Ordering::Relaxed), facts.star);
        let entered = self.registry.enter(facts, identity.clone(), address, clock::unix_seconds(), watch.standing());
        let mut connection = Connection {
            identity,
            reader,
            session,
            watch,
            entered,
            coalesce: Coalesce::default(),
            unsent: VecDeque::new(),
            refusal: None,
        };
        let result = connection.run(first, requests, out).await;
        info!(workload = %key, reason = ?result.as_ref().err().map(Status::message), "a proxy disconnected");
        result
    }
}

/// Who opens a stream.
struct Caller {
    identity: SpiffeId,
    /// The one workload its certificate was given to, if it was given to one.
    bound: Option<String>,
    address: Option<SocketAddr>,
}

type Responses<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for AdsServer {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.open::<Sotw>(request)
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.open::<Delta>(request)
    }
}

/// Whether a workload is one of the certificate's service account. Its inbound listeners say which ports it has and who
/// may call them: that is nobody else's, not even another workload's of its namespace. Of a workload that no document
/// speaks of there is nothing to see.
pub(super) fn belongs(view: &View, workload: &WorkloadKey, identity: &SpiffeId) -> Result<(), Status> {
    match view.account() {
        Some(account) if account != identity.service_account() => Err(Status::permission_denied(format!(
            "workload {workload} has the service account `{account}`, the certificate says `{}` ({identity}); give the \
             proxy a join token of `{account}`, or correct `serviceAccount` of the Workload",
            identity.service_account()
        ))),
        _ => Ok(()),
    }
}

/// A certificate that was given to one pod opens that pod's streams alone: pods of one service account are not shown each
/// other's inbound listeners.
pub(super) fn is_bound_to(bound: Option<&str>, workload: &str) -> Result<(), Status> {
    match bound {
        Some(pod) if pod != workload => Err(Status::permission_denied(format!(
            "the certificate was given to pod `{pod}`, the stream is of workload `{workload}`; set WEFT_WORKLOAD to the \
             pod's name (fieldRef `metadata.name`)"
        ))),
        _ => Ok(()),
    }
}

/// One stream.
struct Connection<S: Session> {
    identity: SpiffeId,
    reader: Reader,
    session: S,
    watch: Watch,
    entered: Entered,
    coalesce: Coalesce,
    /// Made, but not taken by the transport.
    unsent: VecDeque<S::Response>,
    /// The refusal already told of.
    refusal: Option<Refusal>,
}

impl<S: Session> Connection<S> {
    async fn run(
        &mut self,
        first: S::Request,
        mut requests: Streaming<S::Request>,
        out: &mpsc::Sender<Result<S::Response, Status>>,
    ) -> Result<(), Status> {
        self.request(first)?;
        loop {
            self.advance(clock::now())?;
            let wake_at = self.wake_at();
            tokio::select! {
                permit = out.reserve(), if !self.unsent.is_empty() => {
                    let Ok(permit) = permit else { return Ok(()) };
                    if let Some(response) = self.unsent.pop_front() {
                        permit.send(Ok(response));
                    }
                }
                request = requests.message() => {
                    let Some(request) = request? else { return Ok(()) };
                    self.request(request)?;
                }
                () = self.watch.changed() => self.coalesce.change(clock::now()),
                () = sleep_until(wake_at.unwrap_or_else(clock::now).into()), if wake_at.is_some() => {}
            }
        }
    }

    fn request(&mut self, request: S::Request) -> Result<(), Status> {
        let interests = self.session.request(request, clock::now());
        let interests = interests.map_err(|violation| Status::resource_exhausted(violation.to_string()))?;
        if !interests.is_empty() {
            self.watch.note_interest(interests);
        }
        Ok(())
    }

    /// Makes the responses that are due, unless earlier ones have not been taken.
    fn advance(&mut self, now: Instant) -> Result<(), Status> {
        if self.unsent.is_empty() {
            if self.coalesce.due().is_some_and(|due| due <= now) {
                self.coalesce.release(now);
                let (changes, revision) = self.watch.take();
                self.session.changed(changes, revision);
            }
            let view = self.watch.view();
            // Of the same view that is told: a workload may have come, or gone to another account, since the stream began.
            belongs(&view, self.watch.workload(), &self.identity)?;
            self.unsent = self.session.flush(now, &self.reader.view(view)).into();
        }
        self.report(now);
        Ok(())
    }

    fn wake_at(&self) -> Option<Instant> {
        // While responses wait for the client, there is nothing to do at any time.
        let due = self.coalesce.due().into_iter().chain(self.session.wake_at());
        due.min().filter(|_| self.unsent.is_empty())
    }

    fn report(&mut self, now: Instant) {
        let standing = self.session.standing();
        if standing.refusal != self.refusal {
            if let Some(refusal) = &standing.refusal {
                let (kind, reason) = (refusal.kind.type_url(), &refusal.message);
                warn!(workload = %self.watch.workload(), kind, reason, "a proxy refused its configuration");
            }
            self.refusal.clone_from(&standing.refusal);
        }
        let unix_seconds = |at: Instant| clock::unix_seconds() - now.saturating_duration_since(at).as_secs() as i64;
        let told = |refusal: Refusal| Refused {
            type_url: refusal.kind.type_url(),
            at: unix_seconds(refusal.at),
            message: refusal.message,
        };
        let refused = standing.refused.into_iter().map(|refused| RefusedResources {
            refused: told(refused.refusal),
            names: refused.names,
            more: refused.more,
        });
        // First what was refused: who sees that everything is answered must see it.
        self.entered.update(standing.pending, standing.refusal.map(told), refused.collect());
        self.watch.report(standing.progress);
    }
}
