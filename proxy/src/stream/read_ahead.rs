//! A socket below TLS that reads more than it is asked for.
//!
//! rustls asks for 4 KiB at a time, so a full record of 16 KiB would cost four system calls. Here one call reads what
//! is there, into a buffer that is borrowed from the worker only while it holds something: rustls takes from it until
//! it is empty, and then it goes back. Nothing stays behind: rustls asks until it has a whole record or the socket
//! has nothing, so bytes that wait here wait only while it holds a record its reader has not taken.
//!
//! Writes pass through unchanged: tokio-rustls already hands over all records of a write in one vectored call.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::{Buffer, Connection, SMALL, Stream};

#[derive(Debug)]
pub struct ReadAhead {
    socket: TcpStream,
    ahead: Buffer,
    /// The last read filled its buffer: more is coming, read it with fewer calls.
    is_bulk: bool,
}

impl ReadAhead {
    pub fn new(socket: TcpStream) -> Self {
        Self { socket, ahead: Buffer::default(), is_bulk: false }
    }

    /// Bytes read and not taken yet.
    pub fn data(&self) -> &[u8] {
        self.ahead.data()
    }

    /// Waits for more bytes: how many came, 0 at the end of the stream.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn fill(&mut self) -> io::Result<usize> {
        let before = self.ahead.data().len();
        poll_fn(|cx| self.poll_ahead(cx)).await?;
        Ok(self.ahead.data().len() - before)
    }

    /// The same connection without TLS, with what was read from it.
    pub fn into_plain(self) -> Connection {
        Connection { stream: Stream::Plain(self.socket), buffer: self.ahead }
    }

    /// Reads what the socket has, at most one buffer; ready with nothing read at the end of the stream.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_bulk {
            self.ahead.expect_bulk();
        }
        let Some(room) = self.ahead.room() else { return Poll::Ready(Ok(())) };
        let mut read = ReadBuf::new(room);
        let outcome = Pin::new(&mut self.socket).poll_read(cx, &mut read);
        let count = read.filled().len();
        if outcome.is_ready() {
            self.is_bulk = count >= SMALL;
        }
        self.ahead.filled(count);
        self.ahead.release();
        outcome
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.data().is_empty() {
            ready!(this.poll_ahead(cx))?;
        }
        let data = this.ahead.data();
        let count = data.len().min(buffer.remaining());
        buffer.put_slice(&data[..count]);
        this.ahead.consume(count);
        this.ahead.release();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
impl ReadAhead {
    pub(super) async fn readable(&self) {
        self.socket.readable().await.unwrap();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::lent;
    use super::*;

    async fn pair() -> (TcpStream, ReadAhead) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (far, ReadAhead::new(listener.accept().await.unwrap().0))
    }

    #[tokio::test]
    async fn one_read_of_the_socket_serves_many_small_ones() {
        let (mut far, mut near) = pair().await;
        far.write_all(&[7; 10_000]).await.unwrap();
        near.socket.readable().await.unwrap();
        let mut piece = [0; 100];
        near.read_exact(&mut piece).await.unwrap();
        assert!(near.ahead.data().len() > 4096, "{:?}", near.ahead);
        let mut rest = vec![0; 9900];
        near.read_exact(&mut rest).await.unwrap();
        assert!(rest.iter().all(|byte| *byte == 7));
    }

    #[tokio::test]
    async fn a_socket_that_waits_owns_no_buffer() {
        let before = lent();
        let (mut far, mut near) = pair().await;
        let mut byte = [0];
        far.write_all(b"x").await.unwrap();
        near.read_exact(&mut byte).await.unwrap();
        assert_eq!(lent(), before, "after all was taken");
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut near).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending());
        assert_eq!(lent(), before, "while waiting");
    }

    #[tokio::test]
    async fn the_end_is_the_end_after_what_came_before_it() {
        let (mut far, mut near) = pair().await;
        far.write_all(&[1; 5000]).await.unwrap();
        far.shutdown().await.unwrap();
        let mut bytes = Vec::new();
        near.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes.len(), 5000);
        // The other way is still open.
        near.write_all(b"last words").await.unwrap();
        near.shutdown().await.unwrap();
        let mut answer = String::new();
        far.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "last words");
    }
}
