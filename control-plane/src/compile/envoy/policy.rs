//! What a service says of its requests, as routes say it.

use weft_proto::envoy::envoy::config::route::v3::RetryPolicy;
use weft_proto::envoy::envoy::config::route::v3::retry_policy::RetryHostPredicate;
use weft_proto::envoy::envoy::config::route::v3::retry_policy::retry_host_predicate::ConfigType;
use weft_proto::envoy::google::protobuf::{Any, Duration, UInt32Value};
use weft_proto::names;

use crate::document::{Retries, Wait};

/// What is said of tries; `None` leaves them to the proxies.
pub(super) fn retries(per_try: Option<Wait>, retries: Option<&Retries>) -> Option<RetryPolicy> {
    let default = Retries::default();
    let retries = match (retries, per_try) {
        (Some(retries), _) => retries,
        // A try that may be late is one of what the proxies repeat by themselves.
        (None, Some(_)) => &default,
        (None, None) => return None,
    };
    let mut on: Vec<&str> = retries.on.iter().map(|on| on.as_str()).collect();
    if !retries.statuses.is_empty() {
        on.push("retriable-status-codes");
    }
    let previous = Any { type_url: names::PREVIOUS_HOSTS.to_owned(), value: Vec::new() };
    Some(RetryPolicy {
        retry_on: on.join(","),
        num_retries: Some(UInt32Value { value: retries.attempts }),
        per_try_timeout: per_try.map(|wait| duration(wait.duration())),
        retriable_status_codes: retries.statuses.iter().copied().map(u32::from).collect(),
        // Ours asks another endpoint by itself; others have to be told.
        retry_host_predicate: vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(ConfigType::TypedConfig(previous)),
        }],
        host_selection_retry_max_attempts: 3,
        ..RetryPolicy::default()
    })
}

pub(super) fn duration(duration: std::time::Duration) -> Duration {
    Duration { seconds: duration.as_secs() as i64, nanos: duration.subsec_nanos() as i32 }
}
