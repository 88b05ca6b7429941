//! The few questions to the API server, each over a connection of its own, over verified TLS and within a limit.

use std::sync::Arc;
use std::time::Duration;

use ::http::header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST};
use ::http::{HeaderValue, Method, Request, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::access::Access;

/// From the connection to the last byte of the answer.
const LIMIT: Duration = Duration::from_secs(5);
/// An object is at most 1.5 MiB in etcd.
const LONGEST_ANSWER: usize = 4 << 20;

/// Why the API server gave no answer that helps.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("the API server {server} cannot be asked: {problem}")]
    Unreachable { server: String, problem: String },
    #[error("the API server refused {what}: {status} {message}")]
    Refused { what: String, status: StatusCode, message: String },
    #[error("what the plugin knows of the API server is wrong: {0}")]
    Access(String),
}

impl ApiError {
    /// The status of the answer, if there was one.
    pub(super) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// An API server that can be asked.
pub(super) struct Api {
    server: String,
    host: String,
    port: u16,
    token: HeaderValue,
    tls: Arc<ClientConfig>,
}

impl Api {
    pub(super) fn new(access: &Access) -> Result<Self, ApiError> {
        let wrong = |problem: String| ApiError::Access(problem);
        let uri: Uri = access.server.parse().map_err(|error| wrong(format!("{}: {error}", access.server)))?;
        if uri.scheme_str() != Some("https") {
            return Err(wrong(format!("{} does not begin with https://", access.server)));
        }
        let host = uri.host().ok_or_else(|| wrong(format!("{} names no host", access.server)))?.to_owned();
        let mut token = HeaderValue::try_from(format!("Bearer {}", access.token))
            .map_err(|_| wrong("the token has characters that tokens do not have".to_owned()))?;
        token.set_sensitive(true);
        let port = uri.port_u16().unwrap_or(443);
        Ok(Self { server: access.server.clone(), host, port, token, tls: trust(&access.authority)? })
    }

    /// Reads an object.
    pub(super) async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.ask(Method::GET, path, None).await
    }

    /// Changes an object by a JSON patch (RFC 6902).
    pub(super) async fn patch(&self, path: &str, patch: &Value) -> Result<Value, ApiError> {
        self.ask(Method::PATCH, path, Some(patch)).await
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ApiError> {
        let what = format!("{method} {path}");
        let exchange = async {
            let (status, bytes) =
                self.exchange(method, path, body).await.map_err(|problem| self.unreachable(problem))?;
            let answer = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            if status.is_success() {
                return Ok(answer);
            }
            let message = answer.pointer("/message").and_then(Value::as_str).unwrap_or_default().to_owned();
            Err(ApiError::Refused { what, status, message })
        };
        let late = || self.unreachable(format!("no answer within {LIMIT:?}"));
        tokio::time::timeout(LIMIT, exchange).await.unwrap_or_else(|_| Err(late()))
    }

    fn unreachable(&self, problem: String) -> ApiError {
        ApiError::Unreachable { server: self.server.clone(), problem }
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Bytes), String> {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        let socket = TcpStream::connect((bare, self.port)).await.map_err(|error| error.to_string())?;
        let name = ServerName::try_from(bare.to_owned()).map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, socket).await;
        let stream = TokioIo::new(stream.map_err(|error| format!("TLS: {error}"))?);
        let failed = |error: hyper::Error| error.to_string();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(failed)?;
        // Ends with this function, however that ends.
        let mut driving = JoinSet::new();
        driving.spawn(connection);
        let request = self.request(method, path, body)?;
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
        Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
    }

    fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Request<Full<Bytes>>, String> {
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, format!("{}:{}", self.host, self.port))
            .header(AUTHORIZATION, self.token.clone())
            .header(ACCEPT, "application/json")
            .header(CONNECTION, "close");
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json-patch+json");
        }
        request.body(Full::new(bytes)).map_err(|error| error.to_string())
    }
}

/// Whoever the cluster's authority vouches for, by TLS 1.2 too: the API server is not of the mesh.
fn trust(authority: &str) -> Result<Arc<ClientConfig>, ApiError> {
    let wrong = |problem: String| ApiError::Access(format!("the cluster's certificate authority: {problem}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        let certificate = certificate.map_err(|error| wrong(format!("{error:?}")))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the default provider has suites of every version")
        .with_webpki_verifier(verifier.map_err(|error| wrong(error.to_string()))?)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
