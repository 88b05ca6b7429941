//! The client's side of mutual TLS. It shows a certificate and verifies nothing: it measures who does.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Tls {
    /// The certificate to show, in PEM; without it there is no TLS
    #[arg(long, requires = "key")]
    certificate: Option<PathBuf>,
    #[arg(long)]
    key: Option<PathBuf>,
    /// The protocol to ask for
    #[arg(long)]
    alpn: Option<String>,
    /// Resume sessions where the server lets us
    #[arg(long)]
    resume: bool,
}

impl Tls {
    /// The configuration; `None` without TLS.
    pub(crate) fn config(&self) -> Result<Option<Arc<ClientConfig>>> {
        let (Some(certificate), Some(key)) = (&self.certificate, &self.key) else { return Ok(None) };
        let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
        config.alpn_protocols = self.alpn.iter().map(|name| name.clone().into_bytes()).collect();
        config.enable_sni = false;
        if !self.resume {
            config.resumption = Resumption::disabled();
        }
        Ok(Some(Arc::new(config)))
    }
}

/// The name sessions are kept by; it is not sent.
pub(crate) fn server_name() -> ServerName<'static> {
    ServerName::try_from("mesh.lab").expect("a constant that is a DNS name")
}

/// Believes every server. The proxy's probes do the same in a few lines of their own: the load must not be built from the
/// program it measures, and a verifier like this is nothing for that one's library to offer.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
