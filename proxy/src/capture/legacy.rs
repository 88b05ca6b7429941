//! The tables before `nf_tables`, for kernels that have no other: changed by the programs of `iptables-legacy`.
//!
//! The same rules, in two chains of our own in the nat table of each family, with one jump to each. What differs:
//! - A family is changed in one step, but the two families are two steps: whoever is killed between them leaves the new
//!   rules in one family and the old ones in the other. The next installation or removal puts it right.
//! - The kernel's interface has no lock and the programs' lock is a file that containers do not share. We keep one on the
//!   network namespace itself; the program that changes the tables holds it too, as its standard output, so that it is
//!   still held when we are killed and the program is not.
//! - Where nobody has used a legacy table before, looking at it would make it: it is asked first whether there is one.

mod line;
mod program;

use std::fs;
use std::io::ErrorKind;

use super::CaptureError;
use super::expression::Gist;
use super::rules::Rules;
use super::ruleset::Ruleset;
use line::{CHAINS, Family};
use program::{Lock, restore, save};

/// Our rules in the tables of both families.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tables {
    v4: Table,
    /// `None` where the kernel has no IPv6.
    v6: Option<Table>,
}

/// What one nat table has of ours, as `iptables-save` shows it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Table {
    /// Rules of other chains that jump to ours.
    jumps: Vec<String>,
    /// The rules of each of our chains; `None` where there is no such chain.
    chains: [Option<Vec<String>>; 2],
}

/// Makes our chains what the rules say, in one step a family.
pub(super) fn replace(rules: &Rules) -> Result<(), CaptureError> {
    let action = "install the capture rules in the legacy tables";
    let lock = Lock::take(action)?;
    for family in families() {
        let found = Table::read(&save(family, action)?);
        restore(family, &found.replaced_by(&Table::expected(rules, family)), &lock, action)?;
    }
    Ok(())
}

/// Takes our chains away, where there are any.
pub(super) fn remove() -> Result<(), CaptureError> {
    let action = "remove the capture rules from the legacy tables";
    let mut lock = None;
    for family in families() {
        if !has_table(family, action)? {
            continue;
        }
        if lock.is_none() {
            lock = Some(Lock::take(action)?);
        }
        let found = Table::read(&save(family, action)?);
        if let (Some(lock), false) = (&lock, found == Table::default()) {
            restore(family, &found.removed(), lock, action)?;
        }
    }
    Ok(())
}

pub(super) fn installed() -> Result<Option<Tables>, CaptureError> {
    let action = "read the capture rules of the legacy tables";
    let read = |family| -> Result<Table, CaptureError> {
        if has_table(family, action)? {
            save(family, action).map(|text| Table::read(&text))
        } else {
            Ok(Table::default())
        }
    };
    let v4 = read(Family::V4)?;
    let v6 = if has_ipv6() { Some(read(Family::V6)?) } else { None };
    let tables = Tables { v4, v6 };
    let has_any = [Some(&tables.v4), tables.v6.as_ref()].into_iter().flatten().any(|table| *table != Table::default());
    Ok(has_any.then_some(tables))
}

fn families() -> Vec<Family> {
    if has_ipv6() { vec![Family::V4, Family::V6] } else { vec![Family::V4] }
}

/// Whether the kernel speaks IPv6 at all: where it was turned off at boot, its tables cannot be had.
fn has_ipv6() -> bool {
    fs::exists("/proc/thread-self/net/if_inet6").unwrap_or(true)
}

