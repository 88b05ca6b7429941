//! What must hold for any first bytes whatever: called by the fuzz target, and by a test on the corpus it found.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_of_the_detection_passes() {
        crate::http1::check::tests::replay("sniff", verdict);
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
