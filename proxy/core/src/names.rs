//! Interned names and SPIFFE identities. Cloning one is a reference count; two kinds of name never mix.

use std::fmt;
use std::sync::Arc;

/// A name of one kind: interned text that is cloned freely.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }
            pub fn as_str(&self) -> &str {
                &self.0
            }
            /// Another reference to the text.
            pub fn shared(&self) -> Arc<str> {
                Arc::clone(&self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }
        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// Name of a listener resource: `outbound/NAMESPACE/SERVICE:PORT` or `inbound/PORT`.
    ListenerName
}
name! {
    /// Name of a route configuration: `NAMESPACE/SERVICE:PORT`.
    RouteName
}
name! {
    /// Name of a cluster and of its endpoints: `NAMESPACE/SERVICE:PORT` or `inbound/PORT`.
    ClusterName
}
name! {
    /// Name of a destination: `IP:PORT`, or `IP` for whichever port.
    DestinationName
}
name! {
    /// Name of a workload: one running instance, unique in its namespace.
    WorkloadName
}

/// What a service is called in metrics and on screen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceRef {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub port: u16,
}

impl fmt::Display for ServiceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.name, self.port)
    }
}

/// A SPIFFE identity, `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`
/// (SPIFFE-ID specification, section 2; the path follows the service-account convention of the field).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId(Arc<str>);

/// Why a text is not a workload identity.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a workload identity; expected spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT")]
pub struct InvalidSpiffeId(pub String);

impl SpiffeId {
    /// The identity of a service account.
    pub fn workload(trust_domain: &str, namespace: &str, service_account: &str) -> Self {
        Self(format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}").into())
    }

    /// Reads and checks an identity.
    ///
    /// # Errors
    /// When a part is missing, empty, or holds a character outside the SPIFFE set.
    pub fn parse(text: &str) -> Result<Self, InvalidSpiffeId> {
        let invalid = || InvalidSpiffeId(text.to_owned());
        let rest = text.strip_prefix("spiffe://").ok_or_else(invalid)?;
        let mut parts = rest.split('/');
        let domain = parts.next().ok_or_else(invalid)?;
        let segments: Vec<&str> = parts.collect();
        let ["ns", namespace, "sa", account] = segments[..] else {
            return Err(invalid());
        };
        let domain_is_valid = !domain.is_empty()
            && domain.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'));
        let segment_is_valid = |s: &str| {
            !s.is_empty()
                && s != "."
                && s != ".."
                && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        };
        if domain_is_valid && segment_is_valid(namespace) && segment_is_valid(account) {
            Ok(Self(text.into()))
        } else {
            Err(invalid())
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain: what stands between `spiffe://` and the first slash.
    pub fn trust_domain(&self) -> &str {
        self.0["spiffe://".len()..].split('/').next().unwrap_or_default()
    }

    pub fn namespace(&self) -> &str {
        self.0.split('/').nth(4).unwrap_or_default()
    }

    pub fn service_account(&self) -> &str {
        self.0.split('/').nth(6).unwrap_or_default()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_gives_back_its_parts() {
        let id = SpiffeId::workload("shop.local", "default", "orders");
        assert_eq!(SpiffeId::parse(id.as_str()), Ok(id.clone()));
        assert_eq!((id.trust_domain(), id.namespace(), id.service_account()), ("shop.local", "default", "orders"));
    }

    #[test]
    fn a_malformed_identity_is_refused() {
        for text in [
            "",
            "spiffe://",
            "spiffe:///ns/a/sa/b",
            "spiffe://td/ns/a/sa/",
            "spiffe://td/ns//sa/b",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://td/ns/../sa/b",
            "spiffe://TD/ns/a/sa/b",
            "spiffe://td:80/ns/a/sa/b",
            "https://td/ns/a/sa/b",
            "spiffe://td/ns/a/sa/b?x=1",
        ] {
            assert!(SpiffeId::parse(text).is_err(), "{text} was accepted");
        }
    }
}
