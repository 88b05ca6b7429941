//! The code of RFC 7541 appendix B. It is canonical: the lengths alone say the codes, and the tables are made of them.

use super::HpackError;

/// Bits of each byte's code, and of the end mark's (256).
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];

const END_MARK: u16 = 256;
const LONGEST: usize = 30;
/// Codes up to this length are found by one look: all of plain text but `#`, `$`, `@` and a few other marks.
const QUICK_BITS: usize = 10;

/// All that decoding needs.
struct Code {
    /// By the next bits: the byte and, above it, its length; zero when the code is longer.
    quick: [u16; 1 << QUICK_BITS],
    /// By length: one past the last code of that length, as the first bits of 32.
    limits: [u32; LONGEST + 1],
    /// By length: what to subtract from a code to find its place in `symbols`.
    offsets: [u32; LONGEST + 1],
    /// In the order of their codes.
    symbols: [u16; 257],
}

static CODE: Code = build();

const fn build() -> Code {
    let mut code =
        Code { quick: [0; 1 << QUICK_BITS], limits: [0; LONGEST + 1], offsets: [0; LONGEST + 1], symbols: [0; 257] };
    let (mut next, mut place, mut length) = (0u32, 0usize, 1usize);
    while length <= LONGEST {
        next <<= 1;
        code.offsets[length] = next.wrapping_sub(place as u32);
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                code.symbols[place] = symbol as u16;
                if length <= QUICK_BITS {
                    let first = (next as usize) << (QUICK_BITS - length);
                    let mut at = first;
                    while at < first + (1 << (QUICK_BITS - length)) {
                        code.quick[at] = (length as u16) << 8 | symbol as u16;
                        at += 1;
                    }
                }
                next += 1;
                place += 1;
            }
            symbol += 1;
        }
        code.limits[length] = ((next as u64) << (32 - length)).saturating_sub(1) as u32;
        length += 1;
    }
    code
}

/// Appends the text that `coded` stands for.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
    let start = out.len();
    // The shortest code has 5 bits: there is room for every symbol that can come.
    out.resize(start + coded.len() * 8 / 5 + 1, 0);
    let mut room = out.get_mut(start..).unwrap_or_default().iter_mut();
    let mut bits = Bits { coded, next: 0, count: 0 };
    loop {
        bits.fill();
        while bits.count >= LONGEST {
            if !decode_one(&mut bits, &mut room)? {
                return Err(HpackError::Malformed("Huffman-coded text"));
            }
        }
        if bits.coded.is_empty() {
            while decode_one(&mut bits, &mut room)? {}
            break;
        }
    }
    let unused = room.len();
    out.truncate(out.len() - unused);
    // What is left is no code: it must be the beginning of the end mark, which is all ones.
    if bits.count > 7 || bits.next != !(u64::MAX >> bits.count) {
        return Err(HpackError::Malformed("padding of Huffman-coded text"));
    }
    Ok(())
}

/// Moves one symbol to `room`; false when what is left is not a whole code.
#[inline]
fn decode_one(bits: &mut Bits<'_>, room: &mut std::slice::IterMut<'_, u8>) -> Result<bool, HpackError> {
    let found = CODE.quick[(bits.next >> (64 - QUICK_BITS)) as usize];
    let (symbol, length) =
        if found == 0 { long_code((bits.next >> 32) as u32) } else { (found & 0xff, usize::from(found >> 8)) };
    if length > bits.count {
        return Ok(false);
    }
    if symbol == END_MARK {
        return Err(HpackError::Malformed("the end mark inside Huffman-coded text"));
    }
    let Some(place) = room.next() else { return Ok(false) };
    *place = symbol as u8;
    bits.next <<= length;
    bits.count -= length;
    Ok(true)
}

/// The bits not yet used.
struct Bits<'c> {
    /// Of these none is in `next`.
    coded: &'c [u8],
    /// From the top; zeros follow.
    next: u64,
    count: usize,
}

