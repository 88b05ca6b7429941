//! Blocks as bytes: the examples of RFC 7541 appendix C, and what must be refused.

use super::table::STATIC;
use super::*;
use crate::http2::fields::{Fields, HeadLimits};
use crate::http2::name::Name;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let text = std::str::from_utf8(&digits).expect("text");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

fn lines(fields: &Fields) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    fields.iter().flat_map(|field| [text(field.name), ": ".into(), text(field.value), "\n".into()]).collect()
}

fn decoded(decoder: &mut Decoder, block: &[u8]) -> Result<String, HpackError> {
    let mut fields = Fields::new();
    decoder.decode(block, &mut fields, &HeadLimits::default()).map(|()| lines(&fields))
}

/// One connection's blocks; after each, the size its table must have.
fn check_connection(table: u32, blocks: &[(&str, &str, usize)]) {
    let mut decoder = Decoder::new(DEFAULT_TABLE_BYTES);
    decoder.table_mut().set_max_size(table as usize);
    for (hex, expected, size) in blocks {
        assert_eq!(decoded(&mut decoder, &bytes(hex)).as_deref(), Ok(*expected));
        assert_eq!(decoder.table_mut().size(), *size, "after {expected}");
    }
}

#[test]
fn literals_of_appendix_c2() {
    check_connection(
        4096,
        &[("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", "custom-key: custom-header\n", 55)],
    );
    check_connection(4096, &[("040c 2f73 616d 706c 652f 7061 7468", ":path: /sample/path\n", 0)]);
    check_connection(4096, &[("1008 7061 7373 776f 7264 0673 6563 7265 74", "password: secret\n", 0)]);
    check_connection(4096, &[("82", ":method: GET\n", 0)]);
}

const FIRST: &str = ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n";
const SECOND: &str = ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\ncache-control: no-cache\n";
const THIRD: &str =
    ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\ncustom-key: custom-value\n";

#[test]
fn requests_of_appendix_c3() {
    check_connection(
        4096,
        &[
            ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", FIRST, 57),
            ("8286 84be 5808 6e6f 2d63 6163 6865", SECOND, 110),
            ("8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65", THIRD, 164),
        ],
    );
}

#[test]
fn huffman_coded_requests_of_appendix_c4() {
    check_connection(
        4096,
        &[
            ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", FIRST, 57),
            ("8286 84be 5886 a8eb 1064 9cbf", SECOND, 110),
            ("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", THIRD, 164),
        ],
    );
}

const ANSWERS: [&str; 3] = [
    ":status: 302\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com\n",
    ":status: 307\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com\n",
    ":status: 200\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:22 GMT\nlocation: https://www.example.com\n\
     content-encoding: gzip\nset-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1\n",
];

#[test]
fn responses_that_evict_of_appendix_c5() {
    check_connection(
        256,
        &[
            (
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32
                 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                ANSWERS[0],
                222,
            ),
            ("4803 3330 37c1 c0bf", ANSWERS[1], 222),
            (
                "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970
                 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61
                 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
                ANSWERS[2],
                215,
            ),
        ],
    );
}

#[test]
fn huffman_coded_responses_that_evict_of_appendix_c6() {
    check_connection(
        256,
        &[
            (
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad
                 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                ANSWERS[0],
                222,
            ),
            ("4883 640e ffc1 c0bf", ANSWERS[1], 222),
            (
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2
                 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                ANSWERS[2],
                215,
            ),
        ],
    );
}

#[test]
fn malformed_blocks_are_refused() {
    let table: &[(&str, &str)] = &[
        ("80", "field number 0"),
        ("be", "a number beyond both tables"),
        ("ff", "an integer cut off"),
        ("ff80808080", "an integer cut off"),
        ("ff8080808000", "an integer of too many bytes"),
        ("ffffffffff7f", "an integer that is too large"),
        ("40", "no name"),
        ("4001", "a name cut off"),
        ("400161", "no value"),
        ("40016102", "a value cut off"),
        ("0001617f80808080", "a length cut off"),
        ("7e00", "a name's number beyond both tables"),
        ("0001618106", "Huffman padding of zeros"),
        ("00016184ffffffff", "the Huffman end mark"),
        ("00016182f8ff", "Huffman padding of eight bits"),
        ("8220", "a table size update after a field"),
        ("3fe21f", "a table size of 4097"),
        ("3fe11f3fe21f", "the second table size too large"),
    ];
    for (hex, what) in table {
        let mut decoder = Decoder::new(4096);
        let error = decoded(&mut decoder, &bytes(hex)).err();
        assert!(error.is_some_and(|error| !error.is_over_limit()), "{what}: {error:?}");
    }
}

