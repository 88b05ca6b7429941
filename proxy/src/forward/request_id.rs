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

fn draw(chance: &mut fastrand::Rng) -> RequestId {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bits = chance.u128(..) & !(0xf << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let mut text = [b'-'; 36];
    let mut shift = 128;
    for (at, byte) in text.iter_mut().enumerate() {
        if !matches!(at, 8 | 13 | 18 | 23) {
            shift -= 4;
            *byte = HEX[(bits >> shift & 0xf) as usize];
        }
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
