//! RFC 9113 rule by rule.

use super::*;
use crate::http2::frame::setting;
use crate::multiplex::error::{ConnectionError, StreamError};

/// What a machine makes of what it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// The connection ends with this code.
    GoAway(ErrorCode),
    /// The stream ends with this code, the connection goes on.
    Reset(u32, ErrorCode),
    /// Neither.
    Well,
}

fn verdict(machine: &mut Machine) -> Says {
    let frames = take_frames(machine);
    let code = |payload: &[u8]| ErrorCode(u32::from_be_bytes(payload.try_into().expect("4 bytes")));
    for (header, payload) in &frames {
        match header.kind {
            Kind::GoAway => return Says::GoAway(code(&payload[4..8])),
            Kind::ResetStream => return Says::Reset(header.stream, code(payload)),
            _ => {}
        }
    }
    Says::Well
}

const PROTOCOL: ErrorCode = ErrorCode::PROTOCOL_ERROR;
const SIZE: ErrorCode = ErrorCode::FRAME_SIZE_ERROR;
const FLOW: ErrorCode = ErrorCode::FLOW_CONTROL_ERROR;
const CLOSED: ErrorCode = ErrorCode::STREAM_CLOSED;

/// Gives `bytes` to a greeted server, whole and byte by byte, and checks what it says.
fn check_server(rule: &str, bytes: &[u8], expected: Says) {
    for whole in [true, false] {
        let mut machine = server();
        if whole {
            machine.receive(bytes, crate::clock::now());
        } else {
            give(&mut machine, bytes, crate::clock::now());
        }
        assert_eq!(verdict(&mut machine), expected, "{rule}");
        assert_eq!(machine.over.is_some(), matches!(expected, Says::GoAway(_)), "{rule}");
        if expected == Says::Well || matches!(expected, Says::Reset(..)) {
            // The connection is as good as before.
            give(&mut machine, &ping(), crate::clock::now());
            let answers = take_frames(&mut machine);
            assert!(answers.iter().any(|(header, _)| header.kind == Kind::Ping && header.has(flags::ACK)), "{rule}");
        }
    }
}

