//! `Content-Length` as numbers are not written (RFC 9110 section 8.6, RFC 9112 section 6.3).

use crate::case::{CANARY, Case};

pub(crate) fn cases() -> Vec<Case> {
    let parsers = "lenient number parsers read different lengths out of this";
    let refused: [(&'static str, &str); 29] = [
        ("twice, equal", "Content-Length: 33\r\nContent-Length: 33"),
        ("twice, the second longer", "Content-Length: 0\r\nContent-Length: 33"),
        ("twice, the first longer", "Content-Length: 33\r\nContent-Length: 0"),
        ("twice, cases differ", "Content-Length: 0\r\ncontent-length: 33"),
        ("list of equals", "Content-Length: 33, 33"),
        ("list of others", "Content-Length: 0, 33"),
        ("list with nothing", "Content-Length: 33,"),
        ("signed plus", "Content-Length: +33"),
        ("signed minus", "Content-Length: -33"),
        ("minus zero", "Content-Length: -0"),
        ("hexadecimal", "Content-Length: 0x21"),
        ("octal mark", "Content-Length: 0o41"),
        ("exponent", "Content-Length: 3e1"),
        ("decimal point", "Content-Length: 33.0"),
        ("underscore", "Content-Length: 3_3"),
        ("empty", "Content-Length:"),
        ("spaces", "Content-Length:    "),
        ("a space within", "Content-Length: 3 3"),
        ("a letter behind", "Content-Length: 33a"),
        ("a semicolon behind", "Content-Length: 33;a"),
        ("quoted", "Content-Length: \"33\""),
        ("a vertical tab before", "Content-Length: \x0b33"),
        ("a NUL behind", "Content-Length: 33\0"),
        ("more than 64 bits", "Content-Length: 18446744073709551649"),
        ("more than 32 bits by 33, in 20 digits", "Content-Length: 00000000004294967329"),
        (
            "a hundred digits",
            "Content-Length: 1111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111",
        ),
        ("folded", "Content-Length:\r\n 33"),
        ("a space before the colon", "Content-Length : 33"),
        ("digits of another script", "Content-Length: \u{663}\u{663}"),
    ];
    let mut cases: Vec<Case> = refused
        .into_iter()
        .map(|(name, line)| {
            Case::refused(400, name, parsers, format!("POST /attack HTTP/1.1\r\nHost: h\r\n{line}\r\n\r\n{CANARY}"))
        })
        .collect();
    cases.extend([
        Case::serves(
            &[("POST", "/attack", "GET /canary HTTP/1.1\r\nHost: h\r\n\r\n")],
            "leading zeros",
            "digits are decimal, whatever they begin with: 033 is not 27",
            format!("POST /attack HTTP/1.1\r\nHost: h\r\nContent-Length: 033\r\n\r\n{CANARY}"),
        ),
        Case::serves(
            &[("POST", "/attack", "GET /canary HTTP/1.1\r\nHost: h\r\n\r\n")],
            "optional white space",
            "white space around a value is none of it",
            format!("POST /attack HTTP/1.1\r\nHost: h\r\nContent-Length: \t 33 \t\r\n\r\n{CANARY}"),
        ),
        Case::serves(
            &[("POST", "/attack", "GET /canary HTTP/1.1\r\nHost: h\r\n\r\n")],
            "Content_Length beside it",
            "an underscore makes another field: a server that folds the two must not see two lengths",
            format!("POST /attack HTTP/1.1\r\nHost: h\r\nContent-Length: 33\r\nContent_Length: 0\r\n\r\n{CANARY}"),
        ),
        Case::breaks(
            "longer than what comes",
            "the missing rest must not be taken from the next client's request",
            "POST /attack HTTP/1.1\r\nHost: h\r\nContent-Length: 99\r\n\r\nshort",
        ),
        Case::breaks(
            "as long as numbers go",
            "a body that never ends is not complete",
            "POST /attack HTTP/1.1\r\nHost: h\r\nContent-Length: 999999999999999999\r\n\r\nshort",
        ),
    ]);
    cases
}
