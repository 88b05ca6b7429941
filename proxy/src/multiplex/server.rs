//! The server's side of a connection: streams come in.

use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::error::ConnectionError;
use super::machine::Machine;
use super::settings::Settings;
use super::shared::Shared;
use super::stream::Stream;
use super::wire::Wire;
use crate::clock;
use crate::http2::Fields;
use crate::stream::Connection;

/// A connection whose peer sends requests.
///
/// It does its work inside [`poll_accept`](Self::poll_accept): whoever owns it calls that until it is pending, after each
/// wake-up and after having polled the futures of the requests.
#[derive(Debug)]
pub struct Server {
    shared: Rc<Shared>,
    wire: Wire,
}

/// A request, as far as its head.
#[derive(Debug)]
pub struct Incoming {
    pub head: Fields,
    pub stream: Stream,
    /// The head is the whole request.
    pub ended: bool,
    /// The head was larger than [`Settings::head`] and `head` is not all of it: to be answered with 431.
    pub is_too_large: bool,
}

impl Server {
    /// `connection` begins with the client's preface, read already or not.
    pub fn new(connection: Connection, settings: Settings) -> Self {
        let machine = Machine::server(settings, clock::now());
        Self { shared: Rc::new(Shared::new(machine)), wire: Wire::new(connection) }
    }

    /// The next request. Reads, answers control frames, and writes everything queued before it is pending. `None`: over,
    /// cleanly.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Incoming, ConnectionError>>> {
        loop {
            let arrived = self.shared.drive().next_arrived();
            if let Some(arrived) = arrived {
                self.shared.attend();
                let stream = Stream::new(Rc::clone(&self.shared), arrived.slot);
                return Poll::Ready(Some(Ok(Incoming {
                    head: arrived.head,
                    stream,
                    ended: arrived.ended,
                    is_too_large: arrived.is_too_large,
                })));
            }
            match ready!(self.wire.poll_turn(&self.shared, cx)) {
                None => {}
                Some(Ok(())) => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// Says that [`poll_accept`](Self::poll_accept) will be called before the task waits, so that what the streams queue
    /// until then need not wake it.
    pub fn attend(&self) {
        self.shared.attend();
    }

    /// Ends the connection without losing a request: GOAWAY for a stream number nobody reaches, then, when the peer has
    /// surely read that, GOAWAY with the real last one. Open streams go to their end.
    pub fn drain(&mut self) {
        self.shared.drive().drain(clock::now());
        self.shared.wake();
    }

    /// Wakes the tasks of all streams, to look at what is not of this connection.
    pub fn nudge(&self) {
        self.shared.drive().nudge();
    }

    /// Streams that are not over.
    pub fn open_streams(&self) -> usize {
        self.shared.read().open_streams()
    }

    /// Since when no stream is open, if none is.
    pub fn idle_since(&self) -> Option<Instant> {
        self.shared.read().idle_since()
    }

    /// The connection below, to look at.
    pub fn connection(&self) -> &Connection {
        self.wire.connection()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.drive().lose(ConnectionError::Lost(std::io::ErrorKind::ConnectionAborted));
    }
}
