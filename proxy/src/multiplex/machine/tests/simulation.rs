//! A client and a server talk through pipes that cut their bytes anywhere, with thousands of random steps. Every byte
//! and every end arrives once and in order, or the stream's error does; nobody waits for what is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use super::super::super::settings::Settings;
use super::super::super::stream::Available;
use super::super::Machine;
use crate::http2::{ErrorCode, Fields};

/// A task that waits, or was woken.
#[derive(Default)]
struct Task(AtomicBool);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Waiting {
    for_head: bool,
    for_data: bool,
    for_room: bool,
}

/// One end of a stream, and what it has to say and to hear.
struct Talk {
    slot: u32,
    number: u32,
    task: Arc<Task>,
    waiting: Waiting,
    /// Bytes to send, and sent so far.
    length: usize,
    sent: usize,
    has_sent_head: bool,
    has_sent_end: bool,
    with_trailers: bool,
    heard: usize,
    /// What the other end will say.
    announced: Option<usize>,
    has_head: bool,
    has_end: bool,
}

impl Talk {
    fn new(slot: u32, number: u32, chance: &mut fastrand::Rng) -> Self {
        let length = match chance.u8(0..10) {
            0..4 => 0,
            4..8 => chance.usize(1..2000),
            _ => chance.usize(1..200_000),
        };
        Self {
            slot,
            number,
            task: Arc::default(),
            waiting: Waiting::default(),
            length,
            sent: 0,
            has_sent_head: false,
            has_sent_end: false,
            with_trailers: chance.bool(),
            heard: 0,
            announced: None,
            has_head: false,
            has_end: false,
        }
    }

    fn is_done(&self) -> bool {
        self.has_sent_end && self.has_end
    }
}

/// What a message consists of: every byte is known at every place.
fn byte(number: u32, from_client: bool, at: usize) -> u8 {
    ((at as u32).wrapping_mul(31).wrapping_add(number.wrapping_mul(7)).wrapping_add(u32::from(from_client)) % 253) as u8
}

struct Side {
    machine: Machine,
    is_client: bool,
    talks: Vec<Talk>,
    cancelled: usize,
}

impl Side {
    fn send(&mut self, at: usize, chance: &mut fastrand::Rng) -> bool {
        let talk = &mut self.talks[at];
        if talk.has_sent_end {
            return true;
        }
        if !talk.has_sent_head {
            if chance.u8(0..4) == 0 && self.machine.send_head(talk.slot, &answer(100, 0, false), false).is_err() {
                return false;
            }
            let ends = talk.length == 0 && !talk.with_trailers;
            let length = chance.bool();
            if self.machine.send_head(talk.slot, &answer(200, talk.length, length), ends).is_err() {
                return false;
            }
            talk.has_sent_head = true;
            talk.has_sent_end = ends;
            return true;
        }
        let waker = Waker::from(Arc::clone(&talk.task));
        if talk.sent == talk.length {
            if talk.with_trailers {
                let mut trailers = Fields::new();
                trailers.push(b"x-sum", talk.length.to_string().as_bytes());
                talk.has_sent_end = true;
                return self.machine.send_trailers(talk.slot, &trailers).is_ok();
            }
            talk.has_sent_end = true;
            return self.machine.send_data(talk.slot, &[], true).is_ok();
        }
        match self.machine.poll_capacity(talk.slot, &Context::from_waker(&waker)) {
            Poll::Pending => talk.waiting.for_room = true,
            Poll::Ready(Err(_)) => return false,
            Poll::Ready(Ok(room)) => {
                assert!(room > 0);
                let count = chance.usize(1..=(talk.length - talk.sent));
                let data: Vec<u8> =
                    (talk.sent..talk.sent + count).map(|at| byte(talk.number, self.is_client, at)).collect();
                let end = talk.sent + count == talk.length && !talk.with_trailers;
                let Ok(taken) = self.machine.send_data(talk.slot, &data, end) else { return false };
                assert_eq!(taken, count.min(room));
                talk.sent += taken;
                talk.has_sent_end = end && taken == count;
            }
        }
        true
    }

