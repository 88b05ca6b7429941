//! Request heads: read strictly, written anew.

use super::body::BodyKind;
use super::message::{
    FieldStorage, HeadError, MAX_METHOD_BYTES, MAX_TARGET_BYTES, Summary, end_to_end, lines_end_in_crlf, summarize,
    write_field, write_fields,
};

/// A request head inside the buffer it came in.
#[derive(Debug)]
pub struct RequestHead<'h, 'b> {
    /// Bytes of the head, its empty line included.
    pub length: usize,
    pub method: &'b str,
    /// Origin-form target (path and query), or `*`.
    pub target: &'b str,
    /// From the target when that is absolute, else from `Host`; empty when an HTTP/1.0 client sent none.
    pub authority: &'b [u8],
    pub body: BodyKind,
    /// HTTP/1.1 (else 1.0).
    pub is_http11: bool,
    /// The client means to send another request on this connection.
    pub keep_alive: bool,
    pub expect_continue: bool,
    /// The head as it came.
    bytes: &'b [u8],
    fields: &'h [httparse::Header<'b>],
    summary: Summary,
}

/// What the proxy adds to a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestWrite<'a> {
    /// Used when the client sent no authority (HTTP/1.0).
    pub default_authority: &'a [u8],
    /// Written as `x-request-id` when the request has none.
    pub request_id: Option<&'a [u8]>,
    /// Written as `x-forwarded-client-cert`: the identity of a mesh client.
    pub client_certificate: Option<&'a [u8]>,
}

