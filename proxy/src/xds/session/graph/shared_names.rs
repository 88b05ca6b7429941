//! One copy of each name: most of a service's resources have one name, and a mesh has thousands.

use std::sync::Arc;

use weft_core::model::{ClusterSpec, EndpointSource, RouteSource, RouteTableSpec};
use weft_core::names::{ClusterName, RouteName};

use super::Graph;
use crate::xds::decode::Decoded;

impl Graph {
    /// Makes the names in `decoded` the ones that are held already: most of a service's resources have one name.
    pub(in crate::xds::session) fn share_names(&mut self, decoded: &mut Decoded) {
        if let Decoded::Cluster(spec) = decoded {
            self.share_namespace(spec);
        }
        let share = |name: &mut ClusterName| {
            if let Some((known, _)) = self.clusters.held.get_key_value(name.as_str()) {
                *name = ClusterName::new(Arc::clone(known));
            }
        };
        let share_routes = |table: &mut RouteTableSpec| {
            for route in table.virtual_hosts.iter_mut().flat_map(|host| &mut host.routes) {
                route.clusters.iter_mut().for_each(|weighted| share(&mut weighted.cluster));
            }
            if let Some((known, _)) = self.clusters.held.get_key_value(table.name.as_str()) {
                table.name = RouteName::new(Arc::clone(known));
            }
        };
        match decoded {
            Decoded::Cluster(spec) => {
                share(&mut spec.name);
                match &mut spec.endpoints {
                    EndpointSource::Discovered(name) | EndpointSource::AnyPort { endpoints: name, .. }
                        if *name == spec.name =>
                    {
                        name.clone_from(&spec.name);
                    }
                    EndpointSource::Discovered(name) | EndpointSource::AnyPort { endpoints: name, .. } => share(name),
                    EndpointSource::Static(_) | EndpointSource::OriginalDestination => {}
                }
            }
            Decoded::Endpoints(spec) => share(&mut spec.name),
            Decoded::Routes(spec) => share_routes(spec),
            Decoded::Listener(spec) => {
                if let Some(cluster) = &mut spec.cluster {
                    share(cluster);
                }
                match &mut spec.routes {
                    Some(RouteSource::Named(name)) => {
                        if let Some((known, _)) = self.clusters.held.get_key_value(name.as_str()) {
                            *name = RouteName::new(Arc::clone(known));
                        }
                    }
                    Some(RouteSource::Inline(table)) => share_routes(table),
                    None => {}
                }
            }
            Decoded::Destination(_) => {}
        }
    }

    fn share_namespace(&mut self, spec: &mut ClusterSpec) {
        let namespace = &mut spec.service.namespace;
        match self.namespaces.get(namespace) {
            Some(known) => namespace.clone_from(known),
            None => _ = self.namespaces.insert(Arc::clone(namespace)),
        }
    }
}