    /// False when the stream has failed.
    fn hear(&mut self, at: usize, chance: &mut fastrand::Rng) -> bool {
        let talk = &mut self.talks[at];
        let waker = Waker::from(Arc::clone(&talk.task));
        let cx = Context::from_waker(&waker);
        if self.is_client && !talk.has_head {
            match self.machine.poll_head(talk.slot, &cx) {
                Poll::Pending => talk.waiting.for_head = true,
                Poll::Ready(Err(_)) => return false,
                Poll::Ready(Ok((head, ends))) => {
                    talk.has_head = head.get(b":status") == Some(b"200");
                    talk.announced = announced(&head);
                    assert!(talk.has_head || !ends);
                }
            }
            return true;
        }
        match self.machine.poll_data(talk.slot, &cx) {
            Poll::Pending => talk.waiting.for_data = true,
            Poll::Ready(Err(_)) => return false,
            Poll::Ready(Ok(Available::End)) => {
                assert_eq!(Some(talk.heard), talk.announced, "{}: bytes are missing", talk.number);
                talk.has_end = true;
                if let Some(trailers) = self.machine.take_trailers(talk.slot) {
                    assert_eq!(trailers.get(b"x-sum"), Some(talk.heard.to_string().as_bytes()));
                }
            }
            Poll::Ready(Ok(Available::Data)) => {
                assert!(!talk.has_end, "data after the end");
                let lent = self.machine.lend_data(talk.slot);
                assert!(!lent.data().is_empty());
                let used = chance.usize(0..=lent.data().len());
                for seen in &lent.data()[..used] {
                    assert_eq!(*seen, byte(talk.number, !self.is_client, talk.heard));
                    talk.heard += 1;
                }
                self.machine.settle_data(talk.slot, lent, used);
            }
        }
        true
    }

    /// Nobody waits for what is there.
    fn check_wakes(&mut self) {
        for talk in &mut self.talks {
            if talk.task.0.swap(false, Ordering::Relaxed) {
                talk.waiting = Waiting::default();
            }
            let stream = self.machine.streams.get(talk.slot).expect("held");
            let failed = stream.error.is_some();
            // Room is told when everything is written.
            let has_room = self.machine.output().is_empty() && self.machine.capacity(talk.slot) > 0;
            assert!(!(talk.waiting.for_room && (failed || has_room)), "{}: room was not told", talk.number);
            let has_data = !stream.body.is_empty() || stream.receive == super::super::Half::Ended;
            assert!(!(talk.waiting.for_data && (failed || has_data)), "{}: data was not told", talk.number);
            assert!(!(talk.waiting.for_head && (failed || !stream.heads.is_empty())), "{}: head", talk.number);
        }
    }

    fn finish(&mut self, at: usize) {
        let talk = self.talks.swap_remove(at);
        self.machine.release(talk.slot);
    }
}

fn announced(head: &Fields) -> Option<usize> {
    std::str::from_utf8(head.get(b"x-length")?).ok()?.parse().ok()
}

fn answer(status: u16, length: usize, with_length: bool) -> Fields {
    let mut head = Fields::new();
    head.push(b":status", status.to_string().as_bytes());
    head.push(b"x-length", length.to_string().as_bytes());
    if with_length {
        head.push(b"content-length", length.to_string().as_bytes());
    }
    head
}

fn request(number: u32, length: usize, with_length: bool) -> Fields {
    let mut head = Fields::new();
    head.push(b":method", b"POST");
    head.push(b":scheme", b"http");
    head.push(b":authority", b"orders");
    head.push(b":path", b"/");
    head.push(b"x-number", number.to_string().as_bytes());
    head.push(b"x-length", length.to_string().as_bytes());
    if with_length {
        head.push(b"content-length", length.to_string().as_bytes());
    }
    head
}

/// Moves what one machine has queued into the pipe, and some of the pipe into the other.
fn carry(from: &mut Side, pipe: &mut Vec<u8>, to: &mut Side, now: Instant, chance: &mut fastrand::Rng) {
    let take = if chance.bool() { from.machine.output().len() } else { from.machine.output().len().min(100) };
    pipe.extend_from_slice(&from.machine.output()[..take]);
    from.machine.written(take);
    if from.machine.output().is_empty() {
        from.machine.flushed();
    }
    let give = if chance.bool() { pipe.len() } else { chance.usize(0..=pipe.len()) };
    let used = to.machine.receive(&pipe[..give], now);
    pipe.drain(..used);
    assert_eq!(to.machine.over, None, "no rule is broken between us");
}

