//! What must hold for any bytes whatever: called by the fuzz targets, and by tests on the corpora they found.
//!
//! Each function panics when a promise is broken. The first byte chooses how the others are read.

use super::{
    Fields, HeadLimits, RequestHead, ResponseHead, Trailers, hpack, request_from_http1, response_from_http1,
    trailer_from_http1, websocket, websocket_from_http1,
};
use crate::http1::check::{assert_clean, decode as decode_chunked};
use crate::http1::{self, BodyKind, ChunkedError, Connection, FieldStorage, HeadError, RequestWrite, ResponseWrite};

mod reference;

/// Names and values in order.
type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

const WRITE: RequestWrite<'static> =
    RequestWrite { default_authority: b"orders:80", request_id: None, client_certificate: None };

/// The blocks of one connection decode to what the plainest decoder gives, limits or not; and what was decoded can be
/// encoded. Each block is preceded by its length in one byte.
pub fn hpack(bytes: &[u8]) {
    let Some((&choice, mut rest)) = bytes.split_first() else { return };
    let limits = match choice & 3 {
        0 => HeadLimits { bytes: 64, fields: 203 },
        1 => HeadLimits { bytes: 65_536, fields: 2 },
        _ => HeadLimits::default(),
    };
    let max_table = if choice & 4 == 0 { 4096 } else { 16_384 };
    let mut decoder = hpack::Decoder::new(max_table);
    let mut plain = reference::Decoder::new(max_table as usize);
    let mut fields = Fields::new();
    while let Some((&length, after)) = rest.split_first() {
        let (block, after) = after.split_at(usize::from(length).min(after.len()));
        rest = after;
        let decoded = decoder.decode(block, &mut fields, &limits);
        let Some(expected) = plain.decode(block) else {
            assert!(decoded.is_err_and(|error| !error.is_over_limit()), "a malformed block gave {decoded:?}");
            return;
        };
        let bytes: usize = expected.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        let is_over = bytes > limits.bytes || expected.len() > limits.fields;
        if is_over {
            assert!(decoded.is_err_and(hpack::HpackError::is_over_limit), "over the limit gave {decoded:?}");
            assert!(expected.starts_with(&pairs(&fields)), "not the part within the limits");
            continue;
        }
        assert_eq!(decoded, Ok(()));
        assert_eq!(pairs(&fields), expected);
        assert_encodes(&fields);
    }
}

fn pairs(fields: &Fields) -> Pairs {
    fields.iter().map(|field| (field.name.to_vec(), field.value.to_vec())).collect()
}

/// An encoded block decodes to the same, and forgets no secret.
fn assert_encodes(fields: &Fields) {
    let mut block = Vec::new();
    hpack::encode(fields, &mut block);
    let limits = HeadLimits { bytes: usize::MAX, fields: usize::MAX };
    let mut again = Fields::new();
    assert_eq!(hpack::Decoder::new(0).decode(&block, &mut again, &limits), Ok(()));
    assert_eq!(&again, fields);
    assert!(fields.iter().zip(&again).all(|(before, after)| after.sensitive || !before.sensitive));
    // The same for an encoder with a table, however often it is said.
    let (mut encoder, mut decoder) = (hpack::Encoder::new(), hpack::Decoder::new(hpack::DEFAULT_TABLE_BYTES));
    for _ in 0..3 {
        block.clear();
        encoder.encode(fields, &mut block);
        assert_eq!(decoder.decode(&block, &mut again, &limits), Ok(()));
        assert_eq!(&again, fields);
    }
}

/// Heads and trailers keep their meaning on every way between the versions. Fields end with `FE`, names with `FF`.
pub fn convert(bytes: &[u8]) {
    let Some((&choice, rest)) = bytes.split_first() else { return };
    match choice % 5 {
        0 => request(&read_fields(rest), choice & 0x80 != 0),
        1 => response(&read_fields(rest), choice),
        2 => trailers(&read_fields(rest)),
        3 => http1_request(rest),
        _ => http1_response(rest, choice),
    }
}

fn read_fields(bytes: &[u8]) -> Fields {
    let mut fields = Fields::new();
    for field in bytes.split(|&byte| byte == 0xfe).filter(|field| !field.is_empty()) {
        let end = field.iter().position(|&byte| byte == 0xff).unwrap_or(field.len());
        let (name, value) = field.split_at(end);
        fields.push(name, value.get(1..).unwrap_or_default());
    }
    fields
}

/// What a request says, by whatever version: the fields in order, one cookie where the first stood, no `te`.
#[derive(Debug, PartialEq, Eq)]
struct Meaning {
    start: [Vec<u8>; 3],
    fields: Pairs,
}

