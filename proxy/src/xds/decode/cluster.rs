//! `Cluster`: how to reach a set of interchangeable endpoints.

#![allow(deprecated, reason = "deprecated fields are read so that they can be refused by name")]

use std::time::Duration;

use weft_core::model::{ClusterSpec, DEFAULT_CONNECT_TIMEOUT, EndpointSource, OutlierPolicy, UpstreamProtocol};
use weft_core::names::{ClusterName, ServiceRef};
use weft_proto::envoy::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use weft_proto::envoy::envoy::config::cluster::v3::cluster::common_lb_config::LocalityConfigSpecifier;
use weft_proto::envoy::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, LbConfig, LbPolicy, OriginalDstLbConfig,
};
use weft_proto::envoy::envoy::config::cluster::v3::{Cluster, LoadBalancingPolicy, OutlierDetection};
use weft_proto::envoy::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use weft_proto::envoy::envoy::extensions::upstreams::http::v3::http_protocol_options::UpstreamProtocolOptions;
use weft_proto::envoy::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use weft_proto::envoy::google::protobuf::UInt32Value;
use weft_proto::names;

use super::field::{Decoding, Facts, Refusal, Within, duration, is_true, over_ads, present, type_name, unpack, unset};
use super::{endpoint, http, transport};

const HTTP_PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Policies that pick freely among equal endpoints. The proxy's own picking does that; which of them was asked for
/// makes no difference a request could notice, unlike affinity (ring hash, maglev) or order (pick first).
const FREE_CHOICE: [&str; 4] = [
    "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
    "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin",
    "envoy.extensions.load_balancing_policies.random.v3.Random",
    "envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin",
];

/// Reads a cluster resource.
pub(super) fn cluster(cluster: &Cluster) -> Decoding<ClusterSpec> {
    present(&cluster.name, "name")?;
    reach_is_plain(cluster)?;
    balancing(cluster)?;
    circuit_breakers(cluster)?;
    let protocol = upstream_protocol(cluster)?;
    let connect_timeout = duration(cluster.connect_timeout.as_ref(), "connect_timeout")?;
    if connect_timeout.is_some_and(|timeout| timeout.is_zero()) {
        return Err(Refusal::new("connect_timeout", "0", "more than zero"));
    }
    let outlier = match &cluster.outlier_detection {
        Some(detection) => outlier(detection).within("outlier_detection")?,
        // Without the message nothing is ever ejected.
        None => OutlierPolicy { consecutive_failures: 0, ..OutlierPolicy::default() },
    };
    let spec = ClusterSpec {
        name: ClusterName::from(cluster.name.as_str()),
        service: service(cluster)?,
        endpoints: endpoint_source(cluster)?,
        connect_timeout: connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT),
        tls: transport::of_cluster(cluster)?,
        protocol,
        outlier,
    };
    // Without it they would be captured to be passed through.
    let is_plain = spec.tls.as_ref().is_none_or(|tls| !tls.exceptions.is_empty());
    if matches!(spec.endpoints, EndpointSource::AnyPort { .. }) && is_plain {
        return Err(Refusal::new("transport_socket", "plaintext for any port", "mutual TLS for all endpoints"));
    }
    Ok(spec)
}

fn reach_is_plain(cluster: &Cluster) -> Decoding<()> {
    unset(&[
        ("transport_socket_matcher", cluster.transport_socket_matcher.is_some()),
        ("health_checks", !cluster.health_checks.is_empty()),
        ("upstream_bind_config", cluster.upstream_bind_config.is_some()),
        ("filters", !cluster.filters.is_empty()),
        ("upstream_config", cluster.upstream_config.is_some()),
        ("queuing_policies", cluster.queuing_policies.is_some()),
    ])
}

