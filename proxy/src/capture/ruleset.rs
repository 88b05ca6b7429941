//! The rules the kernel gets: two chains, in the order in which a connection meets them.
//!
//! The order is the meaning: the first rule that matches decides. What leaves the chain without a decision is not redirected.

use super::rules::{Cidr, Exempt, LOOPBACK, Rules, distinct};

/// Our two chains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ruleset {
    pub(super) chains: [Chain; 2],
}

/// A nat chain at one of the kernel's hooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: &'static str,
    pub(super) hook: Hook,
    pub(super) rules: Vec<Rule>,
}

/// Where in a packet's way a chain is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    Prerouting,
    Output,
}

/// What happens to a connection that meets all conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) verdict: Verdict,
    /// Why, shown by `nft list`; at most 100 ASCII characters without quotes.
    pub(super) comment: &'static str,
}

/// One test of a connection's first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// Another protocol than TCP.
    NotTcp,
    /// TCP, but not the packet that opens a connection: it was open before the rules came.
    NotOpening,
    /// TCP.
    Tcp,
    /// Leaves over the loopback interface.
    OverLoopback,
    /// To an address of this network.
    Destination(Cidr),
    /// From an address of this network.
    Source(Cidr),
    /// To this TCP port.
    Port(u16),
    /// From a socket of this user.
    Uid(u32),
    /// From a socket with this mark.
    Mark(u32),
}

/// What a rule decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The connection goes its own way.
    Leave,
    /// The connection goes to this local port.
    Redirect(u16),
}

/// Where a destination NAT chain stands among the others (`dstnat`).
pub(super) const PRIORITY: i32 = -100;

impl Ruleset {
    /// The rules for these wishes. The same wishes in another order make the same rules.
    pub(super) fn of(rules: &Rules) -> Self {
        let outbound = Chain { name: "outbound", hook: Hook::Output, rules: outbound(rules) };
        let inbound = Chain { name: "inbound", hook: Hook::Prerouting, rules: inbound(rules) };
        Self { chains: [outbound, inbound] }
    }
}

fn outbound(rules: &Rules) -> Vec<Rule> {
    use Condition::{Destination, OverLoopback, Port, Source, Tcp, Uid};
    let exempt = match rules.exempt {
        Exempt::Uid(uid) => Uid(uid),
        Exempt::Mark(mark) => Condition::Mark(mark),
    };
    let mut list = opening_only();
    list.extend(LOOPBACK.map(|network| leave([Destination(network)], "loopback destinations")));

    // The way to an own address: the proxy picked its own workload, whose inbound side must see the connection; unless it
    // says by an address of the loopback interface that the application itself is meant.
    list.extend(LOOPBACK.map(|network| leave([OverLoopback, Source(network)], "from a loopback address")));
    for port in inbound_exceptions(rules) {
        list.push(leave([OverLoopback, Port(port)], "own inbound ports that are not captured"));
    }
    list.push(redirect([OverLoopback, exempt, Tcp], rules.inbound_port, "the proxy calls its own workload"));
    list.push(leave([OverLoopback], "the workload calls its own address"));

    list.push(leave([exempt], "the proxy"));
    for uid in distinct(&rules.exclude_uids) {
        list.push(leave([Uid(uid)], "excluded user"));
    }
    for port in distinct(&rules.exclude_outbound_ports) {
        list.push(leave([Port(port)], "excluded port"));
    }
    for network in distinct(&rules.exclude_cidrs) {
        list.push(leave([Destination(network)], "excluded network"));
    }
    if rules.include_cidrs.is_empty() {
        list.push(redirect([Tcp], rules.outbound_port, "all other TCP to the proxy"));
    }
    for network in distinct(&rules.include_cidrs) {
        list.push(redirect([Destination(network), Tcp], rules.outbound_port, "included network to the proxy"));
    }
    list
}

fn inbound(rules: &Rules) -> Vec<Rule> {
    let mut list = opening_only();
    for port in inbound_exceptions(rules) {
        list.push(leave([Condition::Port(port)], "inbound ports that are not captured"));
    }
    list.push(redirect([Condition::Tcp], rules.inbound_port, "all other TCP to the proxy"));
    list
}

/// Packets of a connection that was open before conntrack began to watch look like a new one, except for their flags.
fn opening_only() -> Vec<Rule> {
    vec![leave([Condition::NotTcp], "TCP only"), leave([Condition::NotOpening], "open before these rules")]
}

/// Excluded ports, and the proxy's own: the proxy sees such a connection as it is, and refuses the loop.
fn inbound_exceptions(rules: &Rules) -> impl Iterator<Item = u16> {
    let mut ports = distinct(&rules.exclude_inbound_ports);
    ports.extend([rules.outbound_port, rules.inbound_port]);
    ports.into_iter()
}

fn leave<const N: usize>(conditions: [Condition; N], comment: &'static str) -> Rule {
    Rule { conditions: conditions.to_vec(), verdict: Verdict::Leave, comment }
}

fn redirect<const N: usize>(conditions: [Condition; N], port: u16, comment: &'static str) -> Rule {
    Rule { conditions: conditions.to_vec(), verdict: Verdict::Redirect(port), comment }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_and_repetition_of_wishes_make_no_difference() {
        let network = |text: &str| text.parse::<Cidr>().unwrap();
        let one = Rules {
            exclude_outbound_ports: vec![443, 22, 22],
            exclude_cidrs: vec![network("10.0.0.0/8"), network("fd00::/8")],
            ..Rules::default()
        };
        let other = Rules {
            exclude_outbound_ports: vec![22, 443],
            exclude_cidrs: vec![network("fd00::/8"), network("10.9.9.9/8")],
            ..Rules::default()
        };
        assert_eq!(Ruleset::of(&one), Ruleset::of(&other));
    }

    #[test]
    fn with_included_networks_nothing_else_is_redirected_outbound() {
        let rules = Rules { include_cidrs: vec!["10.96.0.0/16".parse().unwrap()], ..Rules::default() };
        let [outbound, _] = Ruleset::of(&rules).chains;
        let redirects: Vec<_> = outbound
            .rules
            .iter()
            .filter(|rule| rule.verdict == Verdict::Redirect(15001))
            .map(|r| &r.conditions)
            .collect();
        assert_eq!(redirects, [&vec![Condition::Destination("10.96.0.0/16".parse().unwrap()), Condition::Tcp]]);
    }
}