#[test]
fn a_connection_begins_with_preface_and_settings() {
    let now = crate::clock::now();
    let cases: [(&str, Vec<u8>); 4] = [
        ("http/1", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("a preface that goes wrong late", [&PREFACE[..23], b"x"].concat()),
        ("a ping first", [&PREFACE[..], &ping()].concat()),
        ("an acknowledgement first", [&PREFACE[..], &frame(Kind::Settings, flags::ACK, 0, &[])].concat()),
    ];
    for (case, bytes) in cases {
        let mut machine = Machine::server(Settings::default(), now);
        give(&mut machine, &bytes, now);
        assert_eq!(verdict(&mut machine), Says::GoAway(PROTOCOL), "{case}");
    }
}

#[test]
fn frames_out_of_place_or_shape_end_the_connection() {
    let max_window = i32::MAX as u32;
    let unfinished = frame(Kind::Headers, 0, 1, &block(&REQUEST)[..3]);
    let setting = |name, value| settings(&[(name, value)]);
    let cases: Vec<(&str, Vec<u8>, ErrorCode)> = vec![
        ("4.2 a frame too large", frame(Kind::Data, 0, 1, &[0; 16_385]), SIZE),
        (
            "4.3 compression",
            frame(Kind::Headers, 5, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            ErrorCode::COMPRESSION_ERROR,
        ),
        ("5.1 DATA on an idle stream", data(1, b"x", false), PROTOCOL),
        ("5.1 RST_STREAM on an idle stream", reset(1, ErrorCode::CANCEL), PROTOCOL),
        ("5.1 WINDOW_UPDATE on an idle stream", window_update(1, 1), PROTOCOL),
        ("5.1 CONTINUATION on an idle stream", frame(Kind::Continuation, 4, 1, &[]), PROTOCOL),
        ("5.1.1 an even stream", request(2, true), PROTOCOL),
        ("5.1.1 a stream below one before", [request(5, true), request(3, true)].concat(), PROTOCOL),
        ("6.1 DATA on no stream", data(0, b"x", false), PROTOCOL),
        (
            "6.1 more padding than DATA",
            [request(1, false), frame(Kind::Data, 8, 1, &[6, 0, 0, 0, 0, 0])].concat(),
            PROTOCOL,
        ),
        ("6.1 padded DATA of nothing", [request(1, false), frame(Kind::Data, 8, 1, &[])].concat(), SIZE),
        ("6.2 HEADERS on no stream", request(0, true), PROTOCOL),
        ("6.2 more padding than HEADERS", frame(Kind::Headers, 0xc, 1, &[2, 0x82]), PROTOCOL),
        ("6.2 HEADERS within a block", [unfinished.clone(), request(3, true)].concat(), PROTOCOL),
        ("6.2 PRIORITY within a block", [unfinished.clone(), frame(Kind::Priority, 0, 1, &[0; 5])].concat(), PROTOCOL),
        (
            "6.10 another stream's CONTINUATION",
            [unfinished.clone(), frame(Kind::Continuation, 4, 3, &[])].concat(),
            PROTOCOL,
        ),
        ("5.5 an unknown frame within a block", [unfinished, frame(Kind::Unknown(77), 0, 0, &[])].concat(), PROTOCOL),
        (
            "6.10 CONTINUATION after a block",
            [request(1, false), frame(Kind::Continuation, 4, 1, &[])].concat(),
            PROTOCOL,
        ),
        (
            "6.10 CONTINUATION after DATA",
            [request(1, false), data(1, b"x", false), frame(Kind::Continuation, 4, 1, &[])].concat(),
            PROTOCOL,
        ),
        ("6.3 PRIORITY on no stream", frame(Kind::Priority, 0, 0, &[0, 0, 0, 1, 0]), PROTOCOL),
        ("6.4 RST_STREAM on no stream", reset(0, ErrorCode::CANCEL), PROTOCOL),
        ("6.4 RST_STREAM of 3 bytes", [request(1, false), frame(Kind::ResetStream, 0, 1, &[0; 3])].concat(), SIZE),
        ("6.5 SETTINGS on a stream", frame(Kind::Settings, 0, 1, &[]), PROTOCOL),
        ("6.5 SETTINGS of 3 bytes", frame(Kind::Settings, 0, 0, &[0; 3]), SIZE),
        ("6.5 an acknowledgement with a payload", frame(Kind::Settings, flags::ACK, 0, &[0; 6]), SIZE),
        ("6.5.2 ENABLE_PUSH", setting(setting::ENABLE_PUSH, 2), PROTOCOL),
        ("6.5.2 INITIAL_WINDOW_SIZE", setting(setting::INITIAL_WINDOW_SIZE, max_window + 1), FLOW),
        ("RFC 8441 3 ENABLE_CONNECT_PROTOCOL", setting(setting::ENABLE_CONNECT_PROTOCOL, 2), PROTOCOL),
        ("6.5.2 MAX_FRAME_SIZE, low", setting(setting::MAX_FRAME_SIZE, 16_383), PROTOCOL),
        ("6.5.2 MAX_FRAME_SIZE, high", setting(setting::MAX_FRAME_SIZE, 1 << 24), PROTOCOL),
        ("6.6 PUSH_PROMISE", [request(1, false), frame(Kind::PushPromise, 4, 1, &[0, 0, 0, 2])].concat(), PROTOCOL),
        ("6.7 PING on a stream", frame(Kind::Ping, 0, 1, &[0; 8]), PROTOCOL),
        ("6.7 PING of 6 bytes", frame(Kind::Ping, 0, 0, &[0; 6]), SIZE),
        ("6.8 GOAWAY on a stream", frame(Kind::GoAway, 0, 1, &[0; 8]), PROTOCOL),
        ("6.8 GOAWAY of 7 bytes", frame(Kind::GoAway, 0, 0, &[0; 7]), SIZE),
        ("6.9 WINDOW_UPDATE by nothing", window_update(0, 0), PROTOCOL),
        ("6.9 WINDOW_UPDATE of 3 bytes", frame(Kind::WindowUpdate, 0, 0, &[0; 3]), SIZE),
        ("6.9.1 the connection's window", window_update(0, max_window), FLOW),
        (
            "6.9.2 a stream's window by SETTINGS",
            [request(1, false), window_update(1, max_window - 65_535), setting(setting::INITIAL_WINDOW_SIZE, 65_536)]
                .concat(),
            FLOW,
        ),
    ];
    for (rule, bytes, code) in cases {
        check_server(rule, &bytes, Says::GoAway(code));
    }
}

#[test]
fn faults_of_one_stream_end_only_that() {
    let max_window = i32::MAX as u32;
    let depends = |stream: u32| [&stream.to_be_bytes()[..], &[16]].concat();
    let dependent = frame(Kind::Headers, 0x25, 1, &[depends(1), block(&REQUEST)].concat());
    let length = |length| request_with(1, ("content-length", length), false);
    let cases: Vec<(&str, Vec<u8>, ErrorCode)> = vec![
        ("5.1 DATA after the end", [request(1, true), data(1, b"x", false)].concat(), CLOSED),
        ("5.1 HEADERS after the end", [request(1, true), request(1, true)].concat(), CLOSED),
        ("5.3.1 HEADERS that depend on themselves", dependent, PROTOCOL),
        (
            "5.3.1 PRIORITY that depends on itself",
            [request(1, false), frame(Kind::Priority, 0, 1, &depends(1))].concat(),
            PROTOCOL,
        ),
        ("6.3 PRIORITY of 4 bytes", [request(1, false), frame(Kind::Priority, 0, 1, &[0; 4])].concat(), SIZE),
        ("6.9 WINDOW_UPDATE by nothing", [request(1, false), window_update(1, 0)].concat(), PROTOCOL),
        ("6.9.1 a stream's window", [request(1, false), window_update(1, max_window)].concat(), FLOW),
        ("8.1 trailers that do not end", [request(1, false), headers(1, &[("x", "y")], false)].concat(), PROTOCOL),
        (
            "8.1 pseudo-fields in trailers",
            [request(1, false), headers(1, &[(":method", "GET")], true)].concat(),
            PROTOCOL,
        ),
        ("8.1.1 more data than said", [length("1"), data(1, b"xy", true)].concat(), PROTOCOL),
        ("8.1.1 less data than said", [length("3"), data(1, b"xy", true)].concat(), PROTOCOL),
        ("8.1.1 less data than said, with trailers", [length("3"), headers(1, &[("x", "y")], true)].concat(), PROTOCOL),
        ("8.1.1 no data at all", request_with(1, ("content-length", "1"), true), PROTOCOL),
        ("8.2 an upper-case name", request_with(1, ("X-Upper", "y"), true), PROTOCOL),
        ("8.2.2 a field of the connection", request_with(1, ("connection", "close"), true), PROTOCOL),
        ("8.2.2 te", request_with(1, ("te", "gzip"), true), PROTOCOL),
        ("8.3 an unknown pseudo-field", request_with(1, (":unknown", "y"), true), PROTOCOL),
        (
            "8.3 a pseudo-field too late",
            headers(1, &[(":method", "GET"), ("x", "y"), (":path", "/"), (":scheme", "http")], true),
            PROTOCOL,
        ),
        ("8.3.1 no path", headers(1, &[(":method", "GET"), (":scheme", "http"), (":authority", "a")], true), PROTOCOL),
        (
            "8.3.1 an empty path",
            headers(1, &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "")], true),
            PROTOCOL,
        ),
        ("8.3.1 two methods", request_with(1, (":method", "GET"), true), PROTOCOL),
    ];
    for (rule, bytes, code) in cases {
        check_server(rule, &bytes, Says::Reset(1, code));
    }
}

