//! What supervisor and proxy say to each other, byte by byte.
//!
//! A packet is one message: a byte for its kind, then its fields in order. Numbers are in network order; a text is its
//! length in two bytes and its UTF-8. A receiver ignores kinds it does not know and bytes after the fields it knows: that
//! is how later versions may say more. Fields are never removed, and their order never changes.

/// The version spoken here. It is told on both sides; so far there is one.
pub const PROTOCOL: u16 = 1;
/// Largest packet: a full batch of listeners with long names.
pub(super) const MAX_PACKET: usize = 64 << 10;
/// Descriptors in one packet: the kernel takes 253.
pub(super) const MAX_DESCRIPTORS: usize = 64;
/// Longest text in bytes; longer ones are cut when they are sent.
const MAX_TEXT: usize = 400;

/// Why a packet cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum MessageError {
    #[error("a packet of the handover is empty")]
    Empty,
    #[error("a packet of the handover ends in the middle of a field")]
    Short,
    #[error("a text in a packet of the handover is not UTF-8")]
    Text,
    #[error("a packet of the handover names {0} listeners, more than {MAX_DESCRIPTORS}")]
    TooMany(usize),
}

/// Which listener a socket is. The supervisor passes it on unread, kinds it does not know included.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerName {
    /// What is served there; see [`kind`].
    pub kind: u8,
    /// The address as the settings say it.
    pub address: String,
    /// The original destination that the settings fix; empty where there is none.
    pub fixed: String,
}

/// Kinds of listeners.
pub mod kind {
    pub const OUTBOUND: u8 = 1;
    pub const INBOUND: u8 = 2;
    pub const HEALTH: u8 = 3;
    pub const ADMIN: u8 = 4;
}

/// Some of the listeners; a descriptor for each comes with the packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    pub names: Vec<ListenerName>,
    /// Nothing more comes.
    pub is_last: bool,
}

/// How many handovers there have been under this supervisor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub completed: u32,
    pub refused: u32,
    pub rolled_back: u32,
}

/// What a proxy learns that begins beside or after another one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preparation {
    pub counts: Counts,
    /// SHA-256 in hexadecimal of the program that died after it had taken over from ours; empty in an ordinary handover.
    pub returns_from: String,
}

/// Why a program was not put in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Another one is being put in place.
    Busy,
    /// The proxy is being ended.
    Ending,
    /// It cannot be started: no program, or none for this machine.
    NoProgram,
    /// It ended before it served.
    Ended,
    /// It had no certificate, no configuration or no listeners in time.
    Late,
    /// It died once after it had taken over.
    DiedBefore,
    /// What a later supervisor says.
    Other(u8),
}

impl Why {
    fn to_byte(self) -> u8 {
        match self {
            Self::Busy => 1,
            Self::Ending => 2,
            Self::NoProgram => 3,
            Self::Ended => 4,
            Self::Late => 5,
            Self::DiedBefore => 6,
            Self::Other(byte) => byte,
        }
    }

    fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Busy,
            2 => Self::Ending,
            3 => Self::NoProgram,
            4 => Self::Ended,
            5 => Self::Late,
            6 => Self::DiedBefore,
            other => Self::Other(other),
        }
    }
}

/// What a proxy says to its supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromProxy {
    /// The first message: who speaks.
    Hello { protocol: u16, version: String },
    /// It has a certificate and its first configuration, and waits for listeners.
    Configured,
    /// Its listeners, as it was asked for them.
    Listeners(Batch),
    /// It accepts connections.
    Serving,
    /// It asks to be replaced by the program of the descriptor that comes along.
    Replace,
    /// It will end, for this reason.
    Failed(String),
}

/// What a supervisor says to a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ToProxy {
    /// Nobody was here before: listen.
    Start,
    /// Others have the listeners: get ready, say [`FromProxy::Configured`], and wait.
    Prepare(Preparation),
    /// Give copies of the listeners, and go on accepting.
    HandOver,
    /// Here they are.
    TakeOver(Batch),
    /// Another one accepts now: finish what is under way, and end.
    Drain,
    /// No other one came.
    Refused { why: Why, reason: String },
    /// The counts have changed, whoever asked.
    Counted(Counts),
}

/// A message of one direction.
pub(super) trait Message: Sized {
    fn encode(&self) -> Vec<u8>;

    /// `None` for a kind that is not known here.
    fn decode(packet: &[u8]) -> Result<Option<Self>, MessageError>;

    /// Descriptors that must come along.
    fn descriptors(&self) -> usize;
}

