//! HEADERS and CONTINUATION: heads, interim heads and trailers.

use super::super::error::{Flood, StreamError};
use super::streams::{Half, interest};
use super::{Arrived, Machine, Role};
use crate::http1::HeadError;
use crate::http2::frame::{self, FrameHeader, flags};
use crate::http2::{ErrorCode, Fields, RequestHead, ResponseHead, Trailers};
use crate::stream::{give_text, take_text};

/// Interim heads (1xx) that may wait for their reader.
const INTERIM_HEADS: usize = 8;

/// A header block that has not come whole.
#[derive(Debug)]
pub(super) struct Block {
    stream: u32,
    end_stream: bool,
    depends_on_itself: bool,
    frames: u32,
    bytes: Vec<u8>,
}

/// Where a header block belongs.
enum Place {
    /// A stream that the peer begins with it.
    New,
    Stream(u32),
    /// Decoded for the table's sake only.
    Nowhere,
}

impl Machine {
    pub(super) fn headers(&mut self, header: FrameHeader, payload: &[u8]) {
        if header.stream.is_multiple_of(2) {
            return self.broken(ErrorCode::PROTOCOL_ERROR, "HEADERS on no stream of a client");
        }
        let (range, depends_on_itself) = match frame::headers_range(&header, payload) {
            Ok(range) => (range, false),
            // An error of the stream, but the block is to be decoded: where it is does not depend on the priority.
            Err(frame::FrameError::DependsOnItself(_)) => {
                let without = FrameHeader { flags: header.flags & !flags::PRIORITY, ..header };
                match frame::headers_range(&without, payload) {
                    Ok(range) => (range.start + 5..range.end, true),
                    Err(error) => return self.broken(error.code(), "malformed HEADERS"),
                }
            }
            Err(error) => return self.broken(error.code(), "malformed HEADERS"),
        };
        let fragment = payload.get(range).unwrap_or_default();
        let end_stream = header.has(flags::END_STREAM);
        if header.has(flags::END_HEADERS) {
            return self.head(header.stream, fragment, end_stream, depends_on_itself);
        }
        let mut bytes = take_text();
        bytes.extend_from_slice(fragment);
        self.block = Some(Block { stream: header.stream, end_stream, depends_on_itself, frames: 0, bytes });
    }

    pub(super) fn continuation(&mut self, header: FrameHeader, payload: &[u8]) {
        let Some(mut block) = self.block.take().filter(|block| block.stream == header.stream) else {
            return self.broken(ErrorCode::PROTOCOL_ERROR, "CONTINUATION of no header block");
        };
        block.frames += 1;
        // Compressed, a head within its limit takes less than the limit, whatever the way of writing it.
        if block.frames > self.settings.floods.continuations
            || block.bytes.len() + payload.len() > 2 * self.settings.head.bytes
        {
            return self.flood(Flood::Continuation);
        }
        block.bytes.extend_from_slice(payload);
        if header.has(flags::END_HEADERS) {
            self.head(block.stream, &block.bytes, block.end_stream, block.depends_on_itself);
            give_text(block.bytes);
        } else {
            self.block = Some(block);
        }
    }

    /// A whole header block.
    fn head(&mut self, id: u32, block: &[u8], ends: bool, depends_on_itself: bool) {
        let place = match self.place_of_head(id) {
            Ok(place) => place,
            Err((code, rule)) => return self.broken(code, rule),
        };
        let mut fields = Fields::new();
        let is_too_large = match self.decoder.decode(block, &mut fields, &self.settings.head) {
            Ok(()) => false,
            Err(error) if error.is_over_limit() => true,
            Err(_) => return self.broken(ErrorCode::COMPRESSION_ERROR, "malformed header compression"),
        };
        self.floods.useful();
        match place {
            // Begun after our last GOAWAY: its number is used up all the same.
            Place::Nowhere => self.last_peer = if self.role == Role::Server { self.last_peer.max(id) } else { 0 },
            Place::New if depends_on_itself => {
                self.last_peer = id;
                self.refuse(id, ErrorCode::PROTOCOL_ERROR);
            }
            Place::New => self.request(id, fields, ends, is_too_large),
            Place::Stream(slot) if depends_on_itself || is_too_large => {
                self.break_stream(slot, ErrorCode::PROTOCOL_ERROR);
            }
            Place::Stream(slot) => match self.streams.get(slot).map(|stream| stream.receive) {
                Some(Half::Head) => self.response(slot, fields, ends),
                Some(Half::Body) => self.trailers(slot, fields, ends),
                _ => self.break_stream(slot, ErrorCode::STREAM_CLOSED),
            },
        }
    }