#[test]
fn what_the_rules_allow_is_taken() {
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("5.5 an unknown frame", frame(Kind::Unknown(77), 0xff, 9, b"whatever")),
        ("5.5 an unknown frame of nothing", frame(Kind::Unknown(77), 0, 0, &[])),
        ("6.5.2 an unknown setting", settings(&[(0x99, 7)])),
        (
            "6.5.2 any window and frame",
            settings(&[(setting::INITIAL_WINDOW_SIZE, 0), (setting::MAX_FRAME_SIZE, 16_777_215)]),
        ),
        ("6.3 PRIORITY of an idle stream", frame(Kind::Priority, 0, 7, &[0, 0, 0, 0, 9])),
        ("6.1 padded DATA", [request(1, false), frame(Kind::Data, 9, 1, &[2, b'x', 0, 0])].concat()),
        ("6.1 nothing but padding", [request(1, false), frame(Kind::Data, 8, 1, &[2, 0, 0])].concat()),
        (
            "6.2 padded HEADERS with a priority",
            frame(Kind::Headers, 0x2d, 1, &[&[1, 0, 0, 0, 3, 9][..], &block(&REQUEST), &[0]].concat()),
        ),
        ("6.10 a block in three", {
            let block = block(&REQUEST);
            let (a, b) = block.split_at(4);
            [frame(Kind::Headers, 1, 1, a), frame(Kind::Continuation, 0, 1, &[]), frame(Kind::Continuation, 4, 1, b)]
                .concat()
        }),
        ("8.1 trailers", [request(1, false), data(1, b"x", false), headers(1, &[("x", "y")], true)].concat()),
        (
            "8.1.1 the length said",
            [request_with(1, ("content-length", "2"), false), data(1, b"x", false), data(1, b"y", true)].concat(),
        ),
        ("8.1.1 a length of nothing", request_with(1, ("content-length", "0"), true)),
        ("6.8 GOAWAY, and then more", [frame(Kind::GoAway, 0, 0, &[0; 8]), request(1, true)].concat()),
        (
            "6.4 a reset stream and its late frames",
            [request(1, false), reset(1, ErrorCode::CANCEL), window_update(1, 5), reset(1, ErrorCode::CANCEL)].concat(),
        ),
        ("the reserved bit", {
            let mut bytes = request(1, true);
            bytes[5] |= 0x80;
            bytes
        }),
    ];
    for (rule, bytes) in cases {
        check_server(rule, &bytes, Says::Well);
    }
}