impl Bits<'_> {
    /// Takes as many whole bytes as there is room for: 57 bits at least while there are any.
    #[inline]
    fn fill(&mut self) {
        if let Some(eight) = self.coded.first_chunk::<8>() {
            let taken = (64 - self.count) / 8;
            let whole = u64::from_be_bytes(*eight);
            // Zeros where the last byte would be cut.
            self.next |= (whole & u64::MAX.unbounded_shl(64 - 8 * taken as u32)) >> self.count;
            self.count += 8 * taken;
            self.coded = self.coded.get(taken..).unwrap_or_default();
            return;
        }
        while self.count <= 56
            && let Some((&byte, rest)) = self.coded.split_first()
        {
            self.next |= u64::from(byte) << (56 - self.count);
            self.count += 8;
            self.coded = rest;
        }
    }
}

/// The symbol at the front of `bits`, whose code is longer than one look shows, and its length.
#[cold]
fn long_code(bits: u32) -> (u16, usize) {
    let length = (QUICK_BITS + 1..=LONGEST).find(|&length| bits <= CODE.limits[length]).unwrap_or(LONGEST);
    let place = (bits >> (32 - length)).wrapping_sub(CODE.offsets[length]);
    // All codes of 30 bits are in use, the last for the end mark.
    (CODE.symbols.get(place as usize).copied().unwrap_or(END_MARK), length)
}

/// The code of each symbol and its length, the end mark's last.
#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::http2) fn codes() -> impl Iterator<Item = (u32, u32)> {
    LENGTHS.iter().enumerate().map(|(symbol, &length)| {
        let before = |&(other, &shorter): &(usize, &u8)| (shorter, other) < (length, symbol);
        // Codes of one length follow each other; a step to a longer one doubles.
        let all = LENGTHS.iter().enumerate().filter(before);
        let code: u32 = all.map(|(_, &shorter)| 1 << (length - shorter)).sum();
        (code, u32::from(length))
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The plainest encoder, to test with.
    pub(in crate::http2) fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits = String::new();
        for &byte in text {
            bits.push_str(&code_of(usize::from(byte)));
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        bits.as_bytes().chunks(8).map(|octet| octet.iter().fold(0, |all, &bit| all << 1 | (bit - b'0'))).collect()
    }

    fn code_of(symbol: usize) -> String {
        let (code, length) = codes().nth(symbol).expect("every symbol");
        format!("{code:0width$b}", width = length as usize)
    }

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, HpackError> {
        let mut out = Vec::new();
        decode(coded, &mut out).map(|()| out)
    }

    #[test]
    fn codes_are_those_of_the_standard() {
        // Of RFC 7541 appendix B: the first and last of some lengths.
        for (symbol, code) in [
            (usize::from(b'0'), "00000"),
            (usize::from(b't'), "01001"),
            (usize::from(b' '), "010100"),
            (usize::from(b':'), "1011100"),
            (usize::from(b'&'), "11111000"),
            (usize::from(b'!'), "1111111000"),
            (usize::from(b'|'), "11111111100"),
            (usize::from(b'#'), "111111111010"),
            (0, "1111111111000"),
            (usize::from(b'\\'), "1111111111111110000"),
            (255, "11111111111111111111101110"),
            (249, "1111111111111111111111111110"),
            (256, "111111111111111111111111111111"),
        ] {
            assert_eq!(code_of(symbol), code, "symbol {symbol}");
        }
    }

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decoded(&encode(&all)), Ok(all.clone()));
        for byte in all {
            for count in 1..=9 {
                let text = vec![byte; count];
                assert_eq!(decoded(&encode(&text)), Ok(text));
            }
        }
        assert_eq!(decoded(b""), Ok(Vec::new()));
    }

    #[test]
    fn padding_is_less_than_a_byte_of_ones() {
        assert_eq!(decoded(&[0b0000_0111]), Ok(b"0".to_vec()));
        for bad in [&[0b0000_0110][..], &[0b0000_0011], &[0b0000_0111, 0xff], &[0xff], &[0xff, 0xff, 0xff, 0xff]] {
            assert!(decoded(bad).is_err(), "{bad:02x?}");
        }
        // The end mark whole, then padding.
        assert!(decoded(&[0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(decoded(&[0b0000_0111, 0xff, 0xff, 0xff, 0xff]).is_err());
    }
}
