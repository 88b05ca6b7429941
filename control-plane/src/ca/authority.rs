//! The root and what it signs.

use std::fmt;
use std::path::Path;
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

use super::{CaError, DIRECTORY, OWN_IDENTITY, binding, files};

/// Trust domain of a mesh whose owner did not choose one.
pub const DEFAULT_TRUST_DOMAIN: &str = "weft.local";
/// Life of a root.
const ROOT_LIFE: Duration = Duration::from_hours(365 * 24);
/// Certificates begin this long before they are made: clocks differ.
const BACKDATED: Duration = Duration::from_mins(5);
/// How a mesh whose root lies in files begins anew.
const NEW_ROOT_OF_FILES: &str =
    "move the `ca` directory and bundle.pem away and restart, then hand the new bundle.pem to the proxies";
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
    #[error("the root certificate has expired; {remedy}")]
    RootExpired { remedy: &'static str },
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

/// A text in PEM form and where it is from, for messages. It may be a key: nothing prints it.
#[derive(Clone, Copy)]
pub struct Pem<'a> {
    pub place: &'a str,
    pub text: &'a str,
}

// By hand: the text may be a key.
impl fmt::Debug for Pem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pem").field("place", &self.place).finish_non_exhaustive()
    }
}

/// A root just made, both halves in PEM form.
pub struct NewRoot {
    pub key: String,
    pub certificate: String,
}

// By hand: it holds a key.
impl fmt::Debug for NewRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewRoot").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Who a serving certificate of ours is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Server<'a> {
    /// The port of the proxies, which know the control plane by name and by identity.
    ControlPlane,
    /// Whoever is reached by this DNS name; it is no workload.
    Named(&'a str),
}

