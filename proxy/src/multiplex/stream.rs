//! What the task of a request holds of its stream, in either role.

use std::rc::Rc;
use std::task::{Context, Poll};

use super::error::StreamError;
use super::shared::Shared;
use crate::http2::{ErrorCode, Fields};

/// One stream. Dropped before both messages are complete, it is reset: `CANCEL`, or `NO_ERROR` where our own message
/// was complete and the rest of the peer's is of no use.
#[derive(Debug)]
pub struct Stream {
    shared: Rc<Shared>,
    slot: u32,
}

/// What can be read of a message now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Available {
    /// [`Stream::with_data`] has at least one byte.
    Data,
    /// Everything was used; [`Stream::trailers`] may have some.
    End,
}

impl Stream {
    pub(super) fn new(shared: Rc<Shared>, slot: u32) -> Self {
        Self { shared, slot }
    }

    /// The next head of the peer's answer, and whether it is the whole answer: interim heads (1xx), then the final one.
    /// Of a server's streams there is none: theirs came with [`super::Incoming`].
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Fields, bool), StreamError>> {
        self.shared.drive().poll_head(self.slot, cx)
    }

    /// Waits until there is data or an end.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Available, StreamError>> {
        self.shared.drive().poll_data(self.slot, cx)
    }

    /// Gives `use_it` what has come, or as much of it as lies together, and takes off what it says it has used. What was
    /// used is given back to the peer as window, in batches. Nothing there: an empty slice.
    pub fn with_data<R>(&mut self, use_it: impl FnOnce(&[u8]) -> (usize, R)) -> R {
        // Lent out of the machine, so that `use_it` may do with other streams of this connection what it wants.
        let lent = self.shared.drive().lend_data(self.slot);
        let (used, result) = use_it(lent.data());
        self.shared.change(|machine| machine.settle_data(self.slot, lent, used));
        result
    }

    /// Bytes that have come and were not used.
    pub fn received(&self) -> usize {
        self.shared.read().received(self.slot)
    }

    /// What has come and was not used is the rest of the peer's message: neither data nor trailers follow.
    pub fn ends_after_data(&self) -> bool {
        self.shared.read().ends_after_data(self.slot)
    }

    /// There is nothing to read: no data, no end, no error.
    pub fn is_quiet(&self) -> bool {
        self.shared.read().is_quiet(self.slot)
    }

    /// The peer's trailers, once, after [`Available::End`].
    pub fn trailers(&mut self) -> Option<Fields> {
        self.shared.drive().take_trailers(self.slot)
    }

    /// How many bytes [`send_data`](Self::send_data) takes now; waits while that is none.
    pub fn poll_capacity(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, StreamError>> {
        self.shared.drive().poll_capacity(self.slot, cx)
    }

    /// How many bytes would be taken now, without waiting.
    pub fn capacity(&self) -> usize {
        self.shared.read().capacity(self.slot)
    }

    /// Queues a head: of an answer, interim (1xx) or final. `end`: it is the whole message.
    ///
    /// # Errors
    /// The stream is over.
    pub fn send_head(&mut self, head: &Fields, end: bool) -> Result<(), StreamError> {
        self.shared.change(|machine| machine.send_head(self.slot, head, end))
    }

    /// Queues as much of `data` as there is [capacity](Self::poll_capacity) for and says how much that was. `end` is
    /// sent with the last byte, if that is among them; with empty `data` always.
    ///
    /// # Errors
    /// The stream is over.
    pub fn send_data(&mut self, data: &[u8], end: bool) -> Result<usize, StreamError> {
        self.shared.change(|machine| machine.send_data(self.slot, data, end))
    }

    /// Queues trailers, which end the message.
    ///
    /// # Errors
    /// The stream is over.
    pub fn send_trailers(&mut self, trailers: &Fields) -> Result<(), StreamError> {
        self.shared.change(|machine| machine.send_trailers(self.slot, trailers))
    }

    /// Ends the stream at once, both ways.
    pub fn reset(&mut self, code: ErrorCode) {
        self.shared.change(|machine| machine.reset(self.slot, code));
    }

    /// Waits until the peer resets the stream or the connection is lost: for those who only send, or wait for others.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        self.shared.drive().poll_reset(self.slot, cx)
    }

    /// Why the stream is over, if it did not come to its proper end.
    pub fn error(&self) -> Option<StreamError> {
        self.shared.read().stream_error(self.slot)
    }

    /// The connection takes no further streams: it was told to go, or is over.
    pub fn is_leaving(&self) -> bool {
        !self.shared.read().is_alive()
    }

    /// Both messages are complete.
    pub fn is_complete(&self) -> bool {
        self.shared.read().is_complete(self.slot)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.change(|machine| machine.release(self.slot));
    }
}
