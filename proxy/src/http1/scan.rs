//! Whether a head that is not complete yet is worth reading again.
//!
//! The first look parses at once. After that, bytes are only searched for the end of a head, each once, and parsed again
//! when it is there, or when they have doubled (so that what is malformed is refused early). All work together stays
//! proportional to the head, however small the pieces it comes in.

/// Progress through the bytes of one head.
#[derive(Debug, Default)]
pub struct HeadScan {
    /// Bytes searched.
    searched: usize,
    /// Bytes there were when they were parsed last.
    parsed: usize,
}

impl HeadScan {
    /// True when `bytes`, which begin as they did the last time, should be parsed.
    pub fn should_parse(&mut self, bytes: &[u8]) -> bool {
        // The end of a head is at most `\n\r\n`: two of its bytes may have come before.
        let fresh = bytes.get(self.searched.saturating_sub(2)..).unwrap_or_default();
        let is_first = self.parsed == 0;
        let has_doubled = bytes.len() / 2 >= self.parsed;
        if bytes.len() <= self.searched || !(is_first || has_doubled || has_end(fresh)) {
            self.searched = self.searched.max(bytes.len());
            return false;
        }
        self.searched = bytes.len();
        self.parsed = bytes.len();
        true
    }

    /// The first `count` bytes are gone.
    pub fn consumed(&mut self, count: usize) {
        self.searched = self.searched.saturating_sub(count);
        self.parsed = self.parsed.saturating_sub(count);
    }
}

fn has_end(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|at| {
        let rest = bytes.get(at + 1..).unwrap_or_default();
        rest.starts_with(b"\r\n") || rest.starts_with(b"\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_comes_byte_by_byte_is_parsed_a_few_times() {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "x".repeat(60_000)).into_bytes();
        let mut scan = HeadScan::default();
        let parsed: Vec<usize> = (1..=head.len()).filter(|&end| scan.should_parse(&head[..end])).collect();
        assert_eq!(parsed.last(), Some(&head.len()), "the whole head is parsed");
        assert!(parsed.len() <= 18, "{parsed:?}");
    }

    #[test]
    fn the_end_is_found_however_it_is_cut() {
        for end in ["\r\n\r\n", "\n\n", "\r\n\n", "\n\r\n"] {
            let text = format!("GET / HTTP/1.1\r\nHost: abcdefghijklmnopqrstuvwxyz{end}");
            for cut in 40..text.len() {
                let mut scan = HeadScan::default();
                assert!(scan.should_parse(&text.as_bytes()[..cut]));
                assert!(scan.should_parse(text.as_bytes()), "{end:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_has_not_grown_is_not_parsed_again() {
        let mut scan = HeadScan::default();
        assert!(!scan.should_parse(b""));
        assert!(scan.should_parse(b"GET / "));
        assert!(!scan.should_parse(b"GET / "));
    }
}
