//! Amounts of processor and memory, as Kubernetes writes them.

use std::fmt;
use std::str::FromStr;

/// Suffixes, and what they multiply by: a numerator in billionths, so that the smallest is whole.
const SUFFIXES: [(&str, u128); 16] = [
    ("n", 1),
    ("u", 1_000),
    ("m", 1_000_000),
    ("", BILLION),
    ("k", 1_000 * BILLION),
    ("M", 1_000_000 * BILLION),
    ("G", 1_000_000_000 * BILLION),
    ("T", 1_000_000_000_000 * BILLION),
    ("P", 1_000_000_000_000_000 * BILLION),
    ("E", 1_000_000_000_000_000_000 * BILLION),
    ("Ki", BILLION << 10),
    ("Mi", BILLION << 20),
    ("Gi", BILLION << 30),
    ("Ti", BILLION << 40),
    ("Pi", BILLION << 50),
    ("Ei", BILLION << 60),
];
const BILLION: u128 = 1_000_000_000;

/// An amount such as `10m`, `0.5` or `16Mi`. Kept as it was written, compared by its worth.
#[derive(Debug, Clone)]
pub struct Quantity {
    text: String,
    billionths: u128,
}

/// A text that is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no amount as Kubernetes writes them, such as 10m, 0.5 or 16Mi")]
pub struct QuantityError(String);

impl Quantity {
    /// Rounded up.
    pub fn whole(&self) -> u128 {
        self.billionths.div_ceil(BILLION)
    }

    pub fn is_less_than(&self, other: &Self) -> bool {
        self.billionths < other.billionths
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let worth = billionths(text).ok_or_else(|| QuantityError(text.chars().take(64).collect()))?;
        Ok(Self { text: text.to_owned(), billionths: worth })
    }
}

/// `None` for what Kubernetes would refuse, for what is negative, and for what no machine has.
fn billionths(text: &str) -> Option<u128> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || fraction.contains('.') || whole.len() + fraction.len() > 18 {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let (factor, exponent) = match SUFFIXES.iter().find(|(name, _)| *name == suffix) {
        Some((_, factor)) => (*factor, 0),
        None => (BILLION, suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok().filter(|by| by.abs() <= 18)?),
    };
    let shift = exponent - i32::try_from(fraction.len()).ok()?;
    let power = 10_u128.checked_pow(shift.unsigned_abs())?;
    let scaled = digits.checked_mul(factor)?;
    // Kubernetes rounds up too.
    if shift < 0 { Some(scaled.div_ceil(power)) } else { scaled.checked_mul(power) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_worth_what_kubernetes_says() {
        for (text, worth) in [
            ("10m", 10_000_000),
            ("0.5", 500_000_000),
            (".5", 500_000_000),
            ("2", 2 * BILLION),
            ("2.", 2 * BILLION),
            ("1.5Ki", 1536 * BILLION),
            ("16Mi", 16 * 1_048_576 * BILLION),
            ("1e3", 1_000 * BILLION),
            ("1E-3", 1_000_000),
            ("1E", 1_000_000_000_000_000_000 * BILLION),
            ("0.1n", 1),
            ("0", 0),
        ] {
            assert_eq!(text.parse::<Quantity>().map(|quantity| quantity.billionths), Ok(worth), "{text}");
        }
        let whole = |text: &str| text.parse::<Quantity>().map(|quantity| quantity.whole());
        assert_eq!((whole("1500m"), whole("1"), whole("1m")), (Ok(2), Ok(1), Ok(1)));
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        let long = "1".repeat(19);
        for text in ["", ".", "m", "-1", "+1", "1.2.3", "10 m", "10mi", "1K", "ten", "1e", "1e99", "0x10", &long] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }
}
