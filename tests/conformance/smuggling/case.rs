//! What a case is: bytes of a client, why they are dangerous, and the one reading of them that is right.

/// A request as a server should have read it: method, target, body.
pub(crate) type Seen = (&'static str, &'static str, &'static str);

/// What happens to the connection after the requests that are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// It stays open: an honest request behind the case's bytes is answered.
    Keeps,
    /// The client or the version asked for its end: what comes behind is nobody's.
    Closes,
    /// What comes next is refused with this status, the connection is closed, and no server sees any of it.
    Refuses(u16),
    /// The head goes on, its body breaks the rules midway: no server may take the request for complete.
    Breaks,
}

/// One case.
///
/// `/attack` and `/canary` in bytes, requests and names are replaced by names of the case's own, of the same length.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// What goes wrong where this is read otherwise.
    pub(crate) why: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) seen: &'static [Seen],
    pub(crate) then: Then,
    /// Texts that must not reach a server.
    pub(crate) never: &'static [&'static str],
}

/// The request that must never be seen as one when it stands in a body or in a field.
pub(crate) const CANARY: &str = "GET /canary HTTP/1.1\r\nHost: h\r\n\r\n";

impl Case {
    fn new(name: &'static str, why: &'static str, bytes: impl Into<Vec<u8>>, then: Then) -> Self {
        Self { name, why, bytes: bytes.into(), seen: &[], then, never: &[] }
    }

    /// Nothing of it may reach a server; the client gets this status and the end of its connection.
    pub(crate) fn refused(status: u16, name: &'static str, why: &'static str, bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(name, why, bytes, Then::Refuses(status))
    }

    /// Read as these requests, and the connection stays usable.
    pub(crate) fn serves(
        seen: &'static [Seen],
        name: &'static str,
        why: &'static str,
        bytes: impl Into<Vec<u8>>,
    ) -> Self {
        Self { seen, ..Self::new(name, why, bytes, Then::Keeps) }
    }

    /// Read as these requests, and then the connection ends.
    pub(crate) fn closes(
        seen: &'static [Seen],
        name: &'static str,
        why: &'static str,
        bytes: impl Into<Vec<u8>>,
    ) -> Self {
        Self { seen, ..Self::new(name, why, bytes, Then::Closes) }
    }

    /// The body breaks the rules after the head has gone on.
    pub(crate) fn breaks(name: &'static str, why: &'static str, bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(name, why, bytes, Then::Breaks)
    }

    /// The first requests are served, the next is refused.
    pub(crate) fn serves_then_refuses(
        seen: &'static [Seen],
        status: u16,
        name: &'static str,
        why: &'static str,
        bytes: impl Into<Vec<u8>>,
    ) -> Self {
        Self { seen, ..Self::new(name, why, bytes, Then::Refuses(status)) }
    }

    pub(crate) fn never(mut self, never: &'static [&'static str]) -> Self {
        self.never = never;
        self
    }
}

/// A case under names of its own: `/attack` is `/aNNNNN`, `/canary` is `/cNNNNN`, the honest request behind it on the
/// same connection `/fNNNNN`, and one on another connection `/vNNNNN`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tag(pub(crate) usize);

impl Tag {
    pub(crate) fn attack(self) -> String {
        format!("/a{:05}", self.0)
    }

    pub(crate) fn canary(self) -> String {
        format!("/c{:05}", self.0)
    }

    pub(crate) fn follow(self) -> String {
        format!("/f{:05}", self.0)
    }

    pub(crate) fn victim(self) -> String {
        format!("/v{:05}", self.0)
    }

    pub(crate) fn text(self, text: &str) -> String {
        text.replace("/attack", &self.attack()).replace("/canary", &self.canary())
    }

    pub(crate) fn bytes(self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for (from, to) in [("/attack", self.attack()), ("/canary", self.canary())] {
            let (from, mut at) = (from.as_bytes(), 0);
            while at + from.len() <= bytes.len() {
                if &bytes[at..at + from.len()] == from {
                    bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
                    at += from.len();
                } else {
                    at += 1;
                }
            }
        }
        bytes
    }
}
