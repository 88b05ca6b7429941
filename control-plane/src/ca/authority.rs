//! The root and what it signs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use weft_core::names::SpiffeId;
use weft_proto::names::CONTROL_PLANE_DNS;
use weft_proxy::tls::expires_at;
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::{CaError, DIRECTORY, OWN_IDENTITY, files};

/// Trust domain of a mesh whose owner did not choose one.
pub const DEFAULT_TRUST_DOMAIN: &str = "weft.local";
/// Life of a root.
const ROOT_LIFE: Duration = Duration::from_hours(365 * 24);
/// Certificates begin this long before they are made: clocks differ.
const BACKDATED: Duration = Duration::from_mins(5);
/// Largest signing request we read; a P-256 request without names has about 200 bytes.
const LARGEST_REQUEST: usize = 8 * 1024;

/// What can be chosen about an authority.
#[derive(Debug, Clone)]
pub struct AuthorityOptions {
    /// `None`: that of the existing root, or [`DEFAULT_TRUST_DOMAIN`] for a new one.
    pub trust_domain: Option<String>,
    /// Life of workload certificates. 24 h: a stolen key is useless the day after, and a control plane that is away
    /// for a night is not noticed, as renewal begins at half-life.
    pub leaf_life: Duration,
}

impl Default for AuthorityOptions {
    fn default() -> Self {
        Self { trust_domain: None, leaf_life: Duration::from_hours(24) }
    }
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("the signing request has {0} bytes, more than {LARGEST_REQUEST}")]
    TooLarge(usize),
    #[error("the signing request is not PKCS#10 in DER: {0}")]
    Unreadable(String),
    #[error("the signing request is not signed by its own key")]
    BadSignature,
    #[error("the signing request's key is not ECDSA P-256")]
    Key,
    #[error("`{identity}` is not of this mesh's trust domain `{trust_domain}`")]
    TrustDomain { identity: SpiffeId, trust_domain: String },
    #[error(
        "the root certificate has expired; move the `ca` directory and bundle.pem away and restart, then hand the new bundle.pem to the proxies"
    )]
    RootExpired,
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("the system gives no random numbers")]
    Random,
}

/// A certificate just signed.
#[derive(Debug, Clone)]
pub struct Issued {
    /// Leaf first; the root signs directly, so there is nothing else in it.
    pub chain: Vec<CertificateDer<'static>>,
    pub expires_at: SystemTime,
}

/// The root of a mesh's identities.
pub struct Authority {
    trust_domain: String,
    root: CertificateDer<'static>,
    root_expires_at: SystemTime,
    issuer: Issuer<'static, KeyPair>,
    leaf_life: Duration,
    bundle_path: PathBuf,
}

impl Authority {
    /// Opens the authority of a data directory, or creates it on the first start.
    pub fn open(data: &Path, options: &AuthorityOptions, now: SystemTime) -> Result<Self, CaError> {
        let directory = data.join(DIRECTORY);
        files::private_directory(&directory)?;
        let (key_path, root_path) = (directory.join("root.key"), directory.join("root.pem"));
        let bundle_path = data.join("bundle.pem");
        let (key, root) = match (files::read_private(&key_path)?, files::read_public(&root_path)?) {
            (Some(key), Some(root)) => (key, root),
            // The bundle is written last: without it nobody trusts this key yet, and the first start was interrupted.
            (Some(_), None) if bundle_path.exists() => {
                return Err(CaError::HalfThere { missing: root_path, present: key_path });
            }
            (None, Some(_)) => return Err(CaError::HalfThere { missing: key_path, present: root_path }),
            (_, None) => {
                let asked = options.trust_domain.as_deref().unwrap_or(DEFAULT_TRUST_DOMAIN);
                let (key, root) = create_root(asked, now)?;
                files::write(&key_path, &key, files::PRIVATE)?;
                files::write(&root_path, &root, files::PUBLIC)?;
                tracing::info!(trust_domain = asked, path = %root_path.display(), "root certificate created");
                (key, root)
            }
        };
        if files::read_public(&bundle_path)?.as_deref() != Some(&root) {
            files::write(&bundle_path, &root, files::PUBLIC)?;
        }
        let authority = Self::read(&key, &root, (&key_path, &root_path), bundle_path, options.leaf_life)?;
        authority.check(options, now)?;
        Ok(authority)
    }

    fn read(
        key: &str,
        root: &str,
        (key_path, root_path): (&Path, &Path),
        bundle_path: PathBuf,
        leaf_life: Duration,
    ) -> Result<Self, CaError> {
        let unusable = |path: &Path, reason: String| CaError::Unusable { path: path.into(), reason };
        // No text of the parser in the message: it could quote the key.
        let key =
            KeyPair::from_pem(key).map_err(|_| unusable(key_path, "it holds no private key in PEM form".into()))?;
        let root = CertificateDer::from_pem_slice(root.as_bytes())
            .map_err(|error| unusable(root_path, format!("it holds no certificate in PEM form: {error}")))?;
        let (_, parsed) = X509Certificate::from_der(&root).map_err(|error| unusable(root_path, error.to_string()))?;
        if parsed.public_key().subject_public_key.as_ref() != key.public_key_raw() {
            return Err(unusable(root_path, format!("its key is not the one in {}", key_path.display())));
        }
        let trust_domain = trust_domain_of(&parsed)
            .ok_or_else(|| unusable(root_path, "it carries no name `spiffe://TRUST-DOMAIN`".into()))?;
        let root_expires_at = expires_at(&root).map_err(|error| unusable(root_path, error.to_string()))?;
        let issuer = Issuer::from_ca_cert_der(&root, key)?;
        Ok(Self { trust_domain, root, root_expires_at, issuer, leaf_life, bundle_path })
    }

