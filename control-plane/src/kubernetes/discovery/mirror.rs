//! A copy of the objects of one kind, kept by what a watch says.
//!
//! A watch begins, and after a failure begins again, with a list of all there is. Until that is complete the copy stays
//! what it was: half a list is never seen, and objects that went while nobody watched go with its end.

use std::collections::{BTreeMap, BTreeSet};

use super::object::ObjectName;

/// One thing a watch says. An object that is nothing to us comes as `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<T> {
    /// A list of all objects begins.
    Begin,
    Listed(ObjectName, Option<T>),
    /// The list is complete.
    Complete,
    /// An object came or changed.
    Set(ObjectName, Option<T>),
    Gone(ObjectName),
}

/// What is known of the objects of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror<T> {
    current: BTreeMap<ObjectName, T>,
    /// The list that is being read.
    coming: Option<BTreeMap<ObjectName, T>>,
    is_synced: bool,
    /// Objects that are not what they were when somebody last asked.
    changed: BTreeSet<ObjectName>,
}

impl<T> Default for Mirror<T> {
    fn default() -> Self {
        Self { current: BTreeMap::new(), coming: None, is_synced: false, changed: BTreeSet::new() }
    }
}

impl<T: PartialEq> Mirror<T> {
    /// Takes what a watch says; returns whether the copy is another one now. `follow` makes what is kept of an object from
    /// what came and what was kept of it before.
    pub fn take<N>(&mut self, step: Step<N>, follow: impl Fn(N, Option<&T>) -> T) -> bool {
        match step {
            Step::Begin => {
                self.coming = Some(BTreeMap::new());
                false
            }
            Step::Listed(name, object) => {
                if let (Some(coming), Some(object)) = (&mut self.coming, object) {
                    let object = follow(object, self.current.get(&name));
                    coming.insert(name, object);
                }
                false
            }
            Step::Complete => {
                let coming = self.coming.take().unwrap_or_default();
                let is_first = !std::mem::replace(&mut self.is_synced, true);
                let before = std::mem::replace(&mut self.current, coming);
                let is_other = |(name, object): &(&ObjectName, &T)| before.get(*name) != Some(*object);
                let come = self.current.iter().filter(is_other).map(|(name, _)| name);
                let gone = before.keys().filter(|name| !self.current.contains_key(*name));
                let changed: Vec<ObjectName> = come.chain(gone).cloned().collect();
                let is_other = !changed.is_empty();
                self.changed.extend(changed);
                is_first || is_other
            }
            Step::Set(name, Some(object)) => {
                let before = self.current.get(&name);
                let object = follow(object, before);
                let is_other = before != Some(&object);
                if is_other {
                    self.changed.insert(name.clone());
                    self.current.insert(name, object);
                }
                is_other
            }
            Step::Set(name, None) | Step::Gone(name) => {
                let was_there = self.current.remove(&name).is_some();
                if was_there {
                    self.changed.insert(name);
                }
                was_there
            }
        }
    }

    /// The objects that are not what they were when this was last asked.
    pub fn take_changed(&mut self) -> BTreeSet<ObjectName> {
        std::mem::take(&mut self.changed)
    }

    /// Whether a list was ever complete.
    pub fn is_synced(&self) -> bool {
        self.is_synced
    }

    pub fn get(&self, name: &ObjectName) -> Option<&T> {
        self.current.get(name)
    }

    /// The same with the name as it is kept.
    pub fn get_with_name(&self, name: &ObjectName) -> Option<(&ObjectName, &T)> {
        self.current.get_key_value(name)
    }

    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectName, &T)> {
        self.current.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> ObjectName {
        ObjectName::new("shop", name)
    }

    fn held(mirror: &Mirror<u8>) -> Vec<(&str, u8)> {
        mirror.iter().map(|(name, value)| (&*name.name, *value)).collect()
    }

    #[test]
    fn a_list_counts_when_it_is_complete() {
        let mut mirror = Mirror::default();
        let mut take = |step| {
            let changed = mirror.take(step, |new, _| new);
            (changed, mirror.is_synced(), held(&mirror).into_iter().map(|(n, v)| (n.to_owned(), v)).collect::<Vec<_>>())
        };
        let own = |pairs: &[(&str, u8)]| pairs.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect::<Vec<_>>();
        assert_eq!(take(Step::Begin), (false, false, own(&[])));
        assert_eq!(take(Step::Listed(name("a"), Some(1))), (false, false, own(&[])));
        assert_eq!(take(Step::Complete), (true, true, own(&[("a", 1)])));
        assert_eq!(take(Step::Set(name("b"), Some(2))), (true, true, own(&[("a", 1), ("b", 2)])));
        // The watch was lost: a list from the beginning, that breaks off, and another one.
        assert_eq!(take(Step::Begin), (false, true, own(&[("a", 1), ("b", 2)])));
        assert_eq!(take(Step::Listed(name("c"), Some(3))), (false, true, own(&[("a", 1), ("b", 2)])));
        assert_eq!(take(Step::Begin), (false, true, own(&[("a", 1), ("b", 2)])));
        assert_eq!(take(Step::Listed(name("b"), Some(2))), (false, true, own(&[("a", 1), ("b", 2)])));
        assert_eq!(take(Step::Complete), (true, true, own(&[("b", 2)])));
    }

    #[test]
    fn what_changed_is_told_once() {
        let mut mirror = Mirror::default();
        let mut changed = |steps: Vec<Step<u8>>| {
            for step in steps {
                mirror.take(step, |new, _| new);
            }
            mirror.take_changed().iter().map(|name| name.name.to_string()).collect::<Vec<_>>()
        };
        let listed = |name_of, value| Step::Listed(name(name_of), Some(value));
        assert_eq!(changed(vec![Step::Begin, listed("a", 1), listed("b", 1)]), [] as [&str; 0]);
        assert_eq!(changed(vec![Step::Complete]), ["a", "b"]);
        assert_eq!(changed(vec![Step::Set(name("a"), Some(1)), Step::Set(name("c"), Some(1))]), ["c"]);
        assert_eq!(changed(vec![Step::Begin, listed("a", 2), listed("c", 1), Step::Complete]), ["a", "b"]);
        assert_eq!(changed(vec![Step::Gone(name("a")), Step::Gone(name("x")), Step::Set(name("c"), None)]), ["a", "c"]);
    }

    #[test]
    fn what_changes_nothing_is_no_change() {
        let mut mirror = Mirror::default();
        let mut changed = |step| mirror.take(step, |new: u8, _| new);
        assert!(!changed(Step::Begin));
        assert!(changed(Step::Complete), "an empty list is news once: it is complete");
        assert!(changed(Step::Set(name("a"), Some(1))));
        assert!(!changed(Step::Set(name("a"), Some(1))));
        assert!(!changed(Step::Set(name("b"), None)));
        assert!(!changed(Step::Begin));
        assert!(!changed(Step::Listed(name("a"), Some(1))));
        assert!(!changed(Step::Complete));
        assert!(changed(Step::Set(name("a"), None)), "it is nothing to us any more");
        assert!(!changed(Step::Gone(name("a"))));
    }
}
