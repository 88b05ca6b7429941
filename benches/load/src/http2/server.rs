//! The application's side of a connection: 1 KiB for a request without a body, a unary call's answer for one with.

use std::collections::{HashMap, VecDeque};

use super::block::{Block, Name, literal};
use super::{
    Common, DATA, END_HEADERS, END_STREAM, Frame, HEADERS, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, RST_STREAM,
    WINDOW, message, write, write_settings,
};
use crate::http1;

/// What is the same for all connections.
#[derive(Debug)]
struct Answer {
    block: Block,
    body: Vec<u8>,
    trailers: Vec<u8>,
}

impl Answer {
    fn plain() -> Self {
        let mut fields: Vec<_> = http1::ANSWER_FIELDS.map(|(name, value)| (Name::Letters(name), value)).into();
        fields.push((Name::Letters("content-length"), "1024"));
        Self { block: Block::new(&[0x88], &fields), body: vec![b'a'; 1024], trailers: Vec::new() }
    }

    fn of_call() -> Self {
        let fields =
            [(Name::Letters("content-type"), "application/grpc"), (Name::Letters("grpc-accept-encoding"), "identity")];
        let mut trailers = Vec::new();
        literal(Name::Letters("grpc-status"), "0", &mut trailers);
        literal(Name::Letters("grpc-message"), "", &mut trailers);
        Self { block: Block::new(&[0x88], &fields), body: message(), trailers }
    }
}

#[derive(Debug)]
pub(crate) struct Server {
    common: Common,
    plain: Answer,
    call: Answer,
    /// Requests whose end has not come, and how much of their bodies has.
    open: HashMap<u32, usize>,
    /// Answers that wait for the connection's window.
    waiting: VecDeque<(u32, bool)>,
    /// Which answer's fields the peer's table holds.
    known: Option<bool>,
}

impl Server {
    /// For a connection whose preface has been read.
    pub(crate) fn new(out: &mut Vec<u8>) -> Self {
        write_settings(&[(MAX_CONCURRENT_STREAMS, 1000), (INITIAL_WINDOW_SIZE, WINDOW)], out);
        Self {
            common: Common::new(),
            plain: Answer::plain(),
            call: Answer::of_call(),
            open: HashMap::new(),
            waiting: VecDeque::new(),
            known: None,
        }
    }

    /// Takes what came and answers; how much of it was whole frames.
    pub(crate) fn hear(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        let mut rest = input;
        while let Some((frame, after)) = Frame::read(rest) {
            rest = after;
            self.common.hear(&frame, out);
            match frame.kind {
                HEADERS | DATA if frame.has(END_STREAM) => {
                    let body = self.open.remove(&frame.stream).unwrap_or(0);
                    let more = if frame.kind == DATA { frame.payload.len() } else { 0 };
                    self.waiting.push_back((frame.stream, body + more > 0));
                }
                HEADERS => {
                    self.open.insert(frame.stream, 0);
                }
                DATA => *self.open.entry(frame.stream).or_default() += frame.payload.len(),
                RST_STREAM => {
                    self.open.remove(&frame.stream);
                }
                _ => {}
            }
            self.answer(out);
        }
        input.len() - rest.len()
    }

    fn answer(&mut self, out: &mut Vec<u8>) {
        while let Some(&(stream, is_call)) = self.waiting.front() {
            let answer = if is_call { &self.call } else { &self.plain };
            let size = answer.body.len() as i64;
            if self.common.window < size {
                return;
            }
            self.common.window -= size;
            // One kind of answer a connection may use the peer's table.
            let table =
                if self.known.is_none_or(|known| known == is_call) { self.common.table.unwrap_or(0) } else { 0 };
            let block = answer.block.encoded(table, self.known.is_some());
            self.known.get_or_insert(is_call);
            write(HEADERS, END_HEADERS, stream, block, out);
            let end = if answer.trailers.is_empty() { END_STREAM } else { 0 };
            write(DATA, end, stream, &answer.body, out);
            if !answer.trailers.is_empty() {
                write(HEADERS, END_HEADERS | END_STREAM, stream, &answer.trailers, out);
            }
            self.waiting.pop_front();
        }
    }
}
