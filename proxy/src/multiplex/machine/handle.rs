//! What the handle of a stream asks, but for sending.

use std::task::{Context, Poll};
use std::time::Instant;

use super::super::error::StreamError;
use super::super::stream::Available;
use super::streams::{Half, Slot, interest};
use super::{Lent, Machine};
use crate::http2::Fields;

impl Machine {
    pub(in crate::multiplex) fn open_streams(&self) -> usize {
        self.streams.open()
    }

    /// Wakes whoever waits for anything.
    pub(in crate::multiplex) fn nudge(&mut self) {
        for at in 0..self.streams.open() {
            if let Some((_, slot)) = self.streams.live_at(at) {
                self.streams.event(slot, interest::ANY);
            }
        }
    }

    pub(in crate::multiplex) fn idle_since(&self) -> Option<Instant> {
        self.idle_since.filter(|_| self.streams.open() == 0)
    }

    pub(in crate::multiplex) fn is_settled(&self) -> bool {
        self.peer.is_known
    }

    pub(in crate::multiplex) fn is_alive(&self) -> bool {
        self.over.is_none() && !self.is_closing && self.told_to_go.is_none()
    }

    pub(in crate::multiplex) fn poll_reset(&mut self, slot: u32, cx: &Context<'_>) -> Poll<StreamError> {
        if let Some(error) = self.stream_error(slot) {
            return Poll::Ready(error);
        }
        self.streams.wait(slot, interest::RESET, cx);
        Poll::Pending
    }

    pub(in crate::multiplex) fn stream_error(&self, slot: u32) -> Option<StreamError> {
        self.streams.get(slot).and_then(|stream| stream.error)
    }

    pub(in crate::multiplex) fn is_complete(&self, slot: u32) -> bool {
        self.streams.get(slot).is_some_and(|stream| stream.send == Half::Ended && stream.receive == Half::Ended)
    }

    pub(in crate::multiplex) fn poll_head(
        &mut self,
        slot: u32,
        cx: &Context<'_>,
    ) -> Poll<Result<(Fields, bool), StreamError>> {
        let Some(stream) = self.streams.get_mut(slot) else { return Poll::Ready(Err(StreamError::ConnectionLost)) };
        if let Some(head) = stream.heads.pop_front() {
            return Poll::Ready(Ok(head));
        }
        if let Some(error) = stream.error {
            return Poll::Ready(Err(error));
        }
        self.streams.wait(slot, interest::READ, cx);
        Poll::Pending
    }

    pub(in crate::multiplex) fn poll_data(
        &mut self,
        slot: u32,
        cx: &Context<'_>,
    ) -> Poll<Result<Available, StreamError>> {
        let Some(stream) = self.streams.get_mut(slot) else { return Poll::Ready(Err(StreamError::ConnectionLost)) };
        if !stream.body.is_empty() {
            return Poll::Ready(Ok(Available::Data));
        }
        if stream.receive == Half::Ended {
            return Poll::Ready(Ok(Available::End));
        }
        if let Some(error) = stream.error {
            return Poll::Ready(Err(error));
        }
        self.streams.wait(slot, interest::READ, cx);
        Poll::Pending
    }

    /// Neither data, nor an end, nor an error.
    pub(in crate::multiplex) fn is_quiet(&self, slot: u32) -> bool {
        let is_quiet =
            |stream: &Slot| stream.body.is_empty() && stream.receive != Half::Ended && stream.error.is_none();
        self.streams.get(slot).is_some_and(is_quiet)
    }

    pub(in crate::multiplex) fn received(&self, slot: u32) -> usize {
        self.streams.get(slot).map_or(0, |stream| stream.body.len())
    }

    /// Neither data nor trailers follow what has come.
    pub(in crate::multiplex) fn ends_after_data(&self, slot: u32) -> bool {
        self.streams.get(slot).is_some_and(|stream| stream.receive == Half::Ended && stream.trailers.is_none())
    }

    pub(in crate::multiplex) fn take_trailers(&mut self, slot: u32) -> Option<Fields> {
        self.streams.get_mut(slot)?.trailers.take()
    }

    pub(in crate::multiplex) fn lend_data(&mut self, slot: u32) -> Lent {
        self.streams.get_mut(slot).map(|stream| stream.body.lend()).unwrap_or_default()
    }

    /// Takes back what was lent; what was used of it goes back to the peer as window.
    pub(in crate::multiplex) fn settle_data(&mut self, slot: u32, lent: Lent, used: usize) {
        let Some(stream) = self.streams.get_mut(slot) else { return };
        let used = stream.body.settle(lent, used);
        if stream.error.is_none() && stream.receive == Half::Body {
            stream.due += used as u32;
        }
        self.open_window(slot);
        self.give_back(used);
    }
}
