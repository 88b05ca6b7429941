//! `RetryPolicy`: when a request is tried again, and how long one try may take.
//!
//! Other hosts than those tried are always preferred, so that `host_selection_retry_max_attempts` says nothing new and is
//! passed over.

use std::sync::Arc;
use std::time::Duration;

use weft_core::retry::{BackOff, Conditions, MOST_RETRIES, RetryPolicy};
use weft_proto::envoy::envoy::config::route::v3 as message;
use weft_proto::envoy::envoy::config::route::v3::retry_policy::retry_host_predicate::ConfigType;
use weft_proto::envoy::envoy::config::route::v3::retry_policy::{RetryBackOff, RetryHostPredicate};

use super::field::{Decoding, Refusal, Within, duration, lasts, type_name, unset};

const SUPPORTED: &str = "connect-failure, refused-stream, reset, reset-before-request, 5xx, gateway-error, retriable-4xx, \
     retriable-status-codes, cancelled, deadline-exceeded, internal, resource-exhausted and unavailable";

/// What the proxy does by itself.
const PREVIOUS_HOSTS: &str = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";

/// Reads a retry policy.
pub(super) fn policy(policy: &message::RetryPolicy) -> Decoding<Arc<RetryPolicy>> {
    unset(&[
        ("per_try_idle_timeout", lasts(policy.per_try_idle_timeout.as_ref())),
        ("retry_priority", policy.retry_priority.is_some()),
        ("retry_options_predicates", !policy.retry_options_predicates.is_empty()),
        ("rate_limited_retry_back_off", policy.rate_limited_retry_back_off.is_some()),
        ("retriable_headers", !policy.retriable_headers.is_empty()),
        ("retriable_request_headers", !policy.retriable_request_headers.is_empty()),
        ("refresh_cluster_on_retry", policy.refresh_cluster_on_retry),
    ])?;
    for (index, predicate) in policy.retry_host_predicate.iter().enumerate() {
        host_predicate(predicate).within_item("retry_host_predicate", index)?;
    }
    let retries = policy.num_retries.as_ref().map_or(1, |number| number.value);
    if retries > MOST_RETRIES {
        return Err(Refusal::new("num_retries", retries, "0 to 10: each multiplies the load of a service that fails"));
    }
    let per_try_timeout = duration(policy.per_try_timeout.as_ref(), "per_try_timeout")?;
    Ok(Arc::new(RetryPolicy {
        on: conditions(policy)?,
        retries,
        per_try_timeout: per_try_timeout.filter(|limit| !limit.is_zero()),
        back_off: policy.retry_back_off.as_ref().map_or(Ok(BackOff::default()), back_off).within("retry_back_off")?,
    }))
}

fn conditions(policy: &message::RetryPolicy) -> Decoding<Conditions> {
    let mut on = Conditions::default();
    for word in policy.retry_on.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match word {
            "connect-failure" => on.connect_failure = true,
            "refused-stream" => on.refused = true,
            "reset" => on.reset = true,
            "reset-before-request" => on.reset_before_request = true,
            "5xx" => on.server_error = true,
            "gateway-error" => on.gateway_error = true,
            "retriable-4xx" => on.conflict = true,
            "retriable-status-codes" => on.statuses = statuses(&policy.retriable_status_codes)?,
            "cancelled" => on.grpc |= 1 << 1,
            "deadline-exceeded" => on.grpc |= 1 << 4,
            "resource-exhausted" => on.grpc |= 1 << 8,
            "internal" => on.grpc |= 1 << 13,
            "unavailable" => on.grpc |= 1 << 14,
            other => return Err(Refusal::new("retry_on", format_args!("`{other}`"), SUPPORTED)),
        }
    }
    Ok(on)
}

fn statuses(codes: &[u32]) -> Decoding<Vec<u16>> {
    let status = |(index, code): (usize, &u32)| {
        let known = u16::try_from(*code).ok().filter(|code| (200..600).contains(code));
        let refused = || Refusal::new("value", code, "a status of a final answer, 200 to 599");
        known.ok_or_else(refused).within_item("retriable_status_codes", index)
    };
    codes.iter().enumerate().map(status).collect()
}

fn host_predicate(predicate: &RetryHostPredicate) -> Decoding<()> {
    let found = match &predicate.config_type {
        Some(ConfigType::TypedConfig(any)) => type_name(&any.type_url),
        None => predicate.name.as_str(),
    };
    match found {
        PREVIOUS_HOSTS | "envoy.retry_host_predicates.previous_hosts" => Ok(()),
        other => Err(Refusal::new("typed_config", other, "previous_hosts")),
    }
}

fn back_off(back_off: &RetryBackOff) -> Decoding<BackOff> {
    let base = duration(back_off.base_interval.as_ref(), "base_interval")?.filter(|base| !base.is_zero());
    let base = base.ok_or_else(|| Refusal::missing("base_interval", "more than zero"))?;
    let longest = duration(back_off.max_interval.as_ref(), "max_interval")?;
    let longest: Duration = longest.unwrap_or(base.saturating_mul(10));
    if longest < base {
        return Err(Refusal::new("max_interval", format_args!("{longest:?}"), "base_interval or more"));
    }
    Ok(BackOff { base, longest })
}
