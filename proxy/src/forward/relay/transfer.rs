//! One direction of a message, piece by piece from one side to the other.
//!
//! Nothing is read that cannot be written: what a slow receiver holds up stays where it is, until its sender has used up
//! its window or its socket.

use std::task::{Context, Poll};

use super::side::{Available, Broken, Side};
use crate::http2::Fields;
use crate::stream::Text;

/// A body up to this is kept until its answer begins, to be sent again where an endpoint did nothing with it. 4 KiB:
/// most calls of gRPC, and what a text begins with.
const KEPT: usize = 4096;

/// Why a transfer stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::forward) enum Stopped {
    /// The source gives nothing that makes sense any more.
    Source(Broken),
    /// The sink takes nothing any more.
    Sink(Broken),
}

#[derive(Debug)]
enum Kept {
    /// Nobody will ask for it again.
    Nothing,
    /// All that was taken from the source so far.
    All(Text),
}

#[derive(Debug)]
pub(in crate::forward) struct Transfer {
    /// The head said that there is none.
    is_none: bool,
    /// What the head said of it. A sink that takes no trailers has all of it with the last byte, whenever its source
    /// says that this was the end.
    length: Option<u64>,
    kept: Kept,
    /// Bytes of what was kept that this try has sent.
    resent: usize,
    /// The source has ended; with these trailers.
    source_ended: bool,
    trailers: Option<Fields>,
    /// The sink was told of the end.
    ended: bool,
    flushed: bool,
    has_failed: bool,
    /// It is the source that has to move.
    waits_for_source: bool,
    /// Bytes of the body that were taken from the source.
    pub(in crate::forward) moved: u64,
}

impl Transfer {
    /// A body that passes once.
    pub(in crate::forward) fn once() -> Self {
        Self {
            is_none: false,
            length: None,
            kept: Kept::Nothing,
            resent: 0,
            source_ended: false,
            trailers: None,
            ended: false,
            flushed: false,
            has_failed: false,
            waits_for_source: false,
            moved: 0,
        }
    }

    /// A body that can begin again as long as it is short.
    pub(in crate::forward) fn repeatable() -> Self {
        Self { kept: Kept::All(Text::default()), ..Self::once() }
    }

    /// Its head told its length.
    pub(in crate::forward) fn with_length(self, length: Option<u64>) -> Self {
        Self { length, ..self }
    }

    /// No body at all; the head said so.
    pub(in crate::forward) fn none() -> Self {
        Self { is_none: true, source_ended: true, ended: true, ..Self::repeatable() }
    }

    /// Everything was taken, and is on its way.
    pub(in crate::forward) fn is_finished(&self) -> bool {
        self.ended && self.flushed
    }

    pub(in crate::forward) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// It is the source that has to move, not the sink.
    pub(in crate::forward) fn waits_for_source(&self) -> bool {
        self.waits_for_source
    }

    /// All that was taken can be sent again.
    pub(in crate::forward) fn is_repeatable(&self) -> bool {
        matches!(self.kept, Kept::All(_))
    }

    /// From here on it passes once: the answer has begun.
    pub(in crate::forward) fn forget(&mut self) {
        // What this try has not sent yet is still needed.
        if !self.has_kept() {
            self.kept = Kept::Nothing;
            self.resent = 0;
        }
    }

    /// Starts over, to another side.
    pub(in crate::forward) fn rewind(&mut self) {
        debug_assert!(self.is_repeatable(), "a body that was not kept cannot be sent again");
        self.resent = 0;
        self.has_failed = false;
        self.ended = self.is_none;
        self.flushed = false;
    }

    /// The head tells that no body follows.
    pub(in crate::forward) fn is_none(&self) -> bool {
        self.is_none
    }

    pub(in crate::forward) fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_ref()
    }

    /// Moves what can be moved; ready when the sink has all of it.
    pub(in crate::forward) fn poll(
        &mut self,
        source: &mut impl Side,
        sink: &mut impl Side,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Stopped>> {
        match self.poll_move(source, sink, cx) {
            Poll::Ready(Err(stopped)) => {
                self.has_failed = true;
                Poll::Ready(Err(stopped))
            }
            // A side that says it is blocked may still hold what it has taken.
            Poll::Pending => match sink.poll_flush(cx) {
                Poll::Ready(Err(broken)) => {
                    self.has_failed = true;
                    Poll::Ready(Err(Stopped::Sink(broken)))
                }
                _ => Poll::Pending,
            },
            done @ Poll::Ready(Ok(())) => done,
        }
    }

    fn poll_move(
        &mut self,
        source: &mut impl Side,
        sink: &mut impl Side,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Stopped>> {
        self.waits_for_source = false;
        loop {
            if self.ended {
                let flushed = sink.poll_flush(cx).map_err(Stopped::Sink);
                self.flushed |= matches!(flushed, Poll::Ready(Ok(())));
                return flushed;
            }
            if self.has_kept() {
                let room = ready(sink.poll_room(cx), Stopped::Sink)?;
                let Poll::Ready(room) = room else { return Poll::Pending };
                self.send_kept(sink, room);
                continue;
            }
            self.source_ended |= self.length == Some(self.moved) && !sink.takes_trailers();
            if self.source_ended {
                sink.end(self.trailers.as_ref());
                self.ended = true;
                continue;
            }
            match source.poll_data(cx).map_err(Stopped::Source)? {
                Poll::Pending => {
                    self.waits_for_source = true;
                    return Poll::Pending;
                }
                Poll::Ready(Available::End) => {
                    self.source_ended = true;
                    self.trailers = source.take_trailers();
                }
                Poll::Ready(Available::Data) => {
                    let Poll::Ready(room) = ready(sink.poll_room(cx), Stopped::Sink)? else { return Poll::Pending };
                    self.pass(source, sink, room);
                }
            }
        }
    }

    fn pass(&mut self, source: &mut impl Side, sink: &mut impl Side, room: usize) {
        source.with_data(|bytes, is_last| {
            let count = bytes.len().min(room);
            let ends = is_last && count == bytes.len();
            let (now, _) = bytes.split_at(count);
            keep(&mut self.kept, now);
            if let Kept::All(kept) = &self.kept {
                self.resent = kept.len();
            }
            sink.write(now, ends);
            self.moved += count as u64;
            self.source_ended |= ends;
            self.ended |= ends;
            count
        });
    }

    fn has_kept(&self) -> bool {
        matches!(&self.kept, Kept::All(bytes) if self.resent < bytes.len())
    }

    fn send_kept(&mut self, sink: &mut impl Side, room: usize) {
        let Kept::All(bytes) = &self.kept else { return };
        let rest = bytes.get(self.resent..).unwrap_or_default();
        let count = rest.len().min(room);
        let ends = self.source_ended && self.trailers.is_none() && count == rest.len();
        let (now, _) = rest.split_at(count);
        sink.write(now, ends);
        self.resent += count;
        self.ended |= ends;
    }
}

fn keep(kept: &mut Kept, bytes: &[u8]) {
    let Kept::All(all) = kept else { return };
    if all.len() + bytes.len() > KEPT {
        *kept = Kept::Nothing;
        return;
    }
    all.begin().extend_from_slice(bytes);
}

/// An error out of a poll, told as the side it came from.
fn ready<T>(poll: Poll<Result<T, Broken>>, side: fn(Broken) -> Stopped) -> Result<Poll<T>, Stopped> {
    match poll {
        Poll::Ready(Ok(value)) => Ok(Poll::Ready(value)),
        Poll::Ready(Err(broken)) => Err(side(broken)),
        Poll::Pending => Ok(Poll::Pending),
    }
}
