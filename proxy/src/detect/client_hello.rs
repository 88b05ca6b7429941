//! The first message of a TLS client, looked at and left as it is: whom it wants, and what it wants to speak.
//!
//! Pure, and without allocations. Invariants:
//! - the message may be cut into records, and the records into reads, anywhere: what is read does not depend on it
//!   (RFC 8446 section 5.1);
//! - what two servers could read in two ways is no ClientHello here: a length that contradicts another, an extension
//!   given twice, a name that is none. The connection would go one way and its server believe another;
//! - unknown extensions (GREASE among them, RFC 8701) are passed over. Of an encrypted ClientHello the outer name counts:
//!   it is the one meant for who stands between;
//! - at most [`LONGEST`] bytes are ever asked for.

/// Bytes of a record before its fragment: type, version, length.
const RECORD_HEADER: usize = 5;
/// Longest fragment of a record (RFC 8446 section 5.1).
const LONGEST_FRAGMENT: usize = 16 * 1024;
/// Bytes of a handshake message before its body: type, length.
const MESSAGE_HEADER: usize = 4;
/// Most bytes of a connection that are looked at, headers of records included: one full record. Ten times what browsers
/// send with post-quantum keys; a longer hello is refused.
pub const LONGEST: usize = RECORD_HEADER + LONGEST_FRAGMENT;
/// Longest name of a host (RFC 1035 section 2.3.4, without the root's dot).
const LONGEST_NAME: usize = 253;

/// `ContentType.handshake`.
const HANDSHAKE: u8 = 22;
/// First byte of the version of every record since SSL 3; the second says nothing (RFC 8446 section 5.1).
const VERSION: u8 = 3;
/// `HandshakeType.client_hello`.
const CLIENT_HELLO: u8 = 1;
/// `ExtensionType.server_name` (RFC 6066 section 3).
const SERVER_NAME: usize = 0;
/// `ExtensionType.application_layer_protocol_negotiation` (RFC 7301 section 3.1).
const PROTOCOLS: usize = 16;
/// `NameType.host_name`, the only one there is.
const HOST_NAME: usize = 0;

/// What the first bytes of a connection are.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "it lives on the stack for one look; a box would be an allocation")]
pub enum Peek<'a> {
    /// The begin of a ClientHello, as far as it has come.
    NeedMore,
    NotTls(Flaw),
    ClientHello(ClientHello<'a>),
}

/// Why bytes are no ClientHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("the first bytes are no record of a TLS handshake")]
    NoHandshake,
    #[error("a record of the handshake has a length that none may have")]
    RecordLength,
    #[error("the first TLS message is no ClientHello")]
    OtherMessage,
    #[error("the ClientHello is longer than the {LONGEST} bytes that are looked at")]
    TooLong,
    #[error("the lengths within the ClientHello contradict each other")]
    Lengths,
    #[error("the ClientHello has an extension twice")]
    Twice,
    #[error("the server name of the ClientHello is not a host's name")]
    Name,
}

/// What a client says of the connection it wants.
#[derive(Debug)]
pub struct ClientHello<'a> {
    server_name: Option<Word>,
    protocols: Option<Reader<'a>>,
}

impl ClientHello<'_> {
    /// Whom it wants: a host's name in lower case, without the root's dot.
    pub fn server_name(&self) -> Option<&str> {
        // Only ASCII comes past `host_name`.
        self.server_name.as_ref().and_then(|name| std::str::from_utf8(name.as_bytes()).ok())
    }

    /// What it offers to speak inside (ALPN), in its order.
    pub fn protocols(&self) -> impl Iterator<Item = Word> {
        let mut rest = self.protocols;
        std::iter::from_fn(move || rest.as_mut().and_then(word))
    }
}

/// Up to 255 bytes, copied: in the message they may lie in several records.
#[derive(Clone, Copy)]
pub struct Word {
    bytes: [u8; 255],
    length: u8,
}

