//! What a connection without streams under way gives back, and when.

use std::time::Duration;

use super::*;

const LATER: Duration = Duration::from_secs(6);

/// A client whose one stream is over, with an answer that nobody has read yet.
fn answered() -> (Machine, u32, Instant) {
    let now = crate::clock::now();
    let mut machine = client();
    let slot = machine.open(&fields_of(&REQUEST), true).expect("room");
    take_frames(&mut machine);
    give(&mut machine, &[headers(1, &OK, false), data(1, b"answer", true)].concat(), now);
    assert_eq!(machine.open_streams(), 0);
    machine.rest(false);
    (machine, slot, now)
}

#[test]
fn an_answer_that_is_read_late_does_not_keep_the_driver_busy() {
    let (mut machine, slot, now) = answered();
    for step in 1..4 {
        let now = now + LATER * step;
        machine.tick(now);
        assert!(
            machine.deadline().is_none_or(|deadline| deadline > now),
            "a deadline that has passed is never waited for"
        );
        machine.rest(false);
    }
    let lent = machine.lend_data(slot);
    assert_eq!(lent.data(), b"answer");
    machine.settle_data(slot, lent, 6);
}

#[test]
fn what_streams_needed_is_given_back_even_if_it_was_held_for_long() {
    let (mut machine, slot, now) = answered();
    machine.tick(now + LATER);
    machine.rest(false);
    assert!(machine.streams.has_slots(), "somebody still reads");
    machine.release(slot);
    let deadline = machine.deadline().expect("it is tried again");
    assert!(deadline <= now + 2 * LATER);
    machine.tick(deadline);
    assert!(!machine.streams.has_slots());
    assert_eq!(machine.deadline(), None);
}
