//! Certificates for tests: a root in memory that signs whatever a test wants.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::time_provider::TimeProvider;
use weft_core::names::SpiffeId;

use super::Credentials;
use crate::clock;

/// A root of one test.
pub(crate) struct TestRoot {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a test may want otherwise in a leaf.
pub(crate) struct Leaf<'a> {
    pub(crate) uris: &'a [&'a str],
    pub(crate) not_after: SystemTime,
}

/// A clock that a test advances.
#[derive(Debug, Default)]
pub(crate) struct TestClock {
    ahead: AtomicU64,
}

impl TestClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.ahead.fetch_add(by.as_secs(), Ordering::Relaxed);
    }
}

impl TimeProvider for TestClock {
    fn current_time(&self) -> Option<UnixTime> {
        let now = clock::wall().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Some(UnixTime::since_unix_epoch(now + Duration::from_secs(self.ahead.load(Ordering::Relaxed))))
    }
}

impl TestRoot {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "test root");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), certificate: certificate.der().clone(), issuer: Issuer::new(params, key) }
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    pub(crate) fn bundle(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone()]
    }

    /// A good certificate of `identity` for an hour.
    pub(crate) fn credentials(&self, identity: &SpiffeId) -> Credentials {
        let leaf = Leaf { uris: &[identity.as_str()], not_after: clock::wall() + Duration::from_hours(1) };
        let (chain, key) = self.leaf(&leaf);
        Credentials::new(chain, &key, self.bundle()).unwrap()
    }

    /// A good certificate of `identity` for `life`, and handshakes by `time`.
    pub(crate) fn credentials_at(&self, identity: &SpiffeId, life: Duration, time: &Arc<TestClock>) -> Credentials {
        let (chain, key) = self.leaf(&Leaf { uris: &[identity.as_str()], not_after: clock::wall() + life });
        Credentials::at(chain, &key, self.bundle(), Arc::clone(time) as _).unwrap()
    }

    pub(crate) fn leaf(&self, leaf: &Leaf<'_>) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(1970, 1, 1) + leaf.not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = leaf.uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }
}

/// The first bytes of a client that wants `server` and offers these protocols.
pub(crate) fn client_hello(server: &str, protocols: &[&str]) -> Vec<u8> {
    let mut config = rustls::ClientConfig::builder_with_provider(super::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let server = rustls::pki_types::ServerName::try_from(server.to_owned()).unwrap();
    let mut bytes = Vec::new();
    rustls::ClientConnection::new(Arc::new(config), server).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}
