//! The name of a request, by which its traces through the mesh are found.

use weft_core::model::Direction;

use super::Service;

/// A random UUID (RFC 9562 version 4) as text.
pub(super) type RequestId = [u8; 36];

/// The first proxy names the request; those behind it keep the name.
pub(super) fn for_request(service: &Service<'_>) -> Option<RequestId> {
    match service.direction {
        Direction::Outbound => Some(service.worker.chance(draw)),
        Direction::Inbound => None,
    }
}

/// Two digits for each byte.
const DIGITS: [[u8; 2]; 256] = {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        digits[byte] = [HEX[byte >> 4], HEX[byte & 0xf]];
        byte += 1;
    }
    digits
};

fn draw(chance: &mut fastrand::Rng) -> RequestId {
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let bits = chance.u128(..) & !(0xf << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let mut text = [b'-'; 36];
    for (place, byte) in PLACES.into_iter().zip(bits.to_be_bytes()) {
        let [high, low] = DIGITS[usize::from(byte)];
        text[place] = high;
        text[place + 1] = low;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_a_version_4_uuid() {
        let mut chance = fastrand::Rng::with_seed(7);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            let id = String::from_utf8(draw(&mut chance).to_vec()).expect("text");
            let groups: Vec<_> = id.split('-').map(str::len).collect();
            assert_eq!(groups, [8, 4, 4, 4, 12]);
            assert_eq!(&id[14..15], "4");
            assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"));
            assert!(seen.insert(id));
        }
    }
}
