//! The proxy's end of the socket to its supervisor.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram as StdUnixDatagram;

use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::{mpsc, oneshot};

use super::channel::{Channel, ChannelError, Inherited, Received};
use super::message::{Batch, Counts, FromProxy, MAX_DESCRIPTORS, PROTOCOL, Preparation, ToProxy, Why};

/// Messages on their way to the supervisor: each is answered before the next is made.
const REPORTS: usize = 4;
/// Orders that have not been followed: a supervisor gives each after the one before it was followed.
const ORDERS: usize = 8;

/// Why a proxy was not replaced.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    #[error("the supervisor kept the proxy that runs: {reason}")]
    Refused { why: Why, reason: String },
    #[error("the supervisor is gone")]
    Gone,
    #[error("the program cannot be given to the supervisor: {0}")]
    Program(#[source] io::Error),
}

/// The supervisor of a running proxy.
#[derive(Debug, Clone)]
pub struct Supervisor {
    reports: mpsc::Sender<Report>,
}

/// What the supervisor wants, in order.
#[derive(Debug)]
pub enum Order {
    Start,
    Prepare(Preparation),
    HandOver,
    TakeOver(Vec<Inherited>),
    Drain,
    /// How often programs were replaced, by now.
    Counted(Counts),
    /// There is no supervisor any more.
    Gone,
}

/// What goes to the supervisor.
#[derive(Debug)]
enum Report {
    Say(FromProxy, oneshot::Sender<()>),
    /// Copies of our listeners.
    Give(Vec<Inherited>),
    Replace(File, oneshot::Sender<Result<(), ReplaceError>>),
}

/// Joins the supervisor whose socket is our standard input. Must be called inside a runtime.
///
/// # Errors
/// When standard input is no such socket.
pub fn join() -> io::Result<(Supervisor, mpsc::Receiver<Order>)> {
    join_at(io::stdin().as_fd().try_clone_to_owned()?)
}

fn join_at(socket: OwnedFd) -> io::Result<(Supervisor, mpsc::Receiver<Order>)> {
    if rustix::net::sockopt::socket_type(&socket)? != rustix::net::SocketType::SEQPACKET {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "standard input is not the socket of a supervisor"));
    }
    let channel = Channel::new(socket.try_clone()?);
    let waiting_on = StdUnixDatagram::from(socket);
    waiting_on.set_nonblocking(true)?;
    let waiting_on = UnixDatagram::from_std(waiting_on)?;
    let (reports, waiting) = mpsc::channel(REPORTS);
    let (orders, following) = mpsc::channel(ORDERS);
    tokio::spawn(Link { channel, waiting_on, orders, arriving: Vec::new(), asking: None }.run(waiting));
    Ok((Supervisor { reports }, following))
}

impl Supervisor {
    /// Replaces this proxy by a program, which gets the same arguments, environment and listeners. `Ok` when the new one
    /// accepts connections; this one then finishes what is under way, and ends. The file may be one in memory; one on a disk
    /// must be executable and open for writing nowhere.
    ///
    /// # Errors
    /// When this proxy goes on.
    pub async fn replace(&self, program: File) -> Result<(), ReplaceError> {
        let (answer, answered) = oneshot::channel();
        self.reports.send(Report::Replace(program, answer)).await.map_err(|_| ReplaceError::Gone)?;
        answered.await.unwrap_or(Err(ReplaceError::Gone))
    }

    /// Tells the supervisor something, which is on its way when this returns; one that is gone learns nothing.
    pub(crate) async fn say(&self, message: FromProxy) {
        let (sent, is_sent) = oneshot::channel();
        let _ = self.reports.send(Report::Say(message, sent)).await;
        let _ = is_sent.await;
    }

    /// Gives copies of all listeners.
    pub(crate) async fn give(&self, copies: Vec<Inherited>) {
        let _ = self.reports.send(Report::Give(copies)).await;
    }
}

struct Link {
    channel: Channel,
    /// The same socket, by which the runtime waits. It is of no type the runtime has; as this one nothing is read or
    /// written.
    waiting_on: UnixDatagram,
    orders: mpsc::Sender<Order>,
    /// Listeners, until the last has come.
    arriving: Vec<Inherited>,
    /// Whoever asked for a replacement.
    asking: Option<oneshot::Sender<Result<(), ReplaceError>>>,
}

