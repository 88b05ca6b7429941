//! One watch for each kind whose status is written.

use std::time::Duration;

use futures_util::StreamExt;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, TypeMeta};
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::observed::ObjectKey;
use crate::document::{API_VERSION, GATEWAY_API_VERSIONS, Kind, is_ours};
use crate::kubernetes::custom_resources::api_resource;

/// A kind that is not served is asked for again after this.
const NOT_SERVED: Duration = Duration::from_secs(10);
/// A watch that failed begins again after this, doubled each time.
const RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// A group that nobody has defined is answered in plain text, without a reason to tell by.
const NOT_FOUND: u16 = 404;

/// Which watch: a kind of our own group, or of the Gateway API in whatever version is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct What {
    kind: Kind,
    is_own: bool,
}

/// What a watch says of objects.
#[derive(Debug)]
pub(super) enum Change {
    ListBegins,
    Seen(Box<Value>),
    ListEnds,
    Gone(Box<Value>),
}

impl What {
    pub(super) fn is_of(self, key: &ObjectKey) -> bool {
        key.key.kind == self.kind && (&*key.api_version == API_VERSION) == self.is_own
    }
}

/// The kinds there may be, each with the API versions it may be served under, the preferred one first.
pub(super) fn candidates() -> impl Iterator<Item = (What, &'static [&'static str])> {
    let own = Kind::ALL.into_iter().map(|kind| (What { kind, is_own: true }, &[API_VERSION][..]));
    let routes = Kind::ALL.into_iter().filter(|kind| !matches!(kind, Kind::Mesh | Kind::Service | Kind::Workload));
    own.chain(routes.map(|kind| (What { kind, is_own: false }, &GATEWAY_API_VERSIONS[..])))
}

/// Watches a kind until nobody listens: under the first version that is served, and anew when that ends.
pub(super) async fn watch(
    client: Client,
    what: What,
    versions: &'static [&'static str],
    changes: mpsc::Sender<(What, Change)>,
) {
    loop {
        if let Some(resource) = served(&client, what.kind, versions).await
            && follow(&client, &resource, what, &changes).await.is_err()
        {
            return;
        }
        tokio::select! {
            () = sleep(NOT_SERVED) => {}
            () = changes.closed() => return,
        }
    }
}

async fn served(client: &Client, kind: Kind, versions: &[&str]) -> Option<ApiResource> {
    for version in versions {
        match client.list_api_group_resources(version).await {
            Ok(list) if list.resources.iter().any(|resource| resource.kind == kind.as_str()) => {
                return Some(api_resource(kind, version));
            }
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == NOT_FOUND => {}
            Err(error) => tracing::warn!(version, %error, "cannot ask the API server what it serves; asking again"),
        }
    }
    None
}

/// Follows a kind while it is served; an error when nobody listens.
async fn follow(
    client: &Client,
    resource: &ApiResource,
    what: What,
    changes: &mpsc::Sender<(What, Change)>,
) -> Result<(), mpsc::error::SendError<(What, Change)>> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), resource);
    let mut events = watcher(api, watcher::Config::default()).boxed();
    let mut wait = RETRY;
    while let Some(event) = events.next().await {
        let change = match event {
            Ok(Event::Init) => Change::ListBegins,
            Ok(Event::InitApply(seen) | Event::Apply(seen)) => match object(resource, seen) {
                // A route that names no service is not looked at, unless somebody has spoken of it: that may be us.
                seen if is_ours(&seen) || seen.pointer("/status/parents").is_some() => Change::Seen(seen.into()),
                other => Change::Gone(other.into()),
            },
            Ok(Event::InitDone) => Change::ListEnds,
            Ok(Event::Delete(gone)) => Change::Gone(object(resource, gone).into()),
            Err(error) => {
                if is_not_served(&error) {
                    changes.send((what, Change::ListBegins)).await?;
                    return changes.send((what, Change::ListEnds)).await;
                }
                tracing::warn!(kind = %what.kind, %error, "a watch of objects whose status is kept failed; it begins again");
                sleep(wait).await;
                wait = (wait * 2).min(LONGEST_RETRY);
                continue;
            }
        };
        wait = RETRY;
        changes.send((what, change)).await?;
    }
    Ok(())
}

/// The kind is gone, or has never been there under this version.
fn is_not_served(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status)) => status.code == NOT_FOUND,
        _ => false,
    }
}

/// An object as JSON, without what nobody reads.
pub(super) fn object(resource: &ApiResource, mut object: DynamicObject) -> Value {
    // Items of a list need not say what they are.
    object.types = Some(TypeMeta { api_version: resource.api_version.clone(), kind: resource.kind.clone() });
    object.metadata.managed_fields = None;
    // What was JSON is JSON again.
    serde_json::to_value(object).unwrap_or_default()
}
