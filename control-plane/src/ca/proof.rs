//! What proves an identity, beside a certificate of ours.
//!
//! There are two sources: [`super::JoinTokens`] outside clusters, and
//! [`crate::kubernetes::token_review::TokenReviewer`] in them.

use std::fmt;
use std::time::SystemTime;

use tonic::Status;

/// The one pod a proof is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundPod {
    pub name: String,
    pub uid: String,
}

/// Judges the tokens of those who ask for a certificate.
pub trait ProofSource: fmt::Debug + Send + Sync + 'static {
    /// Why a token proves nothing. UNAUTHENTICATED: it is no valid token; `PERMISSION_DENIED`: it is for somebody else;
    /// UNAVAILABLE: nobody could tell now.
    type Error: Into<Status> + Send;

    /// Whether a valid certificate is proof enough for the next one of the same identity.
    const RENEWS_BY_CERTIFICATE: bool;

    /// Whether `token` proves that its holder is `namespace`/`service_account`; and as which pod, if it says that.
    fn prove(
        &self,
        token: &str,
        namespace: &str,
        service_account: &str,
        now: SystemTime,
    ) -> impl Future<Output = Result<Option<BoundPod>, Self::Error>> + Send;
}
