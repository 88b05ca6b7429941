//! Tickets: what makes the second handshake of two proxies cheap, and what keeps them as strict as the first.
//!
//! A ticket (RFC 8446, 4.6.1) carries the session's secret and the certificate of the client it was given to, sealed
//! by the server under a key nobody else has. A resumed handshake still agrees on a fresh key (X25519), but no certificate
//! is sent and no signature made. What protects it:
//!
//! - **Quantum computers**: keys come from both the session's secret and the fresh agreement (RFC 8446, 7.1), so who wants
//!   to read a recording needs both. The secret of a first session comes from X25519MLKEM768; that of a resumed one comes
//!   from the session before it; neither was ever on the wire but sealed with AES-256. So what a resumed connection
//!   carries stays secret from a quantum computer of later years, although ML-KEM is left out of its own agreement.
//!   X25519 gives what agreements are fresh for: who takes a ticket's key or a session's secret from memory cannot read
//!   what was recorded before. Only somebody with both, the memory of then and the quantum computer of later, could: what
//!   he needs dies with the credentials, and rustls keeps a key that seals tickets for twelve hours at most.
//! - **No full handshake with X25519 alone**: a client with a ticket offers a share of X25519, and the server has chosen
//!   the group by the time it finds that it cannot read the ticket. Both ends refuse what comes of that, before a byte of
//!   anybody is carried ([`TlsError::NotPostQuantum`](super::TlsError)). The client forgets all tickets of the endpoint and
//!   begins anew with X25519MLKEM768, on another connection: the price of a peer's new certificate, paid once an endpoint.
//! - **Generation**: the key is made with the [`Credentials`](super::Credentials) and dies with them. A new certificate
//!   or bundle makes every earlier ticket unreadable, on the server; on the client the tickets are thrown away.
//! - **Verification**: a resumed connection is verified like a full one, with the certificate from the session: chain to
//!   the bundle, its time, trust domain, and on the client that the cluster still expects this identity. The same
//!   functions judge both kinds, in [`super::accept`] and [`super::connect`].
//! - **Age**: a ticket is good for one hour, and not longer than the certificate of the server that gave it. Its end is
//!   sealed into it: rustls's own rotation of keys is coarser.
//! - **Theft**: a ticket alone is worth nothing: to use it, the binder needs the session's secret (RFC 8446, 4.2.11.2),
//!   which never leaves the two ends. Who has both is the holder of the first session; whoever presents it, the identity
//!   of the connection is the one in the ticket, never the presenter's. So another workload that shows a copied ticket is
//!   refused (the binder is wrong), and cannot become its owner.
//! - **Early data** is off: nothing can be replayed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::Error;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;
use rustls::time_provider::TimeProvider;

/// Longest life of a ticket. An hour of an idle pool is forgotten; what is copied from memory is soon worthless.
pub(super) const LIFETIME: Duration = Duration::from_hours(1);

/// Seals tickets of one generation.
#[derive(Debug)]
pub(super) struct Tickets {
    seal: Arc<dyn ProducesTickets>,
    time: Arc<dyn TimeProvider>,
    /// End of our own certificate, in seconds since the Unix epoch.
    not_after: u64,
}

impl Tickets {
    pub(super) fn new(expires_at: SystemTime, time: Arc<dyn TimeProvider>) -> Result<Self, Error> {
        let not_after = expires_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(Self { seal: Ticketer::new()?, time, not_after })
    }

    /// Now, and the end of a ticket made now.
    fn period(&self) -> Option<(u64, u64)> {
        let now = self.time.current_time()?.as_secs();
        Some((now, now.saturating_add(LIFETIME.as_secs()).min(self.not_after)))
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.period().map_or(0, |(now, end)| end.saturating_sub(now) as u32)
    }

    /// `None`, and so no ticket, when our own certificate is over.
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let (now, end) = self.period()?;
        if end <= now {
            return None;
        }
        let mut ticket = Vec::with_capacity(plain.len() + 8);
        ticket.extend(end.to_be_bytes());
        ticket.extend(plain);
        self.seal.encrypt(&ticket)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let mut ticket = self.seal.decrypt(cipher)?;
        let end = u64::from_be_bytes(*ticket.first_chunk()?);
        let (now, latest) = self.period()?;
        // One that ends later than any made now comes from a clock that has been set back since.
        if end <= now || end > latest {
            return None;
        }
        ticket.drain(..8);
        Some(ticket)
    }
}
