//! A header block in order: one text for all names and values, and where each ends.
//!
//! The storage of a dropped block is kept by its thread for the next one: in steady state nothing is allocated.

use std::cell::RefCell;

use super::name::Name;
use crate::http1::{MAX_FIELDS, MAX_HEAD_BYTES};

/// Blocks a thread keeps the storage of: two for each stream of a busy connection.
const KEPT_BLOCKS: usize = 256;
/// Storage that grew over this is given back: one large head must not be paid for ever.
const KEPT_TEXT_BYTES: usize = 8 * 1024;
const KEPT_PARTS: usize = 256;

thread_local! {
    static FREE: RefCell<Vec<(Vec<u8>, Vec<Part>)>> = const { RefCell::new(Vec::new()) };
}

/// How large a head may be. Both count fields as HTTP/1 writes them, so that a head that came in by HTTP/1 can go
/// on by HTTP/2 and back; `SETTINGS_MAX_HEADER_LIST_SIZE` (32 bytes a field) of the same number asks for less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Names and values, and four bytes for each field.
    pub bytes: usize,
    /// Pseudo-fields included.
    pub fields: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        // `:method`, `:scheme` and `:path` stand for the request line, `:authority` for `Host`.
        Self { bytes: MAX_HEAD_BYTES, fields: MAX_FIELDS + 3 }
    }
}

impl HeadLimits {
    /// What one field counts.
    pub(super) const FIELD_BYTES: usize = b": \r\n".len();
}

/// One field of a block.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Part {
    /// End of the name in the text; it begins where the field before ended.
    pub(super) name_end: u32,
    /// End of the value, which follows the name.
    pub(super) end: u32,
    /// Of the entry that its sender made of it in a table, else zero: see [`super::hpack`].
    pub(super) digest: u32,
    pub(super) name: Name,
    pub(super) sensitive: bool,
    /// It came as a reference to an entry.
    pub(super) is_repeated: bool,
    /// Name and value were seen to be well-formed when it was read.
    pub(super) is_checked: bool,
}

/// A header block.
pub struct Fields {
    pub(super) text: Vec<u8>,
    pub(super) parts: Vec<Part>,
}

/// A field inside its block.
#[derive(Clone, Copy)]
pub struct Field<'f> {
    pub name: &'f [u8],
    pub value: &'f [u8],
    /// Never to be indexed by a compressor (RFC 7541 section 7.1.3).
    pub sensitive: bool,
    /// Name and value side by side.
    pub(super) text: &'f [u8],
    pub(super) known: Name,
    pub(super) digest: u32,
    pub(super) is_repeated: bool,
    pub(super) is_checked: bool,
}

impl Fields {
    /// An empty block, in storage that is used again when there is some.
    pub fn new() -> Self {
        let (text, parts) = FREE.try_with(|free| free.try_borrow_mut().ok()?.pop()).ok().flatten().unwrap_or_default();
        Self { text, parts }
    }

    pub fn clear(&mut self) {
        self.text.clear();
        self.parts.clear();
    }

    pub fn len(&self) -> usize {
        self.parts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Appends a field as it is given: nothing is checked here.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_known(Name::of(name), name, value, false);
    }

    /// Appends a field that no compressor may remember.
    pub fn push_sensitive(&mut self, name: &[u8], value: &[u8]) {
        self.push_known(Name::of(name), name, value, true);
    }

    /// Appends a field whose name was looked up before.
    pub(super) fn push_known(&mut self, known: Name, name: &[u8], value: &[u8], sensitive: bool) {
        self.text.extend_from_slice(name);
        let name_end = self.text.len();
        self.text.extend_from_slice(value);
        self.end_part(known, name_end, sensitive);
    }

    /// Appends a field of another block as it is.
    pub(super) fn push_field(&mut self, field: &Field<'_>) {
        self.push_known(field.known, field.name, field.value, field.sensitive);
        if let Some(part) = self.parts.last_mut() {
            part.digest = field.digest;
            part.is_repeated = field.is_repeated;
            part.is_checked = field.is_checked;
        }
    }

    /// Makes a field of the text after the last one. Texts stay far below 4 GiB: heads have limits.
    pub(super) fn end_part(&mut self, name: Name, name_end: usize, sensitive: bool) {
        let end = self.text.len() as u32;
        self.parts.push(Part { name_end: name_end as u32, end, name, sensitive, ..Part::default() });
    }

    pub fn iter(&self) -> Iter<'_> {
        Iter { text: &self.text, parts: self.parts.iter(), start: 0 }
    }

    /// The value of the first field of this name, which is lower case.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let known = Name::of(name);
        let is_it = |field: &Field<'_>| field.known == known && (known.is_one_spelling() || field.name == name);
        self.iter().find(is_it).map(|field| field.value)
    }

    /// The size RFC 7541 section 4.1 gives it: 32 bytes a field over names and values.
    pub fn list_size(&self) -> usize {
        self.text.len() + 32 * self.parts.len()
    }
}