    fn check(&self, options: &AuthorityOptions, now: SystemTime) -> Result<(), CaError> {
        if let Some(asked) = options.trust_domain.as_ref().filter(|asked| **asked != self.trust_domain) {
            return Err(CaError::OtherTrustDomain { existing: self.trust_domain.clone(), asked: asked.clone() });
        }
        let left = self.root_expires_at.duration_since(now).unwrap_or_default();
        if left.is_zero() {
            return Err(SignError::RootExpired.into());
        }
        if left < ROOT_LIFE / 12 {
            tracing::warn!(days = left.as_secs() / 86_400, "the root certificate expires soon, plan a new mesh root");
        }
        Ok(())
    }

    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// What proxies trust.
    pub fn bundle(&self) -> Vec<CertificateDer<'static>> {
        vec![self.root.clone()]
    }

    /// Where the bundle lies as PEM.
    pub fn bundle_path(&self) -> &Path {
        &self.bundle_path
    }

    pub fn root_expires_at(&self) -> SystemTime {
        self.root_expires_at
    }

    /// The control plane's own identity.
    pub fn own_identity(&self) -> SpiffeId {
        let (namespace, account) = OWN_IDENTITY;
        SpiffeId::workload(&self.trust_domain, namespace, account)
    }

    /// Signs a workload's key. Who asks has been checked before; of the request only the key is used.
    pub fn sign(&self, request: &[u8], identity: &SpiffeId, now: SystemTime) -> Result<Issued, SignError> {
        if identity.trust_domain() != self.trust_domain {
            let (identity, trust_domain) = (identity.clone(), self.trust_domain.clone());
            return Err(SignError::TrustDomain { identity, trust_domain });
        }
        let key = requested_key(request)?;
        self.issue(&key, vec![uri(identity.as_str())?], now)
    }

    /// A new key with the control plane's serving certificate.
    pub(super) fn issue_own(&self, now: SystemTime) -> Result<(Issued, PrivateKeyDer<'static>), SignError> {
        let key = KeyPair::generate()?;
        let names = vec![SanType::DnsName(CONTROL_PLANE_DNS.try_into()?), uri(self.own_identity().as_str())?];
        let issued = self.issue(&key, names, now)?;
        Ok((issued, PrivatePkcs8KeyDer::from(key.serialized_der().to_vec()).into()))
    }

    fn issue(&self, key: &impl PublicKeyData, names: Vec<SanType>, now: SystemTime) -> Result<Issued, SignError> {
        // A leaf that outlives its root would fail at its peers without a word.
        let end = whole_seconds((now + self.leaf_life).min(self.root_expires_at));
        if end <= now {
            return Err(SignError::RootExpired);
        }
        let mut params = CertificateParams::default();
        // The name is the URI alone; RFC 5280 (4.2.1.6) then wants that extension critical, and rcgen marks it so.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names;
        params.serial_number = Some(serial()?);
        params.not_before = OffsetDateTime::from(whole_seconds(now - BACKDATED));
        params.not_after = OffsetDateTime::from(end);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &self.issuer)?;
        Ok(Issued { chain: vec![certificate.der().clone()], expires_at: end })
    }
}

// By hand: the issuer holds the root's key.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("trust_domain", &self.trust_domain)
            .field("root_expires_at", &self.root_expires_at)
            .finish_non_exhaustive()
    }
}

/// A new root: key and certificate, both PEM.
fn create_root(trust_domain: &str, now: SystemTime) -> Result<(String, String), CaError> {
    let is_valid = SpiffeId::parse(SpiffeId::workload(trust_domain, "n", "a").as_str()).is_ok();
    if !is_valid || trust_domain.len() > 255 {
        return Err(CaError::TrustDomain(trust_domain.to_owned()));
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("weft root of {trust_domain}"));
    params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))?];
    params.serial_number = Some(serial()?);
    params.not_before = OffsetDateTime::from(whole_seconds(now - BACKDATED));
    params.not_after = OffsetDateTime::from(whole_seconds(now + ROOT_LIFE));
    // It signs leaves only.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    Ok((key.serialize_pem(), certificate.pem()))
}

/// The key of a signing request that proves to hold it.
fn requested_key(request: &[u8]) -> Result<SubjectPublicKeyInfo, SignError> {
    if request.len() > LARGEST_REQUEST {
        return Err(SignError::TooLarge(request.len()));
    }
    let (rest, parsed) =
        X509CertificationRequest::from_der(request).map_err(|error| SignError::Unreadable(error.to_string()))?;
    if !rest.is_empty() {
        return Err(SignError::Unreadable(format!("{} bytes follow it", rest.len())));
    }
    let key = SubjectPublicKeyInfo::from_der(parsed.certification_request_info.subject_pki.raw)
        .map_err(|_| SignError::Key)?;
    // One kind of key in the mesh: P-256 is what every peer, also Envoy, verifies quickly.
    if key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
        return Err(SignError::Key);
    }
    parsed.verify_signature().map_err(|_| SignError::BadSignature)?;
    Ok(key)
}

/// `TD` of the URI name `spiffe://TD`.
fn trust_domain_of(root: &X509Certificate<'_>) -> Option<String> {
    let names = root.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix("spiffe://").map(str::to_owned),
        _ => None,
    })
}

fn uri(text: &str) -> Result<SanType, rcgen::Error> {
    Ok(SanType::URI(text.try_into()?))
}

/// 127 random bits (RFC 5280, 4.1.2.2, wants a positive number of at most 20 bytes).
fn serial() -> Result<SerialNumber, SignError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SignError::Random)?;
    bytes[0] &= 0x7f;
    Ok(SerialNumber::from_slice(&bytes))
}

/// X.509 counts seconds; what we say about an end must be what the certificate says.
fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}
