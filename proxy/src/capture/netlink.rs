//! The wire of netlink: messages and attributes in bytes, and one bounded conversation with the kernel's netfilter.
//!
//! Layouts are those of `linux/netlink.h` and `linux/netfilter/nfnetlink.h`. Lengths and kinds are in the machine's byte
//! order; netfilter's own numbers are big-endian.

use std::io;
use std::str;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::CaptureError;

/// The kernel answers within the sending call; waiting at all means that something is broken.
const ANSWER_SECONDS: i64 = 5;
/// The kernel's dumps come in datagrams of at most 32 KiB.
const DATAGRAM: usize = 64 * 1024;
/// Flags of a message: it asks for something, it wants an acknowledgement, it creates what is not there, it adds at the
/// end, it asks for all of a kind.
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
pub(super) const CREATE: u16 = 0x400;
pub(super) const APPEND: u16 = 0x800;
pub(super) const DUMP: u16 = 0x300;
/// The answer's flags: the dump met a change while it ran, an error carries attributes, only the header is echoed in it.
const DUMP_INTERRUPTED: u16 = 0x10;
const ERROR_IS_SHORT: u16 = 0x100;
const ERROR_HAS_ATTRIBUTES: u16 = 0x200;
/// Message kinds of netlink itself, and of a netfilter batch.
const ERROR: u16 = 0x2;
const DONE: u16 = 0x3;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// The netfilter subsystem `nf_tables`.
const NF_TABLES: u16 = 10;
/// Address family of tables for IPv4 and IPv6.
const INET: u8 = 1;
/// A netlink header, and netfilter's after it (family, version, resource).
const HEADER: usize = 16;
const NETFILTER_HEADER: usize = 4;
/// Flags in an attribute's kind (nested, network byte order).
const NESTED: u16 = 0x8000;
const KIND: u16 = 0x3fff;
/// The attribute of an error that holds the kernel's own words.
const ERROR_WORDS: u16 = 1;

/// Attributes in the order in which they were added.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    /// Adds an attribute of raw bytes.
    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).expect("a rule is built of a few hundred bytes at most");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds a number in netfilter's byte order.
    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds a text, terminated as the kernel wants it.
    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// What was built so far.
    #[cfg(test)]
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Adds attributes inside an attribute.
    pub(super) fn nested(self, kind: u16, value: &Attributes) -> Self {
        self.bytes(kind | NESTED, &value.0)
    }
}

/// The attributes in these bytes; ends at the first that does not fit.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [low, high, kind_low, kind_high, ..] = *bytes else { return None };
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([kind_low, kind_high]) & KIND, value))
    })
}

/// The value of the attribute of this kind.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(each, value)| (each == kind).then_some(value))
}

/// The number in the attribute of this kind.
pub(super) fn number(bytes: &[u8], kind: u16) -> Option<u32> {
    attribute(bytes, kind)?.try_into().ok().map(u32::from_be_bytes)
}

/// The text in the attribute of this kind.
pub(super) fn text(bytes: &[u8], kind: u16) -> Option<&str> {
    let value = attribute(bytes, kind)?;
    str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
}

/// One thing asked of `nf_tables`.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// In words, for errors: what is being done.
    pub(super) action: String,
    /// One of the message kinds of `nf_tables`.
    pub(super) kind: u8,
    pub(super) flags: u16,
    pub(super) attributes: Attributes,
}

/// One message of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) kind: u8,
    /// The number of the last change of this namespace's rules, cut to 16 bits.
    pub(super) generation: u16,
    pub(super) attributes: Vec<u8>,
}

