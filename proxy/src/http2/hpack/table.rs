//! The tables fields are looked up in by number: the standard's, and what an encoder added.

use std::collections::VecDeque;

use crate::http2::name::Name;

/// A field of a table: its name and value side by side.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'t> {
    pub(super) text: &'t [u8],
    pub(super) name_length: usize,
    pub(super) name: Name,
    /// Zero in the standard's table, whose entries have numbers for good.
    pub(super) digest: u32,
    pub(super) is_checked: bool,
}

/// What an entry counts over its text (RFC 7541 section 4.1).
const ENTRY_OVERHEAD: usize = 32;

const fn entry(text: &'static [u8], name_length: usize, first: u8) -> Entry<'static> {
    Entry { text, name_length, name: Name(first), digest: 0, is_checked: true }
}

/// RFC 7541 appendix A; numbers begin at 1.
#[rustfmt::skip]
pub(super) static STATIC: [Entry<'static>; 61] = [
    entry(b":authority", 10, 1),
    entry(b":methodGET", 7, 2),
    entry(b":methodPOST", 7, 2),
    entry(b":path/", 5, 4),
    entry(b":path/index.html", 5, 4),
    entry(b":schemehttp", 7, 6),
    entry(b":schemehttps", 7, 6),
    entry(b":status200", 7, 8),
    entry(b":status204", 7, 8),
    entry(b":status206", 7, 8),
    entry(b":status304", 7, 8),
    entry(b":status400", 7, 8),
    entry(b":status404", 7, 8),
    entry(b":status500", 7, 8),
    entry(b"accept-charset", 14, 15),
    entry(b"accept-encodinggzip, deflate", 15, 16),
    entry(b"accept-language", 15, 17),
    entry(b"accept-ranges", 13, 18),
    entry(b"accept", 6, 19),
    entry(b"access-control-allow-origin", 27, 20),
    entry(b"age", 3, 21),
    entry(b"allow", 5, 22),
    entry(b"authorization", 13, 23),
    entry(b"cache-control", 13, 24),
    entry(b"content-disposition", 19, 25),
    entry(b"content-encoding", 16, 26),
    entry(b"content-language", 16, 27),
    entry(b"content-length", 14, 28),
    entry(b"content-location", 16, 29),
    entry(b"content-range", 13, 30),
    entry(b"content-type", 12, 31),
    entry(b"cookie", 6, 32),
    entry(b"date", 4, 33),
    entry(b"etag", 4, 34),
    entry(b"expect", 6, 35),
    entry(b"expires", 7, 36),
    entry(b"from", 4, 37),
    entry(b"host", 4, 38),
    entry(b"if-match", 8, 39),
    entry(b"if-modified-since", 17, 40),
    entry(b"if-none-match", 13, 41),
    entry(b"if-range", 8, 42),
    entry(b"if-unmodified-since", 19, 43),
    entry(b"last-modified", 13, 44),
    entry(b"link", 4, 45),
    entry(b"location", 8, 46),
    entry(b"max-forwards", 12, 47),
    entry(b"proxy-authenticate", 18, 48),
    entry(b"proxy-authorization", 19, 49),
    entry(b"range", 5, 50),
    entry(b"referer", 7, 51),
    entry(b"refresh", 7, 52),
    entry(b"retry-after", 11, 53),
    entry(b"server", 6, 54),
    entry(b"set-cookie", 10, 55),
    entry(b"strict-transport-security", 25, 56),
    entry(b"transfer-encoding", 17, 57),
    entry(b"user-agent", 10, 58),
    entry(b"vary", 4, 59),
    entry(b"via", 3, 60),
    entry(b"www-authenticate", 16, 61),
];

/// The name and the value of the entry at `at`, from zero.
#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::http2) fn static_field(at: usize) -> Option<(&'static [u8], &'static [u8])> {
    STATIC.get(at).map(|entry| entry.text.split_at(entry.name_length))
}

