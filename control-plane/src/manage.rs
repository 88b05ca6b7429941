//! The API of the command line: `weft.v1.Management`, served on the data directory's socket.
//!
//! What the messages have no field for travels as notes in the response's metadata: warnings of an apply, and problems
//! of the directory of documents in the status.

pub mod asking;
#[cfg(test)]
mod tests;
pub mod view;

use std::collections::HashSet;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tonic::metadata::{BinaryMetadataValue, MetadataMap};
use tonic::transport::server::UdsConnectInfo;
use tonic::{Code, Request, Response, Status};
use weft_proto::weft::management_server::{Management, ManagementServer};
use weft_proto::weft::{
    ApplyRequest, ApplyResponse, Change, CreateTokenRequest, CreateTokenResponse, DeleteRequest, DeleteResponse,
    GetRequest, GetResponse, LogLevelRequest, LogLevelResponse, ProxyConfigurationRequest, ProxyConfigurationResponse,
    ProxyProgram, ProxyStatus, StatusRequest, StatusResponse,
};
use weft_proxy::telemetry;

use self::asking::{Asking, Author};
use crate::compile;
use crate::document::{DEFAULT_NAMESPACE, Key, Kind, Source, read};
use crate::serve::operations::{AskError, Question};
use crate::store::{Action, Batch, Outcome, Signature, Store, StoreError};

/// Metadata of responses: one sentence each.
pub const NOTE: &str = "weft-note-bin";
/// A batch of this size holds some 100,000 documents.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// Problems and notes travel in headers, which clients bound: more than this is counted, not shown.
const MAX_TEXT_BYTES: usize = 4 << 10;
/// How long a join token lives when nobody says.
const DEFAULT_TOKEN_LIFE: Duration = Duration::from_hours(1);

/// What the other parts of a control plane know.
pub trait Facts: Send + Sync + 'static {
    fn trust_domain(&self) -> String;
    /// End of the root certificate's validity, seconds since the Unix epoch.
    fn root_expires_at(&self) -> i64;
    /// The proxies that are connected.
    fn proxies(&self) -> Vec<ProxyStatus>;
    /// The programs that running proxies can be given, and how far these are.
    fn programs(&self) -> Vec<ProxyProgram>;
    /// What ports of undeclared protocol were seen to speak, by service port.
    fn detected(&self) -> Vec<(String, String)>;
    /// What the proxy of `NAMESPACE/WORKLOAD` is sent; `None` of a workload nobody knows. May take a moment.
    fn configuration(&self, workload: &str) -> Option<view::Configuration>;
    /// Asks the proxy of `NAMESPACE/WORKLOAD`, for [`asking::PATIENCE`] at most.
    fn ask<'a>(&'a self, workload: &'a str, question: Question) -> Asking<'a>;
    /// A join token for one identity; refused with a sentence. May block.
    fn create_token(&self, namespace: &str, service_account: &str, life: Duration) -> Result<Token, String>;
}

/// A join token, shown once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    /// Seconds since the Unix epoch.
    pub expires_at: i64,
}

/// The service.
pub struct Manage {
    pub store: Arc<Store>,
    pub facts: Arc<dyn Facts>,
    /// What is wrong in the directory of documents.
    pub problems: watch::Receiver<Vec<String>>,
    /// Seconds since the Unix epoch.
    pub started_at: i64,
}

impl std::fmt::Debug for Manage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manage").finish_non_exhaustive()
    }
}

impl Manage {
    /// The service as tonic serves it, for batches of documents rather than single messages.
    pub fn into_server(self) -> ManagementServer<Self> {
        ManagementServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Changes the store, or says what would change, off the asynchronous threads.
    async fn change(&self, batch: Batch, author: String, dry_run: bool) -> Result<Outcome, Status> {
        let store = Arc::clone(&self.store);
        let author = if author.is_empty() { "unknown".to_owned() } else { author };
        let signature = Signature { author, at: weft_proxy::clock::unix_seconds() };
        blocking(move || if dry_run { store.dry_run(batch, &signature) } else { store.change(batch, &signature) })
            .await?
            .map_err(|error| match error {
                StoreError::Refused(problems) => Status::invalid_argument(clipped(&problems.0)),
                StoreError::Missing(_) => Status::not_found(error.to_string()),
                StoreError::Disk { .. } | StoreError::Format { .. } | StoreError::Newer { .. } => {
                    Status::internal(error.to_string())
                }
            })
    }
}

#[tonic::async_trait]
impl Management for Manage {
    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        let ApplyRequest { sources, author, dry_run } = request.into_inner();
        if sources.is_empty() {
            return Err(Status::invalid_argument("the request holds no source; give at least one"));
        }
        let sources: Vec<Source> =
            sources.into_iter().map(|source| Source { name: source.name, text: source.text }).collect();
        let apply = blocking(move || read(&sources))
            .await?
            .map_err(|problems| Status::invalid_argument(clipped(&problems.0)))?;
        let outcome = self.change(Batch { apply, delete: Vec::new() }, author, dry_run).await?;
        let applied: HashSet<Key> = outcome.changes.iter().map(|(key, _)| key.clone()).collect();
        let snapshot = Arc::clone(&outcome.snapshot);
        let mut warnings =
            blocking(move || compile::warnings(snapshot.documents.values().map(|stored| &stored.document))).await?;
        warnings.retain(|warning| applied.contains(&warning.key));
        let mut response =
            Response::new(ApplyResponse { revision: outcome.snapshot.revision, changes: changes(&outcome) });
        annotate(response.metadata_mut(), &warnings);
        Ok(response)
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        view::documents(&self.store.snapshot(), &request.into_inner())
            .map(Response::new)
            .map_err(Status::invalid_argument)
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let DeleteRequest { documents, author } = request.into_inner();
        if documents.is_empty() {
            return Err(Status::invalid_argument("the request names no document; name at least one"));
        }
        let mut delete = Vec::with_capacity(documents.len());
        for document in documents {
            let namespace = if document.namespace.is_empty() { DEFAULT_NAMESPACE } else { &document.namespace };
            delete.push(Key::new(parse_kind(&document.kind)?, namespace, &document.name));
        }
        let outcome = self.change(Batch { apply: Vec::new(), delete }, author, false).await?;
        Ok(Response::new(DeleteResponse { revision: outcome.snapshot.revision, changes: changes(&outcome) }))
    }

