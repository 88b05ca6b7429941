//! Heads and trailers of HTTP/1 as header blocks.

use super::fields::Fields;
use super::name::Name;
use crate::http1::{self, HeadError, RequestWrite, split_trailer, status_digits};

/// A request head as it goes to an HTTP/2 upstream. An upgrade it offers ends here: HTTP/2 has none.
pub fn request_from_http1(head: &http1::RequestHead<'_, '_>, write: &RequestWrite<'_>) -> Fields {
    let mut out = Fields::new();
    out.push_known(Name::METHOD, b":method", head.method.as_bytes(), false);
    // It came in the clear: TLS that an application makes itself is passed through as bytes.
    out.push_known(Name::SCHEME, b":scheme", b"http", false);
    let authority = if head.authority.is_empty() { write.default_authority } else { head.authority };
    out.push_known(Name::AUTHORITY, b":authority", authority, false);
    out.push_known(Name::PATH, b":path", head.target.as_bytes(), false);
    for (name, value) in head.end_to_end() {
        push_lower_case(name.as_bytes(), value, &mut out);
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
    let mut out = Fields::new();
    out.push_known(Name::STATUS, b":status", &status_digits(head.status), false);
    let has_no_length = head.status < 200 || head.status == 204;
    for (name, value) in head.end_to_end() {
        let is_length = || name.eq_ignore_ascii_case("content-length");
        let is_error = || name.eq_ignore_ascii_case("weft-error");
        if !(has_no_length && is_length() || !keep_error && is_error()) {
            push_lower_case(name.as_bytes(), value, &mut out);
        }
    }
    Ok(out)
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
