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

/// What a leaf says of its workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) identity: SpiffeId,
    /// Seconds since the Unix epoch.
    pub(super) not_before: u64,
    /// Seconds since the Unix epoch.
    pub(super) not_after: u64,
}

/// Reads a leaf: exactly one URI name (X.509-SVID, section 2), whatever other names stand beside it.
pub(super) fn read_leaf(certificate: &CertificateDer<'_>) -> Result<Leaf, PeerError> {
    let parsed = parse(certificate)?;
    let names = parsed.subject_alternative_name().map_err(|error| PeerError::Unreadable(error.to_string()))?;
    let Some(names) = names else { return Err(PeerError::NoIdentity) };
    let uris: Vec<&str> = names
        .value
        .general_names
        .iter()
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
        .collect();
    let identity = match uris[..] {
        [] => return Err(PeerError::NoIdentity),
        [uri] => SpiffeId::parse(uri).map_err(|error| PeerError::NotWorkload(error.to_string()))?,
        _ => return Err(PeerError::SeveralIdentities(uris.len())),
    };
    let (not_before, not_after) = period(&parsed);
    Ok(Leaf { identity, not_before, not_after })
}

/// The identity in a certificate.
pub fn identity_of(certificate: &CertificateDer<'_>) -> Result<SpiffeId, PeerError> {
    Ok(read_leaf(certificate)?.identity)
}

/// End of a certificate's validity.
pub fn expires_at(certificate: &CertificateDer<'_>) -> Result<SystemTime, PeerError> {
    let (_, not_after) = validity(certificate)?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(not_after))
}

/// Begin and end of a certificate's validity, in seconds since the Unix epoch.
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Result<(u64, u64), PeerError> {
    Ok(period(&parse(certificate)?))
}

fn period(parsed: &X509Certificate<'_>) -> (u64, u64) {
    let seconds = |timestamp: i64| u64::try_from(timestamp).unwrap_or(0);
    let validity = parsed.validity();
    (seconds(validity.not_before.timestamp()), seconds(validity.not_after.timestamp()))
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