fn endpoint_source(cluster: &Cluster) -> Decoding<EndpointSource> {
    let supported = "EDS, STATIC or ORIGINAL_DST";
    let kind = match &cluster.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(number)) => {
            DiscoveryType::try_from(*number).map_err(|_| Refusal::new("type", number, supported))?
        }
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            return Err(Refusal::new("cluster_type", &custom.name, supported));
        }
        // The enumeration's zero.
        None => DiscoveryType::Static,
    };
    match kind {
        DiscoveryType::Eds => {
            let config = cluster.eds_cluster_config.as_ref();
            let config = config.ok_or_else(|| Refusal::missing("eds_cluster_config", "eds_config with ads"))?;
            over_ads(config.eds_config.as_ref(), "eds_config").within("eds_cluster_config")?;
            let name = if config.service_name.is_empty() { &cluster.name } else { &config.service_name };
            let endpoints = ClusterName::from(name.as_str());
            match Facts::of(cluster.metadata.as_ref()) {
                Some(facts) if facts.flag(names::ANY_PORT)? => {
                    Ok(EndpointSource::AnyPort { endpoints, except: facts.ports(names::EXCEPT_PORTS)? })
                }
                _ => Ok(EndpointSource::Discovered(endpoints)),
            }
        }
        DiscoveryType::Static => {
            let assignment = cluster.load_assignment.as_ref();
            let assignment = assignment.ok_or_else(|| Refusal::missing("load_assignment", "the static endpoints"))?;
            Ok(EndpointSource::Static(endpoint::endpoints(assignment).within("load_assignment")?))
        }
        DiscoveryType::OriginalDst => match &cluster.lb_config {
            Some(LbConfig::OriginalDstLbConfig(config)) if *config != OriginalDstLbConfig::default() => Err(
                Refusal::new("original_dst_lb_config", "a value", "leaving it out: the destination is the kernel's"),
            ),
            _ => Ok(EndpointSource::OriginalDestination),
        },
        DiscoveryType::StrictDns | DiscoveryType::LogicalDns => {
            Err(Refusal::new("type", kind.as_str_name(), supported))
        }
    }
}

fn balancing(cluster: &Cluster) -> Decoding<()> {
    let supported = "LEAST_REQUEST, ROUND_ROBIN or RANDOM";
    let weighted = cluster.common_lb_config.as_ref().is_some_and(|config| {
        matches!(config.locality_config_specifier, Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)))
    });
    unset(&[
        ("lb_subset_config", cluster.lb_subset_config.is_some()),
        ("common_lb_config.locality_weighted_lb_config", weighted),
        (
            "common_lb_config.override_host_status",
            cluster.common_lb_config.as_ref().is_some_and(|config| config.override_host_status.is_some()),
        ),
    ])?;
    if let Some(policies) = &cluster.load_balancing_policy {
        // The list wins over lb_policy; its first known entry counts.
        return balancing_list(policies).within("load_balancing_policy");
    }
    let is_by_destination = matches!(
        cluster.cluster_discovery_type,
        Some(ClusterDiscoveryType::Type(kind)) if kind == DiscoveryType::OriginalDst as i32
    );
    match LbPolicy::try_from(cluster.lb_policy) {
        Ok(LbPolicy::ClusterProvided) if is_by_destination => Ok(()),
        Ok(LbPolicy::LeastRequest | LbPolicy::RoundRobin | LbPolicy::Random) => Ok(()),
        Ok(other) => Err(Refusal::new("lb_policy", other.as_str_name(), supported)),
        Err(_) => Err(Refusal::new("lb_policy", cluster.lb_policy, supported)),
    }
}

fn balancing_list(list: &LoadBalancingPolicy) -> Decoding<()> {
    let types: Vec<&str> = list
        .policies
        .iter()
        .filter_map(|policy| policy.typed_extension_config.as_ref()?.typed_config.as_ref())
        .map(|any| type_name(&any.type_url))
        .collect();
    if types.iter().any(|name| FREE_CHOICE.contains(name)) {
        Ok(())
    } else {
        Err(Refusal::new("policies", types.join(", "), "least_request, round_robin or random among them"))
    }
}

/// Limits are refused rather than dropped; the largest number is how some servers write "no limit".
fn circuit_breakers(cluster: &Cluster) -> Decoding<()> {
    let Some(breakers) = &cluster.circuit_breakers else { return Ok(()) };
    let limits = |limit: Option<&UInt32Value>| limit.is_some_and(|limit| limit.value != u32::MAX);
    let limited = |threshold: &Thresholds| {
        limits(threshold.max_connections.as_ref())
            || limits(threshold.max_pending_requests.as_ref())
            || limits(threshold.max_requests.as_ref())
            || limits(threshold.max_connection_pools.as_ref())
    };
    unset(&[
        ("thresholds", breakers.thresholds.iter().any(limited)),
        ("per_host_thresholds", breakers.per_host_thresholds.iter().any(limited)),
    ])
    .within("circuit_breakers")
}

