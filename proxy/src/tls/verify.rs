//! Who is on the other side: webpki verifies the chain, we verify the identity. What was good is [known](Known).

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
};
use weft_core::names::SpiffeId;

use super::certificate::{Leaf, PeerError, read_leaf};
use super::known::Known;
use super::provider;

/// Whether a client must present a certificate. One that is presented is always verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificate {
    Required,
    Optional,
}

/// Verifies clients: chain to `roots`, and one identity of `trust_domain`.
pub fn client_verifier(
    roots: Arc<RootCertStore>,
    trust_domain: &str,
    certificate: ClientCertificate,
) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
    Ok(Arc::new(MeshClients::new(roots, trust_domain, certificate)?))
}

/// See [`client_verifier`].
#[derive(Debug)]
pub(super) struct MeshClients {
    chain: Arc<dyn ClientCertVerifier>,
    trust_domain: Box<str>,
    known: Known,
}

impl MeshClients {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        trust_domain: &str,
        certificate: ClientCertificate,
    ) -> Result<Self, VerifierBuilderError> {
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
        let chain = match certificate {
            ClientCertificate::Required => builder,
            ClientCertificate::Optional => builder.allow_unauthenticated(),
        }
        .build()?;
        Ok(Self { chain, trust_domain: trust_domain.into(), known: Known::default() })
    }

    /// Verifies a client's chain, and says who it is.
    pub(super) fn identify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<SpiffeId, Error> {
        if let Some(identity) = self.known.find(leaf, intermediates, now) {
            return Ok(identity);
        }
        self.chain.verify_client_cert(leaf, intermediates, now)?;
        let read = member(leaf, &self.trust_domain).map_err(refused)?;
        self.known.keep(leaf, &read, intermediates).map_err(refused)?;
        Ok(read.identity)
    }
}

impl ClientCertVerifier for MeshClients {
    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    // No hints: a workload has one certificate, and a list of roots would grow every handshake.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.identify(leaf, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Verifies servers: chain to the roots, and one of the expected identities. DNS names play no part.
#[derive(Debug)]
pub(super) struct MeshServers {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) trust_domain: Box<str>,
    pub(super) expected: Box<[SpiffeId]>,
    /// Shared by all clusters of one generation: they trust the same roots.
    pub(super) known: Arc<Known>,
}

impl MeshServers {
    /// Verifies a server's chain, and that it is one of those expected.
    pub(super) fn expect(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let found = self.identify(leaf, intermediates, now)?;
        if self.expected.contains(&found) {
            Ok(())
        } else {
            Err(refused(PeerError::Unexpected { found, expected: self.expected.to_vec() }))
        }
    }

    /// Chain and trust domain, which are the same for every cluster.
    fn identify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<SpiffeId, Error> {
        if let Some(identity) = self.known.find(leaf, intermediates, now) {
            return Ok(identity);
        }
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = provider().signature_verification_algorithms;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms.all)?;
        let read = member(leaf, &self.trust_domain).map_err(refused)?;
        self.known.keep(leaf, &read, intermediates).map_err(refused)?;
        Ok(read.identity)
    }
}

impl ServerCertVerifier for MeshServers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.expect(leaf, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Reads a certificate, if its identity is of `trust_domain`.
fn member(leaf: &CertificateDer<'_>, trust_domain: &str) -> Result<Leaf, PeerError> {
    let read = read_leaf(leaf)?;
    if read.identity.trust_domain() == trust_domain {
        Ok(read)
    } else {
        Err(PeerError::WrongTrustDomain { found: read.identity, expected: trust_domain.to_owned() })
    }
}

fn refused(error: PeerError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}
