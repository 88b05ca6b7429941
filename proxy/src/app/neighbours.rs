//! Whether anybody else still lives in our network namespace.
//!
//! A pod's containers share one. In Kubernetes' own order the proxy is told to end when the application's containers have
//! ended; where something tells all of them at once, the application may still answer and call out, and needs the proxy
//! until it is gone. The kernel's table of sockets tells, without any right: a socket that listens for others or leads to
//! others, and belongs to another user than ours, belongs to an application that lives. (An application that only calls
//! out, and calls nobody at this moment, is not seen.)

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use nix::unistd::geteuid;

const TABLES: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// `TCP_LISTEN`, as the table has it.
const LISTEN: &str = "0A";

/// Waits until nobody else is there. No limit: whoever told us to end kills us when that takes too long.
pub(super) async fn leave() {
    let user = geteuid().as_raw();
    let mut told = false;
    while are_there(user) {
        if !told {
            tracing::info!("the application is still there: the proxy stays until it has ended");
            told = true;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn are_there(user: u32) -> bool {
    TABLES.iter().filter_map(|path| fs::read_to_string(path).ok()).any(|table| has_others(&table, user))
}

/// Whether a socket of another user stands in the table.
fn has_others(table: &str, user: u32) -> bool {
    table.lines().skip(1).filter_map(Socket::read).any(|socket| socket.is_of_others(user))
}

/// A line of the table.
struct Socket {
    listens: bool,
    local: IpAddr,
    remote: IpAddr,
    user: u32,
    /// 0 where no process holds it any more.
    inode: u64,
}

impl Socket {
    fn read(line: &str) -> Option<Self> {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let &[_, local, remote, state, _, _, _, user, _, inode, ..] = columns.as_slice() else { return None };
        Some(Self {
            listens: state == LISTEN,
            local: address(local)?,
            remote: address(remote)?,
            user: user.parse().ok()?,
            inode: inode.parse().ok()?,
        })
    }

    fn is_of_others(&self, user: u32) -> bool {
        let place = if self.listens { self.local } else { self.remote };
        self.user != user && self.inode != 0 && !place.is_loopback()
    }
}

/// An address as the kernel prints it: 32-bit words of the machine's byte order in hexadecimal, a colon, the port.
fn address(text: &str) -> Option<IpAddr> {
    let (words, _) = text.split_once(':')?;
    let word = |at: usize| Some(u32::from_str_radix(words.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match words.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let bytes = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn only_sockets_of_others_that_face_others_count() {
        let heading =
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
        let table = [
            ("0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 77 1", true),
            ("0: 00000000:3A9E 00000000:0000 0A 00000000:00000000 00:00000000 00000000 14001 0 78 1", false),
            ("0: 0100007F:1FF8 00000000:0000 0A 00000000:00000000 00:00000000 00000000   100 0 79 1", false),
            ("0: 0100090A:C001 0200090A:0050 01 00000000:00000000 00:00000000 00000000  1000 0 80 1", true),
            ("0: 0100007F:C001 0100007F:1FF8 01 00000000:00000000 00:00000000 00000000  1000 0 81 1", false),
            ("0: 0100090A:C001 0200090A:0050 06 00000000:00000000 03:00001770 00000000     0 0 0 3", false),
            (
                "0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0 1000 0 82 1",
                true,
            ),
            (
                "0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0 1000 0 83 1",
                false,
            ),
            ("nonsense", false),
        ];
        for (line, expected) in table {
            assert_eq!(has_others(&format!("{heading}{line}\n"), 14001), expected, "{line}");
        }
    }

    #[test]
    fn the_kernels_table_is_read() {
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let user = geteuid().as_raw();
        // As somebody else sees us.
        assert!(are_there(user.wrapping_add(1)));
        drop(listener);
    }
}
