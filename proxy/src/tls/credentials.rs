//! Our own identity: key, certificate and bundle, and the TLS configurations made of them.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::sync::watch;
use weft_core::names::SpiffeId;
use weft_proto::names::{ALPN_DETECT, ALPN_HTTP1, ALPN_HTTP2, ALPN_MUX, ALPN_TCP};

use super::certificate::{PeerError, expires_at, identity_of};
use super::known::Known;
use super::sessions::Sessions;
use super::signals::Handshakes;
use super::ticket::Tickets;
use super::verify::{ClientCertificate, MeshClients, MeshServers};
use super::{provider, resuming_provider};

/// Why key, certificate and bundle do not make credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("the certificate chain is empty")]
    NoCertificate,
    #[error("the trust bundle is empty; without a root nobody can be verified")]
    EmptyBundle,
    #[error("our own certificate: {0}")]
    Certificate(#[from] PeerError),
    #[error("root {position} of the trust bundle: {source}")]
    Root { position: usize, source: rustls::Error },
    #[error("the private key does not fit the certificate: {0}")]
    Key(#[source] rustls::Error),
    #[error("the trust bundle: {0}")]
    Verifier(#[from] VerifierBuilderError),
    #[error("no random key for tickets: {0}")]
    Tickets(#[source] rustls::Error),
}

/// The proxy's clock, as rustls wants it.
#[derive(Debug)]
struct WallClock;

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        crate::clock::wall().duration_since(SystemTime::UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

/// How to open connections of one protocol to the endpoints of one cluster, with one generation of our identity.
#[derive(Debug)]
pub struct MeshClient {
    /// For full handshakes.
    pub(super) config: Arc<ClientConfig>,
    /// The same with [`resuming_provider`], for endpoints of which `sessions` holds a ticket.
    pub(super) resuming: Arc<ClientConfig>,
    pub(super) sessions: Arc<Sessions>,
    /// The verifier of `config`, to judge resumed sessions as well.
    pub(super) servers: Arc<MeshServers>,
    pub(super) opened: Arc<Handshakes>,
}

/// One generation of our identity. Immutable; rotation replaces the whole.
pub struct Credentials {
    pub identity: SpiffeId,
    /// When these were made: the certificate itself begins earlier, to bear clocks that differ.
    pub valid_from: SystemTime,
    /// End of the certificate's validity.
    pub expires_at: SystemTime,
    /// Counts publications: what is cached for one generation is stale in the next. 0 before publication.
    pub generation: u64,
    /// Configuration of mesh inbound: ALPN `weft/*`, client certificate required.
    pub server: Arc<ServerConfig>,
    bundle: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
    own: Arc<SingleCertAndKey>,
    time: Arc<dyn TimeProvider>,
    /// The verifier of `server`, to judge resumed sessions as well.
    pub(super) clients: Arc<MeshClients>,
    known_servers: Arc<Known>,
    pub(super) accepted: Handshakes,
    opened: Arc<Handshakes>,
}

impl Credentials {
    /// Puts together a chain (leaf first), the leaf's key and the roots to trust.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'static>,
        bundle: Vec<CertificateDer<'static>>,
    ) -> Result<Self, CredentialsError> {
        Self::at(chain, key, bundle, Arc::new(WallClock))
    }

    /// As [`Self::new`], with a clock for handshakes.
    pub(super) fn at(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'static>,
        bundle: Vec<CertificateDer<'static>>,
        time: Arc<dyn TimeProvider>,
    ) -> Result<Self, CredentialsError> {
        let leaf = chain.first().ok_or(CredentialsError::NoCertificate)?;
        let (identity, expires_at) = (identity_of(leaf)?, expires_at(leaf)?);
        let signing = provider().key_provider.load_private_key(key.clone_key()).map_err(CredentialsError::Key)?;
        let certified = CertifiedKey::new(chain, signing);
        certified.keys_match().map_err(CredentialsError::Key)?;
        let own = Arc::new(SingleCertAndKey::from(certified));
        let roots = Arc::new(trust_anchors(&bundle)?);
        let clients = MeshClients::new(Arc::clone(&roots), identity.trust_domain(), ClientCertificate::Required)?;
        let clients = Arc::new(clients);
        let tickets = Tickets::new(expires_at, Arc::clone(&time)).map_err(CredentialsError::Tickets)?;
        let server = Arc::new(server_config(Arc::clone(&clients) as _, &own, tickets, Arc::clone(&time)));
        Ok(Self {
            identity,
            valid_from: crate::clock::wall(),
            expires_at,
            generation: 0,
            server,
            bundle,
            roots,
            own,
            time,
            clients,
            known_servers: Arc::default(),
            accepted: Handshakes::new("inbound"),
            opened: Arc::new(Handshakes::new("outbound")),
        })
    }

    /// Configuration of connections to peers that are one of `identities`, speaking `alpn` inside.
    ///
    /// Making one costs microseconds and memory: keep it per (cluster, protocol, generation). It remembers sessions.
    pub fn client_config(&self, identities: &[SpiffeId], alpn: &'static [u8]) -> Arc<MeshClient> {
        let servers = Arc::new(MeshServers {
            roots: Arc::clone(&self.roots),
            trust_domain: self.identity.trust_domain().into(),
            expected: identities.into(),
            known: Arc::clone(&self.known_servers),
        });
        let sessions = Arc::<Sessions>::default();
        // Verifier, resolver and store are the very same: rustls resumes no session between different ones.
        let config = |provider| {
            let mut config = ClientConfig::builder_with_details(provider, Arc::clone(&self.time))
                .with_protocol_versions(&[&TLS13])
                .expect("our provider has suites and groups of TLS 1.3")
                .dangerous()
                .with_custom_certificate_verifier(Arc::clone(&servers) as _)
                .with_client_cert_resolver(Arc::clone(&self.own) as _);
            config.alpn_protocols = vec![alpn.to_vec()];
            config.enable_sni = false;
            config.enable_early_data = false;
            config.resumption = Resumption::store(Arc::clone(&sessions) as _);
            Arc::new(config)
        };
        let (config, resuming) = (config(provider()), config(resuming_provider()));
        Arc::new(MeshClient { config, resuming, sessions, servers, opened: Arc::clone(&self.opened) })
    }

    /// The roots we trust, DER.
    pub fn bundle(&self) -> &[CertificateDer<'static>] {
        &self.bundle
    }

    /// Certificate and key, for connections that are not of the mesh (the control plane).
    pub(crate) fn own(&self) -> Arc<SingleCertAndKey> {
        Arc::clone(&self.own)
    }
}

// By hand: nothing that leads to the key may be printed.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("identity", &self.identity)
            .field("expires_at", &self.expires_at)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// The certificates of a bundle as trust anchors.
pub fn trust_anchors(bundle: &[CertificateDer<'static>]) -> Result<RootCertStore, CredentialsError> {
    if bundle.is_empty() {
        return Err(CredentialsError::EmptyBundle);
    }
    let mut roots = RootCertStore::empty();
    for (index, root) in bundle.iter().enumerate() {
        roots.add(root.clone()).map_err(|source| CredentialsError::Root { position: index + 1, source })?;
    }
    Ok(roots)
}

fn server_config(
    clients: Arc<dyn ClientCertVerifier>,
    own: &Arc<SingleCertAndKey>,
    tickets: Tickets,
    time: Arc<dyn TimeProvider>,
) -> ServerConfig {
    let mut config = ServerConfig::builder_with_details(provider(), time)
        .with_protocol_versions(&[&TLS13])
        .expect("our provider has suites and groups of TLS 1.3")
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::clone(own) as _);
    config.alpn_protocols = [ALPN_MUX, ALPN_HTTP2, ALPN_HTTP1, ALPN_TCP, ALPN_DETECT].map(<[u8]>::to_vec).into();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::new(tickets);
    // Each is used once and each handshake brings another: one keeps as many as there are connections.
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    config
}

/// The credentials in force, and word of their change.
#[derive(Debug)]
pub struct CredentialStore {
    /// Peers may resume sessions with us.
    resumes: bool,
    current: ArcSwapOption<Credentials>,
    generation: watch::Sender<u64>,
}

impl CredentialStore {
    pub fn new() -> Self {
        Self { resumes: true, current: ArcSwapOption::empty(), generation: watch::Sender::new(0) }
    }

    /// One whose credentials give no tickets: every connection we take begins with a full handshake.
    pub fn without_resumption() -> Self {
        Self { resumes: false, ..Self::new() }
    }

    /// The credentials in force; `None` until the first certificate has come.
    pub fn current(&self) -> Option<Arc<Credentials>> {
        self.current.load_full()
    }

    /// Which credentials are in force; 0 before the first.
    pub fn generation(&self) -> u64 {
        self.current.load().as_ref().map_or(0, |credentials| credentials.generation)
    }

    /// Puts credentials in force for everything that begins from now on; returns their generation.
    pub fn publish(&self, mut credentials: Credentials) -> u64 {
        let mut published = 0;
        if !self.resumes {
            Arc::make_mut(&mut credentials.server).send_tls13_tickets = 0;
        }
        // Within the closure, so that two publishers cannot leave the older generation in force.
        self.generation.send_modify(|generation| {
            *generation += 1;
            published = *generation;
            credentials.generation = published;
            self.current.store(Some(Arc::new(credentials)));
        });
        published
    }

    /// Tells of each new generation.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Waits for the first credentials. Bound the wait where it matters.
    pub async fn ready(&self) -> Arc<Credentials> {
        let mut generation = self.subscribe();
        loop {
            if let Some(credentials) = self.current() {
                return credentials;
            }
            generation.changed().await.expect("the sender lives in self");
        }
    }
}

impl Default for CredentialStore {
    fn default() -> Self {
        Self::new()
    }
}
