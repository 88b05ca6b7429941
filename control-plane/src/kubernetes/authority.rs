//! The root of the mesh's identities in Secret `weft-root` of the system namespace.
//!
//! Whichever replica comes first makes it; the API server takes one such Secret and answers 409 to the others, who
//! adopt it: all end with the same root. It is never overwritten from here, however unusable: proxies trust it. Its
//! trust domain stands in the certificate, and for people in an annotation.
//!
//! The Secret is read once. [`until_replaced`] tells when it is another one since, so that the replica can end and
//! begin again with it: replicas that sign by different roots would be worse than any restart.

use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use http::Method;
use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::json;

use super::confidential::{self, RequestError};
use super::names;
use crate::ca::{self, Authority, AuthorityOptions, CaError, NewRoot, Pem};

/// Trust domain of a new mesh whose owner did not choose one: what SPIFFE users of Kubernetes expect.
pub const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
/// Reading and making the Secret together.
const OPEN_LIMIT: Duration = Duration::from_secs(20);
/// Before a Secret that changed and could not be read is asked for again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// A Secret that is neither there nor can be made, because it is made and deleted again all the time, is given up.
const MOST_TRIES: usize = 5;

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const NEW_ROOT: &str =
    "delete Secret weft-root, restart the control plane, then restart all meshed pods: a new mesh identity";

/// Why there is no root.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot {action} Secret {secret}: {source}{}", remedy(.source))]
    Request { action: &'static str, secret: String, source: RequestError },
    #[error("the API server did not give Secret {secret} within {limit:?}")]
    TimedOut { secret: String, limit: Duration },
    #[error("Secret {0} is made and deleted again by somebody else; see who does that (`kubectl get events -A`)")]
    Unsteady(String),
    #[error("Secret {secret} has no text under `{key}`; restore it from a backup, or {NEW_ROOT}")]
    Incomplete { secret: String, key: &'static str },
    #[error("{0}; restore it from a backup, or {NEW_ROOT}")]
    Unusable(#[source] CaError),
    #[error("{0}")]
    Authority(#[from] CaError),
    #[error(
        "Secret {secret} holds the root of trust domain `{existing}`, asked was `{asked}`; set --trust-domain {existing}, \
         or {NEW_ROOT}"
    )]
    OtherTrustDomain { secret: String, existing: String, asked: String },
    #[error(
        "Secret {secret} says trust domain `{annotated}` (annotation {}), its certificate says `{existing}`; correct the \
         annotation, or restore the certificate from a backup",
        names::TRUST_DOMAIN_ANNOTATION
    )]
    Contradiction { secret: String, annotated: String, existing: String },
}

fn remedy(error: &RequestError) -> &'static str {
    match error {
        RequestError::Forbidden { .. } => "; `weft install` grants the control plane's ServiceAccount what it needs",
        RequestError::Refused { code: 404, .. } => "; is the namespace there, and is it --system-namespace?",
        _ => "",
    }
}

/// Opens the authority of the cluster's mesh: reads its root, or makes it where there is none.
pub async fn open(
    client: &Client,
    namespace: &str,
    options: &AuthorityOptions,
    now: SystemTime,
) -> Result<Authority, OpenError> {
    open_within(OPEN_LIMIT, client, namespace, options, now).await
}

async fn open_within(
    limit: Duration,
    client: &Client,
    namespace: &str,
    options: &AuthorityOptions,
    now: SystemTime,
) -> Result<Authority, OpenError> {
    let secret = format!("{namespace}/{}", names::ROOT_SECRET);
    let found = tokio::time::timeout(limit, read_or_create(client, namespace, options, now))
        .await
        .map_err(|_| OpenError::TimedOut { secret: secret.clone(), limit })??;
    adopt(&found, &secret, options, now)
}

async fn read_or_create(
    client: &Client,
    namespace: &str,
    options: &AuthorityOptions,
    now: SystemTime,
) -> Result<Secret, OpenError> {
    let secret = format!("{namespace}/{}", names::ROOT_SECRET);
    let failed = |action| {
        let secret = secret.clone();
        move |source| OpenError::Request { action, secret, source }
    };
    let asked = options.trust_domain.as_deref().unwrap_or(DEFAULT_TRUST_DOMAIN);
    for _ in 0..MOST_TRIES {
        if let Some(found) = read(client, namespace).await.map_err(failed("read"))? {
            return Ok(found);
        }
        let body = secret_of(namespace, asked, &ca::create_root(asked, now)?);
        let request = confidential::request(Method::POST, &secrets(namespace), Some(&body));
        match confidential::send::<Secret>(client, request).await {
            Ok(created) => {
                tracing::info!(trust_domain = asked, %secret, "root certificate created");
                return Ok(created);
            }
            // Another replica was first, and ours is nobody's.
            Err(error) if error.code() == Some(409) => {}
            Err(error) => return Err(failed("create")(error)),
        }
    }
    Err(OpenError::Unsteady(secret))
}

