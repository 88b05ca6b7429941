//! A stream as a plain connection: its data is the bytes of another protocol.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::client::Client;
use super::error::{NotOpened, StreamError};
use super::stream::{Available, Stream};
use crate::http2::Fields;
use crate::stream::Inside;

/// Bytes both ways through one stream, each way with an end of its own. Dropped before both ended, it is reset.
#[derive(Debug)]
pub struct Pipe {
    stream: Stream,
    is_shut: bool,
}

impl Pipe {
    /// Of a stream whose head has been sent.
    pub fn new(stream: Stream) -> Self {
        Self { stream, is_shut: false }
    }

    /// Opens one. Its head says nothing: who offered this protocol in the handshake knows what the bytes are.
    ///
    /// # Errors
    /// Nothing was sent: the connection is going away, or full.
    pub fn open(client: &Client) -> Result<Self, NotOpened> {
        let mut head = Fields::new();
        head.push(b":method", b"POST");
        head.push(b":scheme", b"https");
        head.push(b":authority", b"mesh.weft");
        head.push(b":path", b"/");
        client.open(&head, false).map(Self::new)
    }
}

impl Inside for Pipe {
    fn is_leaving(&self) -> bool {
        self.stream.is_leaving()
    }

    fn is_quiet(&self) -> bool {
        self.stream.is_quiet()
    }
}

fn broken(error: StreamError) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match ready!(self.stream.poll_data(cx)).map_err(broken)? {
            Available::Data => self.stream.with_data(|data| {
                let count = data.len().min(buffer.remaining());
                buffer.put_slice(data.get(..count).unwrap_or_default());
                (count, ())
            }),
            Available::End => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.stream.poll_capacity(cx)).map_err(broken)?;
        Poll::Ready(self.stream.send_data(bytes, false).map_err(broken))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut written = 0;
        for slice in slices.iter().filter(|slice| !slice.is_empty()) {
            match self.as_mut().poll_write(cx, slice) {
                Poll::Ready(Ok(count)) => {
                    written += count;
                    if count < slice.len() {
                        break;
                    }
                }
                _ if written > 0 => break,
                other => return other,
            }
        }
        Poll::Ready(Ok(written))
    }

    /// What was written is on its way: the connection's driver sends it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut {
            self.is_shut = true;
            self.stream.send_data(&[], true).map_err(broken)?;
        }
        Poll::Ready(Ok(()))
    }
}
