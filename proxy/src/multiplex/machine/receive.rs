//! Bytes in: frames are told apart and handled where they lie. DATA is taken as it comes, other frames when whole.

use std::time::Instant;

use super::super::error::Flood;
use super::streams::{Half, interest};
use super::{Machine, Role};
use crate::http2::frame::{DEFAULT_MAX_FRAME_BYTES, FrameHeader, HEADER_BYTES, Kind, flags};
use crate::http2::{ErrorCode, PREFACE};

/// Where in the stream of bytes the next one stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reading {
    /// The client's first bytes, so many of which are missing.
    Preface {
        left: u8,
    },
    Header,
    /// A frame that is handled when it is whole.
    Payload(FrameHeader),
    /// The first byte of a padded DATA frame.
    PadLength(FrameHeader),
    Data {
        stream: u32,
        left: u32,
        padding: u32,
        end: bool,
    },
    /// A frame nobody knows.
    Skip {
        left: u32,
    },
}

impl Machine {
    /// Takes what can be taken of `bytes` and says how much that was. What is left is the begin of a frame: give it again
    /// with more behind it.
    pub(in crate::multiplex) fn receive(&mut self, bytes: &[u8], now: Instant) -> usize {
        self.now = now;
        self.read_at = now;
        self.pinged_at = None;
        let mut rest = bytes;
        while self.over.is_none() {
            let Some(used) = self.step(rest) else { break };
            rest = rest.get(used..).unwrap_or_default();
        }
        if self.over.is_some() { bytes.len() } else { bytes.len() - rest.len() }
    }

    /// DATA goes on beyond what was read: a larger buffer pays.
    pub(in crate::multiplex) fn expects_bulk(&self) -> bool {
        matches!(self.reading, Reading::Data { left, .. } if left as usize >= HEADER_BYTES * 128)
    }

    /// One step; `None` when more bytes are needed for it.
    fn step(&mut self, bytes: &[u8]) -> Option<usize> {
        match self.reading {
            Reading::Header => {
                let header = FrameHeader::parse(bytes.first_chunk::<HEADER_BYTES>()?);
                self.reading = Reading::Header;
                self.begin_frame(header);
                Some(HEADER_BYTES)
            }
            Reading::Payload(header) => {
                let payload = bytes.get(..header.length as usize)?;
                self.reading = Reading::Header;
                self.frame(header, payload);
                Some(payload.len())
            }
            Reading::PadLength(header) => {
                let &padding = bytes.first()?;
                self.begin_padded(header, u32::from(padding));
                Some(1)
            }
            Reading::Data { stream, left, padding, end } => self.data(stream, left, padding, end, bytes),
            Reading::Skip { left } => {
                let count = bytes.len().min(left as usize);
                let left = left - count as u32;
                self.reading = if left == 0 { Reading::Header } else { Reading::Skip { left } };
                (count > 0 || left == 0).then_some(count)
            }
            Reading::Preface { left } => self.preface(left, bytes),
        }
    }

    fn preface(&mut self, left: u8, bytes: &[u8]) -> Option<usize> {
        let expected = PREFACE.get(PREFACE.len() - usize::from(left)..).unwrap_or_default();
        let count = expected.len().min(bytes.len());
        if bytes.get(..count) != expected.get(..count) {
            self.broken(ErrorCode::PROTOCOL_ERROR, "no http/2 preface");
            return None;
        }
        let left = left - count as u8;
        self.reading = if left == 0 { Reading::Header } else { Reading::Preface { left } };
        (count > 0).then_some(count)
    }

    fn begin_frame(&mut self, header: FrameHeader) {
        if header.length > DEFAULT_MAX_FRAME_BYTES {
            return self.broken(ErrorCode::FRAME_SIZE_ERROR, "frame larger than SETTINGS_MAX_FRAME_SIZE");
        }
        if self.block.is_some() && header.kind != Kind::Continuation {
            return self.broken(ErrorCode::PROTOCOL_ERROR, "a header block was interrupted");
        }
        if !self.peer.is_known && (header.kind != Kind::Settings || header.has(flags::ACK)) {
            return self.broken(ErrorCode::PROTOCOL_ERROR, "the first frame is not SETTINGS");
        }
        match header.kind {
            Kind::Data => self.begin_data(header),
            Kind::Unknown(_) => {
                // Extensions may be sent by the million; they say nothing and are counted as what they cost.
                if self.spend(Flood::EmptyData) {
                    self.reading = Reading::Skip { left: header.length };
                }
            }
            _ => self.reading = Reading::Payload(header),
        }
    }

