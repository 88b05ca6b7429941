//! Requests on kept connections: as many as there can be at once, or at a fixed rate.
//!
//! At a fixed rate a request that finds no connection free counts from the moment it was due: a subject that stalls
//! pays for every request it holds up, not for one.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::http1;
use crate::http2;
use crate::measure::{Done, Window, now, wait};
use crate::socket::{READ, Socket};

const WAKER: Token = Token(usize::MAX);
/// Longest wait for connections to be ready, and for the answers to what was asked at the end.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Protocol {
    Http1,
    Http2,
    /// Unary calls with 100 bytes each way.
    Grpc,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    #[arg(long)]
    to: SocketAddr,
    #[arg(long, value_enum)]
    protocol: Protocol,
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Requests at once on each connection, where the protocol can
    #[arg(long, default_value_t = 10)]
    streams: usize,
    /// Bytes of each answer's body (HTTP/1.1)
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Requests a second; without it, as many as the subject can
    #[arg(long)]
    rate: Option<f64>,
    #[command(flatten)]
    window: Window,
}

enum Speaker {
    Http1 { request: Vec<u8>, since: Option<Instant> },
    Http2(http2::Client),
}

impl Speaker {
    fn is_ready(&self) -> bool {
        match self {
            Self::Http1 { since, .. } => since.is_none(),
            Self::Http2(client) => client.is_ready(),
        }
    }

    fn under_way(&self) -> usize {
        match self {
            Self::Http1 { since, .. } => usize::from(since.is_some()),
            Self::Http2(client) => client.under_way(),
        }
    }

    fn ask(&mut self, began: Instant, out: &mut Vec<u8>) {
        match self {
            Self::Http1 { request, since } => {
                out.extend_from_slice(request);
                *since = Some(began);
            }
            Self::Http2(client) => client.ask(began, out),
        }
    }

    fn hear(&mut self, input: &[u8], out: &mut Vec<u8>, done: &mut Done) -> io::Result<usize> {
        match self {
            Self::Http2(client) => client.hear(input, out, done),
            Self::Http1 { since, .. } => match http1::length(input)? {
                Some(length) if length <= input.len() => {
                    let began = since.take().ok_or_else(|| io::Error::other("an answer to nothing"))?;
                    done.succeed(began.elapsed());
                    Ok(length)
                }
                _ => Ok(0),
            },
        }
    }
}

struct Connection {
    socket: Socket,
    speaker: Speaker,
    input: Vec<u8>,
    is_waiting: bool,
}

/// All connections, and what waits for one.
struct Load<'a> {
    plan: &'a Plan,
    poll: Poll,
    connections: Vec<Connection>,
    /// Those that can take a request, the longest idle first.
    ready: VecDeque<usize>,
    /// When requests were due that found none.
    due: VecDeque<Instant>,
    is_asking: bool,
    done: Done,
    buffer: Vec<u8>,
}

/// Loads the subject.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let mut load = Load {
        plan,
        poll,
        connections: Vec::new(),
        ready: VecDeque::new(),
        due: VecDeque::new(),
        is_asking: false,
        done: Done::default(),
        buffer: vec![0; READ],
    };
    for _ in 0..plan.connections {
        load.connect()?;
    }
    load.settle()?;
    load.is_asking = true;
    let began = now();
    if let Some(rate) = plan.rate {
        let interval = Duration::from_secs_f64(1.0 / rate);
        thread::spawn(move || pace(&waker, began, interval));
    }
    load.run_until(began + plan.window.warm_up(), began)?;
    let failed_early = std::mem::take(&mut load.done);
    let open = plan.window.open()?;
    load.run_until(began + plan.window.warm_up() + plan.window.seconds(), began)?;
    let mut done = std::mem::take(&mut load.done);
    if failed_early.failed > 0 {
        done.fail(failed_early.failed, &failed_early.failure.unwrap_or_default());
    }
    open.close(done)
}

/// Wakes the loop whenever a request is due. The loop counts for itself which are.
fn pace(waker: &Waker, began: Instant, interval: Duration) {
    for number in 1_u32.. {
        wait((began + interval * number).saturating_duration_since(now()));
        if waker.wake().is_err() {
            return;
        }
    }
}

