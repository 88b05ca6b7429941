//! `HttpConnectionManager`: where requests find their routes, and that nothing else happens to them.

#![allow(deprecated, reason = "deprecated fields are read so that they can be refused by name")]

use weft_core::model::RouteSource;
use weft_core::names::RouteName;
use weft_proto::envoy::envoy::extensions::filters::http::router::v3::Router;
use weft_proto::envoy::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier, UpgradeConfig,
};
use weft_proto::envoy::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
use weft_proto::envoy::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter,
};
use weft_proto::names;

use super::field::{Decoding, Refusal, Within, is_true, is_type, lasts, over_ads, present, type_name, unpack, unset};
use super::route::route_table;

const UPSTREAM_CODEC: &str = "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec";

/// Reads a connection manager; an inline route table without a name is called `owner`.
pub(super) fn routes(manager: &HttpConnectionManager, owner: &str) -> Decoding<RouteSource> {
    if !matches!(CodecType::try_from(manager.codec_type), Ok(CodecType::Auto | CodecType::Http1)) {
        return Err(Refusal::new("codec_type", manager.codec_type, "AUTO or HTTP1"));
    }
    request_is_untouched(manager)?;
    http_filters(&manager.http_filters)?;
    match &manager.route_specifier {
        Some(RouteSpecifier::Rds(rds)) => {
            over_ads(rds.config_source.as_ref(), "config_source").within("rds")?;
            present(&rds.route_config_name, "route_config_name").within("rds")?;
            Ok(RouteSource::Named(RouteName::from(rds.route_config_name.as_str())))
        }
        Some(RouteSpecifier::RouteConfig(table)) => {
            let mut table = route_table(table).within("route_config")?;
            if table.name.as_str().is_empty() {
                table.name = RouteName::from(owner);
            }
            Ok(RouteSource::Inline(table))
        }
        Some(RouteSpecifier::ScopedRoutes(_)) => Err(Refusal::new("scoped_routes", "a value", "rds or route_config")),
        None => Err(Refusal::missing("rds", "rds or route_config")),
    }
}

/// Refuses what would change a request, who it is said to come from, or how its path is read.
fn request_is_untouched(manager: &HttpConnectionManager) -> Decoding<()> {
    let max_stream = manager.common_http_protocol_options.as_ref().and_then(|o| o.max_stream_duration.as_ref());
    let slashes = manager.path_with_escaped_slashes_action;
    unset(&[
        ("common_http_protocol_options.max_stream_duration", lasts(max_stream)),
        ("xff_num_trusted_hops", manager.xff_num_trusted_hops != 0),
        ("original_ip_detection_extensions", !manager.original_ip_detection_extensions.is_empty()),
        ("early_header_mutation_extensions", !manager.early_header_mutation_extensions.is_empty()),
        ("via", !manager.via.is_empty()),
        ("add_user_agent", is_true(manager.add_user_agent.as_ref())),
        ("scheme_header_transformation", manager.scheme_header_transformation.is_some()),
        (
            "forward_client_cert_details",
            manager.forward_client_cert_details != ForwardClientCertDetails::Sanitize as i32,
        ),
        ("forward_client_cert_matcher", manager.forward_client_cert_matcher.is_some()),
        ("upgrade_configs", !manager.upgrade_configs.iter().all(is_plain_websocket)),
        ("normalize_path", is_true(manager.normalize_path.as_ref())),
        ("merge_slashes", manager.merge_slashes),
        (
            "path_with_escaped_slashes_action",
            slashes != PathWithEscapedSlashesAction::ImplementationSpecificDefault as i32
                && slashes != PathWithEscapedSlashesAction::KeepUnchanged as i32,
        ),
        ("path_normalization_options", manager.path_normalization_options.is_some()),
        ("local_reply_config", manager.local_reply_config.is_some()),
        ("strip_matching_host_port", manager.strip_matching_host_port),
        ("strip_port_mode", manager.strip_port_mode.is_some()),
        ("strip_trailing_host_dot", manager.strip_trailing_host_dot),
        ("typed_header_validation_config", manager.typed_header_validation_config.is_some()),
        ("append_x_forwarded_port", manager.append_x_forwarded_port),
        ("forward_proto_config", manager.forward_proto_config.is_some()),
    ])
}

/// An upgrade every connection may make by itself, or one that is switched off.
fn is_plain_websocket(upgrade: &UpgradeConfig) -> bool {
    let is_off = upgrade.enabled.is_some_and(|enabled| !enabled.value);
    is_off || upgrade.upgrade_type.eq_ignore_ascii_case("websocket") && upgrade.filters.is_empty()
}

/// The router last, and before it only filters that say themselves that they may be ignored.
fn http_filters(filters: &[HttpFilter]) -> Decoding<()> {
    let supported = "the router alone, or filters with is_optional or disabled before it";
    let Some((last, others)) = filters.split_last() else {
        return Err(Refusal::missing("http_filters", supported));
    };
    for (index, filter) in others.iter().enumerate() {
        if !filter.is_optional && !filter.disabled {
            let refused = Refusal::new("filter", describe(filter), supported);
            return Err(refused).within_item("http_filters", index);
        }
    }
    let router = match &last.config_type {
        Some(ConfigType::TypedConfig(any)) if is_type(any, names::ROUTER) => unpack::<Router>(any),
        _ => Err(Refusal::new("filter", describe(last), supported)),
    };
    router.and_then(|router| upstream_filters(&router.upstream_http_filters)).within_item("http_filters", others.len())
}

/// Filters on the upstream side: the codec is the proxy itself, everything else must be ignorable.
pub(super) fn upstream_filters(filters: &[HttpFilter]) -> Decoding<()> {
    let ignorable = |filter: &HttpFilter| {
        let is_codec = matches!(&filter.config_type, Some(ConfigType::TypedConfig(any)) if type_name(&any.type_url) == UPSTREAM_CODEC);
        is_codec || filter.is_optional || filter.disabled
    };
    match filters.iter().find(|filter| !ignorable(filter)) {
        Some(filter) => Err(Refusal::new("upstream_http_filters", describe(filter), "the upstream codec alone")),
        None => Ok(()),
    }
}

fn describe(filter: &HttpFilter) -> String {
    match &filter.config_type {
        Some(ConfigType::TypedConfig(any)) => format!("`{}` ({})", filter.name, type_name(&any.type_url)),
        Some(ConfigType::ConfigDiscovery(_)) => format!("`{}` (config_discovery)", filter.name),
        None => format!("`{}` without configuration", filter.name),
    }
}
