//! One direction of a message: bytes from one connection to the other, framed as the head said.
//!
//! What is staged (a head, or chunks framed anew) and what stands in the source's buffer go out in one write. A pump
//! flushes before it waits, so that one readiness turn makes as few TLS records as possible.

use std::io;
use std::task::{Context, Poll};

use crate::http1::{BodyError, Framing, Piece};
use crate::stream::{Connection, SMALL, give_text, take_text};

/// Bodies longer than this are moved through the large buffer.
const BULK: u64 = 32 * 1024;

/// A body up to this is copied behind its head. 3 KiB: with most heads it fits what a text begins with.
const COPIED: usize = 3 * 1024;

/// Why a pump stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum PumpError {
    #[error("reading: {0}")]
    Read(#[source] io::Error),
    #[error("reading: {0}")]
    Body(#[from] BodyError),
    #[error("writing: {0}")]
    Write(#[source] io::Error),
}

#[derive(Debug)]
pub(super) struct Pump {
    framing: Framing,
    /// Written before anything else; kept until the pump is dropped, so that a bare head can be sent again.
    staged: Vec<u8>,
    staged_sent: usize,
    /// Bytes at the front of the source's buffer that belong to the body and are to be written as they are.
    direct: usize,
    /// Write only the data of chunks: the receiver does not know them.
    unchunk: bool,
    /// All that was written stood in `staged`, and stands there still.
    is_kept: bool,
    /// The beginning of the body was looked for, to go out with the head in one write.
    is_joined: bool,
    /// The last chunk's line went out before the first trailer.
    trailers_begun: bool,
    unflushed: bool,
    has_failed: bool,
    /// All bytes written.
    pub(super) sent: u64,
}

impl Pump {
    /// `staged` goes first, then the body.
    pub(super) fn new(staged: Vec<u8>, framing: Framing, unchunk: bool) -> Self {
        Self {
            framing,
            staged,
            staged_sent: 0,
            direct: 0,
            unchunk,
            is_kept: true,
            is_joined: false,
            trailers_begun: false,
            unflushed: false,
            has_failed: false,
            sent: 0,
        }
    }

    /// A body without a head.
    pub(super) fn bytes() -> Self {
        Self::new(Vec::new(), Framing::UntilClose, false)
    }

    /// Everything is written and the body is at its end.
    pub(super) fn is_finished(&self) -> bool {
        self.framing.is_done() && self.staged_sent == self.staged.len() && self.direct == 0 && !self.unflushed
    }

    /// There is something to write: if it waits, it is for the sink.
    pub(super) fn waits_for_sink(&self) -> bool {
        self.staged_sent < self.staged.len() || self.direct > 0 || self.unflushed
    }

    /// The sink takes nothing any more, or the source gives nothing that makes sense; the pump rests.
    pub(super) fn fail(&mut self) {
        self.has_failed = true;
    }

    pub(super) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// The whole message stands here: it can be written again.
    pub(super) fn is_repeatable(&self) -> bool {
        self.is_kept && self.framing.is_done() && self.direct == 0
    }

    /// Starts over with what was staged, when there is nothing else or nothing was sent.
    pub(super) fn rewind(&mut self) {
        debug_assert!(self.sent == 0 || self.framing.is_done() && self.direct == 0, "a body cannot be sent again");
        self.staged_sent = 0;
        self.unflushed = false;
        self.has_failed = false;
    }

    /// Moves what can be moved; ready when the message is written to its end.
    pub(super) fn poll(
        &mut self,
        source: &mut Connection,
        sink: &mut Connection,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), PumpError>> {
        if !self.is_joined {
            self.is_joined = true;
            if !self.framing.is_done() {
                self.take_buffered(source)?;
                self.copy_small(source);
            }
        }
        loop {
            while self.staged_sent < self.staged.len() || self.direct > 0 {
                match sink.poll_write(cx, &self.staged[self.staged_sent..], &source.data()[..self.direct]) {
                    Poll::Ready(Ok(count)) => self.account(source, count),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(PumpError::Write(error))),
                    Poll::Pending => return Poll::Pending,
                }
            }
            if self.framing.is_done() {
                return self.poll_flush(sink, cx);
            }
            if self.take_buffered(source)? {
                continue;
            }
            match source.poll_fill(cx) {
                Poll::Ready(Ok(0)) if matches!(self.framing, Framing::UntilClose) => self.framing = Framing::Done,
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(BodyError::Truncated.into())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(PumpError::Read(error))),
                Poll::Pending => {
                    if let Poll::Ready(Err(error)) = self.poll_flush(sink, cx) {
                        return Poll::Ready(Err(error));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Copies a small body behind its head: cheaper than a second slice, which TLS would allocate a list for.
    fn copy_small(&mut self, source: &mut Connection) {
        if !self.staged.is_empty() && self.direct <= COPIED {
            self.staged.extend_from_slice(&source.data()[..self.direct]);
            source.consume(self.direct);
            self.direct = 0;
        }
    }

    fn account(&mut self, source: &mut Connection, count: usize) {
        let staged = count.min(self.staged.len() - self.staged_sent);
        self.staged_sent += staged;
        let direct = count - staged;
        source.consume(direct);
        self.direct -= direct;
        self.is_kept &= direct == 0;
        self.sent += count as u64;
        self.unflushed = true;
    }

    fn poll_flush(&mut self, sink: &mut Connection, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        if self.unflushed {
            match sink.poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(PumpError::Write(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes body bytes from the source's buffer; false when more must be read first.
    fn take_buffered(&mut self, source: &mut Connection) -> Result<bool, PumpError> {
        let available = source.data().len();
        match &mut self.framing {
            Framing::Done => Ok(true),
            Framing::UntilClose => {
                self.direct = available;
                if available as u64 >= SMALL as u64 {
                    source.expect_bulk();
                }
                Ok(available > 0)
            }
            Framing::Length(left) => {
                let count = (available as u64).min(*left) as usize;
                if *left > BULK {
                    source.expect_bulk();
                }
                *left -= count as u64;
                let finished = *left == 0;
                self.direct = count;
                if finished {
                    self.framing = Framing::Done;
                }
                Ok(count > 0 || finished)
            }
            Framing::Chunked(_) => self.take_chunks(source),
        }
    }

    /// Frames anew what the source's buffer holds, up to about one buffer.
    fn take_chunks(&mut self, source: &mut Connection) -> Result<bool, PumpError> {
        let Framing::Chunked(decoder) = &mut self.framing else { return Ok(true) };
        if self.staged_sent == self.staged.len() {
            self.is_kept &= self.staged.is_empty();
            self.staged.clear();
            self.staged_sent = 0;
        }
        if self.staged.capacity() == 0 {
            self.staged = take_text();
        }
        let before = self.staged.len();
        let mut used = 0;
        let data = source.data();
        loop {
            let (count, piece) = decoder.next(&data[used..]).map_err(BodyError::from)?;
            used += count;
            match piece {
                Piece::Data(bytes) if self.unchunk => self.staged.extend_from_slice(bytes),
                Piece::Data(bytes) => write_chunk(bytes, &mut self.staged),
                Piece::Trailer(_) if self.unchunk => {}
                Piece::Trailer(line) => write_trailer(line, &mut self.trailers_begun, &mut self.staged),
                Piece::NeedMore => break,
                Piece::End => {
                    if !self.unchunk {
                        let end: &[u8] = if self.trailers_begun { b"\r\n" } else { b"0\r\n\r\n" };
                        self.staged.extend_from_slice(end);
                    }
                    self.framing = Framing::Done;
                    break;
                }
            }
            if self.staged.len() >= SMALL {
                break;
            }
        }
        source.consume(used);
        Ok(self.staged.len() > before || self.framing.is_done())
    }
}

pub(super) fn write_chunk(bytes: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - bytes.len().leading_zeros()).div_ceil(4);
    for digit in (0..digits).rev() {
        out.push(HEX[bytes.len() >> (digit * 4) & 15]);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn write_trailer(line: &[u8], begun: &mut bool, out: &mut Vec<u8>) {
    if !*begun {
        out.extend_from_slice(b"0\r\n");
        *begun = true;
    }
    out.extend_from_slice(line);
    out.extend_from_slice(b"\r\n");
}

impl Drop for Pump {
    fn drop(&mut self) {
        give_text(std::mem::take(&mut self.staged));
    }
}