#[test]
fn a_closed_stream_takes_no_data_or_head() {
    for (rule, bytes) in [("DATA", data(1, b"x", true)), ("HEADERS", request(1, true))] {
        let mut machine = server();
        let now = crate::clock::now();
        give(&mut machine, &request(1, true), now);
        let slot = take_requests(&mut machine)[0];
        machine.send_head(slot, &fields_of(&OK), true).expect("open");
        take_frames(&mut machine);
        give(&mut machine, &[window_update(1, 1), reset(1, ErrorCode::CANCEL)].concat(), now);
        assert_eq!(verdict(&mut machine), Says::Well, "{rule}: RFC 9113 section 5.1 allows these for a while");
        give(&mut machine, &bytes, now);
        assert_eq!(verdict(&mut machine), Says::GoAway(CLOSED), "{rule}");
    }
}

#[test]
fn late_frames_of_a_stream_we_reset_are_ignored_and_their_window_comes_back() {
    let mut machine = server();
    let now = crate::clock::now();
    give(&mut machine, &request(1, false), now);
    let slot = take_requests(&mut machine)[0];
    machine.reset(slot, ErrorCode::CANCEL);
    machine.release(slot);
    assert_eq!(verdict(&mut machine), Says::Reset(1, ErrorCode::CANCEL));
    let window = machine.receive_window;
    for _ in 0..40 {
        machine.receive(&data(1, &[0; 16_384], false), now);
    }
    give(&mut machine, &[window_update(1, 9), headers(1, &[("x", "y")], true)].concat(), now);
    assert_eq!(verdict(&mut machine), Says::Well);
    assert_eq!(machine.receive_window as u32 + machine.due, window as u32);
    assert!(machine.receive_window > window / 3, "40 frames would use the window up");
}

