//! Regular expressions as xDS and the Gateway API call them safe: the time is linear in the text, whatever they are.
//!
//! The syntax is RE2's, in which classes such as `\d` and `\w` mean ASCII; there are no look-arounds and no references
//! back. The size of what a pattern is compiled into is bounded, so that one route cannot eat a proxy's memory.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

/// Longest pattern, in bytes. 4096: what the Gateway API allows for the value of a header.
pub const MAX_BYTES: usize = 4096;

/// Bytes a compiled pattern may take. 256 KiB: hundreds of alternatives, or a bounded repetition of a class.
const MAX_COMPILED: usize = 256 * 1024;

/// A pattern that a whole text matches or does not.
#[derive(Clone)]
pub struct Pattern {
    text: Box<str>,
    regex: Regex,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    #[error("it has {0} bytes, more than {MAX_BYTES}")]
    TooLong(usize),
    #[error("it needs more than {} KiB when compiled; repeat less", MAX_COMPILED / 1024)]
    TooLarge,
    #[error("{0}")]
    Syntax(String),
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// When it is not one, or too much of one.
    pub fn new(text: &str) -> Result<Self, InvalidPattern> {
        if text.len() > MAX_BYTES {
            return Err(InvalidPattern::TooLong(text.len()));
        }
        // Compiled by itself first: within the group a closing parenthesis too many would look like its end.
        build(text)?;
        Ok(Self { text: text.into(), regex: build(&format!(r"\A(?:{text})\z"))? })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }
}

fn build(text: &str) -> Result<Regex, InvalidPattern> {
    let built = RegexBuilder::new(text).unicode(false).size_limit(MAX_COMPILED).dfa_size_limit(MAX_COMPILED).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => InvalidPattern::TooLarge,
        // Its last line says what is wrong; those before draw the place.
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            InvalidPattern::Syntax(last.strip_prefix("error: ").unwrap_or(last).to_owned())
        }
    })
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_text_must_match() {
        for (pattern, text, expected) in [
            ("a|ab", "ab", true),
            ("a|b", "ab", false),
            ("v[0-9]+", "v12", true),
            ("v[0-9]+", "xv12", false),
            ("v[0-9]+", "v12\n", false),
            (r"\d", "\u{663}", false),
            ("(?i)beta", "BeTa", true),
            ("", "", true),
            ("", "a", false),
            (".*é", "café", true),
            ("a$|b", "a", true),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().matches(text.as_bytes()), expected, "{pattern:?} on {text:?}");
        }
    }

    #[test]
    fn what_is_no_pattern_or_too_much_of_one_is_refused() {
        for text in ["(", "a)|(b", "[", r"(a)\1", "(?=a)", "(?<!a)b", "*"] {
            assert!(matches!(Pattern::new(text), Err(InvalidPattern::Syntax(_))), "{text:?}");
        }
        assert_eq!(Pattern::new(&"a".repeat(5000)), Err(InvalidPattern::TooLong(5000)));
        assert_eq!(Pattern::new("(a{100}){100}{100}"), Err(InvalidPattern::TooLarge));
    }

    #[test]
    fn an_expression_that_is_slow_elsewhere_is_not_here() {
        let pattern = Pattern::new("(a*)*b").unwrap();
        assert!(!pattern.matches("a".repeat(60_000).as_bytes()));
    }
}
