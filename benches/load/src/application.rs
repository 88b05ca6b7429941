//! An application that answers at once: HTTP/1.1, and HTTP/2 where the connection begins with its preface.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;

use anyhow::Result;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};

use crate::http1::Answers;
use crate::http2::{PREFACE, Server};
use crate::socket::{READ, Socket};

const LISTENER: Token = Token(usize::MAX);

/// A client, and what it speaks.
struct Client {
    socket: Socket,
    /// What came and was not understood yet.
    input: Vec<u8>,
    http2: Option<Server>,
    has_spoken: bool,
}

impl Client {
    /// Answers all there is; false when the client has gone.
    fn turn(&mut self, buffer: &mut [u8], answers: &mut Answers) -> io::Result<bool> {
        loop {
            let (is_over, is_more) = match self.socket.read(buffer)? {
                None => break,
                Some((read, is_more)) => {
                    self.input.extend_from_slice(read);
                    (read.is_empty(), is_more)
                }
            };
            if is_over {
                return Ok(false);
            }
            if !self.has_spoken && self.input.starts_with(PREFACE) {
                self.input.drain(..PREFACE.len());
                self.http2 = Some(Server::new(&mut self.socket.out));
            }
            self.has_spoken |= self.input.len() >= PREFACE.len();
            let out = &mut self.socket.out;
            let read = match &mut self.http2 {
                Some(server) => server.hear(&self.input, out),
                None => answers.answer(&self.input, out),
            };
            self.input.drain(..read);
            if !is_more {
                break;
            }
        }
        self.socket.flush()?;
        Ok(true)
    }
}

/// Serves until the process ends.
pub(crate) fn serve(listen: SocketAddr) -> Result<()> {
    let mut listener = TcpListener::bind(listen)?;
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(1024));
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let (mut clients, mut next) = (HashMap::new(), 0);
    let (mut buffer, mut answers) = (vec![0; READ], Answers::default());
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, Token(next), interest)?;
                    let socket = Socket::new(stream);
                    clients.insert(next, Client { socket, input: Vec::new(), http2: None, has_spoken: false });
                    next += 1;
                }
            } else if let Some(client) = clients.get_mut(&event.token().0)
                && !client.turn(&mut buffer, &mut answers).unwrap_or(false)
            {
                clients.remove(&event.token().0);
            }
        }
    }
}
