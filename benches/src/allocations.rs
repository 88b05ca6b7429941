//! An allocator that counts what threads allocate while they are watched. Threads that are not cost one look each.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What one thread has allocated. Growing an allocation counts as one.
#[derive(Debug, Default)]
pub struct Tally {
    count: AtomicU64,
    bytes: AtomicU64,
}

/// A reading of a [`Tally`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocated {
    pub count: u64,
    pub bytes: u64,
}

thread_local! {
    // `const` and without a destructor: reading it allocates nothing and works until the thread's last breath.
    static TALLY: Cell<Option<&'static Tally>> = const { Cell::new(None) };
}

impl Tally {
    /// Counts what the calling thread allocates from now on.
    pub fn watch_this_thread(&'static self) {
        TALLY.set(Some(self));
    }

    /// Exact while the watched thread waits.
    pub fn read(&self) -> Allocated {
        Allocated { count: self.count.load(Relaxed), bytes: self.bytes.load(Relaxed) }
    }

    fn add(size: usize) {
        if let Some(tally) = TALLY.get() {
            tally.count.fetch_add(1, Relaxed);
            tally.bytes.fetch_add(size as u64, Relaxed);
        }
    }
}

/// The system's allocator, counted. A program chooses it with `#[global_allocator]`.
#[derive(Debug)]
pub struct Counting;

// SAFETY: every method hands its arguments to `System` unchanged and returns what it returned; counting touches atomics
// and a thread-local cell without a destructor, so it neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Tally::add(layout.size());
        // SAFETY: the caller's promises about `layout` are those `System` wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Tally::add(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Tally::add(size);
        // SAFETY: `pointer` came from `System` with this `layout`, as all of ours do; the caller vouches for `size`.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this `layout`.
        unsafe { System.dealloc(pointer, layout) }
    }
}
