//! The ClientHello: recorded, made, and hostile ones; rustls reads them beside us.

use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::detect::check::{self, Seen, first_message, in_records_of, seen};
use crate::tls::testing::client_hello;

/// `openssl s_client`, curl and Python as they spoke to a socket of the recorder.
macro_rules! recorded {
    ($name:literal) => {
        include_bytes!(concat!("../../../../tests/fuzz/corpus/client_hello/", $name))
    };
}

fn hello(server_name: Option<&str>, protocols: &[&str]) -> Seen {
    let protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Seen::Hello { server_name: server_name.map(str::to_owned), protocols }
}

/// What to put into a made ClientHello.
#[derive(Debug, Clone)]
struct Made {
    session: Vec<u8>,
    extensions: Vec<(u16, Vec<u8>)>,
}

impl Made {
    fn with(extensions: &[(u16, Vec<u8>)]) -> Self {
        Self { session: vec![7; 32], extensions: extensions.to_vec() }
    }

    fn message(&self) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([9; 32]);
        body.extend(prefixed(1, &self.session));
        body.extend(prefixed(2, &[0x13, 1, 0x0a, 0x0a]));
        body.extend(prefixed(1, &[0]));
        let extension = |(kind, data): &(u16, Vec<u8>)| [&kind.to_be_bytes()[..], &prefixed(2, data)].concat();
        body.extend(prefixed(2, &self.extensions.iter().flat_map(extension).collect::<Vec<u8>>()));
        [&[1][..], &prefixed(3, &body)].concat()
    }

    /// In one record.
    fn wire(&self) -> Vec<u8> {
        in_records_of(LONGEST_FRAGMENT, &self.message())
    }
}

fn prefixed(width: usize, bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u32).to_be_bytes();
    [&length[4 - width..], bytes].concat()
}

fn name(host: &str) -> (u16, Vec<u8>) {
    (0, prefixed(2, &[&[0][..], &prefixed(2, host.as_bytes())].concat()))
}

fn alpn(names: &[&str]) -> (u16, Vec<u8>) {
    (16, prefixed(2, &names.iter().flat_map(|name| prefixed(1, name.as_bytes())).collect::<Vec<u8>>()))
}

/// What rustls reads; `None` when it would not take it.
fn read_by_rustls(bytes: &[u8]) -> Option<Seen> {
    let mut acceptor = rustls::server::Acceptor::default();
    let mut bytes = Cursor::new(bytes);
    while (bytes.position() as usize) < bytes.get_ref().len() {
        acceptor.read_tls(&mut bytes).ok()?;
        if let Some(accepted) = acceptor.accept().ok()? {
            let read = accepted.client_hello();
            let protocols = read.alpn().map(|names| names.map(<[u8]>::to_vec).collect()).unwrap_or_default();
            let server_name = read.server_name().map(str::to_ascii_lowercase);
            return Some(Seen::Hello { server_name, protocols });
        }
    }
    None
}

#[test]
fn recorded_client_hellos_are_read() {
    let long = format!("a.{}.example", "x".repeat(60));
    let table: &[(&[u8], Seen)] = &[
        (recorded!("openssl-tls13"), hello(Some("orders.example"), &["h2", "http/1.1"])),
        (recorded!("openssl-tls12"), hello(Some("orders.example"), &[])),
        (recorded!("openssl-no-name"), hello(None, &[])),
        (recorded!("openssl-no-extensions"), hello(None, &[])),
        (recorded!("curl-h2"), hello(Some("curl.example"), &["h2", "http/1.1"])),
        (recorded!("curl-http1"), hello(Some("curl.example"), &[])),
        (recorded!("curl-address"), hello(None, &["h2", "http/1.1"])),
        (recorded!("python"), hello(Some("python.example"), &[])),
    ];
    for (bytes, expected) in table {
        assert_eq!(seen(bytes), *expected);
        assert_eq!(seen(&bytes[..bytes.len() - 1]), Seen::NeedMore);
    }
    // In four records.
    let Seen::Hello { server_name, protocols } = seen(recorded!("openssl-fragments-of-512")) else {
        panic!("no hello")
    };
    assert_eq!((server_name.as_deref(), protocols.len()), (Some(long.as_str()), 20));
}

#[test]
fn rustls_and_we_read_the_same() {
    let made = client_hello("Orders.Example", &["weft/tcp", "h2"]);
    assert_eq!(seen(&made), hello(Some("orders.example"), &["weft/tcp", "h2"]));
    check::client_hello(&made);
    // Post-quantum keys make it longer than a packet.
    assert!(made.len() > 1200, "{}", made.len());
    assert_eq!(seen(&client_hello("192.0.2.1", &[])), hello(None, &[]));
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/client_hello");
    let mut compared = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        if let (Some(expected), found @ Seen::Hello { .. }) = (read_by_rustls(&bytes), seen(&bytes)) {
            assert_eq!(found, expected, "{}", path.display());
            compared += 1;
        }
    }
    assert!(compared >= 8, "{compared} compared");
}

