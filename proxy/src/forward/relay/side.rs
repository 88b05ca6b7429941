//! What the relay asks of a side: to give a body piece by piece, and to take one.

use std::sync::Arc;
use std::task::{Context, Poll};

use weft_core::endpoint::Endpoint;

use super::Request;
use crate::failure::Failure;
use crate::forward::Service;
use crate::http2::{ErrorCode, Fields};
use crate::pool::Pooled;
use crate::stream::{Connection, Text};

/// What a side has for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::forward) enum Available {
    Data,
    /// Nothing more comes, trailers apart.
    End,
}

/// Why a side gives or takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::forward) enum Broken {
    /// The peer gave up this one message.
    Reset(ErrorCode),
    /// The peer says that it did nothing with the message.
    Unprocessed,
    /// The connection is gone.
    Lost,
    /// What came is not the body that its head promised.
    Malformed,
}

impl Broken {
    /// How it is told when it was an upstream's.
    pub(in crate::forward) fn of_upstream(self) -> Failure {
        match self {
            Self::Reset(_) => Failure::UpstreamReset,
            Self::Unprocessed => Failure::UpstreamRefused,
            Self::Lost => Failure::UpstreamClosed,
            Self::Malformed => Failure::UpstreamProtocol,
        }
    }
}

/// One message each way, whatever it travels in.
pub(in crate::forward) trait Side {
    /// Ready when [`Self::with_data`] has something to show, or nothing more comes.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Available, Broken>>;

    /// Shows data at hand, and whether nothing at all follows it: its last piece and the end then travel together. As much
    /// as is returned is used up.
    fn with_data(&mut self, take: impl FnOnce(&[u8], bool) -> usize);

    /// What came behind the body, as it may be passed on.
    fn take_trailers(&mut self) -> Option<Fields>;

    /// Ready when something can be written: so much.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>>;

    /// Writes some of a body, at most what there is room for; with `ends`, nothing follows.
    fn write(&mut self, bytes: &[u8], ends: bool);

    /// Something may follow the body that is written.
    fn takes_trailers(&self) -> bool {
        true
    }

    /// Ends the body.
    fn end(&mut self, trailers: Option<&Fields>);

    /// Ready when what was written is on its way.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>;
}

/// The head of an answer, accepted and as it goes to a client of HTTP/2.
#[derive(Debug)]
pub(in crate::forward) struct AnswerHead {
    pub(in crate::forward) fields: Fields,
    pub(in crate::forward) status: u16,
    /// No body and no trailers follow.
    pub(in crate::forward) ended: bool,
    /// The proxy beside the application says that the application saw nothing of the request.
    pub(in crate::forward) is_unsent: bool,
    /// From here on bytes pass both ways.
    pub(in crate::forward) is_tunnel: bool,
}

/// An upstream from which bytes pass both ways.
#[derive(Debug)]
pub(in crate::forward) enum Tunnel {
    Http1(Box<Pooled>),
    Http2(Connection),
}

impl AsMut<Connection> for Tunnel {
    fn as_mut(&mut self) -> &mut Connection {
        match self {
            Self::Http1(pooled) => &mut pooled.connection,
            Self::Http2(connection) => connection,
        }
    }
}

impl AnswerHead {
    pub(in crate::forward) fn is_interim(&self) -> bool {
        self.status < 200
    }
}

/// Who asks.
pub(in crate::forward) trait Client: Side {
    /// Takes the head of an answer, interim or final. `request_is_finished`: its body was taken to its end.
    fn answer(&mut self, head: &AnswerHead, request_is_finished: bool);

    /// Ready when the client has given up. What it sends early waits.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Broken>;

    /// Ready when nothing has moved for too long: `moved` has stayed the same.
    fn poll_idle(&mut self, moved: u64, cx: &mut Context<'_>) -> Poll<()>;
}

/// How the body that is written tells its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::forward) enum Outgoing {
    /// Its length was told, or its end is that of the connection, or there is none.
    Raw,
    Chunked,
}

/// The head of a request as it goes to an upstream.
#[derive(Debug)]
pub(in crate::forward) enum RequestHead {
    Http1 {
        bytes: Text,
        /// How the body behind it is written.
        outgoing: Outgoing,
    },
    Http2(Fields),
}

impl RequestHead {
    /// Bytes, as they are measured.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Http1 { bytes, .. } => bytes.len() as u64,
            Self::Http2(fields) => fields.list_size() as u64,
        }
    }
}

/// Who is asked.
pub(in crate::forward) trait Upstream: Side + Sized {
    /// A connection to the endpoint, kept or new, that the request's head is on its way in. `fresh`: a new one, where
    /// a kept one may be stale.
    ///
    /// # Errors
    /// [`Failure`] with nothing sent.
    async fn reach(
        service: &Service<'_>,
        request: &Request,
        endpoint: &Arc<Endpoint>,
        fresh: bool,
    ) -> Result<Self, Failure>;

    /// The failure says nothing about the endpoint: its end of this connection was closed already, or closing.
    fn may_be_stale(&self, failure: Failure) -> bool;

    /// Not one byte of the request was written.
    fn sent_nothing(&self) -> bool;

    /// Ready with the head of an answer, interim or final.
    ///
    /// # Errors
    /// Why there is none.
    fn poll_head(&mut self, request: &Request, cx: &mut Context<'_>) -> Poll<Result<AnswerHead, Failure>>;

    /// What is left of it is bytes.
    fn into_tunnel(self) -> Tunnel;

    /// Both messages have come to their end.
    fn give_back(self, service: &Service<'_>);
}
