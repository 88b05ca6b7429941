//! Canonical encoding: the same message always gives the same bytes.
//!
//! The generated types keep protobuf maps in hash maps, and those iterate in another order in every process. An
//! unordered map would change a resource's bytes, and with them its version, although nothing changed: every proxy
//! would be sent everything again after each restart. So the encoded message is rewritten with the entries of
//! each map in order. The wire format does not tell a map from a repeated field, whose order means something; hence
//! the table of where the maps are. [`super::Resource::new`] checks in debug builds that the table misses none.

use std::borrow::Cow;

use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};
use weft_proto::names;

/// What the value of a field holds, as far as maps are concerned.
enum Shape {
    /// A message with these fields of interest; others are copied.
    Message(&'static [(u64, &'static Shape)]),
    /// A map with values of this shape.
    Map(&'static Shape),
    /// A `google.protobuf.Any`.
    Any,
    /// Nothing of interest within.
    Opaque,
}

use Shape::{Any, Map, Message, Opaque};

// google.protobuf
static STRUCT: Shape = Message(&[(1, &Map(&VALUE))]);
static VALUE: Shape = Message(&[(5, &STRUCT), (6, &Message(&[(1, &VALUE)]))]);

// envoy.config.core.v3
static METADATA: Shape = Message(&[(1, &Map(&STRUCT)), (2, &Map(&Any))]);
static TYPED_EXTENSION: Shape = Message(&[(2, &Any)]);

// envoy.config.endpoint.v3
static LB_ENDPOINT: Shape = Message(&[(3, &METADATA)]);
static LOCALITY: Shape = Message(&[(2, &LB_ENDPOINT), (9, &METADATA)]);
static LOAD_ASSIGNMENT: Shape = Message(&[(2, &LOCALITY), (5, &Map(&Opaque))]);

// envoy.config.cluster.v3
static TRANSPORT_SOCKET: Shape = Message(&[(3, &Any)]);
static TRANSPORT_SOCKET_MATCH: Shape = Message(&[(2, &STRUCT), (3, &TRANSPORT_SOCKET)]);
static LOAD_BALANCING_POLICY: Shape = Message(&[(1, &Message(&[(4, &TYPED_EXTENSION)]))]);
static CLUSTER: Shape = Message(&[
    (24, &TRANSPORT_SOCKET),
    (25, &METADATA),
    (33, &LOAD_ASSIGNMENT),
    (36, &Map(&Any)),
    (41, &LOAD_BALANCING_POLICY),
    (43, &TRANSPORT_SOCKET_MATCH),
]);

// envoy.config.route.v3
static WEIGHTED_CLUSTER: Shape = Message(&[(3, &METADATA), (10, &Map(&Any))]);
static ROUTE_ACTION: Shape = Message(&[(3, &Message(&[(1, &WEIGHTED_CLUSTER)])), (4, &METADATA)]);
static ROUTE: Shape = Message(&[(2, &ROUTE_ACTION), (4, &METADATA), (13, &Map(&Any))]);
static VIRTUAL_HOST: Shape = Message(&[(3, &ROUTE), (15, &Map(&Any)), (24, &METADATA)]);
static ROUTE_CONFIGURATION: Shape = Message(&[(2, &VIRTUAL_HOST), (16, &Map(&Any)), (17, &METADATA)]);

// envoy.config.listener.v3
static FILTER: Shape = Message(&[(4, &Any)]);
static FILTER_CHAIN: Shape = Message(&[(3, &FILTER), (5, &METADATA), (6, &TRANSPORT_SOCKET)]);
static LISTENER: Shape = Message(&[(3, &FILTER_CHAIN), (6, &METADATA), (9, &FILTER), (25, &FILTER_CHAIN)]);
static HTTP_CONNECTION_MANAGER: Shape = Message(&[(4, &ROUTE_CONFIGURATION), (5, &FILTER)]);
static TCP_PROXY: Shape = Message(&[(9, &METADATA)]);