#[test]
fn a_stream_too_many_is_refused_and_the_next_is_not() {
    let now = crate::clock::now();
    let mut machine = server_with(Settings { max_streams: 2, ..Settings::default() }, now);
    give(&mut machine, &[request(1, false), request(3, true)].concat(), now);
    let slots = take_requests(&mut machine);
    give(&mut machine, &request(5, true), now);
    assert_eq!(verdict(&mut machine), Says::Reset(5, ErrorCode::REFUSED_STREAM));
    give(&mut machine, &data(5, b"late", true), now);
    assert_eq!(verdict(&mut machine), Says::Well);
    machine.send_head(slots[1], &fields_of(&OK), true).expect("open");
    give(&mut machine, &request(7, true), now);
    assert_eq!(take_requests(&mut machine).len(), 1);
}

#[test]
fn a_head_over_the_limit_is_handed_on_marked() {
    let now = crate::clock::now();
    let mut machine = server();
    let large = "x".repeat(9000);
    let fields: Vec<(&str, &str)> = REQUEST.into_iter().chain([("x-large", large.as_str()); 8]).collect();
    let all = block(&fields);
    let mut bytes = frame(Kind::Headers, flags::END_STREAM, 1, &all[..16_384]);
    for (index, part) in all[16_384..].chunks(16_384).enumerate() {
        let end = if (index + 2) * 16_384 >= all.len() { flags::END_HEADERS } else { 0 };
        bytes.extend(frame(Kind::Continuation, end, 1, part));
    }
    machine.receive(&bytes, now);
    let arrived = machine.next_arrived().expect("it arrives");
    assert!(arrived.is_too_large);
    machine.receive(&request(3, true), now);
    assert!(!machine.next_arrived().expect("it arrives").is_too_large);
}

#[test]
fn a_drain_takes_what_was_sent_before_its_end_and_nothing_after() {
    let now = crate::clock::now();
    let mut machine = server();
    give(&mut machine, &request(1, true), now);
    machine.drain(now);
    let frames = take_frames(&mut machine);
    let last = |payload: &[u8]| u32::from_be_bytes(payload[..4].try_into().expect("4 bytes"));
    assert_eq!((frames[0].0.kind, last(&frames[0].1)), (Kind::GoAway, i32::MAX as u32));
    assert_eq!(frames[1].0.kind, Kind::Ping);
    give(&mut machine, &request(3, true), now);
    give(&mut machine, &frame(Kind::Ping, flags::ACK, 0, &frames[1].1), now);
    let frames = take_frames(&mut machine);
    assert_eq!((frames[0].0.kind, last(&frames[0].1)), (Kind::GoAway, 3));
    give(&mut machine, &[request(5, false), data(5, b"x", true)].concat(), now);
    assert_eq!(verdict(&mut machine), Says::Well);
    let slots = take_requests(&mut machine);
    assert_eq!(slots.len(), 2, "stream 5 is not looked at");
    for slot in slots {
        assert!(!machine.is_finished());
        machine.send_head(slot, &fields_of(&OK), true).expect("open");
    }
    assert!(machine.is_finished());
    assert_eq!(machine.outcome(), Ok(()));
}

#[test]
fn a_drain_waits_for_its_ping_no_longer_than_it_says() {
    let now = crate::clock::now();
    let mut machine = server();
    machine.drain(now);
    take_frames(&mut machine);
    let deadline = machine.deadline().expect("it waits");
    assert_eq!(deadline, now + Settings::default().drain_wait);
    machine.tick(deadline);
    assert_eq!(take_frames(&mut machine)[0].0.kind, Kind::GoAway);
    assert!(machine.is_finished());
}

/// Opens stream 1 on a greeted client and gives it `bytes`.
fn asked(method: &str, bytes: &[u8]) -> (Machine, u32) {
    let mut machine = client();
    let mut fields = REQUEST.to_vec();
    fields[0].1 = method;
    let slot = machine.open(&fields_of(&fields), true).expect("room");
    take_frames(&mut machine);
    give(&mut machine, bytes, crate::clock::now());
    (machine, slot)
}

