//! Fields to blocks, with a table of what is repeated.
//!
//! A field goes into the table when it came out of one: its sender says it with every request, so that the second time is
//! worth remembering. What does not come that way (from HTTP/1, or made here) goes out as it is.
//!
//! A connection carries what many clients say. So nothing goes into its table that is one client's secret, nor what is
//! new with every request: a field that leaks by whether it was repeated (RFC 7541 section 7.1) has to be guessed as a
//! whole. And clients who repeat more than the table holds must not take turns in it: an entry that pushes out others is
//! paid for by earlier ones that were of use.

use super::DEFAULT_TABLE_BYTES;
use super::table::{DynamicTable, STATIC};
use crate::http2::fields::{Field, Fields};
use crate::http2::name::Name;

/// Cookies shorter than this could be guessed by trying what compresses well.
const SHORT_COOKIE_BYTES: usize = 20;
/// No entry takes more of the table than this part.
const SHARE: usize = 4;
/// Where an entry may be found: a table of the default size has room for fewer than half as many.
const SLOTS: usize = 256;
const PROBES: usize = 4;
/// Uses of entries that pay for pushing out one.
const PRICE: u32 = 8;
/// Uses that count at most: a few new fields at once are welcome.
const MOST_CREDIT: u32 = 16 * PRICE;

/// The sending half of a connection's header compression. It is small until something is repeated.
#[derive(Debug, Default)]
pub struct Encoder {
    kept: Option<Box<Kept>>,
}

/// What the peer has been told to remember.
#[derive(Debug)]
struct Kept {
    table: DynamicTable,
    /// Room in the table.
    limit: usize,
    /// The least there was since the peer was told of a change.
    smallest: Option<usize>,
    /// Digests, and numbers of entries in the order of their coming, from 1; empty before the first.
    slots: Vec<(u32, u32)>,
    /// The number of the newest.
    newest: u32,
    credit: u32,
}

impl Encoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// The peer's `SETTINGS_HEADER_TABLE_SIZE`. More than the default is not made use of.
    pub fn set_limit(&mut self, limit: u32) {
        let limit = limit.min(DEFAULT_TABLE_BYTES) as usize;
        if self.kept.as_ref().map_or(DEFAULT_TABLE_BYTES as usize, |kept| kept.limit) != limit {
            let kept = self.kept.get_or_insert_default();
            kept.limit = limit;
            kept.smallest = Some(kept.smallest.map_or(limit, |smallest| smallest.min(limit)));
            kept.table.set_max_size(limit);
        }
    }

    /// Appends the block of all `fields`, which the peer must decode after all earlier ones.
    pub fn encode(&mut self, fields: &Fields, out: &mut Vec<u8>) {
        // A length in three bytes before each name and value is the most that is usual.
        out.reserve(fields.text.len() + 4 * fields.parts.len());
        if let Some(kept) = &mut self.kept
            && let Some(smallest) = kept.smallest.take()
        {
            // RFC 7541 section 4.2: the smallest in between, then the one that holds.
            if smallest < kept.limit {
                integer(0x20, 5, smallest, out);
            }
            integer(0x20, 5, kept.limit, out);
        }
        for field in fields {
            if field.digest == 0 || !may_be_kept(&field) {
                write(&field, out);
            } else if let Some(age) = self.kept.as_mut().and_then(|kept| kept.find(&field)) {
                integer(0x80, 7, STATIC.len() + 1 + age, out);
            } else if let Some(kept) = self.admits(&field) {
                kept.add(&field);
                write_literal(0x40, 6, &field, out);
            } else {
                write(&field, out);
            }
        }
    }

    /// Where the field shall be from now on, if anywhere.
    fn admits(&mut self, field: &Field<'_>) -> Option<&mut Kept> {
        let size = field.name.len() + field.value.len();
        if !field.is_repeated {
            return None;
        }
        let kept = self.kept.get_or_insert_default();
        if size > kept.limit / SHARE {
            return None;
        }
        if !kept.table.has_room(size) {
            kept.credit = kept.credit.checked_sub(PRICE)?;
        }
        Some(kept)
    }
}

impl Default for Kept {
    fn default() -> Self {
        let limit = DEFAULT_TABLE_BYTES as usize;
        let table = DynamicTable::new(limit);
        Self { table, limit, smallest: None, slots: Vec::new(), newest: 0, credit: MOST_CREDIT }
    }
}

