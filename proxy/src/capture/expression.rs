//! The kernel's rule language: a rule is a list of small expressions around registers.
//!
//! Values are those of `linux/netfilter/nf_tables.h`. We use one register and make exactly what `nft` makes of the same
//! text, so that `nft list` shows our rules as if `nft` had loaded them.

use std::net::IpAddr;

use super::netlink::{Attributes, attribute, attributes, number, text};
use super::rules::Cidr;
use super::ruleset::{Condition, Rule, Verdict};

/// Attribute kinds that lists, expressions and data share: an element of a list; an expression's name and its own
/// attributes; a plain value or a verdict inside data; the code inside a verdict.
const ELEMENT: u16 = 1;
const NAME: u16 = 1;
const DATA: u16 = 2;
const VALUE: u16 = 1;
const VERDICT: u16 = 2;
const CODE: u16 = 1;
/// The register of verdicts, and the one we compute in.
const VERDICT_REGISTER: u32 = 0;
const REGISTER: u32 = 1;
/// Keys of `meta`.
const MARK: u32 = 3;
const OUT_INTERFACE: u32 = 7;
const SOCKET_UID: u32 = 10;
const FAMILY: u32 = 15;
const PROTOCOL: u32 = 16;
/// Bases of `payload`.
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// Families and protocol numbers as `meta` gives them.
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const TCP: u8 = 6;
/// TCP's flags: those that tell an opening packet apart, and the opening one (FIN 1, SYN 2, RST 4, ACK 16).
const TCP_FLAGS: u8 = 0x17;
const TCP_OPENING: u8 = 0x02;
/// `NFT_RETURN`: leave the chain; a base chain then accepts.
const RETURN: i32 = -5;
/// `NF_NAT_RANGE_PROTO_SPECIFIED`: the redirect names a port.
const PORT_GIVEN: u32 = 2;

/// One step of the kernel's machine, on our register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    /// Loads a property of the packet or its socket.
    Meta(u32),
    /// Loads bytes of a header.
    Payload { base: u32, offset: u32, length: u32 },
    /// Keeps the bits of the mask.
    Mask(Vec<u8>),
    /// Goes on when the register is (`true`) or is not this value; leaves the rule otherwise.
    Compare(bool, Vec<u8>),
    /// Loads a constant.
    Constant(Vec<u8>),
    /// Decides.
    Decide(i32),
    /// Redirects to the port in the register.
    Redirect,
    /// None of ours.
    Foreign,
}

/// The expressions of a rule.
pub(super) fn compile(rule: &Rule) -> Vec<Expression> {
    let mut list: Vec<_> = rule.conditions.iter().flat_map(condition).collect();
    match rule.verdict {
        Verdict::Leave => list.push(Expression::Decide(RETURN)),
        Verdict::Redirect(port) => {
            list.extend([Expression::Constant(port.to_be_bytes().to_vec()), Expression::Redirect]);
        }
    }
    list
}

fn condition(condition: &Condition) -> Vec<Expression> {
    use Expression::{Compare, Mask, Meta, Payload};
    let tcp = [Meta(PROTOCOL), Compare(true, vec![TCP])];
    match *condition {
        Condition::NotTcp => vec![Meta(PROTOCOL), Compare(false, vec![TCP])],
        Condition::Tcp => tcp.to_vec(),
        Condition::NotOpening => {
            let flags = Payload { base: TRANSPORT_HEADER, offset: 13, length: 1 };
            [&tcp[..], &[flags, Mask(vec![TCP_FLAGS]), Compare(false, vec![TCP_OPENING])]].concat()
        }
        Condition::Port(port) => {
            let destination = Payload { base: TRANSPORT_HEADER, offset: 2, length: 2 };
            [&tcp[..], &[destination, Compare(true, port.to_be_bytes().to_vec())]].concat()
        }
        Condition::OverLoopback => {
            // An interface's name fills 16 bytes.
            let mut name = b"lo".to_vec();
            name.resize(16, 0);
            vec![Meta(OUT_INTERFACE), Compare(true, name)]
        }
        Condition::Destination(network) => address(network, [16, 24]),
        Condition::Source(network) => address(network, [12, 8]),
        Condition::Uid(uid) => vec![Meta(SOCKET_UID), Compare(true, uid.to_ne_bytes().to_vec())],
        Condition::Mark(mark) => vec![Meta(MARK), Compare(true, mark.to_ne_bytes().to_vec())],
    }
}

/// Whether an address of the network stands at its place in the header, which depends on the family.
fn address(network: Cidr, [offset_v4, offset_v6]: [u32; 2]) -> Vec<Expression> {
    let (family, offset, address) = match network.address() {
        IpAddr::V4(address) => (IPV4, offset_v4, address.octets().to_vec()),
        IpAddr::V6(address) => (IPV6, offset_v6, address.octets().to_vec()),
    };
    let mut list = vec![Expression::Meta(FAMILY), Expression::Compare(true, vec![family])];
    if network.prefix() == 0 {
        return list;
    }
    list.push(Expression::Payload { base: NETWORK_HEADER, offset, length: address.len() as u32 });
    let mask = mask(network.prefix(), address.len());
    if mask.iter().any(|byte| *byte != 0xff) {
        list.push(Expression::Mask(mask));
    }
    list.push(Expression::Compare(true, address));
    list
}

