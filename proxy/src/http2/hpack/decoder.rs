//! Blocks to fields.

use super::table::{DynamicTable, Entry, STATIC};
use super::{DEFAULT_TABLE_BYTES, HpackError, digest, huffman};
use crate::http2::fields::{Fields, HeadLimits, Part};
use crate::http2::name::Name;
use crate::http2::rules::is_well_formed;

/// The receiving half of a connection's header compression.
#[derive(Debug)]
pub struct Decoder {
    table: DynamicTable,
    /// What we advertised: the peer's encoder may choose any size up to it.
    max_table: u32,
}

impl Decoder {
    /// `max_table` is the `SETTINGS_HEADER_TABLE_SIZE` we send. Less than [`DEFAULT_TABLE_BYTES`] counts as that: a
    /// peer may use so much before it has read our settings.
    pub fn new(max_table: u32) -> Self {
        let max_table = max_table.max(DEFAULT_TABLE_BYTES);
        // An encoder that wants more than the default says so (RFC 7541 section 4.2).
        Self { table: DynamicTable::new(DEFAULT_TABLE_BYTES as usize), max_table }
    }

    /// Reads a whole block: the fragments of `HEADERS` and its `CONTINUATION`s together. What `into` held is gone.
    ///
    /// # Errors
    /// [`HpackError::Malformed`] ends the connection. An error that [`HpackError::is_over_limit`] concerns this
    /// block only, of which `into` then holds the part that was within the limits.
    pub fn decode(&mut self, block: &[u8], into: &mut Fields, limits: &HeadLimits) -> Result<(), HpackError> {
        into.clear();
        let mut block = Block { bytes: block, at: 0 };
        let mut within = Ok(());
        let mut size_may_change = true;
        while let Some(first) = block.next() {
            if first & 0xe0 == 0x20 {
                if !size_may_change {
                    return Err(HpackError::Malformed("table size update after a field"));
                }
                let size = block.integer(first, 5)?;
                if size > self.max_table as usize {
                    return Err(HpackError::Malformed("table size above what was advertised"));
                }
                self.table.set_max_size(size);
                continue;
            }
            size_may_change = false;
            let start = into.text.len();
            let mut part = if first & 0x80 != 0 {
                let entry = self.entry(block.integer(first, 7)?)?;
                into.text.extend_from_slice(entry.text);
                Part {
                    name_end: (start + entry.name_length) as u32,
                    digest: entry.digest,
                    name: entry.name,
                    is_repeated: true,
                    is_checked: entry.is_checked,
                    ..Part::default()
                }
            } else {
                self.literal(&mut block, first, into)?
            };
            if within.is_ok() {
                let bytes = into.text.len() + HeadLimits::FIELD_BYTES * (into.parts.len() + 1);
                if bytes > limits.bytes {
                    within = Err(HpackError::TooLong(limits.bytes));
                } else if into.parts.len() >= limits.fields {
                    within = Err(HpackError::TooManyFields(limits.fields));
                } else {
                    part.end = into.text.len() as u32;
                    into.parts.push(part);
                    continue;
                }
            }
            into.text.truncate(start);
        }
        within
    }

    #[cfg(test)]
    pub(super) fn table_mut(&mut self) -> &mut DynamicTable {
        &mut self.table
    }

    /// Appends the text of a literal field, which the table keeps if its encoder says so.
    fn literal(&mut self, block: &mut Block<'_>, first: u8, into: &mut Fields) -> Result<Part, HpackError> {
        let start = into.text.len();
        let is_indexed = first & 0x40 != 0;
        let name = match block.integer(first, if is_indexed { 6 } else { 4 })? {
            0 => {
                block.string(&mut into.text)?;
                Name::of(into.text.get(start..).unwrap_or_default())
            }
            number => {
                let entry = self.entry(number)?;
                into.text.extend_from_slice(entry.text.get(..entry.name_length).unwrap_or_default());
                entry.name
            }
        };
        let name_end = into.text.len();
        block.string(&mut into.text)?;
        let text = into.text.get(start..).unwrap_or_default();
        let name_length = name_end - start;
        let (name_text, value) = text.split_at(name_length);
        let is_checked = is_well_formed(name, name_text, value);
        let mut part =
            Part { name_end: name_end as u32, name, sensitive: first & 0xf0 == 0x10, is_checked, ..Part::default() };
        if is_indexed {
            part.digest = digest(text, name_length);
            self.table.insert([name_text, value], name, part.digest, is_checked);
        }
        Ok(part)
    }

    fn entry(&self, number: usize) -> Result<Entry<'_>, HpackError> {
        let at = number.checked_sub(1).ok_or(HpackError::Malformed("field number 0"))?;
        match STATIC.get(at) {
            Some(entry) => Ok(*entry),
            None => self.table.get(at - STATIC.len()).ok_or(HpackError::Malformed("field number not in the table")),
        }
    }
}

const CUT_OFF: HpackError = HpackError::Malformed("block ends within a field");

/// What is left of a block.
struct Block<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Block<'b> {
    fn next(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// The integer that begins in the low `prefix` bits of `first` (RFC 7541 section 5.1). Four more bytes at most:
    /// nothing in a head is counted in more than 28 bits.
    fn integer(&mut self, first: u8, prefix: u32) -> Result<usize, HpackError> {
        let mask = (1u8 << prefix) - 1;
        let mut number = u32::from(first & mask);
        if number < u32::from(mask) {
            return Ok(number as usize);
        }
        for shift in [0, 7, 14, 21] {
            let byte = self.next().ok_or(CUT_OFF)?;
            number += u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number as usize);
            }
        }
        Err(HpackError::Malformed("integer longer than five bytes"))
    }

    /// Appends a string literal (RFC 7541 section 5.2).
    fn string(&mut self, out: &mut Vec<u8>) -> Result<(), HpackError> {
        let first = self.next().ok_or(CUT_OFF)?;
        let length = self.integer(first, 7)?;
        let rest: &'b [u8] = self.bytes.get(self.at..).unwrap_or_default();
        let text = rest.get(..length).ok_or(CUT_OFF)?;
        self.at += length;
        if first & 0x80 == 0 {
            out.extend_from_slice(text);
            Ok(())
        } else {
            huffman::decode(text, out)
        }
    }
}
