//! The plainest decoder of RFC 7541: one idea a function, nothing fast, no limits.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::http2::hpack::check::{huffman_codes, static_field};

type Pair = (Vec<u8>, Vec<u8>);

/// Symbols by their codes and the lengths of these.
static SYMBOLS: LazyLock<HashMap<(u32, u32), usize>> =
    LazyLock::new(|| huffman_codes().enumerate().map(|(symbol, code)| (code, symbol)).collect());

pub(super) struct Decoder {
    /// Newest first.
    table: Vec<Pair>,
    size: usize,
    max_size: usize,
}

impl Decoder {
    pub(super) fn new(max_size: usize) -> Self {
        Self { table: Vec::new(), size: 4096, max_size }
    }

    /// All fields of a block; `None` when it is malformed.
    pub(super) fn decode(&mut self, mut block: &[u8]) -> Option<Vec<Pair>> {
        let mut fields = Vec::new();
        while let Some(&first) = block.first() {
            if first & 0x80 != 0 {
                let pair = self.entry(integer(&mut block, 7)?)?;
                fields.push(pair);
            } else if first & 0xc0 == 0x40 {
                let pair = self.literal(&mut block, 6)?;
                self.table.insert(0, pair.clone());
                self.evict();
                fields.push(pair);
            } else if first & 0xe0 == 0x20 {
                let size = integer(&mut block, 5)?;
                if !fields.is_empty() || size > self.max_size {
                    return None;
                }
                self.size = size;
                self.evict();
            } else {
                let pair = self.literal(&mut block, 4)?;
                fields.push(pair);
            }
        }
        Some(fields)
    }

    fn evict(&mut self) {
        let size = |table: &[Pair]| table.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>();
        while size(&self.table) > self.size {
            self.table.pop();
        }
    }

    fn entry(&self, number: usize) -> Option<Pair> {
        let at = number.checked_sub(1)?;
        match static_field(at) {
            Some((name, value)) => Some((name.to_vec(), value.to_vec())),
            None => self.table.get(at.checked_sub(61)?).cloned(),
        }
    }

    fn literal(&self, block: &mut &[u8], prefix: u32) -> Option<Pair> {
        let name = match integer(block, prefix)? {
            0 => Self::string(block)?,
            number => self.entry(number)?.0,
        };
        Some((name, Self::string(block)?))
    }

    fn string(block: &mut &[u8]) -> Option<Vec<u8>> {
        let is_coded = block.first()? & 0x80 != 0;
        let length = integer(block, 7)?;
        let text = block.get(..length)?;
        *block = &block[length..];
        if is_coded { decoded(text) } else { Some(text.to_vec()) }
    }
}

/// Huffman-coded text, bit by bit.
fn decoded(coded: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let (mut code, mut length) = (0, 0);
    for bit in coded.iter().flat_map(|byte| (0..8).rev().map(move |shift| u32::from(byte >> shift & 1))) {
        (code, length) = (code << 1 | bit, length + 1);
        match SYMBOLS.get(&(code, length)) {
            Some(256) => return None,
            Some(&symbol) => {
                text.push(symbol as u8);
                (code, length) = (0, 0);
            }
            None => {}
        }
    }
    (length < 8 && code == (1 << length) - 1).then_some(text)
}

/// Takes an integer of up to five bytes.
fn integer(block: &mut &[u8], prefix: u32) -> Option<usize> {
    let (&first, mut rest) = block.split_first()?;
    let mask = (1u8 << prefix) - 1;
    let mut number = usize::from(first & mask);
    if number == usize::from(mask) {
        let end = rest.iter().take(4).position(|byte| byte & 0x80 == 0)?;
        for (at, byte) in rest[..=end].iter().enumerate() {
            number += usize::from(byte & 0x7f) << (7 * at);
        }
        rest = &rest[end + 1..];
    }
    *block = rest;
    Some(number)
}
