//! Frames (RFC 9113 section 4 and 6): the nine bytes before each, and the layout of what follows them.

use std::ops::Range;

use super::error::ErrorCode;

/// Bytes before each frame's payload.
pub const HEADER_BYTES: usize = 9;
/// The payload every peer must take, and the most it may be sent before it allows more.
pub const DEFAULT_MAX_FRAME_BYTES: u32 = 16 * 1024;
/// The most a peer may allow.
pub const LARGEST_MAX_FRAME_BYTES: u32 = (1 << 24) - 1;
/// The flow-control window before any setting.
pub const DEFAULT_WINDOW: u32 = 65_535;
/// The largest window, and the highest stream number.
pub const MAX_WINDOW: u32 = (1 << 31) - 1;
pub const MAX_STREAM: u32 = (1 << 31) - 1;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Data,
    Headers,
    Priority,
    ResetStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// To be ignored (RFC 9113 section 5.5).
    Unknown(u8),
}

impl From<u8> for Kind {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::Data,
            1 => Self::Headers,
            2 => Self::Priority,
            3 => Self::ResetStream,
            4 => Self::Settings,
            5 => Self::PushPromise,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            other => Self::Unknown(other),
        }
    }
}

impl From<Kind> for u8 {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Data => 0,
            Kind::Headers => 1,
            Kind::Priority => 2,
            Kind::ResetStream => 3,
            Kind::Settings => 4,
            Kind::PushPromise => 5,
            Kind::Ping => 6,
            Kind::GoAway => 7,
            Kind::WindowUpdate => 8,
            Kind::Continuation => 9,
            Kind::Unknown(other) => other,
        }
    }
}

/// Flags, by the frames that know them.
pub mod flags {
    /// `DATA`, `HEADERS`
    pub const END_STREAM: u8 = 0x1;
    /// `SETTINGS`, `PING`
    pub const ACK: u8 = 0x1;
    /// `HEADERS`, `CONTINUATION`
    pub const END_HEADERS: u8 = 0x4;
    /// `DATA`, `HEADERS`
    pub const PADDED: u8 = 0x8;
    /// `HEADERS`
    pub const PRIORITY: u8 = 0x20;
}

/// Settings (RFC 9113 section 6.5.2).
pub mod setting {
    pub const HEADER_TABLE_SIZE: u16 = 0x1;
    pub const ENABLE_PUSH: u16 = 0x2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 0x3;
    pub const INITIAL_WINDOW_SIZE: u16 = 0x4;
    pub const MAX_FRAME_SIZE: u16 = 0x5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 0x6;
    /// RFC 8441: extended CONNECT.
    pub const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;
    /// RFC 9218: no priorities as of RFC 7540.
    pub const NO_RFC7540_PRIORITIES: u16 = 0x9;
}

/// The nine bytes before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of the payload.
    pub length: u32,
    pub kind: Kind,
    pub flags: u8,
    pub stream: u32,
}

impl FrameHeader {
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = *bytes;
        Self {
            length: u32::from_be_bytes([0, a, b, c]),
            kind: Kind::from(kind),
            flags,
            // The reserved bit is ignored.
            stream: u32::from_be_bytes(stream) & MAX_STREAM,
        }
    }

    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let [_, high, middle, low] = self.length.to_be_bytes();
        let mut bytes = [high, middle, low, self.kind.into(), self.flags, 0, 0, 0, 0];
        bytes[5..].copy_from_slice(&self.stream.to_be_bytes());
        bytes
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_bytes());
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Why a payload is not what its frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("{0:?} frame of {1} bytes")]
    Length(Kind, usize),
    #[error("{0:?} frame with {1} bytes of padding in {2}")]
    Padding(Kind, u8, usize),
    #[error("stream {0} depends on itself")]
    DependsOnItself(u32),
}

impl FrameError {
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Length(..) => ErrorCode::FRAME_SIZE_ERROR,
            Self::Padding(..) | Self::DependsOnItself(_) => ErrorCode::PROTOCOL_ERROR,
        }
    }
}

/// Where in the payload of `DATA` the data is.
pub fn data_range(header: &FrameHeader, payload: &[u8]) -> Result<Range<usize>, FrameError> {
    without_padding(header, payload)
}

/// Where in the payload of `HEADERS` the header block fragment is. The priority it may carry is checked and ignored.
pub fn headers_range(header: &FrameHeader, payload: &[u8]) -> Result<Range<usize>, FrameError> {
    let Range { start, end } = without_padding(header, payload)?;
    if !header.has(flags::PRIORITY) {
        return Ok(start..end);
    }
    let fragment = start + 5;
    let depends = payload.get(start..end).and_then(|rest| rest.first_chunk::<5>());
    let Some([a, b, c, d, _weight]) = depends else {
        return Err(FrameError::Length(header.kind, payload.len()));
    };
    check_dependency(header.stream, [*a, *b, *c, *d])?;
    Ok(fragment..end)
}

/// Checks the payload of `PRIORITY`, which says nothing any more (RFC 9113 section 5.3.2).
pub fn check_priority(header: &FrameHeader, payload: &[u8]) -> Result<(), FrameError> {
    let Ok([a, b, c, d, _weight]) = <[u8; 5]>::try_from(payload) else {
        return Err(FrameError::Length(header.kind, payload.len()));
    };
    check_dependency(header.stream, [a, b, c, d])
}

