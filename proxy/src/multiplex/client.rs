//! The client's side of a connection: streams are opened, by any number of handles.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::error::{ConnectionError, NotOpened};
use super::machine::Machine;
use super::settings::Settings;
use super::shared::Shared;
use super::stream::Stream;
use super::wire::Wire;
use crate::clock;
use crate::http2::Fields;
use crate::stream::Connection;

/// A connection to a server. The [`Driver`] does all that touches the socket and has to be spawned.
pub fn client(connection: Connection, settings: Settings) -> (Client, Driver) {
    let shared = Rc::new(Shared::new(Machine::client(settings, clock::now())));
    shared.enter_client();
    let driver = Driver { shared: Rc::clone(&shared), wire: Wire::new(connection) };
    (Client { shared }, driver)
}

/// Opens streams. When the last handle and the last stream are gone, the connection ends.
#[derive(Debug)]
pub struct Client {
    shared: Rc<Shared>,
}

impl Client {
    /// A stream can be opened now.
    pub fn can_open(&self) -> bool {
        self.shared.read().can_open().is_ok()
    }

    /// Sends the head of a request; `end`: it is the whole request.
    ///
    /// # Errors
    /// Nothing was sent: the connection is going away, or full.
    pub fn open(&self, head: &Fields, end: bool) -> Result<Stream, NotOpened> {
        let slot = self.shared.change(|machine| machine.open(head, end))?;
        Ok(Stream::new(Rc::clone(&self.shared), slot))
    }

    /// The server has told its settings: until then its limit of streams is a guess.
    pub fn is_settled(&self) -> bool {
        self.shared.read().is_settled()
    }

    /// The server takes extended CONNECT, as far as its settings have come.
    pub fn takes_tunnels(&self) -> bool {
        self.shared.read().takes_tunnels()
    }

    /// Streams that are not over.
    pub fn open_streams(&self) -> usize {
        self.shared.read().open_streams()
    }

    /// Not lost, not closed and not told to go away.
    pub fn is_alive(&self) -> bool {
        self.shared.read().is_alive()
    }

    /// Since when no stream is open, if none is.
    pub fn idle_since(&self) -> Option<Instant> {
        self.shared.read().idle_since()
    }

    /// No further streams; the connection ends with its last one.
    pub fn close(&self) {
        self.shared.change(Machine::close);
        self.shared.wake();
    }
}

impl Clone for Client {
    fn clone(&self) -> Self {
        self.shared.enter_client();
        Self { shared: Rc::clone(&self.shared) }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.leave_client();
    }
}

/// Reads and writes for one connection, until it is over.
#[derive(Debug)]
#[must_use = "nothing moves unless the driver is spawned"]
pub struct Driver {
    shared: Rc<Shared>,
    wire: Wire,
}

impl Driver {
    /// The connection below, to look at.
    pub fn connection(&self) -> &Connection {
        self.wire.connection()
    }
}

impl Future for Driver {
    type Output = Result<(), ConnectionError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            if let Some(end) = ready!(this.wire.poll_turn(&this.shared, cx)) {
                return Poll::Ready(end);
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.drive().lose(ConnectionError::Lost(std::io::ErrorKind::ConnectionAborted));
    }
}