impl Kept {
    /// How many entries are newer than that of this field.
    fn find(&mut self, field: &Field<'_>) -> Option<usize> {
        let found = (0..PROBES).find_map(|probe| {
            let &(digest, number) = self.slots.get(slot_of(field.digest, probe))?;
            if digest != field.digest {
                return None;
            }
            let age = self.newest.wrapping_sub(number) as usize;
            let entry = self.table.get(age)?;
            (entry.name_length == field.name.len() && entry.text == field.text).then_some(age)
        });
        self.credit = (self.credit + u32::from(found.is_some())).min(MOST_CREDIT);
        found
    }

    fn add(&mut self, field: &Field<'_>) {
        self.table.insert([field.name, field.value], field.known, field.digest, field.is_checked);
        self.newest = self.newest.wrapping_add(1);
        if self.slots.is_empty() {
            self.slots = vec![(0, 0); SLOTS];
        }
        // The place of the oldest, which is mostly gone already.
        let newest = self.newest;
        let age = |slot: usize| newest.wrapping_sub(self.slots.get(slot).map_or(newest, |&(_, number)| number));
        let place = (0..PROBES).map(|probe| slot_of(field.digest, probe)).max_by_key(|&slot| age(slot));
        if let Some(slot) = place.and_then(|slot| self.slots.get_mut(slot)) {
            *slot = (field.digest, newest);
        }
    }
}

fn slot_of(digest: u32, probe: usize) -> usize {
    ((digest >> 1) as usize + probe) % SLOTS
}

/// Whether a table shared by many clients may hold it.
fn may_be_kept(field: &Field<'_>) -> bool {
    !matches!(field.known, Name::PATH | Name::SET_COOKIE) && !is_sensitive(field)
}

/// Appends the block of all `fields` for a peer that is not to remember any.
#[cfg(any(test, feature = "fuzzing"))]
pub fn encode(fields: &Fields, out: &mut Vec<u8>) {
    for field in fields {
        write(&field, out);
    }
}

/// A field that no table gains by. What must never be in a table stays so at every hop, whatever its text (RFC 7541
/// section 6.2.3).
fn write(field: &Field<'_>, out: &mut Vec<u8>) {
    match whole(field) {
        _ if is_sensitive(field) => write_literal(0x10, 4, field, out),
        Some(number) => out.push(0x80 | number),
        None => write_literal(0x00, 4, field, out),
    }
}

fn write_literal(kind: u8, prefix: u32, field: &Field<'_>, out: &mut Vec<u8>) {
    if field.known.is_static() {
        integer(kind, prefix, field.known.0 as usize, out);
    } else {
        out.push(kind);
        string(field.name, out);
    }
    string(field.value, out);
}

/// The number of the static entry that has this name and value.
fn whole(field: &Field<'_>) -> Option<u8> {
    let number = match field.known {
        Name::METHOD => match field.value {
            b"GET" => 2,
            b"POST" => 3,
            _ => return None,
        },
        Name::PATH => match field.value {
            b"/" => 4,
            b"/index.html" => 5,
            _ => return None,
        },
        Name::SCHEME => match field.value {
            b"http" => 6,
            b"https" => 7,
            _ => return None,
        },
        Name::STATUS => match field.value {
            b"200" => 8,
            b"204" => 9,
            b"206" => 10,
            b"304" => 11,
            b"400" => 12,
            b"404" => 13,
            b"500" => 14,
            _ => return None,
        },
        Name::ACCEPT_ENCODING if field.value == b"gzip, deflate" => 16,
        _ => return None,
    };
    debug_assert_eq!(STATIC[number as usize - 1].text, field.text);
    Some(number)
}

/// No later hop may remember it either (RFC 7541 section 7.1.3).
fn is_sensitive(field: &Field<'_>) -> bool {
    field.sensitive
        || match field.known {
            Name::AUTHORIZATION | Name::PROXY_AUTHORIZATION => true,
            Name::COOKIE => field.value.len() < SHORT_COOKIE_BYTES,
            _ => false,
        }
}

/// Appends `number` in the low `prefix` bits of a byte and as many more as it takes.
#[inline]
fn integer(kind: u8, prefix: u32, number: usize, out: &mut Vec<u8>) {
    let mask = (1usize << prefix) - 1;
    if number < mask {
        out.push(kind | number as u8);
    } else {
        long_integer(kind, mask, number, out);
    }
}

fn long_integer(kind: u8, mask: usize, number: usize, out: &mut Vec<u8>) {
    out.push(kind | mask as u8);
    let mut rest = number - mask;
    while rest > 0x7f {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn string(text: &[u8], out: &mut Vec<u8>) {
    integer(0, 7, text.len(), out);
    out.extend_from_slice(text);
}