impl Load<'_> {
    fn connect(&mut self) -> Result<()> {
        // Blocking, so that a refusal is known at once.
        let stream = std::net::TcpStream::connect(self.plan.to)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(self.connections.len()), interest)?;
        let mut socket = Socket::new(stream);
        let host = self.plan.to.to_string();
        let speaker = match self.plan.protocol {
            Protocol::Http1 => Speaker::Http1 { request: http1::request(&host, self.plan.size), since: None },
            Protocol::Http2 | Protocol::Grpc => {
                let is_grpc = self.plan.protocol == Protocol::Grpc;
                Speaker::Http2(http2::Client::new(&host, is_grpc, self.plan.streams, &mut socket.out))
            }
        };
        socket.flush()?;
        self.connections.push(Connection { socket, speaker, input: Vec::new(), is_waiting: false });
        Ok(())
    }

    /// Waits until every connection can take a request.
    fn settle(&mut self) -> Result<()> {
        let until = now() + PATIENCE;
        while !self.connections.iter().all(|connection| connection.speaker.is_ready()) {
            if now() > until {
                bail!("the subject does not say SETTINGS within {PATIENCE:?}");
            }
            self.turn(Some(PATIENCE))?;
        }
        for place in 0..self.connections.len() {
            self.queue(place);
        }
        Ok(())
    }

    /// Asks and listens until then.
    fn run_until(&mut self, end: Instant, began: Instant) -> Result<()> {
        let interval = self.plan.rate.map(|rate| 1.0 / rate);
        let mut asked = interval.map_or(0, |interval| (began.elapsed().as_secs_f64() / interval) as u64);
        loop {
            let time = now();
            if time >= end {
                return Ok(());
            }
            if let Some(interval) = interval {
                let due = ((time - began).as_secs_f64() / interval) as u64;
                for _ in asked..due {
                    self.due.push_back(time);
                }
                asked = asked.max(due);
            }
            self.ask()?;
            self.turn(Some(end - time))?;
            ensure!(!self.connections.is_empty(), "no connection is left");
        }
    }

    /// Sends what can be sent: everything in a closed loop, what is due at a fixed rate.
    fn ask(&mut self) -> Result<()> {
        let began = now();
        while self.is_asking && (self.plan.rate.is_none() || !self.due.is_empty()) {
            let Some(place) = self.ready.pop_front() else { return Ok(()) };
            let connection = &mut self.connections[place];
            connection.is_waiting = false;
            loop {
                let since = if self.plan.rate.is_some() { self.due.pop_front() } else { Some(began) };
                let Some(since) = since else { break };
                connection.speaker.ask(since, &mut connection.socket.out);
                // At a fixed rate the next request goes to the next connection.
                if self.plan.rate.is_some() || !connection.speaker.is_ready() {
                    break;
                }
            }
            let sent = connection.socket.flush();
            if let Err(error) = sent {
                self.lose(place, &error)?;
            }
            self.queue(place);
        }
        Ok(())
    }

    fn queue(&mut self, place: usize) {
        let connection = &mut self.connections[place];
        if connection.speaker.is_ready() && !connection.is_waiting {
            connection.is_waiting = true;
            self.ready.push_back(place);
        }
    }

    /// Waits for the subject, and takes what it says.
    fn turn(&mut self, limit: Option<Duration>) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        if let Err(error) = self.poll.poll(&mut events, limit)
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error.into());
        }
        for event in &events {
            let place = event.token().0;
            let Some(connection) = self.connections.get_mut(place) else { continue };
            if let Err(error) = connection.turn(&mut self.buffer, &mut self.done) {
                self.lose(place, &error)?;
            }
            self.queue(place);
            if self.plan.rate.is_none() {
                self.ask()?;
            }
        }
        Ok(())
    }

    /// Opens another connection in place of one that was lost.
    fn lose(&mut self, place: usize, error: &io::Error) -> Result<()> {
        let lost = self.connections[place].speaker.under_way().max(1);
        self.done.fail(lost as u64, &format!("a connection was lost: {error}"));
        ensure!(self.done.failed < 10_000, "{} requests failed: {:?}", self.done.failed, self.done.failure);
        self.connect()?;
        let mut fresh = self.connections.swap_remove(self.connections.len() - 1);
        self.poll.registry().reregister(
            &mut fresh.socket.stream,
            Token(place),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        fresh.is_waiting = self.connections[place].is_waiting;
        self.connections[place] = fresh;
        Ok(())
    }
}

impl Connection {
    fn turn(&mut self, buffer: &mut [u8], done: &mut Done) -> io::Result<()> {
        while let Some((read, is_more)) = self.socket.read(buffer)? {
            if read.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // The whole answer at once needs no copy.
            if self.input.is_empty() {
                let used = self.speaker.hear(read, &mut self.socket.out, done)?;
                self.input.extend_from_slice(&read[used..]);
            } else {
                self.input.extend_from_slice(read);
                let used = self.speaker.hear(&self.input, &mut self.socket.out, done)?;
                self.input.drain(..used);
            }
            if !is_more {
                break;
            }
        }
        self.socket.flush()
    }
}
