use proptest::prelude::*;

use super::*;

fn names(count: usize) -> Vec<ListenerName> {
    let name =
        |number| ListenerName { kind: number as u8, address: format!("127.0.0.1:{number}"), fixed: "x".repeat(number) };
    (0..count).map(name).collect()
}

fn from_proxy() -> Vec<FromProxy> {
    vec![
        FromProxy::Hello { protocol: 1, version: "0.1.0".to_owned() },
        FromProxy::Configured,
        FromProxy::Listeners(Batch { names: names(MAX_DESCRIPTORS), is_last: false }),
        FromProxy::Listeners(Batch { names: Vec::new(), is_last: true }),
        FromProxy::Serving,
        FromProxy::Replace,
        FromProxy::Failed("no certificate: é".to_owned()),
    ]
}

fn to_proxy() -> Vec<ToProxy> {
    let counts = Counts { completed: 1, refused: 2, rolled_back: u32::MAX };
    let why = [Why::Busy, Why::Ending, Why::NoProgram, Why::Ended, Why::Late, Why::DiedBefore, Why::Other(77)];
    let refused = why.map(|why| ToProxy::Refused { why, reason: "it ended".to_owned() });
    let mut all = vec![
        ToProxy::Start,
        ToProxy::Prepare(Preparation { counts, returns_from: "ab".repeat(32) }),
        ToProxy::HandOver,
        ToProxy::TakeOver(Batch { names: names(3), is_last: true }),
        ToProxy::Drain,
        ToProxy::Counted(counts),
    ];
    all.extend(refused);
    all
}

/// Every message is read back, also with fields of a later version behind its own, and none when it is cut.
fn holds<M: Message + PartialEq + std::fmt::Debug>(messages: &[M]) {
    for message in messages {
        let mut packet = message.encode();
        assert!(packet.len() <= MAX_PACKET);
        assert_eq!(M::decode(&packet).unwrap().as_ref(), Some(message));
        for cut in 1..packet.len() {
            assert_eq!(M::decode(&packet[..cut]), Err(MessageError::Short), "{message:?} cut at {cut}");
        }
        packet.extend_from_slice(b"more");
        assert_eq!(M::decode(&packet).unwrap().as_ref(), Some(message));
    }
}

#[test]
fn what_is_said_is_heard_by_this_and_later_versions() {
    holds(&from_proxy());
    holds(&to_proxy());
}

/// The bytes themselves: a supervisor outlives the programs it starts, so these never change.
#[test]
fn the_bytes_of_version_one_stay_as_they_are() {
    let batch = Batch {
        names: vec![ListenerName { kind: 2, address: "[::]:15006".to_owned(), fixed: String::new() }],
        is_last: true,
    };
    let table: &[(Vec<u8>, &[u8])] = &[
        (FromProxy::Hello { protocol: 1, version: "7".to_owned() }.encode(), b"\x01\0\x01\0\x017"),
        (FromProxy::Configured.encode(), b"\x02"),
        (FromProxy::Listeners(batch.clone()).encode(), b"\x03\x01\0\x01\x02\0\x0a[::]:15006\0\0"),
        (FromProxy::Serving.encode(), b"\x04"),
        (FromProxy::Replace.encode(), b"\x05"),
        (FromProxy::Failed("no".to_owned()).encode(), b"\x06\0\x02no"),
        (ToProxy::Start.encode(), b"\x81"),
        (
            ToProxy::Prepare(Preparation {
                counts: Counts { completed: 1, refused: 2, rolled_back: 3 },
                returns_from: "ab".to_owned(),
            })
            .encode(),
            b"\x82\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\x02ab",
        ),
        (ToProxy::HandOver.encode(), b"\x83"),
        (ToProxy::TakeOver(batch).encode(), b"\x84\x01\0\x01\x02\0\x0a[::]:15006\0\0"),
        (ToProxy::Drain.encode(), b"\x85"),
        (ToProxy::Refused { why: Why::Ended, reason: "no".to_owned() }.encode(), b"\x86\x04\0\x02no"),
        (
            ToProxy::Counted(Counts { completed: 1, refused: 2, rolled_back: 3 }).encode(),
            b"\x87\0\0\0\x01\0\0\0\x02\0\0\0\x03",
        ),
    ];
    for (found, expected) in table {
        assert_eq!(found, expected);
    }
}

#[test]
fn a_batch_larger_than_descriptors_can_travel_is_refused() {
    let mut packet = vec![3, 1];
    packet.extend_from_slice(&65u16.to_be_bytes());
    assert_eq!(FromProxy::decode(&packet), Err(MessageError::TooMany(65)));
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let Ok(Some(FromProxy::Failed(reason))) = FromProxy::decode(&FromProxy::Failed("é".repeat(1000)).encode()) else {
        panic!("it is not read")
    };
    assert_eq!(reason, "é".repeat(MAX_TEXT / 2));
}

proptest! {
    #[test]
    fn no_bytes_do_harm(packet in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = FromProxy::decode(&packet);
        let _ = ToProxy::decode(&packet);
    }

    /// Bytes that begin like a message do not either, and what is understood is understood again.
    #[test]
    fn bytes_that_look_like_messages_do_no_harm(
        kind in prop_oneof![1u8..=7, 129u8..=136],
        rest in prop::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..100),
    ) {
        let packet: Vec<u8> = std::iter::once(kind).chain(rest).collect();
        if let Ok(Some(message)) = FromProxy::decode(&packet) {
            prop_assert_eq!(FromProxy::decode(&message.encode()), Ok(Some(message)));
        }
        if let Ok(Some(message)) = ToProxy::decode(&packet) {
            prop_assert_eq!(ToProxy::decode(&message.encode()), Ok(Some(message)));
        }
    }
}