fn check_dependency(stream: u32, depends: [u8; 4]) -> Result<(), FrameError> {
    if u32::from_be_bytes(depends) & MAX_STREAM == stream {
        return Err(FrameError::DependsOnItself(stream));
    }
    Ok(())
}

fn without_padding(header: &FrameHeader, payload: &[u8]) -> Result<Range<usize>, FrameError> {
    if !header.has(flags::PADDED) {
        return Ok(0..payload.len());
    }
    let &padding = payload.first().ok_or(FrameError::Length(header.kind, 0))?;
    match payload.len().checked_sub(1 + usize::from(padding)) {
        Some(length) => Ok(1..1 + length),
        None => Err(FrameError::Padding(header.kind, padding, payload.len())),
    }
}

/// The settings of a `SETTINGS` payload in order, unchecked values.
pub fn settings(payload: &[u8]) -> Result<impl Iterator<Item = (u16, u32)>, FrameError> {
    let (entries, []) = payload.as_chunks::<6>() else {
        return Err(FrameError::Length(Kind::Settings, payload.len()));
    };
    Ok(entries.iter().map(|&[a, b, c, d, e, f]| (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f]))))
}

/// The one number `RST_STREAM` and `WINDOW_UPDATE` carry, the reserved bit of the latter's taken away.
pub fn number(header: &FrameHeader, payload: &[u8]) -> Result<u32, FrameError> {
    let bytes = <[u8; 4]>::try_from(payload).map_err(|_| FrameError::Length(header.kind, payload.len()))?;
    let number = u32::from_be_bytes(bytes);
    Ok(if header.kind == Kind::WindowUpdate { number & MAX_WINDOW } else { number })
}

/// The eight bytes of `PING`.
pub fn ping(payload: &[u8]) -> Result<[u8; 8], FrameError> {
    <[u8; 8]>::try_from(payload).map_err(|_| FrameError::Length(Kind::Ping, payload.len()))
}

/// The last stream and the code of `GOAWAY`.
pub fn go_away(payload: &[u8]) -> Result<(u32, ErrorCode), FrameError> {
    let ([last, code, ..], _) = payload.as_chunks::<4>() else {
        return Err(FrameError::Length(Kind::GoAway, payload.len()));
    };
    Ok((u32::from_be_bytes(*last) & MAX_STREAM, ErrorCode(u32::from_be_bytes(*code))))
}

/// Appends `SETTINGS`.
pub fn write_settings(settings: &[(u16, u32)], out: &mut Vec<u8>) {
    FrameHeader { length: settings.len() as u32 * 6, kind: Kind::Settings, flags: 0, stream: 0 }.write(out);
    for (setting, value) in settings {
        out.extend_from_slice(&setting.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub fn write_settings_ack(out: &mut Vec<u8>) {
    FrameHeader { length: 0, kind: Kind::Settings, flags: flags::ACK, stream: 0 }.write(out);
}

pub fn write_ping(payload: [u8; 8], ack: bool, out: &mut Vec<u8>) {
    let flags = if ack { flags::ACK } else { 0 };
    FrameHeader { length: 8, kind: Kind::Ping, flags, stream: 0 }.write(out);
    out.extend_from_slice(&payload);
}

pub fn write_window_update(stream: u32, increment: u32, out: &mut Vec<u8>) {
    FrameHeader { length: 4, kind: Kind::WindowUpdate, flags: 0, stream }.write(out);
    out.extend_from_slice(&increment.to_be_bytes());
}

pub fn write_reset(stream: u32, code: ErrorCode, out: &mut Vec<u8>) {
    FrameHeader { length: 4, kind: Kind::ResetStream, flags: 0, stream }.write(out);
    out.extend_from_slice(&code.0.to_be_bytes());
}

/// Appends `GOAWAY`; `debug` is for the peer's log.
pub fn write_go_away(last: u32, code: ErrorCode, debug: &str, out: &mut Vec<u8>) {
    FrameHeader { length: 8 + debug.len() as u32, kind: Kind::GoAway, flags: 0, stream: 0 }.write(out);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
    out.extend_from_slice(debug.as_bytes());
}

/// Appends an encoded header block as `HEADERS` and as many `CONTINUATION`s as frames of `max_frame` bytes take.
pub fn write_headers(stream: u32, block: &[u8], end_stream: bool, max_frame: u32, out: &mut Vec<u8>) {
    let end_stream = if end_stream { flags::END_STREAM } else { 0 };
    let mut kind = Kind::Headers;
    let mut rest = block;
    loop {
        let (fragment, after) = rest.split_at(rest.len().min(max_frame.max(1) as usize));
        let end_headers = if after.is_empty() { flags::END_HEADERS } else { 0 };
        let end_stream = if kind == Kind::Headers { end_stream } else { 0 };
        FrameHeader { length: fragment.len() as u32, kind, flags: end_stream | end_headers, stream }.write(out);
        out.extend_from_slice(fragment);
        if after.is_empty() {
            return;
        }
        rest = after;
        kind = Kind::Continuation;
    }
}

#[cfg(test)]
mod tests;
