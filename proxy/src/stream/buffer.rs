//! Buffers borrowed from the worker: an idle connection owns none.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// For heads and small bodies.
pub const SMALL: usize = 16 * 1024;
/// For streaming bodies and the largest head ([`crate::http1::MAX_HEAD_BYTES`]) with what another proxy of ours added.
pub const LARGE: usize = 65 * 1024;

/// Free buffers kept per worker; what comes back beyond that is freed, so a burst does not stay in memory.
const SMALL_KEPT: usize = 128;
const LARGE_KEPT: usize = 16;
const TEXTS_KEPT: usize = 128;
/// A text that grew beyond this is freed rather than kept.
const LARGEST_TEXT_KEPT: usize = 2 * SMALL;

#[derive(Default)]
struct Free {
    small: Vec<Box<[u8]>>,
    large: Vec<Box<[u8]>>,
    texts: Vec<Vec<u8>>,
}

/// The counts of all threads, for who looks from outside.
static COUNTS: Mutex<Vec<Arc<AtomicUsize>>> = Mutex::new(Vec::new());

/// Bytes in buffers that connections of this thread hold.
pub fn buffered() -> usize {
    BUFFERED.with(|bytes| bytes.load(Ordering::Relaxed))
}

/// Bytes in buffers that connections of this process hold.
pub fn buffered_in_all() -> usize {
    let counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    counts.iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum()
}

fn counted() -> Arc<AtomicUsize> {
    let bytes = Arc::new(AtomicUsize::new(0));
    COUNTS.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&bytes));
    bytes
}

/// Only this thread writes: no other processor's cache is asked for it.
fn count(change: impl FnOnce(usize) -> usize) {
    BUFFERED.with(|bytes| bytes.store(change(bytes.load(Ordering::Relaxed)), Ordering::Relaxed));
}

thread_local! {
    static BUFFERED: Arc<AtomicUsize> = counted();
    static FREE: RefCell<Free> = RefCell::new(Free::default());
}

/// Buffers of this thread that somebody holds.
#[cfg(test)]
pub(crate) fn lent() -> usize {
    LENT.get()
}

#[cfg(test)]
thread_local! {
    static LENT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

fn take(size: usize) -> Box<[u8]> {
    count(|bytes| bytes + size);
    let kept = FREE.with_borrow_mut(|free| if size == SMALL { free.small.pop() } else { free.large.pop() });
    #[cfg(test)]
    LENT.set(LENT.get() + 1);
    kept.unwrap_or_else(|| vec![0; size].into_boxed_slice())
}

fn give(bytes: Box<[u8]>) {
    if bytes.is_empty() {
        return;
    }
    count(|held| held.saturating_sub(bytes.len()));
    #[cfg(test)]
    LENT.set(LENT.get() - 1);
    FREE.with_borrow_mut(|free| match bytes.len() {
        SMALL if free.small.len() < SMALL_KEPT => free.small.push(bytes),
        LARGE if free.large.len() < LARGE_KEPT => free.large.push(bytes),
        _ => {}
    });
}

/// An empty vector to write a head into.
pub fn take_text() -> Vec<u8> {
    FREE.with_borrow_mut(|free| free.texts.pop()).unwrap_or_else(|| Vec::with_capacity(4096))
}

/// Gives back what [`take_text`] gave.
pub fn give_text(mut text: Vec<u8>) {
    if (1..=LARGEST_TEXT_KEPT).contains(&text.capacity()) {
        text.clear();
        FREE.with_borrow_mut(|free| {
            if free.texts.len() < TEXTS_KEPT {
                free.texts.push(text);
            }
        });
    }
}

/// A text that gives itself back; an empty one owns nothing.
#[derive(Debug, Default)]
pub struct Text(Vec<u8>);

impl Text {
    /// To be written to.
    pub fn begin(&mut self) -> &mut Vec<u8> {
        if self.0.capacity() == 0 {
            self.0 = take_text();
        }
        &mut self.0
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl std::ops::Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        give_text(std::mem::take(&mut self.0));
    }
}

/// Bytes read and not used yet: `bytes[start..end]`.
#[derive(Default)]
pub struct Buffer {
    bytes: Box<[u8]>,
    start: u32,
    end: u32,
    bulk: bool,
}

impl Buffer {
    pub(super) fn data(&self) -> &[u8] {
        &self.bytes[self.start as usize..self.end as usize]
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.start += count as u32;
        debug_assert!(self.start <= self.end, "more consumed than read");
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Nothing is borrowed.
    pub(super) fn owns_nothing(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.data().len() == LARGE
    }

    pub(super) fn expect_bulk(&mut self) {
        self.bulk = true;
    }

    pub(super) fn release(&mut self) {
        if self.start == self.end && !self.bytes.is_empty() {
            self.start = 0;
            self.end = 0;
            self.bulk = false;
            give(std::mem::take(&mut self.bytes));
        }
    }

    /// Where the next bytes are read to; `None` when the largest buffer is full.
    pub(super) fn room(&mut self) -> Option<&mut [u8]> {
        if self.start == self.end {
            let wanted = if self.bulk { LARGE } else { SMALL };
            if self.bytes.len() < wanted {
                let old = std::mem::replace(&mut self.bytes, take(wanted));
                give(old);
            }
        } else if self.end as usize == self.bytes.len() {
            self.make_room();
        }
        let end = self.end as usize;
        (end < self.bytes.len()).then(|| &mut self.bytes[end..])
    }

    /// The end is reached: move the data to the front, or to a larger buffer.
    fn make_room(&mut self) {
        let length = self.data().len();
        if self.start > 0 {
            self.bytes.copy_within(self.start as usize..self.end as usize, 0);
        } else if self.bytes.len() < LARGE {
            let mut larger = take(LARGE);
            larger[..length].copy_from_slice(self.data());
            give(std::mem::replace(&mut self.bytes, larger));
        }
        self.start = 0;
        self.end = length as u32;
    }

    pub(super) fn filled(&mut self, count: usize) {
        self.end += count as u32;
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            give(std::mem::take(&mut self.bytes));
        }
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the bytes: they are other people's traffic.
        write!(f, "Buffer({} of {})", self.data().len(), self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(buffer: &mut Buffer, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = buffer.room().expect("room");
            let count = room.len().min(rest.len());
            room[..count].copy_from_slice(&rest[..count]);
            buffer.filled(count);
            rest = &rest[count..];
        }
    }

    #[test]
    fn data_survives_growth_and_moving() {
        let bytes: Vec<u8> = (0..LARGE).map(|i| (i % 251) as u8).collect();
        let mut buffer = Buffer::default();
        push(&mut buffer, &bytes[..SMALL]);
        buffer.consume(100);
        push(&mut buffer, &bytes[SMALL..]);
        assert_eq!(buffer.data(), &bytes[100..]);
        push(&mut buffer, &bytes[..100]);
        assert!(buffer.is_full());
        assert!(buffer.room().is_none());
    }

    #[test]
    fn an_empty_buffer_owns_no_memory() {
        let mut buffer = Buffer::default();
        push(&mut buffer, b"x");
        buffer.release();
        assert_eq!(buffer.data(), b"x", "data was given away");
        buffer.consume(1);
        buffer.release();
        assert!(buffer.bytes.is_empty());
    }
}
