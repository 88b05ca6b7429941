//! Filter chains that a TLS connection is sent to by the name it asks for.

use weft_proto::envoy::envoy::config::listener::v3::listener_filter::ConfigType;
use weft_proto::envoy::envoy::config::listener::v3::{FilterChain, FilterChainMatch, ListenerFilter};
use weft_proto::envoy::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight,
};
use weft_proto::envoy::google::protobuf::Any;
use weft_proto::names;

use super::tcp;

/// Connections for some names and the clusters that share them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::compile) struct NamedChain {
    /// Empty: whatever the others leave.
    pub(in crate::compile) names: Vec<String>,
    /// At least one, with a weight of at least 1.
    pub(in crate::compile) clusters: Vec<(String, u32)>,
}

pub(super) fn chains(by_name: &[NamedChain]) -> Vec<FilterChain> {
    by_name.iter().map(chain).collect()
}

fn chain(by_name: &NamedChain) -> FilterChain {
    let weight = |(name, weight): &(String, u32)| ClusterWeight {
        name: name.clone(),
        weight: *weight,
        ..ClusterWeight::default()
    };
    let (statistics, cluster) = match by_name.clusters.as_slice() {
        [(only, _)] => (only.as_str(), ClusterSpecifier::Cluster(only.clone())),
        several => {
            let clusters = several.iter().map(weight).collect();
            let first = several.first().map_or("", |(name, _)| name);
            (first, ClusterSpecifier::WeightedClusters(WeightedCluster { clusters }))
        }
    };
    let server_names = by_name.names.clone();
    FilterChain {
        filter_chain_match: (!server_names.is_empty())
            .then(|| FilterChainMatch { server_names, ..FilterChainMatch::default() }),
        filters: vec![tcp::filter_to(statistics, cluster)],
        ..FilterChain::default()
    }
}

/// What reads the name; our own proxies do without being told.
pub(super) fn tls_inspector() -> ListenerFilter {
    let config = Any { type_url: names::TLS_INSPECTOR.to_owned(), value: Vec::new() };
    ListenerFilter {
        name: "envoy.filters.listener.tls_inspector".to_owned(),
        config_type: Some(ConfigType::TypedConfig(config)),
        ..ListenerFilter::default()
    }
}
