//! The endpoints of a cluster.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use weft_proto::envoy::envoy::config::core::v3::{HealthStatus, Locality};
use weft_proto::envoy::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use weft_proto::envoy::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint as EndpointMessage, LbEndpoint, LocalityLbEndpoints,
};
use weft_proto::envoy::google::protobuf::UInt32Value;

use super::transport::{self, Protection};
use super::{encode, fact, socket_address};
use crate::document;

/// One endpoint of an assignment.
pub(in crate::compile) struct Endpoint {
    pub(in crate::compile) address: SocketAddr,
    pub(in crate::compile) health: Health,
    /// `NAMESPACE/NAME`; `None` outside the mesh.
    pub(in crate::compile) workload: Option<String>,
    /// It has a proxy of ours. Without one it is reached in plaintext.
    pub(in crate::compile) meshed: bool,
    pub(in crate::compile) locality: Option<document::Locality>,
}

#[derive(Clone, Copy)]
pub(in crate::compile) enum Health {
    Healthy,
    Draining,
    Unhealthy,
}

/// The endpoints of a cluster; an empty assignment when there are none.
pub(in crate::compile) fn assignment(name: &str, endpoints: &[Endpoint], protection: Protection<'_>) -> Bytes {
    encode(&load_assignment(name, endpoints, matches!(protection, Protection::Mixed(_))))
}

/// `is_mixed`: each endpoint has to say whether it is an exception.
pub(super) fn load_assignment(name: &str, endpoints: &[Endpoint], is_mixed: bool) -> ClusterLoadAssignment {
    let mut localities: BTreeMap<Option<&document::Locality>, Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in endpoints {
        localities.entry(endpoint.locality.as_ref()).or_default().push(endpoint);
    }
    let of_locality = |(locality, endpoints): (Option<&document::Locality>, Vec<&Endpoint>)| LocalityLbEndpoints {
        // gRPC refuses a locality without the message.
        locality: Some(locality.map(message).unwrap_or_default()),
        lb_endpoints: endpoints.iter().map(|endpoint| lb_endpoint(endpoint, is_mixed)).collect(),
        load_balancing_weight: Some(UInt32Value { value: weight(&endpoints) }),
        ..LocalityLbEndpoints::default()
    };
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: localities.into_iter().map(of_locality).collect(),
        ..ClusterLoadAssignment::default()
    }
}

fn message(locality: &document::Locality) -> Locality {
    Locality { region: locality.region.clone(), zone: locality.zone.clone(), ..Locality::default() }
}

/// gRPC's clients choose a locality by its weight, and then one of its endpoints: each that is healthy is to get the same.
fn weight(endpoints: &[&Endpoint]) -> u32 {
    let healthy = endpoints.iter().filter(|endpoint| matches!(endpoint.health, Health::Healthy)).count();
    u32::try_from(healthy).unwrap_or(u32::MAX).max(1)
}

fn lb_endpoint(endpoint: &Endpoint, is_mixed: bool) -> LbEndpoint {
    let health = match endpoint.health {
        Health::Healthy => HealthStatus::Healthy,
        Health::Draining => HealthStatus::Draining,
        Health::Unhealthy => HealthStatus::Unhealthy,
    };
    // One or the other: whoever has a proxy is known by name.
    let metadata = match &endpoint.workload {
        _ if is_mixed && !endpoint.meshed => Some(transport::plaintext()),
        workload => workload.as_ref().map(|workload| fact("workload", workload)),
    };
    LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(EndpointMessage {
            address: Some(socket_address(endpoint.address)),
            ..EndpointMessage::default()
        })),
        health_status: health as i32,
        load_balancing_weight: Some(UInt32Value { value: 1 }),
        metadata,
    }
}
