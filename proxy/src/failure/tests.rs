use super::*;
use crate::http1::{BodyKind, FieldStorage, ResponseHead};

fn answers() -> impl Iterator<Item = Answer<'static>> {
    let hop = Hop { direction: weft_core::model::Direction::Outbound, workload: "shop/web" };
    Failure::ALL.into_iter().map(move |failure| Answer { failure, detail: "limit 1, found 2", hop })
}

#[test]
fn the_list_is_complete_and_codes_are_unique() {
    let mut codes: Vec<_> = Failure::ALL.iter().map(|failure| failure.code()).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), Failure::ALL.len());
    // The last variant's place tells how many there are.
    assert_eq!(Failure::ALL.len(), Failure::ApplicationUnreachable as usize + 1);
}

#[test]
fn status_blame_and_grpc_code_agree() {
    for failure in Failure::ALL {
        let facts = failure.facts();
        assert!((400..600).contains(&facts.status), "{failure:?}");
        let is_ours = facts.blame != Blame::Client && failure != Failure::NoRoute;
        assert_eq!(facts.status >= 500, is_ours, "{failure:?}");
        assert!((1..=16).contains(&facts.grpc), "{failure:?}");
        if facts.status == 504 {
            assert_eq!(facts.grpc, grpc::DEADLINE_EXCEEDED, "{failure:?}");
        }
        assert!(
            facts.blame != Blame::Client || facts.retry == Retry::Never,
            "a client's fault is tried again: {failure:?}"
        );
    }
}

#[test]
fn an_answer_in_the_applications_place_is_valid_http() {
    for answer in answers() {
        let mut out = Vec::new();
        answer.write_http1(false, false, &mut out);
        let mut storage = FieldStorage::new();
        let head = ResponseHead::parse(&out, &mut storage, false).expect("valid").expect("complete");
        assert_eq!(head.body, BodyKind::Length((out.len() - head.length) as u64));
        assert!(!head.keep_alive);
        assert_eq!(head.weft_error(), Some(answer.failure.code().as_bytes()));
    }
}

#[test]
fn an_answer_names_the_limit_the_value_and_the_hop() {
    for answer in answers() {
        let text = answer.to_string();
        for part in
            [answer.failure.code(), answer.failure.facts().text, "limit 1, found 2", "outbound proxy of shop/web"]
        {
            assert!(text.contains(part), "{text}");
        }
    }
}

#[test]
fn a_refused_head_has_the_status_its_reader_names() {
    for error in [
        HeadError::Malformed("x"),
        HeadError::TooLong,
        HeadError::TooManyFields,
        HeadError::TargetTooLong,
        HeadError::ConnectNotAllowed,
    ] {
        assert_eq!(Failed::from(error).failure.facts().status, error.status());
    }
}
