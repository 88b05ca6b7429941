//! The streams of a connection: slots that are recycled, found by stream number.

use std::collections::VecDeque;
use std::task::{Context, Waker};
use std::time::Instant;

use super::super::error::StreamError;
use super::body::Body;
use crate::http2::Fields;

/// Streams we reset whose late frames are ignored: a full set of what a peer may have under way, and more.
const RESET_KEPT: usize = 512;
/// Streams that came to their end whose number is remembered, to name the right error.
const ENDED_KEPT: usize = 64;

/// How far one message of a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Half {
    /// Its head is awaited.
    #[default]
    Head,
    /// Its data and trailers are.
    Body,
    Ended,
}

/// What the task of a stream waits for.
pub(super) mod interest {
    pub(in super::super) const READ: u8 = 1;
    pub(in super::super) const WRITE: u8 = 2;
    pub(in super::super) const RESET: u8 = 4;
    pub(in super::super) const ANY: u8 = READ | WRITE | RESET;
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: u32,
    /// A handle, or a queued arrival, still looks at it.
    pub(super) is_held: bool,
    /// Over as far as the protocol goes: it counts no more and frames do not find it.
    pub(super) is_closed: bool,
    /// We send to HEAD: a length without data is right.
    pub(super) to_head: bool,
    pub(super) send: Half,
    pub(super) receive: Half,
    pub(super) error: Option<StreamError>,
    /// What we may send; less than nothing after the peer lowered its initial window.
    pub(super) send_window: i32,
    /// What the peer may send.
    pub(super) receive_window: i32,
    /// Used and not yet given back.
    pub(super) due: u32,
    /// Length the peer has announced.
    pub(super) expected: Option<u64>,
    pub(super) arrived: u64,
    pub(super) body: Body,
    pub(super) heads: VecDeque<(Fields, bool)>,
    pub(super) trailers: Option<Fields>,
    interest: u8,
    waker: Option<Waker>,
    /// Bytes queued in the output's epoch.
    pub(super) epoch: u32,
    pub(super) queued: u32,
    pub(super) born: Instant,
}

impl Slot {
    fn new(now: Instant) -> Self {
        Self {
            id: 0,
            is_held: false,
            is_closed: true,
            to_head: false,
            send: Half::Head,
            receive: Half::Head,
            error: None,
            send_window: 0,
            receive_window: 0,
            due: 0,
            expected: None,
            arrived: 0,
            body: Body::default(),
            heads: VecDeque::new(),
            trailers: None,
            interest: 0,
            waker: None,
            epoch: 0,
            queued: 0,
            born: now,
        }
    }

    /// Both messages are complete, or there is nothing more to come of them.
    pub(super) fn is_over(&self) -> bool {
        self.error.is_some() || (self.send == Half::Ended && self.receive == Half::Ended)
    }
}

#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Number and slot of what is not closed, ascending: streams begin in that order.
    live: VecDeque<(u32, u32)>,
    reset: VecDeque<u32>,
    ended: VecDeque<u32>,
    /// Slots whose task waits for room to write.
    writers: usize,
}

impl Streams {
    pub(super) fn get(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(slot as usize)
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots.get_mut(slot as usize)
    }

    /// How many are not closed.
    pub(super) fn open(&self) -> usize {
        self.live.len()
    }

    /// How many tasks wait for room to write.
    pub(super) fn writers(&self) -> usize {
        self.writers
    }

    /// The slot of an open stream. Numbers lie dense, so that the first guess is mostly right.
    pub(super) fn find(&self, id: u32) -> Option<u32> {
        let (first, _) = *self.live.front()?;
        let guess = (id.checked_sub(first)? / 2) as usize;
        match self.live.get(guess) {
            Some(&(found, slot)) if found == id => Some(slot),
            _ => {
                let at = self.live.binary_search_by_key(&id, |&(id, _)| id).ok()?;
                self.live.get(at).map(|&(_, slot)| slot)
            }
        }
    }

