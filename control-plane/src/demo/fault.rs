//! What makes a replica of the shop slow or failing, read from its environment.

use std::str::FromStr;
use std::time::Duration;

/// A setting that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FaultError {
    #[error("`{0}` is not a duration; write a number with its unit, such as 200ms, 5s or 1m")]
    Duration(String),
    #[error(
        "`{0}` is not a failure rule; write a fraction such as 20%, or a burst such as 5s/20s (5 of every 20 seconds)"
    )]
    Failing(String),
}

/// Reads `200ms`, `1.5s`, `2m`.
///
/// # Errors
/// When the unit is missing or unknown, or the number is negative, not finite or above a day.
pub fn duration(text: &str) -> Result<Duration, FaultError> {
    let invalid = || FaultError::Duration(text.to_owned());
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(invalid)?;
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(invalid()),
    };
    let number: f64 = number.parse().map_err(|_| invalid())?;
    let value = number * seconds;
    if !(0.0..=86_400.0).contains(&value) {
        return Err(invalid());
    }
    Ok(Duration::from_secs_f64(value))
}

/// How long every answer is delayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slow(pub Duration);

impl FromStr for Slow {
    type Err = FaultError;
    fn from_str(text: &str) -> Result<Self, FaultError> {
        duration(text).map(Self)
    }
}

/// When answers are errors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Failing {
    /// This fraction of the answers, 0 to 1.
    Fraction(f64),
    /// Every answer during the last `failing` of every `period`, so that a fresh start is healthy.
    Burst { failing: Duration, period: Duration },
}

impl Failing {
    /// Whether the answer given `running` after the start fails; `chance` is uniform in 0..1.
    pub fn fails(self, running: Duration, chance: f64) -> bool {
        match self {
            Self::Fraction(fraction) => chance < fraction,
            Self::Burst { failing, period } => {
                let position = running.as_nanos().checked_rem(period.as_nanos()).unwrap_or(0);
                position >= period.saturating_sub(failing).as_nanos()
            }
        }
    }
}

impl FromStr for Failing {
    type Err = FaultError;
    fn from_str(text: &str) -> Result<Self, FaultError> {
        let invalid = || FaultError::Failing(text.to_owned());
        if let Some(number) = text.strip_suffix('%') {
            let percent: f64 = number.parse().map_err(|_| invalid())?;
            return if (0.0..=100.0).contains(&percent) { Ok(Self::Fraction(percent / 100.0)) } else { Err(invalid()) };
        }
        let (failing, period) = text.split_once('/').ok_or_else(invalid)?;
        let failing = duration(failing).map_err(|_| invalid())?;
        let period = duration(period).map_err(|_| invalid())?;
        if period.is_zero() || failing > period {
            return Err(invalid());
        }
        Ok(Self::Burst { failing, period })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_number_and_a_known_unit() {
        let good = [("200ms", 200), ("1.5s", 1500), ("2m", 120_000), ("0s", 0), ("24h", 86_400_000)];
        for (text, millis) in good {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "ms", "-1s", "1d", "1 s", "infs", "nans", "NaNs", "25h", "1e999s", "1s2", "é"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn failure_rules_are_a_fraction_or_a_burst() {
        assert_eq!("20%".parse(), Ok(Failing::Fraction(0.2)));
        let burst = Failing::Burst { failing: Duration::from_secs(4), period: Duration::from_secs(12) };
        assert_eq!("4s/12s".parse(), Ok(burst));
        for text in ["", "20", "101%", "-1%", "nan%", "5s/4s", "1s/0s", "/", "5s", "5/20"] {
            assert!(text.parse::<Failing>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_burst_ends_each_period() {
        let rule: Failing = "4s/12s".parse().unwrap();
        let table = [(0, false), (7_999, false), (8_000, true), (11_999, true), (12_000, false), (20_000, true)];
        for (millis, fails) in table {
            assert_eq!(rule.fails(Duration::from_millis(millis), 0.0), fails, "{millis} ms");
        }
    }

    #[test]
    fn a_fraction_fails_by_chance_alone() {
        let rule = Failing::Fraction(0.2);
        assert!(rule.fails(Duration::ZERO, 0.19));
        assert!(!rule.fails(Duration::ZERO, 0.2));
        assert!(!Failing::Fraction(0.0).fails(Duration::ZERO, 0.0));
        assert!(Failing::Fraction(1.0).fails(Duration::ZERO, 0.999_999));
    }
}