#[test]
fn a_client_holds_its_server_to_the_rules() {
    let answer = |fields: &[(&str, &str)], end| headers(1, fields, end);
    let status = |status| answer(&[(":status", status)], false);
    let length = answer(&[(":status", "200"), ("content-length", "2")], false);
    let cases: Vec<(&str, Vec<u8>, Says)> = vec![
        ("an answer", [status("100"), status("103"), status("200"), data(1, b"x", true)].concat(), Says::Well),
        ("data before a head", data(1, b"x", true), Says::Reset(1, PROTOCOL)),
        ("an interim head that ends", answer(&[(":status", "100")], true), Says::Reset(1, PROTOCOL)),
        ("another protocol", status("101"), Says::Reset(1, PROTOCOL)),
        ("no status", answer(&[("x", "y")], true), Says::Reset(1, PROTOCOL)),
        ("interim heads without end", status("103").repeat(9), Says::Reset(1, ErrorCode::ENHANCE_YOUR_CALM)),
        ("the length said", [length.clone(), data(1, b"xy", true)].concat(), Says::Well),
        ("less than said", [length.clone(), data(1, b"x", true)].concat(), Says::Reset(1, PROTOCOL)),
        ("more than said", [length, data(1, b"xyz", false)].concat(), Says::Reset(1, PROTOCOL)),
        ("data of 204", [status("204"), data(1, b"x", true)].concat(), Says::Reset(1, PROTOCOL)),
        ("a stream nobody opened", headers(3, &OK, true), Says::GoAway(PROTOCOL)),
        ("an even stream", headers(2, &OK, true), Says::GoAway(PROTOCOL)),
        ("a push", frame(Kind::PushPromise, 4, 1, &[0, 0, 0, 2]), Says::GoAway(PROTOCOL)),
        ("a push allowed", settings(&[(setting::ENABLE_PUSH, 1)]), Says::GoAway(PROTOCOL)),
        ("data after the end", [answer(&OK, true), data(1, b"x", true)].concat(), Says::GoAway(CLOSED)),
    ];
    for (rule, bytes, expected) in cases {
        let (mut machine, slot) = asked("GET", &bytes);
        assert_eq!(verdict(&mut machine), expected, "{rule}");
        if let Says::Reset(_, code) = expected {
            assert_eq!(machine.stream_error(slot), Some(StreamError::Malformed(code)), "{rule}");
        }
    }
    let head_only = answer(&[(":status", "200"), ("content-length", "9")], true);
    assert_eq!(verdict(&mut asked("HEAD", &head_only).0), Says::Well, "HEAD is answered without the data");
    assert_eq!(verdict(&mut asked("GET", &head_only).0), Says::Reset(1, PROTOCOL));
}

#[test]
fn goaway_fails_what_was_not_looked_at_and_lets_the_rest_end() {
    let now = crate::clock::now();
    let mut machine = client();
    let slots: Vec<_> = (0..3).map(|_| machine.open(&fields_of(&REQUEST), true).expect("room")).collect();
    give(&mut machine, &frame(Kind::GoAway, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]), now);
    assert!(machine.can_open().is_err());
    assert_eq!(machine.stream_error(slots[0]), None);
    for slot in &slots[1..] {
        assert!(machine.stream_error(*slot).is_some_and(StreamError::is_unprocessed));
    }
    assert!(!machine.is_finished());
    // A server that answers all the same disturbs nobody.
    give(&mut machine, &[headers(3, &OK, false), data(3, b"late", true)].concat(), now);
    assert_eq!(machine.over, None);
    give(&mut machine, &headers(1, &OK, true), now);
    assert_eq!(machine.stream_error(slots[0]), None);
    assert!(machine.is_finished());
    assert_eq!(machine.outcome(), Ok(()));

    let mut machine = client();
    give(&mut machine, &frame(Kind::GoAway, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0xb]), now);
    assert_eq!(machine.outcome(), Err(ConnectionError::GoneAway(ErrorCode::ENHANCE_YOUR_CALM)));
}

