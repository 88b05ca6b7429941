//! What is believed of a port whose protocol nobody declared, and how what is seen there changes it.
//!
//! A belief saves time and never decides against the bytes of a connection, so that a wrong one costs little; what it
//! may cost stands where it is used. It changes by these rules:
//!
//! - The first thing seen is believed.
//! - A server that speaks before its client is believed at once: no client can feign it.
//! - What a client sends says what that client took the port for: a stray probe must not turn the port. It takes
//!   [`ENOUGH`] connections in a row against a belief to replace it.
//! - What the control plane says is believed until something else was seen here, by the same rules.

use std::fmt;

/// Connections in a row that contradict a belief before it is given up: 3.
const ENOUGH: u8 = 3;

/// What a port turned out to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The server speaks first: mail, SSH, many databases.
    ServerFirst,
    /// The client speaks first, and no protocol the proxy knows.
    ClientFirst,
    /// TLS of the application's own.
    Tls,
    Http1,
    Http2,
}

impl Verdict {
    pub const ALL: [Self; 5] = [Self::ServerFirst, Self::ClientFirst, Self::Tls, Self::Http1, Self::Http2];

    /// What metrics, reports and hints call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ServerFirst => "server_first",
            Self::ClientFirst => "client_first",
            Self::Tls => "tls",
            Self::Http1 => "http1",
            Self::Http2 => "http2",
        }
    }

    /// The verdict of a name; `None` for one that a newer version may know.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.name() == name)
    }

    /// Whether connections carry requests.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http1 | Self::Http2)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is believed of one port. One byte holds it, so that it can stand in an atomic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Belief {
    verdict: Option<Verdict>,
    /// Seen here rather than heard from the control plane.
    is_seen: bool,
    /// Connections in a row that contradicted it.
    doubts: u8,
}

impl Belief {
    pub fn verdict(self) -> Option<Verdict> {
        self.verdict
    }

    /// The verdict, when it was seen here.
    pub fn seen(self) -> Option<Verdict> {
        self.verdict.filter(|_| self.is_seen)
    }

    /// After a connection that turned out to be `now`.
    #[must_use]
    pub fn after(self, now: Verdict) -> Self {
        let new = Self { verdict: Some(now), is_seen: true, doubts: 0 };
        let is_against = self.verdict.is_some_and(|before| before != now);
        if !is_against || now == Verdict::ServerFirst || self.doubts + 1 >= ENOUGH {
            return new;
        }
        Self { doubts: self.doubts + 1, ..self }
    }

    /// After the control plane said `hint`. A hint taken back says nothing.
    #[must_use]
    pub fn told(self, hint: Option<Verdict>) -> Self {
        match hint {
            Some(hint) if !self.is_seen && self.verdict != Some(hint) => {
                Self { verdict: Some(hint), ..Self::default() }
            }
            _ => self,
        }
    }

    /// As one byte.
    pub fn to_bits(self) -> u8 {
        let verdict = self.verdict.map_or(0, |verdict| verdict as u8 + 1);
        verdict | u8::from(self.is_seen) << 3 | self.doubts << 4
    }

    /// From the byte of [`to_bits`](Self::to_bits).
    pub fn from_bits(bits: u8) -> Self {
        let verdict = (bits & 7).checked_sub(1).and_then(|index| Verdict::ALL.get(usize::from(index))).copied();
        Self { verdict, is_seen: bits & 8 != 0, doubts: bits >> 4 }
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict::{ClientFirst, Http1, Http2, ServerFirst, Tls};
    use super::*;

    /// What is believed after a hint and what was seen, and whether it was seen here.
    fn believed(hint: Option<Verdict>, seen: &[Verdict]) -> (Option<Verdict>, bool) {
        let belief = seen.iter().fold(Belief::default().told(hint), |belief, now| {
            let belief = belief.after(*now);
            assert_eq!(Belief::from_bits(belief.to_bits()), belief, "one byte holds it");
            belief
        });
        (belief.verdict(), belief.seen().is_some())
    }

    #[test]
    fn what_is_seen_changes_what_is_believed_by_its_weight() {
        type Row<'a> = (Option<Verdict>, &'a [Verdict], Option<Verdict>, bool);
        let table: &[Row<'_>] = &[
            (None, &[], None, false),
            (None, &[Http1], Some(Http1), true),
            (None, &[Tls, Tls], Some(Tls), true),
            // A stray client turns nothing, three in a row do.
            (None, &[Http1, ClientFirst, ClientFirst], Some(Http1), true),
            (None, &[Http1, ClientFirst, ClientFirst, ClientFirst], Some(ClientFirst), true),
            (None, &[Http1, ClientFirst, ClientFirst, Http1, ClientFirst, ClientFirst], Some(Http1), true),
            (None, &[ClientFirst, Http1, Http2, Http1], Some(Http1), true),
            // A server is believed at once, and outweighs clients that ask the wrong thing of it.
            (None, &[Http1, ServerFirst], Some(ServerFirst), true),
            (None, &[ServerFirst, Http1, Http1, ServerFirst, Http1, Http1], Some(ServerFirst), true),
            (None, &[ServerFirst, Http1, Http1, Http1], Some(Http1), true),
            // A hint is believed, confirmed, and given up like any belief.
            (Some(Http1), &[], Some(Http1), false),
            (Some(Http1), &[Http1], Some(Http1), true),
            (Some(Http1), &[Tls, Tls], Some(Http1), false),
            (Some(Http1), &[Tls, Tls, Tls], Some(Tls), true),
            (Some(Http1), &[ServerFirst], Some(ServerFirst), true),
        ];
        for (hint, seen, verdict, is_seen) in table {
            assert_eq!(believed(*hint, seen), (*verdict, *is_seen), "told {hint:?}, saw {seen:?}");
        }
    }

    #[test]
    fn a_hint_counts_until_something_was_seen() {
        let told = Belief::default().told(Some(Http1));
        assert_eq!(told.told(Some(Tls)).verdict(), Some(Tls));
        assert_eq!(told.told(None).verdict(), Some(Http1), "taken back, it says nothing");
        assert_eq!(told.after(Tls).told(Some(Http1)), told.after(Tls), "said again, it takes no doubt away");
        assert_eq!(told.after(Http1).told(Some(Tls)).verdict(), Some(Http1));
    }

    #[test]
    fn names_lead_back_to_their_verdicts() {
        for verdict in Verdict::ALL {
            assert_eq!(Verdict::of_name(verdict.name()), Some(verdict));
        }
        assert_eq!(Verdict::of_name("quic"), None);
    }
}