fn shape_of(type_url: &[u8]) -> &'static Shape {
    const TABLE: [(&str, &Shape); 6] = [
        (names::CLUSTER, &CLUSTER),
        (names::ENDPOINTS, &LOAD_ASSIGNMENT),
        (names::LISTENER, &LISTENER),
        (names::ROUTE, &ROUTE_CONFIGURATION),
        (names::HTTP_CONNECTION_MANAGER, &HTTP_CONNECTION_MANAGER),
        (names::TCP_PROXY, &TCP_PROXY),
    ];
    TABLE.iter().find(|(known, _)| known.as_bytes() == type_url).map_or(&Opaque, |(_, shape)| shape)
}

/// The encoded message of type `type_url` with its maps in order.
///
/// Bytes that are no well-formed message come back as they are: an `Any` may hold anything.
pub(super) fn canonical(type_url: &str, encoded: &[u8]) -> Vec<u8> {
    reorder(shape_of(type_url.as_bytes()), encoded).into_owned()
}

fn reorder<'a>(shape: &Shape, encoded: &'a [u8]) -> Cow<'a, [u8]> {
    let reordered = match shape {
        Opaque => None,
        Message(fields) => reorder_message(fields, encoded),
        Any => reorder_any(encoded),
        // An entry of a map: a message of key and value.
        Map(value) => reorder_message(&[(2, value)], encoded),
    };
    reordered.map_or(Cow::Borrowed(encoded), Cow::Owned)
}

fn reorder_message(fields: &[(u64, &Shape)], encoded: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(encoded.len());
    let mut entries: Vec<Vec<u8>> = Vec::new();
    let mut entries_of = 0;
    for field in Fields(encoded) {
        let field = field?;
        if entries_of != field.number {
            write_entries(&mut out, entries_of, &mut entries);
        }
        let shape = fields.iter().find(|(number, _)| *number == field.number).map(|(_, shape)| *shape);
        match (shape, field.payload) {
            (Some(shape @ Map(_)), Some(payload)) => {
                entries_of = field.number;
                entries.push(reorder(shape, payload).into_owned());
            }
            (Some(shape), Some(payload)) => write_field(&mut out, field.number, &reorder(shape, payload)),
            _ => out.extend_from_slice(field.raw),
        }
    }
    write_entries(&mut out, entries_of, &mut entries);
    Some(out)
}

fn reorder_any(encoded: &[u8]) -> Option<Vec<u8>> {
    let mut shape = &Opaque;
    for field in Fields(encoded) {
        if let Field { number: 1, payload: Some(type_url), .. } = field? {
            shape = shape_of(type_url);
        }
    }
    reorder_message(&[(2, shape)], encoded)
}

/// Entries start with their key, so the order of their bytes is an order by key.
fn write_entries(out: &mut Vec<u8>, number: u64, entries: &mut Vec<Vec<u8>>) {
    entries.sort_unstable();
    for entry in entries.drain(..) {
        write_field(out, number, &entry);
    }
}

fn write_field(out: &mut Vec<u8>, number: u64, payload: &[u8]) {
    out.reserve(2 * encoded_len_varint(u64::MAX) + payload.len());
    encode_varint(number << 3 | LENGTH_DELIMITED, out);
    encode_varint(payload.len() as u64, out);
    out.extend_from_slice(payload);
}

const LENGTH_DELIMITED: u64 = 2;

/// One field on the wire.
struct Field<'a> {
    number: u64,
    /// Tag and value.
    raw: &'a [u8],
    /// The value of a length-delimited field.
    payload: Option<&'a [u8]>,
}

/// The fields of a message; `None` where the bytes are no message.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<Field<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = next_field(self.0);
        self.0 = field.as_ref().map_or(&[], |field| &self.0[field.raw.len()..]);
        Some(field)
    }
}

fn next_field(input: &[u8]) -> Option<Field<'_>> {
    let mut rest = input;
    let tag = decode_varint(&mut rest).ok()?;
    let mut payload = None;
    match tag & 7 {
        0 => {
            decode_varint(&mut rest).ok()?;
        }
        1 => rest = rest.get(8..)?,
        LENGTH_DELIMITED => {
            let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
            payload = Some(rest.get(..length)?);
            rest = &rest[length..];
        }
        5 => rest = rest.get(4..)?,
        _ => return None,
    }
    Some(Field { number: tag >> 3, raw: &input[..input.len() - rest.len()], payload })
}
