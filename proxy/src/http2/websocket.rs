//! WebSocket in both versions of HTTP: an upgrade in HTTP/1.1 (RFC 6455), an extended CONNECT in HTTP/2 (RFC 8441).
//!
//! The handshake of HTTP/1.1 proves that both ends mean WebSocket, by a key and a hash of it. HTTP/2 needs no such proof
//! and has none: whoever puts one into the other makes the key, or answers it.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// The value of `:protocol` and of `Upgrade`.
pub const WEBSOCKET: &[u8] = b"websocket";
/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// `Sec-WebSocket-Key`: sixteen bytes in base64.
pub type Key = [u8; 24];
/// `Sec-WebSocket-Accept`: a hash of twenty bytes in base64.
pub type Accept = [u8; 28];

/// The key that these bytes make.
pub fn key(bytes: [u8; 16]) -> Key {
    let mut key = [0; 24];
    base64(&bytes, &mut key);
    key
}

/// What a server answers to a key; `None` when it is none.
pub fn accept(key: &[u8]) -> Option<Accept> {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let (digits, end) = key.split_at_checked(22)?;
    if end != b"==" || !digits.iter().all(is_base64) {
        return None;
    }
    // What the protocol asks for: it proves what is spoken, not who speaks.
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat());
    let mut accept = [0; 28];
    base64(hash.as_ref(), &mut accept);
    Some(accept)
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8], out: &mut [u8]) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (three, four) in bytes.chunks(3).zip(out.chunks_mut(4)) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for (index, digit) in four.iter_mut().enumerate() {
            let six = (bits >> (18 - 6 * index) & 63) as usize;
            *digit = if index <= three.len() { DIGITS[six] } else { b'=' };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_key_is_that_of_the_rfc() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ==").as_ref(), Some(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    }

    #[test]
    fn what_is_no_key_has_no_answer() {
        for key in [
            "",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ=a",
            "dGhlIHNhbXBsZSBub25jZQ===",
            "dGhlIHNhbXBsZSBub25j ===",
        ] {
            assert_eq!(accept(key.as_bytes()), None, "{key}");
        }
    }

    #[test]
    fn every_key_is_one() {
        assert_eq!(&key(*b"the sample nonce"), b"dGhlIHNhbXBsZSBub25jZQ==");
        for byte in 0..=255 {
            assert!(accept(&key([byte; 16])).is_some(), "{byte}");
        }
    }
}
