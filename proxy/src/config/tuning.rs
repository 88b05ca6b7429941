//! Settings of waits and limits, with the field's names.

use std::time::Duration;

use clap::Args;

use crate::http1::{MAX_FIELDS, MAX_HEAD_BYTES, MAX_TARGET_BYTES};
use crate::limits::{DEFAULT_BUFFERED_BYTES, DEFAULT_TARGET_BYTES, Limits, NEVER, Timeouts};
use crate::pool::IdleTimes;

/// Longest wait that can be set: more is a slip of the keyboard.
const LONGEST: Duration = Duration::from_hours(24 * 7);
/// Smallest head limit: what an ordinary request with a token needs.
const SMALLEST_HEAD: u32 = 1024;

/// What of the request path can be tuned. The defaults stand, with their reasons, in [`crate::limits`].
#[derive(Debug, Clone, Args)]
pub struct Tuning {
    /// Longest time a TLS handshake may take
    #[arg(long, env = "WEFT_HANDSHAKE_TIMEOUT", default_value = "5s", value_parser = wait, value_name = "DURATION")]
    pub handshake_timeout: Duration,
    /// Whether callers of the mesh may resume TLS sessions with this proxy: on or off
    #[arg(
        long,
        env = "WEFT_TLS_RESUMPTION",
        default_value = "on",
        action = clap::ArgAction::Set,
        value_parser = clap::builder::BoolishValueParser::new(),
        value_name = "on|off"
    )]
    pub tls_resumption: bool,
    /// Longest time from the first byte of a request's head to its last
    #[arg(long, env = "WEFT_REQUEST_HEADERS_TIMEOUT", default_value = "15s", value_parser = wait, value_name = "DURATION")]
    pub request_headers_timeout: Duration,
    /// Longest time a request may be under way with no byte moved either way; 0 for ever
    #[arg(long, env = "WEFT_STREAM_IDLE_TIMEOUT", default_value = "5m", value_parser = wait_or_never, value_name = "DURATION")]
    pub stream_idle_timeout: Duration,
    /// Longest time a client's connection may stay without a request; 0 for ever
    #[arg(long, env = "WEFT_IDLE_TIMEOUT", default_value = "1h", value_parser = wait_or_never, value_name = "DURATION")]
    pub idle_timeout: Duration,
    /// Longest time a TCP connection may carry nothing; 0 for ever
    #[arg(long, env = "WEFT_TCP_IDLE_TIMEOUT", default_value = "1h", value_parser = wait_or_never, value_name = "DURATION")]
    pub tcp_idle_timeout: Duration,
    /// Longest time the rest of a request is read after it was answered
    #[arg(long, env = "WEFT_DELAYED_CLOSE_TIMEOUT", default_value = "1s", value_parser = wait, value_name = "DURATION")]
    pub delayed_close_timeout: Duration,
    /// Longest time a connection waits for word of who has its destination, with --destinations used
    #[arg(long, env = "WEFT_DESTINATION_TIMEOUT", default_value = "3s", value_parser = wait, value_name = "DURATION")]
    pub destination_timeout: Duration,
    /// Longest time a connection to an endpoint is kept for further requests; shorter where the endpoint closes sooner
    #[arg(long, env = "WEFT_UPSTREAM_IDLE_TIMEOUT", default_value = "55s", value_parser = wait, value_name = "DURATION")]
    pub upstream_idle_timeout: Duration,
    /// Most connections of this proxy [default: half the descriptors it may have]
    #[arg(long, env = "WEFT_MAX_CONNECTIONS", value_parser = clap::value_parser!(u32).range(1..), value_name = "NUMBER")]
    pub max_connections: Option<u32>,
    /// Most bytes this proxy holds in buffers; above it new requests get 503
    #[arg(
        long,
        env = "WEFT_MAX_BUFFERED_BYTES",
        default_value_t = DEFAULT_BUFFERED_BYTES as u64,
        value_parser = clap::value_parser!(u64).range(1024 * 1024..),
        value_name = "BYTES"
    )]
    pub max_buffered_bytes: u64,
    /// Largest head of a request
    #[arg(
        long,
        env = "WEFT_MAX_HEAD_BYTES",
        default_value_t = MAX_HEAD_BYTES as u32,
        value_parser = clap::value_parser!(u32).range(i64::from(SMALLEST_HEAD)..=MAX_HEAD_BYTES as i64),
        value_name = "BYTES"
    )]
    pub max_head_bytes: u32,
    /// Most header fields of a request
    #[arg(
        long,
        env = "WEFT_MAX_FIELDS",
        default_value_t = MAX_FIELDS as u32,
        value_parser = clap::value_parser!(u32).range(8..=MAX_FIELDS as i64),
        value_name = "NUMBER"
    )]
    pub max_fields: u32,
    /// Longest target (path and query) of a request
    #[arg(
        long,
        env = "WEFT_MAX_TARGET_BYTES",
        default_value_t = DEFAULT_TARGET_BYTES as u32,
        value_parser = clap::value_parser!(u32).range(256..=MAX_TARGET_BYTES as i64),
        value_name = "BYTES"
    )]
    pub max_target_bytes: u32,
}

