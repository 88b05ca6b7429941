//! What is said of requests, as routes say it.

use std::time::Duration as Time;

use weft_proto::envoy::envoy::config::route::v3::RetryPolicy;
use weft_proto::envoy::envoy::config::route::v3::retry_policy::retry_host_predicate::ConfigType;
use weft_proto::envoy::envoy::config::route::v3::retry_policy::{RetryBackOff, RetryHostPredicate};
use weft_proto::envoy::google::protobuf::{Any, Duration, UInt32Value};
use weft_proto::names;

use crate::document::{Retries, RouteRetry, Wait};

/// What an HTTPRoute's retries are for beside its codes: it has to ask again when there was no answer (GEP-1731).
const WITHOUT_ANSWER: [&str; 3] = ["connect-failure", "refused-stream", "reset"];

/// What may be repeated where nobody asked for it: what no application can have seen.
const UNSEEN: [&str; 3] = ["connect-failure", "refused-stream", "reset-before-request"];

/// What a service says of tries; `None` leaves them to the proxies.
pub(super) fn retries(per_try: Option<Wait>, retries: Option<&Retries>) -> Option<RetryPolicy> {
    let default = Retries::default();
    let retries = match (retries, per_try) {
        (Some(retries), _) => retries,
        // A try that may be late is one of what the proxies repeat by themselves.
        (None, Some(_)) => &default,
        (None, None) => return None,
    };
    of_service(per_try.map(Wait::duration), retries)
}

/// The same, where the time of a try comes from somewhere else.
pub(super) fn of_service(per_try: Option<Time>, retries: &Retries) -> Option<RetryPolicy> {
    let on = retries.on.iter().map(|on| on.as_str()).collect();
    Some(policy(on, retries.attempts, per_try, &retries.statuses))
}

/// What a rule of an HTTPRoute says of them. A late try is not repeated unless the rule says so.
pub(super) fn of_rule(per_try: Option<Time>, retry: Option<&RouteRetry>) -> Option<RetryPolicy> {
    let Some(retry) = retry else {
        return per_try.map(|limit| policy(UNSEEN.to_vec(), 1, Some(limit), &[]));
    };
    let mut policy = policy(WITHOUT_ANSWER.to_vec(), retry.attempts, per_try, &retry.codes);
    let back_off = retry.backoff.map(|wait| wait.duration()).filter(|wait| !wait.is_zero());
    policy.retry_back_off =
        back_off.map(|base| RetryBackOff { base_interval: Some(duration(base)), max_interval: None });
    Some(policy)
}

fn policy(mut on: Vec<&str>, attempts: u32, per_try: Option<Time>, statuses: &[u16]) -> RetryPolicy {
    if !statuses.is_empty() {
        on.push("retriable-status-codes");
    }
    let previous = Any { type_url: names::PREVIOUS_HOSTS.to_owned(), value: Vec::new() };
    RetryPolicy {
        retry_on: on.join(","),
        num_retries: Some(UInt32Value { value: attempts }),
        per_try_timeout: per_try.map(duration),
        retriable_status_codes: statuses.iter().copied().map(u32::from).collect(),
        // Ours asks another endpoint by itself; others have to be told.
        retry_host_predicate: vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(ConfigType::TypedConfig(previous)),
        }],
        host_selection_retry_max_attempts: 3,
        ..RetryPolicy::default()
    }
}

pub(super) fn duration(duration: Time) -> Duration {
    Duration { seconds: duration.as_secs() as i64, nanos: duration.subsec_nanos() as i32 }
}
