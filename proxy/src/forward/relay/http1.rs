//! A connection of HTTP/1.x as a side of the relay.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use super::side::{Available, Broken, Outgoing, Side};
use crate::forward::pump::write_chunk;
use crate::http1::{Framing, Piece};
use crate::http2::{Fields, Trailers, trailer_from_http1};
use crate::stream::{Connection, SMALL, Text};

/// Bodies longer than this are read through the large buffer.
const BULK: u64 = 32 * 1024;

/// Reads one message and writes another.
#[derive(Debug)]
pub(in crate::forward) struct Http1<C> {
    pub(in crate::forward) connection: C,
    incoming: Framing,
    /// Bytes at the front of the connection's buffer that are data of the body.
    direct: usize,
    trailers: Option<Fields>,
    outgoing: Outgoing,
    staged: Text,
    staged_sent: usize,
    unflushed: bool,
    /// All bytes written.
    pub(in crate::forward) written: u64,
}

impl<C: AsMut<Connection>> Http1<C> {
    /// `incoming`: the body that is to come; none before its head was read.
    pub(in crate::forward) fn new(connection: C, incoming: Framing) -> Self {
        Self {
            connection,
            incoming,
            direct: 0,
            trailers: None,
            outgoing: Outgoing::Raw,
            staged: Text::default(),
            staged_sent: 0,
            unflushed: false,
            written: 0,
        }
    }

    /// How the body behind the head that was staged tells its end.
    pub(in crate::forward) fn send_as(&mut self, outgoing: Outgoing) {
        self.outgoing = outgoing;
    }

    /// Writes what is staged.
    ///
    /// # Errors
    /// The connection is lost.
    pub(in crate::forward) async fn write_staged(&mut self) -> Result<(), Broken> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// A head was read: this is how the body behind it ends.
    pub(super) fn expect(&mut self, incoming: Framing) {
        self.incoming = incoming;
    }

    /// The body was read to its end.
    pub(in crate::forward) fn has_ended(&self) -> bool {
        self.incoming.is_done() && self.direct == 0
    }

    /// Where a head is written to.
    pub(in crate::forward) fn stage(&mut self) -> &mut Vec<u8> {
        self.staged.begin()
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        while let Some(rest) = self.staged.get(self.staged_sent..).filter(|rest| !rest.is_empty()) {
            let count = ready!(self.connection.as_mut().poll_write(cx, rest, &[])).map_err(|error| lost(&error))?;
            self.staged_sent += count;
            self.written += count as u64;
            self.unflushed = true;
        }
        self.staged.clear();
        self.staged_sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Finds data of a chunked body in the buffer; false when more must be read.
    fn take_chunk(&mut self) -> Result<bool, Broken> {
        let Framing::Chunked(decoder) = &mut self.incoming else { return Ok(true) };
        loop {
            let connection = self.connection.as_mut();
            let (used, piece) = decoder.next(connection.data()).map_err(|error| {
                tracing::debug!(%error, "chunked body refused");
                Broken::Malformed
            })?;
            match piece {
                Piece::Data(bytes) => {
                    let length = bytes.len();
                    connection.consume(used - length);
                    self.direct = length;
                    return Ok(true);
                }
                Piece::Trailer(line) => {
                    trailer_from_http1(line, self.trailers.get_or_insert_with(Fields::new));
                    connection.consume(used);
                }
                Piece::NeedMore => {
                    connection.consume(used);
                    return Ok(false);
                }
                Piece::End => {
                    connection.consume(used);
                    self.incoming = Framing::Done;
                    return Ok(true);
                }
            }
        }
    }

    /// Finds data of the body in the buffer; false when more must be read.
    fn take_buffered(&mut self) -> Result<bool, Broken> {
        let connection = self.connection.as_mut();
        let available = connection.data().len();
        match &mut self.incoming {
            Framing::Done => {}
            Framing::UntilClose => {
                if available >= SMALL {
                    connection.expect_bulk();
                }
                self.direct = available;
            }
            Framing::Length(left) => {
                if *left > BULK {
                    connection.expect_bulk();
                }
                self.direct = usize::try_from(*left).unwrap_or(usize::MAX).min(available);
                *left -= self.direct as u64;
                if *left == 0 {
                    self.incoming = Framing::Done;
                }
            }
            Framing::Chunked(_) => return self.take_chunk(),
        }
        Ok(self.direct > 0 || self.incoming.is_done())
    }
}

impl<C: AsMut<Connection>> Side for Http1<C> {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Available, Broken>> {
        loop {
            if self.direct == 0 && !self.incoming.is_done() {
                self.take_buffered()?;
            }
            if self.direct > 0 {
                return Poll::Ready(Ok(Available::Data));
            }
            if self.incoming.is_done() {
                return Poll::Ready(Ok(Available::End));
            }
            match ready!(self.connection.as_mut().poll_fill(cx)) {
                Ok(0) if matches!(self.incoming, Framing::UntilClose) => self.incoming = Framing::Done,
                Ok(0) => return Poll::Ready(Err(Broken::Lost)),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(lost(&error))),
            }
        }
    }

    fn with_data(&mut self, take: impl FnOnce(&[u8], bool) -> usize) {
        let connection = self.connection.as_mut();
        let used = take(connection.data().get(..self.direct).unwrap_or_default(), self.incoming.is_done());
        connection.consume(used);
        self.direct -= used;
    }

    fn take_trailers(&mut self) -> Option<Fields> {
        self.trailers.take()
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        if self.staged.len() >= SMALL {
            ready!(self.poll_write(cx))?;
        }
        Poll::Ready(Ok(SMALL))
    }

    fn write(&mut self, bytes: &[u8], ends: bool) {
        let outgoing = self.outgoing;
        let staged = self.stage();
        match outgoing {
            Outgoing::Raw => staged.extend_from_slice(bytes),
            Outgoing::Chunked if bytes.is_empty() => {}
            Outgoing::Chunked => write_chunk(bytes, staged),
        }
        if ends {
            self.end(None);
        }
    }

    fn takes_trailers(&self) -> bool {
        self.outgoing == Outgoing::Chunked
    }

    fn end(&mut self, trailers: Option<&Fields>) {
        if self.outgoing == Outgoing::Chunked {
            let staged = self.stage();
            staged.extend_from_slice(b"0\r\n");
            if let Some(Ok(trailers)) = trailers.map(Trailers::read) {
                trailers.write_http1(staged);
            }
            staged.extend_from_slice(b"\r\n");
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        ready!(self.poll_write(cx))?;
        if self.unflushed {
            ready!(self.connection.as_mut().poll_flush(cx)).map_err(|error| lost(&error))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

fn lost(error: &io::Error) -> Broken {
    tracing::trace!(%error, "connection lost");
    Broken::Lost
}