impl Word {
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// All that is left to read, when a word can hold it.
    fn read(mut from: Reader<'_>) -> Option<Self> {
        let length = u8::try_from(from.left).ok()?;
        let mut bytes = [0; 255];
        for byte in &mut bytes[..usize::from(length)] {
            *byte = from.next()?;
        }
        Some(Self { bytes, length })
    }
}

impl std::fmt::Debug for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}

/// Looks at the bytes a client has sent so far.
pub fn peek(bytes: &[u8]) -> Peek<'_> {
    match message(bytes) {
        Ok(Some(body)) => client_hello(body).map_or_else(Peek::NotTls, Peek::ClientHello),
        Ok(None) if bytes.len() >= LONGEST => Peek::NotTls(Flaw::TooLong),
        Ok(None) => Peek::NeedMore,
        Err(flaw) => Peek::NotTls(flaw),
    }
}

/// The body of the first message, when all of it is there and it is a ClientHello's.
fn message(bytes: &[u8]) -> Result<Option<Reader<'_>>, Flaw> {
    let wire = bytes.get(..LONGEST).unwrap_or(bytes);
    let (mut rest, mut header, mut come) = (wire, [0; MESSAGE_HEADER], 0);
    while let Some(length) = record(rest)? {
        let fragment = &rest[RECORD_HEADER..];
        let fragment = &fragment[..length.min(fragment.len())];
        for (place, byte) in header[come.min(MESSAGE_HEADER)..].iter_mut().zip(fragment) {
            *place = *byte;
        }
        come += fragment.len();
        if come > 0 && header[0] != CLIENT_HELLO {
            return Err(Flaw::OtherMessage);
        }
        if come >= MESSAGE_HEADER {
            let whole = MESSAGE_HEADER + number(&header[1..]);
            if whole > LONGEST_FRAGMENT {
                return Err(Flaw::TooLong);
            }
            if come >= whole {
                let mut message = Reader { wire, in_record: 0, left: whole };
                // Cannot fail: its records were just walked through.
                return message.skip(MESSAGE_HEADER).map(|()| Some(message)).ok_or(Flaw::Lengths);
            }
        }
        if fragment.len() < length {
            return Ok(None);
        }
        rest = &rest[RECORD_HEADER + length..];
    }
    Ok(None)
}

/// The length of the record that begins here; `None` while its header is not there.
fn record(bytes: &[u8]) -> Result<Option<usize>, Flaw> {
    let is_handshake = bytes.first().is_none_or(|kind| *kind == HANDSHAKE);
    if !is_handshake || bytes.get(1).is_some_and(|version| *version != VERSION) {
        return Err(Flaw::NoHandshake);
    }
    let Some(header) = bytes.first_chunk::<RECORD_HEADER>() else { return Ok(None) };
    match number(&header[3..]) {
        length @ 1..=LONGEST_FRAGMENT => Ok(Some(length)),
        _ => Err(Flaw::RecordLength),
    }
}

/// RFC 8446 section 4.1.2; the oldest versions have no extensions.
fn client_hello(mut body: Reader<'_>) -> Result<ClientHello<'_>, Flaw> {
    let mut hello = ClientHello { server_name: None, protocols: None };
    let mut extensions = before_extensions(&mut body).ok_or(Flaw::Lengths)?;
    while extensions.left > 0 {
        let (kind, data) = extension(&mut extensions).ok_or(Flaw::Lengths)?;
        match kind {
            SERVER_NAME if hello.server_name.is_some() => return Err(Flaw::Twice),
            PROTOCOLS if hello.protocols.is_some() => return Err(Flaw::Twice),
            SERVER_NAME => hello.server_name = Some(host_name(server_name(data).ok_or(Flaw::Lengths)?)?),
            PROTOCOLS => hello.protocols = Some(protocols(data).ok_or(Flaw::Lengths)?),
            _ => {}
        }
    }
    Ok(hello)
}

/// Reads up to the extensions, which must be the rest.
fn before_extensions<'a>(body: &mut Reader<'a>) -> Option<Reader<'a>> {
    const VERSION_AND_RANDOM: usize = 2 + 32;
    body.skip(VERSION_AND_RANDOM)?;
    let session = body.vector(1)?;
    let suites = body.vector(2)?;
    let compressions = body.vector(1)?;
    let is_sound = session.left <= 32 && suites.left >= 2 && suites.left.is_multiple_of(2) && compressions.left >= 1;
    let extensions = if body.left == 0 { *body } else { body.vector(2)? };
    (is_sound && body.left == 0).then_some(extensions)
}

