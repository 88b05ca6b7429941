//! Many requests with idle gaps in front of a server that closes idle connections early: how many fail.
//!
//! ```text
//! printf 'daemon off; pid /tmp/k/pid; error_log stderr; events {} http { access_log off; keepalive_timeout 5s;
//!   server { listen 127.0.0.1:8080; location / { return 200 "ok"; } } }' > /tmp/k/nginx.conf
//! nginx -p /tmp/k -c /tmp/k/nginx.conf &
//! weft-bench keep-alive --application 127.0.0.1:8080
//! ```
//!
//! Every request has a body, so the proxy may not send it twice: one that meets a closing connection fails.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::drive::{ANY_PORT, Chain, workers};

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(30);
const REQUEST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";

/// What to do.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Plan {
    /// The server behind the proxy
    #[arg(long)]
    pub application: SocketAddr,
    #[arg(long, default_value_t = 1_000_000)]
    pub requests: u64,
    /// Clients, each with one connection to the proxy
    #[arg(long, default_value_t = 200)]
    pub connections: u64,
    /// Requests of one client between two gaps
    #[arg(long, default_value_t = 100)]
    pub burst: u64,
    /// The age at which the server closes idle connections; gaps are from 0.6 to 1.2 of it
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    pub keep_alive: f64,
}

/// Requests and those of them that failed.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    pub requests: u64,
    pub failures: u64,
}

impl Plan {
    pub fn run(self) -> Result<Outcome> {
        let proxies = workers(Chain::Plain, ANY_PORT, self.application)?;
        let proxy = proxies.first().context("a chain has a first proxy")?.address;
        let failures = Arc::new(AtomicU64::new(0));
        let each = self.requests.div_ceil(self.connections.max(1));
        let clients: Vec<_> = (0..self.connections)
            .map(|index| {
                let failures = Arc::clone(&failures);
                std::thread::spawn(move || self.client(index, each, proxy, &failures))
            })
            .collect();
        for client in clients {
            client.join().map_err(|_| anyhow::anyhow!("a client has panicked"))?;
        }
        Ok(Outcome { requests: each * self.connections, failures: failures.load(Ordering::Relaxed) })
    }

    fn client(self, index: u64, requests: u64, proxy: SocketAddr, failures: &AtomicU64) {
        let mut chance = fastrand::Rng::with_seed(index);
        let mut connection = None;
        // Not all at once: gaps must fall on every phase of the others.
        std::thread::park_timeout(Duration::from_secs_f64(self.keep_alive * chance.f64()));
        for number in 0..requests {
            if let Err(error) = ask(&mut connection, proxy) {
                connection = None;
                if failures.fetch_add(1, Ordering::Relaxed) < 20 {
                    eprintln!("client {index}, request {number}: {error:#}");
                }
            }
            if number % self.burst == self.burst - 1 {
                std::thread::park_timeout(Duration::from_secs_f64(self.keep_alive * (0.6 + 0.6 * chance.f64())));
            }
        }
    }
}

fn ask(connection: &mut Option<BufReader<TcpStream>>, proxy: SocketAddr) -> Result<()> {
    if connection.is_none() {
        let stream = TcpStream::connect(proxy)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        *connection = Some(BufReader::new(stream));
    }
    let stream = connection.as_mut().context("a connection was just made")?;
    stream.get_mut().write_all(REQUEST)?;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        ensure!(stream.read_line(&mut head)? > 0, "the answer ends after {head:?}");
    }
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.context("the answer has no length")?];
    stream.read_exact(&mut body)?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{head}{}", String::from_utf8_lossy(&body));
    Ok(())
}