impl<'h, 'b> RequestHead<'h, 'b> {
    /// Reads the head at the front of `bytes`; `None` when it is not complete yet.
    ///
    /// # Errors
    /// When it is malformed, ambiguous or over a limit.
    pub fn parse(bytes: &'b [u8], storage: &'h mut FieldStorage<'b>) -> Result<Option<Self>, HeadError> {
        let mut request = httparse::Request::new(&mut []);
        let length = match request.parse_with_uninit_headers(bytes, &mut storage.0) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => {
                return if partial_target_is_too_long(bytes) { Err(HeadError::TargetTooLong) } else { Ok(None) };
            }
            Err(error) => return Err(error.into()),
        };
        if !lines_end_in_crlf(&bytes[..length]) {
            return Err(HeadError::Malformed("line end other than CRLF"));
        }
        let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
            return Err(HeadError::Malformed("start line"));
        };
        let fields: &'h [httparse::Header<'b>] = request.headers;
        let is_http11 = version == 1;
        let mut summary = summarize(fields)?;
        if summary.expect_continue && !is_http11 {
            // It means nothing in HTTP/1.0, but would in the HTTP/1.1 this goes on as (RFC 9110 section 10.1.1).
            drop_expectations(fields, &mut summary);
        }
        if method == "CONNECT" {
            return Err(HeadError::ConnectNotAllowed);
        }
        if method.len() > MAX_METHOD_BYTES {
            return Err(HeadError::Malformed("method longer than any that is known"));
        }
        if target.len() > MAX_TARGET_BYTES {
            return Err(HeadError::TargetTooLong);
        }
        let (absolute_authority, target) = split_target(method, target)?;
        let host = summary.host.map(|index| fields[index].value);
        if host.is_none() && is_http11 {
            return Err(HeadError::Malformed("no Host"));
        }
        let authority = absolute_authority.or(host).unwrap_or_default();
        if !host.is_none_or(is_authority) || !absolute_authority.is_none_or(is_authority) {
            return Err(HeadError::Malformed("Host is not an authority"));
        }
        let body = match (summary.chunked, summary.content_length) {
            (true, _) if !is_http11 => return Err(HeadError::Malformed("Transfer-Encoding in HTTP/1.0")),
            (true, _) => BodyKind::Chunked,
            (false, None | Some(0)) => BodyKind::Empty,
            (false, Some(length)) => BodyKind::Length(length),
        };
        let keep_alive = if is_http11 { !summary.close } else { summary.keep_alive && !summary.close };
        Ok(Some(Self {
            length,
            method,
            target,
            authority,
            body,
            is_http11,
            keep_alive,
            expect_continue: summary.expect_continue,
            bytes: &bytes[..length],
            fields,
            summary,
        }))
    }

    /// The target without its query.
    pub fn path(&self) -> &'b [u8] {
        let target = self.target.as_bytes();
        &target[..memchr::memchr(b'?', target).unwrap_or(target.len())]
    }

    /// What follows the target's `?`.
    pub fn query(&self) -> Option<&'b [u8]> {
        let target = self.target.as_bytes();
        memchr::memchr(b'?', target).map(|at| &target[at + 1..])
    }

    /// The values of the fields of this name, in their order.
    pub fn values<'n>(&'n self, name: &'n str) -> impl Iterator<Item = &'n [u8]> {
        self.fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// Doing it twice is the same as doing it once (RFC 9110 section 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
    }

    /// The client offers to leave HTTP/1.1 on this connection. An offer of HTTP/2 is not passed on.
    pub fn upgrade(&self) -> Option<&'b [u8]> {
        let value = self.fields[self.summary.upgrade?].value;
        let offers_http2 = value.split(|&b| b == b',').any(|t| t.trim_ascii().eq_ignore_ascii_case(b"h2c"));
        (self.is_http11 && self.summary.connection_upgrade && !offers_http2).then_some(value)
    }

    /// It offers WebSocket, and nothing else, in the way of RFC 6455: this is the key.
    pub fn websocket_key(&self) -> Option<&'b [u8]> {
        let offers = self.upgrade()?.trim_ascii().eq_ignore_ascii_case(b"websocket");
        if !offers || self.method != "GET" || self.body != BodyKind::Empty {
            return None;
        }
        let mut keys = self.fields.iter().filter(|field| field.name.eq_ignore_ascii_case("sec-websocket-key"));
        // One without a key, or with several, is one all the same: for whoever checks it.
        let key = keys.next().map_or(&b""[..], |field| field.value);
        Some(if keys.next().is_some() { b"" } else { key })
    }

    /// How many fields the head has.
    pub fn field_count(&self) -> usize {
        self.fields.len()
    }

    /// The fields that go on, without `Host` and `Transfer-Encoding`.
    pub(crate) fn end_to_end(&self) -> impl Iterator<Item = (&'b str, &'b [u8])> {
        let mut dropped = self.summary.dropped;
        if let Some(host) = self.summary.host {
            dropped.insert(host);
        }
        end_to_end(self.fields, dropped)
    }

    pub(crate) fn has_request_id(&self) -> bool {
        self.summary.request_id
    }

    /// `TE: trailers`, which HTTP/1 says to the next hop only and HTTP/2 to the last (RFC 9113 section 8.2.2).
    pub(crate) fn wants_trailers(&self) -> bool {
        let mut encodings = self.fields.iter().filter(|field| field.name.eq_ignore_ascii_case("te"));
        encodings.any(|te| te.value.split(|&b| b == b',').any(|t| t.trim_ascii().eq_ignore_ascii_case(b"trailers")))
    }

    /// Appends the head as it goes to the upstream.
    pub fn write(&self, write: &RequestWrite<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(self.method.as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        let mut dropped = self.summary.dropped;
        match self.summary.host {
            Some(index) if self.fields[index].value != self.authority => {
                write_fields(self.bytes, &self.fields[..index], &dropped, out);
                write_field(self.fields[index].name.as_bytes(), self.authority, out);
                for earlier in 0..=index {
                    dropped.insert(earlier);
                }
            }
            Some(_) => {}
            None if self.authority.is_empty() => write_field(b"host", write.default_authority, out),
            None => write_field(b"host", self.authority, out),
        }
        let upgrade = self.upgrade();
        if let (Some(index), true) = (self.summary.upgrade, upgrade.is_some()) {
            dropped.remove(index);
        }
        write_fields(self.bytes, self.fields, &dropped, out);
        if upgrade.is_some() {
            out.extend_from_slice(b"connection: upgrade\r\n");
        }
        if let (false, Some(id)) = (self.summary.request_id, write.request_id) {
            write_field(b"x-request-id", id, out);
        }
        if let Some(certificate) = write.client_certificate {
            write_field(b"x-forwarded-client-cert", certificate, out);
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn drop_expectations(fields: &[httparse::Header<'_>], summary: &mut Summary) {
    summary.expect_continue = false;
    for (index, _) in fields.iter().enumerate().filter(|(_, field)| field.name.eq_ignore_ascii_case("expect")) {
        summary.dropped.insert(index);
    }
}

/// A start line that has no end yet must not grow for ever. Empty lines before it do not count.
fn partial_target_is_too_long(bytes: &[u8]) -> bool {
    const LONGEST_LINE: usize = MAX_METHOD_BYTES + 1 + MAX_TARGET_BYTES + b" HTTP/1.1\r".len();
    let start = bytes.iter().position(|&b| b != b'\r' && b != b'\n').unwrap_or(bytes.len());
    let line = &bytes[start..];
    line.len() > LONGEST_LINE && memchr::memchr(b'\n', line).is_none_or(|end| end > LONGEST_LINE)
}

/// Splits an absolute-form target into its authority and the origin-form (RFC 9112 section 3.2).
fn split_target<'b>(method: &str, target: &'b str) -> Result<(Option<&'b [u8]>, &'b str), HeadError> {
    if target.as_bytes().contains(&b'#') {
        return Err(HeadError::Malformed("fragment in the request target"));
    }
    if target.starts_with('/') {
        return Ok((None, target));
    }
    if target == "*" {
        return if method == "OPTIONS" {
            Ok((None, target))
        } else {
            Err(HeadError::Malformed("target `*` with a method other than OPTIONS"))
        };
    }
    let (scheme, rest) = target.split_once("://").ok_or(HeadError::Malformed("request target"))?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(HeadError::Malformed("scheme of the request target"));
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() || path.starts_with('?') {
        return Err(HeadError::Malformed("request target"));
    }
    let path = match (path.is_empty(), method) {
        // RFC 9112 section 3.2.4: asked of the server as a whole.
        (true, "OPTIONS") => "*",
        (true, _) => "/",
        (false, _) => path,
    };
    Ok((Some(authority.as_bytes()), path))
}

/// The characters of RFC 3986 `host [":" port]`; no user information, no list.
pub(crate) fn is_authority(text: &[u8]) -> bool {
    /// Looked up rather than compared: every request asks for every byte.
    const ALLOWED: [bool; 256] = {
        let mut allowed = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            allowed[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let marks = b"-._~%!$&'()*+;=:[]";
        let mut at = 0;
        while at < marks.len() {
            allowed[marks[at] as usize] = true;
            at += 1;
        }
        allowed
    };
    text.iter().all(|&byte| ALLOWED[usize::from(byte)])
}
