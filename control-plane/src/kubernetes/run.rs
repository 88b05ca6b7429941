//! Wires a control plane in a cluster: its objects -> documents -> compiler -> proxies, and what else it is there for.
//!
//! [`run`] is one straight function, in the order in which the parts depend on each other; each part hands it one function.
//! Nothing is kept but what the API server has: any number of replicas run side by side, and one that starts anew gives the
//! same answers. What only one may write, the one that holds the Lease writes.

mod parts;
mod settings;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use weft_proxy::clock;
use weft_proxy::telemetry::Registry;

use super::admission::{InjectState, ValidateState, inject_router, validate_router};
use super::api::{self, Exhibits, Reviewer};
use super::discovery::Discovery;
use super::inject::InjectSettings;
use super::token_review::TokenReviewer;
use super::{authority, lease, status, unmeshed, webhook};
use crate::app::{Proxies, Publisher, Stop};
use crate::ca::{AuthorityOptions, CaError, IdentityService};
use crate::compile::Compiler;
use crate::programs::programs;
use parts::Parts;
use settings::watching_client;
pub use settings::{RunError, Settings, client};

/// A replica that is to end goes on for so long, no longer ready: until then its address is still given out. As long as
/// the webhooks' server takes calls.
const DEPARTURE: Duration = Duration::from_secs(5);
/// What is under way after that gets so long. The webhooks' server takes calls for 5 s after the first word, and answers
/// them in 5.
const FINISH: Duration = Duration::from_secs(8);

/// Runs a control plane until `stop`.
pub async fn run(settings: Settings, stop: impl Future<Output = ()>) -> Result<(), RunError> {
    let programs = programs(&settings.proxy_programs)?;
    let client = client(&settings).await?;
    let namespace = settings.system_namespace.as_str();
    let options = AuthorityOptions { trust_domain: settings.trust_domain.clone(), ..AuthorityOptions::default() };
    let authority = Arc::new(authority::open(&client, namespace, &options, clock::wall()).await?);
    let for_proxies = settings::listen(settings.listen, "proxies", "--listen").await?;
    let for_webhooks = settings::listen(settings.webhooks, "webhooks", "--webhook-listen").await?;
    let for_http = settings::listen(settings.http, "probes and metrics", "--api-listen").await?;

    let registry = Registry::default();
    // Another of this process has it already where several are tested together.
    let _ = registry.install();
    // The first: this replica leaves; the second: it is over.
    let (leaving, has_left) = watch::channel(false);
    let (stopping, has_stopped) = watch::channel(false);
    let discovery = Discovery::start(&watching_client(&settings).await?, fastrand::Rng::new());
    let proxies = Proxies::new(Arc::clone(&authority)).offering(programs);
    let leader = lease::hold(client.clone(), namespace, &settings.pod_name, has_left.clone());
    let mut parts = Parts::default();

    let (publish, verdicts) = (proxies.publish(), Arc::clone(&proxies.verdicts));
    let (findings, found) = watch::channel(Arc::default());
    let compiler = Compiler::new(authority.trust_domain());
    let publisher = Publisher { publish, verdicts, compiler, findings };
    parts.keep("the compiler", publisher.follow(discovery.snapshots.clone()));
    let statuses = {
        let ads = proxies.ads.clone();
        status::Inputs {
            client: client.clone(),
            snapshots: discovery.snapshots.clone(),
            readings: discovery.readings.clone(),
            findings: found,
            proxies: Arc::new(move || ads.proxies()),
            news: proxies.world.news(),
            leader: leader.clone(),
            peers: status::Peers {
                system_namespace: namespace.to_owned(),
                name: settings.pod_name.clone(),
                token: settings.replica_token.clone(),
            },
        }
    };
    let (of_report, name) = (statuses.clone(), settings.pod_name.clone());
    let report = Arc::new(move || of_report.report(&name));
    let http = api::router(exhibits(&client, &settings, &discovery, &proxies, registry, has_left.clone()), report);
    parts.keep("the writer of statuses", status::keep(statuses));
    parts.keep("the upgrade of proxies", proxies.upgrade(discovery.snapshots.clone()));
    let identity = IdentityService::new(Arc::clone(&authority), Arc::new(TokenReviewer::new(client.clone())));
    parts.serve("the server for proxies", proxies.serve(for_proxies, identity, has_stopped.clone()));

    let documents = ValidateState { snapshot: discovery.snapshots.clone(), client: client.clone() };
    let webhooks = validate_router(documents).merge(inject_router(InjectState {
        settings: Arc::new(InjectSettings {
            options: settings.injection.clone(),
            system_namespace: namespace.to_owned(),
            bundle: authority.bundle_pem(),
        }),
        client: client.clone(),
    }));
    let webhooks = webhook::serve(for_webhooks, &authority, namespace, webhooks, has_left.clone());
    parts.serve("the server for webhooks", webhooks.map_err(|error: CaError| RunError::Webhooks(Box::new(error)))?);
    parts.serve("the server for probes and the command line", parts::http(for_http, http, has_stopped));

    let root = Arc::clone(&authority);
    let (api, own) = (client.clone(), settings.system_namespace.clone());
    parts.watch("the root", async move { authority::until_replaced(&api, &own, &root).await.to_string() });
    as_leader(&mut parts, &client, &settings, authority.bundle_pem(), &discovery, leader);

    tracing::info!(listen = %settings.listen, namespace, trust_domain = authority.trust_domain(), "control plane runs");
    let ended = tokio::select! {
        () = stop => None,
        ended = parts.ended() => Some(ended),
    };
    leaving.send_replace(true);
    if let Some((part, what)) = ended {
        stopping.send_replace(true);
        return Err(RunError::Ended { part, what });
    }
    tracing::info!("control plane stops");
    tokio::time::sleep(DEPARTURE).await;
    stopping.send_replace(true);
    if tokio::time::timeout(FINISH, parts.finish()).await.is_err() {
        tracing::warn!("requests were still under way after {} s", FINISH.as_secs());
    }
    Ok(())
}