/// Whether this namespace has the nat table of a family.
fn has_table(family: Family, action: &str) -> Result<bool, CaptureError> {
    match fs::read_to_string(family.tables()) {
        Ok(names) => Ok(names.lines().any(|name| name == "nat")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(source) => Err(CaptureError::socket(action, source)),
    }
}

impl Tables {
    /// Whether they are exactly what [`replace`] makes.
    pub(super) fn are(&self, rules: &Rules) -> bool {
        *self == Self::expected(rules, self.v6.is_some())
    }

    /// What is there after [`replace`].
    pub(super) fn expected(rules: &Rules, has_ipv6: bool) -> Self {
        Self { v4: Table::expected(rules, Family::V4), v6: has_ipv6.then(|| Table::expected(rules, Family::V6)) }
    }

    /// The number of rules in our chains.
    pub(super) fn len(&self) -> usize {
        self.families().map(|(_, table)| table.chains.iter().flatten().map(Vec::len).sum::<usize>()).sum()
    }

    /// What stands in the rules of one of our chains, of both families together.
    pub(super) fn gists(&self, chain: &str) -> Vec<Gist> {
        let position = usize::from(chain != "outbound");
        let mut all: Vec<Gist> = Vec::new();
        let mut whole = Vec::new();
        for (family, table) in self.families() {
            for line in table.chains[position].iter().flatten() {
                let mut gist = line::gist(line, family);
                if gist.redirect.is_some() && gist.is_unconditional() {
                    whole.push(family.whole());
                    gist.destination = Some(family.whole());
                }
                // What both families have is said once.
                if !all.contains(&gist) {
                    all.push(gist);
                }
            }
        }
        // Every family is redirected without a condition: no network was named.
        if whole.len() == self.families().count() {
            for gist in all.iter_mut().filter(|gist| gist.redirect.is_some()) {
                gist.destination = gist.destination.filter(|network| !whole.contains(network));
            }
        }
        all
    }

    fn families(&self) -> impl Iterator<Item = (Family, &Table)> {
        let v6 = self.v6.as_ref().map(|table| (Family::V6, table));
        std::iter::once((Family::V4, &self.v4)).chain(v6)
    }
}

impl Table {
    fn expected(rules: &Rules, family: Family) -> Self {
        let Ruleset { chains } = Ruleset::of(rules);
        let mut table = Self::default();
        for (position, (chain, names)) in chains.iter().zip(CHAINS).enumerate() {
            let lines = chain.rules.iter().filter_map(|rule| line::rule(rule, names.ours, family));
            table.chains[position] = Some(lines.collect());
            table.jumps.push(line::jump(names));
        }
        table.jumps.sort();
        table
    }

    /// Reads what `iptables-save -t nat` printed.
    fn read(text: &str) -> Self {
        let mut table = Self::default();
        for line in text.lines() {
            if let Some(declared) = line.strip_prefix(':') {
                let name = declared.split(' ').next().unwrap_or_default();
                if let Some(position) = line::position(name) {
                    table.chains[position].get_or_insert_default();
                }
            } else if let Some(appended) = line.strip_prefix("-A ") {
                let chain = appended.split(' ').next().unwrap_or_default();
                match line::position(chain) {
                    Some(position) => table.chains[position].get_or_insert_default().push(line.trim_end().to_owned()),
                    None if line::jumps_to_ours(appended) => table.jumps.push(line.trim_end().to_owned()),
                    None => {}
                }
            }
        }
        table.jumps.sort();
        table
    }

    /// What `iptables-restore --noflush` makes the wanted table of this one by. Our jumps come first in their chains.
    fn replaced_by(&self, wanted: &Self) -> String {
        let mut text = String::from("*nat\n");
        for names in CHAINS {
            // Declared: made where it is not there, and emptied.
            text.push_str(&format!(":{} - [0:0]\n", names.ours));
        }
        self.without_jumps(&mut text);
        for names in CHAINS {
            let jump = line::jump(names);
            text.push_str(&jump.replacen("-A", "-I", 1));
            text.push('\n');
        }
        for line in wanted.chains.iter().flatten().flatten() {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str("COMMIT\n");
        text
    }

    /// What `iptables-restore --noflush` takes ours away by.
    fn removed(&self) -> String {
        let mut text = String::from("*nat\n");
        self.without_jumps(&mut text);
        let ours: Vec<&str> =
            CHAINS.iter().zip(&self.chains).filter(|(_, chain)| chain.is_some()).map(|(names, _)| names.ours).collect();
        for verb in ["-F", "-X"] {
            for name in &ours {
                text.push_str(&format!("{verb} {name}\n"));
            }
        }
        text.push_str("COMMIT\n");
        text
    }

    fn without_jumps(&self, text: &mut String) {
        for jump in &self.jumps {
            text.push_str(&jump.replacen("-A", "-D", 1));
            text.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_found_among_what_others_have() {
        let text = "# Generated by iptables-save v1.8.9\n*nat\n:PREROUTING ACCEPT [0:0]\n:OTHER - [0:0]\n:WEFT_INBOUND - [0:0]\n\
                    -A PREROUTING -p tcp -j WEFT_INBOUND\n-A PREROUTING -j OTHER\n-A PREROUTING -p tcp -j WEFT_INBOUND\n\
                    -A OTHER -m comment --comment \"-j WEFT_INBOUND\" -j RETURN\n\
                    -A WEFT_INBOUND -p tcp -m tcp --dport 22 -j RETURN\nCOMMIT\n";
        let table = Table::read(text);
        assert_eq!(table.jumps, ["-A PREROUTING -p tcp -j WEFT_INBOUND"; 2]);
        let inbound = vec!["-A WEFT_INBOUND -p tcp -m tcp --dport 22 -j RETURN".to_owned()];
        assert_eq!(table.chains, [None, Some(inbound)]);
        let removed = "*nat\n-D PREROUTING -p tcp -j WEFT_INBOUND\n-D PREROUTING -p tcp -j WEFT_INBOUND\n\
                       -F WEFT_INBOUND\n-X WEFT_INBOUND\nCOMMIT\n";
        assert_eq!(table.removed(), removed);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let rules = Rules { exclude_cidrs: vec!["10.0.0.0/8".parse().unwrap()], ..Rules::default() };
        for family in [Family::V4, Family::V6] {
            let wanted = Table::expected(&rules, family);
            let written = Table::default().replaced_by(&wanted).replace("-I", "-A");
            assert_eq!(Table::read(&written), wanted);
        }
    }
}
