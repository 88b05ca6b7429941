//! `HttpConnectionManager`: waits and limits of clients' connections, in place of the proxy's own settings.
//!
//! What the proxy has is followed, within what it can; what it has not is refused where it is switched on. Guards against
//! floods, frame sizes and tables of compression stay the proxy's own (`docs/xds.md` lists them).

#![allow(deprecated, reason = "deprecated fields are read so that they can be refused by name")]

use std::sync::Arc;
use std::time::Duration;

use weft_core::model::HttpOptions;
use weft_proto::envoy::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;
use weft_proto::envoy::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions, KeepaliveSettings,
};
use weft_proto::envoy::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use weft_proto::envoy::google::protobuf;

use super::field::{Decoding, Refusal, Within, duration, lasts, unset};
use crate::http1::{MAX_FIELDS, MAX_HEAD_BYTES};
use crate::limits::NEVER;

/// Streams of one connection that can be allowed: a head of each may be held.
const MOST_STREAMS: u32 = 10_000;
/// The least window the protocol lets a connection begin with, and the largest that is held for one peer.
const WINDOWS: std::ops::RangeInclusive<u32> = 65_535..=16 * 1024 * 1024;

/// Reads what a connection manager says of them; `None`: nothing.
pub(super) fn options(manager: &HttpConnectionManager) -> Decoding<Option<Arc<HttpOptions>>> {
    unset(&[
        ("request_timeout", lasts(manager.request_timeout.as_ref())),
        ("stream_flush_timeout", lasts(manager.stream_flush_timeout.as_ref())),
        ("http3_protocol_options", manager.http3_protocol_options.is_some()),
    ])?;
    let mut options = HttpOptions {
        head_timeout: wait(manager.request_headers_timeout.as_ref(), "request_headers_timeout")?,
        stream_idle: wait(manager.stream_idle_timeout.as_ref(), "stream_idle_timeout")?,
        // Zero is a wait here: closing at once.
        linger: duration(manager.delayed_close_timeout.as_ref(), "delayed_close_timeout")?,
        head_bytes: kilobytes(manager.max_request_headers_kb.as_ref())?,
        ..HttpOptions::default()
    };
    if let Some(common) = &manager.common_http_protocol_options {
        of_connections(common, &mut options).within("common_http_protocol_options")?;
    }
    if let Some(http1) = &manager.http_protocol_options {
        http1_is_plain(http1).within("http_protocol_options")?;
    }
    if let Some(http2) = &manager.http2_protocol_options {
        of_http2(http2, &mut options).within("http2_protocol_options")?;
    }
    Ok((options != HttpOptions::default()).then(|| Arc::new(options)))
}

fn of_connections(common: &HttpProtocolOptions, options: &mut HttpOptions) -> Decoding<()> {
    unset(&[
        (
            "max_connection_duration_jitter",
            common.max_connection_duration_jitter.is_some_and(|share| share.value > 0.0),
        ),
        (
            "headers_with_underscores_action",
            common.headers_with_underscores_action != HeadersWithUnderscoresAction::Allow as i32,
        ),
    ])?;
    options.idle = wait(common.idle_timeout.as_ref(), "idle_timeout")?;
    let age = duration(common.max_connection_duration.as_ref(), "max_connection_duration")?;
    options.connection_age = age.filter(|age| !age.is_zero());
    let requests = common.max_requests_per_connection.as_ref().map(|number| number.value);
    options.connection_requests = requests.filter(|number| *number > 0);
    options.fields =
        within(common.max_headers_count.as_ref(), "max_headers_count", &(1..=MAX_FIELDS as u32), "1 to 200")?;
    Ok(())
}

/// Refuses what would change a message.
fn http1_is_plain(http1: &Http1ProtocolOptions) -> Decoding<()> {
    unset(&[
        ("allow_absolute_url", http1.allow_absolute_url.is_some_and(|allowed| !allowed.value)),
        ("default_host_for_http_10", !http1.default_host_for_http_10.is_empty()),
        ("header_key_format", http1.header_key_format.is_some()),
        ("allow_chunked_length", http1.allow_chunked_length),
        ("ignore_http_11_upgrade", !http1.ignore_http_11_upgrade.is_empty()),
    ])
}

fn of_http2(http2: &Http2ProtocolOptions, options: &mut HttpOptions) -> Decoding<()> {
    unset(&[
        ("allow_metadata", http2.allow_metadata),
        ("custom_settings_parameters", !http2.custom_settings_parameters.is_empty()),
    ])?;
    let windows = "65535 to 16777216";
    let streams = http2.max_concurrent_streams.as_ref();
    options.streams = within(streams, "max_concurrent_streams", &(1..=MOST_STREAMS), "1 to 10000")?;
    let window = http2.initial_stream_window_size.as_ref();
    options.stream_window = within(window, "initial_stream_window_size", &WINDOWS, windows)?;
    let window = http2.initial_connection_window_size.as_ref();
    options.connection_window = within(window, "initial_connection_window_size", &WINDOWS, windows)?;
    options.keepalive = match &http2.connection_keepalive {
        Some(settings) => keepalive(settings).within("connection_keepalive")?,
        None => None,
    };
    Ok(())
}

fn keepalive(settings: &KeepaliveSettings) -> Decoding<Option<(Duration, Duration)>> {
    unset(&[("connection_idle_interval", lasts(settings.connection_idle_interval.as_ref()))])?;
    let Some(after) = duration(settings.interval.as_ref(), "interval")?.filter(|after| !after.is_zero()) else {
        return Ok(None);
    };
    let answer = duration(settings.timeout.as_ref(), "timeout")?.filter(|answer| !answer.is_zero());
    let answer = answer.ok_or_else(|| Refusal::missing("timeout", "more than zero"))?;
    Ok(Some((after, answer)))
}

/// A wait, where zero means none.
fn wait(value: Option<&protobuf::Duration>, field: &str) -> Decoding<Option<Duration>> {
    // A sum with a longer one could not be told from never, and might overflow.
    let never = |wait: Duration| if wait.is_zero() { NEVER } else { wait.min(NEVER) };
    Ok(duration(value, field)?.map(never))
}

fn kilobytes(value: Option<&protobuf::UInt32Value>) -> Decoding<Option<u32>> {
    let most = (MAX_HEAD_BYTES / 1024) as u32;
    Ok(within(value, "max_request_headers_kb", &(1..=most), "1 to 64")?.map(|kilobytes| kilobytes * 1024))
}

fn within(
    value: Option<&protobuf::UInt32Value>,
    field: &str,
    range: &std::ops::RangeInclusive<u32>,
    supported: &'static str,
) -> Decoding<Option<u32>> {
    match value {
        Some(number) if !range.contains(&number.value) => Err(Refusal::new(field, number.value, supported)),
        number => Ok(number.map(|number| number.value)),
    }
}
