//! A stream of bytes without end, and who drinks it: throughput.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use anyhow::Result;

use crate::measure::{Done, Window, wait};

/// Sent and read at once.
const BUFFER: usize = 256 * 1024;

/// Sends to whoever has sent something, until the process ends.
pub(crate) fn source(listen: SocketAddr) -> Result<()> {
    for stream in TcpListener::bind(listen)?.incoming() {
        let mut stream = stream?;
        thread::spawn(move || {
            let bytes = vec![b'b'; BUFFER];
            // The client speaks first, as most protocols' do.
            if stream.read(&mut [0; 1024]).is_ok_and(|count| count > 0) {
                while stream.write_all(&bytes).is_ok() {}
            }
        });
    }
    Ok(())
}

#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    #[arg(long)]
    to: SocketAddr,
    #[arg(long, default_value_t = 8)]
    connections: usize,
    #[command(flatten)]
    window: Window,
}

/// Reads from every connection for a while.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let (read, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    for _ in 0..plan.connections {
        let mut stream = TcpStream::connect(plan.to)?;
        stream.write_all(b"begin\r\n")?;
        let (read, ended) = (Arc::clone(&read), Arc::clone(&ended));
        thread::spawn(move || {
            let mut buffer = vec![0; BUFFER];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                read.fetch_add(count as u64, Relaxed);
            }
            ended.fetch_add(1, Relaxed);
        });
    }
    wait(plan.window.warm_up());
    let (open, before) = (plan.window.open()?, read.load(Relaxed));
    wait(plan.window.seconds());
    let mut done = Done { bytes: read.load(Relaxed) - before, ..Done::default() };
    if ended.load(Relaxed) > 0 {
        done.fail(ended.load(Relaxed), "a stream without end has ended");
    }
    open.close(done)
}
