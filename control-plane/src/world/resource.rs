//! One resource: a name, its encoded message, and a version that is the content's own.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use weft_proto::names;

use super::canonical::canonical;

/// The types of resources we serve, in the order they are pushed: whatever names something follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Cluster,
    Endpoints,
    Listener,
    Route,
    /// Who is behind an address; see [`names::DESTINATION`].
    Destination,
}

impl Kind {
    /// All kinds in push order.
    pub const ALL: [Self; 5] = [Self::Cluster, Self::Endpoints, Self::Listener, Self::Route, Self::Destination];

    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => names::CLUSTER,
            Self::Endpoints => names::ENDPOINTS,
            Self::Listener => names::LISTENER,
            Self::Route => names::ROUTE,
            Self::Destination => names::DESTINATION,
        }
    }

    pub fn from_type_url(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }

    /// Whether a first request without names asks for everything: so for the two types that start a
    /// configuration, never for those that are asked for by name.
    pub fn has_legacy_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }

    /// Whether all of it can be asked for by `*`. Destinations are as many as the mesh has addresses: a `*` of them is a name
    /// like others, which nobody has.
    pub fn has_wildcard(self) -> bool {
        self != Self::Destination
    }

    /// Whether it is served to clients of the whole state, which would be sent all of it again with each change.
    pub fn is_of_whole_state(self) -> bool {
        self != Self::Destination
    }
}

/// A resource in force. Cloning one counts references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    pub kind: Kind,
    pub type_url: &'static str,
    pub name: Arc<str>,
    /// Hash of the body: equal on all replicas and after a restart, so that nobody is sent what they have.
    pub version: Arc<str>,
    /// The encoded message; one encoding serves every stream.
    pub body: Bytes,
}

impl Resource {
    /// Encodes `message` in canonical form.
    ///
    /// # Panics
    /// When `type_url` is none of the served types: the compiler that calls this names them by constants.
    pub fn new<M: prost::Message + Default>(type_url: &'static str, name: impl Into<Arc<str>>, message: &M) -> Self {
        let kind = Kind::from_type_url(type_url).expect("the compiler renders the served types only");
        let body = canonical(type_url, &message.encode_to_vec());
        // Decoding builds new hash maps, which iterate in another order.
        debug_assert!(
            M::decode(&body[..]).is_ok_and(|again| canonical(type_url, &again.encode_to_vec()) == body),
            "a {type_url} holds a map that world/canonical.rs does not know"
        );
        Self { kind, type_url, name: name.into(), version: content_hash(&body), body: body.into() }
    }

    /// Takes an encoded message and brings it into canonical form.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn encoded(type_url: &'static str, name: impl Into<Arc<str>>, body: &[u8]) -> Self {
        let kind = Kind::from_type_url(type_url).expect("the compiler renders the served types only");
        let body = canonical(type_url, body);
        Self { kind, type_url, name: name.into(), version: content_hash(&body), body: body.into() }
    }

    /// The same content under another name, in the same memory.
    #[must_use]
    pub fn renamed(&self, name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), ..self.clone() }
    }

    /// About what the resource takes in a response.
    pub(crate) fn size(&self) -> usize {
        const FIELD_OVERHEAD: usize = 32;
        self.body.len() + self.name.len() + self.version.len() + self.type_url.len() + FIELD_OVERHEAD
    }
}

/// The first 128 bits of SHA-256 in hexadecimal: changes by chance or on purpose do not collide.
///
/// The hash is taken from the TLS provider, which is linked anyway.
pub(crate) fn content_hash(content: &[u8]) -> Arc<str> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("the suite is one of TLS 1.3 by its name");
    let digest = suite.common.hash_provider.hash(content);
    let mut text = String::with_capacity(32);
    for byte in &digest.as_ref()[..16] {
        write!(text, "{byte:02x}").expect("text in memory takes any write");
    }
    text.into()
}
