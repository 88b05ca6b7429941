//! What gRPC calls its ends, and how they are told in the terms of HTTP.

use crate::failure::{Answer, Failure};
use crate::http2::Fields;

/// Whether a request with this content type is a call: `application/grpc`, with a suffix or parameters.
pub(super) fn is_call(content_type: Option<&[u8]>) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let Some((name, rest)) = content_type.and_then(|value| value.split_at_checked(GRPC.len())) else { return false };
    name.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// `grpc-status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status(u8);

impl Status {
    /// Every status that has a name; what is none of these is counted under the last.
    const KNOWN: u8 = 16;
    const UNKNOWN: Self = Self(2);

    /// The status of an answer: in its trailers, or in its head when there was nothing else.
    pub(super) fn of(head: &Fields, trailers: Option<&Fields>) -> Option<Self> {
        let value = trailers.and_then(|trailers| trailers.get(b"grpc-status")).or_else(|| head.get(b"grpc-status"))?;
        let code = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse::<u8>().ok());
        // What is no status of gRPC is read as UNKNOWN by its clients too.
        Some(code.filter(|&code| code <= Self::KNOWN).map_or(Self::UNKNOWN, Self))
    }

    /// The status of an answer in the application's place.
    pub(super) fn of_failure(failure: Failure) -> Self {
        Self(failure.facts().grpc)
    }

    pub(super) fn code(self) -> u8 {
        self.0
    }

    /// The status of HTTP that says the same: who judges endpoints by 5xx judges calls by this.
    pub(super) fn as_http(self) -> u16 {
        match self.0 {
            0 => 200,
            // CANCELLED, INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, RESOURCE_EXHAUSTED.
            1 => 499,
            3 | 9 | 11 => 400,
            5 => 404,
            6 | 10 => 409,
            7 => 403,
            8 => 429,
            16 => 401,
            // DEADLINE_EXCEEDED, UNIMPLEMENTED, UNAVAILABLE; UNKNOWN, INTERNAL, DATA_LOSS.
            4 => 504,
            12 => 501,
            14 => 503,
            _ => 500,
        }
    }
}

/// A whole answer in the application's place, as a client of gRPC reads it: status and message in its one head.
pub(super) fn trailers_only(answer: &Answer<'_>) -> Fields {
    let mut fields = Fields::new();
    fields.push(b":status", b"200");
    fields.push(b"content-type", b"application/grpc");
    let mut digits = [0u8; 3];
    fields.push(b"grpc-status", decimal(Status::of_failure(answer.failure).code(), &mut digits));
    fields.push(b"grpc-message", &escaped(&answer.to_string()));
    fields.push(b"weft-error", answer.failure.code().as_bytes());
    fields
}

/// A message as it may stand in a field: what is not printable ASCII, and `%` itself, in hexadecimal.
fn escaped(message: &str) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(byte),
            _ => out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
    out
}

fn decimal(value: u8, digits: &mut [u8; 3]) -> &[u8] {
    let mut at = digits.len();
    let mut rest = value;
    loop {
        at -= 1;
        digits[at] = b'0' + rest % 10;
        rest /= 10;
        if rest == 0 || at == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_grpc_itself_is_a_call() {
        let table: &[(Option<&[u8]>, bool)] = &[
            (None, false),
            (Some(b"application/grpc"), true),
            (Some(b"application/grpc+proto"), true),
            (Some(b"Application/GRPC; charset=utf-8"), true),
            (Some(b"application/grpc-web"), false),
            (Some(b"application/grpc-web+proto"), false),
            (Some(b"application/json"), false),
            (Some(b"application/gr"), false),
        ];
        for (value, expected) in table {
            assert_eq!(is_call(*value), *expected, "{:?}", value.map(String::from_utf8_lossy));
        }
    }

    #[test]
    fn a_status_is_looked_for_in_the_trailers_and_then_in_the_head() {
        let with = |value: &[u8]| {
            let mut fields = Fields::new();
            fields.push(b"grpc-status", value);
            fields
        };
        let none = Fields::new();
        assert_eq!(Status::of(&none, None), None);
        assert_eq!(Status::of(&with(b"14"), None), Some(Status(14)));
        assert_eq!(Status::of(&with(b"14"), Some(&with(b"0"))), Some(Status(0)));
        assert_eq!(Status::of(&none, Some(&with(b"16"))), Some(Status(16)));
        for odd in [&b"17"[..], b"", b"-1", b"ok", b"256"] {
            assert_eq!(Status::of(&with(odd), None), Some(Status::UNKNOWN), "{odd:?}");
        }
    }

    #[test]
    fn a_message_of_any_text_stands_in_one_field() {
        assert_eq!(escaped("50% of 2 \u{e4}\r\n"), b"50%25 of 2 %C3%A4%0D%0A");
    }

    #[test]
    fn numbers_are_written_whole() {
        let mut digits = [0; 3];
        for value in 0..=255u8 {
            assert_eq!(decimal(value, &mut digits), value.to_string().as_bytes());
        }
    }
}
