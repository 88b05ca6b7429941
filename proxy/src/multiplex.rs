//! One HTTP/2 connection, shared by its streams: our own engine.
//!
//! | part | module | does |
//! |---|---|---|
//! | machine | `machine` | frames in, frames out, stream states, windows, floods: no socket, no clock |
//! | wire | `wire` | one socket: reads for the machine, writes what it has queued, in one write a turn |
//! | server, client | [`Server`], [`Client`] and [`Driver`] | the two roles over the wire |
//! | stream | [`Stream`] | what a request's task holds of its stream |
//!
//! Everything of one connection belongs to one thread: handles share the machine through an `Rc`, without locks and
//! without channels. A handle never touches the socket. It changes the machine, which queues frames in one buffer; the
//! connection's driver is woken once and sends them all in one write.
//!
//! Bounds: what a stream has received and nobody has used is at most its window; what all streams have queued is at
//! most [`Settings::out_bytes`] of data, and reading stops when heads and answers make it much more. What a peer may
//! ask for beyond that is counted by kind and ends the connection with `ENHANCE_YOUR_CALM`.

mod client;
mod error;
mod machine;
mod pipe;
mod server;
mod settings;
mod shared;
mod stream;
#[cfg(test)]
mod tests;
mod wire;

pub use client::{Client, Driver, client};
pub use error::{ConnectionError, Flood, NotOpened, StreamError};
#[cfg(any(test, feature = "fuzzing"))]
pub use machine::check;
pub use pipe::Pipe;
pub use server::{Incoming, Server};
pub use settings::{Budget, FloodBudgets, Keepalive, Settings};
pub use stream::{Available, Stream};
