//! Request heads: what they mean, and how they go on.

use super::fields::{Field, Fields};
use super::name::Name;
use super::rules::{check_regular, set_length, set_once};
use super::websocket::{Key, WEBSOCKET};
use crate::http1::{
    BodyKind, HeadError, MAX_METHOD_BYTES, MAX_TARGET_BYTES, RequestWrite, is_authority, is_token, write_field,
};

/// A request head inside its header block.
#[derive(Debug)]
pub struct RequestHead<'f> {
    pub method: &'f str,
    /// `http` or `https`
    pub scheme: &'f str,
    /// Never empty; `Host` when there was no `:authority`.
    pub authority: &'f [u8],
    /// Origin-form target (path and query), or `*`.
    pub target: &'f str,
    /// What the data must add up to.
    pub content_length: Option<u64>,
    /// Never [`BodyKind::UntilClose`]; [`BodyKind::Chunked`] when only the stream's end will tell.
    pub body: BodyKind,
    pub expect_continue: bool,
    /// Extended CONNECT (RFC 8441) for a WebSocket: the data are its bytes, both ways, once the answer is 2xx.
    pub is_websocket: bool,
    fields: &'f Fields,
    has_request_id: bool,
    weft_errors: usize,
    /// No field of it is dropped or moved on the way to HTTP/2.
    is_plain: bool,
}

/// A field the proxy adds.
type Addition<'w> = (Name, &'static [u8], &'w [u8]);

/// Pseudo-fields as they come.
#[derive(Default)]
struct Pseudo<'f> {
    method: Option<&'f [u8]>,
    scheme: Option<&'f [u8]>,
    authority: Option<&'f [u8]>,
    path: Option<&'f [u8]>,
    protocol: Option<&'f [u8]>,
}

impl<'f> Pseudo<'f> {
    /// False when the field is none of a request.
    fn take(&mut self, field: &Field<'f>) -> Result<bool, HeadError> {
        let place = match field.known {
            Name::METHOD => &mut self.method,
            Name::SCHEME => &mut self.scheme,
            Name::AUTHORITY => &mut self.authority,
            Name::PATH => &mut self.path,
            Name::PROTOCOL => &mut self.protocol,
            _ => return Ok(false),
        };
        set_once(place, field).map(|()| true)
    }
}

impl<'f> RequestHead<'f> {
    /// Reads a whole header block; `ended`: the stream ends with it.
    ///
    /// # Errors
    /// When it is malformed or ambiguous (RFC 9113 section 8.1.1), or HTTP/1 would refuse it.
    pub fn read(fields: &'f Fields, ended: bool) -> Result<Self, HeadError> {
        let mut pseudo = Pseudo::default();
        let mut regular = fields.iter();
        // Iterated by hand: the first field that is no pseudo-field ends them.
        let mut next = regular.next();
        while let Some(field) = &next
            && pseudo.take(field)?
        {
            next = regular.next();
        }
        let (mut host, mut content_length) = (None, None);
        let (mut expect_continue, mut has_request_id, mut weft_errors, mut is_plain) = (false, false, 0, true);
        while let Some(field) = next {
            match field.known {
                Name::AUTHORITY | Name::METHOD | Name::PATH | Name::SCHEME | Name::STATUS | Name::PROTOCOL => {
                    return Err(HeadError::Malformed("pseudo-field out of place"));
                }
                Name::HOST => {
                    is_plain = false;
                    set_once(&mut host, &field)?;
                }
                Name::CONTENT_LENGTH => set_length(&mut content_length, &field)?,
                Name::EXPECT => expect_continue |= field.value.eq_ignore_ascii_case(b"100-continue"),
                Name::REQUEST_ID => has_request_id = true,
                Name::WEFT_ERROR => {
                    weft_errors += 1;
                    is_plain &= weft_errors == 1;
                }
                Name::CLIENT_CERTIFICATE | Name::HTTP2_SETTINGS => is_plain = false,
                _ => {}
            }
            check_regular(&field)?;
            next = regular.next();
        }
        let body = match (ended, content_length) {
            (true, Some(1..)) => return Err(HeadError::Malformed("Content-Length of a request that has ended")),
            (true, _) | (false, Some(0)) => BodyKind::Empty,
            (false, Some(length)) => BodyKind::Length(length),
            (false, None) => BodyKind::Chunked,
        };
        let is_websocket = read_protocol(&pseudo)?;
        let method = read_method(pseudo.method, is_websocket)?;
        if is_websocket && (ended || content_length.is_some()) {
            return Err(HeadError::Malformed("extended CONNECT that has a length, or an end"));
        }
        Ok(Self {
            method,
            scheme: read_scheme(pseudo.scheme)?,
            authority: read_authority(pseudo.authority, host)?,
            target: read_target(method, pseudo.path)?,
            content_length,
            body,
            expect_continue,
            is_websocket,
            fields,
            has_request_id,
            weft_errors,
            is_plain,
        })
    }

