//! Which fields the proxy cares about, found by length first so that the others cost one comparison.

/// Most fields in a head, both directions.
pub const MAX_FIELDS: usize = 200;
/// Room for fields: a head within the limit is still read after a proxy of ours has added to it.
pub(super) const FIELD_ROOM: usize = MAX_FIELDS + 8;

/// A field by what the proxy does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
    Expect,
    RequestId,
    /// `x-forwarded-client-cert`: only a proxy may say it, so it ends here and is written anew.
    ClientCertificate,
    /// `weft-error`: why a proxy answered in the application's place.
    WeftError,
    /// `keep-alive`: how long the sender keeps an idle connection.
    KeepAlive,
    /// Ends at this hop whatever it says.
    HopByHop,
    Other,
}

pub(super) fn classify(name: &str) -> Field {
    let is = |other: &str| name.as_bytes().eq_ignore_ascii_case(other.as_bytes());
    match name.len() {
        2 if is("te") => Field::HopByHop,
        4 if is("host") => Field::Host,
        6 if is("expect") => Field::Expect,
        7 if is("upgrade") => Field::Upgrade,
        10 if is("connection") => Field::Connection,
        10 if is("keep-alive") => Field::KeepAlive,
        10 if is("weft-error") => Field::WeftError,
        12 if is("x-request-id") => Field::RequestId,
        14 if is("content-length") => Field::ContentLength,
        14 if is("http2-settings") => Field::HopByHop,
        16 if is("proxy-connection") => Field::HopByHop,
        17 if is("transfer-encoding") => Field::TransferEncoding,
        23 if is_client_certificate(name) => Field::ClientCertificate,
        _ => Field::Other,
    }
}

/// With `-` or `_` between the words: some applications cannot tell them apart.
fn is_client_certificate(name: &str) -> bool {
    const NAME: &[u8; 23] = b"x-forwarded-client-cert";
    name.bytes().zip(NAME).all(|(have, &want)| have.to_ascii_lowercase() == want || (want == b'-' && have == b'_'))
}

/// RFC 9110 section 5.6.2, as a table: every byte of a name is looked up.
const fn token_bytes(upper_case: bool) -> [bool; 256] {
    let mut allowed = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let letter = byte as u8;
        allowed[byte] = letter.is_ascii_alphanumeric() && (upper_case || !letter.is_ascii_uppercase());
        byte += 1;
    }
    let marks = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < marks.len() {
        allowed[marks[at] as usize] = true;
        at += 1;
    }
    allowed
}

/// A method or the name of a field.
pub(crate) fn is_token(text: &[u8]) -> bool {
    const ALLOWED: [bool; 256] = token_bytes(true);
    !text.is_empty() && text.iter().all(|&byte| ALLOWED[usize::from(byte)])
}

/// The name of a field as HTTP/2 writes it.
pub(crate) fn is_lower_token(text: &[u8]) -> bool {
    const ALLOWED: [bool; 256] = token_bytes(false);
    !text.is_empty() && text.iter().all(|&byte| ALLOWED[usize::from(byte)])
}

/// No control bytes but tabs: nothing that ends a line or a text anywhere (RFC 9110 section 5.5).
pub(crate) fn is_clean_value(text: &[u8]) -> bool {
    // Without a way out in the middle, so that many bytes are looked at together.
    text.iter().fold(0, |found, &byte| found | u8::from(byte < b' ' && byte != b'\t' || byte == 0x7f)) == 0
}

/// A set of field positions.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct FieldSet([u64; FIELD_ROOM.div_ceil(64)]);

impl FieldSet {
    pub(super) fn insert(&mut self, index: usize) {
        self.0[index / 64] |= 1 << (index % 64);
    }

    pub(super) fn remove(&mut self, index: usize) {
        self.0[index / 64] &= !(1 << (index % 64));
    }

    pub(super) fn contains(&self, index: usize) -> bool {
        self.0[index / 64] >> (index % 64) & 1 == 1
    }
}
