//! The rules in the syntax of `nft`, for people to read and to load by hand.

use std::fmt::Write as _;

use super::TABLE;
use super::rules::Cidr;
use super::ruleset::{Chain, Condition, Hook, PRIORITY, Rule, Ruleset, Verdict};

/// A file for `nft -f` that does what [`install`](super::install) does: replaces our table in one transaction.
pub(super) fn table(ruleset: &Ruleset) -> String {
    let mut text = format!("add table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n");
    for (position, each) in ruleset.chains.iter().enumerate() {
        if position > 0 {
            text.push('\n');
        }
        chain(each, &mut text);
    }
    text.push_str("}\n");
    text
}

fn chain(chain: &Chain, text: &mut String) {
    let hook = match chain.hook {
        Hook::Prerouting => "prerouting",
        Hook::Output => "output",
    };
    // Writing to a String cannot fail; the results are dropped for that reason, here and below.
    let _ = writeln!(text, "\tchain {} {{", chain.name);
    let _ = writeln!(text, "\t\ttype nat hook {hook} priority {PRIORITY}; policy accept;");
    for each in &chain.rules {
        let _ = writeln!(text, "\t\t{} comment \"{}\"", rule(each), each.comment);
    }
    text.push_str("\t}\n");
}

/// One rule without its comment.
pub(super) fn rule(rule: &Rule) -> String {
    let mut words: Vec<String> = rule.conditions.iter().map(condition).collect();
    words.push(match rule.verdict {
        Verdict::Leave => "return".to_owned(),
        Verdict::Redirect(port) => format!("redirect to :{port}"),
    });
    words.join(" ")
}

fn condition(condition: &Condition) -> String {
    match condition {
        Condition::NotTcp => "meta l4proto != tcp".to_owned(),
        Condition::NotOpening => "tcp flags & (fin | syn | rst | ack) != syn".to_owned(),
        Condition::Tcp => "meta l4proto tcp".to_owned(),
        Condition::OverLoopback => "oifname \"lo\"".to_owned(),
        Condition::Destination(network) => address("daddr", *network),
        Condition::Source(network) => address("saddr", *network),
        Condition::Port(port) => format!("tcp dport {port}"),
        Condition::Uid(uid) => format!("meta skuid {uid}"),
        Condition::Mark(mark) => format!("meta mark {mark:#010x}"),
    }
}

fn address(which: &str, network: Cidr) -> String {
    match (network.address().is_ipv4(), network.prefix()) {
        (true, 0) => "meta nfproto ipv4".to_owned(),
        (false, 0) => "meta nfproto ipv6".to_owned(),
        (true, _) => format!("ip {which} {network}"),
        (false, _) => format!("ip6 {which} {network}"),
    }
}