    /// The target without its query.
    pub fn path(&self) -> &'f [u8] {
        let target = self.target.as_bytes();
        target.get(..memchr::memchr(b'?', target).unwrap_or(target.len())).unwrap_or(target)
    }

    /// What follows the target's `?`.
    pub fn query(&self) -> Option<&'f [u8]> {
        let target = self.target.as_bytes();
        memchr::memchr(b'?', target).and_then(|at| target.get(at + 1..))
    }

    /// The values of the fields of this name, which is given in lower case, in their order.
    pub fn values<'n>(&'n self, name: &'n str) -> impl Iterator<Item = &'n [u8]> {
        self.fields.iter().filter(move |field| field.name == name.as_bytes()).map(|field| field.value)
    }

    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// Doing it twice is the same as doing it once (RFC 9110 section 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
    }

    /// The value of the first regular field of this name, which is lower case.
    pub fn get(&self, name: &[u8]) -> Option<&'f [u8]> {
        self.fields.iter().find(|field| field.name == name).map(|field| field.value)
    }

    /// Appends the head as it goes to an HTTP/1.1 upstream; the body follows as [`Self::body`] says.
    pub fn write_http1(&self, write: &RequestWrite<'_>, out: &mut Vec<u8>) {
        debug_assert!(!self.is_websocket, "an extended CONNECT is an upgrade in HTTP/1.1");
        self.write_as(write, None, out);
    }

    /// Appends an extended CONNECT as the upgrade it is in HTTP/1.1.
    pub fn write_upgrade(&self, write: &RequestWrite<'_>, key: &Key, out: &mut Vec<u8>) {
        self.write_as(write, Some(key), out);
    }

    fn write_as(&self, write: &RequestWrite<'_>, key: Option<&Key>, out: &mut Vec<u8>) {
        out.reserve(self.fields.text.len() + 4 * self.fields.parts.len() + 128);
        let method = if self.is_websocket { "GET" } else { self.method };
        out.extend_from_slice(method.as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        write_field(b"host", self.authority, out);
        let mut cookie_written = false;
        for field in self.end_to_end() {
            match field.known {
                // What HTTP/1 says of it is between neighbours, and said to this one by nobody.
                Name::TE => {}
                _ if key.is_some() && field.name == b"sec-websocket-key" => {}
                Name::COOKIE if cookie_written || field.value.is_empty() => {}
                Name::COOKIE => {
                    self.write_cookie(out);
                    cookie_written = true;
                }
                _ => write_field(field.name, field.value, out),
            }
        }
        if self.is_websocket {
            // What follows the head is no body.
        } else if self.body == BodyKind::Chunked {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        } else if self.content_length.is_none() && matches!(self.method, "POST" | "PUT" | "PATCH") {
            // RFC 9110 section 8.6: these usually have a body, so that its absence is said.
            out.extend_from_slice(b"content-length: 0\r\n");
        }
        for (_, name, value) in self.additions(write).into_iter().flatten() {
            write_field(name, value, out);
        }
        if let Some(key) = key {
            write_field(b"upgrade", WEBSOCKET, out);
            write_field(b"connection", b"upgrade", out);
            write_field(b"sec-websocket-key", key, out);
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The crumbs of the cookie as one field (RFC 9113 section 8.2.3). Empty ones would leave a blank at its end.
    fn write_cookie(&self, out: &mut Vec<u8>) {
        let crumbs = self.fields.iter().filter(|field| field.known == Name::COOKIE && !field.value.is_empty());
        for (index, crumb) in crumbs.enumerate() {
            out.extend_from_slice(if index == 0 { b"cookie: " } else { b"; " });
            out.extend_from_slice(crumb.value);
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The head as it goes to an HTTP/2 upstream.
    pub fn forwarded(&self, write: &RequestWrite<'_>) -> Fields {
        let mut out = if self.is_plain {
            self.fields.clone()
        } else {
            let mut out = Fields::new();
            out.push_known(Name::METHOD, b":method", self.method.as_bytes(), false);
            out.push_known(Name::SCHEME, b":scheme", self.scheme.as_bytes(), false);
            out.push_known(Name::AUTHORITY, b":authority", self.authority, false);
            out.push_known(Name::PATH, b":path", self.target.as_bytes(), false);
            if self.is_websocket {
                out.push_known(Name::PROTOCOL, b":protocol", WEBSOCKET, false);
            }
            for field in self.end_to_end() {
                out.push_field(&field);
            }
            out
        };
        for (known, name, value) in self.additions(write).into_iter().flatten() {
            out.push_known(known, name, value, false);
        }
        out
    }

    /// The regular fields that go on, without `Host`.
    fn end_to_end(&self) -> impl Iterator<Item = Field<'f>> {
        let mut errors_dropped = self.weft_errors.saturating_sub(1);
        self.fields.iter().filter(move |field| match field.known {
            Name::METHOD | Name::SCHEME | Name::AUTHORITY | Name::PATH | Name::PROTOCOL | Name::HOST => false,
            Name::CLIENT_CERTIFICATE | Name::HTTP2_SETTINGS => false,
            // One at most goes on, the last, as from HTTP/1.
            Name::WEFT_ERROR if errors_dropped > 0 => {
                errors_dropped -= 1;
                false
            }
            _ => true,
        })
    }

    /// What the proxy says of the request.
    fn additions<'w>(&self, write: &RequestWrite<'w>) -> [Option<Addition<'w>>; 2] {
        let id = write.request_id.filter(|_| !self.has_request_id);
        [
            id.map(|id| (Name::REQUEST_ID, &b"x-request-id"[..], id)),
            write.client_certificate.map(|by| (Name::CLIENT_CERTIFICATE, &b"x-forwarded-client-cert"[..], by)),
        ]
    }
}

/// Whether it is the one protocol that extended CONNECT is taken for.
fn read_protocol(pseudo: &Pseudo<'_>) -> Result<bool, HeadError> {
    match (pseudo.protocol, pseudo.method) {
        (None, _) => Ok(false),
        (Some(protocol), Some(b"CONNECT")) if protocol.eq_ignore_ascii_case(WEBSOCKET) => Ok(true),
        (Some(protocol), Some(b"CONNECT")) if is_token(protocol) => Err(HeadError::ConnectNotAllowed),
        (Some(_), _) => Err(HeadError::Malformed(":protocol of no extended CONNECT")),
    }
}

fn read_method(method: Option<&[u8]>, is_websocket: bool) -> Result<&str, HeadError> {
    let method = method.ok_or(HeadError::Malformed("no :method"))?;
    if method == b"CONNECT" && !is_websocket {
        return Err(HeadError::ConnectNotAllowed);
    }
    if method.len() > MAX_METHOD_BYTES {
        return Err(HeadError::Malformed("method longer than any that is known"));
    }
    match std::str::from_utf8(method) {
        Ok(text) if is_token(method) => Ok(text),
        _ => Err(HeadError::Malformed(":method is not a token")),
    }
}

fn read_scheme(scheme: Option<&[u8]>) -> Result<&'static str, HeadError> {
    match scheme.ok_or(HeadError::Malformed("no :scheme"))? {
        scheme if scheme.eq_ignore_ascii_case(b"http") => Ok("http"),
        scheme if scheme.eq_ignore_ascii_case(b"https") => Ok("https"),
        _ => Err(HeadError::Malformed(":scheme other than http and https")),
    }
}

/// One name for the server, said once or twice the same way (RFC 9113 section 8.3.1).
fn read_authority<'f>(authority: Option<&'f [u8]>, host: Option<&'f [u8]>) -> Result<&'f [u8], HeadError> {
    if let (Some(authority), Some(host)) = (authority, host)
        && !authority.eq_ignore_ascii_case(host)
    {
        return Err(HeadError::Malformed(":authority and Host differ"));
    }
    match authority.or(host) {
        None | Some([]) => Err(HeadError::Malformed("no :authority")),
        Some(authority) if is_authority(authority) => Ok(authority),
        Some(_) => Err(HeadError::Malformed(":authority is not an authority")),
    }
}

/// What stands in HTTP/1's request line must be one word there (RFC 9112 section 3.2).
fn read_target<'f>(method: &str, path: Option<&'f [u8]>) -> Result<&'f str, HeadError> {
    let path = path.ok_or(HeadError::Malformed("no :path"))?;
    if path.len() > MAX_TARGET_BYTES {
        return Err(HeadError::TargetTooLong);
    }
    // Without a way out in the middle, so that many bytes are looked at together.
    let (blanks, fragments) = path.iter().fold((0u8, 0u8), |(blanks, fragments), &byte| {
        (blanks | u8::from(byte <= b' ' || byte == 0x7f), fragments | u8::from(byte == b'#'))
    });
    if blanks != 0 {
        return Err(HeadError::Malformed("blank or control byte in :path"));
    }
    if fragments != 0 {
        return Err(HeadError::Malformed("fragment in :path"));
    }
    match std::str::from_utf8(path) {
        Ok("*") if method == "OPTIONS" => Ok("*"),
        Ok(text) if text.starts_with('/') => Ok(text),
        Ok(_) => Err(HeadError::Malformed(":path does not begin with a slash")),
        Err(_) => Err(HeadError::Malformed(":path is not text")),
    }
}