    /// DATA counts against both windows as a whole, padding included (RFC 9113 section 6.1).
    fn begin_data(&mut self, header: FrameHeader) {
        if header.stream == 0 || self.is_idle(header.stream) {
            return self.broken(ErrorCode::PROTOCOL_ERROR, "DATA on no stream");
        }
        self.receive_window -= header.length as i32;
        if self.receive_window < 0 {
            return self.broken(ErrorCode::FLOW_CONTROL_ERROR, "more DATA than the connection's window");
        }
        if header.length == 0 && !header.has(flags::END_STREAM) && !self.spend(Flood::EmptyData) {
            return;
        }
        let lenience = self.lenience();
        match self.streams.find(header.stream) {
            Some(slot) => {
                let Some(stream) = self.streams.get_mut(slot) else { return };
                stream.receive_window -= header.length as i32;
                let is_over = stream.receive_window + lenience < 0;
                match stream.receive {
                    Half::Body if is_over => self.break_stream(slot, ErrorCode::FLOW_CONTROL_ERROR),
                    Half::Body => {}
                    Half::Head => self.break_stream(slot, ErrorCode::PROTOCOL_ERROR),
                    Half::Ended => self.break_stream(slot, ErrorCode::STREAM_CLOSED),
                }
            }
            None if self.is_ignored(header.stream) => {}
            // RFC 9113 section 5.1: a connection error where the peer has ended the stream itself.
            None if self.streams.has_ended(header.stream) => {
                return self.broken(ErrorCode::STREAM_CLOSED, "DATA on a stream that has ended");
            }
            None => {
                self.reset_for_fault(header.stream, ErrorCode::STREAM_CLOSED);
                self.streams.remember_reset(header.stream);
            }
        }
        if header.has(flags::PADDED) {
            if header.length == 0 {
                return self.broken(ErrorCode::FRAME_SIZE_ERROR, "padded DATA without padding length");
            }
            self.reading = Reading::PadLength(header);
        } else {
            let end = header.has(flags::END_STREAM);
            self.reading = Reading::Data { stream: header.stream, left: header.length, padding: 0, end };
        }
    }

    fn begin_padded(&mut self, header: FrameHeader, padding: u32) {
        let Some(left) = (header.length - 1).checked_sub(padding) else {
            return self.broken(ErrorCode::PROTOCOL_ERROR, "more padding than frame");
        };
        let end = header.has(flags::END_STREAM);
        if left == 0 && !end && !self.spend(Flood::EmptyData) {
            return;
        }
        self.reading = Reading::Data { stream: header.stream, left, padding, end };
        // Nobody will ever use these.
        self.unused(header.stream, padding + 1);
    }

    /// Bytes of DATA that no one reads: their window goes back at once.
    fn unused(&mut self, stream: u32, count: u32) {
        if let Some(slot) = self.streams.find(stream)
            && let Some(stream) = self.streams.get_mut(slot)
            && stream.receive == Half::Body
        {
            stream.due += count;
            self.open_window(slot);
        }
        self.give_back(count as usize);
    }

    fn data(&mut self, stream: u32, left: u32, padding: u32, end: bool, bytes: &[u8]) -> Option<usize> {
        let count = bytes.len().min(left as usize);
        let (data, after) = bytes.split_at(count);
        let left = left - count as u32;
        let padded = if left == 0 { after.len().min(padding as usize) } else { 0 };
        let padding = padding - padded as u32;
        let is_done = left == 0 && padding == 0;
        if bytes.is_empty() && !is_done {
            return None;
        }
        // It ends here, or the padding still comes: the message is complete either way.
        let is_last = left == 0 && end;
        self.reading =
            if is_done { Reading::Header } else { Reading::Data { stream, left, padding, end: end && left > 0 } };
        match self.streams.find(stream) {
            Some(slot) => self.deliver(slot, data, is_last),
            None => self.give_back(count),
        }
        Some(count + padded)
    }

    fn deliver(&mut self, slot: u32, data: &[u8], is_last: bool) {
        let Some(stream) = self.streams.get_mut(slot) else { return };
        stream.arrived += data.len() as u64;
        let arrived = stream.arrived;
        if stream.expected.is_some_and(|expected| arrived > expected || (is_last && arrived < expected)) {
            self.give_back(data.len());
            return self.break_stream(slot, ErrorCode::PROTOCOL_ERROR);
        }
        stream.body.push(data);
        if !data.is_empty() {
            self.floods.useful();
        }
        if is_last {
            self.receive_end(slot);
        } else if !data.is_empty() {
            self.streams.event(slot, interest::READ);
        }
    }

    /// The peer's message is complete.
    pub(super) fn receive_end(&mut self, slot: u32) {
        if let Some(stream) = self.streams.get_mut(slot) {
            stream.receive = Half::Ended;
            stream.due = 0;
        }
        self.close_if_complete(slot);
        self.streams.event(slot, interest::READ);
    }

    /// Nobody has ever begun this stream.
    pub(super) fn is_idle(&self, stream: u32) -> bool {
        match (self.role, stream % 2) {
            (Role::Server, 1) => stream > self.last_peer,
            (Role::Client, 1) => stream >= self.next,
            // Pushed streams: there are none.
            _ => true,
        }
    }

    /// Late frames on a stream that we have reset, or never looked at.
    pub(super) fn is_ignored(&self, stream: u32) -> bool {
        self.streams.was_reset(stream) || matches!(self.draining, super::Draining::Last(last) if stream > last)
    }

    /// How far a stream's window may be overdrawn: our setting, if lower than the default, is not known to the peer
    /// before it says so.
    fn lenience(&self) -> i32 {
        if self.is_acknowledged { 0 } else { super::DEFAULT_WINDOW.saturating_sub(self.settings.stream_window) as i32 }
    }
}
