//! A non-blocking socket with a queue of output, for edge-triggered readiness.

use std::io::{self, Read, Write};

use mio::net::TcpStream;

/// Read at once; what a peer sends in one turn fits.
pub(crate) const READ: usize = 256 * 1024;

/// A stream and what it has yet to send.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) stream: TcpStream,
    pub(crate) out: Vec<u8>,
    sent: usize,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        // Fails only while the connection is not there yet; the client sets it again then.
        let _ = stream.set_nodelay(true);
        Self { stream, out: Vec::new(), sent: 0 }
    }

    /// Sends what is queued, as far as the peer takes it.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if is_not_yet(&error) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// Sends `bytes`, when nothing is queued before them; what the peer does not take yet is queued.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = match self.stream.write(bytes) {
            Ok(count) => count,
            Err(error) if is_not_yet(&error) || error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        self.out.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    /// Everything is sent.
    pub(crate) fn is_flushed(&self) -> bool {
        self.out.is_empty()
    }

    /// Reads what there is, once: the bytes, and whether there may be more. `None` when there is nothing now, an
    /// empty slice at the end.
    pub(crate) fn read<'a>(&mut self, buffer: &'a mut [u8]) -> io::Result<Option<(&'a [u8], bool)>> {
        loop {
            match self.stream.read(buffer) {
                // Less than asked for: the kernel has no more, and readiness comes again when it has.
                Ok(count) => return Ok(Some((&buffer[..count], count == buffer.len()))),
                Err(error) if is_not_yet(&error) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Nothing is wrong, it is only too early; a connection under way counts as that.
pub(crate) fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}