impl Default for Fields {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for Fields {
    fn clone(&self) -> Self {
        let mut copy = Self::new();
        copy.text.extend_from_slice(&self.text);
        copy.parts.extend_from_slice(&self.parts);
        copy
    }
}

impl Drop for Fields {
    fn drop(&mut self) {
        let (mut text, mut parts) = (std::mem::take(&mut self.text), std::mem::take(&mut self.parts));
        if text.capacity() == 0 || text.capacity() > KEPT_TEXT_BYTES || parts.capacity() > KEPT_PARTS {
            return;
        }
        text.clear();
        parts.clear();
        // A thread that ends has no list any more: its storage is simply given back.
        let _ = FREE.try_with(|free| {
            if let Ok(mut free) = free.try_borrow_mut()
                && free.len() < KEPT_BLOCKS
            {
                free.push((text, parts));
            }
        });
    }
}

/// The same fields in the same order; known names and sensitivity do not count.
impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
            && self.parts.len() == other.parts.len()
            && self.parts.iter().zip(&other.parts).all(|(a, b)| (a.name_end, a.end) == (b.name_end, b.end))
    }
}

impl Eq for Fields {}

impl std::fmt::Debug for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Credentials do not belong in logs.
impl std::fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hidden = self.sensitive || matches!(self.known, Name::AUTHORIZATION | Name::COOKIE);
        let value = if hidden { "(hidden)".into() } else { String::from_utf8_lossy(self.value) };
        write!(f, "{}: {value}", String::from_utf8_lossy(self.name))
    }
}

impl<'f> IntoIterator for &'f Fields {
    type Item = Field<'f>;
    type IntoIter = Iter<'f>;

    fn into_iter(self) -> Iter<'f> {
        self.iter()
    }
}

/// The fields of a block in order.
#[derive(Debug, Clone)]
pub struct Iter<'f> {
    text: &'f [u8],
    parts: std::slice::Iter<'f, Part>,
    start: usize,
}

impl<'f> Iterator for Iter<'f> {
    type Item = Field<'f>;

    fn next(&mut self) -> Option<Field<'f>> {
        let part = self.parts.next()?;
        let (start, name_end, end) = (self.start, part.name_end as usize, part.end as usize);
        self.start = end;
        // Parts are made only by `end_part`, over the text as it stands: the ranges are within it.
        let text = self.text.get(start..end)?;
        let (name, value) = text.split_at_checked(name_end - start)?;
        let Part { digest, name: known, sensitive, is_repeated, is_checked, .. } = *part;
        Some(Field { name, value, sensitive, text, known, digest, is_repeated, is_checked })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.parts.size_hint()
    }
}

impl ExactSizeIterator for Iter<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> Fields {
        let mut fields = Fields::new();
        fields.push(b":method", b"GET");
        fields.push_sensitive(b"authorization", b"secret");
        fields.push(b"x", b"");
        fields
    }

    #[test]
    fn a_block_keeps_its_fields_and_their_order() {
        let fields = block();
        let seen: Vec<_> = fields.iter().map(|field| (field.name, field.value, field.sensitive)).collect();
        let expected: [(&[u8], &[u8], bool); 3] =
            [(b":method", b"GET", false), (b"authorization", b"secret", true), (b"x", b"", false)];
        assert_eq!(seen, expected);
        assert_eq!((fields.len(), fields.is_empty()), (3, false));
        assert_eq!(fields.list_size(), 7 + 3 + 13 + 6 + 1 + 3 * 32);
        assert_eq!(fields.get(b"x"), Some(&b""[..]));
        assert_eq!(fields.get(b"y"), None);
        assert_eq!(fields.clone(), fields);
    }

    #[test]
    fn a_dropped_block_gives_its_storage_to_the_next() {
        let fields = block();
        let text = fields.text.as_ptr();
        drop(fields);
        let next = Fields::new();
        assert!(next.is_empty() && next.text.is_empty());
        assert_eq!(next.text.as_ptr(), text);
        let mut large = Fields::new();
        large.push(b"x", &[b'y'; KEPT_TEXT_BYTES + 1]);
        drop(large);
        assert!(Fields::new().text.capacity() <= KEPT_TEXT_BYTES);
    }

    #[test]
    fn credentials_are_not_shown() {
        let mut fields = block();
        fields.push(b"cookie", b"secret");
        assert!(!format!("{fields:?}").contains("secret"));
    }
}
