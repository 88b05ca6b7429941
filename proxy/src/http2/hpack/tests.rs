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

/// Both ends of one connection's compression; `asked` is what a request was read from, so that it knows what is repeated.
struct Ends {
    incoming: (Asking, Decoder),
    outgoing: (Encoder, Decoder),
}

/// A client that puts every field into its table.
#[derive(Default)]
struct Asking(Vec<(Vec<u8>, Vec<u8>)>);

impl Asking {
    /// As a client writes them that keeps all: new ones into the table, the others by number.
    fn block(&mut self, fields: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut block = Vec::new();
        for &(name, value) in fields {
            let field = (name.to_vec(), value.to_vec());
            if let Some(at) = self.0.iter().rposition(|known| *known == field) {
                let number = STATIC.len() + self.0.len() - at;
                assert!(number < 127, "a number of one byte");
                block.push(0x80 | number as u8);
                continue;
            }
            block.extend_from_slice(&[0x40, name.len() as u8]);
            block.extend_from_slice(name);
            block.push(value.len() as u8);
            block.extend_from_slice(value);
            self.0.push(field);
        }
        block
    }
}

impl Ends {
    fn new() -> Self {
        let decoder = || Decoder::new(DEFAULT_TABLE_BYTES);
        Self { incoming: (Asking::default(), decoder()), outgoing: (Encoder::new(), decoder()) }
    }

    /// Passes a head on and says how many bytes that took.
    fn pass(&mut self, fields: &[(&[u8], &[u8])]) -> usize {
        let (mut read, mut again) = (Fields::new(), Fields::new());
        let block = self.incoming.0.block(fields);
        self.incoming.1.decode(&block, &mut read, &HeadLimits::default()).expect("valid");
        let mut passed = Vec::new();
        self.outgoing.0.encode(&read, &mut passed);
        self.outgoing.1.decode(&passed, &mut again, &HeadLimits::default()).expect("valid");
        assert_eq!(again, read);
        passed.len()
    }
}

#[test]
fn what_is_repeated_goes_on_as_one_byte_from_the_third_time() {
    let mut ends = Ends::new();
    let fields: [(&[u8], &[u8]); 2] = [(b"x-agent", b"a browser"), (b"x-team", b"orders")];
    let whole = ends.pass(&fields);
    assert_eq!(ends.pass(&fields), whole, "said again: put into the table");
    assert_eq!(ends.pass(&fields), 2);
    assert_eq!(ends.pass(&fields[..1]), 1);
    assert_eq!(ends.pass(&[(b"x-agent", b"another")]), 17, "new, and literal");
    assert_eq!(ends.pass(&fields), 2);
}

#[test]
fn a_table_for_many_keeps_no_secret() {
    let secrets: [(&[u8], &[u8]); 4] = [
        (b"authorization", b"Bearer a-rather-long-token"),
        (b"cookie", b"short=1"),
        (b"set-cookie", b"session=0123456789abcdef0123456789"),
        (b":path", b"/accounts/4711"),
    ];
    for secret in secrets {
        let mut ends = Ends::new();
        let whole = ends.pass(&[secret]);
        for _ in 0..4 {
            assert_eq!(ends.pass(&[secret]), whole, "{}", String::from_utf8_lossy(secret.0));
        }
        assert_eq!(ends.outgoing.1.table_mut().size(), 0);
    }
}

#[test]
fn a_smaller_table_is_told_and_kept_to() {
    let mut ends = Ends::new();
    let field: [(&[u8], &[u8]); 1] = [(b"x-team", b"orders")];
    let whole = ends.pass(&field);
    ends.pass(&field);
    assert_eq!(ends.pass(&field), 1);
    ends.outgoing.0.set_limit(0);
    assert_eq!(ends.pass(&field), 1 + whole, "told, and literal");
    assert_eq!(ends.pass(&field), whole);
    assert_eq!(ends.outgoing.1.table_mut().size(), 0);
    // Down and up between two heads: both are told, and the table is empty.
    ends.outgoing.0.set_limit(256);
    ends.outgoing.0.set_limit(100);
    ends.outgoing.0.set_limit(1 << 20);
    assert_eq!(ends.pass(&field), 2 + 3 + whole);
    assert_eq!(ends.pass(&field), 1);
}

#[test]
fn clients_who_repeat_more_than_there_is_room_for_do_not_take_turns() {
    let mut ends = Ends::new();
    let names: Vec<Vec<u8>> = (0..60u8).map(|at| format!("x-field-{at}").into_bytes()).collect();
    let value = [b'v'; 60];
    // Twice as much as the table holds, in turn.
    let fields: Vec<(&[u8], &[u8])> = names.iter().map(|name| (&name[..], &value[..])).collect();
    let mut incoming = Fields::new();
    for &(name, value) in &fields {
        incoming.push(name, value);
    }
    for part in &mut incoming.parts {
        part.is_repeated = true;
    }
    let digests: Vec<u32> = fields.iter().map(|(name, value)| digest(&[*name, *value].concat(), name.len())).collect();
    for (part, digest) in incoming.parts.iter_mut().zip(digests) {
        part.digest = digest;
    }
    let mut sizes = Vec::new();
    for _ in 0..50 {
        let (mut block, mut again) = (Vec::new(), Fields::new());
        ends.outgoing.0.encode(&incoming, &mut block);
        ends.outgoing.1.decode(&block, &mut again, &HeadLimits::default()).expect("valid");
        assert_eq!(again, incoming);
        sizes.push(block.len());
    }
    let whole = sizes[0];
    assert!(sizes[1..].iter().all(|&size| size < whole * 7 / 10), "{sizes:?}");
}

#[test]
fn ends_stay_in_step_whatever_is_said() {
    let mut chance = fastrand::Rng::with_seed(7541);
    let mut ends = Ends::new();
    let (mut read, mut again) = (Fields::new(), Fields::new());
    for _ in 0..3000 {
        read.clear();
        for _ in 0..chance.usize(..12) {
            let name = format!("x-{}", chance.u8(..24));
            let value = vec![b'a' + chance.u8(..3); chance.usize(..3) * chance.usize(..200)];
            read.push(name.as_bytes(), &value);
            if let Some(part) = read.parts.last_mut()
                && chance.u8(..4) > 0
            {
                // Equal digests of different fields, too.
                part.digest = 1 + 2 * u32::from(name.len() as u8 ^ value.len() as u8);
                part.is_repeated = chance.bool();
            }
        }
        if chance.u8(..50) == 0 {
            ends.outgoing.0.set_limit(chance.u32(..6000));
        }
        let mut block = Vec::new();
        ends.outgoing.0.encode(&read, &mut block);
        ends.outgoing.1.decode(&block, &mut again, &HeadLimits::default()).expect("valid");
        assert_eq!(again, read);
    }
}