/// An entry of the dynamic table: where its text begins in all text ever held, and its lengths.
#[derive(Debug, Clone, Copy)]
struct Held {
    start: u64,
    length: u32,
    name_length: u32,
    digest: u32,
    name: Name,
    is_checked: bool,
}

impl Held {
    fn size(self) -> usize {
        self.length as usize + ENTRY_OVERHEAD
    }
}

/// The dynamic table. Texts are appended to one buffer; when it has grown to a quarter more than the table may hold,
/// what was evicted is cut off its front. Every connection keeps one: room matters more than a rare move.
#[derive(Debug, Default)]
pub(super) struct DynamicTable {
    text: Vec<u8>,
    /// Bytes that were cut off the front of `text` so far.
    cut: u64,
    /// Newest first.
    held: VecDeque<Held>,
    size: u32,
    max_size: u32,
}

impl DynamicTable {
    pub(super) fn new(max_size: usize) -> Self {
        Self { max_size: max_size as u32, ..Self::default() }
    }

    /// The entry that was added `age` additions ago.
    pub(super) fn get(&self, age: usize) -> Option<Entry<'_>> {
        let held = self.held.get(age)?;
        let start = held.start.checked_sub(self.cut)? as usize;
        let text = self.text.get(start..)?.get(..held.length as usize)?;
        let Held { name_length, name, digest, is_checked, .. } = *held;
        Some(Entry { text, name_length: name_length as usize, name, digest, is_checked })
    }

    /// An entry of so much text goes in without another one going out.
    pub(super) fn has_room(&self, text: usize) -> bool {
        self.size as usize + text + ENTRY_OVERHEAD <= self.max_size as usize
    }

    pub(super) fn set_max_size(&mut self, max_size: usize) {
        self.max_size = max_size as u32;
        self.evict(0);
    }

    /// Adds an entry; one that is larger than the table empties it (RFC 7541 section 4.4).
    pub(super) fn insert(&mut self, [name, value]: [&[u8]; 2], known: Name, digest: u32, is_checked: bool) {
        let length = name.len() + value.len();
        let size = length.saturating_add(ENTRY_OVERHEAD);
        self.evict(size);
        if size > self.max_size as usize {
            return;
        }
        self.make_room(length);
        let start = self.cut + self.text.len() as u64;
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(value);
        self.size += size as u32;
        self.held.push_front(Held {
            start,
            length: length as u32,
            name_length: name.len() as u32,
            digest,
            name: known,
            is_checked,
        });
    }

    /// Makes room for `coming` bytes.
    fn evict(&mut self, coming: usize) {
        while (self.size as usize).saturating_add(coming) > self.max_size as usize
            && let Some(oldest) = self.held.pop_back()
        {
            self.size -= oldest.size() as u32;
        }
        if self.held.is_empty() {
            self.cut += self.text.len() as u64;
            self.text.clear();
        }
    }

    /// Makes room for `coming` more bytes of text, which fit with those that are held.
    fn make_room(&mut self, coming: usize) {
        const FIRST_BYTES: usize = 256;
        let most = (self.max_size + self.max_size / 4) as usize;
        if self.text.len() + coming > most {
            self.cut_evicted();
        }
        let needed = self.text.len() + coming;
        if needed > self.text.capacity() {
            let capacity = (2 * self.text.capacity()).max(FIRST_BYTES).min(most).max(needed);
            self.text.reserve_exact(capacity - self.text.len());
        }
    }

    fn cut_evicted(&mut self) {
        let first = self.held.back().map_or(self.cut + self.text.len() as u64, |oldest| oldest.start);
        let evicted = (first.saturating_sub(self.cut) as usize).min(self.text.len());
        self.text.drain(..evicted);
        self.cut += evicted as u64;
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size as usize
    }

    #[cfg(test)]
    pub(super) fn storage(&self) -> usize {
        self.text.capacity()
    }
}
