//! `weft.v1.Operations`: asks running proxies what operators want to know of them.
//!
//! | module | does |
//! |---|---|
//! | [`introduction`] | what a proxy says of itself, checked |
//! | [`connected`] | the proxies that can be asked now, and which of several streams is asked |
//! | [`ledger`] | one stream's questions and answers, as a state machine |
//!
//! A stream's task owns its ledger; questions come to it by a bounded queue. A proxy whose answers fit no question of its
//! stream, or are too long, is cut off. Whoever asks waits for a limited time and is always told why there
//! is no answer.

mod connected;
mod introduction;
mod ledger;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::Map;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::level_filters::LevelFilter;
use weft_core::names::SpiffeId;
use weft_proto::weft::operations_server::{Operations as Service, OperationsServer};
use weft_proto::weft::{self, ProgramChunk, ProgramRequest, answer};
use weft_proxy::clock;

use super::ads::{FAREWELL, belongs, is_bound_to};
use crate::programs::Programs;
use crate::programs::download::{DownloadError, Downloads, Pieces};
use crate::world::World;
use connected::{Asked, Entered, Streams};
use ledger::{Kind, Ledger, MOST_UNANSWERED};

pub use connected::ConnectedProxy;
pub use weft_proto::weft::question::Question;

/// Of one message: a part of a configuration. A proxy that nobody asked can make us hold no more.
const LARGEST_MESSAGE: usize = 128 << 10;
/// How long a stream may take to begin: its introduction, and our own first publication.
const OPENING: Duration = Duration::from_secs(10);
/// When the server stops, proxies leave with their configuration's stream; what is left after that ends so much later.
const LEFT_BEHIND: Duration = Duration::from_millis(500);

/// Says whose stream it is, from what the transport knows of the peer. UNAUTHENTICATED without a certificate.
type Authenticate = dyn Fn(&Request<()>) -> Result<SpiffeId, Status> + Send + Sync;

/// What a proxy said to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The level in force.
    LogLevel(LevelFilter),
    /// In JSON, as the proxy's `/config_dump`; not looked into.
    Configuration(Vec<u8>),
    /// The new program serves.
    Upgraded,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("its proxy is not connected here to be asked")]
    NotConnected,
    #[error("its proxy was asked too much and has not answered yet; try again")]
    Busy,
    #[error("its proxy did not answer within {0:?}; try again")]
    Late(Duration),
    #[error("its proxy disconnected before it answered; try again")]
    Gone,
    #[error("its proxy refused: {0}")]
    Refused(String),
}

impl AskError {
    fn label(&self) -> &'static str {
        match self {
            Self::NotConnected => "not_connected",
            Self::Busy => "busy",
            Self::Late(_) => "late",
            Self::Gone => "gone",
            Self::Refused(_) => "refused",
        }
    }
}

/// The proxies that can be asked. Cloning it gives another handle.
#[derive(Debug, Clone)]
pub struct Operations {
    streams: Arc<Streams>,
}

impl Operations {
    /// `world` says whose a workload is.
    pub fn new(world: Arc<World>) -> Self {
        Self { streams: Arc::new(Streams::new(world)) }
    }

    /// The proxies connected now by workload; of one that has several streams the newest.
    pub fn proxies(&self) -> Vec<ConnectedProxy> {
        self.streams.proxies()
    }

    /// Asks the proxy of `NAMESPACE/WORKLOAD`. The answer is in the form of the question.
    ///
    /// # Errors
    /// When there is no answer within `limit`, and why.
    pub async fn ask(&self, workload: &str, question: Question, limit: Duration) -> Result<Answer, AskError> {
        let label = Kind::of(&question).label();
        let asking = async {
            let (answered, answer) = oneshot::channel();
            self.streams.hand(workload, Asked { question, answered })?;
            // A task that ends drops what waits for it.
            answer.await.unwrap_or(Err(AskError::Gone))
        };
        let result = tokio::time::timeout(limit, asking).await.unwrap_or(Err(AskError::Late(limit)));
        let told = result.as_ref().err().map_or("answered", AskError::label);
        metrics::counter!("weft_operations_total", "question" => label, "result" => told).increment(1);
        result
    }
}

/// The service.
#[derive(Clone)]
pub struct OperationsService {
    world: Arc<World>,
    operations: Operations,
    authenticate: Arc<Authenticate>,
    opening: Duration,
    stop: watch::Receiver<bool>,
    downloads: Downloads,
}

impl fmt::Debug for OperationsService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperationsService").finish_non_exhaustive()
    }
}

impl OperationsService {
    /// `authenticate` is asked once a stream; streams end after `stop`.
    pub fn new(
        world: Arc<World>,
        operations: Operations,
        authenticate: impl Fn(&Request<()>) -> Result<SpiffeId, Status> + Send + Sync + 'static,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let downloads = Downloads::new(Programs::default());
        Self { world, operations, authenticate: Arc::new(authenticate), opening: OPENING, stop, downloads }
    }

    /// With programs for those who were told of them.
    #[must_use]
    pub fn offering(self, downloads: Downloads) -> Self {
        Self { downloads, ..self }
    }

    /// The service to be added to a tonic server.
    pub fn into_service(self) -> OperationsServer<Self> {
        OperationsServer::new(self).max_decoding_message_size(LARGEST_MESSAGE)
    }

