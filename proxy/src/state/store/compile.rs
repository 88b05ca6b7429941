//! What was told as a snapshot: listeners with their routes and clusters resolved.

use std::collections::HashMap;
use std::sync::Arc;

use weft_core::model::{Direction, EndpointSource, ListenerSpec, RouteSource};
use weft_core::names::ClusterName;
use weft_core::route::RouteTable;
use weft_core::server_name::ServerNames;

use super::Tables;
use crate::state::snapshot::unmapped;
use crate::state::{Cluster, Listener, Snapshot};

impl Tables {
    /// What did not change is shared with the snapshot before.
    pub(super) fn compile(&mut self, version: u64) -> Snapshot {
        let Self { listeners, routes, clusters, .. } = self;
        let resolve = |name: &ClusterName| clusters.get(name).cloned();
        for table in routes.values_mut() {
            follow(table, clusters);
        }
        let mut snapshot = Snapshot { version, clusters: Arc::clone(clusters), ..Snapshot::default() };
        for listener in listeners.values_mut() {
            let spec = &listener.spec;
            let table = match &spec.routes {
                Some(RouteSource::Named(name)) => routes.get(name).cloned(),
                Some(RouteSource::Inline(table)) => {
                    let mut known = listener.routes.clone();
                    if let Some(table) = &mut known {
                        follow(table, clusters);
                    }
                    known.or_else(|| Some(Arc::new(RouteTable::compile(table, resolve))))
                }
                None => None,
            };
            let cluster = spec.cluster.as_ref().and_then(resolve);
            if !is_same(listener.routes.as_ref(), table.as_ref())
                || !is_same(listener.cluster.as_ref(), cluster.as_ref())
                || !spec.server_names.is_empty()
            {
                *listener = Arc::new(Listener {
                    by_destination: is_by_destination(spec, table.as_deref(), cluster.as_deref(), clusters),
                    authority: listener.authority.clone(),
                    routes: table,
                    cluster,
                    server_names: (!spec.server_names.is_empty())
                        .then(|| Box::new(ServerNames::compile(&spec.server_names, resolve))),
                    detection: listener.detection.clone(),
                    usage: listener.usage.clone(),
                    spec: spec.clone(),
                });
            }
            for &address in &listener.spec.addresses {
                match listener.spec.direction {
                    Direction::Outbound => snapshot.outbound.insert(unmapped(address), Arc::clone(listener)),
                    Direction::Inbound if address.ip().is_unspecified() => {
                        snapshot.any_inbound.replace(Arc::clone(listener))
                    }
                    Direction::Inbound => snapshot.inbound.insert(address.port(), Arc::clone(listener)),
                };
            }
        }
        snapshot
    }
}

/// Makes a table lead to the clusters that are in force.
fn follow(table: &mut Arc<RouteTable<Arc<Cluster>>>, clusters: &HashMap<ClusterName, Arc<Cluster>>) {
    let mut shares = table.routes().flat_map(|route| route.split().shares());
    if !shares.all(|(name, _, target)| is_same(target, clusters.get(name))) {
        drop(shares);
        *table = Arc::new(table.resolved(|name| clusters.get(name).cloned()));
    }
}

fn is_same<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// Whether anything the listener leads to is wherever the connection was going.
fn is_by_destination(
    spec: &ListenerSpec,
    routes: Option<&RouteTable<Arc<Cluster>>>,
    cluster: Option<&Cluster>,
    clusters: &HashMap<ClusterName, Arc<Cluster>>,
) -> bool {
    let by_name = spec.server_names.iter().flat_map(|names| &names.clusters);
    let by_name = by_name.filter_map(|weighted| clusters.get(&weighted.cluster)).map(AsRef::as_ref);
    let by_route = routes.into_iter().flat_map(RouteTable::targets).map(AsRef::as_ref);
    let mut all = cluster.into_iter().chain(by_route).chain(by_name);
    all.any(|cluster| cluster.spec.endpoints == EndpointSource::OriginalDestination)
}
