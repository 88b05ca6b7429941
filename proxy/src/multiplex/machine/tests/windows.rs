//! Flow control (RFC 9113 section 5.2 and 6.9).

use std::task::Poll;

use super::*;
use crate::http2::frame::setting;
use crate::multiplex::error::{ConnectionError, StreamError};

/// A greeted server with one request, whose answer has begun.
fn answering(settings_of_peer: &[u8]) -> (Machine, u32) {
    let now = crate::clock::now();
    let mut machine = server();
    give(&mut machine, settings_of_peer, now);
    give(&mut machine, &request(1, true), now);
    let slot = take_requests(&mut machine)[0];
    machine.send_head(slot, &fields_of(&OK), false).expect("open");
    take_frames(&mut machine);
    (machine, slot)
}

#[test]
fn a_window_lowered_below_nothing_has_to_be_opened_again() {
    let now = crate::clock::now();
    let (mut machine, slot) = answering(&settings(&[(setting::INITIAL_WINDOW_SIZE, 1000)]));
    assert_eq!(machine.send_data(slot, &[0; 5000], true), Ok(1000));
    give(&mut machine, &settings(&[(setting::INITIAL_WINDOW_SIZE, 10)]), now);
    take_frames(&mut machine);
    for _ in 0..2 {
        assert!(machine.poll_capacity(slot, &idle()).is_pending());
        assert_eq!(machine.send_data(slot, &[0; 10], false), Ok(0));
        give(&mut machine, &window_update(1, 495), now);
    }
    assert!(machine.poll_capacity(slot, &idle()).is_pending(), "the window is at nothing, after 2 times 495");
    give(&mut machine, &window_update(1, 7), now);
    assert_eq!(machine.poll_capacity(slot, &idle()), Poll::Ready(Ok(7)));
    give(&mut machine, &settings(&[(setting::INITIAL_WINDOW_SIZE, 20)]), now);
    assert_eq!(machine.capacity(slot), 17);
    assert_eq!(machine.send_data(slot, &[0; 17], true), Ok(17));
    assert!(machine.is_complete(slot));
}

#[test]
fn an_end_needs_no_window() {
    let (mut machine, slot) = answering(&settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]));
    assert_eq!(machine.send_data(slot, b"x", true), Ok(0));
    assert!(!machine.is_complete(slot));
    assert_eq!(machine.send_data(slot, b"", true), Ok(0));
    let frames = take_frames(&mut machine);
    assert_eq!((frames[0].0.length, frames[0].0.flags), (0, flags::END_STREAM));
    assert!(machine.is_complete(slot));
}

#[test]
fn the_connections_window_holds_all_streams_up() {
    let now = crate::clock::now();
    let (mut machine, first) = answering(&settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 20)]));
    give(&mut machine, &request(3, true), now);
    let second = take_requests(&mut machine)[0];
    machine.send_head(second, &fields_of(&OK), false).expect("open");
    assert_eq!(machine.send_data(first, &vec![0; 70_000], false), Ok(65_535));
    take_frames(&mut machine);
    assert!(machine.poll_capacity(second, &idle()).is_pending());
    give(&mut machine, &window_update(0, 100), now);
    assert_eq!((machine.capacity(first), machine.capacity(second)), (100, 100));
}

#[test]
fn data_is_cut_as_the_peer_takes_frames() {
    let (mut machine, slot) = answering(&settings(&[(setting::MAX_FRAME_SIZE, 20_000)]));
    assert_eq!(machine.send_data(slot, &vec![0; 50_000], true), Ok(50_000));
    let lengths: Vec<_> = take_frames(&mut machine).iter().map(|(header, _)| (header.length, header.flags)).collect();
    assert_eq!(lengths, [(20_000, 0), (20_000, 0), (10_000, flags::END_STREAM)]);
}

