//! What we read in a certificate: its one identity and its end.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use weft_core::names::SpiffeId;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// Why a certificate that chains to the bundle is still not the peer we want.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    #[error("the certificate carries no URI name, so it names no workload")]
    NoIdentity,
    #[error("the certificate carries {0} URI names; a workload has exactly one")]
    SeveralIdentities(usize),
    #[error("{0}")]
    NotWorkload(String),
    #[error("`{found}` is not of our trust domain `{expected}`")]
    WrongTrustDomain { found: SpiffeId, expected: String },
    #[error("the peer is `{found}`, expected {}", list(expected))]
    Unexpected { found: SpiffeId, expected: Vec<SpiffeId> },
}

/// The identity in a certificate: exactly one URI name (X.509-SVID, section 2), whatever other names stand beside it.
pub fn identity_of(certificate: &CertificateDer<'_>) -> Result<SpiffeId, PeerError> {
    let parsed = parse(certificate)?;
    let names = parsed.subject_alternative_name().map_err(|error| PeerError::Unreadable(error.to_string()))?;
    let Some(names) = names else { return Err(PeerError::NoIdentity) };
    let uris: Vec<&str> = names
        .value
        .general_names
        .iter()
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
        .collect();
    match uris[..] {
        [] => Err(PeerError::NoIdentity),
        [uri] => SpiffeId::parse(uri).map_err(|error| PeerError::NotWorkload(error.to_string())),
        _ => Err(PeerError::SeveralIdentities(uris.len())),
    }
}

/// End of a certificate's validity.
pub fn expires_at(certificate: &CertificateDer<'_>) -> Result<SystemTime, PeerError> {
    let seconds = parse(certificate)?.validity().not_after.timestamp();
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, PeerError> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| PeerError::Unreadable(error.to_string()))?;
    Ok(parsed)
}

fn list(expected: &[SpiffeId]) -> String {
    let names: Vec<String> = expected.iter().map(|identity| format!("`{identity}`")).collect();
    if names.is_empty() { "nobody: the cluster names no identity".to_owned() } else { names.join(" or ") }
}
