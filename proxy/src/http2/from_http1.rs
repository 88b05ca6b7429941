//! Heads and trailers of HTTP/1 as header blocks.

use super::fields::Fields;
use super::name::Name;
use super::websocket::{Accept, WEBSOCKET};
use crate::http1::{self, HeadError, RequestWrite, split_trailer, status_digits};

/// A request head as it goes to an HTTP/2 upstream. An upgrade it offers ends here: HTTP/2 has none.
pub fn request_from_http1(head: &http1::RequestHead<'_, '_>, write: &RequestWrite<'_>) -> Fields {
    request_as(head, write, false)
}

/// An upgrade to WebSocket as the extended CONNECT it is in HTTP/2 (RFC 8441 section 5).
pub fn websocket_from_http1(head: &http1::RequestHead<'_, '_>, write: &RequestWrite<'_>) -> Fields {
    request_as(head, write, true)
}

fn request_as(head: &http1::RequestHead<'_, '_>, write: &RequestWrite<'_>, is_websocket: bool) -> Fields {
    let mut out = Fields::new();
    let method = if is_websocket { b"CONNECT" } else { head.method.as_bytes() };
    out.push_known(Name::METHOD, b":method", method, false);
    // It came in the clear: TLS that an application makes itself is passed through as bytes.
    out.push_known(Name::SCHEME, b":scheme", b"http", false);
    let authority = if head.authority.is_empty() { write.default_authority } else { head.authority };
    out.push_known(Name::AUTHORITY, b":authority", authority, false);
    out.push_known(Name::PATH, b":path", head.target.as_bytes(), false);
    if is_websocket {
        out.push_known(Name::PROTOCOL, b":protocol", WEBSOCKET, false);
    }
    for (name, value) in head.end_to_end() {
        let is_of_handshake =
            || name.eq_ignore_ascii_case("sec-websocket-key") || name.eq_ignore_ascii_case("content-length");
        if !(is_websocket && is_of_handshake()) {
            push_lower_case(name.as_bytes(), value, &mut out);
        }
    }
    if head.wants_trailers() {
        out.push_known(Name::TE, b"te", b"trailers", false);
    }
    if let (false, Some(id)) = (head.has_request_id(), write.request_id) {
        out.push_known(Name::REQUEST_ID, b"x-request-id", id, false);
    }
    if let Some(certificate) = write.client_certificate {
        out.push_known(Name::CLIENT_CERTIFICATE, b"x-forwarded-client-cert", certificate, false);
    }
    out
}

/// A response head, interim or final, as it goes to an HTTP/2 client. `keep_error`: the upstream is a proxy of ours.
///
/// # Errors
/// When it switches protocols: HTTP/2 cannot, and did not offer to.
pub fn response_from_http1(head: &http1::ResponseHead<'_, '_>, keep_error: bool) -> Result<Fields, HeadError> {
    if head.status == 101 {
        return Err(HeadError::Malformed("status 101 to a request that offered no upgrade"));
    }
    let has_no_length = head.status < 200 || head.status == 204;
    let is_dropped = |name: &str| has_no_length && name.eq_ignore_ascii_case("content-length");
    Ok(response_as(head, head.status, keep_error, is_dropped))
}

/// The `101` to an upgrade to WebSocket with this proof, as the answer to the extended CONNECT it stands for.
///
/// # Errors
/// When it is no such answer.
pub fn tunnel_from_http1(
    head: &http1::ResponseHead<'_, '_>,
    accept: &Accept,
    keep_error: bool,
) -> Result<Fields, HeadError> {
    if head.status != 101 || head.field("sec-websocket-accept") != Some(&accept[..]) {
        return Err(HeadError::Malformed("an upgrade that is not to WebSocket"));
    }
    let of_handshake = ["content-length", "sec-websocket-accept"];
    let is_dropped = |name: &str| of_handshake.iter().any(|dropped| name.eq_ignore_ascii_case(dropped));
    Ok(response_as(head, 200, keep_error, is_dropped))
}

fn response_as(
    head: &http1::ResponseHead<'_, '_>,
    status: u16,
    keep_error: bool,
    is_dropped: impl Fn(&str) -> bool,
) -> Fields {
    let mut out = Fields::new();
    out.push_known(Name::STATUS, b":status", &status_digits(status), false);
    for (name, value) in head.end_to_end() {
        if !(is_dropped(name) || !keep_error && name.eq_ignore_ascii_case("weft-error")) {
            push_lower_case(name.as_bytes(), value, &mut out);
        }
    }
    out
}

/// Appends a line that [`http1::Piece::Trailer`] gave: it is checked, and may be a trailer.
pub fn trailer_from_http1(line: &[u8], out: &mut Fields) {
    if let Some((name, value)) = split_trailer(line) {
        push_lower_case(name, value, out);
    }
}

fn push_lower_case(name: &[u8], value: &[u8], out: &mut Fields) {
    let start = out.text.len();
    out.text.extend_from_slice(name);
    let lower = out.text.get_mut(start..).unwrap_or_default();
    lower.make_ascii_lowercase();
    let known = Name::of(lower);
    let name_end = out.text.len();
    out.text.extend_from_slice(value);
    out.end_part(known, name_end, false);
}