#[test]
fn table_size_updates_evict_and_may_come_twice() {
    let mut decoder = Decoder::new(8192);
    let added = bytes("400161 0162");
    decoded(&mut decoder, &added).expect("valid");
    assert_eq!(decoded(&mut decoder, &bytes("be")).as_deref(), Ok("a: b\n"));
    // To nothing and up to what we advertised.
    assert_eq!(decoded(&mut decoder, &bytes("20 3fe13f 82")).as_deref(), Ok(":method: GET\n"));
    assert!(decoded(&mut decoder, &bytes("be")).is_err());
    assert!(decoded(&mut decoder, &bytes("3fe23f")).is_err());
    // An entry larger than the table empties it.
    let mut decoder = Decoder::new(4096);
    decoded(&mut decoder, &added).expect("valid");
    decoded(&mut decoder, &[&bytes("3f09")[..], &bytes("400161 0a"), b"0123456789"].concat()).expect("valid");
    assert_eq!(decoder.table_mut().size(), 0);
    assert!(decoded(&mut decoder, &bytes("be")).is_err());
}

#[test]
fn over_the_limits_the_table_stays_in_step() {
    let limits = HeadLimits { bytes: 64, fields: 3 };
    // Five fields, all to be remembered.
    let block: Vec<u8> = (b'a'..=b'e').flat_map(|name| [0x40, 1, name, 1, b'x']).collect();
    let mut decoder = Decoder::new(4096);
    let mut fields = Fields::new();
    assert_eq!(decoder.decode(&block, &mut fields, &limits), Err(HpackError::TooManyFields(3)));
    assert_eq!(lines(&fields), "a: x\nb: x\nc: x\n");
    assert_eq!(decoder.decode(&bytes("be c2"), &mut fields, &limits), Ok(()));
    assert_eq!(lines(&fields), "e: x\na: x\n");
    let long = [&[0x40, 1, b'l', 100][..], &[b'y'; 100], &[0x40, 1, b'm', 1, b'x']].concat();
    assert_eq!(decoder.decode(&long, &mut fields, &limits), Err(HpackError::TooLong(64)));
    assert_eq!(decoder.decode(&bytes("be"), &mut fields, &limits), Ok(()));
    assert_eq!(lines(&fields), "m: x\n");
    // A small block that repeats a large entry costs no more than the limit.
    let bomb = vec![0xbf; 10_000];
    assert_eq!(decoder.decode(&bomb, &mut fields, &limits), Err(HpackError::TooLong(64)));
    assert!(fields.text.capacity() < 16 * 1024);
}

#[test]
fn the_table_keeps_little_more_than_its_size() {
    let mut decoder = Decoder::new(4096);
    for round in 0..5000u32 {
        let value = format!("{round:0width$}", width = 1 + round as usize % 300);
        let mut block = vec![0x40, 1, b'k', 0x7f];
        let length = value.len();
        if length < 127 {
            block[3] = length as u8;
        } else {
            block.extend_from_slice(&[(length - 127) as u8 | 0x80, ((length - 127) >> 7) as u8]);
        }
        block.extend_from_slice(value.as_bytes());
        assert_eq!(decoded(&mut decoder, &block), Ok(format!("k: {value}\n")));
        assert_eq!(decoded(&mut decoder, &[0xbe]), Ok(format!("k: {value}\n")));
        assert!(decoder.table_mut().size() <= 4096);
    }
    assert!(decoder.table_mut().storage() <= 5 * 1024, "{}", decoder.table_mut().storage());
}

#[test]
fn known_names_are_those_of_the_static_table() {
    for (at, entry) in STATIC.iter().enumerate() {
        let name = &entry.text[..entry.name_length];
        assert_eq!(Name::of(name), entry.name, "{}", String::from_utf8_lossy(name));
        let first = STATIC.iter().position(|other| &other.text[..other.name_length] == name).expect("itself");
        assert_eq!(usize::from(entry.name.0), first + 1);
        assert!(at >= first);
    }
}

#[test]
fn what_is_encoded_decodes_and_remembers_nothing() {
    let mut fields = Fields::new();
    for entry in &STATIC {
        let (name, value) = entry.text.split_at(entry.name_length);
        fields.push(name, value);
        fields.push(name, b"other");
    }
    fields.push(b"x-own", b"");
    fields.push(b"grpc-timeout", &[b'1'; 300]);
    fields.push_sensitive(b"x-key", b"k");
    let mut block = Vec::new();
    encode(&fields, &mut block);
    let mut decoder = Decoder::new(4096);
    let mut again = Fields::new();
    decoder.decode(&block, &mut again, &HeadLimits::default()).expect("valid");
    assert_eq!(again, fields);
    assert_eq!(decoder.table_mut().size(), 0);
    for (before, after) in fields.iter().zip(&again) {
        let credentials = matches!(before.name, b"authorization" | b"proxy-authorization" | b"cookie");
        assert_eq!(after.sensitive, before.sensitive || credentials, "{after:?}");
    }
}

#[test]
fn common_fields_are_one_byte() {
    for (name, value, byte) in [
        (":method", "GET", 0x82),
        (":path", "/", 0x84),
        (":scheme", "http", 0x86),
        (":status", "200", 0x88),
        (":status", "500", 0x8e),
        ("accept-encoding", "gzip, deflate", 0x90),
    ] {
        let mut fields = Fields::new();
        fields.push(name.as_bytes(), value.as_bytes());
        let mut block = Vec::new();
        encode(&fields, &mut block);
        assert_eq!(block, [byte]);
    }
}
