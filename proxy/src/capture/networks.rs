//! A list of networks, as a setting.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::rules::{Cidr, CidrError};

/// Networks, or none.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Networks(Vec<Cidr>);

impl Networks {
    /// Whether the address lies in one of them; an IPv4 address inside an IPv6 one counts as what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }
}

impl FromStr for Networks {
    type Err = CidrError;

    /// Separated by commas; `none` for an empty list, which a variable can say in no other way.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" {
            return Ok(Self::default());
        }
        text.split(',').map(|network| network.trim().parse()).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_as_they_are_written() {
        for text in ["none", "10.96.0.0/16", "10.96.0.0/16,fd57:0:0:1::/64"] {
            assert_eq!(text.parse::<Networks>().expect(text).to_string(), text);
        }
        for text in ["", "10.96.0.0/33", "10.96.0.0/16,", "orders"] {
            assert!(text.parse::<Networks>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_are_found_in_any_of_them_and_in_either_form() {
        let networks: Networks = "10.96.0.0/16,fd57:0:0:1::/64".parse().expect("valid");
        let table = [
            ("10.96.0.1", true),
            ("10.97.0.1", false),
            ("::ffff:10.96.3.4", true),
            ("fd57:0:0:1::9", true),
            ("fd57::9", false),
            ("127.0.0.1", false),
        ];
        for (address, expected) in table {
            assert_eq!(networks.contains(address.parse().expect(address)), expected, "{address}");
        }
        assert!(!Networks::default().contains([10, 96, 0, 1].into()));
    }
}
