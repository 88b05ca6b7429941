//! `ClusterLoadAssignment`: one flat set of equal endpoints.

#![allow(deprecated, reason = "deprecated fields are read so that they can be refused by name")]

use std::collections::HashSet;

use weft_core::model::{EndpointHealth, EndpointSetSpec, EndpointSpec};
use weft_core::names::{ClusterName, WorkloadName};
use weft_proto::envoy::envoy::config::core::v3::HealthStatus;
use weft_proto::envoy::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use weft_proto::envoy::envoy::config::endpoint::v3::{ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints};

use super::field::{Decoding, Facts, Refusal, Within, lasts, present, unset};
use super::{address, transport};

/// Reads an endpoint resource.
pub(super) fn endpoint_set(assignment: &ClusterLoadAssignment) -> Decoding<EndpointSetSpec> {
    present(&assignment.cluster_name, "cluster_name")?;
    Ok(EndpointSetSpec { name: ClusterName::from(assignment.cluster_name.as_str()), endpoints: endpoints(assignment)? })
}

/// The endpoints of an assignment, in its order, an address once.
///
/// Localities are flattened: without locality weighting, which a cluster would have to ask for and is refused there,
/// they carry no meaning for a load balancer. An address that comes twice is merged into its first, as Envoy does.
pub(super) fn endpoints(assignment: &ClusterLoadAssignment) -> Decoding<Vec<EndpointSpec>> {
    if let Some(policy) = &assignment.policy {
        let drops = policy.drop_overloads.iter().any(|drop| drop.drop_percentage.is_some_and(|p| p.numerator > 0));
        unset(&[("drop_overloads", drops), ("endpoint_stale_after", lasts(policy.endpoint_stale_after.as_ref()))])
            .within("policy")?;
    }
    let mut seen = HashSet::new();
    let mut weight = None;
    let mut endpoints = Vec::new();
    for (index, locality) in assignment.endpoints.iter().enumerate() {
        for endpoint in locality_endpoints(locality, &mut weight).within_item("endpoints", index)? {
            if seen.insert(endpoint.address) {
                endpoints.push(endpoint);
            }
        }
    }
    endpoints.shrink_to_fit();
    Ok(endpoints)
}

fn locality_endpoints(locality: &LocalityLbEndpoints, weight: &mut Option<u32>) -> Decoding<Vec<EndpointSpec>> {
    unset(&[("lb_config", locality.lb_config.is_some())])?;
    if locality.priority != 0 && !locality.lb_endpoints.is_empty() {
        return Err(Refusal::new("priority", locality.priority, "0: all endpoints are equal"));
    }
    locality
        .lb_endpoints
        .iter()
        .enumerate()
        .map(|(index, endpoint)| lb_endpoint(endpoint, weight).within_item("lb_endpoints", index))
        .collect()
}

fn lb_endpoint(endpoint: &LbEndpoint, weight: &mut Option<u32>) -> Decoding<EndpointSpec> {
    // An absent weight is 1 (Envoy's documentation of the field).
    let own_weight = endpoint.load_balancing_weight.as_ref().map_or(1, |weight| weight.value);
    if *weight.get_or_insert(own_weight) != own_weight {
        return Err(Refusal::new("load_balancing_weight", own_weight, "one weight for all endpoints"));
    }
    let host = match &endpoint.host_identifier {
        Some(HostIdentifier::Endpoint(host)) => host,
        Some(HostIdentifier::EndpointName(name)) => return Err(Refusal::new("endpoint_name", name, "endpoint")),
        None => return Err(Refusal::missing("endpoint", "an address")),
    };
    unset(&[("additional_addresses", !host.additional_addresses.is_empty())]).within("endpoint")?;
    let address = address::address(host.address.as_ref(), "address").within("endpoint")?;
    let workload = match Facts::of(endpoint.metadata.as_ref()) {
        Some(facts) => WorkloadName::from(facts.text("workload")?),
        None => WorkloadName::from(address.to_string()),
    };
    let transport = transport::of_endpoint(endpoint.metadata.as_ref());
    Ok(EndpointSpec { address, workload, health: health(endpoint.health_status)?, transport })
}

/// Unknown means healthy (Envoy: "treated by Envoy as healthy"). Degraded endpoints serve, only later than others;
/// the model has no such order and losing them would be worse.
fn health(status: i32) -> Decoding<EndpointHealth> {
    match HealthStatus::try_from(status) {
        Ok(HealthStatus::Unknown | HealthStatus::Healthy | HealthStatus::Degraded) => Ok(EndpointHealth::Ready),
        Ok(HealthStatus::Draining) => Ok(EndpointHealth::Draining),
        Ok(HealthStatus::Unhealthy | HealthStatus::Timeout) => Ok(EndpointHealth::Unhealthy),
        Err(_) => Err(Refusal::new("health_status", status, "a status of the v3 API")),
    }
}
