//! Leaving HTTP by `101`, and not leaving it otherwise.

use super::*;

const OFFER: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const OFFERED: &str =
    "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nconnection: upgrade\r\nx-request-id: *ID*\r\n\r\n";
const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n";

fn offered(early: &str) -> (RunningWorker, Application, TcpStream, TcpStream) {
    let (worker, application) = proxied();
    let mut client = worker.connect();
    send(&mut client, &format!("{OFFER}{early}"));
    let mut upstream = application.accept();
    expect(&mut upstream, OFFERED);
    (worker, application, client, upstream)
}

#[test]
fn after_101_bytes_pass_both_ways_until_both_have_ended() {
    let (worker, _application, mut client, mut upstream) = offered("");
    send(&mut upstream, &format!("{ACCEPTED}Connection: Upgrade\r\n\r\n\u{81}hello"));
    expect(&mut client, &format!("{ACCEPTED}connection: upgrade\r\n\r\n\u{81}hello"));
    for text in ["one", "GET / HTTP/1.1\r\n\r\n", "0\r\n\r\n"] {
        send(&mut client, text);
        expect(&mut upstream, text);
        send(&mut upstream, text);
        expect(&mut client, text);
    }
    client.shutdown(std::net::Shutdown::Write).expect("half-closed");
    expect_end(&mut upstream);
    send(&mut upstream, "last words");
    expect(&mut client, "last words");
    drop(upstream);
    expect_end(&mut client);
    worker.wait_until("no connection is open", |worker| worker.drain.open(Direction::Outbound) == 0);
    assert_eq!(worker.run(|worker| worker.pool.usable()), 0, "a tunnel was kept for requests");
}

#[test]
fn bytes_before_the_101_are_no_tunnel() {
    const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
    // Refused: what came early is the next request, with a head of its own.
    let (_worker, _application, mut client, mut upstream) = offered(NEXT);
    send(&mut upstream, OK);
    expect(&mut client, OK);
    expect(&mut upstream, "GET /next HTTP/1.1\r\nHost: a\r\nx-request-id: *ID*\r\n\r\n");
    // Accepted: it is the first of the tunnel, and only after the 101.
    let (_worker, _application, mut client, mut upstream) = offered(NEXT);
    upstream.set_nonblocking(true).expect("a socket");
    let early = upstream.read(&mut [0; 1]);
    assert_eq!(early.map_err(|error| error.kind()), Err(std::io::ErrorKind::WouldBlock));
    upstream.set_nonblocking(false).expect("a socket");
    send(&mut upstream, &format!("{ACCEPTED}Connection: Upgrade\r\n\r\n"));
    expect(&mut upstream, NEXT);
    expect(&mut client, &format!("{ACCEPTED}connection: upgrade\r\n\r\n"));
}

#[test]
fn a_101_nobody_offered_is_a_502() {
    let offers = [
        "",
        "Upgrade: websocket\r\n",
        "Connection: Upgrade\r\n",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
    ];
    for offer in offers {
        let (worker, application) = proxied();
        let mut client = worker.connect();
        send(&mut client, &format!("GET / HTTP/1.1\r\nHost: a\r\n{offer}\r\n"));
        let mut upstream = application.accept();
        expect(&mut upstream, GET_SENT);
        send(&mut upstream, &format!("{ACCEPTED}Connection: Upgrade\r\n\r\n"));
        expect_failure(&mut client, 502, "upstream-protocol");
        expect_end(&mut upstream);
    }
}

#[test]
fn a_101_in_the_middle_of_the_requests_body_is_a_502() {
    let (worker, application) = proxied();
    let mut client = worker.connect();
    send(
        &mut client,
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 9\r\n\r\nabc",
    );
    let mut upstream = application.accept();
    expect(
        &mut upstream,
        "POST / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nContent-Length: 9\r\nconnection: upgrade\r\nx-request-id: *ID*\r\n\r\nabc",
    );
    send(&mut upstream, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n");
    expect_failure(&mut client, 502, "upstream-protocol");
}