    /// A slot for the stream `id`, which is the highest so far.
    pub(super) fn begin(&mut self, id: u32, windows: (i32, i32), now: Instant) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::new(now));
            (self.slots.len() - 1) as u32
        });
        if let Some(place) = self.slots.get_mut(slot as usize) {
            place.id = id;
            place.is_held = true;
            place.is_closed = false;
            place.to_head = false;
            place.send = Half::Head;
            place.receive = Half::Head;
            place.error = None;
            (place.send_window, place.receive_window) = windows;
            place.due = 0;
            place.expected = None;
            place.arrived = 0;
            place.queued = 0;
            place.born = now;
        }
        self.live.push_back((id, slot));
        slot
    }

    /// Takes a stream from those that frames find. `was_reset`: by us, and the peer may not know yet.
    pub(super) fn close(&mut self, slot: u32, was_reset: bool) {
        let Some(place) = self.slots.get_mut(slot as usize) else { return };
        if std::mem::replace(&mut place.is_closed, true) {
            return;
        }
        let id = place.id;
        if let Ok(at) = self.live.binary_search_by_key(&id, |&(id, _)| id) {
            self.live.remove(at);
        }
        if was_reset {
            self.remember_reset(id);
        } else {
            if self.ended.len() == ENDED_KEPT {
                self.ended.pop_front();
            }
            self.ended.push_back(id);
        }
    }

    /// Late frames of `id` are ignored from now on.
    pub(super) fn remember_reset(&mut self, id: u32) {
        if self.reset.len() == RESET_KEPT {
            self.reset.pop_front();
        }
        self.reset.push_back(id);
    }

    pub(super) fn was_reset(&self, id: u32) -> bool {
        self.reset.contains(&id)
    }

    pub(super) fn has_ended(&self, id: u32) -> bool {
        self.ended.contains(&id)
    }

    /// Gives a slot back that nobody holds any more; its body is empty by then.
    pub(super) fn recycle(&mut self, slot: u32) {
        self.forget_interest(slot);
        if let Some(place) = self.slots.get_mut(slot as usize) {
            place.is_held = false;
            place.waker = None;
            place.trailers = None;
            place.heads.clear();
            self.free.push(slot);
        }
    }

    /// Bytes received and not used, over all slots.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn held_bytes(&self) -> usize {
        self.slots.iter().map(|slot| slot.body.len()).sum()
    }

    /// Slots are kept for the next streams.
    pub(super) fn has_slots(&self) -> bool {
        !self.slots.is_empty()
    }

    /// Somebody still looks at a slot.
    pub(super) fn are_held(&self) -> bool {
        self.free.len() < self.slots.len()
    }

    /// Gives back what only streams need, if there are none.
    pub(super) fn trim(&mut self) {
        if !self.are_held() {
            self.slots = Vec::new();
            self.free = Vec::new();
            self.live = VecDeque::new();
        }
    }

    pub(super) fn live(&self) -> impl Iterator<Item = (u32, u32)> {
        self.live.iter().copied()
    }

    /// The `at`-th open stream.
    pub(super) fn live_at(&self, at: usize) -> Option<(u32, u32)> {
        self.live.get(at).copied()
    }

    /// Where the first open stream above `id` stands.
    pub(super) fn live_after(&self, id: u32) -> usize {
        self.live.partition_point(|&(live, _)| live <= id)
    }

    /// The task of `slot` waits for any of `what`.
    pub(super) fn wait(&mut self, slot: u32, what: u8, cx: &Context<'_>) {
        let Some(place) = self.slots.get_mut(slot as usize) else { return };
        if what & interest::WRITE & !place.interest != 0 {
            self.writers += 1;
        }
        place.interest |= what;
        match &mut place.waker {
            Some(present) if present.will_wake(cx.waker()) => {}
            other => *other = Some(cx.waker().clone()),
        }
    }

    /// Whether the task of `slot` waits for room to write.
    pub(super) fn is_writer(&self, slot: u32) -> bool {
        self.get(slot).is_some_and(|place| place.interest & interest::WRITE != 0)
    }

    /// Wakes the task of `slot` if it waits for any of `what`: once, until it waits again.
    pub(super) fn event(&mut self, slot: u32, what: u8) {
        if self.get(slot).is_some_and(|place| place.interest & what != 0) {
            self.forget_interest(slot);
            if let Some(waker) = self.get(slot).and_then(|place| place.waker.as_ref()) {
                waker.wake_by_ref();
            }
        }
    }

    fn forget_interest(&mut self, slot: u32) {
        if let Some(place) = self.slots.get_mut(slot as usize) {
            if place.interest & interest::WRITE != 0 {
                self.writers -= 1;
            }
            place.interest = 0;
        }
    }
}