#[test]
fn a_stream_gets_its_share_of_the_queue_and_no_more() {
    let now = crate::clock::now();
    let raised = [settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 20)]), window_update(0, 1 << 20)].concat();
    let (mut machine, first) = answering(&raised);
    give(&mut machine, &request(3, true), now);
    let second = take_requests(&mut machine)[0];
    machine.send_head(second, &fields_of(&OK), false).expect("open");
    let large = vec![0; 1 << 20];
    assert_eq!(machine.send_data(first, &large, false), Ok(64 * 1024));
    assert_eq!(machine.send_data(first, &large, false), Ok(0));
    assert_eq!(machine.send_data(second, &large, false), Ok(64 * 1024));
    take_frames(&mut machine);
    assert_eq!(machine.send_data(first, &large, false), Ok(64 * 1024));
}

#[test]
fn what_is_used_comes_back_in_batches() {
    let now = crate::clock::now();
    let settings_of_ours = Settings { stream_window: 1000, ..Settings::default() };
    let mut machine = server_with(settings_of_ours, now);
    give(&mut machine, &request(1, false), now);
    let slot = take_requests(&mut machine)[0];
    let mut updates = 0;
    for _ in 0..100 {
        give(&mut machine, &data(1, &[7; 100], false), now);
        let lent = machine.lend_data(slot);
        machine.settle_data(slot, lent, 100);
        updates += take_frames(&mut machine).len();
    }
    assert_eq!(updates, 20, "one for each half of the window");
}

#[test]
fn more_than_a_window_is_an_error_of_the_stream_or_of_the_connection() {
    let now = crate::clock::now();
    let mut machine = server_with(Settings { stream_window: 1000, ..Settings::default() }, now);
    give(&mut machine, &request(1, false), now);
    let slot = take_requests(&mut machine)[0];
    give(&mut machine, &data(1, &[0; 1000], false), now);
    assert_eq!(machine.stream_error(slot), None);
    give(&mut machine, &data(1, &[0; 1], false), now);
    assert_eq!(machine.stream_error(slot), Some(StreamError::Malformed(ErrorCode::FLOW_CONTROL_ERROR)));

    let small = Settings { connection_window: 65_535, ..Settings::default() };
    let mut machine = server_with(small, now);
    give(&mut machine, &request(1, false), now);
    for _ in 0..4 {
        assert_eq!(machine.over, None);
        machine.receive(&data(1, &[0; 16_384], false), now);
    }
    assert!(
        matches!(machine.over, Some(Err(ConnectionError::Broken { code: ErrorCode::FLOW_CONTROL_ERROR, .. }))),
        "{:?}",
        machine.over
    );
}

#[test]
fn before_it_knows_our_window_a_peer_may_use_the_usual_one() {
    let now = crate::clock::now();
    for (acknowledged, expected) in [(false, None), (true, Some(StreamError::Malformed(ErrorCode::FLOW_CONTROL_ERROR)))]
    {
        let mut machine = Machine::server(Settings { stream_window: 1000, ..Settings::default() }, now);
        give(&mut machine, &[PREFACE, &settings(&[])[..]].concat(), now);
        if acknowledged {
            give(&mut machine, &frame(Kind::Settings, flags::ACK, 0, &[]), now);
        }
        give(&mut machine, &request(1, false), now);
        let slot = take_requests(&mut machine)[0];
        give(&mut machine, &data(1, &[0; 5000], false), now);
        assert_eq!(machine.stream_error(slot), expected);
    }
}

#[test]
fn streams_that_nobody_opens_windows_for_end_the_connection_in_time() {
    let (mut machine, slot) = answering(&settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]));
    assert!(machine.poll_capacity(slot, &idle()).is_pending());
    machine.rest(false);
    let deadline = machine.deadline().expect("it waits for a window");
    let before = deadline.checked_sub(std::time::Duration::from_millis(1)).expect("in the future");
    machine.tick(before);
    assert_eq!(machine.over, None);
    // A byte is a sign of life.
    give(&mut machine, &window_update(1, 1), before);
    assert_eq!(machine.send_data(slot, b"x", false), Ok(1));
    take_frames(&mut machine);
    assert!(machine.poll_capacity(slot, &idle()).is_pending());
    machine.rest(false);
    machine.tick(deadline);
    assert_eq!(machine.over, None);
    let deadline = machine.deadline().expect("it waits for a window");
    machine.tick(deadline);
    assert_eq!(machine.over, Some(Err(ConnectionError::Flooded(crate::multiplex::Flood::ZeroWindow))));
}
