//! A histogram's increase over an interval, and its quantiles.

use crate::demo::scrape::Labels;

/// How many values were at most each bound, by bound.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Distribution {
    buckets: Vec<(f64, f64)>,
}

impl Distribution {
    /// Adds a `_bucket` series' increase; one whose `le` is not a number counts nothing.
    pub fn add(&mut self, labels: &Labels, count: f64) {
        let bound = match labels.get("le").map(String::as_str) {
            Some("+Inf") => Some(f64::INFINITY),
            Some(text) => text.parse().ok().filter(|bound: &f64| bound.is_finite()),
            None => None,
        };
        if let Some(bound) = bound {
            self.add_bucket(bound, count);
        }
    }

    /// Adds another interval's values, or another proxy's with the same bounds.
    pub fn extend(&mut self, other: &Self) {
        for (bound, count) in &other.buckets {
            self.add_bucket(*bound, *count);
        }
    }

    fn add_bucket(&mut self, bound: f64, count: f64) {
        match self.buckets.binary_search_by(|(other, _)| other.total_cmp(&bound)) {
            Ok(index) => self.buckets[index].1 += count,
            Err(index) => self.buckets.insert(index, (bound, count)),
        }
    }

    /// The value that the fraction `q` of all values do not exceed, taking values as evenly spread within a bucket;
    /// above the last finite bound, that bound. None without values.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.buckets.iter().map(|(_, count)| *count).fold(0.0, f64::max);
        if total <= 0.0 {
            return None;
        }
        let rank = q * total;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in &self.buckets {
            // Buckets are not scraped in one instant; a later one may lag behind an earlier one.
            let count = count.max(below);
            if count >= rank && count > below {
                return Some(if bound.is_finite() {
                    lower + (bound - lower) * ((rank - below) / (count - below)).clamp(0.0, 1.0)
                } else {
                    lower
                });
            }
            if bound.is_finite() {
                lower = *bound;
            }
            below = count;
        }
        Some(lower)
    }

    /// The quantile of a histogram of seconds, in milliseconds.
    pub fn millis(&self, q: f64) -> Option<f64> {
        self.quantile(q).map(|seconds| seconds * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distribution(buckets: &[(&str, f64)]) -> Distribution {
        let mut distribution = Distribution::default();
        for (bound, count) in buckets {
            distribution.add(&Labels::from([("le".to_owned(), (*bound).to_owned())]), *count);
        }
        distribution
    }

    #[test]
    fn quantiles_lie_evenly_within_a_bucket() {
        let latency = distribution(&[("0.1", 10.0), ("0.2", 20.0), ("0.4", 40.0), ("+Inf", 40.0)]);
        let table = [(0.0, 0.0), (0.25, 0.1), (0.375, 0.15), (0.5, 0.2), (0.75, 0.3), (1.0, 0.4)];
        for (q, value) in table {
            let found = latency.quantile(q).unwrap();
            assert!((found - value).abs() < 1e-9, "{q}: {found} instead of {value}");
        }
    }

    #[test]
    fn what_is_above_the_last_bound_counts_as_that_bound() {
        assert_eq!(distribution(&[("0.1", 1.0), ("+Inf", 100.0)]).quantile(0.99), Some(0.1));
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(Distribution::default().quantile(0.5), None);
        assert_eq!(distribution(&[("0.1", 0.0), ("+Inf", 0.0)]).quantile(0.5), None);
    }

    #[test]
    fn order_of_bounds_and_unreadable_bounds_do_not_matter() {
        let mixed = distribution(&[("+Inf", 4.0), ("0.2", 4.0), ("x", 9.0), ("NaN", 9.0), ("0.1", 0.0)]);
        assert_eq!(mixed, distribution(&[("0.1", 0.0), ("0.2", 4.0), ("+Inf", 4.0)]));
        assert!((mixed.quantile(0.5).unwrap() - 0.15).abs() < 1e-9);
    }

    #[test]
    fn a_bucket_that_lags_behind_its_predecessor_is_harmless() {
        let torn = distribution(&[("0.1", 10.0), ("0.2", 9.0), ("+Inf", 10.0)]);
        assert_eq!(torn.quantile(1.0), Some(0.1));
    }

    #[test]
    fn distributions_add_up() {
        let mut sum = distribution(&[("0.1", 1.0), ("+Inf", 1.0)]);
        sum.extend(&distribution(&[("0.1", 0.0), ("0.2", 3.0), ("+Inf", 3.0)]));
        assert_eq!(sum, distribution(&[("0.1", 1.0), ("0.2", 3.0), ("+Inf", 4.0)]));
    }
}
