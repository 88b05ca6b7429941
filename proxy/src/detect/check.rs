//! What must hold for any first bytes whatever: called by the fuzz target, and by a test on the corpus it found.

use super::client_hello::{self, Flaw, LONGEST, Peek};
use super::sniff::{LONGEST_LINE, LONGEST_METHOD};
use super::{Sniffed, sniff};
use crate::http1::{FieldStorage, RequestHead};

/// A verdict does not depend on how the bytes are cut into reads, and what the codec takes is recognised.
///
/// # Panics
/// When that does not hold.
pub fn verdict(bytes: &[u8]) {
    let whole = sniff(bytes);
    let step = (bytes.len() / 256).max(1);
    let mut decided = None;
    for cut in (0..=bytes.len()).step_by(step) {
        let now = sniff(&bytes[..cut]);
        match decided {
            None if now != Sniffed::NeedMore => decided = Some(now),
            None => {}
            Some(earlier) => assert_eq!(now, earlier, "{cut} bytes decide otherwise"),
        }
    }
    assert!(decided.is_none_or(|decided| decided == whole), "the cuts decide");
    assert!(bytes.len() <= LONGEST_LINE || whole != Sniffed::NeedMore, "waits for ever");
    let mut storage = FieldStorage::new();
    if let Ok(Some(head)) = RequestHead::parse(bytes, &mut storage) {
        let starts_at_once = bytes.starts_with(head.method.as_bytes());
        let is_usual = head.method.bytes().all(|b| b.is_ascii_uppercase()) && head.method.len() <= LONGEST_METHOD;
        if starts_at_once && is_usual {
            assert_eq!(whole, Sniffed::Http, "a request is not recognised");
        }
    }
}

/// What a peek saw, for comparison.
#[derive(Debug, PartialEq)]
pub(super) enum Seen {
    NeedMore,
    NotTls(Flaw),
    Hello { server_name: Option<String>, protocols: Vec<Vec<u8>> },
}

pub(super) fn seen(bytes: &[u8]) -> Seen {
    match client_hello::peek(bytes) {
        Peek::NeedMore => Seen::NeedMore,
        Peek::NotTls(flaw) => Seen::NotTls(flaw),
        Peek::ClientHello(hello) => Seen::Hello {
            server_name: hello.server_name().map(str::to_owned),
            protocols: hello.protocols().map(|name| name.as_bytes().to_vec()).collect(),
        },
    }
}

/// A verdict on a ClientHello falls in time and stays, and does not depend on how the message is cut into records; the
/// last byte chooses how.
///
/// # Panics
/// When that does not hold.
pub fn client_hello(bytes: &[u8]) {
    let whole = seen(bytes);
    let step = (bytes.len() / 256).max(1);
    let mut fallen = false;
    for cut in (0..=bytes.len()).step_by(step) {
        let now = seen(&bytes[..cut]);
        assert!(!fallen || now == whole, "{cut} bytes decide otherwise: {now:?}, then {whole:?}");
        fallen |= now != Seen::NeedMore;
    }
    assert!(bytes.len() < LONGEST || whole != Seen::NeedMore, "waits for ever");
    if let Seen::Hello { server_name, .. } = &whole {
        let is_lower = |name: &String| !name.is_empty() && !name.bytes().any(|byte| byte.is_ascii_uppercase());
        assert!(server_name.as_ref().is_none_or(is_lower), "{server_name:?}");
        let size = bytes.last().map_or(1, |last| usize::from(*last) * 8 + 1);
        let cut_anew = in_records_of(size, &first_message(bytes));
        let expected = if cut_anew.len() > LONGEST { Seen::NotTls(Flaw::TooLong) } else { whole };
        assert_eq!(seen(&cut_anew), expected, "in records of {size} bytes");
    }
}

/// The first handshake message without the records around it; there must be one.
pub(super) fn first_message(mut bytes: &[u8]) -> Vec<u8> {
    let mut message: Vec<u8> = Vec::new();
    while message.len() < 4 || message.len() < message_length(&message) {
        let (header, rest) = bytes.split_at(5);
        // The last record may be longer than the message, and not be there as a whole.
        let length = (usize::from(header[3]) << 8 | usize::from(header[4])).min(rest.len());
        message.extend(&rest[..length]);
        bytes = &rest[length..];
    }
    message.truncate(message_length(&message));
    message
}

fn message_length(message: &[u8]) -> usize {
    4 + (usize::from(message[1]) << 16 | usize::from(message[2]) << 8 | usize::from(message[3]))
}

/// A handshake message in records of so many bytes.
pub(super) fn in_records_of(size: usize, message: &[u8]) -> Vec<u8> {
    let record = |fragment: &[u8]| [&[22, 3, 1], &(fragment.len() as u16).to_be_bytes()[..], fragment].concat();
    message.chunks(size).flat_map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_of_the_detection_passes() {
        crate::http1::check::tests::replay("sniff", verdict);
    }

    #[test]
    fn the_corpus_of_the_client_hello_passes() {
        crate::http1::check::tests::replay("client_hello", client_hello);
    }

    #[test]
    fn a_long_line_is_judged_the_same_in_one_read_and_in_many() {
        for length in [LONGEST_LINE - 30, LONGEST_LINE - 1, LONGEST_LINE, LONGEST_LINE + 1, LONGEST_LINE + 30] {
            let line = format!("GET /{} HTTP/1.1\r\n", "a".repeat(length - 16));
            verdict(line.as_bytes());
            let line = format!("GET /{} HTTP/1.1\n", "a".repeat(length - 15));
            verdict(line.as_bytes());
        }
    }
}
