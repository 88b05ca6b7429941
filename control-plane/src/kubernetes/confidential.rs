//! Requests to the API server whose question or answer holds a secret: the root's key, a service-account token.
//!
//! The client's own reading writes an answer it cannot parse to the log, whole. Here nothing of a body goes anywhere but
//! to the caller, and of refusals only what the API server says about permissions is repeated: other messages may
//! quote what was sent.

use http::Request;
use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::client::Body;
use kube::error::Status;
use serde::de::DeserializeOwned;

/// An object of the API server has 1.5 MiB at most; these have a few KiB.
const LARGEST_ANSWER: usize = 2 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("cannot reach the API server: {0}")]
    Unreachable(#[source] Box<kube::Error>),
    #[error("the connection to the API server ended in the middle of its answer")]
    Cut,
    #[error("the API server refuses it: {message} ({code})")]
    Forbidden { code: u16, message: String },
    #[error("the API server answers {code} {reason}")]
    Refused { code: u16, reason: String },
    #[error("the API server's answer is no object of the kind asked for")]
    Unreadable,
}

impl RequestError {
    /// HTTP status of a refusal.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Forbidden { code, .. } | Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the same request may succeed in a moment.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Cut => true,
            Self::Refused { code, .. } => *code == 429 || *code >= 500,
            Self::Forbidden { .. } | Self::Unreadable => false,
        }
    }
}

/// Sends a request and reads its answer as JSON. It waits as long as the caller does.
pub(super) async fn send<T: DeserializeOwned>(client: &Client, request: Request<Vec<u8>>) -> Result<T, RequestError> {
    let unreachable = |error| RequestError::Unreachable(Box::new(error));
    let response = client.send(request.map(Body::from)).await.map_err(unreachable)?;
    let code = response.status();
    let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await.map_err(|_| RequestError::Cut)?;
    let body = body.to_bytes();
    if code.is_success() {
        return serde_json::from_slice(&body).map_err(|_| RequestError::Unreadable);
    }
    let status: Status = serde_json::from_slice(&body).unwrap_or_default();
    Err(match code.as_u16() {
        code @ (401 | 403) => RequestError::Forbidden { code, message: status.message },
        code => RequestError::Refused { code, reason: status.reason },
    })
}

/// A request with a JSON body, or without one.
pub(super) fn request(method: http::Method, path: &str, body: Option<&serde_json::Value>) -> Request<Vec<u8>> {
    let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
    Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::ACCEPT, "application/json")
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body)
        .expect("paths are made of names that are checked")
}