#[test]
fn the_name_of_the_outside_is_read_whatever_stands_around_it() {
    let grease = (0x2a2a, vec![]);
    let encrypted = (0xfe0d, [&[0, 0, 1, 0, 1, 42, 0, 32][..], &[5; 250]].concat());
    let table = [
        (vec![name("a.example")], hello(Some("a.example"), &[])),
        (vec![grease.clone(), name("a.example"), (0xfafa, vec![0])], hello(Some("a.example"), &[])),
        (vec![encrypted.clone(), name("public.example")], hello(Some("public.example"), &[])),
        (vec![encrypted], hello(None, &[])),
        (vec![alpn(&["\u{a}\u{a}", "h2"]), grease], hello(None, &["\u{a}\u{a}", "h2"])),
        (vec![name("A.Example.")], hello(Some("a.example"), &[])),
        (vec![name("_x.a-b.0")], hello(Some("_x.a-b.0"), &[])),
        (vec![], hello(None, &[])),
    ];
    for (extensions, expected) in table {
        let made = Made::with(&extensions).wire();
        assert_eq!(seen(&made), expected, "{extensions:?}");
        check::client_hello(&made);
    }
}

#[test]
fn what_has_two_readings_or_none_is_no_client_hello() {
    let server_names = |list: &[u8]| (0, prefixed(2, list));
    let long = format!("{}.example", "a".repeat(64));
    let longest = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
    assert_eq!(seen(&Made::with(&[name(&longest)]).wire()), hello(Some(&longest), &[]));
    let table = [
        (vec![name("a.example"), name("b.example")], Flaw::Twice),
        (vec![alpn(&["h2"]), alpn(&["h2"])], Flaw::Twice),
        (vec![name("")], Flaw::Name),
        (vec![name(".")], Flaw::Name),
        (vec![name(".example")], Flaw::Name),
        (vec![name("a..example")], Flaw::Name),
        (vec![name("a.example..")], Flaw::Name),
        (vec![name("*.example")], Flaw::Name),
        (vec![name("a\0.example")], Flaw::Name),
        (vec![name("a.example:443")], Flaw::Name),
        (vec![name("bücher.example")], Flaw::Name),
        (vec![name(&long)], Flaw::Name),
        (vec![name(&format!("{longest}e"))], Flaw::Name),
        (vec![name(&"a.".repeat(200))], Flaw::Name),
        // Two names in one list, another type of name, a list shorter or longer than it says, none at all.
        (vec![server_names(&[0, 0, 1, b'a', 0, 0, 1, b'b'])], Flaw::Lengths),
        (vec![server_names(&[1, 0, 1, b'a'])], Flaw::Lengths),
        (vec![(0, vec![0, 4, 0, 0, 2, b'a'])], Flaw::Lengths),
        (vec![(0, vec![0, 4, 0, 0, 1, b'a', 0])], Flaw::Lengths),
        (vec![(0, vec![])], Flaw::Lengths),
        (vec![alpn(&[])], Flaw::Lengths),
        (vec![alpn(&["h2", ""])], Flaw::Lengths),
        (vec![(16, vec![0, 3, 2, b'h'])], Flaw::Lengths),
    ];
    for (extensions, flaw) in table {
        let made = Made::with(&extensions).wire();
        assert_eq!(seen(&made), Seen::NotTls(flaw), "{extensions:?}");
        check::client_hello(&made);
    }
    let made = Made { session: vec![0; 33], extensions: vec![name("a.example")] };
    assert_eq!(seen(&made.wire()), Seen::NotTls(Flaw::Lengths), "the session's id has 32 bytes at most");
}