fn upstream_protocol(cluster: &Cluster) -> Decoding<UpstreamProtocol> {
    unset(&[("http2_protocol_options", cluster.http2_protocol_options.is_some())])?;
    let field = "typed_extension_protocol_options";
    let mut extensions: Vec<_> = cluster.typed_extension_protocol_options.iter().collect();
    extensions.sort_unstable_by_key(|(name, _)| *name);
    let mut protocol = UpstreamProtocol::default();
    for (name, any) in extensions {
        if type_name(&any.type_url) != HTTP_PROTOCOL_OPTIONS {
            return Err(Refusal::new(field, name, HTTP_PROTOCOL_OPTIONS));
        }
        protocol = unpack(any).and_then(|options: HttpProtocolOptions| http_upstream(&options)).within(field)?;
    }
    Ok(protocol)
}

fn http_upstream(options: &HttpProtocolOptions) -> Decoding<UpstreamProtocol> {
    unset(&[
        ("outlier_detection", options.outlier_detection.is_some()),
        ("request_mirror_policies", !options.request_mirror_policies.is_empty()),
        ("retry_policy", options.retry_policy.is_some()),
    ])?;
    http::upstream_filters(&options.http_filters)?;
    match &options.upstream_protocol_options {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => match explicit.protocol_config {
            Some(ProtocolConfig::Http2ProtocolOptions(_)) => Ok(UpstreamProtocol::Http2),
            Some(ProtocolConfig::Http3ProtocolOptions(_)) => Err(Refusal::new(
                "explicit_http_config",
                "http3_protocol_options",
                "http_protocol_options (HTTP/1.1) or http2_protocol_options",
            )),
            Some(ProtocolConfig::HttpProtocolOptions(_)) | None => Ok(UpstreamProtocol::Http1),
        },
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(_)) => Ok(UpstreamProtocol::AsDownstream),
        // By ALPN, which plaintext does not have.
        Some(UpstreamProtocolOptions::AutoConfig(_)) | None => Ok(UpstreamProtocol::Http1),
    }
}

/// The service a cluster stands for: from our facts, or from a name of our form, or the name as it is.
fn service(cluster: &Cluster) -> Decoding<ServiceRef> {
    if let Some(facts) = Facts::of(cluster.metadata.as_ref()) {
        return Ok(ServiceRef {
            namespace: facts.text("namespace")?.into(),
            name: facts.text("service")?.into(),
            port: facts.port("port")?,
        });
    }
    let from_name = cluster.name.split_once('/').and_then(|(namespace, rest)| {
        let (name, port) = rest.rsplit_once(':')?;
        let port: u16 = port.parse().ok()?;
        (!namespace.is_empty() && !name.is_empty()).then(|| ServiceRef {
            namespace: namespace.into(),
            name: name.into(),
            port,
        })
    });
    Ok(from_name.unwrap_or_else(|| ServiceRef {
        namespace: "unknown".into(),
        name: cluster.name.as_str().into(),
        port: 0,
    }))
}

/// Consecutive failures eject; fields that are absent have the defaults the API documents.
fn outlier(detection: &OutlierDetection) -> Decoding<OutlierPolicy> {
    let number = |value: &Option<UInt32Value>, default| value.as_ref().map_or(default, |value| value.value);
    // The API switches the success rate on by default; whoever did not write it down does not count on it.
    unset(&[
        ("enforcing_success_rate", number(&detection.enforcing_success_rate, 0) != 0),
        ("enforcing_failure_percentage", number(&detection.enforcing_failure_percentage, 0) != 0),
        ("enforcing_consecutive_gateway_failure", number(&detection.enforcing_consecutive_gateway_failure, 0) != 0),
        ("split_external_local_origin_errors", detection.split_external_local_origin_errors),
        ("monitors", !detection.monitors.is_empty()),
        ("always_eject_one_host", is_true(detection.always_eject_one_host.as_ref())),
    ])?;
    let consecutive_failures = match number(&detection.enforcing_consecutive_5xx, 100) {
        0 => 0,
        100 => number(&detection.consecutive_5xx, 5),
        partly => return Err(Refusal::new("enforcing_consecutive_5xx", partly, "0 or 100")),
    };
    let max_ejected_percent = number(&detection.max_ejection_percent, 10);
    if max_ejected_percent > 100 {
        return Err(Refusal::new("max_ejection_percent", max_ejected_percent, "0 to 100"));
    }
    let base_ejection = duration(detection.base_ejection_time.as_ref(), "base_ejection_time")?;
    let base_ejection = base_ejection.unwrap_or(Duration::from_secs(30));
    let max_ejection = duration(detection.max_ejection_time.as_ref(), "max_ejection_time")?;
    let max_ejection = max_ejection.unwrap_or(Duration::from_mins(5)).max(base_ejection);
    Ok(OutlierPolicy { consecutive_failures, base_ejection, max_ejection, max_ejected_percent })
}