impl Message for FromProxy {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello { protocol, version } => Writer::new(1).number(&protocol.to_be_bytes()).text(version).0,
            Self::Configured => Writer::new(2).0,
            Self::Listeners(batch) => Writer::new(3).batch(batch).0,
            Self::Serving => Writer::new(4).0,
            Self::Replace => Writer::new(5).0,
            Self::Failed(reason) => Writer::new(6).text(reason).0,
        }
    }

    fn decode(packet: &[u8]) -> Result<Option<Self>, MessageError> {
        let (kind, mut fields) = Reader::new(packet)?;
        Ok(Some(match kind {
            1 => Self::Hello { protocol: u16::from_be_bytes(fields.bytes()?), version: fields.text()? },
            2 => Self::Configured,
            3 => Self::Listeners(fields.batch()?),
            4 => Self::Serving,
            5 => Self::Replace,
            6 => Self::Failed(fields.text()?),
            _ => return Ok(None),
        }))
    }

    fn descriptors(&self) -> usize {
        match self {
            Self::Listeners(batch) => batch.names.len(),
            Self::Replace => 1,
            _ => 0,
        }
    }
}

impl Message for ToProxy {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Start => Writer::new(129).0,
            Self::Prepare(Preparation { counts, returns_from }) => {
                Writer::new(130).counts(*counts).text(returns_from).0
            }
            Self::HandOver => Writer::new(131).0,
            Self::TakeOver(batch) => Writer::new(132).batch(batch).0,
            Self::Drain => Writer::new(133).0,
            Self::Refused { why, reason } => Writer::new(134).number(&[why.to_byte()]).text(reason).0,
            Self::Counted(counts) => Writer::new(135).counts(*counts).0,
        }
    }

    fn decode(packet: &[u8]) -> Result<Option<Self>, MessageError> {
        let (kind, mut fields) = Reader::new(packet)?;
        Ok(Some(match kind {
            129 => Self::Start,
            130 => Self::Prepare(Preparation { counts: fields.counts()?, returns_from: fields.text()? }),
            131 => Self::HandOver,
            132 => Self::TakeOver(fields.batch()?),
            133 => Self::Drain,
            134 => Self::Refused { why: Why::from_byte(fields.byte()?), reason: fields.text()? },
            135 => Self::Counted(fields.counts()?),
            _ => return Ok(None),
        }))
    }

    fn descriptors(&self) -> usize {
        if let Self::TakeOver(batch) = self { batch.names.len() } else { 0 }
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn new(kind: u8) -> Self {
        Self(vec![kind])
    }

    fn number(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(self, text: &str) -> Self {
        let text = &text[..text.floor_char_boundary(MAX_TEXT)];
        self.number(&(text.len() as u16).to_be_bytes()).number(text.as_bytes())
    }

    fn counts(self, counts: Counts) -> Self {
        let counts = [counts.completed, counts.refused, counts.rolled_back];
        counts.iter().fold(self, |writer, count| writer.number(&count.to_be_bytes()))
    }

    fn batch(self, batch: &Batch) -> Self {
        let writer = self.number(&[u8::from(batch.is_last)]).number(&(batch.names.len() as u16).to_be_bytes());
        batch
            .names
            .iter()
            .fold(writer, |writer, name| writer.number(&[name.kind]).text(&name.address).text(&name.fixed))
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(packet: &'a [u8]) -> Result<(u8, Self), MessageError> {
        let (kind, fields) = packet.split_first().ok_or(MessageError::Empty)?;
        Ok((*kind, Self(fields)))
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(MessageError::Short)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn byte(&mut self) -> Result<u8, MessageError> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    fn text(&mut self) -> Result<String, MessageError> {
        let length = usize::from(u16::from_be_bytes(self.bytes()?));
        let (text, rest) = self.0.split_at_checked(length).ok_or(MessageError::Short)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map_err(|_| MessageError::Text)
    }

    fn counts(&mut self) -> Result<Counts, MessageError> {
        let mut count = || self.bytes().map(u32::from_be_bytes);
        Ok(Counts { completed: count()?, refused: count()?, rolled_back: count()? })
    }

    fn batch(&mut self) -> Result<Batch, MessageError> {
        let is_last = self.byte()? != 0;
        let count = usize::from(u16::from_be_bytes(self.bytes()?));
        if count > MAX_DESCRIPTORS {
            return Err(MessageError::TooMany(count));
        }
        let name = |fields: &mut Self| {
            Ok(ListenerName { kind: fields.byte()?, address: fields.text()?, fixed: fields.text()? })
        };
        let names = (0..count).map(|_| name(self)).collect::<Result<_, _>>()?;
        Ok(Batch { names, is_last })
    }
}

#[cfg(test)]
mod tests;
