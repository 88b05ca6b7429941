//! `Connection`, upgrades and expectations: what ends at a hop, and who answers before the body (RFC 9110 section 7.6).

use crate::case::{CANARY, Case};

fn with(lines: &str) -> String {
    format!("GET /attack HTTP/1.1\r\nHost: h\r\n{lines}\r\n\r\n")
}

pub(crate) fn cases() -> Vec<Case> {
    let nominated = "a client must not take away by nomination what those behind rely on";
    let hop = "it is between the client and us";
    let h2c = "a server that took the offer would read what follows as HTTP/2, past every rule of ours";
    let mut cases = vec![
        Case::serves(&[("GET", "/attack", "")], "a nominated field", hop, with("Connection: X-Mine\r\nX-Mine: forged"))
            .never(&["forged", "X-Mine"]),
        Case::serves(&[("GET", "/attack", "")], "Host nominated", nominated, with("Connection: Host")),
        Case::serves(
            &[("POST", "/attack", "GET /canary HTTP/1.1\r\nHost: h\r\n\r\n")],
            "Content-Length nominated",
            "without its length the body would be the next request",
            format!(
                "POST /attack HTTP/1.1\r\nHost: h\r\nConnection: Content-Length\r\nContent-Length: 33\r\n\r\n{CANARY}"
            ),
        ),
        Case::serves(
            &[("POST", "/attack", "GET /canary HTTP/1.1\r\nHost: h\r\n\r\n")],
            "Transfer-Encoding nominated",
            "without its coding the body would be the next request",
            format!(
                "POST /attack HTTP/1.1\r\nHost: h\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n21\r\n{CANARY}\r\n0\r\n\r\n"
            ),
        ),
        Case::refused(
            400,
            "five Connection fields",
            "each option is compared with every field: work without end",
            with("Connection: a\r\nConnection: b\r\nConnection: c\r\nConnection: d\r\nConnection: e"),
        ),
        Case::refused(
            400,
            "a thousand options",
            "each option is compared with every field: work without end",
            with(&format!("Connection: {}", "x,".repeat(1000))),
        ),
        Case::serves(
            &[("GET", "/attack", "")],
            "Keep-Alive and Proxy-Connection",
            hop,
            with("Keep-Alive: timeout=999\r\nProxy-Connection: keep-alive"),
        )
        .never(&["timeout=", "Proxy-Connection"]),
        Case::closes(
            &[("GET", "/attack", "")],
            "close among others",
            "one `close` is enough, wherever it stands",
            with("Connection: keep-alive, close"),
        ),
        Case::closes(
            &[("GET", "/attack", "")],
            "close in a second field",
            "one `close` is enough, wherever it stands",
            with("Connection: keep-alive\r\nConnection: CLOSE"),
        ),
        Case::serves(
            &[("GET", "/attack", "")],
            "an h2c upgrade",
            h2c,
            with("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__"),
        )
        .never(&["h2c", "HTTP2-Settings"]),
        Case::serves(
            &[("GET", "/attack", "")],
            "an h2c upgrade without the nomination",
            h2c,
            with("Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__"),
        )
        .never(&["h2c", "HTTP2-Settings"]),
        Case::serves(
            &[("GET", "/attack", "")],
            "h2c among other offers",
            h2c,
            with("Connection: Upgrade\r\nUpgrade: websocket, H2C"),
        )
        .never(&["H2C"]),
        Case::serves(
            &[("GET", "/attack", "")],
            "an upgrade that is not nominated",
            "an offer that is not for this hop is not made to the next",
            with("Upgrade: websocket"),
        )
        .never(&["websocket"]),
        Case::refused(
            400,
            "Upgrade twice",
            "one offer, or none that can be told",
            with("Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c"),
        ),
        Case::serves(
            &[("GET", "/attack", ""), ("GET", "/canary", "")],
            "a WebSocket nobody takes",
            "the server goes on with HTTP, and so must we: bytes tunnelled now would be requests past every rule of ours",
            format!(
                "GET /attack HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 1337\r\n\r\n{CANARY}"
            ),
        ),
        Case::serves(
            &[("POST", "/attack", "ab")],
            "Expect: 100-continue, the body at once",
            "the interim answer is no answer: the next one belongs to the same request",
            "POST /attack HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
        ),
        Case::closes(
            &[("POST", "/attack", "ab")],
            "Expect in HTTP/1.0",
            "HTTP/1.0 knows no interim answers",
            "POST /attack HTTP/1.0\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
        )
        .never(&["Expect"]),
        Case::serves(
            &[("POST", "/attack", "GET /canary HTTP/1.1\r\nHost: h\r\n\r\n")],
            "Expect in capitals",
            "an expectation is named without regard to case",
            format!("POST /attack HTTP/1.1\r\nHost: h\r\nEXPECT: 100-CONTINUE\r\nContent-Length: 33\r\n\r\n{CANARY}"),
        ),
    ];
    for name in ["Authorization", "Cookie", "X-Forwarded-For", "traceparent"] {
        let bytes = with(&format!("Connection: {name}\r\n{name}: kept"));
        cases.push(Case::serves(&[("GET", "/attack", "")], "credentials nominated", nominated, bytes));
    }
    cases
}
