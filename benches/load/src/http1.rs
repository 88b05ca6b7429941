//! HTTP/1.1 between well-meaning peers: requests without bodies, answers with a length.

use std::collections::HashMap;
use std::io;

use memchr::memmem;

/// Fields of every request, about 600 bytes, as a service behind a login gets them.
pub(crate) const FIELDS: [(&str, &str); 8] = [
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) bench/1.0"),
    ("accept", "application/json, text/plain, */*"),
    ("accept-encoding", "gzip, deflate, br"),
    ("accept-language", "en-GB,en;q=0.8,de;q=0.5"),
    (
        "authorization",
        "Bearer eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJsYWIiLCJleHAiOjQxMDI0NDQ4MDAsImlhdCI6MTc2NzIyNTYwMCwi\
         cm9sZXMiOlsicmVhZCIsIndyaXRlIl19.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ),
    ("cookie", "session=0123456789abcdef0123456789abcdef; theme=dark"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("x-tenant", "laboratory"),
];

/// Fields of every answer, besides its length.
pub(crate) const ANSWER_FIELDS: [(&str, &str); 7] = [
    ("server", "application/1.0"),
    ("date", "Thu, 01 Jan 2026 00:00:00 GMT"),
    ("content-type", "application/json; charset=utf-8"),
    ("cache-control", "no-cache, no-store, must-revalidate"),
    ("etag", "\"5f2-60c0a1b2c3d4e\""),
    ("vary", "accept-encoding"),
    ("x-content-type-options", "nosniff"),
];

/// The target of a request for a body of `size` bytes.
pub(crate) fn target(size: usize) -> String {
    format!("/{size}/orders/4711/items?page=2")
}

pub(crate) fn request(host: &str, size: usize) -> Vec<u8> {
    let fields = FIELDS.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
    format!("GET {} HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n", target(size)).into_bytes()
}

/// The application's side of one process.
#[derive(Debug, Default)]
pub(crate) struct Answers(HashMap<usize, Vec<u8>>);

impl Answers {
    /// Answers the requests at the beginning of `input` into `out`; how many bytes of it that were.
    pub(crate) fn answer(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        let mut read = 0;
        while let Some(end) = memmem::find(&input[read..], b"\r\n\r\n") {
            let head = &input[read..read + end];
            read += end + 4;
            let size = size_of(head);
            out.extend_from_slice(self.0.entry(size).or_insert_with(|| answer(size)));
        }
        read
    }
}

/// The number that the target begins with; 1 KiB where there is none.
fn size_of(head: &[u8]) -> usize {
    let target = head.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
    let digits = target.get(1..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit());
    let size = digits.fold(0_usize, |size, digit| size.saturating_mul(10).saturating_add(usize::from(digit - b'0')));
    if size == 0 { 1024 } else { size.min(1 << 20) }
}

fn answer(size: usize) -> Vec<u8> {
    let fields = ANSWER_FIELDS.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
    let head = format!("HTTP/1.1 200 OK\r\n{fields}content-length: {size}\r\n\r\n");
    [head.into_bytes(), vec![b'a'; size]].concat()
}

/// How long the answer at the beginning of `input` is, once its head is there.
///
/// # Errors
/// When it is not the application's: another status, or no length.
pub(crate) fn length(input: &[u8]) -> io::Result<Option<usize>> {
    let Some(end) = memmem::find(input, b"\r\n\r\n") else { return Ok(None) };
    let head = &input[..end];
    if !head.starts_with(b"HTTP/1.1 200 ") {
        return Err(wrong(head));
    }
    let length = head.split(|&byte| byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(15)?;
        let digits = std::str::from_utf8(value).ok()?.trim();
        name.eq_ignore_ascii_case(b"content-length:").then(|| digits.parse::<usize>().ok())?
    });
    length.map(|length| Some(end + 4 + length)).ok_or_else(|| wrong(head))
}

fn wrong(head: &[u8]) -> io::Error {
    let text = String::from_utf8_lossy(&head[..head.len().min(200)]).into_owned();
    io::Error::other(format!("not the application's answer: {text}"))
}
