//! The filter that carries bytes as they are.

use weft_proto::envoy::envoy::config::listener::v3::Filter;
use weft_proto::envoy::envoy::config::listener::v3::filter::ConfigType;
use weft_proto::envoy::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use weft_proto::envoy::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
use weft_proto::names;

use super::any;

/// To a cluster, or to several by weight; signals call it `statistics`.
pub(super) fn filter_to(statistics: &str, cluster: ClusterSpecifier) -> Filter {
    let proxy =
        TcpProxy { stat_prefix: statistics.to_owned(), cluster_specifier: Some(cluster), ..TcpProxy::default() };
    Filter {
        name: "envoy.filters.network.tcp_proxy".to_owned(),
        config_type: Some(ConfigType::TypedConfig(any(names::TCP_PROXY, &proxy))),
    }
}