    async fn status(&self, _request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let status = view::status(&self.store.snapshot(), self.facts.as_ref(), self.started_at);
        let mut response = Response::new(status);
        annotate(response.metadata_mut(), &self.problems.borrow());
        Ok(response)
    }

    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let CreateTokenRequest { namespace, service_account, ttl_seconds } = request.into_inner();
        if service_account.is_empty() {
            return Err(Status::invalid_argument("the service account is missing; a token is for one identity"));
        }
        let namespace = if namespace.is_empty() { DEFAULT_NAMESPACE.to_owned() } else { namespace };
        let life = if ttl_seconds == 0 { DEFAULT_TOKEN_LIFE } else { Duration::from_secs(ttl_seconds) };
        let facts = Arc::clone(&self.facts);
        let token = blocking(move || facts.create_token(&namespace, &service_account, life))
            .await?
            .map_err(Status::invalid_argument)?;
        Ok(Response::new(CreateTokenResponse { token: token.text, expires_at: token.expires_at }))
    }

    async fn log_level(&self, request: Request<LogLevelRequest>) -> Result<Response<LogLevelResponse>, Status> {
        let peer = request.extensions().get::<UdsConnectInfo>().and_then(|peer| peer.peer_cred);
        let proved = peer.map_or_else(|| "a user of the socket".to_owned(), |peer| format!("uid {}", peer.uid()));
        let LogLevelRequest { workload, level, author } = request.into_inner();
        let result = if level.is_empty() {
            asking::log_level(self.facts.as_ref(), &workload).await
        } else {
            let wanted = telemetry::level_of_name(&level).ok_or_else(|| Status::invalid_argument(telemetry::LEVELS))?;
            asking::set_log_level(self.facts.as_ref(), &workload, wanted, &Author::new(proved, &author)).await
        };
        let level = result.map_err(|error| unanswered(&workload, &error))?;
        Ok(Response::new(LogLevelResponse { level: level.to_string() }))
    }

    async fn proxy_configuration(
        &self,
        request: Request<ProxyConfigurationRequest>,
    ) -> Result<Response<ProxyConfigurationResponse>, Status> {
        let ProxyConfigurationRequest { workload } = request.into_inner();
        let dump = asking::configuration(self.facts.as_ref(), &workload).await;
        let dump = dump.map_err(|error| unanswered(&workload, &error))?;
        let json = String::from_utf8(dump)
            .map_err(|_| Status::failed_precondition(format!("{workload}: its proxy answered with what is no text")))?;
        Ok(Response::new(ProxyConfigurationResponse { json }))
    }
}

fn unanswered(workload: &str, error: &AskError) -> Status {
    let code = match error {
        AskError::NotConnected => Code::NotFound,
        AskError::Busy => Code::ResourceExhausted,
        AskError::Late(_) => Code::DeadlineExceeded,
        AskError::Gone => Code::Unavailable,
        AskError::Refused(_) => Code::FailedPrecondition,
    };
    Status::new(code, format!("{workload}: {error}"))
}

/// The notes of a response.
pub fn notes(metadata: &MetadataMap) -> Vec<String> {
    metadata
        .get_all_bin(NOTE)
        .iter()
        .filter_map(|value| Some(String::from_utf8_lossy(&value.to_bytes().ok()?).into_owned()))
        .collect()
}

fn annotate(metadata: &mut MetadataMap, notes: &[impl Display]) {
    for note in fitting(notes) {
        metadata.append_bin(NOTE, BinaryMetadataValue::from_bytes(note.as_bytes()));
    }
}

/// The sentences one a line, as many as fit.
fn clipped(sentences: &[impl Display]) -> String {
    fitting(sentences).join("\n")
}

fn fitting(sentences: &[impl Display]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut bytes = 0;
    for sentence in sentences {
        let line = sentence.to_string();
        bytes += line.len();
        if bytes > MAX_TEXT_BYTES && !lines.is_empty() {
            lines.push(format!("... and {} more", sentences.len() - lines.len()));
            break;
        }
        lines.push(line);
    }
    lines
}

fn parse_kind(text: &str) -> Result<Kind, Status> {
    Kind::parse(text).map_err(Status::invalid_argument)
}

fn changes(outcome: &Outcome) -> Vec<Change> {
    let change = |(key, action): &(Key, Action)| Change {
        kind: key.kind.to_string(),
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        action: action.as_str().to_owned(),
    };
    outcome.changes.iter().map(change).collect()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Status::new(Code::Internal, error.to_string()))
}