fn extension<'a>(extensions: &mut Reader<'a>) -> Option<(usize, Reader<'a>)> {
    Some((extensions.number(2)?, extensions.vector(2)?))
}

/// The one name in the list: no other type was ever defined, and two of one type are forbidden.
fn server_name(mut data: Reader<'_>) -> Option<Reader<'_>> {
    let mut list = data.vector(2)?;
    let is_host = list.number(1)? == HOST_NAME;
    let name = list.vector(2)?;
    (is_host && list.left == 0 && data.left == 0).then_some(name)
}

/// Letters, digits, `-` and, as the world has it, `_`, in labels that are not empty.
fn host_name(name: Reader<'_>) -> Result<Word, Flaw> {
    let mut name = Word::read(name).ok_or(Flaw::Name)?;
    name.length -= u8::from(name.as_bytes().ends_with(b"."));
    let labels = |label: &[u8]| {
        let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.iter().all(is_letter)
    };
    if name.as_bytes().len() > LONGEST_NAME || !name.as_bytes().split(|byte| *byte == b'.').all(labels) {
        return Err(Flaw::Name);
    }
    name.bytes.make_ascii_lowercase();
    Ok(name)
}

/// The list of ALPN names, each checked.
fn protocols(mut data: Reader<'_>) -> Option<Reader<'_>> {
    let list = data.vector(2)?;
    let mut names = list;
    while names.left > 0 {
        word(&mut names).filter(|name| name.length > 0)?;
    }
    (list.left > 0 && data.left == 0).then_some(list)
}

fn word(from: &mut Reader<'_>) -> Option<Word> {
    from.vector(1).and_then(Word::read)
}

/// A part of a message that lies in one record or several; it reads on over the headers between.
#[derive(Debug, Clone, Copy)]
struct Reader<'a> {
    /// Records, the first of them begun.
    wire: &'a [u8],
    /// What is left of the first.
    in_record: usize,
    /// What is left of the part.
    left: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<u8> {
        let begin = self.begin(1)?;
        self.skip(1)?;
        begin.first().copied()
    }

    fn number(&mut self, width: usize) -> Option<usize> {
        (0..width).try_fold(0, |number, _| Some(number << 8 | usize::from(self.next()?)))
    }

    /// A part behind its length.
    fn vector(&mut self, width: usize) -> Option<Self> {
        let length = self.number(width)?;
        let part = Self { left: length, ..*self };
        self.skip(length)?;
        Some(part)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        let mut to_skip = count;
        while to_skip > 0 {
            let length = self.begin(to_skip)?.len();
            self.wire = self.wire.get(length..)?;
            self.in_record -= length;
            self.left -= length;
            to_skip -= length;
        }
        Some(())
    }

    /// Up to `most` bytes, as many as lie together and one at least; `None` when the part has fewer than `most`.
    fn begin(&mut self, most: usize) -> Option<&'a [u8]> {
        if most > self.left {
            return None;
        }
        if self.in_record == 0 {
            self.in_record = record(self.wire).ok()??;
            self.wire = &self.wire[RECORD_HEADER..];
        }
        self.wire.get(..most.min(self.in_record))
    }
}

/// A number in the order of the network.
fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

#[cfg(test)]
mod tests;
