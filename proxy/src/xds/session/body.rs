//! Bodies of resources as they are held: what differs from another one of their type.
//!
//! A proxy holds the resources of every service of the mesh, and they say nearly the same: a body is a few hundred bytes
//! of which the service's name and addresses are its own. It is kept as pieces of a template and what stands between
//! them. Templates are the first bodies that resembled none before them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

/// Templates of one type: listeners alone come in five shapes (inbound or outbound, by protocol).
const TEMPLATES: usize = 8;

/// Longer bodies are kept whole: they are lists of endpoints, which have little in common, and few.
const LONGEST: usize = 4096;

/// Shortest piece taken from a template: naming one takes two or three bytes.
const SHORTEST: usize = 4;

#[derive(Debug)]
struct Template {
    bytes: Bytes,
    /// Where each [`SHORTEST`] bytes stand first.
    places: HashMap<[u8; SHORTEST], u16>,
}

impl Template {
    /// Of a copy: the body is a slice of a whole response, which would stay in memory with it.
    fn new(body: &[u8]) -> Self {
        let mut places = HashMap::new();
        for (at, window) in body.windows(SHORTEST).enumerate() {
            if let (Ok(window), Ok(at)) = (window.try_into(), u16::try_from(at)) {
                places.entry(window).or_insert(at);
            }
        }
        Self { bytes: Bytes::copy_from_slice(body), places }
    }

    /// One that nothing else is compared with.
    fn alone(body: &[u8]) -> Self {
        Self { bytes: Bytes::copy_from_slice(body), places: HashMap::new() }
    }

    /// Where the longest known piece stands that `rest` begins with, and its length. `expected` is where the piece
    /// before ended: what follows usually follows there too.
    fn piece(&self, rest: &[u8], expected: usize) -> Option<(usize, usize)> {
        let first = self.places.get(rest.get(..SHORTEST)?).map(|&at| usize::from(at));
        let length = |at: usize| {
            let template = self.bytes.get(at..).unwrap_or_default();
            template.iter().zip(rest).take_while(|(one, other)| one == other).count()
        };
        [Some(expected), first]
            .into_iter()
            .flatten()
            .map(|at| (at, length(at)))
            .filter(|&(_, length)| length >= SHORTEST)
            .max_by_key(|&(_, length)| length)
    }

    /// `body` in turns of: how many bytes of its own follow, those, how many of the template, and from where.
    fn difference(&self, body: &[u8]) -> Vec<u8> {
        let (mut out, mut at, mut own, mut expected) = (Vec::new(), 0, 0, 0);
        while at < body.len() {
            let Some((place, length)) = self.piece(&body[at..], expected + (at - own)) else {
                at += 1;
                continue;
            };
            put_number(at - own, &mut out);
            out.extend_from_slice(&body[own..at]);
            put_number(length, &mut out);
            put_number(place, &mut out);
            at += length;
            own = at;
            expected = place + length;
        }
        if own < at {
            put_number(at - own, &mut out);
            out.extend_from_slice(&body[own..]);
        }
        out
    }

    /// `None` for what [`Self::difference`] did not write.
    fn whole(&self, mut difference: &[u8]) -> Option<Vec<u8>> {
        let mut body = Vec::with_capacity(self.bytes.len());
        while !difference.is_empty() {
            let own = take_number(&mut difference)?;
            body.extend_from_slice(difference.get(..own)?);
            difference = &difference[own..];
            if difference.is_empty() {
                break;
            }
            let length = take_number(&mut difference)?;
            let place = take_number(&mut difference)?;
            body.extend_from_slice(self.bytes.get(place..)?.get(..length)?);
        }
        Some(body)
    }
}

/// Seven bits a byte, the lowest first; all but the last have the eighth set.
fn put_number(mut number: usize, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    for shift in (0..usize::BITS).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// A body, packed; cloning is a reference count.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    template: Arc<Template>,
    difference: Arc<[u8]>,
}

impl Packed {
    /// The body as it came.
    pub(super) fn bytes(&self) -> Bytes {
        if self.difference.is_empty() {
            return self.template.bytes.clone();
        }
        // What was packed here can be unpacked; if it ever could not, the resource would be refused as malformed.
        self.template.whole(&self.difference).unwrap_or_default().into()
    }
}

/// The templates of one type.
#[derive(Debug, Default)]
pub(super) struct Templates(Vec<Arc<Template>>);

impl Templates {
    pub(super) fn pack(&mut self, body: &Bytes) -> Packed {
        if body.len() > LONGEST {
            return Packed { template: Arc::new(Template::alone(body)), difference: Arc::default() };
        }
        let all = self.0.iter().map(|template| (template, template.difference(body)));
        let best = all.min_by_key(|(_, difference)| difference.len());
        match best {
            Some((template, difference)) if difference.len() * 2 <= body.len() || self.0.len() == TEMPLATES => {
                // Nothing at all would mean the template itself.
                let difference = if difference.is_empty() { vec![0] } else { difference };
                Packed { template: Arc::clone(template), difference: difference.into() }
            }
            _ => {
                let template = Arc::new(Template::new(body));
                self.0.push(Arc::clone(&template));
                Packed { template, difference: Arc::default() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed_length(packed: &Packed) -> usize {
        packed.difference.len()
    }

    #[test]
    fn bodies_that_differ_in_a_name_take_little_more_than_the_name() {
        let body = |name: &str| Bytes::from(format!("name {name}, then much that all have in common, {name} again"));
        let mut templates = Templates::default();
        for name in ["orders", "carts", "service-1234", "orders"] {
            let packed = templates.pack(&body(name));
            assert_eq!(packed.bytes(), body(name));
            assert!(packed_length(&packed) <= 2 * name.len() + 12, "{name}: {packed:?}");
        }
        assert_eq!(templates.0.len(), 1);
    }

    #[test]
    fn a_body_like_no_other_becomes_a_template_until_there_are_enough() {
        let body = |number: u8| Bytes::from((0..200u8).map(|at| at.wrapping_mul(number) ^ number).collect::<Vec<_>>());
        let mut templates = Templates::default();
        for number in 0..40 {
            assert_eq!(templates.pack(&body(number)).bytes(), body(number), "number {number}");
        }
        assert_eq!(templates.0.len(), TEMPLATES);
    }

    #[test]
    fn a_long_body_is_kept_whole_and_is_no_template() {
        let body = Bytes::from(vec![7; LONGEST + 1]);
        let mut templates = Templates::default();
        let packed = templates.pack(&body);
        assert_eq!(packed.bytes(), body);
        assert_ne!(packed.bytes().as_ptr(), body.as_ptr());
        assert!(templates.0.is_empty());
    }

    #[test]
    fn an_empty_body_stays_one() {
        let mut templates = Templates::default();
        assert!(templates.pack(&Bytes::new()).bytes().is_empty());
        templates.pack(&Bytes::from_static(b"something else"));
        assert!(templates.pack(&Bytes::new()).bytes().is_empty());
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_out_as_it_was(bodies in prop::collection::vec("[ab]{0,40}|\\PC{0,20}", 1..12)) {
            let mut templates = Templates::default();
            let bodies: Vec<_> = bodies.into_iter().map(Bytes::from).collect();
            let packed: Vec<_> = bodies.iter().map(|body| templates.pack(body)).collect();
            for (packed, body) in packed.iter().zip(&bodies) {
                prop_assert_eq!(&packed.bytes(), body);
            }
        }

        #[test]
        fn no_difference_panics(bytes: Vec<u8>, difference: Vec<u8>) {
            let _ = Template::new(&bytes).whole(&difference);
        }
    }
}
