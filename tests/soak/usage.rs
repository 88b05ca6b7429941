//! Memory and descriptors of a process over time.

use std::fmt;
use std::time::Instant;

use weft_tests::process::now;

/// What a sound process may differ by: pools and buffers breathe.
const MEMORY_KIB_PER_MINUTE: f64 = 256.0;
const DESCRIPTORS: f64 = 16.0;

/// Samples of one process.
#[derive(Debug)]
pub(crate) struct Usage {
    process: u32,
    begin: Instant,
    /// Minutes, resident KiB, open descriptors.
    samples: Vec<(f64, f64, f64)>,
}

impl Usage {
    pub(crate) fn of(process: u32) -> Self {
        Self { process, begin: now(), samples: Vec::new() }
    }

    pub(crate) fn sample(&mut self) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process)).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|text| text.split_whitespace().next()).and_then(|text| text.parse().ok());
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.process)).map_or(0, Iterator::count);
        if let Some(resident) = resident {
            self.samples.push((self.begin.elapsed().as_secs_f64() / 60.0, resident, descriptors as f64));
        }
    }

    /// The samples after the first third: a process warms up.
    fn warm(&self) -> &[(f64, f64, f64)] {
        &self.samples[self.samples.len() / 3..]
    }

    /// KiB a minute, by least squares.
    fn slope(&self) -> f64 {
        let warm = self.warm();
        let count = warm.len().max(1) as f64;
        let mean = |value: fn(&(f64, f64, f64)) -> f64| warm.iter().map(value).sum::<f64>() / count;
        let (time, memory) = (mean(|sample| sample.0), mean(|sample| sample.1));
        let along: f64 = warm.iter().map(|sample| (sample.0 - time) * (sample.1 - memory)).sum();
        let spread: f64 = warm.iter().map(|sample| (sample.0 - time).powi(2)).sum();
        if spread > 0.0 { along / spread } else { 0.0 }
    }

    /// How many descriptors more than when it was warm.
    fn more_descriptors(&self) -> f64 {
        let warm = self.warm();
        let half = warm.len() / 2;
        let mean =
            |part: &[(f64, f64, f64)]| part.iter().map(|sample| sample.2).sum::<f64>() / part.len().max(1) as f64;
        mean(&warm[half..]) - mean(&warm[..half])
    }

    /// What grew that must not.
    pub(crate) fn growth(&self) -> impl Iterator<Item = String> {
        let memory =
            (self.slope() > MEMORY_KIB_PER_MINUTE).then(|| format!("grows by {:.0} KiB a minute", self.slope()));
        let more = self.more_descriptors();
        memory.into_iter().chain((more > DESCRIPTORS).then(|| format!("has {more:.0} descriptors more")))
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, first, _) = self.samples.first().copied().unwrap_or_default();
        let (_, last, descriptors) = self.samples.last().copied().unwrap_or_default();
        write!(
            f,
            "RSS {:.1} MiB at first, {:.1} MiB at last, slope {:.0} KiB/min; {descriptors:.0} descriptors, {:+.0}",
            first / 1024.0,
            last / 1024.0,
            self.slope(),
            self.more_descriptors()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten minutes of a process, by what it has after so many of them.
    fn minutes(resident: impl Fn(f64) -> f64, descriptors: impl Fn(f64) -> f64) -> Vec<String> {
        let sample = |number: u32| f64::from(number) / 30.0;
        let samples = (0..300).map(sample).map(|at| (at, resident(at), descriptors(at))).collect();
        Usage { process: 0, begin: now(), samples }.growth().collect()
    }

    #[test]
    fn memory_that_grows_is_told() {
        let told = minutes(|at| 20_000.0 + 300.0 * at, |_| 50.0);
        assert_eq!(told, ["grows by 300 KiB a minute"]);
    }

    #[test]
    fn descriptors_that_are_not_given_back_are_told() {
        let told = minutes(|_| 20_000.0, |at| 50.0 + 10.0 * at);
        assert_eq!(told, ["has 33 descriptors more"]);
    }

    #[test]
    fn a_process_that_warms_up_and_breathes_is_sound() {
        let told =
            minutes(|at| 20_000.0 + 8_000.0 * at.min(2.0) + 500.0 * (at * 9.0).sin(), |at| 50.0 + 5.0 * at.sin());
        assert_eq!(told, Vec::<String>::new());
    }
}