fn meaning(start: [&[u8]; 3], fields: &Fields) -> Meaning {
    let mut all: Pairs = Vec::new();
    for field in fields {
        let cookie = all.iter_mut().find(|(name, _)| name == b"cookie");
        match (field.name, cookie) {
            (b"cookie", _) if field.value.is_empty() => {}
            (b"cookie", Some((_, value))) => {
                value.extend_from_slice(b"; ");
                value.extend_from_slice(field.value);
            }
            // Framing is compared as the kind of the body.
            (b"te" | b"content-length" | b":method" | b":authority" | b":path" | b":scheme" | b":protocol", _) => {}
            (name, _) => all.push((name.to_vec(), field.value.to_vec())),
        }
    }
    Meaning { start: start.map(<[u8]>::to_vec), fields: all }
}

fn request_meaning(head: &RequestHead<'_>) -> Meaning {
    let start = [head.method.as_bytes(), head.authority, head.target.as_bytes()];
    meaning(start, &head.forwarded(&WRITE))
}

fn request(fields: &Fields, ended: bool) {
    let Ok(head) = RequestHead::read(fields, ended) else { return };
    let expected = request_meaning(&head);
    let forwarded = head.forwarded(&WRITE);
    let again = RequestHead::read(&forwarded, ended).expect("what goes on is a request");
    assert_eq!(request_meaning(&again), expected);
    assert_eq!((again.body, again.scheme, again.expect_continue), (head.body, head.scheme, head.expect_continue));
    assert_eq!(again.forwarded(&WRITE), forwarded, "forwarding twice is not forwarding once");
    assert_encodes(&forwarded);

    let mut written = Vec::new();
    if head.is_websocket {
        return upgrade(&head, ended);
    }
    head.write_http1(&WRITE, &mut written);
    assert_clean(&written);
    let mut storage = FieldStorage::new();
    let parsed = match http1::RequestHead::parse(&written, &mut storage) {
        Ok(Some(parsed)) => parsed,
        Err(HeadError::TooManyFields) => return,
        other => panic!("what was written is not a request: {other:?}"),
    };
    assert_eq!((parsed.length, parsed.body), (written.len(), head.body));
    assert_eq!(parsed.expect_continue, head.expect_continue);
    assert!(parsed.is_http11 && parsed.keep_alive && parsed.upgrade().is_none());
    let start = [parsed.method.as_bytes(), parsed.authority, parsed.target.as_bytes()];
    assert_eq!(meaning(start, &request_from_http1(&parsed, &WRITE)), expected);
}

/// An extended CONNECT is an upgrade in HTTP/1.1, and back again the same.
fn upgrade(head: &RequestHead<'_>, ended: bool) {
    let key = websocket::key([7; 16]);
    let mut written = Vec::new();
    head.write_upgrade(&WRITE, &key, &mut written);
    assert_clean(&written);
    let mut storage = FieldStorage::new();
    let parsed = match http1::RequestHead::parse(&written, &mut storage) {
        Ok(Some(parsed)) => parsed,
        Err(HeadError::TooManyFields) => return,
        other => panic!("what was written is not a request: {other:?}"),
    };
    assert_eq!((parsed.length, parsed.method, parsed.body), (written.len(), "GET", BodyKind::Empty));
    assert_eq!(parsed.websocket_key(), Some(&key[..]));
    let back = websocket_from_http1(&parsed, &WRITE);
    let again = RequestHead::read(&back, ended).expect("an upgrade is an extended CONNECT");
    assert!(again.is_websocket && again.target == head.target);
    assert!(again.authority.eq_ignore_ascii_case(head.authority));
}

fn http1_request(bytes: &[u8]) {
    let mut storage = FieldStorage::new();
    let Ok(Some(parsed)) = http1::RequestHead::parse(bytes, &mut storage) else { return };
    let fields = request_from_http1(&parsed, &WRITE);
    let ended = parsed.body == BodyKind::Empty;
    let head = RequestHead::read(&fields, ended).expect("a request of HTTP/1 is one of HTTP/2");
    assert_eq!((head.method, head.target, head.body), (parsed.method, parsed.target, parsed.body));
    assert_eq!(head.authority, if parsed.authority.is_empty() { WRITE.default_authority } else { parsed.authority });
    assert_eq!((head.path(), head.expect_continue), (parsed.path(), parsed.expect_continue));
    request(&fields, ended);
    // The detour by HTTP/2 adds nothing and loses nothing that HTTP/1 alone would keep.
    let (mut detour, mut direct) = (Vec::new(), Vec::new());
    head.write_http1(&WRITE, &mut detour);
    parsed.write(&WRITE, &mut direct);
    let read = |bytes: &[u8]| {
        let mut storage = FieldStorage::new();
        let parsed = http1::RequestHead::parse(bytes, &mut storage).ok().flatten()?;
        let start = [parsed.method.as_bytes(), parsed.authority, parsed.target.as_bytes()];
        Some((meaning(start, &request_from_http1(&parsed, &WRITE)), parsed.body))
    };
    if let (Some(detour), Some(mut direct)) = (read(&detour), read(&direct)) {
        if parsed.authority.is_empty() {
            direct.0.start[1] = WRITE.default_authority.to_vec();
        }
        assert_eq!(detour, direct);
    }
}