/// What is shown to the kubelet, a scraper and the command line.
fn exhibits(
    client: &Client,
    settings: &Settings,
    discovery: &Discovery,
    proxies: &Proxies,
    registry: Registry,
    leaving: Stop,
) -> Exhibits {
    let [health, watches, lost] = [(); 3].map(|()| Arc::clone(&discovery.health));
    Exhibits {
        missing: Arc::new(move || {
            if *leaving.borrow() { vec!["its own end".to_owned()] } else { health.missing(clock::now()) }
        }),
        registry,
        stale: Arc::new(move || lost.stale(clock::now())),
        gauges: Arc::new(move |gauges| watches.gauges(clock::now(), gauges)),
        facts: proxies.facts(),
        documents: discovery.snapshots.clone(),
        started_at: clock::unix_seconds(),
        reviewer: Reviewer::new(client.clone(), &settings.system_namespace),
        operators: Reviewer::of_operators(client.clone(), &settings.system_namespace),
        replicas: Reviewer::of_replicas(client.clone(), &settings.system_namespace),
    }
}

/// What one replica alone does: the one that leads.
fn as_leader(
    parts: &mut Parts,
    client: &Client,
    settings: &Settings,
    bundle: String,
    discovery: &Discovery,
    leader: watch::Receiver<bool>,
) {
    let (api, namespace, leads) = (client.clone(), settings.system_namespace.clone(), leader.clone());
    let keep_bundle = async move { Box::pin(webhook::keep_bundle(api, &namespace, &bundle, leads)).await };
    parts.keep("the keeper of the roots", keep_bundle);

    let (found, unmeshed_pods) = watch::channel(Arc::default());
    let (bare, namespace) = (discovery.bare.clone(), settings.system_namespace.clone());
    let look = move || {
        let bare = Arc::clone(&bare.borrow());
        unmeshed::find(bare.pods(), bare.namespaces(), &namespace)
    };
    parts.keep("the search for pods without a proxy", unmeshed::keep(look, found));
    let (api, reporter) = (client.clone(), settings.pod_name.clone());
    let report = async move { unmeshed::report(api, &reporter, unmeshed_pods, leader).await };
    parts.keep("the reporter of pods without a proxy", report);
}
