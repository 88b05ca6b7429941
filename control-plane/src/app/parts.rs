//! What faces the proxies: identities and configuration over one TLS port.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::{Request, Status};
use weft_core::names::SpiffeId;
use weft_proto::weft::{ProxyProgram, ProxyStatus, Upgrade};
use weft_proxy::clock;

use super::configuration::configuration;
use super::{Parts, Publish, Settings, Stop};
use crate::ca::{self, Authority, AuthorityOptions, IdentityService, JoinTokens, ProofSource};
use crate::manage::asking::{self, Asking};
use crate::manage::{Facts, Token, view};
use crate::programs::download::Downloads;
use crate::programs::rollout::{Ask, Outcome, Rollout, Running};
use crate::programs::standing::{Rollouts, Standing};
use crate::programs::{Facts as Program, Programs, keeper, programs};
use crate::serve::operations::{AskError, ConnectedProxy, Question};
use crate::serve::{AdsServer, DetectionService, Operations, OperationsService, ProxyInfo};
use crate::store::Snapshot;
use crate::verdicts::Verdicts;
use crate::world::World;

/// A proxy that vanished without a word is noticed after interval and timeout.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens the authority of the data directory and makes the services over it.
///
/// # Errors
/// A sentence with the remedy, when the authority's files cannot be used.
pub fn assemble(settings: &Settings, trust_domain: Option<String>) -> Result<Parts, String> {
    let now = clock::wall();
    let options = AuthorityOptions { trust_domain, ..AuthorityOptions::default() };
    let authority = Arc::new(Authority::open(&settings.data, &options, now).map_err(|error| error.to_string())?);
    let tokens = Arc::new(JoinTokens::open(&settings.data, now).map_err(|error| error.to_string())?);
    let programs = programs(&settings.proxy_programs).map_err(|error| error.to_string())?;
    let proxies = Proxies::new(Arc::clone(&authority)).offering(programs);
    let identity = IdentityService::new(authority, Arc::clone(&tokens));
    Ok(Parts {
        publish: proxies.publish(),
        verdicts: Arc::clone(&proxies.verdicts),
        facts: Arc::new(Facing { proxies: proxies.clone(), tokens: Some(tokens) }),
        upgrade: {
            let proxies = proxies.clone();
            Box::new(move |snapshots| Box::pin(proxies.upgrade(snapshots)))
        },
        serve: Box::new(move |listener, stop| Box::pin(proxies.serve(listener, identity, stop))),
    })
}

/// The side of a control plane that faces the proxies: the resources in force and the streams of those who have them.
/// Cloning it gives another handle.
#[derive(Debug, Clone)]
pub struct Proxies {
    pub authority: Arc<Authority>,
    pub world: Arc<World>,
    pub ads: AdsServer,
    pub verdicts: Arc<Verdicts>,
    pub operations: Operations,
    pub programs: Programs,
    pub rollouts: Rollouts,
}

impl Proxies {
    /// Nothing is in force yet: streams wait until the first publication.
    pub fn new(authority: Arc<Authority>) -> Self {
        let world = World::new();
        Self {
            authority,
            ads: AdsServer::new(Arc::clone(&world), identify),
            operations: Operations::new(Arc::clone(&world)),
            world,
            verdicts: Arc::default(),
            programs: Programs::default(),
            rollouts: Rollouts::new(Rollout::new(std::iter::empty(), clock::now())),
        }
    }

    /// With programs for running proxies.
    #[must_use]
    pub fn offering(self, programs: Programs) -> Self {
        let rollouts = Rollouts::new(Rollout::new(programs.facts(), clock::now()));
        Self { programs, rollouts, ..self }
    }

    /// Gives running proxies their programs, as these documents say. Runs until it is dropped.
    pub fn upgrade(&self, snapshots: watch::Receiver<Arc<Snapshot>>) -> impl Future<Output = ()> + Send + 'static {
        let operations = self.operations.clone();
        let asked = self.operations.clone();
        keeper::keep(keeper::Inputs {
            rollouts: self.rollouts.clone(),
            snapshots,
            running: Arc::new(move || running(&operations)),
            ask: Arc::new(move |ask| Box::pin(replace(asked.clone(), ask))),
        })
    }

    /// Puts resources in force.
    pub fn publish(&self) -> Publish {
        let world = Arc::clone(&self.world);
        Box::new(move |revision, change| world.publish(revision, change))
    }

    /// The proxies that are connected.
    pub fn connected(&self) -> Vec<ProxyStatus> {
        let running = running(&self.operations);
        let mut words = self.rollouts.words(&running);
        let digests: HashMap<_, _> = running.into_iter().map(|proxy| (proxy.workload, proxy.digest)).collect();
        let status = |proxy| {
            let status = status(proxy);
            let digest = digests.get(status.workload.as_str()).cloned().unwrap_or_default();
            let program = words.remove(status.workload.as_str()).unwrap_or_default();
            ProxyStatus { digest, program, ..status }
        };
        self.ads.proxies().into_iter().map(status).collect()
    }

    /// What people are told of them, where there are no join tokens.
    pub fn facts(&self) -> Arc<dyn Facts> {
        Arc::new(Facing { proxies: self.clone(), tokens: None })
    }

    /// Serves configuration, reports and operations, and identities by `identity`, until `stop`. Streams then end with a word, spread
    /// over a moment, so that their proxies turn to another replica.
    pub async fn serve<P: ProofSource>(
        self,
        listener: TcpListener,
        identity: IdentityService<P>,
        mut stop: Stop,
    ) -> Result<(), String> {
        let tls = ca::server_tls(&self.authority, clock::wall).map_err(|error| error.to_string())?;
        let reports = DetectionService::new(self.verdicts, identify);
        let operations = OperationsService::new(self.world, self.operations, identify, stop.clone())
            .offering(Downloads::new(self.programs));
        Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_service(identity.server())
            .add_service(self.ads.until(stop.clone()).into_service())
            .add_service(reports.into_service())
            .add_service(operations.into_service())
            .serve_with_incoming_shutdown(ca::incoming(listener, tls), async move {
                // A sender that is gone stops as well.
                let _ = stop.wait_for(|stop| *stop).await;
            })
            .await
            .map_err(|error| error.to_string())
    }
}

