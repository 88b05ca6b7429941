//! What is to be captured: the choices a user makes.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::CaptureError;

/// More entries of one list than this are refused: each is a rule that the kernel tries in turn for every new connection.
const LIST_LIMIT: usize = 1024;

/// How the proxy's own traffic is told from the workload's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exempt {
    /// Sockets opened by this user id, as seen from the user namespace that owns the network namespace.
    Uid(u32),
    /// Sockets with this mark (`SO_MARK`), for when the proxy and the workload run as the same user.
    Mark(u32),
}

/// What is captured, and where it goes.
///
/// Always left alone: everything but TCP, loopback destinations (127.0.0.0/8, `::1`), a process that calls its own
/// machine's address over the loopback interface, and connections straight to the proxy's two ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rules {
    /// Where connections of local processes go: the proxy's outbound listener on 127.0.0.1 and `::1`.
    pub outbound_port: u16,
    /// Where connections from elsewhere go: the proxy's inbound listener on every address.
    pub inbound_port: u16,
    /// The proxy's own traffic. When it leaves over the loopback interface to an address other than loopback, the
    /// workload is calling its own service and the proxy picked this very workload: that goes to the inbound port. From a
    /// loopback address to such an one it goes its own way: so the proxy reaches an application that listens there alone.
    pub exempt: Exempt,
    /// Other users whose outbound connections are left alone.
    pub exclude_uids: Vec<u32>,
    /// Destination ports of outbound connections that are left alone.
    pub exclude_outbound_ports: Vec<u16>,
    /// Local ports whose inbound connections are left alone.
    pub exclude_inbound_ports: Vec<u16>,
    /// Destinations of outbound connections that are left alone.
    pub exclude_cidrs: Vec<Cidr>,
    /// When not empty, only these destinations are captured outbound (of both families together: with IPv4 networks
    /// alone, no IPv6 is captured).
    pub include_cidrs: Vec<Cidr>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            outbound_port: 15001,
            inbound_port: 15006,
            exempt: Exempt::Uid(14001),
            exclude_uids: Vec::new(),
            exclude_outbound_ports: Vec::new(),
            exclude_inbound_ports: Vec::new(),
            exclude_cidrs: Vec::new(),
            include_cidrs: Vec::new(),
        }
    }
}

impl Rules {
    /// Refuses what cannot work, naming the field.
    pub fn validate(&self) -> Result<(), CaptureError> {
        let ports: [(&'static str, &[u16]); 4] = [
            ("outbound_port", &[self.outbound_port]),
            ("inbound_port", &[self.inbound_port]),
            ("exclude_outbound_ports", &self.exclude_outbound_ports),
            ("exclude_inbound_ports", &self.exclude_inbound_ports),
        ];
        for (field, values) in ports {
            if values.contains(&0) {
                return invalid(field, "0", "a port is between 1 and 65535");
            }
        }
        if self.outbound_port == self.inbound_port {
            return invalid("inbound_port", self.inbound_port.to_string(), "must differ from the outbound port");
        }
        if self.exempt == Exempt::Mark(0) {
            return invalid("exempt mark", "0", "every socket without a mark has mark 0; take another");
        }
        let lists = [
            ("exclude_uids", self.exclude_uids.len()),
            ("exclude_outbound_ports", self.exclude_outbound_ports.len()),
            ("exclude_inbound_ports", self.exclude_inbound_ports.len()),
            ("exclude_cidrs", self.exclude_cidrs.len()),
            ("include_cidrs", self.include_cidrs.len()),
        ];
        for (field, length) in lists {
            if length > LIST_LIMIT {
                return invalid(field, format!("with {length} entries"), "at most 1024 entries; merge some");
            }
        }
        Ok(())
    }

    /// Whether outbound connections to this address and port are captured (for a process that is not exempt).
    pub(super) fn captures(&self, address: IpAddr, port: u16) -> bool {
        let in_any = |networks: &[Cidr]| networks.iter().any(|network| network.contains(address));
        !address.is_loopback()
            && !self.exclude_outbound_ports.contains(&port)
            && !in_any(&self.exclude_cidrs)
            && (self.include_cidrs.is_empty() || in_any(&self.include_cidrs))
    }
}

fn invalid<T>(field: &'static str, value: impl Into<String>, problem: &'static str) -> Result<T, CaptureError> {
    Err(CaptureError::Invalid { field, value: value.into(), problem })
}

/// The entries of a list once each, in order: the same wishes always make the same rules.
pub(super) fn distinct<T: Ord + Copy>(list: &[T]) -> BTreeSet<T> {
    list.iter().copied().collect()
}

/// A network: an address and the number of its leading bits that count. The other bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// What a host calls itself by.
pub(super) const LOOPBACK: [Cidr; 2] = [
    Cidr { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix: 8 },
    Cidr { address: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 },
];

impl Cidr {
    /// The network of `address` with `prefix` leading bits.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, CidrError> {
        let widest = if address.is_ipv4() { 32 } else { 128 };
        if prefix > widest {
            return Err(CidrError { text: format!("{address}/{prefix}") });
        }
        Ok(Self { address: truncated(address, prefix), prefix })
    }

    /// The first address.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// The number of leading bits that count.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether the address lies in this network.
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && truncated(address, self.prefix) == self.address
    }
}

/// The address with all but its first `prefix` bits zero.
fn truncated(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no network: give an address and at most its number of bits, such as 10.0.0.0/8, fd00::/8 or 192.0.2.7"
)]
pub struct CidrError {
    text: String,
}

impl FromStr for Cidr {
    type Err = CidrError;

    /// `ADDRESS/PREFIX`, or an address alone for that one host.
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let refused = || CidrError { text: text.to_owned() };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| refused())?;
        let widest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(widest), str::parse).map_err(|_| refused())?;
        Self::new(address, prefix).map_err(|_| refused())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_read_with_its_host_bits_cleared() {
        for (text, network) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fd57::2/16", "fd57::/16"),
            ("::1", "::1/128"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), network);
        }
    }

    #[test]
    fn what_is_no_network_is_refused_by_name() {
        for text in ["", "10.0.0.0/33", "10.0.0.0/", "::/129", "10.0.0/8", "10.0.0.0/-1", "example.org"] {
            assert!(text.parse::<Cidr>().unwrap_err().to_string().starts_with(&format!("`{text}`")), "{text}");
        }
    }

    #[test]
    fn a_network_contains_its_own_family_only() {
        let network: Cidr = "10.0.0.0/9".parse().unwrap();
        for (address, inside) in [("10.127.255.255", true), ("10.128.0.0", false), ("::ffff:10.0.0.1", false)] {
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{address}");
        }
    }

    #[test]
    fn rules_that_cannot_work_are_refused_by_field() {
        let good = Rules::default();
        assert!(good.validate().is_ok());
        for (field, rules) in [
            ("outbound_port", Rules { outbound_port: 0, ..good.clone() }),
            ("inbound_port", Rules { inbound_port: 15001, ..good.clone() }),
            ("exclude_inbound_ports", Rules { exclude_inbound_ports: vec![22, 0], ..good.clone() }),
            ("exempt mark", Rules { exempt: Exempt::Mark(0), ..good.clone() }),
            ("exclude_uids", Rules { exclude_uids: vec![1; LIST_LIMIT + 1], ..good.clone() }),
        ] {
            let error = rules.validate().unwrap_err().to_string();
            assert!(error.starts_with(&format!("invalid capture rules: {field} ")), "{error}");
        }
    }
}
