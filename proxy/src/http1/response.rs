//! Response heads: read strictly, written anew.

use std::time::Duration;

use super::body::BodyKind;
use super::message::{
    FieldStorage, HeadError, Summary, end_to_end, lines_end_in_crlf, summarize, write_field, write_fields,
};

/// A response head inside the buffer it came in.
#[derive(Debug)]
pub struct ResponseHead<'h, 'b> {
    /// Bytes of the head, its empty line included.
    pub length: usize,
    pub status: u16,
    pub body: BodyKind,
    /// The upstream means to answer another request on this connection.
    pub keep_alive: bool,
    reason: &'b str,
    /// The head as it came.
    bytes: &'b [u8],
    fields: &'h [httparse::Header<'b>],
    summary: Summary,
}

/// What the client is told about its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// HTTP/1.1 stays open: nothing is said.
    Persistent,
    /// HTTP/1.0 stays open: `keep-alive`.
    KeepAlive,
    Close,
    /// After `101`.
    Upgrade,
}

impl Connection {
    /// Appends the field that says it.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Persistent => {}
            Self::KeepAlive => write_field(b"connection", b"keep-alive", out),
            Self::Close => write_field(b"connection", b"close", out),
            Self::Upgrade => write_field(b"connection", b"upgrade", out),
        }
    }
}

/// How a response head is written.
#[derive(Debug, Clone, Copy)]
pub struct ResponseWrite {
    pub connection: Connection,
    /// The client does not know chunks (HTTP/1.0): the body ends with the connection.
    pub unchunk: bool,
    /// Keep a `weft-error` field: the upstream is a proxy of ours.
    pub keep_error: bool,
}

impl<'h, 'b> ResponseHead<'h, 'b> {
    /// Reads the head at the front of `bytes`; `None` when it is not complete yet. `to_head`: the request's
    /// method was HEAD, so no body follows whatever the fields say (RFC 9112 section 6.3).
    ///
    /// # Errors
    /// When it is malformed, ambiguous or over a limit.
    pub fn parse(bytes: &'b [u8], storage: &'h mut FieldStorage<'b>, to_head: bool) -> Result<Option<Self>, HeadError> {
        let mut response = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let length = match config.parse_response_with_uninit_headers(&mut response, bytes, &mut storage.0) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !lines_end_in_crlf(&bytes[..length]) {
            return Err(HeadError::Malformed("line end other than CRLF"));
        }
        let (Some(status), Some(version)) = (response.code, response.version) else {
            return Err(HeadError::Malformed("status line"));
        };
        if !(100..=999).contains(&status) {
            return Err(HeadError::Malformed("status"));
        }
        let fields: &'h [httparse::Header<'b>] = response.headers;
        let summary = summarize(fields)?;
        let is_http11 = version == 1;
        if summary.chunked && !is_http11 {
            return Err(HeadError::Malformed("Transfer-Encoding in HTTP/1.0"));
        }
        let body = if to_head || status < 200 || status == 204 || status == 304 {
            BodyKind::Empty
        } else if summary.chunked {
            BodyKind::Chunked
        } else {
            match summary.content_length {
                Some(0) => BodyKind::Empty,
                Some(length) => BodyKind::Length(length),
                None => BodyKind::UntilClose,
            }
        };
        let keep_alive = if is_http11 { !summary.close } else { summary.keep_alive && !summary.close };
        Ok(Some(Self {
            length,
            status,
            body,
            keep_alive: keep_alive && body != BodyKind::UntilClose,
            reason: response.reason.unwrap_or_default(),
            bytes: &bytes[..length],
            fields,
            summary,
        }))
    }

    /// An answer before the answer (RFC 9110 section 15.2); `101` is final for HTTP.
    pub fn is_informational(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// How long the upstream keeps the connection when it is idle (`Keep-Alive: timeout=SECONDS`).
    pub fn idle_timeout(&self) -> Option<Duration> {
        let value = self.fields.get(self.summary.keep_alive_field?)?.value;
        let parameter = value.split(|&b| b == b',').map(<[u8]>::trim_ascii).find_map(|parameter| {
            let (name, value) = parameter.split_at_checked(b"timeout=".len())?;
            name.eq_ignore_ascii_case(b"timeout=").then_some(value)
        });
        std::str::from_utf8(parameter?).ok()?.parse::<u32>().ok().map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// How many fields the head has.
    pub fn field_count(&self) -> usize {
        self.fields.len()
    }

    /// The code a proxy of ours gave for answering in the application's place.
    pub fn weft_error(&self) -> Option<&'b [u8]> {
        self.summary.weft_error.map(|index| self.fields[index].value)
    }

    /// The value of the one field of this name; `None` where there are several.
    pub(crate) fn field(&self, name: &str) -> Option<&'b [u8]> {
        let mut fields = self.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        let value = fields.next()?.value;
        fields.next().is_none().then_some(value)
    }

    /// The fields that go on, without `Transfer-Encoding`.
    pub(crate) fn end_to_end(&self) -> impl Iterator<Item = (&'b str, &'b [u8])> {
        end_to_end(self.fields, self.summary.dropped)
    }

    /// Appends the head as it goes to the client.
    pub fn write(&self, write: &ResponseWrite, out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(&status_digits(self.status));
        out.push(b' ');
        out.extend_from_slice(self.reason.as_bytes());
        out.extend_from_slice(b"\r\n");
        let mut dropped = self.summary.dropped;
        if let (Some(index), false) = (self.summary.weft_error, write.keep_error) {
            dropped.insert(index);
        }
        if write.unchunk || self.status < 200 || self.status == 204 {
            // RFC 9112 section 6.1: no Transfer-Encoding in 1xx and 204, nor towards HTTP/1.0.
            for (index, field) in self.fields.iter().enumerate() {
                let is_framing = field.name.eq_ignore_ascii_case("transfer-encoding")
                    || (self.status < 200 || self.status == 204) && field.name.eq_ignore_ascii_case("content-length");
                if is_framing {
                    dropped.insert(index);
                }
            }
        }
        if let (Some(index), Connection::Upgrade) = (self.summary.upgrade, write.connection) {
            dropped.remove(index);
        }
        write_fields(self.bytes, self.fields, &dropped, out);
        write.connection.write(out);
        out.extend_from_slice(b"\r\n");
    }
}

/// A status from 100 to 999 as text.
pub(crate) fn status_digits(status: u16) -> [u8; 3] {
    [status / 100, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8)
}
