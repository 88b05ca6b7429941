//! Attacks end the connection; what honest peers do for hours does not.

use std::time::Duration;

use super::*;
use crate::multiplex::Flood;
use crate::multiplex::error::ConnectionError;

/// Sends `frames`, and so on, many times within a second, and gives how it ends.
fn attack(mut frames: impl FnMut(u32) -> Vec<u8>) -> Option<Result<(), ConnectionError>> {
    let start = crate::clock::now();
    let mut machine = server_with(Settings::default(), start);
    for index in 0..100_000 {
        machine.receive(&frames(index), start + Duration::from_micros(u64::from(index) * 10));
        for slot in take_requests(&mut machine) {
            machine.release(slot);
        }
        take_frames(&mut machine);
        if machine.over.is_some() {
            break;
        }
    }
    machine.over
}

type Case<'c> = (&'c str, Flood, Box<dyn FnMut(u32) -> Vec<u8> + 'c>);

#[test]
fn a_flood_ends_the_connection() {
    let open = |index: u32, frames: &dyn Fn(u32) -> Vec<u8>| {
        if index == 0 { request(1, false) } else { frames(1) }
    };
    let id = |index: u32| index * 2 + 1;
    let unfinished = frame(Kind::Headers, 0, 1, &[]);
    let cases: Vec<Case<'_>> = vec![
        (
            "rapid reset",
            Flood::RapidReset,
            Box::new(|at| [request(id(at), false), reset(id(at), ErrorCode::CANCEL)].concat()),
        ),
        (
            "made to reset by WINDOW_UPDATE",
            Flood::RapidReset,
            Box::new(|at| [request(id(at), false), window_update(id(at), 0)].concat()),
        ),
        (
            "made to reset by malformed heads",
            Flood::RapidReset,
            Box::new(|at| headers(id(at), &[(":method", "GET")], true)),
        ),
        (
            "CONTINUATION",
            Flood::Continuation,
            Box::new(|at| if at == 0 { unfinished.clone() } else { frame(Kind::Continuation, 0, 1, &[]) }),
        ),
        ("PING", Flood::Ping, Box::new(|_| ping())),
        ("PING answered that was not asked", Flood::Ping, Box::new(|_| frame(Kind::Ping, flags::ACK, 0, &[0; 8]))),
        ("SETTINGS", Flood::Settings, Box::new(|_| settings(&[]))),
        ("PRIORITY", Flood::Priority, Box::new(|_| frame(Kind::Priority, 0, 1, &[0, 0, 0, 3, 1]))),
        ("empty DATA", Flood::EmptyData, Box::new(|at| open(at, &|stream| data(stream, &[], false)))),
        ("DATA of padding", Flood::EmptyData, Box::new(|at| open(at, &|stream| frame(Kind::Data, 8, stream, &[1, 0])))),
        ("unknown frames", Flood::EmptyData, Box::new(|_| frame(Kind::Unknown(99), 0, 0, &[]))),
        ("WINDOW_UPDATE", Flood::WindowUpdate, Box::new(|_| window_update(0, 1))),
    ];
    for (name, kind, frames) in cases {
        assert_eq!(attack(frames), Some(Err(ConnectionError::Flooded(kind))), "{name}");
    }
}

#[test]
fn a_header_block_without_end_is_cut_off_by_its_size() {
    let now = crate::clock::now();
    let mut machine = server();
    machine.receive(&frame(Kind::Headers, 0, 1, &[0; 16_384]), now);
    for _ in 0..10 {
        machine.receive(&frame(Kind::Continuation, 0, 1, &[0; 16_384]), now);
    }
    assert_eq!(machine.over, Some(Err(ConnectionError::Flooded(Flood::Continuation))));
}

#[test]
fn a_peer_that_asks_and_does_not_read_is_cut_off() {
    let now = crate::clock::now();
    let mut settings_of_ours = Settings::default();
    settings_of_ours.floods.ping.size = 1_000_000;
    let mut machine = server_with(settings_of_ours, now);
    let mut pings = 0;
    while machine.over.is_none() {
        machine.receive(&ping(), now);
        pings += 1;
        assert!(pings < 10_000);
    }
    assert_eq!(machine.over, Some(Err(ConnectionError::Flooded(Flood::Unread))));
    assert!(machine.output().len() < 100, "only the goodbye is left");
}

/// Windows opened by single bytes make us send single bytes: those frames earn nothing.
#[test]
fn a_dribble_of_windows_ends_the_connection() {
    let start = crate::clock::now();
    let mut machine = server();
    give(&mut machine, &settings(&[(4, 0)]), start);
    machine.receive(&request(1, true), start);
    let slot = take_requests(&mut machine)[0];
    machine.send_head(slot, &fields_of(&OK), false).expect("open");
    for index in 0..100_000u64 {
        machine.receive(&window_update(1, 1), start + Duration::from_micros(index * 10));
        if machine.over.is_some() {
            break;
        }
        assert_eq!(machine.send_data(slot, &[0; 100], false), Ok(1));
        take_frames(&mut machine);
    }
    assert_eq!(machine.over, Some(Err(ConnectionError::Flooded(Flood::WindowUpdate))));
}

/// Ten minutes of a gRPC stream in each direction: small messages, and for each a `WINDOW_UPDATE` of the stream, one of the
/// connection and a PING, 200 times a second.
#[test]
fn small_grpc_messages_are_no_flood() {
    let start = crate::clock::now();
    let mut machine = server();
    machine.receive(&[request(1, false), request(3, false)].concat(), start);
    let slots = take_requests(&mut machine);
    for slot in &slots {
        machine.send_head(*slot, &fields_of(&OK), false).expect("open");
    }
    let acks = [window_update(3, 50), window_update(0, 50), ping()].concat();
    let message = data(1, &[1; 50], false);
    for index in 0..120_000u64 {
        let now = start + Duration::from_millis(index * 5);
        // The client's message to us, and our message to it with what it answers.
        machine.receive(&message, now);
        let lent = machine.lend_data(slots[0]);
        let count = lent.data().len();
        machine.settle_data(slots[0], lent, count);
        assert_eq!(machine.send_data(slots[1], &[2; 50], false), Ok(50));
        machine.receive(&acks, now);
        let queued = machine.output().len();
        machine.written(queued);
        machine.flushed();
        assert_eq!(machine.over, None, "message {index}");
    }
}

/// 1,000 streams begun a second for two minutes, of which one in ten is given up at its deadline of 50 ms, and in one
/// second of each minute, when the service hangs, all of them.
#[test]
fn a_client_with_short_deadlines_is_no_flood() {
    let start = crate::clock::now();
    let mut machine = server();
    let mut under_way = std::collections::VecDeque::new();
    for index in 0..120_000u32 {
        let now = start + Duration::from_millis(u64::from(index));
        let id = index * 2 + 1;
        machine.receive(&request(id, true), now);
        let slots = take_requests(&mut machine);
        assert_eq!(slots.len(), 1, "stream {index}: {:?}", machine.over);
        let hangs = index % 60_000 < 400;
        under_way.push_back((index, id, slots[0]));
        while let Some((begun, id, slot)) = under_way.front().copied() {
            let gives_up = begun % 10 == 0 || hangs;
            if gives_up && index - begun < 50 {
                break;
            }
            under_way.pop_front();
            if gives_up {
                machine.receive(&reset(id, ErrorCode::CANCEL), now);
            } else {
                machine.send_head(slot, &fields_of(&OK), true).expect("open");
            }
            machine.release(slot);
        }
        let queued = machine.output().len();
        machine.written(queued);
        assert_eq!(machine.over, None, "stream {index}");
    }
}
