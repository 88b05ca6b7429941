//! One certificate: key, signing request, proof, answer.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use weft_proto::weft::identity_client::IdentityClient;
use weft_proto::weft::{SignRequest, SignResponse};

use super::connector::open;
use super::{IdentityError, Options, Secret, chain};
use crate::tls::Credentials;

/// From the request's first byte to the answer. Signing takes the control plane a millisecond.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Larger than any answer: a chain and a bundle are a few KiB.
const LARGEST_ANSWER: usize = 256 * 1024;

/// Gets a new certificate: proved by the one in force and the token, else by the token alone.
pub async fn obtain(options: &Options, current: Option<&Credentials>) -> Result<Credentials, IdentityError> {
    let now = crate::clock::wall();
    let Some(current) = current.filter(|current| now < current.expires_at) else {
        return by_token(options).await;
    };
    // Sent along with the certificate: a control plane in a cluster wants to know at every renewal that the pod still is.
    // Outside it is not needed, and may have expired or be gone.
    let token = match &options.token_file {
        Some(path) => read_token(path.clone()).await.map(|Secret(token)| token).unwrap_or_default(),
        None => String::new(),
    };
    match sign(options, Some(current), token).await {
        Ok(credentials) => Ok(credentials),
        // Whatever the reason: a control plane with a new root refuses the certificate in the handshake and still
        // takes a token.
        Err(error) if options.token_file.is_some() => {
            tracing::debug!(%error, "not renewed by the certificate, trying the join token");
            by_token(options).await.map_err(|second| more_telling(error, second))
        }
        Err(error) => Err(error),
    }
}

/// Tokens of proxies that run for long are expired by design: then the certificate's failure is the news.
fn more_telling(by_certificate: IdentityError, by_token: IdentityError) -> IdentityError {
    match by_token {
        IdentityError::Refused { code: tonic::Code::Unauthenticated, .. } | IdentityError::Read { .. } => {
            by_certificate
        }
        _ => by_token,
    }
}

async fn by_token(options: &Options) -> Result<Credentials, IdentityError> {
    let path = options.token_file.clone().ok_or(IdentityError::NoProof)?;
    let Secret(token) = read_token(path).await?;
    sign(options, None, token).await
}

async fn read_token(path: PathBuf) -> Result<Secret, IdentityError> {
    match tokio::fs::read_to_string(&path).await {
        Ok(text) if text.trim().is_empty() => {
            let source = std::io::Error::other("the file is empty");
            Err(IdentityError::Read { what: "the join token file", path, source })
        }
        Ok(text) => Ok(Secret(text.trim().to_owned())),
        Err(source) => Err(IdentityError::Read { what: "the join token file", path, source }),
    }
}

async fn sign(
    options: &Options,
    certificate: Option<&Credentials>,
    token: String,
) -> Result<Credentials, IdentityError> {
    let key = KeyPair::generate()?;
    let request = SignRequest {
        token,
        csr: signing_request(&key)?,
        namespace: options.namespace.clone(),
        service_account: options.service_account.clone(),
    };
    let channel = open(options, certificate).await?;
    let mut client = IdentityClient::new(channel).max_decoding_message_size(LARGEST_ANSWER);
    let answer = tokio::time::timeout(ANSWER_LIMIT, client.sign(request))
        .await
        .map_err(|_| IdentityError::TimedOut { address: options.control_plane.clone(), limit: ANSWER_LIMIT })?
        .map_err(|status| refused(&status))?;
    credentials(options, &key, answer.into_inner())
}

/// With the causes: a handshake refused late is a mere "transport error" without them.
fn refused(status: &tonic::Status) -> IdentityError {
    let causes = status.source().map(|cause| format!(": {}", chain(cause))).unwrap_or_default();
    IdentityError::Refused { code: status.code(), message: format!("{}{causes}", status.message()) }
}

/// PKCS#10 without names: the control plane decides them.
fn signing_request(key: &KeyPair) -> Result<Vec<u8>, IdentityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.der().to_vec())
}

fn credentials(options: &Options, key: &KeyPair, answer: SignResponse) -> Result<Credentials, IdentityError> {
    let certificates = |list: Vec<Vec<u8>>| list.into_iter().map(CertificateDer::from).collect::<Vec<_>>();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialized_der().to_vec()));
    let credentials = Credentials::new(certificates(answer.chain), &key, certificates(answer.bundle))?;
    let identity = &credentials.identity;
    if (identity.namespace(), identity.service_account()) != (&options.namespace, &options.service_account) {
        return Err(IdentityError::WrongIdentity {
            found: identity.clone(),
            namespace: options.namespace.clone(),
            service_account: options.service_account.clone(),
        });
    }
    if credentials.expires_at <= credentials.valid_from {
        return Err(IdentityError::ClocksDiffer);
    }
    Ok(credentials)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_file_is_trimmed_and_an_empty_one_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "weft-join-abc\n").unwrap();
        assert_eq!(read_token(path.clone()).await.unwrap().0, "weft-join-abc");
        std::fs::write(&path, "\n").unwrap();
        let error = read_token(path.clone()).await.unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()) && error.contains("empty"), "{error}");
    }

    #[test]
    fn a_token_on_its_way_cannot_be_printed() {
        assert_eq!(format!("{:?}", Secret("weft-join-abc".to_owned())), "Secret(..)");
    }
}
