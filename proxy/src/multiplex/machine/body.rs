//! What a stream has received and nobody has used yet.

use std::collections::VecDeque;

use crate::stream::{give_text, take_text};

/// Bytes that lie together, at most: one frame of the usual size.
const CHUNK: usize = 16 * 1024;

/// Received bytes in recycled chunks; empty, it owns none. Bounded by the stream's window.
#[derive(Debug, Default)]
pub(super) struct Body {
    chunks: VecDeque<Vec<u8>>,
    /// Bytes of the first chunk that were used.
    start: usize,
    length: usize,
}

/// The first chunk of a body, out of the machine while somebody uses it.
#[derive(Debug, Default)]
pub(in crate::multiplex) struct Lent {
    chunk: Vec<u8>,
    start: usize,
}

impl Lent {
    pub(in crate::multiplex) fn data(&self) -> &[u8] {
        self.chunk.get(self.start..).unwrap_or_default()
    }
}

impl Body {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len();
        while !bytes.is_empty() {
            if self.chunks.back().is_none_or(|last| last.len() >= CHUNK) {
                self.chunks.push_back(take_text());
            }
            if let Some(last) = self.chunks.back_mut() {
                let (now, later) = bytes.split_at(bytes.len().min(CHUNK - last.len()));
                last.extend_from_slice(now);
                bytes = later;
            }
        }
    }

    /// Takes the first chunk out until [`settle`](Self::settle).
    pub(super) fn lend(&mut self) -> Lent {
        let chunk = self.chunks.pop_front().unwrap_or_default();
        let lent = Lent { chunk, start: std::mem::take(&mut self.start) };
        self.length -= lent.data().len();
        lent
    }

    /// Puts back what is left after `used` bytes, and says how many were used indeed.
    pub(super) fn settle(&mut self, mut lent: Lent, used: usize) -> usize {
        let had = lent.data().len();
        let used = used.min(had);
        if used == had {
            give_text(lent.chunk);
        } else {
            lent.start += used;
            self.length += had - used;
            self.start = lent.start;
            self.chunks.push_front(lent.chunk);
        }
        used
    }

    /// Drops everything and says how much that was.
    pub(super) fn clear(&mut self) -> usize {
        self.start = 0;
        self.chunks.drain(..).for_each(give_text);
        std::mem::take(&mut self.length)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in_whatever_the_steps() {
        let mut chance = fastrand::Rng::with_seed(5);
        let mut body = Body::default();
        let (mut pushed, mut seen) = (0u32, 0u32);
        for _ in 0..2000 {
            let count = chance.usize(0..20_000);
            let bytes: Vec<u8> = (0..count).map(|i| (pushed.wrapping_add(i as u32) % 251) as u8).collect();
            body.push(&bytes);
            pushed += count as u32;
            while body.len() > 100_000 || (chance.bool() && !body.is_empty()) {
                let lent = body.lend();
                assert!(!lent.data().is_empty());
                let used = chance.usize(0..=lent.data().len());
                for byte in &lent.data()[..used] {
                    assert_eq!(*byte, (seen % 251) as u8);
                    seen += 1;
                }
                assert_eq!(body.settle(lent, used), used);
            }
            assert_eq!(body.len() as u32, pushed - seen);
        }
        assert_eq!(body.clear() as u32, pushed - seen);
        assert!(body.chunks.is_empty());
    }
}