    fn place_of_head(&self, id: u32) -> Result<Place, (ErrorCode, &'static str)> {
        if let Some(slot) = self.streams.find(id) {
            return Ok(Place::Stream(slot));
        }
        if self.is_ignored(id) {
            return Ok(Place::Nowhere);
        }
        match self.role {
            Role::Server if id > self.last_peer => Ok(Place::New),
            Role::Client if self.is_idle(id) => Err((ErrorCode::PROTOCOL_ERROR, "HEADERS on a stream nobody opened")),
            _ if self.role == Role::Client || self.streams.has_ended(id) => {
                Err((ErrorCode::STREAM_CLOSED, "HEADERS on a stream that has ended"))
            }
            _ => Err((ErrorCode::PROTOCOL_ERROR, "stream numbers do not ascend")),
        }
    }

    /// The stream is reset before anybody has seen it.
    fn refuse(&mut self, id: u32, code: ErrorCode) {
        self.reset_for_fault(id, code);
        self.streams.remember_reset(id);
    }

    fn request(&mut self, id: u32, head: Fields, ends: bool, is_too_large: bool) {
        self.last_peer = id;
        if self.streams.open() >= self.settings.max_streams as usize {
            return self.refuse(id, ErrorCode::REFUSED_STREAM);
        }
        let expected = if is_too_large {
            None
        } else {
            match RequestHead::read(&head, ends) {
                Ok(request) => request.content_length,
                Err(HeadError::Malformed(_)) => return self.refuse(id, ErrorCode::PROTOCOL_ERROR),
                // What is merely not allowed is for the server to answer.
                Err(_) => None,
            }
        };
        let windows = (self.peer.initial_window as i32, self.settings.stream_window as i32);
        let slot = self.streams.begin(id, windows, self.now);
        if let Some(stream) = self.streams.get_mut(slot) {
            stream.expected = expected;
            stream.receive = if ends { Half::Ended } else { Half::Body };
        }
        self.arrived.push_back(Arrived { slot, head, ended: ends, is_too_large });
    }

    fn response(&mut self, slot: u32, head: Fields, ends: bool) {
        let Some(stream) = self.streams.get_mut(slot) else { return };
        let Ok(response) = ResponseHead::read(&head, ends, stream.to_head) else {
            return self.break_stream(slot, ErrorCode::PROTOCOL_ERROR);
        };
        if response.is_informational() {
            // Switching protocols is not for HTTP/2 (RFC 9113 section 8.6).
            if response.status == 101 {
                return self.break_stream(slot, ErrorCode::PROTOCOL_ERROR);
            }
            if stream.heads.len() >= INTERIM_HEADS {
                return self.break_stream(slot, ErrorCode::ENHANCE_YOUR_CALM);
            }
        } else {
            let has_no_body = stream.to_head || matches!(response.status, 204 | 304);
            stream.expected = if has_no_body { Some(0) } else { response.content_length };
            stream.receive = Half::Body;
        }
        stream.heads.push_back((head, ends));
        if ends {
            self.receive_end(slot);
        } else {
            self.streams.event(slot, interest::READ);
        }
    }

    fn trailers(&mut self, slot: u32, trailers: Fields, ends: bool) {
        let Some(stream) = self.streams.get_mut(slot) else { return };
        let is_short = stream.expected.is_some_and(|expected| stream.arrived < expected);
        if !ends || is_short || Trailers::read(&trailers).is_err() {
            return self.break_stream(slot, ErrorCode::PROTOCOL_ERROR);
        }
        stream.trailers = Some(trailers);
        self.receive_end(slot);
    }

    pub(super) fn reset_stream(&mut self, header: FrameHeader, payload: &[u8]) {
        let code = match frame::number(&header, payload) {
            Ok(code) => ErrorCode(code),
            Err(error) => return self.broken(error.code(), "malformed RST_STREAM"),
        };
        if header.stream == 0 || self.is_idle(header.stream) {
            return self.broken(ErrorCode::PROTOCOL_ERROR, "RST_STREAM on no stream");
        }
        let Some(slot) = self.streams.find(header.stream) else { return };
        let lived = self.streams.get(slot).map(|stream| self.now.saturating_duration_since(stream.born));
        let is_rapid = lived.is_some_and(|lived| lived < self.settings.floods.rapid);
        if self.role == Role::Server && is_rapid && !self.spend(Flood::RapidReset) {
            return;
        }
        let error = match code {
            ErrorCode::REFUSED_STREAM if self.role == Role::Client => StreamError::Refused,
            code => StreamError::Reset(code),
        };
        self.fail(slot, error, false);
    }

    /// Streams above the last one are not served by this peer.
    pub(super) fn go_away(&mut self, header: FrameHeader, payload: &[u8]) {
        let (last, code) = match frame::go_away(payload) {
            Ok(told) => told,
            Err(error) => return self.broken(error.code(), "malformed GOAWAY"),
        };
        if header.stream != 0 {
            return self.broken(ErrorCode::PROTOCOL_ERROR, "GOAWAY on a stream");
        }
        // It may only ever name an earlier one.
        let last = self.told_to_go.map_or(last, |(before, _)| last.min(before));
        self.told_to_go = Some((last, code));
        if self.role == Role::Client {
            self.fail_streams(last, StreamError::Refused);
        }
    }
}
