//! What a connection manager says of its clients' connections.

use weft_core::model::HttpOptions;
use weft_proto::envoy::envoy::config::core::v3::http1_protocol_options::HeaderKeyFormat;
use weft_proto::envoy::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, Http3ProtocolOptions, HttpProtocolOptions, KeepaliveSettings,
};
use weft_proto::envoy::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;

use super::*;
use crate::limits::NEVER;

fn base() -> HttpConnectionManager {
    manager(rds("r"))
}

fn read(manager: &HttpConnectionManager) -> Option<HttpOptions> {
    let message = listener("outbound/r", TrafficDirection::Outbound, vec![chain_of(manager)]);
    decode::listener(&message.encode_to_vec()).unwrap().http.as_deref().cloned()
}

fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

#[test]
fn a_manager_that_says_nothing_leaves_all_to_the_proxy() {
    assert_eq!(read(&base()), None);
}

#[test]
fn waits_and_limits_are_read() {
    let manager = HttpConnectionManager {
        request_headers_timeout: seconds(3),
        stream_idle_timeout: seconds(4),
        delayed_close_timeout: seconds(5),
        max_request_headers_kb: number(8),
        common_http_protocol_options: Some(HttpProtocolOptions {
            idle_timeout: seconds(6),
            max_connection_duration: seconds(7),
            max_requests_per_connection: number(8),
            max_headers_count: number(9),
            ..Default::default()
        }),
        http2_protocol_options: Some(Http2ProtocolOptions {
            max_concurrent_streams: number(10),
            initial_stream_window_size: number(70_000),
            initial_connection_window_size: number(80_000),
            connection_keepalive: Some(KeepaliveSettings {
                interval: seconds(11),
                timeout: seconds(12),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..base()
    };
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let expected = HttpOptions {
        head_timeout: seconds(3),
        stream_idle: seconds(4),
        linger: seconds(5),
        head_bytes: Some(8192),
        idle: seconds(6),
        connection_age: seconds(7),
        connection_requests: Some(8),
        fields: Some(9),
        streams: Some(10),
        stream_window: Some(70_000),
        connection_window: Some(80_000),
        keepalive: Some((Duration::from_secs(11), Duration::from_secs(12))),
    };
    assert_eq!(read(&manager), Some(expected));
}

#[test]
fn zero_switches_waits_off_and_asks_for_no_limit() {
    let manager = HttpConnectionManager {
        request_headers_timeout: seconds(0),
        stream_idle_timeout: seconds(0),
        request_timeout: seconds(0),
        common_http_protocol_options: Some(HttpProtocolOptions {
            idle_timeout: seconds(0),
            max_connection_duration: seconds(0),
            max_requests_per_connection: number(0),
            ..Default::default()
        }),
        ..base()
    };
    let never = Some(NEVER);
    let expected = HttpOptions { head_timeout: never, stream_idle: never, idle: never, ..HttpOptions::default() };
    assert_eq!(read(&manager), Some(expected));
}

#[test]
fn guards_of_another_proxy_are_passed_over() {
    let manager = HttpConnectionManager {
        drain_timeout: seconds(5),
        http2_protocol_options: Some(Http2ProtocolOptions {
            hpack_table_size: number(8192),
            max_outbound_frames: number(1000),
            allow_connect: true,
            ..Default::default()
        }),
        ..base()
    };
    assert_eq!(read(&manager), None);
}

#[test]
fn what_cannot_be_followed_is_refused_by_name() {
    fn common(m: &mut HttpConnectionManager) -> &mut HttpProtocolOptions {
        m.common_http_protocol_options.get_or_insert_default()
    }
    fn http1(m: &mut HttpConnectionManager) -> &mut Http1ProtocolOptions {
        m.http_protocol_options.get_or_insert_default()
    }
    fn http2(m: &mut HttpConnectionManager) -> &mut Http2ProtocolOptions {
        m.http2_protocol_options.get_or_insert_default()
    }
    type Change = fn(&mut HttpConnectionManager);
    let cases: [(&str, &str, Change); 19] = [
        ("request_timeout", "", |m| m.request_timeout = seconds(1)),
        ("stream_flush_timeout", "", |m| m.stream_flush_timeout = seconds(1)),
        ("request_headers_timeout", "-1 s", |m| m.request_headers_timeout = seconds(-1)),
        ("max_request_headers_kb", "65", |m| m.max_request_headers_kb = number(65)),
        ("max_request_headers_kb", "0", |m| m.max_request_headers_kb = number(0)),
        ("http3_protocol_options", "", |m| m.http3_protocol_options = Some(Http3ProtocolOptions::default())),
        ("common_http_protocol_options.max_headers_count", "201", |m| common(m).max_headers_count = number(201)),
        ("common_http_protocol_options.max_stream_duration", "", |m| common(m).max_stream_duration = seconds(1)),
        ("common_http_protocol_options.headers_with_underscores_action", "", |m| {
            common(m).headers_with_underscores_action = 2;
        }),
        ("http_protocol_options.header_key_format", "", |m| {
            http1(m).header_key_format = Some(HeaderKeyFormat::default());
        }),
        ("http_protocol_options.allow_absolute_url", "", |m| {
            http1(m).allow_absolute_url = Some(BoolValue { value: false });
        }),
        ("http_protocol_options.default_host_for_http_10", "", |m| {
            http1(m).default_host_for_http_10 = "a".to_owned();
        }),
        ("http_protocol_options.allow_chunked_length", "", |m| http1(m).allow_chunked_length = true),
        ("http2_protocol_options.max_concurrent_streams", "0", |m| http2(m).max_concurrent_streams = number(0)),
        ("http2_protocol_options.max_concurrent_streams", "10001", |m| {
            http2(m).max_concurrent_streams = number(10_001);
        }),
        ("http2_protocol_options.initial_stream_window_size", "65534", |m| {
            http2(m).initial_stream_window_size = number(65_534);
        }),
        ("http2_protocol_options.initial_connection_window_size", "16777217", |m| {
            http2(m).initial_connection_window_size = number(16_777_217);
        }),
        ("http2_protocol_options.allow_metadata", "", |m| http2(m).allow_metadata = true),
        ("http2_protocol_options.connection_keepalive.timeout", "nothing", |m| {
            http2(m).connection_keepalive = Some(KeepaliveSettings { interval: seconds(1), ..Default::default() });
        }),
    ];
    for (field, found, change) in cases {
        let mut manager = base();
        change(&mut manager);
        let message = listener("outbound/r", TrafficDirection::Outbound, vec![chain_of(&manager)]);
        let error = decode::listener(&message.encode_to_vec()).unwrap_err();
        assert!(error.field.ends_with(field), "{error}");
        assert!(error.found.contains(found), "{error}");
    }
}
