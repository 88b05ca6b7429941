//! Retries and the time of one try, as a route says them.

use std::sync::Arc;
use std::time::Duration;

use weft_core::model::InboundTls;
use weft_core::retry::{BackOff, Conditions, RetryPolicy};

use super::*;
use crate::state::Change;
use crate::testing::{Pair, inbound};

const UNAVAILABLE: &str = "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n";

/// One further try without a wait worth telling, for whatever `change` says.
pub(super) fn policy(change: impl FnOnce(&mut RetryPolicy)) -> Arc<RetryPolicy> {
    let moment = Duration::from_micros(10);
    let mut policy = RetryPolicy {
        on: Conditions::default(),
        retries: 1,
        per_try_timeout: None,
        back_off: BackOff { base: moment, longest: moment },
    };
    change(&mut policy);
    Arc::new(policy)
}

fn by(policy: Arc<RetryPolicy>, endpoints: &[SocketAddr]) -> RunningWorker {
    let mut change = outbound(Protocol::Http, endpoints, None);
    change.routes[0].virtual_hosts[0].routes[0].retry = Some(policy);
    change.clusters[0].outlier.consecutive_failures = 1;
    change.clusters[0].outlier.max_ejected_percent = 50;
    RunningWorker::start(Direction::Outbound, destination(), change)
}

fn ejected(worker: &RunningWorker) -> usize {
    worker.store.load().clusters().next().expect("a cluster").endpoints().ejected()
}

/// The connection to whichever is asked, and who is not.
fn asked<'a>(first: &'a Application, second: &'a Application) -> (TcpStream, &'a Application) {
    let limit = Duration::from_millis(5);
    for _ in 0..2000 {
        if let Some(stream) = first.accept_within(limit) {
            return (stream, second);
        }
        if let Some(stream) = second.accept_within(limit) {
            return (stream, first);
        }
    }
    panic!("nobody was asked");
}

#[test]
fn a_try_that_is_too_late_is_made_anew_elsewhere_and_counts_against_its_endpoint() {
    let (first, second) = (Application::start(), Application::start());
    let late = policy(|policy| {
        policy.on.reset = true;
        policy.per_try_timeout = Some(Duration::from_millis(500));
    });
    let worker = by(late, &[first.address, second.address]);
    let mut client = worker.connect();
    send(&mut client, GET);
    let (mut silent, other) = asked(&first, &second);
    expect(&mut silent, GET_SENT);
    let mut upstream = other.accept();
    expect(&mut upstream, GET_SENT);
    send(&mut upstream, OK);
    expect(&mut client, OK);
    expect_end(&mut silent);
    assert_eq!(ejected(&worker), 1);
}

#[test]
fn between_two_proxies_a_late_try_is_taken_back_from_the_application() {
    let application = Application::start();
    let pair = Pair::start(inbound(Protocol::Http, InboundTls::Strict, application.address));
    let mut routes = outbound(Protocol::Http, &[], None).routes;
    routes[0].virtual_hosts[0].routes[0].retry = Some(policy(|policy| {
        policy.on.reset = true;
        policy.per_try_timeout = Some(Duration::from_millis(500));
    }));
    pair.outer.store.apply(Change { routes, ..Change::default() });
    let mut client = pair.outer.connect();
    send(&mut client, GET);
    let mut late = application.accept();
    read_message(&mut BufReader::new(&late), true);
    // The one endpoint there is.
    let mut upstream = application.accept();
    read_message(&mut BufReader::new(&upstream), true);
    send(&mut upstream, OK);
    expect(&mut client, OK);
    expect_end(&mut late);
}

#[test]
fn a_late_try_that_may_have_acted_is_answered_with_its_own_code() {
    let (first, second) = (Application::start(), Application::start());
    let late = policy(|policy| {
        policy.on.reset = true;
        policy.on.server_error = true;
        policy.per_try_timeout = Some(Duration::from_millis(100));
    });
    let worker = by(late, &[first.address, second.address]);
    let mut client = worker.connect();
    send(&mut client, POST);
    let (mut silent, other) = asked(&first, &second);
    expect(&mut silent, POST_SENT);
    expect_failure(&mut client, 504, "per-try-timeout");
    expect_end(&mut silent);
    assert!(other.accept_within(Duration::ZERO).is_none(), "an order was given twice");
}