impl Tuning {
    pub fn timeouts(&self) -> Timeouts {
        Timeouts {
            handshake: self.handshake_timeout,
            head: self.request_headers_timeout,
            stream_idle: self.stream_idle_timeout,
            client_idle: self.idle_timeout,
            tcp_idle: self.tcp_idle_timeout,
            linger: self.delayed_close_timeout,
            destination: self.destination_timeout,
        }
    }

    /// The share of one of `workers` workers.
    pub fn limits(&self, workers: usize) -> Limits {
        Limits {
            head_bytes: self.max_head_bytes as usize,
            fields: self.max_fields as usize,
            target_bytes: self.max_target_bytes as usize,
            buffered_bytes: usize::try_from(self.max_buffered_bytes).unwrap_or(usize::MAX) / workers.max(1),
        }
    }

    pub fn idle_times(&self) -> IdleTimes {
        IdleTimes { longest: self.upstream_idle_timeout, ..IdleTimes::default() }
    }

    /// Connections one of `workers` workers takes, when the process may have so many for all.
    pub fn connections(&self, allowed: u64, workers: usize) -> usize {
        let most = self.max_connections.map_or(allowed, |limit| u64::from(limit).min(allowed));
        usize::try_from(most / workers.max(1) as u64).unwrap_or(usize::MAX).max(1)
    }
}

/// `15s`, `5m`, `1h`, `300ms`; a number alone is seconds.
fn parse(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    let milliseconds = match &text[digits.len()..] {
        "ms" => number,
        "" | "s" => number.checked_mul(1_000)?,
        "m" => number.checked_mul(60_000)?,
        "h" => number.checked_mul(3_600_000)?,
        _ => return None,
    };
    Some(Duration::from_millis(milliseconds)).filter(|wait| *wait <= LONGEST)
}

fn wait(text: &str) -> Result<Duration, String> {
    let wait = parse(text).filter(|wait| !wait.is_zero());
    wait.ok_or_else(|| "expected a duration such as 300ms, 15s, 5m or 1h, longer than 0 and up to 168h".to_owned())
}

fn wait_or_never(text: &str) -> Result<Duration, String> {
    let wait = parse(text).map(|wait| if wait.is_zero() { NEVER } else { wait });
    wait.ok_or_else(|| "expected a duration such as 300ms, 15s, 5m or 1h, up to 168h, or 0 for ever".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        tuning: Tuning,
    }

    fn tuned(arguments: &[&str]) -> Result<Tuning, clap::Error> {
        let all = std::iter::once("proxy").chain(arguments.iter().copied());
        Program::try_parse_from(all).map(|program| program.tuning)
    }

    #[test]
    fn the_defaults_are_those_of_the_request_path() {
        let tuning = tuned(&[]).expect("no argument is needed");
        assert_eq!(tuning.timeouts(), Timeouts::default());
        assert_eq!(tuning.limits(1), Limits::default());
        assert_eq!(tuning.idle_times(), IdleTimes::default());
    }

    #[test]
    fn waits_are_read_as_people_write_them() {
        for (text, expected) in [("300ms", Some(300)), ("15", Some(15_000)), ("5m", Some(300_000)), ("0", None)] {
            assert_eq!(wait(text).ok().map(|wait| wait.as_millis()), expected, "{text}");
        }
        for text in ["", "s", "-1s", "1d", "5 m", "1.5s", "169h", "99999999999999999999s"] {
            assert!(wait(text).is_err() && wait_or_never(text).is_err(), "{text}");
        }
        assert_eq!(wait_or_never("0"), Ok(NEVER));
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        let table = [
            ("--max-head-bytes", "65537", "65536"),
            ("--max-fields", "201", "200"),
            ("--max-connections", "0", "1"),
            ("--max-buffered-bytes", "1", "1048576"),
            ("--stream-idle-timeout", "soon", "5m"),
        ];
        for (flag, value, told) in table {
            let refusal = tuned(&[flag, value]).expect_err(flag).to_string();
            assert!(refusal.contains(told), "{refusal}");
        }
    }

    #[test]
    fn workers_share_what_the_process_may_have() {
        let tuning = tuned(&["--max-connections", "100", "--max-buffered-bytes", "8388608"]).expect("valid");
        assert_eq!(tuning.connections(1000, 4), 25);
        assert_eq!(tuning.connections(10, 4), 2);
        assert_eq!(tuning.connections(1, 4), 1);
        assert_eq!(tuning.limits(4).buffered_bytes, 2 << 20);
    }
}