/// A datagram with all requests between batch begin and batch end: the kernel does all or nothing.
///
/// Sequence numbers are the positions of the requests, so that an error leads back to its request.
pub(super) fn batch(requests: &[Request]) -> Vec<u8> {
    let mut bytes = Vec::new();
    message(&mut bytes, BATCH_BEGIN, REQUEST, 0, (0, NF_TABLES), &Attributes::default());
    for (position, request) in requests.iter().enumerate() {
        // The last one's acknowledgement tells that all passed; every error is told unasked.
        let acknowledge = if position + 1 == requests.len() { ACKNOWLEDGE } else { 0 };
        let flags = REQUEST | request.flags | acknowledge;
        message(&mut bytes, kind(request), flags, position as u32, (INET, 0), &request.attributes);
    }
    message(&mut bytes, BATCH_END, REQUEST, requests.len() as u32, (0, NF_TABLES), &Attributes::default());
    bytes
}

fn kind(request: &Request) -> u16 {
    NF_TABLES << 8 | u16::from(request.kind)
}

fn message(bytes: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, family: (u8, u16), attributes: &Attributes) {
    let length = (HEADER + NETFILTER_HEADER + attributes.0.len()) as u32;
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&0u32.to_ne_bytes());
    bytes.extend_from_slice(&[family.0, 0]);
    bytes.extend_from_slice(&family.1.to_be_bytes());
    bytes.extend_from_slice(&attributes.0);
}

/// One message in the kernel's datagram.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Data(Answer),
    /// A request went wrong, or (without an errno) is acknowledged.
    Verdict {
        sequence: u32,
        errno: Option<Errno>,
        words: Option<String>,
    },
    /// A dump is complete.
    Done {
        errno: Option<Errno>,
    },
}

/// Takes the first message off the bytes; also tells whether the dump it belongs to met a change and may be inconsistent.
fn hear(bytes: &mut &[u8]) -> Result<(Heard, bool), &'static str> {
    let short = "a message is cut short";
    let header = bytes.first_chunk::<HEADER>().ok_or(short)?;
    let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let (length, kind, flags, sequence) = (word(0) as usize, half(4), half(6), word(8));
    let body = bytes.get(HEADER..length).ok_or(short)?;
    *bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    let heard = match kind {
        ERROR => {
            let (errno, rest) = result(body).ok_or(short)?;
            let echoed = rest.first_chunk::<4>().ok_or(short)?;
            let echo = if flags & ERROR_IS_SHORT == 0 { u32::from_ne_bytes(*echoed) as usize } else { HEADER };
            let words = rest.get(echo.next_multiple_of(4)..).filter(|_| flags & ERROR_HAS_ATTRIBUTES != 0);
            let words = words.and_then(|words| text(words, ERROR_WORDS)).map(str::to_owned);
            Heard::Verdict { sequence, errno, words }
        }
        DONE => Heard::Done { errno: result(body).ok_or(short)?.0 },
        _ if kind >> 8 == NF_TABLES => {
            let [_, _, high, low, attributes @ ..] = body else { return Err(short) };
            let generation = u16::from_be_bytes([*high, *low]);
            Heard::Data(Answer { kind: kind as u8, generation, attributes: attributes.to_vec() })
        }
        _ => return Err("a message is of an unknown kind"),
    };
    Ok((heard, flags & DUMP_INTERRUPTED != 0 && kind != ERROR))
}

/// The negated error number that leads an error or the end of a dump, and what follows it.
fn result(body: &[u8]) -> Option<(Option<Errno>, &[u8])> {
    let (code, rest) = body.split_first_chunk::<4>()?;
    let code = i32::from_ne_bytes(*code);
    Some(((code != 0).then(|| Errno::from_raw(code.wrapping_neg())), rest))
}

/// What a dump brought.
#[derive(Debug)]
pub(super) enum Dump {
    Complete(Vec<Answer>),
    /// Rules changed while they were read.
    Interrupted,
    /// What was asked about is not there.
    Absent,
}

/// A connection to the netfilter of the network namespace of the thread that opened it.
pub(super) struct Conversation {
    socket: Socket,
    heard: Vec<u8>,
}