async fn read(client: &Client, namespace: &str) -> Result<Option<Secret>, RequestError> {
    let path = format!("{}/{}", secrets(namespace), names::ROOT_SECRET);
    match confidential::send(client, confidential::request(Method::GET, &path, None)).await {
        Ok(secret) => Ok(Some(secret)),
        Err(error) if error.code() == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

fn secrets(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets")
}

fn secret_of(namespace: &str, trust_domain: &str, root: &NewRoot) -> serde_json::Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": names::ROOT_SECRET,
            "namespace": namespace,
            "labels": {
                "app.kubernetes.io/name": names::APP_NAME,
                "app.kubernetes.io/managed-by": names::APP_NAME,
            },
            "annotations": { names::TRUST_DOMAIN_ANNOTATION: trust_domain },
        },
        "type": "kubernetes.io/tls",
        "stringData": { CERTIFICATE: root.certificate, KEY: root.key },
    })
}

fn adopt(found: &Secret, secret: &str, options: &AuthorityOptions, now: SystemTime) -> Result<Authority, OpenError> {
    let text = |key: &'static str| {
        let bytes = found.data.as_ref().and_then(|data| data.get(key));
        bytes
            .and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
            .filter(|text| !text.trim().is_empty())
            .ok_or_else(|| OpenError::Incomplete { secret: secret.to_owned(), key })
    };
    let (certificate, key) = (text(CERTIFICATE)?, text(KEY)?);
    let (key_place, root_place) =
        (format!("`{KEY}` of Secret {secret}"), format!("`{CERTIFICATE}` of Secret {secret}"));
    let (key, root) = (Pem { place: &key_place, text: key }, Pem { place: &root_place, text: certificate });
    let authority = Authority::from_pem(key, root, options.leaf_life, NEW_ROOT).map_err(OpenError::Unusable)?;
    let existing = authority.trust_domain();
    let annotations = found.metadata.annotations.as_ref();
    let annotated = annotations.and_then(|all| all.get(names::TRUST_DOMAIN_ANNOTATION));
    // Absent: the root was brought by its owner.
    if let Some(annotated) = annotated.filter(|annotated| *annotated != existing) {
        let (annotated, existing) = (annotated.clone(), existing.to_owned());
        return Err(OpenError::Contradiction { secret: secret.to_owned(), annotated, existing });
    }
    if let Some(asked) = options.trust_domain.as_ref().filter(|asked| *asked != existing) {
        let (existing, asked) = (existing.to_owned(), asked.clone());
        return Err(OpenError::OtherTrustDomain { secret: secret.to_owned(), existing, asked });
    }
    authority.check_life(now)?;
    Ok(authority)
}

/// What became of the root in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Replaced {
    #[error("Secret weft-root holds another root now; the control plane begins again with it")]
    Other,
    #[error("Secret weft-root was deleted; the control plane begins again with a new root")]
    Gone,
}

/// Ends when the Secret no longer holds the root of `authority`.
///
/// While the API server is away nothing is known and nothing ends.
pub async fn until_replaced(client: &Client, namespace: &str, authority: &Authority) -> Replaced {
    // Metadata alone: the watch is none of our confidential requests.
    let secrets: Api<PartialObjectMeta<Secret>> = Api::namespaced(client.clone(), namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", names::ROOT_SECRET));
    let mut events = watcher(secrets, config).default_backoff().boxed();
    let mut seen = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => seen = false,
            Ok(watcher::Event::Delete(_)) => return Replaced::Gone,
            Ok(watcher::Event::InitDone) if !seen => return Replaced::Gone,
            Ok(watcher::Event::InitDone) => {}
            Ok(watcher::Event::InitApply(_) | watcher::Event::Apply(_)) => {
                seen = true;
                if !still_holds(client, namespace, authority).await {
                    return Replaced::Other;
                }
            }
            Err(error) => tracing::debug!(%error, "the watch of Secret weft-root broke off"),
        }
    }
    // The stream of a watcher never ends.
    std::future::pending().await
}

/// Whether the Secret holds the root of `authority`, as soon as the API server can tell.
async fn still_holds(client: &Client, namespace: &str, authority: &Authority) -> bool {
    loop {
        match tokio::time::timeout(OPEN_LIMIT, read(client, namespace)).await {
            Ok(Ok(Some(found))) => {
                let certificate = found.data.as_ref().and_then(|data| data.get(CERTIFICATE));
                let text = certificate.and_then(|bytes| std::str::from_utf8(&bytes.0).ok()).unwrap_or_default();
                return text.contains(authority.bundle_pem().trim());
            }
            // Gone again: the watch tells.
            Ok(Ok(None)) => return true,
            Ok(Err(error)) => tracing::warn!(%error, "Secret weft-root changed and cannot be read, trying again"),
            Err(_) => tracing::warn!("Secret weft-root changed and was not given within {OPEN_LIMIT:?}, trying again"),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

#[cfg(test)]
mod tests;
