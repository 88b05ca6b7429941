//! From the name a TLS client asks for to where its connection goes: compiled once per snapshot, read without allocating.
//!
//! As in Envoy and the Gateway API the most exact name decides: the whole name, then the longest `*.suffix` (which stands
//! for one label or more, never for none), then what takes all others. Each step is one hash lookup.

use std::collections::HashMap;

use crate::model::ServerNameSpec;
use crate::names::ClusterName;
use crate::split::Split;

/// A compiled table; `T` is what a cluster resolved to, usually a handle of it.
#[derive(Debug)]
pub struct ServerNames<T> {
    splits: Vec<Split<T>>,
    exact: HashMap<Box<str>, usize>,
    /// What follows the `*.`.
    below: HashMap<Box<str>, usize>,
    others: Option<usize>,
}

impl<T> ServerNames<T> {
    /// Compiles a table. `resolve` gives the target of a cluster; one that nobody told us about stays visible in
    /// [`Split::pick`], so that its connections fail with a reason instead of going to another.
    /// When two entries have the same name the first has it.
    pub fn compile(specs: &[ServerNameSpec], mut resolve: impl FnMut(&ClusterName) -> Option<T>) -> Self {
        let mut table = Self {
            splits: Vec::with_capacity(specs.len()),
            exact: HashMap::new(),
            below: HashMap::new(),
            others: None,
        };
        for (index, spec) in specs.iter().enumerate() {
            table.splits.push(Split::compile(&spec.clusters, &mut resolve));
            for name in &spec.names {
                match name.strip_prefix("*.") {
                    Some(suffix) => table.below.entry(suffix.into()).or_insert(index),
                    None => table.exact.entry(name.as_str().into()).or_insert(index),
                };
            }
            if spec.names.is_empty() {
                table.others.get_or_insert(index);
            }
        }
        table
    }

    /// Where a connection that asks for this name goes; the name in lower case, `None` when it asks for none.
    pub fn find(&self, name: Option<&str>) -> Option<&Split<T>> {
        let named = name.and_then(|name| self.exact.get(name).copied().or_else(|| self.above(name)));
        named.or(self.others).map(|index| &self.splits[index])
    }

    /// The longest suffix comes first.
    fn above(&self, name: &str) -> Option<usize> {
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(index) = self.below.get(parent) {
                return Some(*index);
            }
            rest = parent;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::WeightedCluster;

    fn to(cluster: &str, names: &[&str]) -> ServerNameSpec {
        let clusters = vec![WeightedCluster { cluster: cluster.into(), weight: 1 }];
        ServerNameSpec { names: names.iter().map(ToString::to_string).collect(), clusters }
    }

    fn found<'t>(table: &'t ServerNames<String>, name: Option<&str>) -> Option<&'t str> {
        let mut chance = fastrand::Rng::with_seed(1);
        table.find(name).and_then(|split| split.pick(|bound| chance.u64(..bound))).map(|(cluster, _)| cluster.as_str())
    }

    fn table(specs: &[ServerNameSpec]) -> ServerNames<String> {
        ServerNames::compile(specs, |cluster| Some(cluster.to_string()))
    }

    #[test]
    fn the_most_exact_name_decides_in_whatever_order_they_come() {
        let mut specs = vec![
            to("others", &[]),
            to("wide", &["*.example"]),
            to("narrow", &["*.shop.example"]),
            to("exact", &["a.shop.example", "example"]),
        ];
        for _ in 0..specs.len() {
            let table = table(&specs);
            for (name, expected) in [
                (Some("a.shop.example"), "exact"),
                (Some("example"), "exact"),
                (Some("b.shop.example"), "narrow"),
                (Some("x.y.shop.example"), "narrow"),
                (Some("shop.example"), "wide"),
                (Some("x.example"), "wide"),
                (Some("shopexample"), "others"),
                (Some("example.com"), "others"),
                (None, "others"),
            ] {
                assert_eq!(found(&table, name), Some(expected), "{name:?} of {specs:?}");
            }
            specs.rotate_left(1);
        }
    }

    #[test]
    fn a_name_nobody_takes_finds_nothing() {
        let table = table(&[to("wide", &["*.example"]), to("exact", &["a.test"])]);
        for name in [None, Some("example"), Some(".example.test"), Some("b.test"), Some("a.test.example.test")] {
            assert_eq!(found(&table, name), None, "{name:?}");
        }
    }

    #[test]
    fn connections_are_shared_by_weight() {
        let weighted = |cluster: &str, weight| WeightedCluster { cluster: cluster.into(), weight };
        let clusters = vec![weighted("many", 9), weighted("few", 1), weighted("none", 0)];
        let specs = [ServerNameSpec { names: vec!["a.example".to_owned()], clusters }];
        // The second is not known: its share fails rather than to go elsewhere.
        let table = ServerNames::compile(&specs, |cluster| (cluster.as_str() == "many").then_some(()));
        let mut chance = fastrand::Rng::with_seed(7);
        let mut few = 0;
        for _ in 0..10_000 {
            let (cluster, target) = table.find(Some("a.example")).unwrap().pick(|bound| chance.u64(..bound)).unwrap();
            assert_ne!(cluster.as_str(), "none");
            assert_eq!(target.is_some(), cluster.as_str() == "many");
            few += u32::from(cluster.as_str() == "few");
        }
        assert!((800..1200).contains(&few), "{few} of 10,000 for a tenth");
        let nothing = [ServerNameSpec { names: vec![], clusters: vec![weighted("none", 0)] }];
        assert_eq!(found(&self::table(&nothing), None), None);
    }

    proptest! {
        /// Against the rule as it is written: of all that match, the longest, and the whole name before any suffix.
        #[test]
        fn the_table_finds_what_the_rule_says(
            names in prop::collection::btree_set("(\\*\\.)?[ab](\\.[ab]){0,3}", 1..12),
            asked in "[ab](\\.[ab]){0,4}",
        ) {
            let specs: Vec<ServerNameSpec> = names.iter().map(|name| to(name, &[name])).collect();
            let takes = |name: &&String| match name.strip_prefix('*') {
                Some(suffix) => asked.len() > suffix.len() && asked.ends_with(suffix),
                None => **name == asked,
            };
            let expected = names.iter().filter(takes).max_by_key(|name| (!name.starts_with('*'), name.len()));
            let table = table(&specs);
            prop_assert_eq!(found(&table, Some(&asked)), expected.map(String::as_str));
        }
    }
}
