//! Connections between two proxies: handshakes without sockets, what an open one weighs when nothing moves, and what
//! much data costs.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weft_proxy::stream::{AT_ONCE, Connection, LARGE, ReadAhead, Stream};
use weft_proxy::tls::{self, Credentials, MeshClient, MeshProtocol};

use crate::configuration::{Root, callee, caller};

const LIMIT: Duration = Duration::from_secs(30);
/// Room in memory for one side's flight.
const FLIGHT: usize = 64 * 1024;

/// What is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Credentials of both sides, and no handshake: what `first` spends beside it.
    Setup,
    /// A full handshake of proxies that have never met.
    First,
    /// A full handshake of proxies that know each other's certificates.
    Full,
    /// A resumed one.
    Resumed,
}

/// Repeats it.
pub fn repeat(kind: Kind, times: u64) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let root = Root::new()?;
        let sides = [root.signed(&caller())?, root.signed(&callee())?];
        let make = || -> Result<[Credentials; 2]> { Ok([sides[0].credentials()?, sides[1].credentials()?]) };
        let mut pair = make()?;
        let mut client = pair[0].client_config(&[callee()], MeshProtocol::Tcp.alpn());
        for time in 0..times {
            if matches!(kind, Kind::Setup | Kind::First) {
                pair = make()?;
                client = pair[0].client_config(&[callee()], MeshProtocol::Tcp.alpn());
            }
            // Another endpoint has no session to resume.
            let port = if kind == Kind::Resumed { 1 } else { u16::try_from(time % 60_000)? };
            let endpoint = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            if kind != Kind::Setup {
                let found = meet(&client, endpoint, &pair[1]).await?;
                let expected =
                    if kind == Kind::Resumed && time > 0 { HandshakeKind::Resumed } else { HandshakeKind::Full };
                ensure!(found == expected, "a handshake was {found:?}");
            }
        }
        Ok(())
    })
}

async fn meet(client: &MeshClient, endpoint: SocketAddr, credentials: &Credentials) -> Result<HandshakeKind> {
    let (near, far) = tokio::io::duplex(FLIGHT);
    let served = async {
        let mut accepted = tls::accept(credentials, far, LIMIT).await?;
        accepted.stream.write_u8(1).await?;
        accepted.stream.flush().await?;
        anyhow::Ok(accepted)
    };
    let called = async {
        let mut stream = tls::connect(client, endpoint, near, LIMIT).await?;
        // The ticket comes before it.
        stream.read_u8().await?;
        anyhow::Ok(stream)
    };
    let (_accepted, stream) = tokio::try_join!(served, called)?;
    stream.get_ref().1.handshake_kind().context("the handshake is not done")
}

/// Open connections over loopback, both sides in this process.
struct Opener {
    client: Arc<MeshClient>,
    server: Credentials,
    listener: TcpListener,
}

impl Opener {
    async fn new() -> Result<Self> {
        let root = Root::new()?;
        let client = root.credentials(&caller())?.client_config(&[callee()], MeshProtocol::Tcp.alpn());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        Ok(Self { client, server: root.credentials(&callee())?, listener })
    }

    async fn open(&self) -> Result<[Connection; 2]> {
        let address = self.listener.local_addr()?;
        let (near, far) = tokio::try_join!(TcpStream::connect(address), self.listener.accept())?;
        let accepted = tls::accept(&self.server, ReadAhead::new(far.0), LIMIT);
        let connected = tls::connect(&self.client, address, ReadAhead::new(near), LIMIT);
        let (accepted, connected) = tokio::try_join!(accepted, connected)?;
        let near = Connection::new(Stream::Client(Box::new(connected)));
        Ok([near, Connection::new(Stream::Server(Box::new(accepted.stream)))])
    }
}

/// Resident bytes of one side of an open connection between two proxies, over `count` connections.
pub fn idle_weight(count: usize) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let opener = Opener::new().await?;
        // A request and an answer, each larger than a read of rustls.
        let used = async || -> Result<[Connection; 2]> {
            let [mut near, mut far] = opener.open().await?;
            near.write_all(&[7; 6000]).await?;
            read(&mut far, 6000).await?;
            far.write_all(&[7; 6000]).await?;
            read(&mut near, 6000).await?;
            Ok([near, far])
        };
        // What is made once is made before counting.
        let mut held = vec![used().await?];
        let before = resident()?;
        for _ in 0..count {
            held.push(used().await?);
        }
        let after = resident()?;
        drop(held);
        Ok((after - before) / (2 * count) as f64)
    })
}

/// Sends so much from the client to the server, as a tunnel does: what one read takes at a time.
pub fn bulk(mebibytes: u32) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let [mut near, mut far] = Opener::new().await?.open().await?;
        let total = mebibytes as usize * 1024 * 1024;
        let written = async {
            let piece = vec![7; AT_ONCE];
            for _ in 0..total / AT_ONCE {
                near.write_all(&piece).await?;
            }
            anyhow::Ok(())
        };
        tokio::try_join!(written, read(&mut far, total))?;
        Ok(())
    })
}

async fn read(connection: &mut Connection, mut left: usize) -> Result<()> {
    while left > 0 {
        if left > LARGE {
            connection.expect_bulk();
        }
        let count = connection.fill().await?;
        ensure!(count > 0, "the connection ended");
        left -= count;
        connection.consume(count);
    }
    connection.release();
    Ok(())
}

fn resident() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).context("no Rss in smaps_rollup")?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024.0)
}
