//! Frames queued for the socket, of all streams, in one recycled buffer.

use crate::http2::frame::{self, FrameHeader, HEADER_BYTES, Kind, flags};
use crate::http2::{ErrorCode, Fields, hpack};
use crate::stream::{give_text, take_text};

/// What is to be written, and how far that has come.
#[derive(Debug, Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    written: usize,
    /// Bytes of answers among them that the peer made us owe.
    owed: usize,
    /// Bytes of data queued since everything was written last. Nothing else counts, so that the room a stream was told
    /// of stays, whatever control frames come between.
    data: usize,
    /// How often everything was written: what a stream has queued is counted anew each time.
    epoch: u32,
}

impl Output {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn pending(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    pub(super) fn queued_data(&self) -> usize {
        self.data
    }

    pub(super) fn owed(&self) -> usize {
        self.owed
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(super) fn advance(&mut self, count: usize) {
        self.written = (self.written + count).min(self.bytes.len());
        if self.written == self.bytes.len() {
            self.bytes.clear();
            self.written = 0;
            self.owed = 0;
            self.data = 0;
            self.epoch = self.epoch.wrapping_add(1);
        } else if self.written > self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }

    /// Gives the buffer back if it holds nothing.
    pub(super) fn release(&mut self) {
        if self.bytes.is_empty() {
            give_text(std::mem::take(&mut self.bytes));
        }
    }

    /// Drops what was not written.
    pub(super) fn abandon(&mut self) {
        let left = self.len();
        self.advance(left);
        self.release();
    }

    /// Where frames are appended.
    fn place(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = take_text();
        }
        &mut self.bytes
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.place().extend_from_slice(bytes);
    }

    pub(super) fn data(&mut self, stream: u32, data: &[u8], end: bool) {
        let flags = if end { flags::END_STREAM } else { 0 };
        self.data += data.len();
        let place = self.place();
        FrameHeader { length: data.len() as u32, kind: Kind::Data, flags, stream }.write(place);
        place.extend_from_slice(data);
    }

    /// HEADERS, and CONTINUATION where the peer's frames are too small.
    pub(super) fn head(
        &mut self,
        stream: u32,
        fields: &Fields,
        end: bool,
        encoder: &mut hpack::Encoder,
        max_frame: u32,
    ) {
        let place = self.place();
        let at = place.len();
        let end_stream = if end { flags::END_STREAM } else { 0 };
        let mut header = FrameHeader { length: 0, kind: Kind::Headers, flags: flags::END_HEADERS | end_stream, stream };
        header.write(place);
        encoder.encode(fields, place);
        // The length is known only now.
        let length = place.len() - at - HEADER_BYTES;
        if length <= max_frame as usize {
            header.length = length as u32;
            if let Some(written) = place.get_mut(at..at + HEADER_BYTES) {
                written.copy_from_slice(&header.to_bytes());
            }
        } else {
            let block = place.split_off(at + HEADER_BYTES);
            place.truncate(at);
            frame::write_headers(stream, &block, end, max_frame, place);
        }
    }

    pub(super) fn settings(&mut self, values: &[(u16, u32)]) {
        frame::write_settings(values, self.place());
    }

    pub(super) fn settings_ack(&mut self) {
        self.owed += HEADER_BYTES;
        frame::write_settings_ack(self.place());
    }

    pub(super) fn ping(&mut self, opaque: [u8; 8]) {
        frame::write_ping(opaque, false, self.place());
    }

    pub(super) fn ping_ack(&mut self, opaque: [u8; 8]) {
        self.owed += HEADER_BYTES + opaque.len();
        frame::write_ping(opaque, true, self.place());
    }

    pub(super) fn window_update(&mut self, stream: u32, increment: u32) {
        frame::write_window_update(stream, increment, self.place());
    }

    pub(super) fn reset(&mut self, stream: u32, code: ErrorCode) {
        self.owed += HEADER_BYTES + 4;
        frame::write_reset(stream, code, self.place());
    }

    pub(super) fn go_away(&mut self, last: u32, code: ErrorCode, debug: &str) {
        frame::write_go_away(last, code, debug, self.place());
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        give_text(std::mem::take(&mut self.bytes));
    }
}
