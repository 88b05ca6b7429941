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
