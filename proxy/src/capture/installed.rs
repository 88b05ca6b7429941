//! The rules in force, read back from the kernel's interface that has them.

use super::expression::Gist;
use super::rules::{Exempt, LOOPBACK, Rules};
use super::{Backend, kernel, legacy};

/// Our rules as the kernel has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed(Found);

/// By the interface they were read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Nftables(kernel::Table),
    IptablesLegacy(legacy::Tables),
}

impl From<Found> for Installed {
    fn from(found: Found) -> Self {
        Self(found)
    }
}

impl Installed {
    /// Whether these are exactly the rules that [`install`](super::install) makes.
    pub fn is(&self, rules: &Rules) -> bool {
        match &self.0 {
            Found::Nftables(table) => *table == kernel::Table::expected(rules),
            Found::IptablesLegacy(tables) => tables.are(rules),
        }
    }

    /// The wishes these rules fulfil, their lists sorted; nothing when somebody else changed the rules.
    pub fn rules(&self) -> Option<Rules> {
        let rules = presumed(&self.gists("outbound")?, &self.gists("inbound")?)?;
        self.is(&rules).then_some(rules)
    }

    /// The ports that connections are redirected to, by any chain.
    pub fn redirects(&self) -> Vec<u16> {
        let chains = ["outbound", "inbound"].map(|name| self.gists(name).unwrap_or_default());
        let mut ports: Vec<_> = chains.iter().flatten().filter_map(|rule| rule.redirect).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// What the kernel holds them in.
    pub fn backend(&self) -> Backend {
        match &self.0 {
            Found::Nftables(_) => Backend::Nftables,
            Found::IptablesLegacy(_) => Backend::IptablesLegacy,
        }
    }

    /// The number of rules in all chains.
    pub fn len(&self) -> usize {
        match &self.0 {
            Found::Nftables(table) => table.len(),
            Found::IptablesLegacy(tables) => tables.len(),
        }
    }

    /// Whether there are chains of ours without rules.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn gists(&self, chain: &str) -> Option<Vec<Gist>> {
        match &self.0 {
            Found::Nftables(table) => table.gists(chain),
            Found::IptablesLegacy(tables) => Some(tables.gists(chain)),
        }
    }
}

/// The wishes these chains seem to fulfil, if they are ours.
fn presumed(outbound: &[Gist], inbound: &[Gist]) -> Option<Rules> {
    let own = outbound.iter().find(|rule| rule.over_loopback && rule.redirect.is_some())?;
    let exempt = own.uid.map(Exempt::Uid).or(own.mark.map(Exempt::Mark))?;
    let inbound_port = own.redirect?;
    let outbound: Vec<_> = outbound.iter().filter(|rule| !rule.over_loopback).collect();
    // Included networks of which none is left would read as "all": such a table has no redirect and is not ours.
    let outbound_port = outbound.iter().find_map(|rule| rule.redirect)?;
    let (taken, left): (Vec<_>, Vec<_>) = outbound.into_iter().partition(|rule| rule.redirect.is_some());
    Some(Rules {
        outbound_port,
        inbound_port,
        exempt,
        exclude_uids: left.iter().filter_map(|rule| rule.uid).filter(|uid| Exempt::Uid(*uid) != exempt).collect(),
        exclude_outbound_ports: left.iter().filter_map(|rule| rule.port).collect(),
        exclude_inbound_ports: inbound
            .iter()
            .filter_map(|rule| rule.port)
            .filter(|port| ![outbound_port, inbound_port].contains(port))
            .collect(),
        exclude_cidrs: left
            .iter()
            .filter_map(|rule| rule.destination)
            .filter(|network| !LOOPBACK.contains(network))
            .collect(),
        include_cidrs: taken.iter().filter_map(|rule| rule.destination).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> Vec<Rules> {
        let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        let rich = Rules {
            outbound_port: 1,
            inbound_port: 65535,
            exempt: Exempt::Mark(0xdead_beef),
            exclude_uids: vec![0, 33],
            exclude_outbound_ports: vec![22, 443],
            exclude_inbound_ports: vec![9000, 15020],
            exclude_cidrs: networks(&["10.0.0.0/8", "192.0.2.7", "fd00::/9"]),
            include_cidrs: networks(&["0.0.0.0/0", "fd57::/16"]),
        };
        let of = |texts: &[&str]| Rules { include_cidrs: networks(texts), ..Rules::default() };
        let without = Rules { exclude_cidrs: networks(&["::/0"]), ..Rules::default() };
        vec![Rules::default(), rich, of(&["10.96.0.0/16"]), of(&["0.0.0.0/0"]), of(&["fd57::/16"]), without]
    }

    #[test]
    fn the_wishes_are_read_back_from_the_rules() {
        for rules in examples() {
            let both = [
                Found::Nftables(kernel::Table::expected(&rules)),
                Found::IptablesLegacy(legacy::Tables::expected(&rules, true)),
            ]
            .map(Installed::from);
            for installed in both {
                assert!(installed.is(&rules), "{installed:?}");
                assert_eq!(installed.rules(), Some(rules.clone()), "{installed:?}");
            }
        }
    }
}