fn run(seed: u64, streams: u32, cancels: bool) {
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut now = crate::clock::now();
    let settings = |chance: &mut fastrand::Rng| Settings {
        max_streams: chance.u32(1..20),
        stream_window: if chance.bool() { chance.u32(1000..100_000) } else { 256 * 1024 },
        connection_window: chance.u32(65_535..300_000),
        out_bytes: chance.u32(2000..300_000),
        ..Settings::default()
    };
    let side = |machine, is_client| Side { machine, is_client, talks: Vec::new(), cancelled: 0 };
    let mut client = side(Machine::client(settings(&mut chance), now), true);
    let mut server = side(Machine::server(settings(&mut chance), now), false);
    let (mut up, mut down) = (Vec::new(), Vec::new());
    let (mut begun, mut refused, mut completed) = (0, 0, 0);
    let mut steps = 0u64;
    while begun < streams || !client.talks.is_empty() || !server.talks.is_empty() {
        steps += 1;
        assert!(steps < 2_000_000, "seed {seed}: stuck with {} and {} streams", client.talks.len(), server.talks.len());
        now += Duration::from_micros(chance.u64(0..2000));
        match chance.u8(0..10) {
            0 if begun < streams && client.machine.can_open().is_ok() => {
                let mut talk = Talk::new(0, begun, &mut chance);
                let ends = talk.length == 0 && !talk.with_trailers;
                let head = request(begun, talk.length, chance.bool());
                talk.slot = client.machine.open(&head, ends).expect("it can");
                (talk.has_sent_head, talk.has_sent_end) = (true, ends);
                client.talks.push(talk);
                begun += 1;
            }
            1 => {
                if let Some(arrived) = server.machine.next_arrived() {
                    let number = arrived.head.get(b"x-number").expect("sent");
                    let number = std::str::from_utf8(number).expect("digits").parse().expect("digits");
                    let mut talk = Talk::new(arrived.slot, number, &mut chance);
                    talk.announced = announced(&arrived.head);
                    server.talks.push(talk);
                }
            }
            2 | 3 => carry(&mut client, &mut up, &mut server, now, &mut chance),
            4 | 5 => carry(&mut server, &mut down, &mut client, now, &mut chance),
            _ => {
                let side = if chance.bool() { &mut client } else { &mut server };
                if side.talks.is_empty() {
                    continue;
                }
                let at = chance.usize(0..side.talks.len());
                if cancels && chance.u16(0..500) == 0 {
                    side.cancelled += 1;
                    if chance.bool() {
                        side.machine.reset(side.talks[at].slot, ErrorCode::CANCEL);
                    }
                    side.finish(at);
                    continue;
                }
                let is_well = if chance.bool() { side.send(at, &mut chance) } else { side.hear(at, &mut chance) };
                if !is_well {
                    let error = side.machine.stream_error(side.talks[at].slot).expect("a reason");
                    assert!(cancels || error.is_unprocessed(), "seed {seed}: {error:?}");
                    refused += 1;
                    side.finish(at);
                } else if side.talks[at].is_done() {
                    completed += usize::from(side.is_client);
                    side.finish(at);
                }
            }
        }
        client.check_wakes();
        server.check_wakes();
    }
    assert!(cancels || completed + refused == streams as usize, "seed {seed}");
    for side in [&client, &server] {
        assert_eq!(side.machine.open_streams(), 0, "seed {seed}");
        assert_eq!(side.machine.streams.writers(), 0, "seed {seed}");
    }
    // All windows of the connection came back, but for what is too little for a frame.
    while !client.machine.output().is_empty()
        || !server.machine.output().is_empty()
        || !up.is_empty()
        || !down.is_empty()
    {
        carry(&mut client, &mut up, &mut server, now, &mut chance);
        carry(&mut server, &mut down, &mut client, now, &mut chance);
    }
    for (from, to) in [(&client.machine, &server.machine), (&server.machine, &client.machine)] {
        assert_eq!(from.send_window, to.receive_window, "seed {seed}: the windows of both ends differ");
        assert_eq!(to.receive_window as u32 + to.due, to.settings.connection_window, "seed {seed}: window was lost");
    }
}

#[test]
fn every_byte_and_every_end_arrives_once_and_in_order() {
    for seed in 0..60 {
        run(seed, 40, false);
    }
}

#[test]
fn cancelled_streams_lose_no_window_and_disturb_no_other() {
    for seed in 1000..1060 {
        run(seed, 60, true);
    }
}