impl Conversation {
    pub(super) fn open(action: &str) -> Result<Self, CaptureError> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            // Only the kernel is heard from now on.
            socket.connect(&SocketAddr::new(0, 0))?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_SECONDS))?;
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|source| CaptureError::socket(action, source))?;
        Ok(Self { socket, heard: Vec::with_capacity(DATAGRAM) })
    }

    /// Has all requests done, or none.
    pub(super) fn transact(&mut self, requests: &[Request]) -> Result<(), CaptureError> {
        let (Some(first), Some(last)) = (requests.first(), requests.last()) else { return Ok(()) };
        let datagram = batch(requests);
        // A transaction must fit one datagram. Beyond the usual limit takes a right that root of a user namespace lacks.
        let wanted = (2 * datagram.len()).max(DATAGRAM);
        if setsockopt(&self.socket, sockopt::SndBufForce, &wanted).is_err() {
            // What does not fit even so is told by the send.
            let _ = setsockopt(&self.socket, sockopt::SndBuf, &wanted);
        }
        self.send(&datagram, &first.action)?;
        loop {
            self.receive(&last.action)?;
            let mut bytes = self.heard.as_slice();
            while !bytes.is_empty() {
                match hear(&mut bytes).map_err(|problem| malformed(&last.action, problem))?.0 {
                    Heard::Verdict { sequence, errno: Some(errno), words } => {
                        let request = requests.get(sequence as usize).unwrap_or(first);
                        return Err(CaptureError::answered(&request.action, errno, words.as_deref()));
                    }
                    Heard::Verdict { sequence, errno: None, .. } if sequence as usize + 1 == requests.len() => {
                        return Ok(());
                    }
                    _ => {}
                }
            }
        }
    }

    /// Asks for all of a kind, or for one thing (without the flag [`DUMP`]).
    pub(super) fn ask(&mut self, request: &Request) -> Result<Dump, CaptureError> {
        let mut datagram = Vec::new();
        let flags = REQUEST | ACKNOWLEDGE | request.flags;
        message(&mut datagram, kind(request), flags, 0, (INET, 0), &request.attributes);
        self.send(&datagram, &request.action)?;
        let (mut answers, mut interrupted) = (Vec::new(), false);
        loop {
            self.receive(&request.action)?;
            let mut bytes = self.heard.as_slice();
            while !bytes.is_empty() {
                let (heard, doubtful) = hear(&mut bytes).map_err(|problem| malformed(&request.action, problem))?;
                // A doubtful dump is read to its end nevertheless: the socket serves the next question.
                interrupted |= doubtful;
                let end = match heard {
                    Heard::Data(answer) => {
                        answers.push(answer);
                        continue;
                    }
                    Heard::Verdict { errno, words, .. } => errno.map(|errno| (errno, words)),
                    Heard::Done { errno } => errno.map(|errno| (errno, None)),
                };
                return match end {
                    Some((Errno::ENOENT, _)) => Ok(Dump::Absent),
                    Some((Errno::EINTR, _)) => Ok(Dump::Interrupted),
                    Some((errno, words)) => Err(CaptureError::answered(&request.action, errno, words.as_deref())),
                    None if interrupted => Ok(Dump::Interrupted),
                    None => Ok(Dump::Complete(answers)),
                };
            }
        }
    }

    fn send(&self, datagram: &[u8], action: &str) -> Result<(), CaptureError> {
        self.socket.send(datagram, 0).map(drop).map_err(|source| CaptureError::socket(action, source))
    }

    fn receive(&mut self, action: &str) -> Result<(), CaptureError> {
        self.heard.clear();
        let length = loop {
            match self.socket.recv(&mut self.heard, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => break received.map_err(|source| CaptureError::socket(action, source))?,
            }
        };
        if length == 0 { Err(malformed(action, "it is empty")) } else { Ok(()) }
    }
}