/// `length` bytes of which the first `prefix` bits are set.
fn mask(prefix: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|byte| !0xffu8.checked_shr((u32::from(prefix)).saturating_sub(byte as u32 * 8)).unwrap_or(0))
        .collect()
}

/// The expressions as the kernel wants them in a rule.
pub(super) fn encode(list: &[Expression]) -> Attributes {
    list.iter().fold(Attributes::default(), |all, expression| {
        let (name, data) = expression.parts();
        all.nested(ELEMENT, &Attributes::default().text(NAME, name).nested(DATA, &data))
    })
}

/// The expressions in a rule that the kernel shows.
pub(super) fn decode(bytes: &[u8]) -> Vec<Expression> {
    attributes(bytes).map(|(_, element)| Expression::read(element).unwrap_or(Expression::Foreign)).collect()
}

impl Expression {
    fn parts(&self) -> (&'static str, Attributes) {
        let new = Attributes::default;
        let value = |bytes: &[u8]| new().bytes(VALUE, bytes);
        match self {
            Self::Meta(key) => ("meta", new().number(2, *key).number(1, REGISTER)),
            Self::Payload { base, offset, length } => {
                ("payload", new().number(1, REGISTER).number(2, *base).number(3, *offset).number(4, *length))
            }
            Self::Mask(mask) => (
                "bitwise",
                new()
                    .number(1, REGISTER)
                    .number(2, REGISTER)
                    .number(3, mask.len() as u32)
                    .nested(4, &value(mask))
                    .nested(5, &value(&vec![0; mask.len()])),
            ),
            Self::Compare(equal, bytes) => {
                ("cmp", new().number(1, REGISTER).number(2, u32::from(!equal)).nested(3, &value(bytes)))
            }
            Self::Constant(bytes) => ("immediate", new().number(1, REGISTER).nested(2, &value(bytes))),
            Self::Decide(code) => {
                let verdict = new().bytes(CODE, &code.to_be_bytes());
                ("immediate", new().number(1, VERDICT_REGISTER).nested(2, &new().nested(VERDICT, &verdict)))
            }
            Self::Redirect => ("redir", new().number(1, REGISTER).number(3, PORT_GIVEN)),
            // Never made by `compile`; the kernel would refuse it by its name.
            Self::Foreign => ("foreign", new()),
        }
    }

    fn read(element: &[u8]) -> Option<Self> {
        let data = attribute(element, DATA)?;
        let register = |kind| number(data, kind).filter(|register| *register == REGISTER);
        let value = |kind| attribute(attribute(data, kind)?, VALUE).map(<[u8]>::to_vec);
        match text(element, NAME)? {
            "meta" => register(1).and_then(|_| number(data, 2)).map(Self::Meta),
            "payload" => {
                register(1)?;
                Some(Self::Payload { base: number(data, 2)?, offset: number(data, 3)?, length: number(data, 4)? })
            }
            "bitwise" => {
                register(1).and(register(2))?;
                // Newer kernels name the operation; 0 is mask and flip, and we flip nothing.
                let plain = number(data, 6).unwrap_or(0) == 0 && value(5)?.iter().all(|byte| *byte == 0);
                value(4).filter(|_| plain).map(Self::Mask)
            }
            "cmp" => {
                register(1)?;
                number(data, 2)
                    .filter(|operator| *operator <= 1)
                    .zip(value(3))
                    .map(|(op, bytes)| Self::Compare(op == 0, bytes))
            }
            "immediate" if number(data, 1)? == VERDICT_REGISTER => {
                let verdict = attribute(attribute(data, 2)?, VERDICT)?;
                number(verdict, CODE).map(|code| Self::Decide(code.cast_signed()))
            }
            "immediate" => register(1).and_then(|_| value(2)).map(Self::Constant),
            "redir" => register(1).map(|_| Self::Redirect),
            _ => None,
        }
    }
}

/// What stands in a rule, as far as one can tell without checking that it is one of ours.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Gist {
    pub(super) over_loopback: bool,
    pub(super) uid: Option<u32>,
    pub(super) mark: Option<u32>,
    pub(super) port: Option<u16>,
    pub(super) destination: Option<Cidr>,
    pub(super) redirect: Option<u16>,
}

impl Gist {
    /// Whether it is about all connections.
    pub(super) fn is_unconditional(&self) -> bool {
        let Self { over_loopback, uid, mark, port, destination, redirect: _ } = self;
        !over_loopback && uid.is_none() && mark.is_none() && port.is_none() && destination.is_none()
    }
}