impl Link {
    /// Carries messages until a side is gone.
    async fn run(mut self, mut waiting: mpsc::Receiver<Report>) {
        let hello = FromProxy::Hello { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned() };
        let mut outcome = self.send(&hello, &[]).await.map_err(ChannelError::Socket);
        while outcome.is_ok() {
            outcome = tokio::select! {
                received = self.receive() => match received {
                    Ok(Received::End) => break,
                    Ok(Received::Message(message, sockets)) => {
                        self.told(message, sockets).await;
                        Ok(())
                    }
                    Ok(Received::Unknown | Received::Nothing) => Ok(()),
                    Err(error @ ChannelError::Socket(_)) => Err(error),
                    Err(error) => {
                        tracing::warn!(%error, "ignoring a message of the supervisor");
                        Ok(())
                    }
                },
                Some(report) = waiting.recv() => self.report(report).await.map_err(ChannelError::Socket),
            };
        }
        if let Err(error) = outcome {
            tracing::warn!(%error, "the supervisor cannot be reached");
        }
        let _ = self.orders.send(Order::Gone).await;
    }

    /// Dropping it loses nothing.
    async fn receive(&self) -> Result<Received<ToProxy>, ChannelError> {
        let receive = || match self.channel.receive() {
            Ok(Received::Nothing) => Err(io::ErrorKind::WouldBlock.into()),
            received => Ok(received),
        };
        self.waiting_on.async_io(Interest::READABLE, receive).await?
    }

    async fn told(&mut self, message: ToProxy, sockets: Vec<OwnedFd>) {
        let order = match message {
            ToProxy::Start => Order::Start,
            ToProxy::Prepare(preparation) => Order::Prepare(preparation),
            ToProxy::HandOver => Order::HandOver,
            ToProxy::TakeOver(Batch { names, is_last }) => {
                let inherited = names.into_iter().zip(sockets).map(|(name, socket)| Inherited { name, socket });
                self.arriving.extend(inherited);
                if !is_last {
                    return;
                }
                Order::TakeOver(std::mem::take(&mut self.arriving))
            }
            ToProxy::Drain => {
                self.answer(Ok(()));
                Order::Drain
            }
            ToProxy::Refused { why, reason } => {
                self.answer(Err(ReplaceError::Refused { why, reason }));
                return;
            }
            ToProxy::Counted(counts) => Order::Counted(counts),
        };
        let _ = self.orders.send(order).await;
    }

    fn answer(&mut self, result: Result<(), ReplaceError>) {
        if let Some(asking) = self.asking.take() {
            let _ = asking.send(result);
        }
    }

    async fn report(&mut self, report: Report) -> io::Result<()> {
        match report {
            Report::Say(message, sent) => {
                self.send(&message, &[]).await?;
                let _ = sent.send(());
                Ok(())
            }
            Report::Give(copies) => {
                let count = copies.chunks(MAX_DESCRIPTORS).len().max(1);
                for number in 0..count {
                    let batch = copies.chunks(MAX_DESCRIPTORS).nth(number).unwrap_or_default();
                    let names = batch.iter().map(|copy| copy.name.clone()).collect();
                    let descriptors: Vec<_> = batch.iter().map(|copy| copy.socket.as_fd()).collect();
                    let message = FromProxy::Listeners(Batch { names, is_last: number + 1 == count });
                    self.send(&message, &descriptors).await?;
                }
                Ok(())
            }
            Report::Replace(program, answer) => {
                if self.asking.is_some() {
                    let reason = "a proxy is being put in place already".to_owned();
                    let _ = answer.send(Err(ReplaceError::Refused { why: Why::Busy, reason }));
                    return Ok(());
                }
                match self.send(&FromProxy::Replace, &[program.as_fd()]).await {
                    Ok(()) => self.asking = Some(answer),
                    Err(error) => drop(answer.send(Err(ReplaceError::Program(error)))),
                }
                Ok(())
            }
        }
    }

    async fn send(&self, message: &FromProxy, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.waiting_on.async_io(Interest::WRITABLE, || self.channel.send(message, descriptors)).await
    }
}

#[cfg(test)]
mod tests;
