//! The corpora of the fuzz targets, through the same checks; and random messages that are valid by construction.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::http1::MAX_FIELDS;

/// Runs `check` on every file of a corpus.
pub(crate) fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).expect("a file");
        if let Err(panic) = std::panic::catch_unwind(|| check(&bytes)) {
            eprintln!("the corpus file {} fails", path.display());
            std::panic::resume_unwind(panic);
        }
        count += 1;
    }
    assert!(count > 10, "{} holds {count} files", folder.display());
}

#[test]
fn the_corpora_of_the_codec_pass() {
    replay("request_head", request_head);
    replay("response_head", response_head);
    replay("chunked_body", chunked_body);
}

const TOKEN: &str = "[A-Za-z0-9!#$%&'*+.^_`|~-]{1,20}";

/// Fields with no meaning to the proxy.
fn plain_fields() -> impl Strategy<Value = Vec<(String, String)>> {
    let value = "[!-~]([ -~\t]{0,30}[!-~])?|";
    let name = TOKEN.prop_filter("steers the proxy", |name| {
        crate::http1::fields::classify(name) == crate::http1::fields::Field::Other
    });
    prop::collection::vec((name, value), 0..20)
}

fn lines(fields: &[(String, String)]) -> String {
    fields.iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"]).collect()
}

/// How a body is framed, as its field says.
fn framing() -> impl Strategy<Value = (BodyKind, String)> {
    prop_oneof![
        Just((BodyKind::Empty, String::new())),
        Just((BodyKind::Chunked, "Transfer-Encoding: chunked\r\n".to_owned())),
        (1..1_000_000_000_000_000_000u64).prop_map(|n| (BodyKind::Length(n), format!("Content-Length: {n}\r\n"))),
    ]
}

proptest! {
    #[test]
    fn a_valid_request_keeps_its_meaning(
        method in "[A-Z]{1,10}".prop_filter("not allowed", |method| method != "CONNECT"),
        target in "/[a-zA-Z0-9/?&=%._~-]{0,60}",
        authority in "[a-z0-9.-]{1,30}(:[0-9]{1,5})?",
        fields in plain_fields(),
        (body, frame) in framing(),
    ) {
        let text = format!("{method} {target} HTTP/1.1\r\n{frame}Host: {authority}\r\n{}\r\n", lines(&fields));
        request_head(text.as_bytes());
        let mut storage = FieldStorage::new();
        let head = RequestHead::parse(text.as_bytes(), &mut storage).expect("valid").expect("complete");
        prop_assert_eq!(head.body, body);
        let expected = format!("{method} {target} HTTP/1.1\r\n{frame}Host: {authority}\r\n{}\r\n", lines(&fields));
        prop_assert_eq!(String::from_utf8(written_request(&head)).expect("text"), expected);
    }

    #[test]
    fn a_valid_response_keeps_its_meaning(
        status in 200..600u16,
        reason in "[ -~]{0,20}",
        fields in plain_fields(),
        (body, frame) in framing(),
        choice in any::<u8>(),
    ) {
        let text = format!("HTTP/1.1 {status} {reason}\r\n{}{frame}\r\n", lines(&fields));
        response_head(&[&[choice], text.as_bytes()].concat());
        let mut storage = FieldStorage::new();
        let head = ResponseHead::parse(text.as_bytes(), &mut storage, false).expect("valid").expect("complete");
        let bodiless = matches!(status, 204 | 304);
        let unframed = body == BodyKind::Empty;
        let expected = if bodiless { BodyKind::Empty } else if unframed { BodyKind::UntilClose } else { body };
        prop_assert_eq!((head.status, head.body), (status, expected));
    }

    #[test]
    fn damaged_heads_hold_the_promises(
        fields in plain_fields(),
        (_, frame) in framing(),
        at in any::<prop::sample::Index>(),
        damage in prop::collection::vec(prop::sample::select(b"\r\n :\0\t;,0aA\xff".to_vec()), 1..4),
        choice in any::<u8>(),
    ) {
        for start in ["GET / HTTP/1.1\r\nHost: a\r\n", "HTTP/1.1 200 OK\r\n"] {
            let mut bytes = format!("{start}{frame}{}\r\n", lines(&fields)).into_bytes();
            let at = at.index(bytes.len());
            let end = (at + usize::from(choice & 3)).min(bytes.len());
            bytes.splice(at..end, damage.iter().copied());
            request_head(&bytes);
            bytes.insert(0, choice);
            response_head(&bytes);
        }
    }

    #[test]
    fn a_chunked_body_is_what_the_grammar_says(
        chunks in prop::collection::vec(("0{0,3}", prop::collection::vec(any::<u8>(), 1..300), "(;[ -~]{0,20})?"), 0..12),
        trailers in prop::collection::vec(("[A-Za-z-]{1,16}|Content-Length|x_forwarded_for", "[ -~]{0,20}"), 0..6),
        step in 1..100u8,
        rest in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut body = vec![step];
        let mut data = Vec::new();
        for (zeros, chunk, extension) in &chunks {
            body.extend_from_slice(format!("{zeros}{:x}{extension}\r\n", chunk.len()).as_bytes());
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
            data.extend_from_slice(chunk);
        }
        body.extend_from_slice(b"0\r\n");
        for (name, value) in &trailers {
            body.extend_from_slice(format!("{name}:{value}\r\n").as_bytes());
        }
        body.extend_from_slice(b"\r\n");
        let used = body.len() - 1;
        body.extend_from_slice(&rest);
        chunked_body(&body);
        let decoded = reference(&body[1..]).expect("valid by construction");
        prop_assert_eq!((decoded.data, decoded.used), (data, used));
    }

    #[test]
    fn damaged_chunks_hold_the_promises(
        chunks in prop::collection::vec(("[0-9a-f]{1,2}", ".{0,40}", "(;[ -~]{0,9})?"), 0..6),
        step in 1..20u8,
    ) {
        let text: String =
            chunks.iter().flat_map(|(size, data, ext)| [size.as_str(), ext, "\r\n", data, "\r\n"]).collect();
        chunked_body(&[&[step], text.as_bytes(), b"0\r\nA: b\r\n\r\n"].concat());
    }
}

#[test]
fn a_head_at_the_limit_of_fields_may_grow_over_it() {
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(MAX_FIELDS - 1));
    request_head(head.as_bytes());
}