#[test]
fn how_long_a_client_takes_to_send_is_no_fault_of_the_endpoint() {
    let application = Application::start();
    let late = policy(|policy| policy.per_try_timeout = Some(Duration::from_millis(200)));
    let worker = by(late, &[application.address]);
    let mut client = worker.connect();
    send(&mut client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n");
    let mut upstream = application.accept();
    expect(&mut upstream, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nx-request-id: *ID*\r\n\r\n");
    client.set_read_timeout(Some(Duration::from_millis(70))).expect("a timeout");
    for _ in 0..6 {
        // Paces itself by what does not come.
        assert!(client.read(&mut [0; 1]).is_err(), "the request was given up");
        send(&mut client, "x");
        expect(&mut upstream, "x");
    }
    client.set_read_timeout(Some(crate::testing::PATIENCE)).expect("a timeout");
    // From here on it is the endpoint's.
    expect_failure(&mut client, 504, "per-try-timeout");
}

#[test]
fn an_answer_a_policy_wants_none_of_is_replaced_by_another_endpoints() {
    let class: fn(&mut RetryPolicy) = |policy| policy.on.server_error = true;
    let gateway: fn(&mut RetryPolicy) = |policy| policy.on.gateway_error = true;
    let named: fn(&mut RetryPolicy) = |policy| policy.on.statuses = vec![503];
    // A class of answers for what can be repeated; what is named, whatever the method.
    let table = [
        (class, GET, GET_SENT, true),
        (gateway, GET, GET_SENT, true),
        (class, POST, POST_SENT, false),
        (named, POST, POST_SENT, true),
        (named, GET, GET_SENT, true),
    ];
    for (index, (on, request, forwarded, repeats)) in table.into_iter().enumerate() {
        let (first, second) = (Application::start(), Application::start());
        let worker = by(policy(on), &[first.address, second.address]);
        let mut client = worker.connect();
        send(&mut client, request);
        let (mut failing, other) = asked(&first, &second);
        expect(&mut failing, forwarded);
        send(&mut failing, UNAVAILABLE);
        if repeats {
            let mut upstream = other.accept();
            expect(&mut upstream, forwarded);
            send(&mut upstream, OK);
            expect(&mut client, OK);
        } else {
            expect(&mut client, UNAVAILABLE);
            assert!(other.accept_within(Duration::ZERO).is_none(), "row {index}");
        }
        // A failure is one, whoever hears of it.
        worker.wait_until("an endpoint is out", |worker| {
            worker.store.load().clusters().next().is_some_and(|cluster| cluster.endpoints().ejected() == 1)
        });
    }
}

#[test]
fn a_body_that_is_not_held_is_sent_once() {
    let (first, second) = (Application::start(), Application::start());
    let worker = by(policy(|policy| policy.on.statuses = vec![503]), &[first.address, second.address]);
    let mut client = worker.connect();
    let body = "x".repeat(100_000);
    send(&mut client, &format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    let (mut failing, other) = asked(&first, &second);
    assert_eq!(read_message(&mut BufReader::new(&failing), false).1.len(), body.len());
    send(&mut failing, UNAVAILABLE);
    expect(&mut client, UNAVAILABLE);
    assert!(other.accept_within(Duration::ZERO).is_none());
}

#[test]
fn as_many_tries_as_the_policy_says_and_the_last_answer_is_given() {
    let application = Application::start();
    let worker = by(
        policy(|policy| {
            policy.on.server_error = true;
            policy.retries = 3;
        }),
        &[application.address],
    );
    let mut client = worker.connect();
    send(&mut client, GET);
    for _ in 0..4 {
        let mut upstream = application.accept();
        expect(&mut upstream, GET_SENT);
        send(&mut upstream, UNAVAILABLE);
    }
    expect(&mut client, UNAVAILABLE);
    assert!(application.accept_within(Duration::ZERO).is_none());
}

#[test]
fn a_policy_without_conditions_repeats_nothing() {
    let (down, up) = (crate::testing::nobody(), Application::start());
    let worker = by(policy(|_| {}), &[down, up.address]);
    let refused = (0..200).any(|_| {
        let mut client = worker.connect();
        send(&mut client, &GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
        if let Some(mut upstream) = up.accept_within(Duration::from_millis(50)) {
            send(&mut upstream, OK_CLOSE);
        }
        let (head, _) = read_message(&mut BufReader::new(&client), false);
        head.starts_with("HTTP/1.1 503 ") && head.contains("weft-error: connect\r\n")
    });
    assert!(refused, "what was not reached was tried elsewhere");
}

#[test]
fn a_client_that_hangs_up_between_tries_takes_its_request_back() {
    let application = Application::start();
    let patient = policy(|policy| {
        policy.on.server_error = true;
        policy.back_off = BackOff { base: Duration::from_hours(24), longest: Duration::from_hours(24) };
    });
    let worker = by(patient, &[application.address]);
    let mut client = worker.connect();
    send(&mut client, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET_SENT);
    send(&mut upstream, UNAVAILABLE);
    expect_end(&mut upstream);
    drop(client);
    worker.wait_until("no connection is open", |worker| worker.drain.open(Direction::Outbound) == 0);
}

#[test]
fn waits_between_tries_end_with_the_time_of_the_route() {
    let application = Application::start();
    let patient = policy(|policy| {
        policy.on.server_error = true;
        policy.back_off = BackOff { base: Duration::from_hours(24), longest: Duration::from_hours(24) };
    });
    let mut change = outbound(Protocol::Http, &[application.address], None);
    let rule = &mut change.routes[0].virtual_hosts[0].routes[0];
    (rule.retry, rule.timeout) = (Some(patient), Some(Duration::from_millis(200)));
    let worker = RunningWorker::start(Direction::Outbound, destination(), change);
    let mut client = worker.connect();
    send(&mut client, GET);
    let mut upstream = application.accept();
    expect(&mut upstream, GET_SENT);
    send(&mut upstream, UNAVAILABLE);
    expect_failure(&mut client, 504, "request-timeout");
}
