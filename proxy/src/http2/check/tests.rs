//! The corpora of the fuzz targets, through the same checks; and random heads that are valid by construction.

use proptest::prelude::*;

use super::*;
use crate::http1::check::tests::replay;

#[test]
fn the_corpora_of_the_codec_pass() {
    replay("hpack", hpack);
    replay("convert", convert);
}

/// Fields with no meaning to the proxy, cookies among them.
fn plain_fields() -> impl Strategy<Value = Vec<(String, String)>> {
    let value = "[!-~]([ -~\t]{0,30}[!-~])?|";
    let name = prop_oneof![
        4 => "x[a-z0-9!#$%&'*+.^_`|~-]{0,20}",
        1 => Just("cookie".to_owned()),
        1 => Just("te-x".to_owned()),
    ];
    prop::collection::vec((name, value), 0..20)
}

fn text_block(start: &[(&str, &str)], fields: &[(String, String)]) -> Vec<u8> {
    let start = start.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let mut bytes = Vec::new();
    for (name, value) in start.chain(fields.iter().cloned()) {
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0xff);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0xfe);
    }
    bytes
}

proptest! {
    #[test]
    fn a_valid_request_keeps_its_meaning_on_every_way(
        method in "[A-Z]{1,10}".prop_filter("not allowed", |method| method != "CONNECT"),
        target in "/[a-zA-Z0-9/?&=%._~-]{0,60}",
        authority in "[a-z0-9.-]{1,30}(:[0-9]{1,5})?",
        fields in plain_fields(),
        length in prop::option::of(0..1_000_000u64),
        ended in any::<bool>(),
    ) {
        let mut fields = fields;
        fields.extend(length.map(|length| ("content-length".to_owned(), length.to_string())));
        let ended = ended && length.is_none_or(|length| length == 0);
        let start = [(":method", &*method), (":scheme", "https"), (":authority", &*authority), (":path", &*target)];
        let bytes = text_block(&start, &fields);
        prop_assert!(RequestHead::read(&read_fields(&bytes), ended).is_ok());
        convert(&[&[if ended { 130 } else { 0 }][..], &bytes].concat());
        prop_assert_eq!(130 % 5, 0);
    }

    #[test]
    fn a_valid_response_keeps_its_meaning_on_every_way(
        status in (100..1000u16).prop_filter("no HTTP/2", |status| *status != 101),
        fields in plain_fields(),
        error in prop::option::of("[a-z]{1,8}"),
        choice in (0..51u8).prop_map(|choice| 5 * choice + 1),
    ) {
        let mut fields = fields;
        fields.extend(error.map(|error| ("weft-error".to_owned(), error)));
        let status = status.to_string();
        let bytes = text_block(&[(":status", &*status)], &fields);
        convert(&[&[choice][..], &bytes].concat());
    }

    #[test]
    fn a_valid_request_of_http1_survives_the_detour(
        method in "[A-Z]{1,10}".prop_filter("not allowed", |method| method != "CONNECT"),
        target in "/[a-zA-Z0-9/?&=%._~-]{0,60}",
        fields in plain_fields(),
        framing in prop::sample::select(vec!["", "Content-Length: 0\r\n", "Content-Length: 7\r\n", "Transfer-Encoding: chunked\r\n"]),
        hop in prop::sample::select(vec!["", "Connection: x-a, close\r\nX-A: 1\r\n", "TE: trailers\r\n", "Expect: 100-continue\r\n"]),
    ) {
        let lines: String = fields.iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"]).collect();
        let text = format!("{method} {target} HTTP/1.1\r\n{framing}Host: Orders\r\n{hop}{lines}\r\n");
        convert(&[&[3][..], text.as_bytes()].concat());
        let text = format!("HTTP/1.1 200 OK\r\n{framing}{hop}{lines}\r\n");
        convert(&[&[4][..], text.as_bytes()].concat());
    }

    #[test]
    fn damaged_heads_hold_the_promises(
        fields in plain_fields(),
        at in any::<prop::sample::Index>(),
        damage in prop::collection::vec(prop::sample::select(b"\r\n :\0\t;,0aA\xff\xfe".to_vec()), 1..4),
        choice in any::<u8>(),
    ) {
        let start = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/"), (":status", "200")];
        for start in [&start[..4], &start[4..], &[]] {
            let mut bytes = text_block(start, &fields);
            let place = at.index(bytes.len() + 1);
            let end = (place + usize::from(choice & 3)).min(bytes.len());
            bytes.splice(place..end, damage.iter().copied());
            bytes.insert(0, choice);
            convert(&bytes);
        }
    }

    #[test]
    fn random_blocks_decode_as_the_plainest_decoder_says(
        blocks in prop::collection::vec(prop::collection::vec(
            prop_oneof![
                // An indexed field, a size update, literals whose parts are plain or coded, anything.
                4 => (0x80..0xc8u8).prop_map(|byte| vec![byte]),
                1 => (0x20..0x40u8).prop_map(|byte| vec![byte]),
                4 => (prop::sample::select(vec![0x00, 0x10, 0x40, 0x42, 0x7e, 0x0f, 0x41]), "[a-z]{0,5}", "[ -~]{0,9}", any::<bool>())
                    .prop_map(|(kind, name, value, coded)| literal(kind, name.as_bytes(), value.as_bytes(), coded)),
                1 => prop::collection::vec(any::<u8>(), 0..5),
            ], 0..12), 1..8),
        choice in any::<u8>(),
    ) {
        let mut bytes = vec![choice];
        for block in blocks {
            let mut block = block.concat();
            block.truncate(255);
            bytes.push(block.len() as u8);
            bytes.extend_from_slice(&block);
        }
        hpack(&bytes);
    }
}

fn literal(kind: u8, name: &[u8], value: &[u8], coded: bool) -> Vec<u8> {
    let string = |text: &[u8]| {
        let (text, flag) = if coded { (hpack::huffman_encoded(text), 0x80) } else { (text.to_vec(), 0) };
        [&[flag | text.len() as u8][..], &text].concat()
    };
    let mut bytes = vec![kind];
    if kind.trailing_zeros() >= 4 {
        bytes.extend_from_slice(&string(name));
    } else if kind == 0x0f {
        bytes.push(name.len() as u8);
    }
    bytes.extend_from_slice(&string(value));
    bytes
}