#[test]
fn what_is_not_tls_is_known_by_its_first_bytes() {
    let table: &[(&[u8], Seen)] = &[
        (b"", Seen::NeedMore),
        (b"\x16", Seen::NeedMore),
        (b"\x16\x03\x01\x02\x00", Seen::NeedMore),
        (b"\x16\x03\x01\x02\x00\x01", Seen::NeedMore),
        (b"G", Seen::NotTls(Flaw::NoHandshake)),
        // A hello of SSL 2, an alert, application data.
        (b"\x80\x2e\x01\x00\x02", Seen::NotTls(Flaw::NoHandshake)),
        (b"\x15\x03\x03\x00\x02\x02\x28", Seen::NotTls(Flaw::NoHandshake)),
        (b"\x17\x03\x03\x00\x01\x00", Seen::NotTls(Flaw::NoHandshake)),
        (b"\x16\x02", Seen::NotTls(Flaw::NoHandshake)),
        (b"\x16\x03\x01\x00\x00", Seen::NotTls(Flaw::RecordLength)),
        (b"\x16\x03\x01\x40\x01", Seen::NotTls(Flaw::RecordLength)),
        (b"\x16\x03\x01\x00\x05\x02", Seen::NotTls(Flaw::OtherMessage)),
        (b"\x16\x03\x01\x00\x05\x01\x00\x40\x00", Seen::NotTls(Flaw::TooLong)),
        (b"\x16\x03\x01\x00\x05\x01\xff\xff\xff", Seen::NotTls(Flaw::TooLong)),
        // An alert between two parts of the hello.
        (b"\x16\x03\x01\x00\x01\x01\x15\x03\x03\x00\x02\x02\x28", Seen::NotTls(Flaw::NoHandshake)),
        (b"\x16\x03\x01\x00\x04\x01\x00\x00\x00", Seen::NotTls(Flaw::Lengths)),
    ];
    for (bytes, expected) in table {
        assert_eq!(seen(bytes), *expected, "{bytes:02x?}");
        check::client_hello(bytes);
    }
}

#[test]
fn the_longest_hello_is_a_full_record_and_one_byte_more_is_refused() {
    let empty = Made::with(&[name("a.example"), (21, vec![])]).message().len();
    let padded = |length: usize| Made::with(&[name("a.example"), (21, vec![0; length - empty])]).message();
    let longest = in_records_of(LONGEST_FRAGMENT, &padded(LONGEST_FRAGMENT));
    assert_eq!(longest.len(), LONGEST);
    assert_eq!(seen(&longest), hello(Some("a.example"), &[]));
    let longer = in_records_of(LONGEST_FRAGMENT, &padded(LONGEST_FRAGMENT + 1));
    assert_eq!(seen(&longer[..9]), Seen::NotTls(Flaw::TooLong), "known before it has come");
    // The headers of more records count as well.
    let cut = in_records_of(1000, &padded(LONGEST_FRAGMENT - 50));
    assert_eq!(seen(&cut[..LONGEST - 1]), Seen::NeedMore);
    assert_eq!(seen(&cut[..LONGEST]), Seen::NotTls(Flaw::TooLong));
    // One byte a record, as small as it can be.
    let smallest = in_records_of(1, &first_message(recorded!("openssl-tls13")));
    assert_eq!(seen(&smallest), seen(recorded!("openssl-tls13")));
}

/// Random extensions, most of them of no meaning here.
fn extensions() -> impl Strategy<Value = Vec<(u16, Vec<u8>)>> {
    let other = (17..u16::MAX, prop::collection::vec(any::<u8>(), 0..300));
    prop::collection::vec(other, 0..12)
}

proptest! {
    #[test]
    fn a_valid_hello_is_read_however_it_is_cut(
        host in prop::option::of("[a-zA-Z0-9]([a-zA-Z0-9-]{0,20}[a-z0-9])?(\\.[a-z0-9_]{1,10}){0,5}"),
        names in prop::collection::vec("[ -~]{1,30}", 0..5),
        others in extensions(),
        place in any::<prop::sample::Index>(),
        size in 1..2000usize,
        behind in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut all = others;
        if let Some(host) = &host {
            all.insert(place.index(all.len() + 1), name(host));
        }
        if !names.is_empty() {
            all.insert(place.index(all.len() + 1), alpn(&names));
        }
        let mut wire = in_records_of(size, &Made::with(&all).message());
        wire.extend(behind);
        prop_assume!(wire.len() <= LONGEST);
        let expected = hello(host.map(|host| host.to_ascii_lowercase()).as_deref(), &names);
        prop_assert_eq!(seen(&wire), expected);
        check::client_hello(&wire);
    }

    #[test]
    fn no_bytes_panic_or_contradict_themselves(
        others in extensions(),
        size in 1..2000usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        end in any::<prop::sample::Index>(),
    ) {
        let mut all = others;
        all.push(name("a.example"));
        all.push(alpn(&["h2"]));
        let mut wire = in_records_of(size, &Made::with(&all).message());
        for (place, byte) in changes {
            let place = place.index(wire.len());
            wire[place] = byte;
        }
        wire.truncate(end.index(wire.len()) + 1);
        check::client_hello(&wire);
        if let (Some(by_rustls), ours @ Seen::Hello { .. }) = (read_by_rustls(&wire), seen(&wire)) {
            prop_assert_eq!(ours, by_rustls);
        }
    }
}