/// Reads what a rule is about. Its meaning is certain only once the rules made from it turn out the same.
pub(super) fn gist(list: &[Expression]) -> Gist {
    use Expression::{Compare, Constant, Mask, Meta, Payload, Redirect};
    let word = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_ne_bytes);
    let half = |bytes: &[u8]| bytes.try_into().ok().map(u16::from_be_bytes);
    let mut gist = Gist::default();
    for position in 0..list.len() {
        match &list[position..] {
            [Meta(OUT_INTERFACE), ..] => gist.over_loopback = true,
            [Meta(SOCKET_UID), Compare(_, uid), ..] => gist.uid = word(uid),
            [Meta(MARK), Compare(_, mark), ..] => gist.mark = word(mark),
            [Payload { base: TRANSPORT_HEADER, offset: 2, .. }, Compare(_, port), ..] => gist.port = half(port),
            [Payload { base: NETWORK_HEADER, offset: 16 | 24, .. }, Mask(mask), Compare(_, address), ..] => {
                let prefix = mask.iter().map(|byte| byte.count_ones() as u8).fold(0, u8::saturating_add);
                gist.destination = network(address, prefix);
            }
            [Payload { base: NETWORK_HEADER, offset: 16 | 24, .. }, Compare(_, address), ..] => {
                gist.destination = network(address, (address.len() * 8).min(128) as u8);
            }
            // A whole family: nothing of the address is looked at.
            [Meta(FAMILY), Compare(_, family), next, ..] if !matches!(next, Payload { .. }) => {
                let zeros: &[u8] = if family[..] == [IPV4] { &[0; 4] } else { &[0; 16] };
                gist.destination = network(zeros, 0);
            }
            [Constant(port), Redirect, ..] => gist.redirect = half(port),
            _ => {}
        }
    }
    gist
}

fn network(address: &[u8], prefix: u8) -> Option<Cidr> {
    let address = match address.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
    };
    Cidr::new(address, prefix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(conditions: &[Condition], verdict: Verdict) -> Rule {
        Rule { conditions: conditions.to_vec(), verdict, comment: "" }
    }

    #[test]
    fn a_mask_keeps_exactly_the_leading_bits() {
        for (prefix, bytes) in
            [(0, [0, 0, 0, 0]), (1, [0x80, 0, 0, 0]), (8, [255, 0, 0, 0]), (19, [255, 255, 0xe0, 0]), (32, [255; 4])]
        {
            assert_eq!(mask(prefix, 4), bytes, "/{prefix}");
        }
    }

    #[test]
    fn a_redirect_is_encoded_byte_for_byte_as_nft_does() {
        let list = compile(&rule(&[Condition::Tcp], Verdict::Redirect(15001)));
        let attribute = |kind: u16, value: &[u8]| {
            let mut bytes = [((value.len() + 4) as u16).to_ne_bytes(), kind.to_ne_bytes()].concat();
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let expression = |name: &[u8], data: &[&[u8]]| {
            attribute(0x8001, &[attribute(1, name), attribute(0x8002, &data.concat())].concat())
        };
        let data = |kind: u16, value: &[u8]| attribute(0x8000 | kind, &attribute(1, value));
        let expected = [
            expression(b"meta\0", &[&attribute(2, &[0, 0, 0, 16]), &attribute(1, &[0, 0, 0, 1])]),
            expression(b"cmp\0", &[&attribute(1, &[0, 0, 0, 1]), &attribute(2, &[0, 0, 0, 0]), &data(3, &[6])]),
            expression(b"immediate\0", &[&attribute(1, &[0, 0, 0, 1]), &data(2, &[0x3a, 0x99])]),
            expression(b"redir\0", &[&attribute(1, &[0, 0, 0, 1]), &attribute(3, &[0, 0, 0, 2])]),
        ];
        assert_eq!(encode(&list).as_bytes(), expected.concat());
    }

    #[test]
    fn what_is_encoded_is_read_back_with_its_gist() {
        let network = |text: &str| text.parse::<Cidr>().unwrap();
        let table = [
            (rule(&[Condition::NotTcp], Verdict::Leave), Gist::default()),
            (rule(&[Condition::NotOpening], Verdict::Leave), Gist::default()),
            (
                rule(&[Condition::OverLoopback, Condition::Uid(14001), Condition::Tcp], Verdict::Redirect(15006)),
                Gist { over_loopback: true, uid: Some(14001), redirect: Some(15006), ..Gist::default() },
            ),
            (rule(&[Condition::Mark(7)], Verdict::Leave), Gist { mark: Some(7), ..Gist::default() }),
            (rule(&[Condition::Source(network("127.0.0.0/8"))], Verdict::Leave), Gist::default()),
            (rule(&[Condition::Source(network("::1"))], Verdict::Leave), Gist::default()),
            (rule(&[Condition::Port(22)], Verdict::Leave), Gist { port: Some(22), ..Gist::default() }),
        ];
        let networks = ["0.0.0.0/0", "::/0", "10.0.0.0/9", "192.0.2.7/32", "fd00::/8", "::1/128"].map(|text| {
            let gist = Gist { destination: Some(network(text)), ..Gist::default() };
            (rule(&[Condition::Destination(network(text))], Verdict::Leave), gist)
        });
        for (rule, expected) in table.into_iter().chain(networks) {
            let list = compile(&rule);
            let read = decode(encode(&list).as_bytes());
            assert_eq!(read, list);
            assert_eq!(gist(&read), expected, "{rule:?}");
        }
    }
}
