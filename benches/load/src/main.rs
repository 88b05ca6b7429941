//! `weft-load`: everything of the lab that is not a proxy. One thread on one processor does what it can before it waits,
//! so that the load and the application behind the subject leave as little as possible of their processor unused.
//!
//! | module | holds |
//! |---|---|
//! | [`spent`] | what the subject has spent on processors |
//! | [`measure`] | a window of time: spending, requests and latencies within it, as JSON |
//! | [`socket`] | a non-blocking socket with a queue of output |
//! | [`http1`], [`http2`] | the two sides of each protocol, for well-meaning peers |
//! | [`drive`] | requests on kept connections: as many as there can be, or at a fixed rate |
//! | [`connections`] | a new connection for every request, with TLS or without; connections that idle |
//! | [`tls`] | the client's side of mutual TLS |
//! | [`bytes`] | a stream of bytes, and who drinks it |
//! | [`application`] | answers HTTP/1.1, HTTP/2 and gRPC |
//! | [`floor`] | passes bytes through: the least any proxy can cost |

mod application;
mod bytes;
mod connections;
mod drive;
mod floor;
mod http1;
mod http2;
mod measure;
mod socket;
mod spent;
mod tls;

use std::net::SocketAddr;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The lab's load, its application and its floor
#[derive(Debug, Parser)]
enum Arguments {
    /// Answer HTTP/1.1, HTTP/2 with prior knowledge and gRPC
    Application {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Pass bytes through
    Floor {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        to: SocketAddr,
    },
    /// Send bytes without end to whoever connects
    Source {
        #[arg(long)]
        listen: SocketAddr,
    },
    #[command(flatten)]
    Load(Load),
}

#[derive(Debug, Subcommand)]
enum Load {
    /// Send requests on kept connections
    Requests(drive::Plan),
    /// Send each request on a new connection
    Connections(connections::Plan),
    /// Open connections, send a request on each, and keep them until standard input ends
    Idle(connections::Idle),
    /// Read what `source` sends
    Bytes(bytes::Plan),
}

fn main() -> Result<()> {
    match Arguments::parse() {
        Arguments::Application { listen } => application::serve(listen),
        Arguments::Floor { listen, to } => floor::serve(listen, to),
        Arguments::Source { listen } => bytes::source(listen),
        Arguments::Load(Load::Requests(plan)) => drive::run(&plan),
        Arguments::Load(Load::Connections(plan)) => connections::run(&plan),
        Arguments::Load(Load::Idle(plan)) => connections::idle(&plan),
        Arguments::Load(Load::Bytes(plan)) => bytes::run(&plan),
    }
}
