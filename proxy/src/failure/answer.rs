//! What a client reads when the proxy answers in the application's place.

use std::fmt;

use weft_core::model::Direction;

use super::Failure;

/// Which proxy says it: a request passes two of them, and the reader must know where to look.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    pub direction: Direction,
    /// `NAMESPACE/WORKLOAD` of the workload this proxy stands beside.
    pub workload: &'a str,
}

impl fmt::Display for Hop<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        };
        write!(f, "the {side} proxy of {}", self.workload)
    }
}

/// An answer of the proxy itself.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    pub failure: Failure,
    /// The limit and the value found, where there are such; else empty.
    pub detail: &'a str,
    pub hop: Hop<'a>,
}

impl fmt::Display for Answer<'_> {
    /// One line: code, meaning, detail, hop. It is the body of an HTTP answer and the message of a gRPC one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = self.failure.facts();
        write!(f, "weft: {}: {}", facts.code, facts.text)?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        write!(f, " (said by {}; see `weft explain-code {}`)", self.hop, facts.code)
    }
}

impl Answer<'_> {
    /// Appends the whole answer as HTTP/1.1. `keep_alive`: the connection stays; `to_head`: the method was HEAD.
    pub fn write_http1(&self, keep_alive: bool, to_head: bool, out: &mut Vec<u8>) {
        let facts = self.failure.facts();
        let body = format!("{self}\n");
        let connection = if keep_alive { "" } else { "connection: close\r\n" };
        let allow = if facts.status == 405 { "allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {} {}\r\nweft-error: {}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n{allow}{connection}\r\n",
            facts.status,
            reason(facts.status),
            facts.code,
            body.len(),
        );
        out.extend_from_slice(head.as_bytes());
        if !to_head {
            out.extend_from_slice(body.as_bytes());
        }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        414 => "URI Too Long",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Error",
    }
}