/// The root of a mesh's identities.
pub struct Authority {
    trust_domain: String,
    root: CertificateDer<'static>,
    root_pem: String,
    root_expires_at: SystemTime,
    issuer: Issuer<'static, KeyPair>,
    leaf_life: Duration,
    /// How its mesh gets a new root when this one has expired.
    new_root: &'static str,
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
                let NewRoot { key, certificate } = create_root(asked, now)?;
                files::write(&key_path, &key, files::PRIVATE)?;
                files::write(&root_path, &certificate, files::PUBLIC)?;
                tracing::info!(trust_domain = asked, path = %root_path.display(), "root certificate created");
                (key, certificate)
            }
        };
        if files::read_public(&bundle_path)?.as_deref() != Some(&root) {
            files::write(&bundle_path, &root, files::PUBLIC)?;
        }
        let (key_place, root_place) = (key_path.display().to_string(), root_path.display().to_string());
        let (key, root) = (Pem { place: &key_place, text: &key }, Pem { place: &root_place, text: &root });
        let authority = Self::from_pem(key, root, options.leaf_life, NEW_ROOT_OF_FILES)?;
        if let Some(asked) = options.trust_domain.as_ref().filter(|asked| **asked != authority.trust_domain) {
            let existing = authority.trust_domain;
            return Err(CaError::OtherTrustDomain { existing, asked: asked.clone() });
        }
        authority.check_life(now)?;
        Ok(authority)
    }

    /// The authority of a root that is kept elsewhere; `new_root` tells how its mesh gets another one. Whether the root
    /// has expired is for [`Authority::check_life`].
    pub fn from_pem(key: Pem<'_>, root: Pem<'_>, leaf_life: Duration, new_root: &'static str) -> Result<Self, CaError> {
        let unusable = |place: &str, reason: String| CaError::Unusable { place: place.to_owned(), reason };
        let (key_place, root_place, root_pem) = (key.place, root.place, first_certificate(root.text));
        // No text of the parser in the message: it could quote the key.
        let key = KeyPair::from_pem(key.text)
            .map_err(|_| unusable(key_place, "it holds no private key in PEM form".into()))?;
        let root = CertificateDer::from_pem_slice(root.text.as_bytes())
            .map_err(|error| unusable(root_place, format!("it holds no certificate in PEM form: {error}")))?;
        let (_, parsed) = X509Certificate::from_der(&root).map_err(|error| unusable(root_place, error.to_string()))?;
        if parsed.public_key().subject_public_key.as_ref() != key.public_key_raw() {
            return Err(unusable(root_place, format!("its key is not the one in {key_place}")));
        }
        if !parsed.is_ca() {
            return Err(unusable(root_place, "it is no certificate of an authority (CA)".into()));
        }
        let trust_domain = trust_domain_of(&parsed)
            .ok_or_else(|| unusable(root_place, "it carries no name `spiffe://TRUST-DOMAIN`".into()))?;
        let root_expires_at = expires_at(&root).map_err(|error| unusable(root_place, error.to_string()))?;
        let issuer = Issuer::from_ca_cert_der(&root, key)?;
        Ok(Self { trust_domain, root, root_pem, root_expires_at, issuer, leaf_life, new_root })
    }

    /// Refuses a root that has expired and warns of one that soon will.
    pub fn check_life(&self, now: SystemTime) -> Result<(), CaError> {
        let left = self.root_expires_at.duration_since(now).unwrap_or_default();
        if left.is_zero() {
            return Err(self.expired().into());
        }
        if left < ROOT_LIFE / 12 {
            tracing::warn!(days = left.as_secs() / 86_400, "the root certificate expires soon, plan a new mesh root");
        }
        Ok(())
    }

    fn expired(&self) -> SignError {
        SignError::RootExpired { remedy: self.new_root }
    }

    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// What proxies trust.
    pub fn bundle(&self) -> Vec<CertificateDer<'static>> {
        vec![self.root.clone()]
    }

    /// What proxies trust, in PEM form.
    pub fn bundle_pem(&self) -> String {
        self.root_pem.clone()
    }

    pub fn root_expires_at(&self) -> SystemTime {
        self.root_expires_at
    }

    /// The control plane's own identity.
    pub fn own_identity(&self) -> SpiffeId {
        let (namespace, account) = OWN_IDENTITY;
        SpiffeId::workload(&self.trust_domain, namespace, account)
    }

    /// Signs a workload's key, for the one `workload` it was proved for if there is one. Who asks has been checked
    /// before; of the request only the key is used.
    pub fn sign(
        &self,
        request: &[u8],
        identity: &SpiffeId,
        workload: Option<&str>,
        now: SystemTime,
    ) -> Result<Issued, SignError> {
        if identity.trust_domain() != self.trust_domain {
            let (identity, trust_domain) = (identity.clone(), self.trust_domain.clone());
            return Err(SignError::TrustDomain { identity, trust_domain });
        }
        let key = requested_key(request)?;
        self.issue(&key, binding::subject(workload), vec![uri(identity.as_str())?], now)
    }

    /// A new key with a serving certificate.
    pub(super) fn issue_server(
        &self,
        server: Server<'_>,
        now: SystemTime,
    ) -> Result<(Issued, PrivateKeyDer<'static>), SignError> {
        let key = KeyPair::generate()?;
        let names = match server {
            Server::ControlPlane => {
                vec![SanType::DnsName(CONTROL_PLANE_DNS.try_into()?), uri(self.own_identity().as_str())?]
            }
            Server::Named(name) => vec![SanType::DnsName(name.try_into()?)],
        };
        let issued = self.issue(&key, DistinguishedName::new(), names, now)?;
        Ok((issued, PrivatePkcs8KeyDer::from(key.serialized_der().to_vec()).into()))
    }

    fn issue(
        &self,
        key: &impl PublicKeyData,
        subject: DistinguishedName,
        names: Vec<SanType>,
        now: SystemTime,
    ) -> Result<Issued, SignError> {
        // A leaf that outlives its root would fail at its peers without a word.
        let end = whole_seconds((now + self.leaf_life).min(self.root_expires_at));
        if end <= now {
            return Err(self.expired());
        }
        let mut params = CertificateParams::default();
        // Without a subject RFC 5280 (4.2.1.6) wants the alternative name critical, and rcgen marks it so.
        params.distinguished_name = subject;
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

/// A new root.
pub fn create_root(trust_domain: &str, now: SystemTime) -> Result<NewRoot, CaError> {
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
    Ok(NewRoot { key: key.serialize_pem(), certificate: certificate.pem() })
}

/// The first certificate of a text in which one has been found, without what may stand around it.
fn first_certificate(text: &str) -> String {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let begin = text.find(BEGIN).unwrap_or_default();
    let end = text[begin..].find(END).map_or(text.len(), |end| begin + end + END.len());
    format!("{}\n", &text[begin..end])
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
