//! Header blocks that are always the same (RFC 7541).

/// One list of fields in its three encodings.
#[derive(Debug)]
pub(super) struct Block {
    /// Puts the fields into the peer's table.
    first: Vec<u8>,
    /// Finds them there.
    later: Vec<u8>,
    /// For a peer whose table is too small.
    literal: Vec<u8>,
}

/// A field's name: one of the static table, or in letters.
#[derive(Debug, Clone, Copy)]
pub(super) enum Name<'a> {
    Static(u8),
    Letters(&'a str),
}

impl Block {
    /// `fixed`: fields that are one byte each from the static table, already encoded.
    pub(super) fn new(fixed: &[u8], fields: &[(Name<'_>, &str)]) -> Self {
        let mut block = Self { first: fixed.to_vec(), later: fixed.to_vec(), literal: vec![0x20] };
        block.literal.extend_from_slice(fixed);
        for (place, (name, value)) in fields.iter().enumerate() {
            write(0x40, 6, *name, value, &mut block.first);
            write(0x00, 4, *name, value, &mut block.literal);
            // The newest field has the lowest index, after the 61 of the static table.
            integer(62 + fields.len() - 1 - place, 0x80, 7, &mut block.later);
        }
        block
    }

    /// The encoding for a peer whose table has `table` bytes, and holds these fields already or not.
    pub(super) fn encoded(&self, table: u32, is_known: bool) -> &[u8] {
        match (table >= 4096, is_known) {
            (false, _) => &self.literal,
            (true, false) => &self.first,
            (true, true) => &self.later,
        }
    }
}

/// A field of the static table's names or of letters, not to be put into the table.
pub(super) fn literal(name: Name<'_>, value: &str, out: &mut Vec<u8>) {
    write(0x00, 4, name, value, out);
}

fn write(kind: u8, prefix: u32, name: Name<'_>, value: &str, out: &mut Vec<u8>) {
    match name {
        Name::Static(index) => integer(usize::from(index), kind, prefix, out),
        Name::Letters(letters) => {
            out.push(kind);
            string(letters, out);
        }
    }
    string(value, out);
}

fn string(text: &str, out: &mut Vec<u8>) {
    integer(text.len(), 0, 7, out);
    out.extend_from_slice(text.as_bytes());
}

/// RFC 7541 section 5.1.
fn integer(value: usize, kind: u8, prefix: u32, out: &mut Vec<u8>) {
    let most = (1_usize << prefix) - 1;
    if value < most {
        out.push(kind | value as u8);
        return;
    }
    out.push(kind | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        out.push(0x80 | (rest % 128) as u8);
        rest /= 128;
    }
    out.push(rest as u8);
}

/// Whether an answer's block begins with status 200, after what it may say of the table's size.
pub(super) fn is_ok(mut block: &[u8]) -> bool {
    while let Some((&byte, rest)) = block.split_first() {
        match byte {
            0x88 => return true,
            0x3f => {
                let end = rest.iter().position(|byte| byte & 0x80 == 0).map_or(rest.len(), |last| last + 1);
                block = &rest[end..];
            }
            0x20..0x3f => block = rest,
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_those_of_the_rfc() {
        let mut out = Vec::new();
        integer(10, 0, 5, &mut out);
        integer(1337, 0, 5, &mut out);
        assert_eq!(out, [10, 31, 154, 10]);
    }

    #[test]
    fn the_status_is_found_behind_changes_of_the_table() {
        for (block, ok) in [
            (&[0x88][..], true),
            (&[0x20, 0x88], true),
            (&[0x3f, 0xe1, 0x1f, 0x88], true),
            (&[0x8d], false),
            (&[0x3f], false),
        ] {
            assert_eq!(is_ok(block), ok, "{block:?}");
        }
    }

    #[test]
    fn later_blocks_refer_to_what_the_first_put_there() {
        let block = Block::new(&[0x82], &[(Name::Static(4), "/"), (Name::Letters("a"), "b")]);
        assert_eq!(block.encoded(4096, false), [0x82, 0x44, 1, b'/', 0x40, 1, b'a', 1, b'b']);
        assert_eq!(block.encoded(4096, true), [0x82, 0xbf, 0xbe]);
        assert_eq!(block.encoded(0, true), [0x20, 0x82, 0x04, 1, b'/', 0, 1, b'a', 1, b'b']);
    }
}
