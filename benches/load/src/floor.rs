//! Passes bytes through and does nothing else: what two TCP hops cost any proxy.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr};

use anyhow::Result;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::socket::Socket;

const LISTENER: Token = Token(usize::MAX);
/// As large as proxies of the field use.
const BUFFER: usize = 64 * 1024;

/// A client's connection and the application's.
struct Pair {
    ends: [Socket; 2],
    /// The end at this place has said all it will.
    is_over: [bool; 2],
}

impl Pair {
    /// Moves what can be moved; false when both are over.
    fn turn(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        for from in [0, 1] {
            let [first, second] = &mut self.ends;
            let (source, sink) = if from == 0 { (first, second) } else { (second, first) };
            sink.flush()?;
            // Nothing is read that could not be written: the peer's window closes instead.
            while !self.is_over[from] && sink.is_flushed() {
                let Some((read, is_more)) = source.read(buffer)? else { break };
                if read.is_empty() {
                    self.is_over[from] = true;
                    sink.stream.shutdown(Shutdown::Write)?;
                    break;
                }
                sink.send(read)?;
                if !is_more {
                    break;
                }
            }
        }
        Ok(self.is_over != [true, true])
    }
}

/// Serves until the process ends.
pub(crate) fn serve(listen: SocketAddr, to: SocketAddr) -> Result<()> {
    let mut listener = TcpListener::bind(listen)?;
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(1024));
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let (mut pairs, mut next) = (HashMap::new(), 0);
    let mut buffer = vec![0; BUFFER];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    let mut ends = [Socket::new(stream), Socket::new(TcpStream::connect(to)?)];
                    for end in &mut ends {
                        let interest = Interest::READABLE | Interest::WRITABLE;
                        poll.registry().register(&mut end.stream, Token(next), interest)?;
                    }
                    pairs.insert(next, Pair { ends, is_over: [false, false] });
                    next += 1;
                }
            } else if let Some(pair) = pairs.get_mut(&event.token().0)
                && !pair.turn(&mut buffer).unwrap_or(false)
            {
                pairs.remove(&event.token().0);
            }
        }
    }
}