#[test]
fn refused_streams_are_told_from_reset_ones() {
    for (code, expected) in
        [(ErrorCode::REFUSED_STREAM, StreamError::Refused), (ErrorCode::CANCEL, StreamError::Reset(ErrorCode::CANCEL))]
    {
        let (machine, slot) = asked("GET", &reset(1, code));
        assert_eq!(machine.stream_error(slot), Some(expected));
        assert_eq!(machine.open_streams(), 0);
    }
}

#[test]
fn a_peer_without_a_table_is_told_that_we_use_none() {
    let mut machine = client();
    give(&mut machine, &settings(&[(setting::HEADER_TABLE_SIZE, 0)]), crate::clock::now());
    take_frames(&mut machine);
    for first in [0x20, 0x83] {
        machine.open(&fields_of(&REQUEST), true).expect("room");
        assert_eq!(take_frames(&mut machine)[0].1[0], first, "RFC 7541 section 4.2: once");
    }
}

#[test]
fn a_head_larger_than_a_frame_is_continued() {
    let mut machine = client();
    let large = "y".repeat(40_000);
    let mut fields = REQUEST.to_vec();
    fields.push(("x-large", &large));
    machine.open(&fields_of(&fields), true).expect("room");
    let frames = take_frames(&mut machine);
    let kinds: Vec<_> = frames.iter().map(|(header, _)| (header.kind, header.flags)).collect();
    assert_eq!(kinds, [(Kind::Headers, 1), (Kind::Continuation, 0), (Kind::Continuation, 4)]);
    let mut server = server();
    let bytes: Vec<u8> =
        frames.iter().flat_map(|(header, payload)| frame(header.kind, header.flags, 1, payload)).collect();
    server.receive(&bytes, crate::clock::now());
    assert_eq!(server.next_arrived().expect("whole").head, fields_of(&fields));
}

#[test]
fn an_idle_connection_gives_back_what_its_streams_needed() {
    let now = crate::clock::now();
    let mut machine = server();
    machine.receive(&[request(1, true), request(3, true)].concat(), now);
    for slot in take_requests(&mut machine) {
        machine.send_head(slot, &fields_of(&OK), true).expect("open");
        machine.release(slot);
    }
    take_frames(&mut machine);
    machine.rest(false);
    assert!(machine.streams.has_slots(), "the next request comes soon");
    machine.tick(machine.deadline().expect("it looks again"));
    assert!(!machine.streams.has_slots());
    assert_eq!(machine.deadline(), None, "an idle connection waits for nothing");
    machine.receive(&request(5, true), now);
    assert_eq!(take_requests(&mut machine).len(), 1);
}

#[test]
fn a_request_given_up_before_it_was_seen_is_never_seen() {
    let mut machine = server();
    give(
        &mut machine,
        &[request(1, false), reset(1, ErrorCode::CANCEL), request(3, true)].concat(),
        crate::clock::now(),
    );
    let slots = take_requests(&mut machine);
    assert_eq!(slots.len(), 1);
    assert_eq!(machine.streams.get(slots[0]).map(|stream| stream.id), Some(3));
}

#[test]
fn a_server_says_that_it_takes_tunnels_and_a_client_believes_it_for_good() {
    let mut server = Machine::server(Settings::default(), crate::clock::now());
    let greeting = take_frames(&mut server);
    let told = crate::http2::frame::settings(&greeting[0].1)
        .expect("SETTINGS")
        .any(|told| told == (setting::ENABLE_CONNECT_PROTOCOL, 1));
    assert!(told, "{greeting:?}");

    let enable = |value| settings(&[(setting::ENABLE_CONNECT_PROTOCOL, value)]);
    let (mut client, _) = asked("GET", &[]);
    assert!(!client.takes_tunnels(), "nobody has said so");
    for (value, takes) in [(0, false), (1, true), (1, true)] {
        give(&mut client, &enable(value), crate::clock::now());
        assert_eq!(client.takes_tunnels(), takes);
    }
    give(&mut client, &enable(0), crate::clock::now());
    assert_eq!(verdict(&mut client), Says::GoAway(PROTOCOL), "it was taken back");
}