fn malformed(action: &str, problem: &'static str) -> CaptureError {
    CaptureError::Malformed { action: action.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_to_four_bytes_but_tell_their_true_length() {
        let inner = Attributes::default().number(2, 0x0102_0304);
        let outer = Attributes::default().text(1, "weft").nested(3, &inner);
        let mut expected = Vec::new();
        expected.extend([9u16.to_ne_bytes(), 1u16.to_ne_bytes()].concat());
        expected.extend(b"weft\0\0\0\0");
        expected.extend([12u16.to_ne_bytes(), 0x8003u16.to_ne_bytes()].concat());
        expected.extend([8u16.to_ne_bytes(), 2u16.to_ne_bytes()].concat());
        expected.extend([1, 2, 3, 4]);
        assert_eq!(outer.0, expected);
        assert_eq!(text(&outer.0, 1), Some("weft"));
        assert_eq!(number(attribute(&outer.0, 3).unwrap(), 2), Some(0x0102_0304));
    }

    #[test]
    fn a_batch_brackets_its_requests_and_asks_for_one_acknowledgement() {
        let request = |kind| Request {
            action: String::new(),
            kind,
            flags: CREATE,
            attributes: Attributes::default().text(1, "weft"),
        };
        let bytes = batch(&[request(0), request(2)]);
        let mut expected = Vec::new();
        for (length, kind, flags, sequence, family, resource) in [
            (20u32, 0x10u16, 0x001u16, 0u32, 0u8, 10u8),
            (32, 0x0a00, 0x401, 0, 1, 0),
            (32, 0x0a02, 0x405, 1, 1, 0),
            (20, 0x11, 0x001, 2, 0, 10),
        ] {
            expected.extend(length.to_ne_bytes());
            expected.extend(kind.to_ne_bytes());
            expected.extend(flags.to_ne_bytes());
            expected.extend(sequence.to_ne_bytes());
            expected.extend([0, 0, 0, 0, family, 0, 0, resource]);
            if length == 32 {
                expected.extend([9u16.to_ne_bytes(), 1u16.to_ne_bytes()].concat());
                expected.extend(b"weft\0\0\0\0");
            }
        }
        assert_eq!(bytes, expected);
    }

    fn datagram(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend([kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
        bytes.extend([7u32.to_ne_bytes(), [0; 4]].concat());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn an_error_is_read_with_its_sequence_and_the_kernels_words() {
        let words = Attributes::default().text(ERROR_WORDS, "no such chain").0;
        let body = [&(-22i32).to_ne_bytes()[..], &[0; HEADER], &words].concat();
        let bytes = datagram(ERROR, ERROR_IS_SHORT | ERROR_HAS_ATTRIBUTES, &body);
        let heard = Heard::Verdict { sequence: 7, errno: Some(Errno::EINVAL), words: Some("no such chain".to_owned()) };
        assert_eq!(hear(&mut bytes.as_slice()), Ok((heard, false)));
    }

    #[test]
    fn an_interrupted_dump_is_told_from_a_complete_one() {
        for (flags, interrupted) in [(0x2, false), (0x2 | DUMP_INTERRUPTED, true)] {
            let bytes = datagram(DONE, flags, &[0; 4]);
            assert_eq!(hear(&mut bytes.as_slice()), Ok((Heard::Done { errno: None }, interrupted)));
        }
    }

    #[test]
    fn bytes_cut_anywhere_are_an_error_and_never_a_panic() {
        let body = [&(-1i32).to_ne_bytes()[..], &[0xff; HEADER], &[0xff; 8]].concat();
        for kind in [ERROR, DONE, NF_TABLES << 8, 0x77] {
            let whole = datagram(kind, 0xffff, &body);
            for length in 0..whole.len() {
                assert!(hear(&mut &whole[..length]).is_err(), "kind {kind:#x} cut to {length}");
            }
            let _ = hear(&mut whole.as_slice());
            assert!(attributes(&whole).count() < whole.len());
        }
    }
}
