//! TLS of the control plane's port: our serving certificate, and clients verified if they present one.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use weft_proxy::tls::{ClientCertificate, client_verifier, provider, trust_anchors};

use super::authority::Server;
use super::{Authority, CaError};

/// The TLS settings of the port: TLS 1.3, HTTP/2, a serving certificate that renews itself. A client without
/// certificate may connect (it has yet to join); one with a certificate must be of the mesh.
///
/// `clock` tells the time of each handshake, by which renewal goes.
pub fn server_tls(authority: &Arc<Authority>, clock: fn() -> SystemTime) -> Result<Arc<ServerConfig>, CaError> {
    let roots = Arc::new(trust_anchors(&authority.bundle())?);
    let verifier = client_verifier(roots, authority.trust_domain(), ClientCertificate::Optional)?;
    let certificate = ServingCertificate::new(Arc::clone(authority), None, clock)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(certificate));
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would carry over a client certificate without verifying it again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The TLS settings of a server for those who verify `name` by our root and are known by nothing we verify: TLS 1.3,
/// HTTP/1.1, a serving certificate that renews itself.
pub fn webhook_tls(
    authority: &Arc<Authority>,
    name: &str,
    clock: fn() -> SystemTime,
) -> Result<Arc<ServerConfig>, CaError> {
    let certificate = ServingCertificate::new(Arc::clone(authority), Some(name.to_owned()), clock)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificate));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Renewed in the first handshake after half of its life: no task, no timer, and an idle control plane is never
/// caught with an expired certificate.
struct ServingCertificate {
    authority: Arc<Authority>,
    /// The DNS name it is for; `None`: it is the control plane's own.
    name: Option<String>,
    clock: fn() -> SystemTime,
    current: Mutex<Current>,
}

struct Current {
    key: Arc<CertifiedKey>,
    renewal: SystemTime,
}

impl ServingCertificate {
    fn new(authority: Arc<Authority>, name: Option<String>, clock: fn() -> SystemTime) -> Result<Self, CaError> {
        let current = Mutex::new(issue(&authority, name.as_deref(), clock())?);
        Ok(Self { authority, name, clock, current })
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let now = (self.clock)();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.renewal <= now {
            match issue(&self.authority, self.name.as_deref(), now) {
                Ok(renewed) => *current = renewed,
                Err(error) => tracing::error!(%error, "the serving certificate was not renewed"),
            }
        }
        Some(Arc::clone(&current.key))
    }
}

// By hand: nothing that leads to the key may be printed.
impl fmt::Debug for ServingCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServingCertificate").finish_non_exhaustive()
    }
}

fn issue(authority: &Authority, name: Option<&str>, now: SystemTime) -> Result<Current, CaError> {
    let (issued, key) = authority.issue_server(name.map_or(Server::ControlPlane, Server::Named), now)?;
    let signing = provider().key_provider.load_private_key(key)?;
    let life = issued.expires_at.duration_since(now).unwrap_or_default();
    Ok(Current { key: Arc::new(CertifiedKey::new(issued.chain, signing)), renewal: now + life / 2 })
}
