//! What streams send: heads, data as far as there is room, trailers.

use std::task::{Context, Poll};

use super::super::error::{NotOpened, StreamError};
use super::streams::{Half, interest};
use super::{Machine, Role, SHARE};
use crate::http2::Fields;
use crate::http2::frame::MAX_STREAM;

/// DATA cut shorter than this by a window is no useful frame: a peer that opens windows by single bytes has to pay.
const CRUMB: usize = 1024;

impl Machine {
    /// Whether [`open`](Self::open) would do.
    pub(in crate::multiplex) fn can_open(&self) -> Result<(), NotOpened> {
        if self.role == Role::Server || !self.is_alive() || self.next > MAX_STREAM {
            return Err(NotOpened::GoingAway);
        }
        let is_full =
            self.streams.open() >= self.peer.max_streams as usize || self.out.len() >= self.settings.out_bytes as usize;
        if is_full { Err(NotOpened::Full) } else { Ok(()) }
    }

    pub(in crate::multiplex) fn takes_tunnels(&self) -> bool {
        self.peer.takes_tunnels
    }

    pub(in crate::multiplex) fn open(&mut self, head: &Fields, end: bool) -> Result<u32, NotOpened> {
        self.can_open()?;
        let id = self.next;
        self.next += 2;
        let windows = (self.peer.initial_window as i32, self.settings.stream_window as i32);
        let slot = self.streams.begin(id, windows, self.now);
        if let Some(stream) = self.streams.get_mut(slot) {
            stream.to_head = head.get(b":method") == Some(b"HEAD");
        }
        self.idle_since = None;
        self.queue_head(slot, id, head, end);
        Ok(slot)
    }

    fn queue_head(&mut self, slot: u32, id: u32, head: &Fields, end: bool) {
        self.out.head(id, head, end, &mut self.encoder, self.peer.max_frame);
        self.floods.useful();
        if let Some(stream) = self.streams.get_mut(slot) {
            stream.send = if end { Half::Ended } else { Half::Body };
        }
        if end {
            self.close_if_complete(slot);
        }
    }

    /// The stream's number, if it can still send.
    fn sender(&self, slot: u32) -> Result<u32, StreamError> {
        let stream = self.streams.get(slot).ok_or(StreamError::ConnectionLost)?;
        match stream.error {
            Some(error) => Err(error),
            None => Ok(stream.id),
        }
    }

    pub(in crate::multiplex) fn send_head(&mut self, slot: u32, head: &Fields, end: bool) -> Result<(), StreamError> {
        let id = self.sender(slot)?;
        if self.streams.get(slot).is_some_and(|stream| stream.send != Half::Head) {
            debug_assert!(false, "a second final head");
            return Ok(());
        }
        let is_interim =
            self.role == Role::Server && head.get(b":status").is_some_and(|status| status.starts_with(b"1"));
        self.queue_head(slot, id, head, end);
        if is_interim && let Some(stream) = self.streams.get_mut(slot) {
            stream.send = Half::Head;
        }
        Ok(())
    }

    pub(in crate::multiplex) fn send_trailers(&mut self, slot: u32, trailers: &Fields) -> Result<(), StreamError> {
        let id = self.sender(slot)?;
        if self.streams.get(slot).is_some_and(|stream| stream.send == Half::Body) {
            self.queue_head(slot, id, trailers, true);
        }
        Ok(())
    }

    pub(in crate::multiplex) fn send_data(&mut self, slot: u32, data: &[u8], end: bool) -> Result<usize, StreamError> {
        let id = self.sender(slot)?;
        let count = self.capacity(slot).min(data.len());
        let is_all = count == data.len();
        let end = end && is_all;
        let epoch = self.out.epoch();
        let Some(stream) = self.streams.get_mut(slot).filter(|stream| stream.send == Half::Body) else { return Ok(0) };
        if count == 0 && !end {
            return Ok(0);
        }
        if stream.epoch != epoch {
            stream.epoch = epoch;
            stream.queued = 0;
        }
        stream.queued += count as u32;
        stream.send_window -= count as i32;
        self.send_window -= count as i32;
        self.wrote_last = id;
        if is_all || count >= CRUMB {
            self.floods.useful();
        }
        let mut rest = data.get(..count).unwrap_or_default();
        loop {
            let (now, later) = rest.split_at(rest.len().min(self.peer.max_frame as usize));
            self.out.data(id, now, end && later.is_empty());
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        if end {
            if let Some(stream) = self.streams.get_mut(slot) {
                stream.send = Half::Ended;
            }
            self.close_if_complete(slot);
        }
        Ok(count)
    }

    /// How much data a stream may queue now.
    pub(in crate::multiplex) fn capacity(&self, slot: u32) -> usize {
        let Some(stream) = self.streams.get(slot) else { return 0 };
        if stream.send != Half::Body || stream.error.is_some() {
            return 0;
        }
        let window = stream.send_window.min(self.send_window).max(0) as usize;
        let room = (self.settings.out_bytes as usize).saturating_sub(self.out.queued_data());
        let queued = if stream.epoch == self.out.epoch() { stream.queued as usize } else { 0 };
        window.min(room).min(SHARE.saturating_sub(queued))
    }

    pub(in crate::multiplex) fn poll_capacity(
        &mut self,
        slot: u32,
        cx: &Context<'_>,
    ) -> Poll<Result<usize, StreamError>> {
        if let Err(error) = self.sender(slot) {
            return Poll::Ready(Err(error));
        }
        match self.capacity(slot) {
            0 => {
                self.streams.wait(slot, interest::WRITE, cx);
                Poll::Pending
            }
            count => Poll::Ready(Ok(count)),
        }
    }

    /// There is room again: wakes those who wait for it, from the stream after the one that wrote last. All of them: one
    /// that was woken may have nothing to write by now, and nobody would tell the next.
    pub(super) fn wake_writers(&mut self) {
        if self.streams.writers() == 0 {
            return;
        }
        let open = self.streams.open();
        let first = self.streams.live_after(self.wrote_last);
        for step in 0..open {
            let Some((_, slot)) = self.streams.live_at((first + step) % open) else { return };
            if self.streams.is_writer(slot) && self.capacity(slot) > 0 {
                self.streams.event(slot, interest::WRITE);
            }
        }
    }

    /// Whether somebody waits for a window that the peer keeps shut.
    pub(super) fn note_starving(&mut self) {
        if self.streams.writers() == 0 {
            self.starved_since = None;
            return;
        }
        let is_starving = self.out.is_empty()
            && self.streams.live().all(|(_, slot)| !self.streams.is_writer(slot) || self.capacity(slot) == 0);
        if is_starving {
            self.starved_since.get_or_insert(self.now);
        } else {
            self.starved_since = None;
        }
    }
}
