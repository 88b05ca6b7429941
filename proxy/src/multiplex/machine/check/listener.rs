//! The peer's ears: what the machine writes is frames by the rules.

use std::collections::BTreeSet;

use crate::http2::PREFACE;
use crate::http2::frame::{FrameHeader, HEADER_BYTES, Kind, flags};

/// Reads everything the machine has written, however it is cut.
pub(super) struct Listener {
    from_client: bool,
    has_preface: bool,
    heard: Vec<u8>,
    has_settings: bool,
    /// The stream whose header block is not complete.
    open_block: Option<u32>,
    begun: BTreeSet<u32>,
    /// Their messages are complete, or they were reset.
    ended: BTreeSet<u32>,
}

impl Listener {
    pub(super) fn new(from_client: bool) -> Self {
        Self {
            from_client,
            has_preface: false,
            heard: Vec::new(),
            has_settings: false,
            open_block: None,
            begun: BTreeSet::new(),
            ended: BTreeSet::new(),
        }
    }

    pub(super) fn hear(&mut self, bytes: &[u8]) {
        self.heard.extend_from_slice(bytes);
        if self.from_client && !self.has_preface {
            if self.heard.len() < PREFACE.len() {
                return;
            }
            assert!(self.heard.starts_with(PREFACE));
            self.heard.drain(..PREFACE.len());
            self.has_preface = true;
        }
        while let Some(head) = self.heard.first_chunk::<HEADER_BYTES>() {
            let header = FrameHeader::parse(head);
            let whole = HEADER_BYTES + header.length as usize;
            if self.heard.len() < whole {
                return;
            }
            self.frame(header);
            self.heard.drain(..whole);
        }
    }

    fn frame(&mut self, header: FrameHeader) {
        assert!(self.has_settings || header.kind == Kind::Settings, "{header:?} came before SETTINGS");
        self.has_settings = true;
        let block = self.open_block.take();
        let continues = header.kind == Kind::Continuation;
        assert_eq!(block.is_some(), continues, "{header:?} in or out of a header block");
        assert!(!continues || block == Some(header.stream));
        if matches!(header.kind, Kind::Headers | Kind::Continuation) && !header.has(flags::END_HEADERS) {
            self.open_block = Some(header.stream);
        }
        match header.kind {
            Kind::Headers | Kind::Data => {
                assert!(header.stream % 2 == 1, "{header:?} on no stream of a client");
                assert!(!self.ended.contains(&header.stream), "{header:?} after the end");
                let is_new = header.kind == Kind::Headers && self.begun.insert(header.stream);
                assert!(is_new || self.begun.contains(&header.stream), "{header:?} before a head");
                if header.has(flags::END_STREAM) {
                    self.ended.insert(header.stream);
                }
            }
            Kind::ResetStream => {
                assert!(header.stream % 2 == 1 && header.length == 4, "{header:?}");
                self.ended.insert(header.stream);
            }
            Kind::Settings | Kind::Ping | Kind::GoAway => assert_eq!(header.stream, 0, "{header:?}"),
            Kind::WindowUpdate => assert_eq!(header.length, 4, "{header:?}"),
            Kind::Continuation => {}
            Kind::Priority | Kind::PushPromise | Kind::Unknown(_) => panic!("{header:?} is never sent"),
        }
    }
}
