//! What every TCP socket of the request path is told.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// Silence before the kernel asks whether the peer is still there. 60 s: well inside what firewalls and NAT forget
/// (five minutes and more), and so rare that an idle connection costs nothing.
const KEEPALIVE_IDLE: Duration = Duration::from_mins(1);
/// Between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Unanswered ones after which the peer is gone: 90 s after its last sign of life.
const KEEPALIVE_COUNT: u32 = 3;

/// Small messages go out at once, and a peer that vanished without a word is noticed. What a listening socket is told,
/// the kernel tells those it accepts.
///
/// `TCP_USER_TIMEOUT` is left alone on purpose: it would take the place of the count above, and it also ends connections
/// whose peer is there but keeps its window closed (tcp(7)), which is what a slow reader does. Bytes that nobody
/// acknowledges end with the stream idle timeout, in a tunnel with the kernel's own patience (about 15 min).
pub fn tune(socket: &SockRef<'_>) {
    // Each is a wish: a socket that cannot have it still works.
    let _ = socket.set_tcp_nodelay(true);
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_COUNT);
    let _ = socket.set_tcp_keepalive(&keepalive);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vanished_peer_is_noticed_on_connections_we_take_and_make() {
        let listener = crate::accept::bind(([127, 0, 0, 1], 0).into(), 1).expect("loopback").remove(0);
        listener.set_nonblocking(false).expect("a socket");
        let made = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        tune(&SockRef::from(&made));
        let (taken, _) = listener.accept().expect("taken");
        for socket in [SockRef::from(&made), SockRef::from(&taken)] {
            assert!(socket.keepalive().expect("readable") && socket.tcp_nodelay().expect("readable"));
            assert_eq!(socket.tcp_keepalive_time().expect("readable"), KEEPALIVE_IDLE);
            assert_eq!(socket.tcp_keepalive_interval().expect("readable"), KEEPALIVE_INTERVAL);
            assert_eq!(socket.tcp_keepalive_retries().expect("readable"), KEEPALIVE_COUNT);
        }
    }
}