    async fn run(&self, caller: Caller, mut answers: Streaming<weft::Answer>, out: &Questions) -> Result<(), Status> {
        let Caller { identity, bound } = caller;
        let late = |_| Status::deadline_exceeded(format!("no introduction within {:?}", self.opening));
        let opening = async {
            let Some(first) = answers.message().await? else { return Ok(None) };
            // Until then nobody knows whose a workload is.
            self.world.synced().await;
            Ok::<_, Status>(Some(first))
        };
        let Some(first) = tokio::time::timeout(self.opening, opening).await.map_err(late)?? else { return Ok(()) };
        let Some(answer::Answer::Introduction(introduction)) = first.answer else {
            return Err(Status::invalid_argument("the first message is no introduction"));
        };
        let workload = introduction::workload(&introduction, &identity)?;
        is_bound_to(bound.as_deref(), &introduction.workload)?;
        belongs(&self.world.view(&workload), &workload, &identity)?;
        let proxy = ConnectedProxy {
            workload: workload.clone(),
            identity: identity.clone(),
            introduction,
            connected_since: clock::unix_seconds(),
        };
        let entered = self.operations.streams.enter(proxy);
        let entered = entered.map_err(|error| Status::resource_exhausted(error.to_string()))?;
        let result = converse(entered, answers, out).await;
        if let Err(status) = &result
            && status.code() == tonic::Code::InvalidArgument
        {
            tracing::warn!(%workload, %identity, reason = status.message(), "a proxy was cut off from questions");
        }
        result
    }

    /// Completes when streams are to end, because the server stops.
    async fn farewell(&self) {
        // A sender that is gone stops as well.
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
        tokio::time::sleep(FAREWELL + LEFT_BEHIND).await;
    }
}

type Questions = mpsc::Sender<Result<weft::Question, Status>>;

/// Who opens a stream.
struct Caller {
    identity: SpiffeId,
    /// The one workload its certificate was given to, if it was given to one.
    bound: Option<String>,
}

/// Questions out and answers in, until one side ends.
async fn converse(mut entered: Entered, mut answers: Streaming<weft::Answer>, out: &Questions) -> Result<(), Status> {
    let mut ledger: Ledger<oneshot::Sender<Result<Answer, AskError>>> = Ledger::default();
    loop {
        tokio::select! {
            answer = answers.message() => {
                let Some(weft::Answer { number, answer }) = answer? else { return Ok(()) };
                let answered = ledger.answer(number, answer);
                let answered = answered.map_err(|violation| Status::invalid_argument(violation.to_string()))?;
                if let Some((waiting, result)) = answered {
                    // Who asked may have gone.
                    let _ = waiting.send(result);
                }
            }
            Some(Asked { question, answered }) = entered.questions.recv() => {
                match ledger.ask(Kind::of(&question), answered) {
                    Err(answered) => _ = answered.send(Err(AskError::Busy)),
                    // There is room for all that may be unanswered, unless the proxy answers what it has not read.
                    Ok(number) => out
                        .try_send(Ok(weft::Question { number, question: Some(question) }))
                        .map_err(|_| Status::invalid_argument("the proxy answers questions it has not read"))?,
                }
            }
            () = entered.superseded.notified() => {
                return Err(Status::aborted("newer streams of this workload are open"));
            }
        }
    }
}

#[tonic::async_trait]
impl Service for OperationsService {
    type ServeStream = ReceiverStream<Result<weft::Question, Status>>;
    type ProgramStream = Map<Pieces, fn(Result<Vec<u8>, DownloadError>) -> Result<ProgramChunk, Status>>;

    async fn serve(&self, request: Request<Streaming<weft::Answer>>) -> Result<Response<Self::ServeStream>, Status> {
        let (metadata, extensions, answers) = request.into_parts();
        let request = Request::from_parts(metadata, extensions, ());
        let identity = (self.authenticate)(&request)?;
        let bound = crate::ca::peer(&request).and_then(|peer| peer.workload()).map(str::to_owned);
        let (out, questions) = mpsc::channel(MOST_UNANSWERED);
        let service = self.clone();
        tokio::spawn(async move {
            let result = tokio::select! {
                result = service.run(Caller { identity, bound }, answers, &out) => result,
                () = out.closed() => Ok(()),
                () = service.farewell() => Err(Status::unavailable("this control plane stops")),
            };
            if let Err(status) = result {
                // The client hears of it unless it has left or takes nothing; then it needs no reason.
                let _ = tokio::time::timeout(service.opening, out.send(Err(status))).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(questions)))
    }

    async fn program(&self, request: Request<ProgramRequest>) -> Result<Response<Self::ProgramStream>, Status> {
        let (metadata, extensions, ProgramRequest { digest }) = request.into_parts();
        (self.authenticate)(&Request::from_parts(metadata, extensions, ()))?;
        let pieces = self.downloads.begin(&digest).map_err(|error| refusal(&error))?;
        Ok(Response::new(pieces.map(chunk as fn(_) -> _)))
    }
}

fn chunk(piece: Result<Vec<u8>, DownloadError>) -> Result<ProgramChunk, Status> {
    piece.map(|data| ProgramChunk { data }).map_err(|error| refusal(&error))
}

fn refusal(error: &DownloadError) -> Status {
    let message = error.to_string();
    match error {
        DownloadError::Unknown(_) => Status::not_found(message),
        DownloadError::Busy => Status::resource_exhausted(message),
        DownloadError::TooSlow(_) => Status::deadline_exceeded(message),
        DownloadError::Read(_) => Status::internal(message),
    }
}
