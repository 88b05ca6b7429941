//! Response heads: what they mean, and how they go on.

use super::fields::{Field, Fields};
use super::name::Name;
use super::rules::{check_regular, set_length, set_once};
use super::websocket::{Accept, WEBSOCKET};
use crate::http1::{BodyKind, Connection, HeadError, ResponseWrite, status_digits, write_field};

/// A response head inside its header block.
#[derive(Debug)]
pub struct ResponseHead<'f> {
    pub status: u16,
    /// What the data must add up to, unless the response has none by its nature.
    pub content_length: Option<u64>,
    /// Never [`BodyKind::UntilClose`]; [`BodyKind::Chunked`] when only the stream's end will tell.
    pub body: BodyKind,
    fields: &'f Fields,
    /// The last one, and how many there are.
    weft_error: Option<&'f [u8]>,
    weft_errors: usize,
    to_head: bool,
    /// No field of it is dropped on the way to HTTP/2, but for `weft-error`.
    is_plain: bool,
}

impl<'f> ResponseHead<'f> {
    /// Reads a whole header block. `ended`: the stream ends with it; `to_head`: the request's method was HEAD.
    ///
    /// # Errors
    /// When it is malformed or ambiguous (RFC 9113 section 8.1.1), or HTTP/1 would refuse it.
    pub fn read(fields: &'f Fields, ended: bool, to_head: bool) -> Result<Self, HeadError> {
        let mut status = None;
        let (mut content_length, mut host) = (None, None);
        let (mut weft_error, mut weft_errors, mut is_plain) = (None, 0, true);
        for (index, field) in fields.iter().enumerate() {
            match field.known {
                Name::STATUS if index == 0 => {
                    set_once(&mut status, &field)?;
                    continue;
                }
                Name::AUTHORITY | Name::METHOD | Name::PATH | Name::SCHEME | Name::STATUS | Name::PROTOCOL => {
                    return Err(HeadError::Malformed("pseudo-field out of place"));
                }
                // Nobody needs one here; HTTP/1 refuses two.
                Name::HOST => set_once(&mut host, &field)?,
                Name::CONTENT_LENGTH => set_length(&mut content_length, &field)?,
                Name::WEFT_ERROR => {
                    weft_error = Some(field.value);
                    weft_errors += 1;
                }
                Name::TE | Name::HTTP2_SETTINGS | Name::CLIENT_CERTIFICATE => is_plain = false,
                _ => {}
            }
            check_regular(&field)?;
        }
        let status = read_status(status)?;
        if status < 200 && ended {
            return Err(HeadError::Malformed("interim response that ends the stream"));
        }
        let is_bodiless = to_head || status < 200 || status == 204 || status == 304;
        if status < 200 || status == 204 {
            // These have no length to speak of (RFC 9110 section 8.6).
            is_plain &= content_length.is_none();
        }
        let body = match (is_bodiless, ended, content_length) {
            (true, ..) => BodyKind::Empty,
            (false, true, Some(1..)) => {
                return Err(HeadError::Malformed("Content-Length of a response that has ended"));
            }
            (false, true, _) | (false, false, Some(0)) => BodyKind::Empty,
            (false, false, Some(length)) => BodyKind::Length(length),
            (false, false, None) => BodyKind::Chunked,
        };
        Ok(Self { status, content_length, body, fields, weft_error, weft_errors, to_head, is_plain })
    }

    /// An answer before the answer (RFC 9110 section 15.2).
    pub fn is_informational(&self) -> bool {
        self.status < 200
    }

    /// The code a proxy of ours gave for answering in the application's place.
    pub fn weft_error(&self) -> Option<&'f [u8]> {
        self.weft_error
    }

    /// The value of the first regular field of this name, which is lower case.
    pub fn get(&self, name: &[u8]) -> Option<&'f [u8]> {
        self.fields.iter().find(|field| field.name == name).map(|field| field.value)
    }

    /// Appends the head as it goes to an HTTP/1 client; the body follows as [`Self::body`] says, in chunks when that
    /// is [`BodyKind::Chunked`] and not `unchunk`.
    pub fn write_http1(&self, write: &ResponseWrite, out: &mut Vec<u8>) {
        out.reserve(self.fields.text.len() + 4 * self.fields.parts.len() + 128);
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(&status_digits(self.status));
        out.push(b' ');
        let reason = http::StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
        out.extend_from_slice(reason.unwrap_or_default().as_bytes());
        out.extend_from_slice(b"\r\n");
        for field in self.end_to_end(write.keep_error) {
            write_field(field.name, field.value, out);
        }
        match self.body {
            BodyKind::Chunked if !write.unchunk => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            // Without a length it would last until the connection ends.
            BodyKind::Empty if self.content_length.is_none() && !self.is_bodiless() => {
                out.extend_from_slice(b"content-length: 0\r\n");
            }
            _ => {}
        }
        write.connection.write(out);
        out.extend_from_slice(b"\r\n");
    }

    /// Appends the answer to an extended CONNECT as the one to an upgrade to WebSocket with this proof.
    pub fn write_switched(&self, accept: &Accept, keep_error: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
        for field in self.end_to_end(keep_error) {
            let is_of_handshake = field.known == Name::CONTENT_LENGTH || field.name == b"sec-websocket-accept";
            if !is_of_handshake {
                write_field(field.name, field.value, out);
            }
        }
        write_field(b"upgrade", WEBSOCKET, out);
        write_field(b"sec-websocket-accept", accept, out);
        Connection::Upgrade.write(out);
        out.extend_from_slice(b"\r\n");
    }

    /// The head as it goes to an HTTP/2 client. `keep_error`: the upstream is a proxy of ours.
    pub fn forwarded(&self, keep_error: bool) -> Fields {
        if self.is_plain && (self.weft_errors == 0 || keep_error && self.weft_errors == 1) {
            return self.fields.clone();
        }
        let mut out = Fields::new();
        out.push_known(Name::STATUS, b":status", &status_digits(self.status), false);
        for field in self.end_to_end(keep_error) {
            out.push_field(&field);
        }
        out
    }

    /// Its status or its request says that no body follows, whatever its length says.
    fn is_bodiless(&self) -> bool {
        self.to_head || self.status < 200 || self.status == 204 || self.status == 304
    }

    /// The fields that go on.
    fn end_to_end(&self, keep_error: bool) -> impl Iterator<Item = Field<'f>> {
        let has_no_length = self.status < 200 || self.status == 204;
        let mut errors_dropped = if keep_error { self.weft_errors.saturating_sub(1) } else { self.weft_errors };
        self.fields.iter().filter(move |field| match field.known {
            Name::STATUS | Name::TE | Name::HTTP2_SETTINGS | Name::CLIENT_CERTIFICATE => false,
            Name::CONTENT_LENGTH => !has_no_length,
            // One at most goes on, the last.
            Name::WEFT_ERROR if errors_dropped > 0 => {
                errors_dropped -= 1;
                false
            }
            _ => true,
        })
    }
}

fn read_status(status: Option<&[u8]>) -> Result<u16, HeadError> {
    let status = match status.ok_or(HeadError::Malformed("no :status"))? {
        [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
            u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
        }
        _ => return Err(HeadError::Malformed(":status")),
    };
    if status == 101 {
        // RFC 9113 section 8.6: there is nothing to switch to.
        return Err(HeadError::Malformed("status 101 in HTTP/2"));
    }
    Ok(status)
}
