//! Our table in `nf_tables`: replaced, removed, and read back.

use super::expression::{Expression, Gist, compile, decode, encode, gist};
use super::netlink::{
    APPEND, Answer, Attributes, CREATE, Conversation, DUMP, Dump, Request, attribute, number, text as text_of,
};
use super::rules::Rules;
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
pub(super) struct Table {
    chains: Vec<InstalledChain>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct InstalledChain {
    name: String,
    hook: Option<u32>,
    priority: Option<i32>,
    rules: Vec<Vec<Expression>>,
}

pub(super) fn installed() -> Result<Option<Table>, CaptureError> {
    let action = "read the capture rules";
    let mut conversation = Conversation::open(action)?;
    for attempt in 1..=READ_ATTEMPTS {
        match read(&mut conversation)? {
            Dump::Complete(answers) if of_one_generation(&answers) => {
                let found = Table::of(&answers);
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

impl Table {
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
    pub(super) fn expected(rules: &Rules) -> Self {
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

    /// What stands in the rules of a chain; `None` when there is no such chain.
    pub(super) fn gists(&self, name: &str) -> Option<Vec<Gist>> {
        let chain = self.chains.iter().find(|chain| chain.name == name);
        chain.map(|chain| chain.rules.iter().map(|rule| gist(rule)).collect())
    }

    /// The number of rules in all chains.
    pub(super) fn len(&self) -> usize {
        self.chains.iter().map(|chain| chain.rules.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::installed::{Found, Installed};
    use super::*;

    #[test]
    fn an_altered_rule_makes_the_table_foreign() {
        let whole = Table::expected(&Rules::default());
        let rules = |table: Table| Installed::from(Found::Nftables(table)).rules();
        for chain in 0..whole.chains.len() {
            for rule in 0..whole.chains[chain].rules.len() {
                let mut lacking = whole.clone();
                lacking.chains[chain].rules.remove(rule);
                assert_eq!(rules(lacking), None, "without rule {rule} of chain {chain}");
                let mut altered = whole.clone();
                altered.chains[chain].rules[rule].push(Expression::Foreign);
                assert_eq!(rules(altered), None, "with rule {rule} of chain {chain} altered");
            }
        }
    }
}