fn response_write(choice: u8) -> ResponseWrite {
    let connection = match choice >> 4 & 3 {
        0 => Connection::Persistent,
        1 => Connection::KeepAlive,
        _ => Connection::Close,
    };
    ResponseWrite { connection, unchunk: choice & 0x40 != 0, keep_error: choice & 0x80 != 0 }
}

fn response(fields: &Fields, choice: u8) {
    let (ended, to_head, write) = (choice & 4 != 0, choice & 8 != 0, response_write(choice));
    let Ok(head) = ResponseHead::read(fields, ended, to_head) else { return };
    let forwarded = head.forwarded(write.keep_error);
    let again = ResponseHead::read(&forwarded, ended, to_head).expect("what goes on is a response");
    assert_eq!((again.status, again.body), (head.status, head.body));
    assert_eq!(again.weft_error(), head.weft_error().filter(|_| write.keep_error));
    assert_eq!(again.forwarded(write.keep_error), forwarded, "forwarding twice is not forwarding once");
    assert_encodes(&forwarded);

    let mut written = Vec::new();
    head.write_http1(&write, &mut written);
    assert_clean(&written);
    let mut storage = FieldStorage::new();
    let parsed = match http1::ResponseHead::parse(&written, &mut storage, to_head) {
        Ok(Some(parsed)) => parsed,
        Err(HeadError::TooManyFields) => return,
        other => panic!("what was written is not a response: {other:?}"),
    };
    assert_eq!((parsed.length, parsed.status), (written.len(), head.status));
    let body = if write.unchunk && head.body == BodyKind::Chunked { BodyKind::UntilClose } else { head.body };
    assert_eq!(parsed.body, body);
    assert_eq!(parsed.keep_alive, write.connection != Connection::Close && body != BodyKind::UntilClose);
    let back = response_from_http1(&parsed, write.keep_error).expect("no upgrade");
    assert_eq!(meaning([b"", b"", b""], &back), meaning([b"", b"", b""], &forwarded));
}

fn http1_response(bytes: &[u8], choice: u8) {
    let (to_head, keep_error) = (choice & 8 != 0, choice & 0x80 != 0);
    let mut storage = FieldStorage::new();
    let Ok(Some(parsed)) = http1::ResponseHead::parse(bytes, &mut storage, to_head) else { return };
    let Ok(fields) = response_from_http1(&parsed, keep_error) else {
        assert_eq!(parsed.status, 101);
        return;
    };
    let ended = parsed.body == BodyKind::Empty && !parsed.is_informational();
    let head = ResponseHead::read(&fields, ended, to_head).expect("a response of HTTP/1 is one of HTTP/2");
    let body = if parsed.body == BodyKind::UntilClose { BodyKind::Chunked } else { parsed.body };
    assert_eq!((head.status, head.body), (parsed.status, body));
    assert_eq!(head.weft_error(), parsed.weft_error().filter(|_| keep_error));
    response(&fields, choice & !4 | if ended { 4 } else { 0 });
}

fn trailers(fields: &Fields) {
    let Ok(trailers) = Trailers::read(fields) else { return };
    let forwarded = trailers.forwarded();
    assert_eq!(Trailers::read(&forwarded).expect("what goes on are trailers").forwarded(), forwarded);
    let mut written = b"0\r\n".to_vec();
    trailers.write_http1(&mut written);
    written.extend_from_slice(b"\r\n");
    let body = match decode_chunked(&written, written.len()) {
        Err(ChunkedError::TrailersTooLong) => return,
        body => body.expect("what was written is the end of a body").expect("complete"),
    };
    assert_eq!((body.used, body.data.len()), (written.len(), 0));
    let mut back = Fields::new();
    for line in &body.trailers {
        trailer_from_http1(line, &mut back);
    }
    assert_eq!(back, forwarded);
}

#[cfg(test)]
mod tests;
