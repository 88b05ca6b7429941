//! HTTP/2 frame by frame (RFC 9113), as plain as it goes: what no honest client would send.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Nothing here takes long but on a busy machine.
const LIMIT: Duration = Duration::from_secs(10);

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const GOAWAY: u8 = 7;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// A frame in bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a payload of a test is small");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Fields as HPACK literals without indexing and without Huffman: whatever stands in them goes out as it is.
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let text = |text: &[u8], bytes: &mut Vec<u8>| {
        // A prefix of seven bits, and the rest in groups of seven.
        bytes.push(text.len().min(127) as u8);
        if let Some(mut rest) = text.len().checked_sub(127) {
            while rest >= 128 {
                bytes.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            bytes.push(rest as u8);
        }
        bytes.extend(text);
    };
    for (name, value) in fields {
        bytes.push(0);
        text(name.as_ref(), &mut bytes);
        text(value.as_ref(), &mut bytes);
    }
    bytes
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A final answer; 0 when its status is not of the static table.
    Answered(u16),
    /// `RST_STREAM` with this code.
    Reset(u32),
    /// `GOAWAY` with this code.
    GoAway(u32),
    /// The connection ended without a word.
    Closed,
}

/// A connection that has sent its preface and its settings.
#[derive(Debug)]
pub struct Raw(TcpStream);

impl Raw {
    pub fn open(address: SocketAddr) -> std::io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_nodelay(true)?;
        stream.write_all(PREFACE)?;
        stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
        Ok(Self(stream))
    }

    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes)
    }

    fn read(&mut self) -> std::io::Result<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head)?;
        let [a, b, c, kind, flags, s0, s1, s2, s3] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload)?;
        Ok((kind, flags, u32::from_be_bytes([s0, s1, s2, s3]), payload))
    }

    /// Reads until a stream, or the connection, has come to its end.
    ///
    /// # Errors
    /// When nothing comes for too long.
    pub fn end_of(&mut self, stream: u32) -> std::io::Result<End> {
        loop {
            let (kind, flags, of, payload) = match self.read() {
                Ok(frame) => frame,
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset
                    ) =>
                {
                    return Ok(End::Closed);
                }
                Err(error) => return Err(error),
            };
            let code = |at: usize| {
                payload.get(at..at + 4).map_or(0, |code| u32::from_be_bytes([code[0], code[1], code[2], code[3]]))
            };
            match kind {
                SETTINGS if flags & ACK == 0 => self.0.write_all(&frame(SETTINGS, ACK, 0, &[]))?,
                RST_STREAM if of == stream => return Ok(End::Reset(code(0))),
                GOAWAY if code(4) != 0 => return Ok(End::GoAway(code(4))),
                HEADERS if of == stream && !(100..200).contains(&status(&payload)) => {
                    return Ok(End::Answered(status(&payload)));
                }
                _ => {}
            }
        }
    }
}

impl Raw {
    /// Reads on to the end of a stream: whether it is a proper one.
    ///
    /// # Errors
    /// When nothing comes for too long.
    pub fn is_whole(&mut self, stream: u32) -> std::io::Result<bool> {
        loop {
            match self.read() {
                Ok((DATA | HEADERS, flags, of, _)) if of == stream && flags & END_STREAM != 0 => return Ok(true),
                Ok((RST_STREAM, _, of, _)) if of == stream => return Ok(false),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Err(error),
                Err(_) => return Ok(false),
            }
        }
    }
}

/// The status that begins a block: indexed, or a literal with an indexed name.
fn status(block: &[u8]) -> u16 {
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [first @ 0x88..=0x8e, ..] => STATIC[usize::from(first - 0x88)],
        [0x08 | 0x18 | 0x48, 3, digits @ ..] => digits
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|text| text.parse().ok())
            .unwrap_or(0),
        _ => 0,
    }
}
