//! Our table in the kernel: replaced, removed, and read back.

use super::expression::{Expression, compile, decode, encode, gist};
use super::netlink::{
    APPEND, Answer, Attributes, CREATE, Conversation, DUMP, Dump, Request, attribute, number, text as text_of,
};
use super::rules::{Exempt, LOOPBACK, Rules};
use super::ruleset::{Chain, Hook, PRIORITY, Rule, Ruleset};
use super::{CaptureError, TABLE, text};

/// Message kinds of `nf_tables`.
const NEW_TABLE: u8 = 0;
const GET_TABLE: u8 = 1;
const DELETE_TABLE: u8 = 2;
const NEW_CHAIN: u8 = 3;
const GET_CHAIN: u8 = 4;
const NEW_RULE: u8 = 6;
const GET_RULE: u8 = 7;
/// The name of a table is attribute 1 of the table itself and of everything in it.
const TABLE_NAME: u16 = 1;
/// A policy by which what the chain does not decide goes on.
const ACCEPT: u32 = 1;
/// The type of a comment among a rule's user data, as `nft` has it.
const COMMENT: u8 = 0;
/// Somebody who changes the rules during every single reading gets an error instead of our patience.
const READ_ATTEMPTS: u32 = 10;

/// Deletes our table, made first so that there is one to delete, and makes it anew: one transaction.
pub(super) fn replace(ruleset: &Ruleset) -> Result<(), CaptureError> {
    let mut requests = clearing();
    requests.push(table("make", NEW_TABLE, CREATE));
    for chain in &ruleset.chains {
        requests.push(new_chain(chain));
        requests.extend(chain.rules.iter().map(|rule| new_rule(chain, rule)));
    }
    Conversation::open("install the capture rules")?.transact(&requests)
}

pub(super) fn remove() -> Result<(), CaptureError> {
    Conversation::open("remove the capture rules")?.transact(&clearing())
}

fn clearing() -> Vec<Request> {
    vec![table("make", NEW_TABLE, CREATE), table("delete", DELETE_TABLE, 0)]
}

fn table(verb: &str, kind: u8, flags: u16) -> Request {
    Request {
        action: format!("{verb} nftables table inet {TABLE}"),
        kind,
        flags,
        attributes: Attributes::default().text(TABLE_NAME, TABLE),
    }
}

fn new_chain(chain: &Chain) -> Request {
    let hook = Attributes::default().number(1, hook_number(chain.hook)).number(2, PRIORITY.cast_unsigned());
    Request {
        action: format!("make nat chain {} of nftables table inet {TABLE}", chain.name),
        kind: NEW_CHAIN,
        flags: CREATE,
        attributes: Attributes::default()
            .text(TABLE_NAME, TABLE)
            .text(3, chain.name)
            .nested(4, &hook)
            .number(5, ACCEPT)
            .text(7, "nat"),
    }
}

fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Output => 3,
    }
}

fn new_rule(chain: &Chain, rule: &Rule) -> Request {
    let words = rule.comment.as_bytes();
    let comment = [&[COMMENT, words.len() as u8 + 1], words, &[0]].concat();
    Request {
        action: format!("add rule `{}` to chain {} of nftables table inet {TABLE}", text::rule(rule), chain.name),
        kind: NEW_RULE,
        flags: CREATE | APPEND,
        attributes: Attributes::default()
            .text(TABLE_NAME, TABLE)
            .text(2, chain.name)
            .nested(4, &encode(&compile(rule)))
            .bytes(7, &comment),
    }
}

/// Our table as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    chains: Vec<InstalledChain>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct InstalledChain {
    name: String,
    hook: Option<u32>,
    priority: Option<i32>,
    rules: Vec<Vec<Expression>>,
}

pub(super) fn installed() -> Result<Option<Installed>, CaptureError> {
    let action = "read the capture rules";
    let mut conversation = Conversation::open(action)?;
    for attempt in 1..=READ_ATTEMPTS {
        match read(&mut conversation)? {
            Dump::Complete(answers) if of_one_generation(&answers) => {
                let found = Installed::of(&answers);
                if found.chains.is_empty() {
                    // Nothing is in force. Also, until a transaction is through, the kernel shows a table that the
                    // transaction both makes and deletes, as every removal and installation of ours does.
                    return Ok(None);
                }
                // The kernel counts a change a moment before it shows it: a chain without rules may be a torn reading.
                if found.chains.iter().all(|chain| !chain.rules.is_empty()) || attempt == READ_ATTEMPTS {
                    return Ok(Some(found));
                }
            }
            Dump::Complete(_) | Dump::Interrupted => {}
            Dump::Absent => return Ok(None),
        }
    }
    Err(CaptureError::Unsteady { action: action.to_owned(), attempts: READ_ATTEMPTS })
}

