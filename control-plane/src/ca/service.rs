//! `weft.v1.Identity`: signs workloads' keys for those who prove who they are.

use std::sync::Arc;
use std::time::SystemTime;

use tonic::{Request, Response, Status};
use weft_core::names::SpiffeId;
use weft_proto::weft::identity_server::{Identity, IdentityServer};
use weft_proto::weft::{SignRequest, SignResponse};
use weft_proxy::clock;

use super::{Authority, BoundPod, ProofSource, SignError, peer_identity};

/// A request is a token and a signing request: a few hundred bytes, or two thousand with a service-account token.
const LARGEST_MESSAGE: usize = 16 * 1024;
/// Longest namespace or account, as in Kubernetes.
const LONGEST_NAME: usize = 253;

/// The signing service of an authority, for those who prove who they are to `P`.
#[derive(Debug)]
pub struct IdentityService<P> {
    authority: Arc<Authority>,
    proofs: Arc<P>,
}

impl<P: ProofSource> IdentityService<P> {
    pub fn new(authority: Arc<Authority>, proofs: Arc<P>) -> Self {
        Self { authority, proofs }
    }

    /// As a service of a tonic server.
    pub fn server(self) -> IdentityServer<Self> {
        IdentityServer::new(self).max_decoding_message_size(LARGEST_MESSAGE)
    }

    fn wanted(&self, request: &SignRequest) -> Result<SpiffeId, Status> {
        let (namespace, account) = (&request.namespace, &request.service_account);
        if namespace.len() > LONGEST_NAME || account.len() > LONGEST_NAME {
            return Err(Status::invalid_argument(format!("a name is longer than {LONGEST_NAME} bytes")));
        }
        SpiffeId::parse(SpiffeId::workload(self.authority.trust_domain(), namespace, account).as_str())
            .map_err(|error| Status::invalid_argument(error.to_string()))
    }

    /// Whether the caller proves to be `wanted`: by certificate where that is enough, or by token; and as which pod.
    async fn prove(
        &self,
        request: &SignRequest,
        peer: Option<&SpiffeId>,
        wanted: &SpiffeId,
        now: SystemTime,
    ) -> Result<Option<BoundPod>, Status> {
        match peer {
            Some(peer) if peer == wanted && P::RENEWS_BY_CERTIFICATE => Ok(None),
            _ if !request.token.is_empty() => {
                let (namespace, account) = (&request.namespace, &request.service_account);
                self.proofs.prove(&request.token, namespace, account, now).await.map_err(Into::into)
            }
            Some(peer) if peer != wanted => {
                Err(Status::permission_denied(format!("`{peer}` may not have a certificate of `{wanted}`")))
            }
            Some(_) => Err(Status::unauthenticated(
                "no proof of identity: here a certificate is not renewed by itself, send the service-account token as well",
            )),
            None => Err(Status::unauthenticated(
                "no proof of identity: send a join token, or present a valid client certificate",
            )),
        }
    }
}

#[tonic::async_trait]
impl<P: ProofSource> Identity for IdentityService<P> {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let now = clock::wall();
        let peer = peer_identity(&request);
        let request = request.into_inner();
        let wanted = self.wanted(&request)?;
        let pod = self.prove(&request, peer.as_ref(), &wanted, now).await.inspect_err(|status| {
            tracing::warn!(identity = %wanted, code = ?status.code(), reason = status.message(), "not signed");
        })?;
        let workload = pod.as_ref().map(|pod| pod.name.as_str());
        let issued = self.authority.sign(&request.csr, &wanted, workload, now).map_err(|error| status(&error))?;
        let pod_uid = pod.as_ref().map(|pod| pod.uid.as_str());
        let renewed = peer.as_ref() == Some(&wanted);
        tracing::info!(identity = %wanted, workload, pod_uid, renewed, "certificate signed");
        Ok(Response::new(SignResponse {
            chain: issued.chain.iter().map(|certificate| certificate.to_vec()).collect(),
            bundle: self.authority.bundle().iter().map(|certificate| certificate.to_vec()).collect(),
            expires_at: issued
                .expires_at
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs().cast_signed()),
            spiffe_id: wanted.to_string(),
        }))
    }
}

fn status(error: &SignError) -> Status {
    match error {
        SignError::TooLarge(_) | SignError::Unreadable(_) | SignError::BadSignature | SignError::Key => {
            Status::invalid_argument(error.to_string())
        }
        SignError::RootExpired { .. } => Status::failed_precondition(error.to_string()),
        SignError::TrustDomain { .. } | SignError::Certificate(_) | SignError::Random => {
            Status::internal(error.to_string())
        }
    }
}
