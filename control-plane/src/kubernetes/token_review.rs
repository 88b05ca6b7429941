//! Service-account tokens as proof of identity.
//!
//! A proxy shows the token of its pod; the API server says whose it is (TokenReview), and we sign for exactly that
//! service account and, where the token is bound to a pod, for that pod alone. Tokens of other audiences are worth
//! nothing here: whoever is sent a proxy's token cannot use it at the API server, and the other way round.
//!
//! Nothing is remembered: each certificate, also each renewal, is asked for anew, so that a deleted pod or service
//! account has its last certificate within half of a certificate's life. While the API server is away nobody joins
//! (UNAVAILABLE; proxies try again) and certificates in force stay so.

use std::fmt;
use std::time::{Duration, SystemTime};

use http::Method;
use k8s_openapi::api::authentication::v1::{TokenReviewStatus, UserInfo};
use kube::Client;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use tonic::Status;

use super::confidential::{self, RequestError};
use super::names;
use crate::ca::{BoundPod, ProofSource};

/// Reviews under way at a time; more wait for a place as long as for an answer. A rollout of a whole cluster must not
/// become a flood for its API server.
const MOST_REVIEWS: usize = 64;
/// From the request of a proxy to the answer about its token: less than the 5 s it waits for us.
const REVIEW_LIMIT: Duration = Duration::from_secs(4);

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Why a token proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    #[error("the API server does not accept the service-account token{}", reason(.0))]
    NotAuthenticated(String),
    #[error("the token is not for audience `{}`; project one with that audience into the pod", names::PROXY_AUDIENCE)]
    Audience,
    #[error("the token is of `{0}`, which is no service account")]
    NoServiceAccount(String),
    #[error("the token is of `{found}`, asked was ns/{namespace}/sa/{service_account}")]
    OtherIdentity { found: String, namespace: String, service_account: String },
    #[error("the API server binds the token to a pod and does not say which")]
    HalfBound,
    #[error("the API server did not review the token within {0:?}; try again")]
    TimedOut(Duration),
    #[error("the token was not reviewed, try again: {0}")]
    Unavailable(#[source] RequestError),
    #[error(
        "the control plane cannot review tokens: {0}; its ServiceAccount needs `create` on `tokenreviews` \
         (`weft install` grants it)"
    )]
    NotAllowed(#[source] RequestError),
}

fn reason(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

impl From<ReviewError> for Status {
    fn from(error: ReviewError) -> Self {
        let message = error.to_string();
        match error {
            ReviewError::NotAuthenticated(_) | ReviewError::Audience | ReviewError::HalfBound => {
                Self::unauthenticated(message)
            }
            ReviewError::NoServiceAccount(_) | ReviewError::OtherIdentity { .. } => Self::permission_denied(message),
            ReviewError::TimedOut(_) | ReviewError::Unavailable(_) => Self::unavailable(message),
            // Ours to mend, not the caller's; who asks tries again all the same.
            ReviewError::NotAllowed(_) => Self::internal(message),
        }
    }
}

/// Asks the API server whose a token is.
pub struct TokenReviewer {
    client: Client,
    places: Semaphore,
    limit: Duration,
}

impl TokenReviewer {
    pub fn new(client: Client) -> Self {
        Self { client, places: Semaphore::new(MOST_REVIEWS), limit: REVIEW_LIMIT }
    }

    async fn review(&self, token: &str) -> Result<TokenReviewStatus, ReviewError> {
        let asking = async {
            let _place = self.places.acquire().await.expect("the semaphore is never closed");
            let review = json!({
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "spec": { "token": token, "audiences": [names::PROXY_AUDIENCE] },
            });
            let request = confidential::request(Method::POST, REVIEWS, Some(&review));
            confidential::send::<Answer>(&self.client, request).await
        };
        match tokio::time::timeout(self.limit, asking).await {
            Ok(Ok(answer)) => Ok(answer.status),
            Ok(Err(error)) if error.is_temporary() => Err(ReviewError::Unavailable(error)),
            Ok(Err(error)) => Err(ReviewError::NotAllowed(error)),
            Err(_) => Err(ReviewError::TimedOut(self.limit)),
        }
    }
}

impl fmt::Debug for TokenReviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenReviewer").finish_non_exhaustive()
    }
}

/// The half of a TokenReview that does not hold the token.
#[derive(Deserialize)]
struct Answer {
    status: TokenReviewStatus,
}

impl ProofSource for TokenReviewer {
    type Error = ReviewError;
    // A certificate would outlive its pod, and renew itself for ever in the hands of whoever has its key.
    const RENEWS_BY_CERTIFICATE: bool = false;

    async fn prove(
        &self,
        token: &str,
        namespace: &str,
        service_account: &str,
        _: SystemTime,
    ) -> Result<Option<BoundPod>, ReviewError> {
        judge(self.review(token).await?, namespace, service_account)
    }
}

/// What a review's answer proves about who asks to be `namespace`/`service_account`.
fn judge(status: TokenReviewStatus, namespace: &str, service_account: &str) -> Result<Option<BoundPod>, ReviewError> {
    if status.authenticated != Some(true) {
        return Err(ReviewError::NotAuthenticated(status.error.unwrap_or_default()));
    }
    // An authenticator that knows no audiences authenticates and leaves them out.
    if !status.audiences.unwrap_or_default().iter().any(|audience| audience == names::PROXY_AUDIENCE) {
        return Err(ReviewError::Audience);
    }
    let user = status.user.unwrap_or_default();
    let found = user.username.clone().unwrap_or_default();
    if !found.starts_with("system:serviceaccount:") {
        return Err(ReviewError::NoServiceAccount(found));
    }
    if found != format!("system:serviceaccount:{namespace}:{service_account}") {
        let (namespace, service_account) = (namespace.to_owned(), service_account.to_owned());
        return Err(ReviewError::OtherIdentity { found, namespace, service_account });
    }
    bound_pod(&user)
}

fn bound_pod(user: &UserInfo) -> Result<Option<BoundPod>, ReviewError> {
    let extra = |key: &str| match user.extra.as_ref().and_then(|extra| extra.get(key)).map(Vec::as_slice) {
        None => Ok(None),
        Some([value]) if !value.is_empty() => Ok(Some(value.clone())),
        Some(_) => Err(ReviewError::HalfBound),
    };
    match (extra(POD_NAME)?, extra(POD_UID)?) {
        (Some(name), Some(uid)) => Ok(Some(BoundPod { name, uid })),
        // Of a token that somebody with the right to make tokens made by hand.
        (None, None) => Ok(None),
        _ => Err(ReviewError::HalfBound),
    }
}

#[cfg(test)]
mod tests;
