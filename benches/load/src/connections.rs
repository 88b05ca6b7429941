//! A new connection for every request, and connections that idle; with mutual TLS or without.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};

use crate::http1;
use crate::measure::{Done, Window, now, wait};
use crate::tls::{Tls, server_name};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    #[arg(long)]
    to: SocketAddr,
    /// How many connections are opened at once
    #[arg(long, default_value_t = 8)]
    connections: usize,
    #[command(flatten)]
    tls: Tls,
    #[command(flatten)]
    window: Window,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Idle {
    #[arg(long)]
    to: SocketAddr,
    #[arg(long, default_value_t = 5000)]
    connections: usize,
    #[command(flatten)]
    tls: Tls,
}

/// A connection in plaintext or not.
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn open(to: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> Result<Self> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(match tls {
            None => Self::Plain(stream),
            Some(config) => {
                let client = ClientConnection::new(Arc::clone(config), server_name())?;
                Self::Tls(Box::new(StreamOwned::new(client, stream)))
            }
        })
    }

    /// Sends the request and reads the answer to its end.
    fn ask(&mut self, request: &[u8], buffer: &mut [u8]) -> io::Result<()> {
        let stream: &mut dyn ReadWrite = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream,
        };
        stream.write_all(request)?;
        let mut read = 0;
        loop {
            match stream.read(&mut buffer[read..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => read += count,
            }
            if http1::length(&buffer[..read])? == Some(read) {
                return Ok(());
            }
        }
    }

    fn is_resumed(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.conn.handshake_kind() == Some(HandshakeKind::Resumed))
    }
}

trait ReadWrite: Read + Write {}

impl<IO: Read + Write> ReadWrite for IO {}

/// Opens, asks and closes, again and again.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let shared = Arc::new((Mutex::new(Done::default()), AtomicBool::new(false)));
    let request: Arc<[u8]> = http1::request(&plan.to.to_string(), 1024).into();
    let mut threads = Vec::new();
    for _ in 0..plan.connections {
        // Each with sessions of its own.
        let (tls, to, shared, request) = (plan.tls.config()?, plan.to, Arc::clone(&shared), Arc::clone(&request));
        threads.push(thread::spawn(move || {
            let mut buffer = vec![0; 16 * 1024];
            while !shared.1.load(Relaxed) {
                let began = now();
                let outcome = once(to, tls.as_ref(), &request, &mut buffer);
                let mut done = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
                match outcome {
                    Ok(resumed) => {
                        done.succeed(began.elapsed());
                        done.resumed += u64::from(resumed);
                    }
                    Err(error) => done.fail(1, &format!("{error:#}")),
                }
            }
        }));
    }
    wait(plan.window.warm_up());
    let take = || std::mem::take(&mut *shared.0.lock().unwrap_or_else(PoisonError::into_inner));
    let early = take();
    let open = plan.window.open()?;
    wait(plan.window.seconds());
    let mut done = take();
    if early.failed > 0 {
        done.fail(early.failed, &early.failure.unwrap_or_default());
    }
    shared.1.store(true, Relaxed);
    open.close(done)?;
    for thread in threads {
        // What a thread that panicked had to say is on standard error.
        let _ = thread.join();
    }
    Ok(())
}

fn once(to: SocketAddr, tls: Option<&Arc<ClientConfig>>, request: &[u8], buffer: &mut [u8]) -> Result<bool> {
    let mut stream = Stream::open(to, tls)?;
    stream.ask(request, buffer)?;
    Ok(stream.is_resumed())
}

/// Opens connections that have been used once; says when all are there.
pub(crate) fn idle(plan: &Idle) -> Result<()> {
    let (tls, request) = (plan.tls.config()?, http1::request(&plan.to.to_string(), 1024));
    let mut buffer = vec![0; 16 * 1024];
    let mut held = Vec::with_capacity(plan.connections);
    for number in 0..plan.connections {
        let mut stream = Stream::open(plan.to, tls.as_ref())?;
        stream.ask(&request, &mut buffer).with_context(|| format!("connection {}", number + 1))?;
        held.push(stream);
    }
    println!("{}", held.len());
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
