//! Which of the clusters that share something gets the next of it: by weight and chance.
//!
//! Most things go to one cluster: that one is given without drawing.

use crate::model::WeightedCluster;
use crate::names::ClusterName;

/// Clusters by their shares; `T` is what a cluster resolved to, usually a handle of it.
#[derive(Debug)]
pub struct Split<T>(Shares<T>);

#[derive(Debug)]
enum Shares<T> {
    One(ClusterName, Option<T>),
    /// None at all, or several.
    Several {
        shares: Box<[Share<T>]>,
        /// The sum of all weights.
        total: u64,
    },
}

#[derive(Debug)]
struct Share<T> {
    weight: u32,
    cluster: ClusterName,
    target: Option<T>,
}

impl<T> Split<T> {
    /// Compiles shares. `resolve` gives the target of a cluster; one that nobody told us about stays visible in
    /// [`Split::pick`], so that its share fails with a reason instead of going to another.
    pub fn compile(clusters: &[WeightedCluster], mut resolve: impl FnMut(&ClusterName) -> Option<T>) -> Self {
        if let [WeightedCluster { cluster, weight: 1.. }] = clusters {
            return Self(Shares::One(cluster.clone(), resolve(cluster)));
        }
        let share = |weighted: &WeightedCluster| Share {
            weight: weighted.weight,
            cluster: weighted.cluster.clone(),
            target: resolve(&weighted.cluster),
        };
        let shares: Box<[_]> = clusters.iter().map(share).collect();
        let total = shares.iter().map(|share| u64::from(share.weight)).sum();
        Self(Shares::Several { shares, total })
    }

    /// The same shares with what their clusters have become.
    #[must_use]
    pub fn resolved(&self, mut resolve: impl FnMut(&ClusterName) -> Option<T>) -> Self {
        Self(match &self.0 {
            Shares::One(cluster, _) => Shares::One(cluster.clone(), resolve(cluster)),
            Shares::Several { shares, total } => {
                let share = |share: &Share<T>| Share {
                    weight: share.weight,
                    cluster: share.cluster.clone(),
                    target: resolve(&share.cluster),
                };
                Shares::Several { shares: shares.iter().map(share).collect(), total: *total }
            }
        })
    }

    /// The cluster of one request or connection, and what it resolved to. `None` when no cluster has a weight. `draw` is
    /// given a bound and gives a number below it; it is not called where there is nothing to choose.
    pub fn pick(&self, draw: impl FnOnce(u64) -> u64) -> Option<(&ClusterName, Option<&T>)> {
        match &self.0 {
            Shares::One(cluster, target) => Some((cluster, target.as_ref())),
            Shares::Several { total: 0, .. } => None,
            Shares::Several { shares, total } => {
                let mut drawn = draw(*total);
                let share = shares.iter().find(|share| {
                    let weight = u64::from(share.weight);
                    let is_it = drawn < weight;
                    drawn = drawn.saturating_sub(weight);
                    is_it
                })?;
                Some((&share.cluster, share.target.as_ref()))
            }
        }
    }

    /// All clusters with their weights, and what they resolved to.
    pub fn shares(&self) -> impl Iterator<Item = (&ClusterName, u32, Option<&T>)> {
        let (one, several) = match &self.0 {
            Shares::One(cluster, target) => (Some((cluster, 1, target.as_ref())), &[][..]),
            Shares::Several { shares, .. } => (None, &shares[..]),
        };
        one.into_iter().chain(several.iter().map(|share| (&share.cluster, share.weight, share.target.as_ref())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(weights: &[(&str, u32)]) -> Split<()> {
        let clusters: Vec<_> =
            weights.iter().map(|&(cluster, weight)| WeightedCluster { cluster: cluster.into(), weight }).collect();
        Split::compile(&clusters, |cluster| (cluster.as_str() != "missing").then_some(()))
    }

    #[test]
    fn every_number_that_can_be_drawn_belongs_to_one_share() {
        let split = split(&[("none", 0), ("many", 7), ("missing", 2), ("one", 1)]);
        let picked: Vec<_> = (0..10).map(|drawn| split.pick(|_| drawn).unwrap()).collect();
        let names: Vec<_> = picked.iter().map(|(cluster, _)| cluster.as_str()).collect();
        assert_eq!(names, [["many"; 7].as_slice(), &["missing"; 2], &["one"]].concat());
        assert!(picked.iter().all(|(cluster, target)| target.is_some() == (cluster.as_str() != "missing")));
        split.pick(|bound| {
            assert_eq!(bound, 10);
            0
        });
    }

    #[test]
    fn where_there_is_nothing_to_choose_nothing_is_drawn() {
        let never = |_| panic!("drawn");
        assert_eq!(split(&[("only", 5)]).pick(never).unwrap().0.as_str(), "only");
        assert!(split(&[("only", 0)]).pick(never).is_none());
        assert!(split(&[]).pick(never).is_none());
        assert!(split(&[("a", 0), ("b", 0)]).pick(never).is_none());
    }

    #[test]
    fn weights_as_large_as_they_can_be_add_up() {
        let split = split(&[("a", u32::MAX), ("b", u32::MAX)]);
        assert_eq!(split.pick(|bound| bound - 1).unwrap().0.as_str(), "b");
    }
}
