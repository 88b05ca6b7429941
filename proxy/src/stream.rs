//! One side of a connection: a socket with or without TLS, and a buffer that is borrowed only while it holds something.

mod buffer;
mod read_ahead;
mod socket;

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

#[cfg(test)]
pub(crate) use buffer::lent;
pub use buffer::{Buffer, LARGE, SMALL, Text, buffered, buffered_in_all, give_text, take_text};
pub use read_ahead::ReadAhead;
pub use socket::tune;

/// Most that one read takes where nothing waits: four full TLS records (RFC 8446 section 5.1). What comes goes on in
/// records that are full, and all of it in one write (rustls holds up to 64 KiB).
pub const AT_ONCE: usize = 64 * 1024;

/// A socket as the stages see it. TLS is boxed: it would set the size of every connection.
#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    /// We are the TLS server: mesh inbound.
    Server(Box<tokio_rustls::server::TlsStream<ReadAhead>>),
    /// We are the TLS client: towards the mesh.
    Client(Box<tokio_rustls::client::TlsStream<ReadAhead>>),
    /// One of many inside another connection.
    Inside(Box<dyn Inside>),
}

/// A connection inside another one: bytes both ways, each way with an end of its own.
pub trait Inside: AsyncRead + AsyncWrite + Unpin + std::fmt::Debug {
    /// The connection around it is about to end: nothing new should be begun.
    fn is_leaving(&self) -> bool;

    /// Neither bytes nor an end are waiting to be read.
    fn is_quiet(&self) -> bool;
}

macro_rules! each {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Stream::Plain($inner) => $call,
            Stream::Server($inner) => $call,
            Stream::Client($inner) => $call,
            Stream::Inside($inner) => $call,
        }
    };
}

impl Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, s => Pin::new(s).poll_read(cx, buffer))
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        each!(self, s => Pin::new(s).poll_write_vectored(cx, slices))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, s => Pin::new(s).poll_write(cx, bytes))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            // Neither holds anything back.
            Self::Plain(_) | Self::Inside(_) => Poll::Ready(Ok(())),
            Self::Server(s) => Pin::new(s).poll_flush(cx),
            Self::Client(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, s => Pin::new(s).poll_shutdown(cx))
    }
}

/// A stream and what was read from it but not used yet.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    buffer: Buffer,
}

impl AsMut<Connection> for Connection {
    fn as_mut(&mut self) -> &mut Connection {
        self
    }
}

impl Connection {
    pub fn new(stream: Stream) -> Self {
        Self { stream, buffer: Buffer::default() }
    }

    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Bytes read and not used yet.
    pub fn data(&self) -> &[u8] {
        self.buffer.data()
    }

    pub fn consume(&mut self, count: usize) {
        self.buffer.consume(count);
    }

    /// No more can be read before something is used.
    pub fn is_full(&self) -> bool {
        self.buffer.is_full()
    }

    /// A long body is coming: use the large buffer as soon as the small one is empty.
    pub fn expect_bulk(&mut self) {
        self.buffer.expect_bulk();
    }

    /// Gives the buffer back if it holds nothing.
    pub fn release(&mut self) {
        self.buffer.release();
    }

    /// Reads what is there: how many bytes came, 0 at the end of the stream. A waiting connection with nothing
    /// read owns no buffer.
    ///
    /// # Errors
    /// What the socket or TLS says; `OutOfMemory` when the buffer [is full](Self::is_full).
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Who only waits need not borrow a buffer for it.
        if self.buffer.owns_nothing()
            && let Stream::Plain(socket) = &self.stream
        {
            ready!(socket.poll_read_ready(cx))?;
        }
        let most = if self.buffer.data().is_empty() { AT_ONCE } else { LARGE };
        let Some(room) = self.buffer.room() else {
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        };
        let most = most.min(room.len());
        let mut read = ReadBuf::new(&mut room[..most]);
        match self.stream.poll_read(cx, &mut read) {
            Poll::Pending => {
                self.buffer.release();
                Poll::Pending
            }
            Poll::Ready(Ok(())) => {
                let count = read.filled().len();
                self.buffer.filled(count);
                if count == 0 {
                    self.buffer.release();
                }
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => {
                self.buffer.release();
                Poll::Ready(Err(error))
            }
        }
    }

    /// Writes from `first`, then from `second`, in one call where the socket takes both.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, first: &[u8], second: &[u8]) -> Poll<io::Result<usize>> {
        let written = match (first.is_empty(), second.is_empty()) {
            (false, false) => self.stream.poll_write_vectored(cx, &[IoSlice::new(first), IoSlice::new(second)]),
            (false, true) => self.stream.poll_write(cx, first),
            (true, _) => self.stream.poll_write(cx, second),
        };
        match written {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            other => other,
        }
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(cx)
    }

    /// Says to the peer that nothing more comes from us; the other way stays open.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_shutdown(cx)
    }

    /// Who is on the other side learns in good time when this connection is about to end, so that nothing it begins is
    /// lost.
    pub fn is_inside(&self) -> bool {
        matches!(self.stream, Stream::Inside(_))
    }

    /// An idle connection is usable when there is nothing to read: data would be an answer nobody asked for, and an
    /// end is an end. Costs no system call while the socket has not become readable.
    pub fn is_quiet(&mut self) -> bool {
        let mut byte = [0u8; 1];
        match &self.stream {
            Stream::Inside(inside) => {
                return self.buffer.data().is_empty() && !inside.is_leaving() && inside.is_quiet();
            }
            Stream::Plain(socket) => {
                let look = socket.try_read(&mut byte);
                return self.buffer.data().is_empty()
                    && look.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
            }
            Stream::Server(_) | Stream::Client(_) => {}
        }
        let mut read = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(Waker::noop());
        // Outside the runtime's budget for this task: when that is used up, every socket would seem quiet.
        let look = tokio::task::coop::unconstrained(poll_fn(|cx| self.stream.poll_read(cx, &mut read)));
        self.buffer.data().is_empty() && pin!(look).poll(&mut cx).is_pending()
    }

    /// Says that nothing more comes from us, then reads and drops what the peer still sends until it ends: closed at
    /// once, what we said last would be destroyed on its way. The caller sets the limit.
    pub async fn linger(&mut self) {
        if poll_fn(|cx| self.poll_shutdown(cx)).await.is_err() {
            return;
        }
        loop {
            let length = self.data().len();
            self.consume(length);
            if !matches!(self.fill().await, Ok(1..)) {
                return;
            }
        }
    }

    /// Reads until something is there or the stream ends.
    pub async fn fill(&mut self) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// Writes and flushes all of `bytes`.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut at = 0;
        poll_fn(|cx| {
            while at < bytes.len() {
                match self.poll_write(cx, &bytes[at..], &[]) {
                    Poll::Ready(Ok(count)) => at += count,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            self.poll_flush(cx)
        })
        .await
    }
}

#[cfg(test)]
mod tests;
