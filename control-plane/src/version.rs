//! Versions of Weft, and which of them are meant to work together: docs/versions.md is the promise, the test `skew` holds
//! it against the programs of then.

use std::fmt;

/// This program's.
pub const THIS: &str = env!("CARGO_PKG_VERSION");

/// So many minor versions a proxy may be behind its control plane.
pub const BEHIND: u64 = 2;

/// A version without what is only mended in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minor {
    major: u64,
    minor: u64,
}

impl Minor {
    pub const fn new(major: u64, minor: u64) -> Self {
        Self { major, minor }
    }

    /// Of `MAJOR.MINOR.PATCH`, whatever follows; `None` of anything else.
    pub fn of(version: &str) -> Option<Self> {
        let mut numbers = version.split('.').map(str::parse);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(_)) => Some(Self { major, minor }),
            _ => None,
        }
    }

    /// Whether a control plane of this version serves a proxy of the other one.
    fn serves(self, proxy: Self) -> bool {
        self.major == proxy.major && proxy.minor <= self.minor && self.minor - proxy.minor <= BEHIND
    }
}

impl fmt::Display for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Why a proxy and its control plane are not meant to work together; `None` where they are, or where a version is none of
/// Weft's.
pub fn apart(proxy: &str, control_plane: &str) -> Option<String> {
    let (theirs, ours) = (Minor::of(proxy)?, Minor::of(control_plane)?);
    if ours.serves(theirs) {
        return None;
    }
    Some(if theirs > ours {
        format!("{proxy} is newer than the control plane, {control_plane}: update that first")
    } else {
        format!(
            "{proxy} is more than {BEHIND} minor versions behind the control plane, {control_plane}: restart the workload with a newer proxy"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_plane_serves_proxies_of_its_version_and_of_the_two_minor_ones_before() {
        for (proxy, control_plane, expected) in [
            ("0.2.0", "0.2.0", None),
            ("0.2.9", "0.2.0", None),
            ("0.1.0", "0.2.0", None),
            ("0.0.1", "0.2.0", None),
            ("0.1.0", "0.3.1", None),
            ("0.1.0", "0.4.0", Some("0.1.0 is more than 2 minor versions behind the control plane, 0.4.0")),
            ("0.3.0", "0.2.7", Some("0.3.0 is newer than the control plane, 0.2.7")),
            ("1.0.0", "0.9.0", Some("1.0.0 is newer than the control plane, 0.9.0")),
            ("0.9.0", "1.0.0", Some("0.9.0 is more than 2 minor versions behind the control plane, 1.0.0")),
            ("0.3.0-rc.1", "0.2.0", Some("0.3.0-rc.1 is newer than the control plane, 0.2.0")),
            // Envoy's and nobody's.
            ("", "0.2.0", None),
            ("envoy", "0.2.0", None),
        ] {
            let found = apart(proxy, control_plane);
            let begins = |text: &String| expected.is_some_and(|expected| text.starts_with(expected));
            assert_eq!(found.is_some(), expected.is_some(), "{proxy} at {control_plane}: {found:?}");
            assert!(found.as_ref().is_none_or(begins), "{proxy} at {control_plane}: {found:?}");
        }
    }
}