/// The table, all chains of its family, and its rules, one question after the other; at last the table again, so that
/// a change shows in its number even when the dumps found nothing.
fn read(conversation: &mut Conversation) -> Result<Dump, CaptureError> {
    let chains = Request { kind: GET_CHAIN, flags: DUMP, ..table("read the chains of", GET_CHAIN, 0) };
    let rules = Request { kind: GET_RULE, flags: DUMP, ..table("read the rules of", GET_RULE, 0) };
    let mut all = Vec::new();
    let table = table("read", GET_TABLE, 0);
    for request in [table.clone(), chains, rules, table] {
        match conversation.ask(&request)? {
            Dump::Complete(answers) => all.extend(answers),
            incomplete => return Ok(incomplete),
        }
    }
    Ok(Dump::Complete(all))
}

/// Whether no change came between the questions.
fn of_one_generation(answers: &[Answer]) -> bool {
    answers.windows(2).all(|pair| pair[0].generation == pair[1].generation)
}

impl Installed {
    fn of(answers: &[Answer]) -> Self {
        let mut chains: Vec<InstalledChain> = Vec::new();
        for answer in answers.iter().filter(|answer| text_of(&answer.attributes, TABLE_NAME) == Some(TABLE)) {
            match answer.kind {
                NEW_CHAIN => {
                    let name = text_of(&answer.attributes, 3).unwrap_or_default().to_owned();
                    let hook = attribute(&answer.attributes, 4).unwrap_or_default();
                    let priority = number(hook, 2).map(u32::cast_signed);
                    chains.push(InstalledChain { name, hook: number(hook, 1), priority, rules: Vec::new() });
                }
                NEW_RULE => {
                    let name = text_of(&answer.attributes, 2);
                    let rule = decode(attribute(&answer.attributes, 4).unwrap_or_default());
                    if let Some(chain) = chains.iter_mut().find(|chain| Some(chain.name.as_str()) == name) {
                        chain.rules.push(rule);
                    }
                }
                _ => {}
            }
        }
        chains.sort_by(|one, other| one.name.cmp(&other.name));
        Self { chains }
    }

    /// What the kernel has after [`install`](super::install) of these rules.
    fn expected(rules: &Rules) -> Self {
        let mut chains: Vec<_> = Ruleset::of(rules)
            .chains
            .iter()
            .map(|chain| InstalledChain {
                name: chain.name.to_owned(),
                hook: Some(hook_number(chain.hook)),
                priority: Some(PRIORITY),
                rules: chain.rules.iter().map(compile).collect(),
            })
            .collect();
        chains.sort_by(|one, other| one.name.cmp(&other.name));
        Self { chains }
    }

    /// Whether these are exactly the rules that [`install`](super::install) makes.
    pub fn is(&self, rules: &Rules) -> bool {
        *self == Self::expected(rules)
    }

    /// The wishes these rules fulfil, their lists sorted; nothing when somebody else changed the table.
    pub fn rules(&self) -> Option<Rules> {
        let rules = self.presumed()?;
        self.is(&rules).then_some(rules)
    }

    /// The ports that connections are redirected to, by any chain.
    pub fn redirects(&self) -> Vec<u16> {
        let mut ports: Vec<_> =
            self.chains.iter().flat_map(|chain| &chain.rules).filter_map(|rule| gist(rule).redirect).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// The number of rules in all chains.
    pub fn len(&self) -> usize {
        self.chains.iter().map(|chain| chain.rules.len()).sum()
    }

    /// Whether the table has no rules.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The wishes these rules seem to fulfil, if they are ours.
    fn presumed(&self) -> Option<Rules> {
        let gists = |name: &str| {
            let chain = self.chains.iter().find(|chain| chain.name == name);
            chain.map(|chain| chain.rules.iter().map(|rule| gist(rule)).collect::<Vec<_>>())
        };
        let (outbound, inbound) = (gists("outbound")?, gists("inbound")?);
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wishes_are_read_back_from_the_rules() {
        let plain = Rules::default();
        let rich = Rules {
            outbound_port: 1,
            inbound_port: 65535,
            exempt: Exempt::Mark(0xdead_beef),
            exclude_uids: vec![0, 33],
            exclude_outbound_ports: vec![22, 443],
            exclude_inbound_ports: vec![9000],
            exclude_cidrs: ["10.0.0.0/8", "192.0.2.7", "fd00::/9"].map(|text| text.parse().unwrap()).to_vec(),
            include_cidrs: ["0.0.0.0/0", "fd57::/16"].map(|text| text.parse().unwrap()).to_vec(),
        };
        for rules in [plain, rich] {
            let installed = Installed::expected(&rules);
            assert!(installed.is(&rules));
            assert_eq!(installed.rules(), Some(rules));
        }
    }

    #[test]
    fn an_altered_rule_makes_the_table_foreign() {
        let whole = Installed::expected(&Rules::default());
        for chain in 0..whole.chains.len() {
            for rule in 0..whole.chains[chain].rules.len() {
                let mut lacking = whole.clone();
                lacking.chains[chain].rules.remove(rule);
                assert_eq!(lacking.rules(), None, "without rule {rule} of chain {chain}");
                let mut altered = whole.clone();
                altered.chains[chain].rules[rule].push(Expression::Foreign);
                assert_eq!(altered.rules(), None, "with rule {rule} of chain {chain} altered");
            }
        }
    }
}
