//! The socket of a connection: reads for the machine, writes what it has queued.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::Sleep;

use super::error::ConnectionError;
use super::shared::Shared;
use crate::clock;
use crate::stream::Connection;

/// Reads of one turn while each of them fills the buffer: after them, what is queued goes out first.
const READS_A_TURN: usize = 4;

#[derive(Debug)]
pub(super) struct Wire {
    connection: Connection,
    /// Made when something first waits for time, armed again only when it fires: most waits end long before.
    timer: Option<Pin<Box<Sleep>>>,
    /// TLS may hold back what it has taken.
    is_unflushed: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Everything is written: the peer is told that nothing more comes.
    Closing(Instant),
    /// The peer may still read what was written last; what it sends is dropped.
    Lingering(Instant),
    Done,
}

/// How a turn of the driver ended: not over, or over so.
type Turn = Option<Result<(), ConnectionError>>;

impl Wire {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, timer: None, is_unflushed: false, state: State::Open }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Reads what there is, then writes what is queued. `Ready(None)`: something was read and streams may have begun;
    /// call again. Pending: everything queued was written, or the socket takes no more.
    pub(super) fn poll_turn(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Poll<Turn> {
        shared.attend();
        let now = clock::now();
        if self.state == State::Open {
            shared.drive().tick(now);
            self.read(shared, now, cx);
            if shared.read().has_arrived() {
                return Poll::Ready(None);
            }
        }
        let was_clogged = shared.read().is_clogged();
        self.write(shared, cx);
        if was_clogged && !shared.read().is_clogged() {
            // Nothing was read, so nothing wakes us for what there is to read.
            cx.waker().wake_by_ref();
        }
        if self.state == State::Open && shared.read().is_written_and_finished(self.is_unflushed) {
            self.state = State::Closing(now + shared.read().linger());
        }
        if self.state != State::Open && self.poll_close(now, cx).is_ready() {
            self.state = State::Done;
            return Poll::Ready(Some(shared.read().outcome()));
        }
        shared.drive().rest(self.is_unflushed);
        let is_other_task = shared.sleep(cx.waker());
        let deadline = match self.state {
            State::Open => shared.read().deadline(),
            State::Closing(until) | State::Lingering(until) => Some(until),
            State::Done => None,
        };
        if let Some(deadline) = deadline
            && self.poll_deadline(deadline, now, is_other_task, cx).is_ready()
        {
            return Poll::Ready(None);
        }
        Poll::Pending
    }

    fn read(&mut self, shared: &Shared, now: Instant, cx: &mut Context<'_>) {
        for _ in 0..READS_A_TURN {
            // What was read before this connection was ours comes first.
            if !self.connection.data().is_empty() {
                let mut machine = shared.drive();
                let used = machine.receive(self.connection.data(), now);
                self.connection.consume(used);
                if machine.expects_bulk() {
                    self.connection.expect_bulk();
                }
                if machine.has_arrived() || machine.is_over() {
                    return;
                }
            }
            if shared.read().is_clogged() {
                return;
            }
            match self.connection.poll_fill(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(0)) => return shared.drive().ended(!self.connection.data().is_empty()),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return shared.drive().lose(ConnectionError::Lost(error.kind())),
            }
        }
        cx.waker().wake_by_ref();
    }

    fn write(&mut self, shared: &Shared, cx: &mut Context<'_>) {
        if shared.read().output().is_empty() && !self.is_unflushed {
            return;
        }
        let mut machine = shared.drive();
        while !machine.output().is_empty() {
            self.is_unflushed = true;
            match self.connection.poll_write(cx, machine.output(), &[]) {
                Poll::Ready(Ok(count)) => machine.written(count),
                Poll::Ready(Err(error)) => return machine.lose(ConnectionError::Lost(error.kind())),
                Poll::Pending => return,
            }
        }
        match self.connection.poll_flush(cx) {
            Poll::Ready(Ok(())) => {
                self.is_unflushed = false;
                machine.flushed();
            }
            Poll::Ready(Err(error)) => machine.lose(ConnectionError::Lost(error.kind())),
            Poll::Pending => {}
        }
    }

    /// Closes our side, and waits a while for the peer to close its own.
    fn poll_close(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.state {
                State::Open => return Poll::Pending,
                State::Done => return Poll::Ready(()),
                State::Closing(until) => match self.connection.poll_shutdown(cx) {
                    Poll::Ready(Ok(())) => self.state = State::Lingering(until),
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending if now >= until => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                },
                State::Lingering(until) => {
                    let dropped = self.connection.data().len();
                    self.connection.consume(dropped);
                    match self.connection.poll_fill(cx) {
                        Poll::Ready(Ok(1..)) if now < until => {}
                        Poll::Pending if now < until => return Poll::Pending,
                        _ => return Poll::Ready(()),
                    }
                }
            }
        }
    }

    /// The timer goes off no later than `deadline`; when it does before that, it is armed again.
    fn poll_deadline(
        &mut self,
        deadline: Instant,
        now: Instant,
        is_other_task: bool,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if deadline <= now {
            return Poll::Ready(());
        }
        let is_new = self.timer.is_none();
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        let is_late = timer.deadline() > deadline.into();
        let has_fired = timer.deadline() <= now.into();
        if is_late || has_fired {
            timer.as_mut().reset(deadline.into());
        }
        // Its waker stays as long as the task is the same: nothing to do in most turns.
        if (is_new || is_late || has_fired || is_other_task) && timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