/// The proxies that can be asked to replace their program.
fn running(operations: &Operations) -> Vec<Running> {
    let of = |ConnectedProxy { workload, introduction, .. }: ConnectedProxy| Running {
        workload: workload.as_str().into(),
        version: introduction.version,
        digest: introduction.digest,
        architecture: introduction.architecture,
        replaceable: introduction.replaceable,
    };
    operations.proxies().into_iter().map(of).collect()
}

/// Asks a proxy to replace its program.
async fn replace(operations: Operations, Ask { workload, program }: Ask) -> Outcome {
    let Program { version, digest, size, .. } = program;
    let question = Question::Upgrade(Upgrade { version, digest, size });
    match operations.ask(&workload, question, keeper::ANSWER_LIMIT).await {
        Ok(_) => Outcome::Upgraded,
        Err(AskError::Refused(why)) => Outcome::Refused(why),
        Err(error) => {
            tracing::info!(%workload, %error, "no answer whether a proxy replaced its program");
            Outcome::Silent
        }
    }
}

/// Streams of configuration are for those who have proved who they are, and reports are taken from them alone.
fn identify(request: &Request<()>) -> Result<SpiffeId, Status> {
    ca::peer_identity(request)
        .ok_or_else(|| Status::unauthenticated("proxies need a valid client certificate of this mesh"))
}

/// What the management API tells of this side.
struct Facing {
    proxies: Proxies,
    /// None in a cluster, where proxies prove otherwise who they are.
    tokens: Option<Arc<JoinTokens>>,
}

impl Facts for Facing {
    fn trust_domain(&self) -> String {
        self.proxies.authority.trust_domain().to_owned()
    }

    fn root_expires_at(&self) -> i64 {
        seconds(self.proxies.authority.root_expires_at())
    }

    fn proxies(&self) -> Vec<ProxyStatus> {
        self.proxies.connected()
    }

    fn programs(&self) -> Vec<ProxyProgram> {
        let program = |Standing { program, counts, stopped }: Standing| ProxyProgram {
            architecture: program.architecture.to_owned(),
            version: program.version,
            digest: program.digest,
            connected: counts.connected as u64,
            outdated: counts.outdated as u64,
            replaceable: counts.replaceable as u64,
            under_way: counts.under_way as u64,
            replaced: counts.replaced as u64,
            stopped: stopped.unwrap_or_default(),
        };
        self.proxies.rollouts.standing().into_iter().map(program).collect()
    }

    fn detected(&self) -> Vec<(String, String)> {
        self.proxies.verdicts.services().into_iter().map(|(port, verdict)| (port, verdict.to_string())).collect()
    }

    fn configuration(&self, workload: &str) -> Option<view::Configuration> {
        configuration(&self.proxies, workload)
    }

    fn ask<'a>(&'a self, workload: &'a str, question: Question) -> Asking<'a> {
        Box::pin(self.proxies.operations.ask(workload, question, asking::PATIENCE))
    }

    fn create_token(&self, namespace: &str, service_account: &str, life: Duration) -> Result<Token, String> {
        let tokens = self.tokens.as_ref().ok_or("proxies in a cluster prove who they are by their service account")?;
        let token =
            tokens.create(namespace, service_account, life, clock::wall()).map_err(|error| error.to_string())?;
        Ok(Token { text: token.reveal().to_owned(), expires_at: seconds(token.expires_at) })
    }
}

fn seconds(time: std::time::SystemTime) -> i64 {
    time.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

pub(super) fn status(proxy: ProxyInfo) -> ProxyStatus {
    ProxyStatus {
        workload: proxy.workload,
        namespace: proxy.namespace,
        spiffe_id: proxy.spiffe_id.to_string(),
        address: proxy.address.map(|address| address.to_string()).unwrap_or_default(),
        version: proxy.version,
        connected_since: proxy.connected_since,
        applied_revision: proxy.applied_revision,
        pending: proxy.pending as u64,
        nack: proxy.nack.map(|nack| nack.to_string()).unwrap_or_default(),
        admin: proxy.admin,
        // Who serves configuration does not know of programs.
        ..ProxyStatus::default()
    }
}
