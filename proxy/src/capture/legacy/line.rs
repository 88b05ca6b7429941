//! One rule as `iptables-save` writes it, and read back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::expression::Gist;
use super::super::rules::Cidr;
use super::super::ruleset::{Condition, Rule, Verdict};

/// A family of addresses, whose nat table is apart from the other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// Where the kernel names the tables that a namespace has.
    pub(super) fn tables(self) -> &'static str {
        match self {
            Self::V4 => "/proc/thread-self/net/ip_tables_names",
            Self::V6 => "/proc/thread-self/net/ip6_tables_names",
        }
    }

    /// All its addresses.
    pub(super) fn whole(self) -> Cidr {
        let address = match self {
            Self::V4 => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        Cidr::new(address, 0).expect("no prefix is shorter than any")
    }

    fn has(self, network: Cidr) -> bool {
        network.address().is_ipv4() == (self == Self::V4)
    }
}

/// A chain of ours, and the kernel's chain that leads to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    pub(super) ours: &'static str,
    hook: &'static str,
}

/// In the order of a `Ruleset`.
pub(super) const CHAINS: [Names; 2] =
    [Names { ours: "WEFT_OUTBOUND", hook: "OUTPUT" }, Names { ours: "WEFT_INBOUND", hook: "PREROUTING" }];

/// Which of our chains this is.
pub(super) fn position(name: &str) -> Option<usize> {
    CHAINS.iter().position(|names| names.ours == name)
}

/// The rule that leads to a chain of ours: TCP alone, so that nothing else ever sees it.
pub(super) fn jump(names: Names) -> String {
    format!("-A {} -p tcp -j {}", names.hook, names.ours)
}

/// Whether a rule hands on to one of ours. A comment may say so too; its words stand in quotes, and the target comes last.
pub(super) fn jumps_to_ours(rule: &str) -> bool {
    let mut words = rule.trim_end().rsplit(' ');
    let target = words.next().unwrap_or_default();
    position(target).is_some() && matches!(words.next(), Some("-j" | "-g"))
}

/// The rule in this family's table; `None` where it is of no use there.
pub(super) fn rule(rule: &Rule, chain: &str, family: Family) -> Option<String> {
    let mut addresses = String::new();
    let (mut interface, mut protocol, mut matches) = ("", "", String::new());
    for condition in &rule.conditions {
        match *condition {
            // Nothing else comes here.
            Condition::NotTcp => return None,
            Condition::Tcp => protocol = " -p tcp",
            Condition::NotOpening => {
                protocol = " -p tcp";
                matches.push_str(" -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN");
            }
            Condition::Port(port) => {
                protocol = " -p tcp";
                matches.push_str(&format!(" -m tcp --dport {port}"));
            }
            Condition::OverLoopback => interface = " -o lo",
            Condition::Destination(network) | Condition::Source(network) if !family.has(network) => return None,
            Condition::Destination(network) | Condition::Source(network) if network.prefix() == 0 => {}
            Condition::Destination(network) => addresses.push_str(&format!(" -d {network}")),
            Condition::Source(network) => addresses.push_str(&format!(" -s {network}")),
            Condition::Uid(uid) => matches.push_str(&format!(" -m owner --uid-owner {uid}")),
            Condition::Mark(mark) => matches.push_str(&format!(" -m mark --mark {mark:#x}")),
        }
    }
    let target = match rule.verdict {
        Verdict::Leave => "RETURN".to_owned(),
        Verdict::Redirect(port) => format!("REDIRECT --to-ports {port}"),
    };
    Some(format!("-A {chain}{addresses}{interface}{protocol}{matches} -j {target}"))
}

/// Reads what a rule is about. Its meaning is certain only once the rules made from it turn out the same.
pub(super) fn gist(line: &str, family: Family) -> Gist {
    let words: Vec<&str> = line.split(' ').collect();
    let after = |option: &str| words.windows(2).find(|pair| pair[0] == option).map(|pair| pair[1]);
    let mut gist = Gist {
        over_loopback: after("-o") == Some("lo"),
        uid: after("--uid-owner").and_then(|uid| uid.parse().ok()),
        mark: after("--mark").and_then(|mark| u32::from_str_radix(mark.strip_prefix("0x")?, 16).ok()),
        port: after("--dport").and_then(|port| port.parse().ok()),
        destination: after("-d").and_then(|network| network.parse().ok()),
        redirect: after("--to-ports").and_then(|port| port.parse().ok()),
    };
    // Without any condition: everything of this family is left alone.
    if line.ends_with("-j RETURN") && words.len() == 4 {
        gist.destination = Some(family.whole());
    }
    gist
}

#[cfg(test)]
mod tests {
    use super::super::super::rules::{Exempt, Rules};
    use super::super::super::ruleset::Ruleset;
    use super::*;

    #[test]
    fn rules_stand_as_iptables_save_writes_them() {
        let rules = Rules {
            exempt: Exempt::Mark(0x5ef7),
            exclude_uids: vec![33],
            exclude_outbound_ports: vec![22],
            exclude_inbound_ports: vec![15020],
            exclude_cidrs: vec!["192.0.2.7".parse().unwrap(), "fd00::/9".parse().unwrap()],
            ..Rules::default()
        };
        let [outbound, inbound] = Ruleset::of(&rules).chains;
        let lines = |chain: &super::super::super::ruleset::Chain, name, family| {
            chain.rules.iter().filter_map(|each| rule(each, name, family)).collect::<Vec<_>>()
        };
        let v4 = [
            "-A WEFT_OUTBOUND -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j RETURN",
            "-A WEFT_OUTBOUND -d 127.0.0.0/8 -j RETURN",
            "-A WEFT_OUTBOUND -s 127.0.0.0/8 -o lo -j RETURN",
            "-A WEFT_OUTBOUND -o lo -p tcp -m tcp --dport 15001 -j RETURN",
            "-A WEFT_OUTBOUND -o lo -p tcp -m tcp --dport 15006 -j RETURN",
            "-A WEFT_OUTBOUND -o lo -p tcp -m tcp --dport 15020 -j RETURN",
            "-A WEFT_OUTBOUND -o lo -p tcp -m mark --mark 0x5ef7 -j REDIRECT --to-ports 15006",
            "-A WEFT_OUTBOUND -o lo -j RETURN",
            "-A WEFT_OUTBOUND -m mark --mark 0x5ef7 -j RETURN",
            "-A WEFT_OUTBOUND -m owner --uid-owner 33 -j RETURN",
            "-A WEFT_OUTBOUND -p tcp -m tcp --dport 22 -j RETURN",
            "-A WEFT_OUTBOUND -d 192.0.2.7/32 -j RETURN",
            "-A WEFT_OUTBOUND -p tcp -j REDIRECT --to-ports 15001",
        ];
        assert_eq!(lines(&outbound, "WEFT_OUTBOUND", Family::V4), v4);
        let v6 = lines(&outbound, "WEFT_OUTBOUND", Family::V6);
        assert!(v6.contains(&"-A WEFT_OUTBOUND -s ::1/128 -o lo -j RETURN".to_owned()), "{v6:?}");
        assert!(v6.contains(&"-A WEFT_OUTBOUND -d fd00::/9 -j RETURN".to_owned()), "{v6:?}");
        let last = lines(&inbound, "WEFT_INBOUND", Family::V4).pop();
        assert_eq!(last.as_deref(), Some("-A WEFT_INBOUND -p tcp -j REDIRECT --to-ports 15006"));
    }
}
