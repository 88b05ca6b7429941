//! Fields to blocks, without a table of our own: a mesh hop is short of processor time, not of bytes, and an encoder
//! that remembers nothing cannot leak by what it remembers (RFC 7541 section 7.1).

use super::table::STATIC;
use crate::http2::fields::{Field, Fields};
use crate::http2::name::Name;

/// Cookies shorter than this could be guessed by trying what compresses well.
const SHORT_COOKIE_BYTES: usize = 20;

/// Appends the block of all `fields`.
pub fn encode(fields: &Fields, out: &mut Vec<u8>) {
    // A length in three bytes before each name and value is the most that is usual.
    out.reserve(fields.text.len() + 4 * fields.parts.len());
    for field in fields {
        if let Some(number) = whole(&field) {
            out.push(0x80 | number);
            continue;
        }
        let kind = if is_sensitive(&field) { 0x10 } else { 0x00 };
        if field.known.is_static() {
            integer(kind, 4, field.known.0 as usize, out);
        } else {
            out.push(kind);
            string(field.name, out);
        }
        string(field.value, out);
    }
}

/// The number of the static entry that has this name and value.
fn whole(field: &Field<'_>) -> Option<u8> {
    let number = match field.known {
        Name::METHOD => match field.value {
            b"GET" => 2,
            b"POST" => 3,
            _ => return None,
        },
        Name::PATH => match field.value {
            b"/" => 4,
            b"/index.html" => 5,
            _ => return None,
        },
        Name::SCHEME => match field.value {
            b"http" => 6,
            b"https" => 7,
            _ => return None,
        },
        Name::STATUS => match field.value {
            b"200" => 8,
            b"204" => 9,
            b"206" => 10,
            b"304" => 11,
            b"400" => 12,
            b"404" => 13,
            b"500" => 14,
            _ => return None,
        },
        Name::ACCEPT_ENCODING if field.value == b"gzip, deflate" => 16,
        _ => return None,
    };
    debug_assert_eq!(STATIC[number as usize - 1].text, [field.name, field.value].concat());
    Some(number)
}

/// No later hop may remember it either (RFC 7541 section 7.1.3).
fn is_sensitive(field: &Field<'_>) -> bool {
    field.sensitive
        || match field.known {
            Name::AUTHORIZATION | Name::PROXY_AUTHORIZATION => true,
            Name::COOKIE => field.value.len() < SHORT_COOKIE_BYTES,
            _ => false,
        }
}

/// Appends `number` in the low `prefix` bits of a byte and as many more as it takes.
fn integer(kind: u8, prefix: u32, number: usize, out: &mut Vec<u8>) {
    let mask = (1usize << prefix) - 1;
    if number < mask {
        out.push(kind | number as u8);
        return;
    }
    out.push(kind | mask as u8);
    let mut rest = number - mask;
    while rest > 0x7f {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn string(text: &[u8], out: &mut Vec<u8>) {
    integer(0, 7, text.len(), out);
    out.extend_from_slice(text);
}
