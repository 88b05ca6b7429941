//! Retry policies.

use weft_core::retry::{BackOff, RetryPolicy};
use weft_proto::envoy::envoy::config::core::v3::TypedExtensionConfig;
use weft_proto::envoy::envoy::config::route::v3 as message;
use weft_proto::envoy::envoy::config::route::v3::HeaderMatcher;
use weft_proto::envoy::envoy::config::route::v3::retry_policy::retry_host_predicate::ConfigType;
use weft_proto::envoy::envoy::config::route::v3::retry_policy::{
    RateLimitedRetryBackOff, RetryBackOff, RetryHostPredicate, RetryPriority,
};
use weft_proto::envoy::envoy::config::route::v3::route::Action;

use super::*;

fn base() -> message::RetryPolicy {
    message::RetryPolicy { retry_on: "5xx".to_owned(), ..Default::default() }
}

fn table(of_route: Option<message::RetryPolicy>, of_host: Option<message::RetryPolicy>) -> RouteConfiguration {
    let mut table = routes("r", "c");
    table.virtual_hosts[0].retry_policy = of_host;
    match &mut table.virtual_hosts[0].routes[0].action {
        Some(Action::Route(action)) => action.retry_policy = of_route,
        _ => unreachable!("the fixture forwards"),
    }
    table
}

fn read(policy: message::RetryPolicy) -> RetryPolicy {
    let read = decode::route(&table(Some(policy), None).encode_to_vec()).unwrap();
    read.virtual_hosts[0].routes[0].retry.as_deref().unwrap().clone()
}

fn milliseconds(milliseconds: i32) -> Option<weft_proto::envoy::google::protobuf::Duration> {
    Some(weft_proto::envoy::google::protobuf::Duration { seconds: 0, nanos: milliseconds * 1_000_000 })
}

fn previous_hosts() -> RetryHostPredicate {
    RetryHostPredicate {
        name: "previous".to_owned(),
        config_type: Some(ConfigType::TypedConfig(any_type(
            "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
        ))),
    }
}

#[test]
fn a_policy_is_read_with_the_defaults_of_the_field() {
    let policy = read(base());
    assert!(policy.on.server_error && !policy.on.reset);
    assert_eq!((policy.retries, policy.per_try_timeout), (1, None));
    assert_eq!(policy.back_off, BackOff { base: Duration::from_millis(25), longest: Duration::from_millis(250) });
}

#[test]
fn what_other_control_planes_send_by_default_is_understood() {
    let policy = read(message::RetryPolicy {
        retry_on: "connect-failure, refused-stream,unavailable,cancelled,retriable-status-codes".to_owned(),
        num_retries: Some(UInt32Value { value: 2 }),
        per_try_timeout: milliseconds(300),
        retry_host_predicate: vec![previous_hosts()],
        host_selection_retry_max_attempts: 5,
        retriable_status_codes: vec![503],
        retry_back_off: Some(RetryBackOff { base_interval: milliseconds(10), max_interval: None }),
        ..Default::default()
    });
    assert!(policy.on.connect_failure && policy.on.refused && !policy.on.server_error);
    assert_eq!((policy.on.grpc, &policy.on.statuses[..]), (1 << 14 | 1 << 1, &[503][..]));
    assert_eq!((policy.retries, policy.per_try_timeout), (2, Some(Duration::from_millis(300))));
    assert_eq!(policy.back_off, BackOff { base: Duration::from_millis(10), longest: Duration::from_millis(100) });
}

#[test]
fn statuses_count_only_where_the_conditions_say_so_and_zero_is_no_limit() {
    let policy = read(message::RetryPolicy {
        retriable_status_codes: vec![503],
        per_try_timeout: seconds(0),
        num_retries: Some(UInt32Value { value: 0 }),
        ..base()
    });
    assert!(policy.on.statuses.is_empty());
    assert_eq!((policy.retries, policy.per_try_timeout), (0, None));
}

#[test]
fn a_routes_policy_is_its_own_and_else_its_hosts() {
    let of_host = message::RetryPolicy { num_retries: Some(UInt32Value { value: 7 }), ..base() };
    for (of_route, expected) in [(Some(base()), 1), (None, 7)] {
        let read = decode::route(&table(of_route, Some(of_host.clone())).encode_to_vec()).unwrap();
        assert_eq!(read.virtual_hosts[0].routes[0].retry.as_ref().unwrap().retries, expected);
    }
}

#[test]
fn what_a_policy_may_not_say_is_refused_by_name() {
    type Change = fn(&mut message::RetryPolicy);
    let cases: [(&str, &str, Change); 16] = [
        ("retry_on", "`http3-post-connect-failure`", |p| p.retry_on = "5xx,http3-post-connect-failure".to_owned()),
        ("retry_on", "`retriable-headers`", |p| p.retry_on = "retriable-headers".to_owned()),
        ("num_retries", "11", |p| p.num_retries = Some(UInt32Value { value: 11 })),
        ("per_try_timeout", "-1 s", |p| p.per_try_timeout = seconds(-1)),
        ("per_try_idle_timeout", "", |p| p.per_try_idle_timeout = seconds(1)),
        ("retry_priority", "", |p| p.retry_priority = Some(RetryPriority::default())),
        ("retry_host_predicate[1].typed_config", "omit", |p| {
            p.retry_host_predicate =
                vec![previous_hosts(), RetryHostPredicate { name: "omit".to_owned(), ..Default::default() }];
        }),
        ("retry_options_predicates", "", |p| p.retry_options_predicates.push(TypedExtensionConfig::default())),
        ("retriable_status_codes[1].value", "700", |p| {
            p.retry_on = "retriable-status-codes".to_owned();
            p.retriable_status_codes = vec![503, 700];
        }),
        ("retry_back_off.base_interval", "nothing", |p| p.retry_back_off = Some(RetryBackOff::default())),
        ("retry_back_off.base_interval", "nothing", |p| {
            p.retry_back_off = Some(RetryBackOff { base_interval: seconds(0), max_interval: None });
        }),
        ("retry_back_off.max_interval", "1s", |p| {
            p.retry_back_off = Some(RetryBackOff { base_interval: seconds(2), max_interval: seconds(1) });
        }),
        ("rate_limited_retry_back_off", "", |p| {
            p.rate_limited_retry_back_off = Some(RateLimitedRetryBackOff::default());
        }),
        ("retriable_headers", "", |p| p.retriable_headers.push(HeaderMatcher::default())),
        ("retriable_request_headers", "", |p| p.retriable_request_headers.push(HeaderMatcher::default())),
        ("refresh_cluster_on_retry", "", |p| p.refresh_cluster_on_retry = true),
    ];
    for (field, found, change) in cases {
        let mut policy = base();
        change(&mut policy);
        let error = decode::route(&table(Some(policy.clone()), None).encode_to_vec()).unwrap_err();
        assert_eq!(error.field, format!("virtual_hosts[0].routes[0].route.retry_policy.{field}"));
        assert!(error.found.contains(found), "{error}");
        let error = decode::route(&table(None, Some(policy)).encode_to_vec()).unwrap_err();
        assert_eq!(error.field, format!("virtual_hosts[0].retry_policy.{field}"));
    }
}
